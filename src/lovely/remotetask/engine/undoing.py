# SPDX-License-Identifier: ZPL-2.1
"""Undoing a job: its writes, its result and its status are one commit, which the storage undoes.

A storage undoes a transaction in one of its own, which nothing else can be a part of, and that
gives the job's record back as it was while it ran.  So there are three:

- The first asks for the job's cancelling.  Whoever comes to the job behind the second, a check that
  finds it processing and held by nobody, say, does not run it for that.
- The second undoes.  If it cannot, the first is taken back.
- The third cancels the job, takes it out of the index of the completed ones, and says who it was.

A process that dies in between leaves a job that is cancelled when it is come to.
"""

from __future__ import annotations

import getpass
import socket
import threading
from base64 import encodebytes
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple

import transaction
from persistent.timestamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import POSKeyError, UndoError

from lovely.remotetask.base.ownership import check_path, wrote
from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine.control import find_filed, find_job
from lovely.remotetask.engine.identity import is_exclusive
from lovely.remotetask.engine.options import MAX_NOTE, check_note
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.telling import note
from lovely.remotetask.engine.transactions import Transactor
from lovely.remotetask.engine.waiting import check_no_changes, refresh
from lovely.remotetask.errors import CannotUndo, InvalidArgument, ServiceNotStored
from lovely.remotetask.events import JobCancelled
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, PROCESSING
from lovely.remotetask.job import Job, job_log
from lovely.remotetask.store.joblog import kept_lines, restore_lines
from lovely.remotetask.store.notes import take_note

#: So many objects, or jobs, are named in an error.
MAX_NAMED = 5


class _Run(NamedTuple):
    """The run that is to be undone.

    :ivar tid: the id of its transaction.
    :ivar entry: where its job is filed among the completed ones.
    :ivar claim: owner and attempt of its job while it ran, if it was claimed in another
        transaction.
    :ivar lines: what the job has logged.
    """

    tid: bytes
    entry: tuple[float, int]
    claim: tuple[str | None, int]
    lines: Any


def transaction_of(job: Job) -> bytes | None:
    """Return the id of the transaction that has completed a job; None if it is not completed."""
    if job.status != COMPLETED or job._p_jar is None:
        return None
    job._p_activate()
    return bytes(job._p_serial)


def time_of(tid: bytes) -> datetime:
    """Return when a transaction was committed."""
    return datetime.fromtimestamp(TimeStamp(tid).timeTime(), timezone.utc)


def undo(service: Any, jobid: Any, by: str | None = None) -> None:
    """Undo the run of a completed job; see `ITaskService.undo`.

    Transaction: must not run in one with changes; commits.
    """
    number = find_job(service, jobid).id
    by = check_note(by)
    check_no_changes(service, "nothing is undone in a transaction with changes")
    if service.place is None:
        raise ServiceNotStored
    db = service._p_jar.db()
    path = path_to(service)
    try:
        with Session(db, path, transaction.TransactionManager()) as session:
            transact = Transactor(".".join(path), lambda seconds: threading.Event().wait(seconds))
            _undo(session, transact, number, _name_of_user() if by is None else by)
    finally:
        refresh(service)


def _name_of_user() -> str:
    try:
        return f"{getpass.getuser()} on {socket.gethostname()}"
    except (OSError, KeyError):  # nobody that the system knows
        return f"somebody on {socket.gethostname()}"


def _undo(session: Session, transact: Transactor, jobid: int, by: str) -> None:
    run = transact(session, lambda service: _prepare(session, service, jobid))
    try:
        _undo_transaction(session, run.tid, f"remotetask undo {jobid}", by)
    except BaseException as error:
        session.abort(error)
        # It may have come to pass all the same, where the server was lost in its last word.
        if _is_as_it_was(session, jobid, run.tid):
            transact(session, lambda service: take_note(service.requests, jobid))
            if isinstance(error, UndoError):
                raise _refusal(session, jobid, run.tid, error) from error
            raise
    transact(session, lambda service: _settle(service, jobid, run, by))
    job_log.warning("job %s: undone by %s", jobid, by)


def _prepare(session: Session, service: Any, jobid: int) -> _Run:
    job = find_filed(service, jobid)
    if job.status != COMPLETED:
        raise InvalidArgument(f"job {job.__name__} is {job.status}: only a completed job is undone")
    if not session.db.supportsUndo():
        raise CannotUndo("the storage of this database keeps no history, and cannot undo")
    tid = transaction_of(job)
    assert tid is not None
    claim = _claim_before(session, job, tid)
    check_path(service.requests, jobid)
    service.requests.insert(jobid)
    return _Run(tid, service.queue.entry_of(job), claim, kept_lines(job))


