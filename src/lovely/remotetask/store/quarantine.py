# SPDX-License-Identifier: ZPL-2.1
"""Jobs in quarantine, because their records cannot be read or written in this process.

A record cannot be read when it is missing, or when code that it needs fails.  One that names
a class or a function that is gone can be read, but not be written: every transaction with it
would fail, and others have to go on.  So such a job stays where it is, and is passed over
until a process that has the code comes to it, or this one has it when it looks again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from traceback import walk_tb
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ZODB import POSException
from ZODB.broken import Broken
from ZODB.Connection import Connection
from ZODB.POSException import POSKeyError
from ZODB.serialize import ObjectReader

from lovely.remotetask.base.storable import PLAIN_TYPES, why_unstorable
from lovely.remotetask.errors import OldRecord, describe
from lovely.remotetask.job import Job, job_log
from lovely.remotetask.store.tree import JobTree

#: A record is tried again after so many seconds; each time in vain after twice as many.
FIRST_WAIT_SECONDS = 60.0
LAST_WAIT_SECONDS = 3600.0

#: One that can be read is not even loaded, to see whether it is still the same, for so long.
LOAD_SECONDS = 5.0

#: What ZODB makes of all that a record's code raises; before 6.4 it lets it through.
_StateLoadError: type[Exception] | tuple[()] = getattr(POSException, "StateLoadError", ())

#: Where ZODB runs the code of a record, and where it asks the storage for one.
_READS = ObjectReader.setGhostState.__code__
_LOADS = {Connection.setstate.__code__, Connection.get.__code__}

#: Why a job is in quarantine that is not there at all.
MISSING = "its record is missing"


class _Entry(NamedTuple):
    """A record that cannot be read or written here.

    ``serial`` is that of a record that can only be read, else None; ``loaded`` when it was loaded.
    """

    reason: str
    serial: bytes | None
    wait_seconds: float
    until: float
    loaded: float


#: By database and object id.  Not by connection: all of a process share its code.  Hardly ever
#: is something in it.
_quarantine: WeakKeyDictionary[Any, dict[bytes, _Entry]] = WeakKeyDictionary()
_is_used = False  # whether anything was ever in it
_dropped = 0.0  # when what nobody asks for was last dropped, by the monotonic clock


def load(jobs: Mapping[int, Job], jobid: int) -> Job | None:
    """Return a job, or None when it is gone or its record cannot be read here."""
    job = jobs.get(jobid)
    return None if job is None or why_unreadable(job, jobid) else job


def load_many(jobs: JobTree, jobids: Iterable[int]) -> list[Job | None]:
    """Return what `load` returns for each of them."""
    jobids = list(jobids)
    return [
        None if job is None or why_unreadable(job, jobid) else job
        for jobid, job in zip(jobids, jobs.get_many(jobids), strict=True)
    ]


def load_usable(jobs: Mapping[int, Job], jobid: int) -> Job | None:
    """Return a job, or None when it is gone or its record cannot be read and written here."""
    job = jobs.get(jobid)
    return None if job is None or why_unusable(job, jobid) else job


def _entry_of(job: Job) -> _Entry | None:
    return _quarantine.get(job._p_jar.db(), {}).get(job._p_oid)


def why_unreadable(job: Job, jobid: int) -> str | None:
    """Return why the record of a job cannot be read here, or None."""
    if job._p_changed is not None and isinstance(job, Job):
        return None
    entry = _entry_of(job) if _is_used else None
    if entry is not None and entry.serial is None and time.monotonic() < entry.until:
        return entry.reason
    fault: BaseException | None = None
    try:
        job._p_activate()
        reason = f"its record cannot be read: there is no {type(job).__name__} here"
    except POSKeyError as error:
        fault = error
        is_own = error.args[:1] == (job._p_oid,)
        reason = MISSING if is_own else f"its record cannot be read: {error} is missing"
    except (Exception, SystemExit) as error:  # what other people's __setstate__ raises
        cause = _of_record(error)
        if cause is None:
            raise
        fault = error
        reason = f"its record cannot be read: {_describe(cause)}"
    if fault is None and isinstance(job, Job):
        if entry is not None and entry.serial is None:
            del _quarantine[job._p_jar.db()][job._p_oid]
        return None
    _put_in_quarantine(job, jobid, reason, None, fault)
    return reason


def _of_record(error: BaseException) -> BaseException | None:
    """Return what the code that a record needs has raised; None if the storage has failed.

    No error says by its kind whose fault it is: not an OSError or one of a database adapter's, and
    code can raise a POSError too.  What the code was doing says it: if it was loading something
    else, the storage has failed.
    """
    if isinstance(error, OldRecord):
        return error
    is_told = isinstance(error, _StateLoadError)
    cause = error.__cause__ if is_told and error.__cause__ is not None else error
    is_own = is_told
    for frame, _ in walk_tb(cause.__traceback__):
        if frame.f_code is _READS:
            is_own = True
        elif frame.f_code in _LOADS:
            is_own = False
    return cause if is_own else None


def _describe(cause: BaseException) -> str:
    frame = [frame for frame, _ in walk_tb(cause.__traceback__)][-1:]
    if frame and frame[0].f_code is Connection.get_connection.__code__:
        return f"it refers to the database {describe(cause)}, which is not open here"
    return describe(cause)


def why_unusable(job: Job, jobid: int) -> str | None:
    """Return why the record of a job cannot be read and written here, or None."""
    if "_v_is_usable" in job.__dict__:
        return None
    if job._p_jar is None:  # a new one: what is in it was checked
        return None
    entry = _entry_of(job) if _is_used else None
    if (
        entry is not None
        and entry.serial is not None
        and job._p_changed is None
        and time.monotonic() < entry.loaded + LOAD_SECONDS
    ):
        return entry.reason  # a thousand of them, loaded for each claim, would keep others waiting
    reason = why_unreadable(job, jobid)
    if reason is not None:
        return reason
    if entry is not None and entry.serial == job._p_serial:
        now = time.monotonic()
        if now < entry.until:
            _quarantine[job._p_jar.db()][job._p_oid] = entry._replace(loaded=now)
            return entry.reason
        job._p_deactivate()  # the code may make something else of it by now
        reason = why_unreadable(job, jobid)
        if reason is not None:
            return reason
    missing = _why_unwritable(job)
    if missing is None:
        if entry is not None:
            _quarantine[job._p_jar.db()].pop(job._p_oid, None)
        # It becomes another one only by way of the database, which forgets this too.
        job._v_is_usable = True
        return None
    reason = f"its record cannot be written: {missing}"
    _put_in_quarantine(job, jobid, reason, job._p_serial)
    return reason


def _why_unwritable(job: Job) -> str | None:
    try:
        values = job.written_values()
    except POSKeyError as error:
        return f"{error} is missing"
    except (Exception, SystemExit) as error:  # as above
        cause = _of_record(error)
        if cause is None:
            raise
        return _describe(cause)
    return None if PLAIN_TYPES.issuperset(map(type, values)) else why_unstorable(values)


def is_known(stored: Any) -> bool:
    """Say whether a stored object, no job's record, can be read here and its class is there."""
    try:
        stored._p_activate()
    except POSKeyError:
        return False
    except (Exception, SystemExit) as error:  # as above
        if _of_record(error) is None:
            raise
        return False
    return not isinstance(stored, Broken)


