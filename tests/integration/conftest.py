# SPDX-License-Identifier: ZPL-2.1
"""What the integration tests share: services in databases, and waiting without sleeping blindly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import transaction
import ZODB
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine import registry
from lovely.remotetask.interfaces import FINAL_STATUSES, ITask
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask

PATIENCE_SECONDS = 20.0


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Return as soon as a condition holds; fail if it does not within a generous time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., None]:
    """Return `wait_until`."""
    return wait_until


@pytest.fixture
def register() -> Callable[..., SimpleTask]:
    """Return ``register(name, function, **options)``, which makes a task of a function."""

    def register(name: str, function: Callable[..., Any], **options: Any) -> SimpleTask:
        task = SimpleTask(function, **options)
        getGlobalSiteManager().registerUtility(task, ITask, name=name)
        return task

    return register


class Workplace:
    """A database with services in its root; *tasks* is there from the start.

    - ``gate``: tasks called *hang* wait for it; ``hanging`` counts those that do.
    """

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.gate = threading.Event()
        self.hanging = 0
        self.most_hanging = 0
        self._lock = threading.Lock()
        self.new_service("tasks")

    def hang(self, input: Any) -> Any:
        with self._lock:
            self.hanging += 1
            self.most_hanging = max(self.most_hanging, self.hanging)
        try:
            assert self.gate.wait(PATIENCE_SECONDS)
        finally:
            with self._lock:
                self.hanging -= 1
        return input

    @contextmanager
    def root(self) -> Iterator[Any]:
        """Give the root, through a connection of its own, and commit at the end."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            yield connection.root()
            manager.commit()
        finally:
            with suppress(Exception):
                manager.abort()
            connection.close()

    @contextmanager
    def service(self, name: str = "tasks") -> Iterator[TaskService]:
        """Give a service, and commit at the end."""
        with self.root() as root:
            yield root[name]

    def new_service(self, name: str, **attributes: Any) -> None:
        """Put another service into the root."""
        with self.root() as root:
            root[name] = TaskService()
            for attribute, value in attributes.items():
                setattr(root[name], attribute, value)

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

    def last_transaction(self) -> bytes:
        """Return the id of the last transaction that was committed."""
        return bytes(self.db.storage.lastTransaction())


def threads_named(prefix: str) -> list[threading.Thread]:
    """Return the living threads whose names start so."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


@pytest.fixture
def threads() -> Callable[[str], list[threading.Thread]]:
    """Return `threads_named`."""
    return threads_named


@pytest.fixture
def make_workplace(register: Any) -> Iterator[Callable[[ZODB.DB], Workplace]]:
    """Return a function that makes a workplace of a database; its threads end with the test."""
    workplaces = []

    def make(db: ZODB.DB) -> Workplace:
        workplace = Workplace(db)
        workplaces.append(workplace)
        register("echo", lambda input: input)
        register("hang", workplace.hang)
        return workplace

    yield make
    for workplace in workplaces:
        workplace.gate.set()
    assert registry.stop_all(PATIENCE_SECONDS)


@pytest.fixture
def workplace(db: ZODB.DB, make_workplace: Any) -> Workplace:
    """A workplace in memory."""
    made: Workplace = make_workplace(db)
    return made


@pytest.fixture
def file_workplace(file_db: ZODB.DB, make_workplace: Any) -> Workplace:
    """A workplace in a file."""
    made: Workplace = make_workplace(file_db)
    return made
