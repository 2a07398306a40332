# SPDX-License-Identifier: ZPL-2.1
"""What the contract of remote processors is tested with: stores, and processors in them.

A store has what its tests need of it: `ZodbStore` says what that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import transaction
import ZODB

import remotejobs
from lovely.remotetask.engine import registry
from lovely.remotetask.remote import testing
from storages import make_storage
from workplace import PATIENCE_SECONDS, wait_until


class ZodbStore:
    """Processors in ZODB, used through one connection and the thread's own transaction."""

    name = "zodb"

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.connection = db.open()

    def processor(self, name: str = "remote") -> Any:
        """Return a new processor without a ``__name__``, committed, with the factories of tests."""
        self.connection.root()[name] = processor = self.new_processor()
        for kind in remotejobs.CLASSES:
            processor.addJobFactory(kind.__name__.lower(), kind())
        self.commit()
        return processor

    def new_processor(self) -> Any:
        """Return a processor that is not stored."""
        return testing.TestProcessor()

    def commit(self) -> None:
        transaction.commit()

    def abort(self) -> None:
        """Abort, and see what others have committed."""
        transaction.abort()

    @contextmanager
    def elsewhere(self, processor: Any) -> Iterator[Any]:
        """Give the same processor in a transaction of its own, which is committed at the end."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            yield connection.get(processor._p_oid)
            manager.commit()
        finally:
            with suppress(Exception):
                manager.abort()
            connection.close()

    def last_write(self, processor: Any) -> Any:
        """Return what changes whenever anything is written."""
        return self.db.storage.lastTransaction()

    def close(self) -> None:
        transaction.abort()
        self.connection.close()
        self.db.close()


class MongoStore:
    """Processors on MongoDB, used in the thread's own transaction."""

    name = "mongo"

    def __init__(self, database: Any) -> None:
        from lovely.remotetask.remote.mongo import MongoRemoteProcessor

        class TestProcessor(MongoRemoteProcessor):
            jobWorkerArguments = {"waitTime": 0.0}  # noqa: RUF012

        self.database = database
        self._make = TestProcessor

    def processor(self, name: str = "remote") -> Any:
        """Return a new processor, see `ZodbStore`; each name is a database of its own."""
        database = self.database.client[f"{self.database.name}_{name}"]
        processor = self._make(database, remotejobs.CLASSES)
        for kind in remotejobs.CLASSES:
            processor.addJobFactory(kind.__name__.lower(), kind())
        self.commit()
        return processor

    def new_processor(self) -> Any:
        """Return a processor of an empty database."""
        return self._make(self.database.client[f"{self.database.name}_new"], remotejobs.CLASSES)

    def commit(self) -> None:
        transaction.commit()

    def abort(self) -> None:
        """Abort, and see what others have committed."""
        transaction.abort()

    @contextmanager
    def elsewhere(self, processor: Any) -> Iterator[Any]:
        """Give the same processor in a transaction of its own, which is committed at the end."""
        manager = transaction.TransactionManager()
        try:
            yield processor.seen_by(manager)
            manager.commit()
        finally:
            manager.abort()

    def last_write(self, processor: Any) -> Any:
        """Return what changes whenever anything is written."""
        stored = self.database.client[processor.database.name]
        return [list(stored[name].find()) for name in ("rjobs", "rfactories", "rscheduler")]

    def close(self) -> None:
        transaction.abort()
        client = self.database.client
        for name in client.list_database_names():
            if name.startswith(f"{self.database.name}_"):
                client.drop_database(name)


#: Where all is tested, and where what threads do is: in ZODB on these storages.
STORES = ["file", "mongo"]
STORES_FOR_THREADS = ["file", "zeo", "postgresql", "sqlite", "mongo"]


def _opened(request: pytest.FixtureRequest) -> Iterator[Any]:
    remotejobs.gate.clear()
    if request.param == "mongo":
        store: Any = MongoStore(request.getfixturevalue("mongo_database"))
    else:
        store = ZodbStore(make_storage(request.param, request).open())
    yield store
    remotejobs.gate.set()
    assert registry.stop_all(PATIENCE_SECONDS)
    store.close()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A store."""
    yield from _opened(request)


@pytest.fixture(params=STORES_FOR_THREADS)
def shared_store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A store that is used by threads."""
    yield from _opened(request)


@pytest.fixture
def remote(store: ZodbStore) -> Any:
    """A processor in a store, which nothing runs but the test."""
    return store.processor()


@pytest.fixture
def done() -> list[Any]:
    """What the jobs of the test have done."""
    remotejobs.done.clear()
    return remotejobs.done


@pytest.fixture
def attempt(store: ZodbStore) -> Callable[..., Any]:
    """Return ``attempt(processor)``: processes the next job as a caller does, and commits.

    It returns what the call has returned, or the exception that it has raised.
    """

    def attempt(processor: Any, *arguments: Any, **keywords: Any) -> Any:
        try:
            outcome = processor.processNextJob(*arguments, **keywords)
        except Exception as error:
            outcome = error
        store.commit()
        return outcome

    return attempt


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what lists the lines that the second door has logged, from INFO on."""
    caplog.set_level("INFO", "lovely.remotetask.remote")

    def logged() -> list[str]:
        return [
            record.getMessage()
            for record in list(caplog.records)
            if record.name.startswith("lovely.remotetask.remote")
        ]

    return logged


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return ``eventually(store, condition)``: waits for what threads are to commit."""

    def eventually(store: ZodbStore, condition: Callable[[], object], what: str = "it") -> None:
        def holds() -> object:
            store.abort()
            return condition()

        wait_until(holds, what)

    return eventually