def _put_in_quarantine(
    job: Job, jobid: int, reason: str, serial: bytes | None, fault: BaseException | None = None
) -> None:
    global _is_used
    _is_used = True
    entries = _quarantine.setdefault(job._p_jar.db(), {})
    before = entries.get(job._p_oid)
    now = time.monotonic()
    _drop_old(now)
    wait = FIRST_WAIT_SECONDS
    if before is not None:
        wait = min(2 * before.wait_seconds, LAST_WAIT_SECONDS)
    entry = _Entry(reason, serial, wait, now + wait, now)
    # Another thread may have met it at the same time: one of them tells it.
    if before is not None:
        entries[job._p_oid] = entry
    elif entries.setdefault(job._p_oid, entry) is entry:
        job_log.error("job %s: %s; it is passed over", jobid, reason, exc_info=fault)


def _drop_old(now: float) -> None:
    """Forget records that nobody asks for any more: their jobs are gone, or were taken elsewhere.

    One that still stands here is looked at soon after its time.
    """
    global _dropped
    if now < _dropped + LAST_WAIT_SECONDS:
        return
    _dropped = now
    for entries in list(_quarantine.values()):
        for oid, entry in list(entries.items()):
            if now > entry.until + LAST_WAIT_SECONDS:
                del entries[oid]
