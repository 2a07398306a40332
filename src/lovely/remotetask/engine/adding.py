# SPDX-License-Identifier: ZPL-2.1
"""Adding jobs: what is given for them, their ids, and where they go.  Nothing here commits.

Two volatile attributes of the service are used: ``_v_next_id``, where the run of its ids goes
on, and ``_v_last``, the last job that was added.  They are set by way of `vars`, once the service
is loaded: that is no write, of which anybody would have to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from lovely.remotetask import setting
from lovely.remotetask.around import captured
from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import stay_current
from lovely.remotetask.base.reference import referring
from lovely.remotetask.base.storable import check_limits, check_storable
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.telling import note, note_failed
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    TaskNotFound,
    is_kind,
    seconds_of,
    shown,
)
from lovely.remotetask.events import JobAdded, is_heard
from lovely.remotetask.job import Job
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.expiry import watch_expiry
from lovely.remotetask.store.keys import hold_key, job_with
from lovely.remotetask.task import check_input

#: What `check_options` returns for a job for which nothing is given.
NO_OPTIONS: Mapping[str, Any] = {}

#: What bounds inputs.
_LIMITS = ("max_input_bytes", "max_input_depth")


def check_given(service: Any, task: Any, input: Any, retry: RetryPolicy | None) -> Any:
    """Check what is given for a new job; return the input as it is now.

    :raises InvalidArgument: the retry policy is none.
    :raises InvalidInput: the task does not take the input, it cannot be stored, or it exceeds
        the limits of the service.
    """
    check_begun(service)
    if retry is not None:
        if not is_kind(retry, RetryPolicy):
            raise InvalidArgument(f"retry takes a RetryPolicy, not {shown(retry)}")
        check_storable(retry, InvalidArgument, "the retry policy")
    check_input(task, input)
    return checked_input(service, input, referring)


def checked_input(service: Any, input: Any, exchange: Callable[[Any], Any] | None = None) -> Any:
    """Check an input that is to be stored in a service; return it as it is now.

    :param exchange: see `check_storable`.
    :raises InvalidInput: it cannot be stored, or exceeds the limits of the service.
    """
    if service.max_input_bytes is not None or service.max_input_depth is not None:
        max_bytes, max_depth = (setting.read(service, limit) for limit in _LIMITS)
        check_limits(input, max_bytes, max_depth)
    return check_storable(input, InvalidInput, "the input", True, service._p_jar, exchange)


def name_of_task(service: Any, task: Any) -> Any:
    """Return the name of a task that is given as its function; a name stays what it is.

    :raises TaskNotFound: it is not registered.
    :raises InvalidArgument: it is, under several names.
    """
    if is_kind(task, str) or not callable(task):
        return task
    tasks = service.registered_tasks()
    names = list({name: 0 for name, known in tasks if getattr(known, "func", None) is task})
    if not names:
        raise TaskNotFound(f"no task is registered for {shown(task)}")
    if len(names) > 1:
        raise InvalidArgument(f"{shown(task)} is registered as {', '.join(map(shown, names))}")
    return names[0]


def seconds_until(delay: Any, at: Any, is_later: bool, now: float) -> float | None:
    """Return the seconds that a new job waits; None if it waits for no time.

    :raises InvalidArgument: they make no sense, or are given together.
    """
    if (delay is not None) + (at is not None) + is_later > 1:
        raise InvalidArgument("a job has one of delay, at and startLater")
    if at is not None:
        if not is_kind(at, datetime) or at.utcoffset() is None:
            raise InvalidArgument(f"at must be an aware datetime, not {shown(at)}")
        return seconds_of(max(0.0, at.timestamp() - now), "at")
    return None if delay is None else seconds_of(delay, "delay")


def new_ids(service: Any, count: int) -> list[int]:
    """Return ids for new jobs."""
    # From a random start in each connection, and after a job that was not stored: somebody
    # else may be adding in the same lane.  A number that outlives an abort does no harm.
    jobs = service.jobs
    volatile = vars(service)
    first: int | None = volatile.get("_v_next_id")
    if first is not None and _has_lost(volatile.get("_v_last"), jobs):
        first = None
    jobids: list[int] = jobs.free_ids(count, first)
    volatile["_v_next_id"] = jobids[-1] + 1 if jobids else first
    return jobids


def _has_lost(last: Job | None, jobs: Any) -> bool:
    if last is None or last._p_jar is not None:  # it was committed
        return False
    return jobs.get(last.id) is not last


def _take_along(job: Job, carried: dict[str, Any] | None) -> None:
    if carried is not None and job.carried is None:  # else it inherits that of another one
        job.carried = carried


def add_job(service: Any, job: Job, options: Mapping[str, Any] = NO_OPTIONS) -> None:
    """Put a new job where it waits.

    :param options: what `check_options` has returned.
    """
    for name, value in options.items():
        setattr(job, name, value)
    _take_along(job, captured())
    jobs = service.jobs
    vars(service)["_v_last"] = jobs[job.id] = job
    service.queue.file(job)
    if job.unique_key is not None:
        hold_key(service.queue, job)
    if job.expires_at is not None:
        watch_expiry(service.queue, job)
    note(service, job, JobAdded)
    if job.is_final:  # it was to wait for one that has ended in vain
        note_failed(service, job, job.created_at)
    registry.wake_after_commit(service)


def id_with_key(service: Any, key: str) -> int | None:
    """Return the id of the job that waits or runs with a unique key, or None.

    What the caller does because of it is committed only if the job is still the same then.
    """
    job = job_with(service.queue, service.jobs, key)
    if job is None:
        return None
    stay_current(job)
    return job.id


def add_ready(service: Any, jobs: list[Job], options: Mapping[str, Any] = NO_OPTIONS) -> None:
    """Put many new jobs into the ready queue; see `add_job`."""
    if not jobs:
        return
    for name, value in options.items():
        for job in jobs:
            setattr(job, name, value)
    carried = captured()
    for job in jobs if carried is not None else ():
        _take_along(job, carried)
    tree = service.jobs
    vars(service)["_v_last"] = jobs[-1]
    tree.add({job.id: job for job in jobs})
    service.queue.file_ready(jobs)
    if is_heard(JobAdded):
        for job in jobs:
            note(service, job, JobAdded)
    registry.wake_after_commit(service)
