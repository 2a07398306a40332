# SPDX-License-Identifier: ZPL-2.1
"""The records of workers: which process holds which jobs."""

from __future__ import annotations

import os
import socket
from typing import Any

from persistent import Persistent

from lovely.remotetask.base.ownership import check_path, check_sound, removed, wrote

#: Seconds without a sign of life after which a worker counts as dead.
LEASE_SECONDS = 60.0


class Worker(Persistent):
    """The record of one worker.

    Stored: ``held`` tuple of job ids that were claimed and are not filed yet; ``host``
    and ``pid``: for people; ``beats`` int: heartbeats written; ``is_inline`` bool: the jobs
    were claimed in an application's own transactions, by `ITaskService.claimNextJob`, where
    nobody gives signs of life, and nobody may be at them.
    """

    beats: int = 0
    is_inline: bool = False

    def __init__(self) -> None:
        self.held: tuple[int, ...] = ()
        self.host = socket.gethostname()
        self.pid = os.getpid()

    def beat(self) -> None:
        """Give a sign of life."""
        self.beats += 1


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
