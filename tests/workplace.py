# SPDX-License-Identifier: ZPL-2.1
"""A service in a database, used through connections of one's own, and waiting without haste."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

import transaction
import ZODB
from ZODB.interfaces import IMVCCStorage

from lovely.remotetask.base.site import ServicePath, path_to
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.service import TaskService

#: What anything may take at the most before it counts as hung, in seconds.
PATIENCE_SECONDS = 60.0


def wait_until(
    condition: Callable[[], object], what: str = "it", seconds: float = PATIENCE_SECONDS
) -> None:
    """Return as soon as a condition holds; fail if it does not within a generous time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def catch_up(*databases: ZODB.DB) -> None:
    """Wait until clients see the same: a server tells of commits a moment later."""
    told = [db.storage for db in databases if not IMVCCStorage.providedBy(db.storage)]
    wait_until(lambda: len({storage.lastTransaction() for storage in told}) <= 1, "the news")


def begin_all(*sides: tuple[transaction.TransactionManager, Any]) -> None:
    """Begin transactions that see the same.

    :param sides: (transaction manager, root) of connections.
    """
    catch_up(*(root._p_jar.db() for _, root in sides))
    for manager, _ in sides:
        manager.begin()


class Place:
    """A database with services in its root; *tasks* is there from the start.

    - ``path``: the path to *tasks*.
    """

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.new_service("tasks")
        with self.service() as service:
            self.path: ServicePath = path_to(service)

    @contextmanager
    def connected(self) -> Iterator[tuple[transaction.TransactionManager, Any]]:
        """Give (transaction manager, root) of a connection of its own; nothing is committed."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            yield manager, connection.root()
        finally:
            with suppress(Exception):
                manager.abort()
            if connection.opened is not None:
                connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give the root, and commit at the end."""
        with self.connected() as (manager, root):
            yield root
            manager.commit()

    @contextmanager
    def service(self, name: str = "tasks") -> Iterator[TaskService]:
        """Give a service, and commit at the end."""
        with self.transaction() as root:
            yield root[name]

    def new_service(self, name: str, **attributes: Any) -> None:
        """Put another service into the root."""
        with self.transaction() as root:
            root[name] = TaskService()
            for attribute, value in attributes.items():
                setattr(root[name], attribute, value)

    def last_transaction(self) -> bytes:
        """Return the id of the last transaction that was committed."""
        return bytes(self.db.storage.lastTransaction())


class Workplace(Place):
    """A place whose services work in threads of their own.

    - ``gate``: tasks called *hang* wait for it; ``hanging`` counts those that do.
    """

    def __init__(self, db: ZODB.DB) -> None:
        super().__init__(db)
        self.gate = threading.Event()
        self.hanging = 0
        self.most_hanging = 0
        self._lock = threading.Lock()

    def beside(self, db: ZODB.DB) -> Workplace:
        """Return the same place as another client sees it."""
        other = copy(self)
        other.db = db
        return other

    def hang(self, input: Any) -> Any:
        """Be a task that waits for the gate, and returns its input."""
        with self._lock:
            self.hanging += 1
            self.most_hanging = max(self.most_hanging, self.hanging)
        try:
            assert self.gate.wait(PATIENCE_SECONDS)
        finally:
            with self._lock:
                self.hanging -= 1
        return input

    def start(self, name: str = "tasks", **arguments: Any) -> None:
        """Start the thread of a service."""
        if arguments:
            with self.service(name) as service:
                service.processorArguments = arguments
        with self.service(name) as service:
            service.startProcessing()

    def stop(self, name: str = "tasks") -> None:
        """Stop the thread of a service, and wait for it."""
        with self.service(name) as service:
            service.stopProcessing(PATIENCE_SECONDS)

    def is_processing(self, name: str = "tasks") -> bool:
        """Say whether the thread of a service runs."""
        with self.service(name) as service:
            return service.isProcessing()

    def add(self, task: str, *inputs: Any, name: str = "tasks", **options: Any) -> list[int]:
        """Add a job for each input."""
        with self.service(name) as service:
            return [service.add(task, input, **options) for input in inputs]

    def statuses(self, jobids: list[int], name: str = "tasks") -> list[str]:
        """Return the statuses of jobs."""
        with self.service(name) as service:
            return [service.getStatus(jobid) for jobid in jobids]

    def wait_for(self, jobids: list[int], name: str = "tasks") -> list[str]:
        """Wait until jobs have ended, and return their statuses."""
        wait_until(
            lambda: all(status in FINAL_STATUSES for status in self.statuses(jobids, name)),
            "the jobs to end",
        )
        return self.statuses(jobids, name)