def _claim_before(session: Session, job: Job, tid: bytes) -> tuple[str | None, int]:
    """Return who held a job when it was run, and its attempt.

    :raises CannotUndo: its run is not all that the transaction has done, or is not known.
    """
    oids = _oids_of(session.db, tid)
    if oids is None:
        raise CannotUndo(f"the transaction of job {job.__name__} was packed away")
    with _at(session.db, before=tid) as past, _at(session.db, at=tid) as then:
        before = _found(past, job._p_oid)
        if before is None:
            raise CannotUndo(f"job {job.__name__} was added in the transaction that has run it")
        if before.status == COMPLETED:
            raise CannotUndo(f"the record of job {job.__name__} was changed since it has run")
        others = [
            other
            for oid in oids
            if oid != job._p_oid and (other := _other_run(session, past, then, oid)) is not None
        ]
        claim = (before.owner, before.attempt)
    if others:
        raise CannotUndo(
            f"job {job.__name__} has shared its commit with other jobs: {_listed(others)}"
        )
    return claim


def _oids_of(db: Any, tid: bytes) -> list[bytes] | None:
    """Return the ids of the objects that a transaction has written; None if it was packed."""
    with _between_commits(db.storage):
        transactions = db.storage.iterator(tid, tid)
        try:
            for txn in transactions:
                if txn.tid == tid and txn.status != "p":
                    return [record.oid for record in txn]
        finally:
            if hasattr(transactions, "close"):
                transactions.close()
    return None


@contextmanager
def _between_commits(storage: Any) -> Iterator[None]:
    """Keep commits of a storage of this process waiting.

    A `FileStorage` whose file is looked at by another way, as its iterator does, cannot be read
    while a transaction is being written: ``_skip_to_start`` in ZODB then fails in three ways.
    """
    if not is_exclusive(storage) or storage.isReadOnly():
        yield
        return
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    try:
        yield
    finally:
        storage.tpc_abort(txn)


@contextmanager
def _at(db: Any, **when: bytes) -> Iterator[Any]:
    """Give a connection that sees what there was before a transaction, or at its end."""
    with closing(db.open(transaction.TransactionManager(), **when)) as connection:
        yield connection


def _found(connection: Any, oid: bytes) -> Any:
    try:
        found = connection.get(oid)
        found._p_activate()
    except POSKeyError:
        return None
    return found


def _other_run(session: Session, past: Any, then: Any, oid: bytes) -> str | None:
    """Return the name of another job that a transaction has run, if the object is one."""
    if not isinstance(_found(session.connection, oid), Job):
        return None
    before, after = _found(past, oid), _found(then, oid)
    if before is None or after is None:  # the run has added it, or removed it
        return None
    has_run = after.attempt > before.attempt or before.status == PROCESSING != after.status
    name: str = after.__name__
    return name if has_run else None


def _undo_transaction(session: Session, tid: bytes, text: str, by: str) -> None:
    session.begin()
    txn = session.manager.get()
    txn.note(text)
    txn.setExtendedInfo("by", by)
    session.db.undo(encodebytes(tid).rstrip(b"\n"), txn)
    session.commit()


def _is_as_it_was(session: Session, jobid: int, tid: bytes) -> bool:
    job = session.begin().jobs.get(jobid)
    has_changed = job is None or transaction_of(job) != tid
    session.abort()
    return not has_changed


def _refusal(session: Session, jobid: int, tid: bytes, error: UndoError) -> CannotUndo:
    """Return an error that says what keeps a storage from undoing."""
    session.begin()
    changed = []
    for oid in _oids_of(session.db, tid) or ():
        found = _found(session.connection, oid)
        if found is None or found._p_serial != tid:
            kind = "an object" if found is None else type(found).__qualname__
            changed.append(f"{kind} 0x{int.from_bytes(oid, 'big'):x}")
    session.abort()
    if not changed:
        return CannotUndo(f"the storage cannot undo job {jobid}: {error}")
    return CannotUndo(f"what job {jobid} has written was changed since: {_listed(changed)}")


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _settle(service: Any, jobid: int, run: _Run, by: str) -> None:
    """Cancel a job whose run was undone."""
    job = find_job(service, jobid)
    service.queue.indexes[COMPLETED].remove(*run.entry)
    if job.status == PROCESSING and (job.owner, job.attempt) != run.claim:
        return  # somebody has come to it, and will find that it is to be cancelled
    take_note(service.requests, jobid)
    now = datetime.now(timezone.utc)
    if not job.is_final:
        if job.status == PROCESSING:
            wrote(service, job)
        else:  # it was claimed and run in one transaction
            service.queue.remove(job)
        job.cancel(now.timestamp())
        service.queue.file(job)
        note(service, job, JobCancelled, now=now.timestamp())
    if job.status == CANCELLED:
        text = f"undone by {by} at {now:%Y-%m-%d %H:%M:%S} UTC"
        job.note = (text if job.note is None else f"{job.note}\n{text}")[-MAX_NOTE:]
        restore_lines(service, job, run.lines)
