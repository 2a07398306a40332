# SPDX-License-Identifier: ZPL-2.1
"""Run what is due in the thread of the test, and raise what fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.engine.inline import AT_ONCE_SECONDS, process_one
from lovely.remotetask.errors import JobCancelled, JobFailed, RetryLater
from lovely.remotetask.job import Job


class Run(NamedTuple):
    """A job that was run.

    :ivar job: the job.
    :ivar error: what its last attempt has raised, as far as that is a failure.
    """

    job: Job
    error: BaseException | None


def runs(
    service: Any,
    accepts: Callable[[Job], bool] = lambda job: True,
    at_once_seconds: float = AT_ONCE_SECONDS,
) -> Iterator[Run]:
    """Run the jobs that are due, each once, also those that they add; yield them as they end."""
    done: set[int] = set()
    while True:
        before = set(done)
        ran = process_one(service, time.time, len(done), done, at_once_seconds, accepts)
        if ran is None:
            return
        [jobid] = done - before
        error = ran.error
        if error is not None and issubclass(type(error), (RetryLater, JobCancelled)):
            error = None
        yield Run(service.jobs[jobid], error)


def run_all(service: Any, raises: bool = True) -> list[Job]:
    """Run all jobs that are due, in this thread; return them, in the order in which they ran.

    So are those that they add, and repeats that would come within a second.  Jobs run in the
    transaction of the caller, as with `ITaskService.process`, and see what it has changed.

    :param service: a service in a database, or in none.
    :param raises: raise what fails, when all have run.
    :raises JobFailed: a job has failed, and was not repeated, or in vain; its text has the
        traceback, and its cause is what the task has raised.

    Transaction: caller commits.
    """
    check_begun(service)
    ran = list(runs(service))
    failed = [run for run in ran if run.error is not None]
    if failed and raises:
        first = JobFailed.of(failed[0].job)
        others = "".join(f"\n\nalso failed: {JobFailed.of(run.job)}" for run in failed[1:])
        raise JobFailed(f"{first}{others}") from failed[0].error
    return [run.job for run in ran]
