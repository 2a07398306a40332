# SPDX-License-Identifier: ZPL-2.1
"""Jobs that lovely.remotetask 0.5 has written, as jobs of today.

A record of 0.5 is a dict of the job's attributes.  What its dates mean has to be said: they are
naive, in the local time of the server.  Nothing of the old record is changed.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from ZODB.utils import load_current

from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.errors import InvalidInput, describe, name_of, text_of
from lovely.remotetask.interfaces import CRONJOB, DELAYED, FINAL_STATUSES, QUEUED, STARTLATER
from lovely.remotetask.job import SCHEDULE_ERRORS, CronJob, Failure, Job

_SETS = ("minute", "hour", "dayOfMonth", "month", "dayOfWeek")

#: What the form of 0.5 stored for ``*``, in fields that count from 1.
_STARS = {"dayOfMonth": set(range(31)), "month": set(range(12))}

_STATUSES = {QUEUED, DELAYED, CRONJOB, STARTLATER, *FINAL_STATUSES}


class OldPlaces(NamedTuple):
    """Where the jobs of a service of 0.5 wait, by object id.

    :ivar line: those of the queue, in its order; the values mean nothing.
    :ivar due: when those that wait for a time are due, in seconds since the epoch.
    :ivar unscheduled: those whose time has not been counted yet.
    """

    line: dict[bytes, None]
    due: dict[bytes, float]
    unscheduled: set[bytes]


class Converted(NamedTuple):
    """A job of today, and what came of it.

    :ivar is_claimed: a thread of 0.5 had claimed it, and did not end it.
    :ivar lost: what of it could not be kept, in words.
    """

    job: Job
    is_claimed: bool
    lost: list[str]


def places_of(service: Any) -> OldPlaces:
    """Return where the jobs of a service of 0.5 wait.

    :param service: the service; its attributes are read as they are stored.
    """
    service._p_activate()
    stored = vars(service)
    due: dict[bytes, float] = {}
    for when, jobs in (stored.get("_scheduledJobs") or {}).items():
        # A job that was filed twice runs at the first of its times.
        due.update({job._p_oid: float(when) for job in jobs if job._p_oid not in due})
    return OldPlaces(
        dict.fromkeys(job._p_oid for job in stored["_queue"]),
        due,
        {job._p_oid for job in stored.get("_scheduledQueue") or ()},
    )


def state_of(job: Any) -> dict[str, Any]:
    """Return the record of a job that 0.5 has written.

    :param job: the object, which may be a ghost; it cannot be loaded.
    """
    connection = job._p_jar
    _, serial = load_current(connection.db().storage, job._p_oid)
    state: dict[str, Any] = connection.oldstate(job, serial)
    return state


class Converter:
    """Makes jobs of today of those of one service.

    :param connection: that of the service.
    :param edits: its tree of edits, see `CronJob`.
    :param zone: what the naive dates of 0.5 mean; None is the local time of this machine.
    :param now: seconds since the epoch.
    :param runs_claimed: whether jobs that a thread of 0.5 had claimed run again; else they are
        errors.
    """

    def __init__(
        self, connection: Any, edits: Any, zone: tzinfo | None, now: float, runs_claimed: bool
    ) -> None:
        self._connection = connection
        self._edits = edits
        self._zone = zone
        self._now = now
        self._runs_claimed = runs_claimed

    def convert(self, old: Any, jobid: int, places: OldPlaces) -> Converted:
        """Return a job of today, which is in no tree and no index yet.

        :param old: the job of 0.5.
        :param jobid: the id that it gets.
        """
        state = state_of(old)
        lost: list[str] = []
        job = self._timed(jobid, state) if _is_timed(state) else None
        if job is None:
            job = Job(jobid, str(state.get("task")))
        self._copy(job, state, lost)
        status = state.get("status", QUEUED)
        is_claimed = False
        if status not in _STATUSES:
            self._fail(job, f"status {status!r} of 0.5 is not known")
        elif status in FINAL_STATUSES:
            job.status = status
            if job.completed_at is None:
                job.completed_at = job.created_at
        elif lost:
            self._fail(job, "; ".join(lost))
        elif status == STARTLATER:
            job.status = STARTLATER
        elif status == QUEUED:
            is_claimed = old._p_oid not in places.line
        elif not isinstance(job, CronJob):
            self._fail(job, _why_never(state))
        else:
            is_claimed = self._wait(job, old._p_oid, places)
        if is_claimed and not self._runs_claimed:
            self._fail(job, "a thread of lovely.remotetask 0.5 had claimed it, and did not end it")
        return Converted(job, is_claimed, lost)

    def _timed(self, jobid: int, state: dict[str, Any]) -> CronJob | None:
        """Return a job that waits for a time; None if that never comes."""
        fields: dict[str, Any] = {name: _field(name, state.get(name)) for name in _SETS}
        delay = state.get("delay")
        if delay is not None:
            fields = {}  # of a delay they meant nothing
        try:
            job = CronJob(jobid, str(state.get("task")), None, delay=delay, **fields)
            job.count_from(self._now)
        except SCHEDULE_ERRORS:
            return None
        job.edits = self._edits
        return job

    def _copy(self, job: Job, state: dict[str, Any], lost: list[str]) -> None:
        created = self._seconds(state.get("created"))
        job.created_at = self._now if created is None else created
        started = self._seconds(state.get("started"))
        if started is not None:
            job.started_at = started
            job.attempt = 1
        for name in ("input", "output"):
            value = state.get(name)
            if value is None:
                continue
            try:
                value = check_storable(value, InvalidInput, f"the {name}", True, self._connection)
            except InvalidInput as error:
                lost.append(str(error))
            else:
                setattr(job, name, value)
        ended = self._seconds(state.get("completed"))
        if ended is not None and state.get("status") in FINAL_STATUSES:
            job.completed_at = ended
        failed = state.get("error")
        if failed is not None:
            when = ended or started or job.created_at
            job.note_failure(Failure(job.attempt, when, name_of(failed), _message_of(failed), ""))

    def _wait(self, job: CronJob, oid: bytes, places: OldPlaces) -> bool:
        """Let a job wait for its time; say whether it had been claimed."""
        job.slot = self._now
        due = places.due.get(oid)
        is_claimed = due is None and oid not in places.unscheduled
        if due is None:
            begin = job.created_at if job.delay is not None else self._now
            due = self._now if is_claimed else job.timeOfNextCall(begin)
        job.wait(due)
        return is_claimed

    def _fail(self, job: Job, why: str) -> None:
        # Not by the verb of a `CronJob`, which would go on.
        Job.fail(job, Failure(job.attempt, self._now, "OldRecord", why, ""), self._now)

    def _seconds(self, moment: Any) -> float | None:
        if not isinstance(moment, datetime):
            return None
        if moment.tzinfo is None and self._zone is not None:
            moment = moment.replace(tzinfo=self._zone)
        try:
            seconds: float = max(0.0, moment.timestamp())
        except (ValueError, OverflowError):  # it is none that this machine can count
            return None
        return seconds


def _is_timed(state: dict[str, Any]) -> bool:
    return "minute" in state or "delay" in state


def _field(name: str, stored: Any) -> tuple[int, ...]:
    values: tuple[int, ...] = tuple(stored or ())
    star = _STARS.get(name)
    if star is None:
        return values
    return () if star <= set(values) else tuple(value for value in values if value != 0)


def _why_never(state: dict[str, Any]) -> str:
    if state.get("delay") is not None:
        return f"the delay {state['delay']!r} is none"
    sets = ", ".join(f"{name}={tuple(state.get(name) or ())}" for name in _SETS if state.get(name))
    return f"the schedule {sets or 'without any time'} never comes true"


def _message_of(error: Any) -> str:
    if isinstance(error, BaseException):
        return describe(error)
    # One of a class that is not there is a stand-in, which knows what its class was called with.
    return ", ".join(text_of(value) for value in getattr(error, "__Broken_newargs__", ()))
