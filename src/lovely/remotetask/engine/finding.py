# SPDX-License-Identifier: ZPL-2.1
"""What is asked of the lists of jobs.  Nothing here writes."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.base.ownership import check_parts
from lovely.remotetask.errors import InvalidArgument, is_kind, plain, shown, whole_of
from lovely.remotetask.interfaces import STATUSES
from lovely.remotetask.store.listing import Page, cursor_of, list_jobs
from lovely.remotetask.task import check_name

#: No page has more jobs than this.
MAX_PAGE_SIZE = 1000

#: How a list can be ordered -> whether that is backwards.
ORDERS = {"newest": True, "oldest": False}


def list_page(
    service: Any, status: Any, task: Any, order: Any, after: Any, limit: Any = MAX_PAGE_SIZE
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
    return list_jobs(service, statuses, task_name(task), ORDERS[plain(order)], begin, number)


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
