# SPDX-License-Identifier: ZPL-2.1
"""A service that is not stored yet starts when the transaction is committed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from transaction.interfaces import NoTransaction

from lovely.remotetask.engine.later import start_later
from lovely.remotetask.errors import ServiceNotStored, TaskError
from lovely.remotetask.interfaces import COMPLETED, FINAL_STATUSES
from lovely.remotetask.service import TaskService


@pytest.fixture
def root(db: ZODB.DB, make_workplace: Any) -> Iterator[Any]:
    """The root of a database, in the thread's own transaction."""
    make_workplace(db)  # which stops what is started here
    connection = db.open()
    yield connection.root()
    transaction.abort()
    connection.close()


@pytest.fixture
def threads_of(threads: Any) -> Any:
    return lambda: threads("remotetasks.new")


def test_it_starts_with_the_commit_and_not_before(root: Any, until: Any) -> None:
    service = root["new"] = TaskService()
    assert service.startProcessing() is None
    service.startProcessing()
    transaction.savepoint(optimistic=True)
    service.startProcessing()
    jobid = service.add("echo", "hello")
    assert not service.isProcessing()
    transaction.commit()
    assert service.isProcessing()

    def is_done() -> bool:
        transaction.begin()
        return service.getResult(jobid) == "hello"

    until(is_done)


def test_it_starts_once(root: Any, threads_of: Any) -> None:
    service = root["new"] = TaskService()
    service.startProcessing()
    service.startProcessing()
    transaction.commit()
    assert len(threads_of()) == 1


def test_it_does_not_start_with_an_abort(root: Any, threads_of: Any) -> None:
    service = root["new"] = TaskService()
    service.startProcessing()
    transaction.abort()
    root["other"] = 1
    transaction.commit()
    assert not service.isProcessing()
    assert threads_of() == []


def test_nor_with_a_commit_that_fails(root: Any, threads_of: Any) -> None:
    service = root["new"] = TaskService()
    root["what cannot be stored"] = lambda: None
    service.startProcessing()
    with pytest.raises(Exception, match="pickle"):
        transaction.commit()
    transaction.abort()
    assert threads_of() == []


def test_nor_if_the_service_is_rolled_back(
    root: Any, threads_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root["other"] = 1
    point = transaction.savepoint()
    service = root["new"] = TaskService()
    service.startProcessing()
    point.rollback()
    transaction.commit()
    assert threads_of() == []
    assert caplog.records == []


def test_nor_if_the_call_alone_is_rolled_back(root: Any, threads_of: Any) -> None:
    service = root["new"] = TaskService()
    point = transaction.savepoint()
    service.startProcessing()
    point.rollback()
    transaction.commit()
    assert root["new"] is service
    assert threads_of() == []


def test_what_is_rolled_back_after_the_call_does_not_matter(root: Any) -> None:
    service = root["new"] = TaskService()
    service.startProcessing()
    point = transaction.savepoint()
    root["other"] = 1
    point.rollback()
    transaction.commit()
    assert service.isProcessing()


def test_it_does_not_start_if_it_is_stopped_before(root: Any, threads_of: Any) -> None:
    service = root["new"] = TaskService()
    other = root["other"] = TaskService()
    service.startProcessing()
    other.startProcessing()
    service.stopProcessing()
    transaction.commit()
    assert threads_of() == []
    assert other.isProcessing()


def test_it_starts_with_the_transaction_of_where_it_stands(db: ZODB.DB, root: Any) -> None:
    root["site"], root["mine"] = PersistentMapping(), PersistentMapping()
    transaction.commit()
    manager = transaction.TransactionManager(explicit=True)
    connection = db.open(manager)
    manager.begin()
    service = TaskService()
    service.__parent__ = site = connection.root()["site"]
    site["new"] = service
    service.startProcessing()
    root["mine"]["changed"] = True
    transaction.commit()
    assert not service.isProcessing()
    manager.commit()
    assert service.isProcessing()
    connection.close()
    service.stopProcessing(20)
    assert not service.isProcessing()


def test_one_that_the_transaction_does_not_store_is_told(
    root: Any, threads_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root["other"] = 1
    TaskService().startProcessing()
    with caplog.at_level(logging.ERROR):
        transaction.commit()
    assert "a service was not started: the transaction has not stored it" in caplog.text
    assert threads_of() == []


def test_one_that_cannot_start_is_told(root: Any, caplog: pytest.LogCaptureFixture) -> None:
    service = root["new"] = TaskService()
    service.processorArguments = {"no such": "argument"}
    service.startProcessing()
    transaction.commit()
    [record] = [record for record in caplog.records if record.name == "lovely.remotetask"]
    assert (record.getMessage(), bool(record.exc_info)) == (
        "service None could not be started",
        True,
    )


@pytest.mark.parametrize("explicit", [False, True])
def test_without_a_transaction_that_could_store_it_it_is_refused(
    explicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = transaction.TransactionManager(explicit=explicit)
    monkeypatch.setattr(transaction.manager, "manager", manager, raising=False)
    if explicit:
        with pytest.raises(NoTransaction):
            manager.get()
    with pytest.raises(ServiceNotStored):
        start_later(TaskService())


@pytest.mark.parametrize("is_inline", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_task_that_makes_a_service_starts_it_if_it_is_kept(
    root: Any, register: Any, threads_of: Any, until: Any, fails: bool, is_inline: bool
) -> None:
    def make(context: Any, input: Any) -> None:
        service = context.service._p_jar.root()["new"] = TaskService()
        service.startProcessing()
        if fails:
            raise TaskError("no")

    register("make", make, context=True)
    tasks = root["tasks"]
    jobid = tasks.add("make")
    transaction.commit()
    if is_inline:
        tasks.process()
        transaction.commit()
    else:
        tasks.startProcessing()

    def has_ended() -> bool:
        transaction.begin()
        return tasks.getStatus(jobid) in FINAL_STATUSES

    until(has_ended)
    tasks.stopProcessing(20)
    assert (tasks.getStatus(jobid) == COMPLETED) is not fails
    assert len(threads_of()) == (0 if fails else 1)
