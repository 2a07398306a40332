# SPDX-License-Identifier: ZPL-2.1
"""What is asked of the lists of jobs.  Nothing here writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lovely.remotetask.base.ownership import check_parts
from lovely.remotetask.errors import InvalidArgument, is_kind, plain, shown, whole_of
from lovely.remotetask.interfaces import STATUSES
from lovely.remotetask.job import Job
from lovely.remotetask.store.index import entry_of
from lovely.remotetask.store.listing import Page, cursor_of, list_jobs
from lovely.remotetask.store.tree import MAX_JOB_ID
from lovely.remotetask.task import check_name

#: No page has more jobs than this.
MAX_PAGE_SIZE = 1000

#: How a list can be ordered -> whether that is backwards.
ORDERS = {"newest": True, "oldest": False}


class Filter(NamedTuple):
    """Which jobs a list has beyond their status and task, and where it begins and ends.

    :ivar accepts: says of a job whether it is wanted.
    :ivar since: seconds since the epoch: only jobs whose time is not before that, of the times by
        which a list is ordered, see `ITaskService.list`; None is any.
    :ivar until: the same, not later.
    """

    accepts: Callable[[Job], bool] = lambda job: True
    since: float | None = None
    until: float | None = None


def list_page(
    service: Any,
    status: Any,
    task: Any,
    order: Any,
    after: Any,
    limit: Any = MAX_PAGE_SIZE,
    chosen: Filter | None = None,
) -> Page:
    """Return a page of jobs; see `ITaskService.list`.

    :raises InvalidArgument: an argument makes no sense.
    """
    check_parts(service)
    if status is not None and (not is_kind(status, str) or plain(status) not in STATUSES):
        raise InvalidArgument(f"there is no status {shown(status)}")
    if not is_kind(order, str) or plain(order) not in ORDERS:
        raise InvalidArgument(f"order must be 'newest' or 'oldest', not {shown(order)}")
    begin = None
    if after is not None:
        begin = cursor_of(plain(after)) if is_kind(after, str) else None
        if begin is None:
            raise InvalidArgument(f"after must be what a page has as next, not {shown(after)}")
    number = whole_of(limit)
    if number is None or not 1 <= number <= MAX_PAGE_SIZE:
        raise InvalidArgument(f"limit must be an int of 1 to {MAX_PAGE_SIZE}, not {shown(limit)}")
    statuses = STATUSES if status is None else [plain(status)]
    backwards = ORDERS[plain(order)]
    name = task_name(task)
    chosen = chosen or Filter()
    begin, end = _bounds(chosen, backwards, begin)

    def accepts(job: Job) -> bool:
        return name in (None, job.task) and chosen.accepts(job)

    return list_jobs(service, statuses, accepts, backwards, begin, number, end)


def _bounds(chosen: Filter, backwards: bool, begin: int | None) -> tuple[int | None, int | None]:
    """Return the order behind which a page begins, and that at which its list ends."""
    first = None if chosen.since is None else entry_of(chosen.since, 0) - 1
    last = None if chosen.until is None else entry_of(chosen.until, MAX_JOB_ID) + 1
    if backwards:
        return _nearer(min, begin, last), first
    return _nearer(max, begin, first), last


def _nearer(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


def task_name(task: Any) -> str | None:
    """Return the name of a task; None stays what it is.

    :raises InvalidArgument: it can be none.
    """
    if task is None:
        return None
    if not is_kind(task, str):
        raise InvalidArgument(f"task must be the name of a task, not {shown(task)}")
    check_name(task)
    return plain(task)
