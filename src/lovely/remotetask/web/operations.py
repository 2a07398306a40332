# SPDX-License-Identifier: ZPL-2.1
"""What can be asked of a service, and told to it: shared by the web service and the command.

Each takes a service of either door, and ids as they are shown.  Nothing here commits, and nothing
knows of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lovely.remotetask.base.storable import OUTSIDE_MAX_BYTES, OUTSIDE_MAX_DEPTH, check_limits
from lovely.remotetask.engine import control, undoing
from lovely.remotetask.engine.finding import Filter, list_page
from lovely.remotetask.errors import (
    CannotUndo,
    InvalidArgument,
    InvalidInput,
    InvalidSchedule,
    JobIsLive,
    JobNotDone,
    JobNotFound,
    JobUnusable,
    RemoteTaskError,
    ServiceNotStored,
    TaskNotFound,
    moment_of,
    shown,
)
from lovely.remotetask.interfaces import CANCELLED
from lovely.remotetask.job import CronJob
from lovely.remotetask.remote.base import ProcessorBase
from lovely.remotetask.remote.record import ID_DIGITS
from lovely.remotetask.setting import read
from lovely.remotetask.store.joblog import log_of as lines_of
from lovely.remotetask.store.listing import Page, let_go
from lovely.remotetask.store.quarantine import load
from lovely.remotetask.web.facts import (
    counts_of,
    facts_of,
    failures_of,
    input_of,
    plain_value,
    told_of,
)

#: The codes of HTTP for errors.
STATUS_OF_ERRORS: dict[type, int] = {
    JobNotFound: 404,
    JobIsLive: 409,
    JobUnusable: 409,
    JobNotDone: 409,
    CannotUndo: 409,
    ServiceNotStored: 409,
    TaskNotFound: 422,
    InvalidInput: 422,
    InvalidSchedule: 422,
    InvalidArgument: 422,
    RemoteTaskError: 400,
}


def status_of(error: RemoteTaskError) -> int:
    """Return the code of HTTP for an error."""
    codes = (STATUS_OF_ERRORS.get(kind) for kind in type(error).__mro__)
    return next(code for code in codes if code is not None)


def is_remote(service: Any) -> bool:
    """Say whether a service is a remote processor, whose jobs are objects."""
    return isinstance(service, ProcessorBase)


# -- finding -------------------------------------------------------------------------------


def number_of(service: Any, jobid: Any) -> int:
    """Return the number under which a service keeps a job.

    :param jobid: as it is shown: a number, also as text, or 24 digits in hexadecimal notation.
    :raises JobNotFound: there is no such job.
    """
    text = jobid if isinstance(jobid, str) else ""
    number: int | None = None
    if type(jobid) is int:
        number = jobid
    elif re.fullmatch("[0-9]{1,10}", text):
        number = int(text)
    elif re.fullmatch("[0-9a-f]{24}", text):
        number = int(text[ID_DIGITS:], 16)
    if number is None or not has_job(service, number, jobid):
        raise JobNotFound(f"there is no job {text or shown(jobid)}")
    return number


def has_job(service: Any, number: int, jobid: int | str) -> bool:
    """Say whether a service has a job under a number, and shows it by an id."""
    if number not in service.jobs:
        return False
    job = load(service.jobs, number)
    return job is None or str(jobid) in (str(number), job.__name__)


def find_job(service: Any, jobid: Any) -> Any:
    """Return the record of a job.

    :raises JobNotFound: there is none.
    :raises JobUnusable: it cannot be read here.
    """
    return control.find_job(service, number_of(service, jobid))


def list_jobs(
    service: Any,
    status: str | None = None,
    task: str | None = None,
    text: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    order: str = "newest",
    after: str | None = None,
    limit: int = 50,
    with_schedules: bool = True,
) -> Page:
    """Return a page of jobs; see `ITaskService.list`, also for the time by which they are ordered.

    Like ``task``, ``text`` is looked for in 1,000 entries of the indexes at the most: a page may
    have few jobs, and a ``next`` all the same.

    :param text: only jobs with this text in their error, in small letters or capital ones.
    :param since: an aware datetime: only jobs whose time is not before that.
    :param until: the same, not later.
    :param with_schedules: also those that `schedules.list_schedules` has.
    """
    wanted = None if text is None else text.casefold()

    def accepts(job: Any) -> bool:
        if not with_schedules and is_schedule(job):
            return False
        return wanted is None or wanted in (job.error or "").casefold()

    chosen = Filter(accepts, _seconds(since, "since"), _seconds(until, "until"))
    return list_page(service, status, task, order, after, limit, chosen)


def is_schedule(job: Any) -> bool:
    """Say whether a job is one that goes on: a schedule that waits, rests or runs."""
    return isinstance(job, CronJob) and job.delay is None and not job.is_final


def _seconds(moment: datetime | None, name: str) -> float | None:
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise InvalidArgument(f"{name} must have a time zone")
    return moment_of(max(0.0, moment.timestamp()), name)


def list_told(service: Any, **filters: Any) -> dict[str, Any]:
    """Return a page of jobs as plain data; see `list_jobs`."""
    page = list_jobs(service, **filters)
    told = []
    for job in page.jobs:
        told.append(told_of(job))
        let_go([job])
    return {"jobs": told, "next": page.next}


def all_of(service: Any, job: Any) -> dict[str, Any]:
    """Return all that is known of a job as plain data."""
    return {
        **facts_of(service, job),
        "input": plain_value(input_of(job)),
        "result": plain_value(job.output),
        "failures": failures_of(job),
        "log": log_of(service, job),
    }


def log_of(service: Any, job: Any) -> list[dict[str, Any]]:
    """Return what a job has logged, the first line first."""
    return [line._asdict() for line in lines_of(service, job)]


def task_names(service: Any) -> list[str]:
    """Return the names that jobs can be added for, sorted."""
    return sorted(service.factories if is_remote(service) else service.getAvailableTasks())


# -- adding --------------------------------------------------------------------------------


def check_outside(service: Any, value: Any) -> None:
    """Check an input that comes from outside, also where the service sets no bounds of its own.

    :raises InvalidInput: it is too large, or nested too deep.
    """
    max_bytes, max_depth = read(service, "max_input_bytes"), read(service, "max_input_depth")
    check_limits(
        value,
        OUTSIDE_MAX_BYTES if max_bytes is None else max_bytes,
        OUTSIDE_MAX_DEPTH if max_depth is None else max_depth,
    )


def add(
    service: Any,
    task: str,
    input: Any = None,
    delay: float | None = None,
    at: datetime | None = None,
    note: str | None = None,
    start_later: bool = False,
    **others: Any,
) -> int | str:
    """Add a job with an input from outside; return its id.  See `ITaskService.add`.

    :param others: further arguments of that; a follow-up is a pair.
    """
    check_outside(service, input)
    for name in ("on_success", "on_error"):
        check_outside(service, others.get(name))
    options = {"delay": delay, "at": at, "note": note, "startLater": start_later or None, **others}
    given = {name: value for name, value in options.items() if value is not None}
    if not is_remote(service):
        jobid: int | str = service.add(task, input, **given)
        return jobid
    if given:
        raise InvalidArgument(f"jobs of a remote processor take no {', '.join(given)}")
    jobid = service.addJob(task, input)
    return jobid


def add_many(
    service: Any, task: str, inputs: list[Any], priority: int | None = None
) -> list[int | str]:
    """Add a job for each input from outside; return their ids.  See `ITaskService.add_many`."""
    check_outside(service, inputs)
    if not is_remote(service):
        return list(service.add_many(task, inputs, priority=priority or 0))
    if priority is not None:
        raise InvalidArgument("jobs of a remote processor take no priority")
    return [service.addJob(task, input) for input in inputs]


def add_group(
    service: Any,
    task: str,
    inputs: list[Any],
    then: tuple[str, Any],
    priority: int = 0,
    lock: str | None = None,
) -> int:
    """Add jobs and one at their end, with inputs from outside; return the id of the group.

    See `ITaskService.add_group`.

    :raises InvalidArgument: it is a remote processor.
    """
    if is_remote(service):
        raise InvalidArgument("a remote processor has no groups")
    check_outside(service, inputs)
    check_outside(service, then[1])
    groupid: int = service.add_group(task, inputs, then, priority=priority, lock=lock)
    return groupid


def group_told(service: Any, groupid: Any) -> dict[str, Any]:
    """Return what programs are told of a group.

    :raises JobNotFound: there is none.
    """
    if is_remote(service):
        raise JobNotFound("a remote processor has no groups")
    return counts_of(service.group(number_of(service, groupid)))


def find(service: Any, unique_key: str) -> int | None:
    """Return the id of the job that waits or runs with a unique key; see `ITaskService.find`."""
    jobid: int | None = None if is_remote(service) else service.find(unique_key)
    return jobid


# -- one job -------------------------------------------------------------------------------


def cancel(service: Any, jobid: Any) -> str:
    """Take a job back; return what has come of it.

    :raises JobNotFound: there is no such job.
    """
    number = number_of(service, jobid)
    control.cancel(service, number)
    job = control.find_job(service, number)
    if job.status == CANCELLED:
        return "is cancelled"
    return "is asked to stop" if job.is_cancel_requested else f"is {job.status} already"


def retry(service: Any, jobid: Any, input: Any = control.NOT_GIVEN) -> str:
    """Let a job run again; return what has come of it.  See `ITaskService.retry`.

    :param input: another input, from outside.
    """
    number = number_of(service, jobid)
    if input is control.NOT_GIVEN:
        control.retry(service, number)
    elif is_remote(service):
        raise InvalidArgument("jobs of a remote processor are repeated with their own input")
    else:
        check_outside(service, input)
        service.retry(number, input)
    return "runs again"


def run_now(service: Any, jobid: Any) -> str:
    """Let a job that waits run at once; return what has come of it.  See `ITaskService.run_now`."""
    control.run_now(service, number_of(service, jobid))
    return "is due now"


def undo(service: Any, jobid: Any, by: str) -> str:
    """Undo all that a completed job has written; return what has come of it.

    See `ITaskService.undo`.

    Transaction: must not run in one with changes; commits.
    """
    undoing.undo(service, number_of(service, jobid), by)
    return "is undone"


def reschedule(service: Any, jobid: Any) -> str:
    """Count the schedule of a job anew; return what has come of it.

    See `ITaskService.reschedule`.
    """
    control.reschedule(service, number_of(service, jobid))
    return "counts from now"


def start(service: Any, jobid: Any) -> str:
    """Queue a job that was added to be started later; return what has come of it.

    :raises InvalidArgument: it waits for nobody to start it.
    """
    number = number_of(service, jobid)
    if not control.start_job(service, number):
        raise InvalidArgument(f"job {jobid} does not wait to be started")
    return "is queued"


def remove(service: Any, jobid: Any) -> str:
    """Remove a job that has ended; return what has come of it.

    :raises JobIsLive: it waits or runs.
    """
    control.remove(service, number_of(service, jobid))
    return "is removed"


#: What a job can be told: the verb -> called with the service and the id.
VERBS: dict[str, Callable[[Any, Any], str]] = {
    "cancel": cancel,
    "retry": retry,
    "run-now": run_now,
    "start": start,
}
