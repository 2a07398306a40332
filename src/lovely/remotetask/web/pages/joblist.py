# SPDX-License-Identifier: ZPL-2.1
"""Pages of the list of jobs, in the order of any column, as far as that can be had.

Schedules stand in a list of their own, see `schedules`.  Of a *short* list all jobs are looked at,
so it can be in any order.  A *long* one is walked in the order of its indexes, a page at a time;
in another order only the jobs at one of its ends can be shown, and it is said that it is so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from lovely.remotetask.interfaces import CRONJOB, FINAL_STATUSES, STATUSES
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.listing import LOOK_SIZE, cursor_of, list_jobs
from lovely.remotetask.web.operations import is_schedule

#: A list with up to so many jobs is short.
SHORT = 500

#: How many jobs a page can have, and how many it has unless something else is asked for.
SIZES = (10, 20, 50, 100, 200)
DEFAULT_SIZE = 20

#: The statuses of what stands in the list.
LISTED = tuple(status for status in STATUSES if status != CRONJOB)

#: The names of the columns: what they are in addresses, what they are called.
COLUMNS = (
    ("id", "Id"),
    ("task", "Task"),
    ("status", "Status"),
    ("detail", "Detail"),
    ("created", "Created"),
    ("started", "Started"),
    ("completed", "Completed"),
)

#: Of these the latest comes first, unless something else is asked for.
TIMES = frozenset({"created", "started", "completed"})


class Asked(NamedTuple):
    """Which page of which list is asked for.

    :ivar status: only jobs with this status; None is any.
    :ivar task: only jobs of this task; None is any.
    :ivar sort: the column whose order it is; None is the order in which the list is walked.
    :ivar is_backwards: the highest, or latest, first.
    :ivar size: how many jobs a page has.
    :ivar after: where a page of a long list begins.
    :ivar before: where one ends, seen from behind.
    :ivar page: the number of a page of what was sorted.
    """

    status: str | None = None
    task: str | None = None
    sort: str | None = None
    is_backwards: bool = True
    size: int = DEFAULT_SIZE
    after: str | None = None
    before: str | None = None
    page: int = 1

    @property
    def statuses(self) -> tuple[str, ...]:
        """The statuses that are in the list."""
        return LISTED if self.status is None else (self.status,)

    def query(self, **changes: Any) -> dict[str, Any]:
        """Return the parameters of an address, some of them changed; see `asked`."""
        asked = self._replace(**changes)
        order = None
        if asked.sort is not None:
            order = "descending" if asked.is_backwards else "ascending"
        return {
            "status": asked.status,
            "task": asked.task,
            "sort": asked.sort,
            "order": order,
            "size": None if asked.size == DEFAULT_SIZE else asked.size,
            "after": asked.after,
            "before": asked.before,
            "page": None if asked.page == 1 else asked.page,
        }

    @property
    def first(self) -> Asked:
        """The first page of the same list."""
        return self._replace(after=None, before=None, page=1)


def asked(given: Mapping[str, str]) -> Asked:
    """Return what the parameters of an address ask for; what makes no sense is passed over."""
    status, sort = given.get("status"), given.get("sort")
    is_known = sort in dict(COLUMNS)
    backwards = sort in TIMES or not is_known
    if is_known and given.get("order") in ("ascending", "descending"):
        backwards = given["order"] == "descending"
    size = _number(given.get("size"), DEFAULT_SIZE)
    return Asked(
        status if status in LISTED else None,
        given.get("task") or None,
        sort if is_known else None,
        backwards,
        min(max(size, 1), max(SIZES)),
        _cursor(given.get("after")),
        _cursor(given.get("before")),
        max(1, _number(given.get("page"), 1)),
    )


def _number(text: str | None, otherwise: int) -> int:
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) < 7
    return int(text) if is_number and text is not None else otherwise


def _cursor(text: str | None) -> str | None:
    return text if text and cursor_of(text) is not None else None


class Shown(NamedTuple):
    """A page of the list.

    :ivar jobs: records of jobs, in order.
    :ivar total: how many jobs the list has; with a task, None where that is not known.
    :ivar sort: the column by which they are ordered, and None for the order of the walk.
    :ivar is_backwards: see `Asked`.
    :ivar is_limited: only those at one end of the list are in this order, or were looked at.
    :ivar previous: what to ask for before; None at the beginning.
    :ivar next: what to ask for then; None at the end.
    """

    jobs: list[Any]
    total: int | None
    sort: str | None
    is_backwards: bool
    is_limited: bool
    previous: Asked | None
    next: Asked | None


def show(service: Any, wanted: Asked, detail: Callable[[Any], str]) -> Shown:
    """Return a page of the list of jobs.

    :param detail: returns what stands in the column Detail.
    """
    counts = count_jobs(service)
    total = sum(counts[status] for status in wanted.statuses)
    if total <= SHORT:
        return _sorted(service, wanted, total, "created", detail, is_short=True)
    if wanted.sort is None or (wanted.sort == "completed" and wanted.status in FINAL_STATUSES):
        return _walked(service, wanted, total)
    return _sorted(service, wanted, total, wanted.sort, detail, is_short=False)


def _sorted(
    service: Any,
    wanted: Asked,
    total: int,
    otherwise: str,
    detail: Callable[[Any], str],
    is_short: bool,
) -> Shown:
    """Return a page of what is sorted, which is all of the list, or one end of it."""
    sort = wanted.sort or otherwise
    latest = is_short or sort not in TIMES or wanted.is_backwards
    key, is_listed = _key(sort, detail), chooser(wanted.task)
    keyed: list[tuple[Any, Any]] = []

    def note(job: Any) -> bool:
        """Note by what a job is sorted: of a large one the list keeps no more."""
        if len(keyed) < LOOK_SIZE and is_listed(job):
            keyed.append((key(job), job))
        return False

    list_jobs(service, wanted.statuses, note, latest, None, LOOK_SIZE)
    keyed.sort(key=itemgetter(0), reverse=wanted.is_backwards)
    jobs = [job for _, job in keyed]
    last = max(1, -(-len(jobs) // wanted.size))
    number = min(wanted.page, last)
    begin = (number - 1) * wanted.size
    here = wanted.first
    return Shown(
        jobs[begin : begin + wanted.size],
        len(jobs) if is_short else total if wanted.task is None else None,
        sort,
        wanted.is_backwards,
        not is_short,
        here._replace(page=number - 1) if number > 1 else None,
        here._replace(page=number + 1) if number < last else None,
    )


def _key(sort: str, detail: Callable[[Any], str]) -> Callable[[Any], Any]:
    # Behind it is the order in which they were added, as far as that is known.
    values: dict[str, Callable[[Any], Any]] = {
        "id": lambda job: job.__name__.zfill(24),
        "task": lambda job: job.task,
        "status": lambda job: job.status,
        "detail": detail,
        "created": lambda job: job.created_at,
        "started": lambda job: job.started_at or 0.0,
        "completed": lambda job: job.completed_at or 0.0,
    }
    value = values[sort]
    return lambda job: (value(job), job.created_at, job.id)


def _walked(service: Any, wanted: Asked, total: int) -> Shown:
    """Return a page of a long list, in the order of the indexes."""
    forwards = wanted.is_backwards  # from the latest to the earliest, as `list_jobs` sees it
    statuses, accepts, size = wanted.statuses, chooser(wanted.task), wanted.size
    here = wanted.first
    if wanted.before is not None:
        begin = cursor_of(wanted.before)
        back = list_jobs(service, statuses, accepts, not forwards, begin, size)
        if back.next is not None:
            jobs = back.jobs[::-1]
            return Shown(
                jobs,
                _total(wanted, total),
                wanted.sort,
                forwards,
                False,
                here._replace(before=back.next),
                here._replace(after=_moved(wanted.before, 1 if forwards else -1)),
            )
        wanted = here  # fewer than a page has: that is the first one
    begin = None if wanted.after is None else cursor_of(wanted.after)
    found = list_jobs(service, statuses, accepts, forwards, begin, size)
    previous: Asked | None = None
    following: Asked | None = None
    if wanted.after is not None:
        previous = here._replace(before=_moved(wanted.after, -1 if forwards else 1))
    if found.next is not None:
        following = here._replace(after=found.next)
    is_limited = following is not None and len(found.jobs) < size
    return Shown(
        found.jobs, _total(wanted, total), wanted.sort, forwards, is_limited, previous, following
    )


def _total(wanted: Asked, total: int) -> int | None:
    return total if wanted.task is None else None


def _moved(cursor: str, by: int) -> str:
    """Return a cursor from which the walk meets the entry that the other one was taken from."""
    return f"{max(0, int(cursor, 16) + by):x}"


def chooser(task: str | None) -> Callable[[Any], bool]:
    """Return what says whether a job stands in the list.

    :param task: None is any.
    """
    return lambda job: task in (None, job.task) and not is_schedule(job)
