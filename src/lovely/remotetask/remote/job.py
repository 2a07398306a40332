# SPDX-License-Identifier: ZPL-2.1
"""Jobs that are objects: what applications make subclasses of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from persistent import Persistent
from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask.base.ownership import check_sound
from lovely.remotetask.base.reference import refusing
from lovely.remotetask.base.storable import check_storable, is_plain
from lovely.remotetask.engine.outcome import failure_of
from lovely.remotetask.errors import InvalidArgument, InvalidInput, is_true
from lovely.remotetask.job import Failure, time_at
from lovely.remotetask.remote.exceptions import RemoteException
from lovely.remotetask.remote.interfaces import IJob, IJobError
from lovely.remotetask.remote.record import JobRecord
from lovely.remotetask.remote.values import (
    Checked,
    check_runs,
    check_seconds,
    check_time,
    set_attributes,
)

#: What the record of a job tells.
_RUN = ("status", "output", "errors", "retryTime", "retryCounter")
_TIMES = ("created", "queued", "picked", "started", "completed")
_TOLD = frozenset(("__name__", "__parent__", *_RUN, *_TIMES))

#: What a copy of a job does not take over.
_OF_ONE_JOB = _TOLD | {"_record", "jobName"}


@implementer(IJobError)
class JobError(str):
    """One failure of a job.  See `IJobError`."""

    created: datetime
    tb: str

    @classmethod
    def of(cls, failure: Failure) -> JobError:
        """Return a failure as jobs show it."""
        created = datetime.fromtimestamp(failure.time, timezone.utc)
        error = cls(f"[{created.isoformat()}] {failure.message}")
        error.created = created
        error.tb = failure.traceback
        return error


class _Told:
    """What the record tells of a job; of a job without one, what was set."""

    def __init__(
        self,
        read: Callable[[JobRecord], Any],
        default: Callable[[], Any] = lambda: None,
        check: Callable[[Any, str], Any] = lambda value, name: value,
        write: Callable[[JobRecord, Any], None] | None = None,
    ) -> None:
        self._read = read
        self._default = default
        self._check = check
        self._write = write

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, job: Any, owner: type | None = None) -> Any:
        if job is None:
            return self
        record = record_of(job)
        if record is not None:
            return self._read(record)
        values = vars(job)
        if self._name not in values:
            values[self._name] = self._default()
        return values[self._name]

    def __set__(self, job: Any, value: Any) -> None:
        record = record_of(job)
        value = self._check(value, self._name)
        if record is None:
            vars(job)[self._name] = value
            job._p_changed = True
        elif self._write is None:
            raise AttributeError(f"{self._name} of a job is set by its processor")
        else:
            self._write(record, value)


@implementer(IJob)
class Job(Persistent, Location):
    """A job, or a factory of jobs.  See `IJob`.

    :param data: values of attributes by name, of any names.

    Stored: what is set, by name; ``_record`` `JobRecord` of a job that was added: it has status,
    output, errors and times.
    """

    _record: JobRecord | None = None
    jobName: str | None = None
    input: Any = None
    retryDelay = Checked(10, check_seconds)
    maxRetries = Checked(3, check_runs)
    active = Checked(True, is_true, lambda job: _wait_or_rest(job))
    __name__ = _Told(lambda record: record.__name__)
    __parent__ = _Told(lambda record: record.__parent__)
    status = _Told(lambda record: record.shown_status)
    output = _Told(lambda record: record.output)
    errors = _Told(lambda record: list(map(JobError.of, record.failures)), list)
    retryTime = _Told(
        lambda record: record.retry_time,
        check=check_time,
        write=lambda record, at: record.run_at(None if at is None else at.timestamp()),
    )
    retryCounter = _Told(lambda record: record.runs, int)
    created = _Told(lambda record: record.created)
    queued = _Told(lambda record: record.created)
    picked = _Told(lambda record: record.started)
    started = _Told(lambda record: time_at(record.begun_at or record.started_at))
    completed = _Told(lambda record: record.completed)

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        set_attributes(self, data)

    def __call__(self, remoteProcessor: Any) -> Any:
        """See `IJob`."""
        raise RemoteException(f"{type(self).__name__} has no __call__: it says nothing to do")

    def getJob(self, input: Any = None) -> Job:
        """See `IJob`."""
        job = type(self).__new__(type(self))
        data = {
            name: value for name, value in self.__getstate__().items() if name not in _OF_ONE_JOB
        }
        if not all(map(is_plain, data.values())):
            data = check_storable(data, InvalidInput, "the job")
        job.__dict__.update(data)
        if input is not None:
            job.input = check_storable(input, InvalidInput, "the input", True, exchange=refusing)
        job.jobName = self.jobName or self.__name__
        return job

    def setError(self, error: BaseException) -> None:
        """See `IJob`."""
        record = record_of(self)
        failure = failure_of(error, 0 if record is None else record.attempt, time.time())
        if record is None:
            self.errors.append(JobError.of(failure))
            self._p_changed = True
        else:
            record.note_failure(failure)

    def __repr__(self) -> str:
        kind = type(self).__name__
        if self._record is None:
            return f"<{kind} {self.__name__!r}>"
        return f"<{kind} {self.jobName!r} {self.__name__}>"


def _wait_or_rest(job: Job) -> None:
    """Let a job wait that is active now, and rest that is not."""
    record = record_of(job)
    if record is not None:
        record.rest()


def check_class(kind: type) -> None:
    """Check that a class of jobs leaves alone what its processor tells of them.

    :raises InvalidArgument: it has an attribute of such a name.
    """
    for name in (*_RUN, *_TIMES) if issubclass(kind, Job) else ():
        if getattr(kind, name) is not getattr(Job, name):
            raise InvalidArgument(f"{kind.__name__}.{name}: the job's processor sets that")


def attach(job: Job, record: JobRecord) -> None:
    """Make an object the job of a record, which tells from now on what becomes of it."""
    values = job.__dict__
    for name in _TOLD:
        values.pop(name, None)
    values["_record"] = record
    job._p_changed = True


def record_of(job: Any) -> JobRecord | None:
    """Return the record of a job; None if it was not added.

    :raises StrayObject: the record no longer belongs to the database.
    """
    record: JobRecord | None = getattr(job, "_record", None)
    if record is not None and record._p_jar is None:
        check_sound(job, record)
    return record


class UnusableJob(Job):
    """Stands for a job object that cannot be read here: its record tells of it all the same.

    Not stored.
    """

    def __init__(self, record: JobRecord) -> None:
        super().__init__()
        self.jobName = record.task
        self._record = record


def values_of(job: Job) -> dict[str, Any]:
    """Return what was set of a job by name, but for what its record tells."""
    job._p_activate()
    return {
        name: value
        for name, value in vars(job).items()
        if name not in _TOLD and name != "_record" and not name.startswith("_v_")
    }
