# SPDX-License-Identifier: ZPL-2.1
"""Waiting for jobs to end, in a connection of its own.

Who waits is woken by what his database is told of each commit, those of this process too: see
`CommitListener`.  He looks again and again all the same, ever more rarely, for a storage may tell
nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import transaction
from transaction.interfaces import NoTransaction

from lovely.remotetask.base.site import path_to
from lovely.remotetask.base.storable import copy_of
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.wakeup import CommitListener
from lovely.remotetask.errors import (
    InvalidArgument,
    JobFailed,
    JobNotDone,
    ServiceNotStored,
    TransactionInProgress,
    list_of,
    seconds_of,
    shown,
    whole_of,
)
from lovely.remotetask.interfaces import COMPLETED, FINAL_STATUSES

#: Seconds until who waits looks again: the first time, and when he was woken; each time as much
#: longer; and at the most, where the storage tells of commits, and where it does not.
FIRST_LOOK_SECONDS = 0.001
LOOK_FACTOR = 2.0
LAST_LOOK_SECONDS = 1.0
LAST_ASK_SECONDS = 0.25

#: So many jobs can be waited for together.
MAX_JOBS = 100_000


def wait_for(service: Any, jobids: Iterable[Any], timeout_seconds: Any) -> dict[int, str]:
    """Wait until jobs have ended; return their statuses.  See `ITaskService.wait_all`."""
    given = list_of(jobids, "jobids", InvalidArgument, MAX_JOBS)
    wanted: dict[int, str] = {}
    for jobid in given:
        number = whole_of(jobid)
        if number is None:
            raise InvalidArgument(f"jobids must be ids of jobs, not {shown(jobid)}")
        wanted[number] = ""
    seconds = math.inf
    if timeout_seconds is not None:
        seconds = seconds_of(timeout_seconds, "timeout_seconds")
    text = "nothing is waited for in a transaction with changes, which might be what is waited for"
    check_no_changes(service, text)
    if service.place is None:
        raise ServiceNotStored
    try:
        _wait(service, wanted, time.monotonic() + seconds)
    finally:
        refresh(service)
    return wanted


def result_of(service: Any, jobid: Any, timeout_seconds: Any) -> Any:
    """Wait for a job; return its result.  See `ITaskService.wait_result`."""
    [(number, status)] = wait_for(service, [jobid], timeout_seconds).items()
    if status not in FINAL_STATUSES:
        raise JobNotDone(f"job {number} has not ended in {timeout_seconds} seconds, it is {status}")
    job = find_job(service, number)
    if job.status != COMPLETED:
        raise JobFailed.of(job)
    return copy_of(job.output)


def _wait(service: Any, statuses: dict[int, str], end: float) -> None:
    db = service._p_jar.db()
    woken = threading.Event()
    with ExitStack() as stack:
        session = stack.enter_context(
            Session(db, path_to(service), transaction.TransactionManager())
        )
        listener = stack.enter_context(CommitListener(db, woken.set))
        longest = LAST_LOOK_SECONDS if listener.hears else LAST_ASK_SECONDS
        step = FIRST_LOOK_SECONDS
        waiting = list(statuses)
        while True:
            waiting = _look(session, waiting, statuses, listener)
            remaining = end - time.monotonic()
            if not waiting or remaining <= 0:
                return
            if woken.wait(min(step, remaining)):
                woken.clear()
                step = FIRST_LOOK_SECONDS
            else:
                step = min(LOOK_FACTOR * step, longest)


def _look(
    session: Session, jobids: list[int], statuses: dict[int, str], listener: CommitListener
) -> list[int]:
    """Note the statuses of jobs, and return those that have not ended."""
    service = session.begin()
    waiting = []
    signals = set()
    for jobid in jobids:
        job = find_job(service, jobid)
        statuses[jobid] = job.status
        if job.status not in FINAL_STATUSES:
            waiting.append(jobid)
            signals.add(job._p_oid)
    listener.oids = signals
    session.abort()
    return waiting


def check_no_changes(service: Any, text: str) -> None:
    """Refuse to go on if the caller's transaction has changes.

    :param text: what is not done then.
    :raises TransactionInProgress: it has.
    """
    jar = service._p_jar
    try:
        txn = None if jar is None else jar.transaction_manager.get()
    except NoTransaction:
        return
    if txn is not None and txn._resources:
        raise TransactionInProgress(f"{text}: commit or abort it first")


def refresh(service: Any) -> None:
    """Let the caller's transaction, which has changed nothing, see what there is now."""
    jar = service._p_jar
    try:
        txn = jar.transaction_manager.get()
    except NoTransaction:
        return
    for connection in jar.connections.values():
        if connection.opened is not None:
            connection.newTransaction(txn)
