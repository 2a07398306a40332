# SPDX-License-Identifier: ZPL-2.1
"""The records of workers: which process holds which jobs."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timezone
from typing import Any, NamedTuple

from persistent import Persistent
from persistent.TimeStamp import TimeStamp
from ZODB.utils import z64

from lovely.remotetask.base.ownership import check_path, check_sound, removed, wrote

#: Seconds without a sign of life after which a worker counts as dead.
LEASE_SECONDS = 60.0


class Origin(NamedTuple):
    """Who has started the process of a worker: a supervisor.

    :ivar supervisor: the id of its process.
    :ivar child: the number that this process has there, from 1 on.
    :ivar starts: how often it was started under that number, this time included.
    :ivar why: what became of the one before; empty the first time.
    :ivar token: a random word for this very process, which the supervisor has made; empty if the
        process is not the supervisor's own child.
    """

    supervisor: int
    child: int
    starts: int
    why: str
    token: str = ""


#: Who has started this process; None where nobody supervises it.  It is for who runs it.
origin: Origin | None = None

#: In the place of a worker's id: the jobs in this record have ended a run, and wait for who can
#: file them.  It gives no sign of life, so whoever frees what dead workers hold comes to it.
LEFT = "left"

#: The tokens of processes that have died: their supervisor, which is that of this one, has waited
#: for each of them.  It is for who runs this process too.
ended: set[str] = set()


def _forget_origin() -> None:
    # A forked child may live when the process is dead that the supervisor has started.
    global origin
    origin = None


if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(after_in_child=_forget_origin)


class Worker(Persistent):
    """The record of one worker.

    Stored: ``held`` tuple of job ids that were claimed and are not filed yet; ``host``
    and ``pid``: for people; ``beats`` int: heartbeats written; ``is_inline`` bool: the jobs
    were claimed in an application's own transactions, by `ITaskService.claimNextJob`, where
    nobody gives signs of life, and nobody may be at them; ``threads`` int: how many jobs it runs
    at the same time.  In a process that a supervisor has started: ``origin`` tuple, and ``token``
    str, see `Origin`.
    """

    beats: int = 0
    is_inline: bool = False
    threads: int = 1
    origin: tuple[int, int, int, str] | None = None
    token: str = ""

    def __init__(self) -> None:
        self.held: tuple[int, ...] = ()
        self.host = socket.gethostname()
        self.pid = os.getpid()
        if origin is not None:
            self.origin = origin[:4]  # what is stored needs no class
            self.token = origin.token

    def beat(self) -> None:
        """Give a sign of life."""
        self.beats += 1

    @property
    def has_ended(self) -> bool:
        """Whether the supervisor of this process has told that the worker's process is dead."""
        return self.token in ended


class WorkerState(NamedTuple):
    """What can be told of a worker.

    :ivar id: names it; the same as in ``job.owner``.
    :ivar host: the name of its machine.
    :ivar pid: the id of its process there.
    :ivar held: ids of the jobs that it runs or is about to run, and of those that have ended since
        it last looked for jobs.
    :ivar is_inline: it is an application that has claimed jobs by `ITaskService.claimNextJob`.
    :ivar last_sign: when it last wrote its record, in UTC, by the clock of the storage.
    :ivar threads: how many jobs it runs at the same time.
    :ivar supervisor: the id of the process that has started it, as one of several or to start it
        again; None for any other process.
    :ivar child: the number that it has there, from 1 on.
    :ivar starts: how often a process was started under that number, this one included.
    :ivar restarted: what became of the one before; empty the first time.
    """

    id: str
    host: str
    pid: int
    held: tuple[int, ...]
    is_inline: bool
    last_sign: datetime | None
    threads: int = 1
    supervisor: int | None = None
    child: int | None = None
    starts: int = 1
    restarted: str = ""


def list_workers(service: Any) -> list[WorkerState]:
    """Return who holds jobs of a service, by host and process.

    Transaction: reads only.
    """
    states = [_state_of(worker_id, worker) for worker_id, worker in service.workers.items()]
    return sorted(states, key=lambda state: (state.host, state.pid, state.id))


def _state_of(worker_id: str, worker: Worker) -> WorkerState:
    worker._p_activate()  # a ghost has no serial
    serial = worker._p_serial
    sign = None
    if serial != z64:
        sign = datetime.fromtimestamp(TimeStamp(serial).timeTime(), timezone.utc)
    told = (worker.host, worker.pid, worker.held, worker.is_inline, sign, worker.threads)
    return WorkerState(worker_id, *told, *(worker.origin or ()))


def find_worker(service: Any, worker_id: str) -> Worker | None:
    """Return the record of a worker, or None."""
    record: Worker | None = service.workers.get(worker_id)
    if record is not None:
        check_sound(service.workers, record)
    return record


def worker_record(service: Any, worker_id: str) -> Worker:
    """Return the record of a worker, to be written, made if there is none."""
    record = find_worker(service, worker_id)
    if record is None:
        check_path(service.workers, worker_id)
        record = service.workers[worker_id] = Worker()
    wrote(service, record)
    return record


def remove_worker(service: Any, worker_id: str) -> None:
    """Remove the record of a worker."""
    # Written although it is removed: what the worker itself still writes must collide.
    record = worker_record(service, worker_id)
    record.beat()
    check_path(service.workers, worker_id)
    del service.workers[worker_id]
    removed(service, record)


def hold(service: Any, worker_id: str, held: list[int], threads: int = 1) -> None:
    """Write down what a worker holds; its record exists as long as that is something.

    :param held: ids of jobs.  One stands there twice while another attempt of it is claimed.
    :param threads: how many jobs it runs at the same time.
    """
    numbers = tuple(dict.fromkeys(held))
    record = find_worker(service, worker_id)
    before = () if record is None else record.held
    if not numbers:
        if record is not None:
            remove_worker(service, worker_id)
    elif numbers != before:
        written = worker_record(service, worker_id)
        written.held = numbers
        if written.threads != threads:
            written.threads = threads
