# SPDX-License-Identifier: ZPL-2.1
"""What has happened to jobs is noted in the transaction, and told when that is committed.

A transaction that is aborted tells nothing, and one that goes back to a savepoint nothing of what
came after it: the notes are kept by a data manager.  Where nobody listens nothing is noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import transaction
from persistent import Persistent
from transaction.interfaces import NoTransaction

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.errors import is_kind
from lovely.remotetask.events import (
    JobAttemptFailed,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobStarted,
    is_heard,
    notify,
)
from lovely.remotetask.interfaces import CANCELLED, ERROR, PROCESSING
from lovely.remotetask.job import Job

#: What the notes of a transaction are found by.
_KEY = object()


def note(service: Any, job: Job, kind: type[JobEvent], **details: Any) -> None:
    """Note that something has happened to a job, to be told after the commit.

    :param details: what events of this kind have beyond others.
    """
    if not is_kind(service, Persistent) or not is_heard(kind):  # else it is in another store
        return
    notes = _notes_of(service)
    if notes is None:
        return
    now = details.pop("now", None)
    facts = {
        "jobid": job.id,
        "name": job.__name__,
        "task": job.task,
        "attempt": job.attempt,
        "status": job.status,
        "time": time.time() if now is None else now,
        **details,
    }
    notes.noted.append((kind, service, _place(service) if service._p_jar else None, facts))


def tell_started(place: Any, claim: Claim, clock: Callable[[], float]) -> None:
    """Tell at once that a claimed job is about to be run.

    :param place: where its service is, see `session.Session`; None: in another store.
    """
    if is_heard(JobStarted) and place is not None:
        path, database_name, oid = place
        who = (claim.jobid, claim.name, claim.task, claim.attempt)
        notify([JobStarted(path, database_name, oid, *who, PROCESSING, clock())])


def note_completed(service: Any, job: Job, now: float) -> None:
    """Note that a run of a job has ended well, whose schedule may end with it all the same."""
    if job.status == ERROR:
        note_failed(service, job, now)
    else:
        note(service, job, JobCompleted, seconds=_seconds(job, now), now=now)


def note_failed(service: Any, job: Job, now: float) -> None:
    """Note that an attempt has failed: what has come of the job tells its status."""
    if job.status == CANCELLED:
        note(service, job, JobCancelled, now=now)
        return
    kind = JobFailed if job.status == ERROR else JobAttemptFailed
    note(service, job, kind, seconds=_seconds(job, now), failure=job.failures[-1], now=now)


def _seconds(job: Job, now: float) -> float:
    return max(0.0, now - (job.started_at or now))


def _place(service: Any) -> dict[str, Any]:
    """Return where a service is, that is in a database."""
    return {
        "service": ".".join(path_to(service)),
        "database_name": service._p_jar.db().database_name,
        "service_oid": service._p_oid,
    }


# -- until the commit ------------------------------------------------------------------------------


def _notes_of(service: Any) -> Notes | None:
    jar = service._p_jar
    manager = transaction.manager.manager if jar is None else jar.transaction_manager
    try:
        txn = manager.get()
    except NoTransaction:  # an explicit manager, and a service in no database
        return None
    notes: Notes
    try:
        notes = txn.data(_KEY)
    except KeyError:
        notes = Notes(manager)
        txn.set_data(_KEY, notes)
    if not notes.is_joined:
        notes.is_joined = True
        txn.join(notes)
    # The hook goes when a job that has failed is taken back.
    if all(hook is not _tell for hook, _, _ in txn.getAfterCommitHooks()):
        txn.addAfterCommitHook(_tell, (notes,))
    return notes


def taken_over(txn: Any) -> Notes | None:
    """Return the notes of a transaction, which the caller will tell after its commit."""
    try:
        notes: Notes = txn.data(_KEY)
    except KeyError:
        return None
    notes.is_taken_over = True
    return notes


def _tell(is_committed: bool, notes: Notes) -> None:
    if is_committed and not notes.is_taken_over:
        notes.tell()


class Notes:
    """The data manager that keeps what is noted in a transaction."""

    def __init__(self, manager: Any) -> None:
        self.transaction_manager = manager
        self.noted: list[tuple[type[JobEvent], Any, dict[str, Any] | None, dict[str, Any]]] = []
        self.is_joined = False
        self.is_taken_over = False
        self._committed = self.noted

    def tell(self) -> None:
        """Let all hear what was noted, and committed."""
        notify(
            kind(**(_place(service) if place is None else place), **facts)
            for kind, service, place, facts in self._committed
            if place is not None or service._p_jar is not None
        )

    def sortKey(self) -> str:
        """See `IDataManager`."""
        return f"~remotetask events:{id(self)}"

    def tpc_begin(self, txn: Any) -> None:
        """See `IDataManager`."""

    commit = tpc_vote = tpc_begin

    def tpc_finish(self, txn: Any) -> None:
        """See `IDataManager`."""
        self._committed = list(self.noted)

    def abort(self, txn: Any) -> None:
        """See `IDataManager`."""
        self.noted.clear()
        self.is_joined = False

    tpc_abort = abort

    def savepoint(self) -> _Savepoint:
        """See `ISavepointDataManager`."""
        return _Savepoint(self)


class _Savepoint:
    """See `transaction.interfaces.IDataManagerSavepoint`."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._count = len(notes.noted)

    def rollback(self) -> None:
        """See `IDataManagerSavepoint`."""
        del self._notes.noted[self._count :]
