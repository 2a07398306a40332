# SPDX-License-Identifier: ZPL-2.1
"""What can be told to many jobs of a service at once.

It commits by itself, a batch at a time: no transaction is larger than it need be, and what was done
stays done if the next batch cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lovely.remotetask.engine import control
from lovely.remotetask.engine.finding import task_name
from lovely.remotetask.engine.retention import remove_oldest
from lovely.remotetask.errors import JobUnusable
from lovely.remotetask.interfaces import (
    DELAYED,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.web.operations import list_jobs

#: No more jobs than this are removed, repeated or cancelled in one transaction.
REMOVE_SIZE = 500
RETRY_SIZE = 200

#: A transaction that meets so many write conflicts is given up.  More than ZODB's usual three, for
#: workers are at the same jobs.
TRIES = 10


def in_batches(
    manager: Any, service: Any, change: Callable[[int], int], size: int, limit: int | None = None
) -> int:
    """Call ``change(count)`` until it has changed fewer than it may; return how many in all.

    Each call is a transaction of its own.  Not until there is nothing left: who goes on ending
    jobs must not keep us here.

    :param size: how many it may change at once.
    :param limit: how many in all; None is any number.

    Transaction: commits, a batch at a time.
    """
    total = 0
    while True:
        allowed = size if limit is None else min(size, limit - total)
        count = 0
        for attempt in manager.attempts(TRIES):
            with attempt:
                count = change(allowed)
        total += count
        # A job that was changed is loaded once and never again, however large it is.
        service._p_jar.cacheMinimize()
        if count < allowed or total == limit:
            return total


def clean(
    manager: Any,
    service: Any,
    statuses: Iterable[str] = FINAL_STATUSES,
    before: float | None = None,
    limit: int | None = None,
) -> dict[str, int]:
    """Remove the jobs with some final statuses, those that ended first; return their numbers.

    :param before: seconds since the epoch: only jobs that ended before; None is all.
    :param limit: how many of each status; None is all.

    Transaction: commits, a batch at a time.
    """

    def remove(status: str) -> int:
        def change(count: int) -> int:
            return remove_oldest(service, status, count, before)

        return in_batches(manager, service, change, REMOVE_SIZE, limit)

    return {status: remove(status) for status in dict.fromkeys(statuses)}


def retry_all(
    manager: Any, service: Any, task: str | None, before: float, limit: int | None = None
) -> int:
    """Let errors run again, those that ended first; return their number.

    :param before: seconds since the epoch: only those that ended before, so that what fails once
        more is not repeated once more.
    :param limit: how many; None is all.

    Transaction: commits, a batch at a time.
    """
    task = task_name(task)

    def change(count: int) -> int:
        return control.retry_all(service, task, before, count)

    return in_batches(manager, service, change, RETRY_SIZE, limit)


#: What `cancel_all` cancels.
CANCELLED_BY_ALL = (QUEUED, DELAYED, STARTLATER, PROCESSING)


def cancel_all(manager: Any, service: Any, task: str | None = None) -> int:
    """Cancel what waits, and ask what runs to stop; schedules stay.  Return the number of jobs.

    Jobs that are added meanwhile may be cancelled too, or not.

    Transaction: commits, a batch at a time.
    """
    total = 0
    for status in CANCELLED_BY_ALL:
        after: str | None = None
        is_first = True
        while is_first or after is not None:
            is_first = False
            count = 0
            for attempt in manager.attempts(TRIES):
                with attempt:
                    page = list_jobs(
                        service,
                        status,
                        task,
                        None,
                        None,
                        None,
                        "oldest",
                        after,
                        RETRY_SIZE,
                        with_schedules=False,
                    )
                    count = sum(_cancel_one(service, job) for job in page.jobs)
            total += count
            after = page.next
            service._p_jar.cacheMinimize()
    return total


def _cancel_one(service: Any, job: Any) -> bool:
    """Cancel a job; say whether something came of it."""
    if job.is_cancel_requested:
        return False
    try:
        control.cancel_job(service, job)
    except JobUnusable:  # it cannot be written here
        return False
    return True
