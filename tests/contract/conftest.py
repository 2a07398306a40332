# SPDX-License-Identifier: ZPL-2.1
"""What the contract tests share: databases of several kinds, and ways of running jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from zope.component import getGlobalSiteManager

from lovely.remotetask.interfaces import ITask
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask


@pytest.fixture
def register() -> Callable[..., SimpleTask]:
    """Return ``register(name, function, **options)``, which makes a task of a function."""

    def register(name: str, function: Callable[..., Any], **options: Any) -> SimpleTask:
        task = SimpleTask(function, **options)
        getGlobalSiteManager().registerUtility(task, ITask, name=name)
        return task

    return register


class Place:
    """A database with a service at *tasks*, used through connections of one's own."""

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        with self.service() as service:
            self.path_service_oid = service._p_oid

    @contextmanager
    def connected(self) -> Iterator[tuple[transaction.TransactionManager, Any]]:
        """Give (transaction manager, root); nothing is committed."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            yield manager, connection.root()
        finally:
            with suppress(Exception):
                manager.abort()
            connection.close()

    @contextmanager
    def service(self) -> Iterator[TaskService]:
        """Give the service, and commit at the end."""
        with self.connected() as (manager, root):
            if "tasks" not in root:
                root["tasks"] = TaskService()
                manager.commit()
            yield root["tasks"]
            manager.commit()


@pytest.fixture(params=["memory", "file", "file below memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place in each kind of storage that takes part in tests without a server."""
    path = str(tmp_path / "Data.fs")
    match request.param:
        case "memory":
            storage: Any = DemoStorage()
        case "file":
            storage = FileStorage(path)
        case _:
            storage = DemoStorage(base=FileStorage(path))
    database = ZODB.DB(storage)
    yield Place(database)
    transaction.abort()
    database.close()


@pytest.fixture
def until() -> Callable[..., None]:
    """Return ``until(condition)``, which returns as soon as a condition holds."""

    def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return until
