# SPDX-License-Identifier: ZPL-2.1
"""Schedules by their keys: made, changed, removed and listed.  Nothing here commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from transaction.interfaces import TransientError

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import check_parts
from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.control import cancel_job, check_usable, find_job
from lovely.remotetask.engine.finding import list_page
from lovely.remotetask.errors import (
    InvalidArgument,
    JobNotFound,
    RemoteTaskError,
    describe,
    is_kind,
    plain,
    shown,
)
from lovely.remotetask.interfaces import COMPLETED, CRONJOB, ERROR, PROCESSING
from lovely.remotetask.job import CronJob, Edit
from lovely.remotetask.store import schedulekeys
from lovely.remotetask.store.quarantine import load, why_unusable

log = logging.getLogger("lovely.remotetask")

#: Characters of a key.
MAX_KEY = 1_000


class ScheduleState(NamedTuple):
    """A schedule, and what has come of it.

    :ivar id: the id of its job.
    :ivar key: its key, None if it was added without.
    :ivar task: the name of its task.
    :ivar schedule: its cron expression or its sets, as text; of a delay that.
    :ivar timezone: the name of its time zone; None is UTC.
    :ivar status: that of its job.
    :ivar next_run: when it is due, None while it runs or if it will not.
    :ivar last_run: when it was last started, None if it never was.
    :ivar outcome: what came of that: ``"completed"`` or ``"error"``; None while it runs.
    :ivar error: the message of the failure.
    :ivar is_paused: whether nothing is started, as its task or all tasks are paused.
    :ivar is_declared: whether `task` has declared it.
    """

    id: int
    key: str | None
    task: str
    schedule: str
    timezone: str | None
    status: str
    next_run: datetime | None
    last_run: datetime | None
    outcome: str | None
    error: str | None
    is_paused: bool
    is_declared: bool


def check_key(key: Any) -> str:
    """Return a key as it is stored.

    :raises InvalidArgument: it is no text, empty or too long, or no encoding can write it.
    """
    text = plain(key) if is_kind(key, str) else ""
    try:
        is_key = len(text.encode()) > 0 and len(text) <= MAX_KEY
    except UnicodeEncodeError:
        is_key = False
    if not is_key:
        raise InvalidArgument(f"key must be a str of 1 to {MAX_KEY} characters, not {shown(key)}")
    return text


def find(service: Any, key: str) -> CronJob | None:
    """Return the job that is the schedule with a key, or was until it failed for good."""
    check_parts(service)
    jobid = schedulekeys.holder_id(service.queue, key)
    if jobid is None:
        return None
    try:
        job = find_job(service, jobid)
    except JobNotFound:
        return None
    return job if isinstance(job, CronJob) and job.key == key else None


def ensure(
    service: Any, wanted: CronJob, add: Callable[[CronJob], int], leaves_errors: bool = False
) -> int:
    """Let a schedule be what is wanted; return the id of its job.

    :param wanted: a new job, with a key.
    :param add: adds it, if there is none with this key.
    :param leaves_errors: one that has failed for good is left, unless another one is wanted.
    """
    check_begun(service)
    job = find(service, wanted.key or "")
    if job is not None and schedulekeys.is_going(service, job):
        if not job.is_like(wanted):
            _change(service, job, wanted)
        return job.id
    if job is not None and leaves_errors and job.status == ERROR and job.is_like(wanted):
        log.warning(
            "schedule %r: job %s is an error, and is not made anew: %s",
            wanted.key,
            job.__name__,
            job.error,
        )
        return job.id
    jobid = add(wanted)
    schedulekeys.hold(service.queue, wanted)
    return jobid


def _change(service: Any, job: CronJob, wanted: CronJob) -> None:
    check_usable(job.id, why_unusable(job, job.id))
    is_same_time = all(getattr(job, name) == getattr(wanted, name) for name in Edit._fields)
    job.become(wanted)
    if job.status == PROCESSING or job.is_set_later:
        return  # it counts anew when its run has ended, and was filed
    if not is_same_time:
        service.queue.reschedule(job, time.time())
    elif isinstance(job.place, str):  # it waits for another task than it has now
        service.queue.refile(job, job.due)
    registry.wake_after_commit(service)


def remove(service: Any, key: str) -> bool:
    """End the schedule with a key, and free the key; say whether there was one."""
    check_begun(service)
    job = find(service, key)
    if job is None:
        return False
    is_there = schedulekeys.is_going(service, job)
    cancel_job(service, job)
    schedulekeys.drop(service.queue, key, job.id)
    return is_there


# -- those that are declared ----------------------------------------------------------------


def declared(service: Any) -> dict[str, Any]:
    """Return the tasks that are registered here and declare a schedule in a service, by key."""
    names: list[str | None] = []

    def is_meant(name: Any) -> bool:
        if name is not None and not names:
            stored = None if service._p_jar is None else path_to(service)[-1]
            names.extend([service.__name__, stored])
        return name is None or name in names

    return {
        name: task
        for name, task in sorted(service.getAvailableTasks().items())
        if getattr(task, "cron", None) is not None and is_meant(getattr(task, "service", None))
    }


def ensure_declared(service: Any, add: Callable[[CronJob], int]) -> dict[str, int]:
    """Let there be the schedules that are declared here; return the ids of their jobs, by key.

    One that cannot be is logged, and keeps none of the others from being.
    """
    ensured = {}
    for key, task in declared(service).items():
        try:
            wanted = CronJob(0, key, cron=task.cron, timezone=getattr(task, "timezone", None))
            wanted.key = check_key(key)
            wanted.is_declared = True
            ensured[key] = ensure(service, wanted, add, leaves_errors=True)
        except TransientError:
            raise
        except RemoteTaskError as error:
            log.error("schedule %r, which is declared here, cannot be: %s", key, describe(error))
    return ensured


# -- all there are --------------------------------------------------------------------------


def states(service: Any) -> list[ScheduleState]:
    """Return all schedules, in the order of their keys; those without key come last."""
    jobs = {job.id: job for job in _timed(service)}
    for key, jobid in list(service.queue.schedules.items()):
        job = load(service.jobs, jobid)
        if isinstance(job, CronJob) and job.key == key:
            jobs[jobid] = job
    found = [_state(service, job) for job in jobs.values()]
    return sorted(found, key=lambda state: (state.key is None, state.key or "", state.id))


def _timed(service: Any) -> Iterator[CronJob]:
    for status in (CRONJOB, PROCESSING):
        after: str | None = None
        while True:
            page = list_page(service, status, None, "oldest", after)
            yield from (job for job in page.jobs if isinstance(job, CronJob) and job.delay is None)
            after = page.next
            if after is None:
                break


def _state(service: Any, job: CronJob) -> ScheduleState:
    runs = job.status == PROCESSING
    outcome = None
    if job.attempt and not runs:
        outcome = COMPLETED if job.error is None else ERROR
    return ScheduleState(
        job.id,
        job.key,
        job.task,
        text_of(job),
        job.timezone,
        job.status,
        None if runs or job.is_final else job.scheduledFor,
        job.started,
        outcome,
        None if runs else job.error,
        service.queue.is_paused or service.queue.is_held_back(job.task),
        job.is_declared,
    )


def text_of(job: CronJob) -> str:
    """Return the schedule of a job as text."""
    if job.delay is not None:
        return f"once, after {job.delay:g} s"
    sets = [(name, getattr(job, name)) for name in Edit._fields[:5]]
    given = [f"{name}={','.join(map(str, values))}" for name, values in sets if values]
    return job.cron or " ".join(given) or "every minute"
