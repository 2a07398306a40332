# SPDX-License-Identifier: ZPL-2.1
"""A storage in a relational database: what it raises when it is away, and its news."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping
from ZODB.DemoStorage import DemoStorage
from ZODB.POSException import StorageError

from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from storages import room_for, storing_in


class DatabaseError(Exception):
    """What a driver raises for an answer that breaks off."""


class OperationalError(DatabaseError):
    """What drivers of relational databases raise when the server is away."""


class AdminShutdown(OperationalError):
    """What one of them raises for a session that was ended."""


class ProgrammingError(DatabaseError):
    """What they raise for a wrong statement."""


AWAY = [AdminShutdown("terminating connection\ndue to administrator command"), DatabaseError("eof")]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_a_database_that_is_away_is_a_lost_storage(
    workshop: Any, fail_commits: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO, "lovely.remotetask")
    jobid = workshop.add("echo")
    fail_commits(error, error)
    [claim] = workshop.claim()
    fail_commits(error)
    assert workshop.run(claim).status == COMPLETED
    assert workshop.get(jobid, "attempt", "failures") == (1, ())
    [lost, back] = [record.getMessage() for record in caplog.records]
    assert lost.startswith("the storage of service tasks does not work, waiting for it: ")
    assert "\n" not in lost
    assert back == "the storage of service tasks works again"


def test_what_a_database_refuses_is_not_waited_for(workshop: Any, fail_commits: Any) -> None:
    workshop.add("echo")
    fail_commits(ProgrammingError("there is no such table"))
    with pytest.raises(ProgrammingError):
        workshop.claim()


@pytest.fixture
def unreadable(workshop: Any, register: Any, monkeypatch: Any) -> Callable[[BaseException], int]:
    """Return a function: add a job whose task cannot load an object; the error that it meets."""
    with workshop.transaction() as root:
        root["data"] = PersistentMapping(value=1)

    def unreadable(*errors: BaseException) -> int:
        waiting = list(errors)
        workshop.session.begin()
        data = workshop.session.connection.root()["data"]
        load = workshop.session.connection._storage.load

        def failing(oid: bytes, *arguments: Any) -> Any:
            if oid == data._p_oid and waiting:
                raise waiting.pop(0)
            return load(oid, *arguments)

        monkeypatch.setattr(workshop.session.connection._storage, "load", failing)

        def read(input: Any) -> Any:
            data._p_deactivate()
            return data["value"]

        register("read", read)
        jobid: int = workshop.add("read")
        return jobid

    return unreadable


@pytest.mark.parametrize("error", [*AWAY, OSError(5, "Input/output error")], ids=repr)
def test_a_run_whose_storage_cannot_read_is_repeated(
    workshop: Any, unreadable: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    jobid = unreadable(error)
    assert workshop.step().status == COMPLETED
    assert workshop.get(jobid, "attempt", "output", "failures") == (1, 1, ())
    assert "the storage of service tasks does not work" in caplog.text


def test_what_can_be_read_in_no_run_is_the_error_of_the_job(workshop: Any, unreadable: Any) -> None:
    jobid = unreadable(*[OperationalError("gone")] * 8)
    workshop.work()
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 1)
    assert workshop.get(jobid, "error") == "gone"


def test_a_database_of_the_tasks_own_that_is_away_is_the_error_of_the_job(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []

    def fail(input: Any) -> None:
        runs.append(1)
        raise OperationalError("gone")

    register("fail", fail)
    jobid = workshop.add("fail")
    workshop.step()
    assert runs == [1]
    assert workshop.get(jobid, "error") == "gone"
    assert "storage" not in caplog.text


@pytest.mark.parametrize("moment", ["an add", "a schedule that is counted anew"])
def test_news_of_other_processes_are_seen_without_being_told(workshop: Any, moment: str) -> None:
    jobid = workshop.add_cron_job("echo", delay=3600)
    workshop.engine.news.is_asked = True
    assert workshop.claim() == []
    assert not workshop.engine.news.has_signal(workshop.session)
    if moment == "an add":
        workshop.add("echo")
    else:  # taken out of its place and put in again: the counter of the place stays as it was
        with workshop.service() as service:
            service.reschedule(jobid)
    assert workshop.engine.news.has_signal(workshop.session)
    workshop.claim()
    workshop.claim()
    assert not workshop.engine.news.has_signal(workshop.session)


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_inline_a_storage_that_cannot_read_is_for_the_caller_to_deal_with(
    workshop: Any, unreadable: Any, error: Exception
) -> None:
    jobid = unreadable(error)
    service = workshop.session.begin()
    with pytest.raises(type(error)):
        service.process()
    workshop.session.manager.abort()
    assert workshop.get(jobid, "status", "attempt", "failures") == (QUEUED, 0, ())


# -- room for little ---------------------------------------------------------------------------

NO_ROOM = "[Errno 28] No space left on device"


@pytest.fixture
def runs(register: Any) -> list[Any]:
    """Register *big*, which writes more than there is room for; return its inputs."""
    runs: list[Any] = []

    def big(context: Any, input: Any) -> None:
        runs.append(input)
        root = context.service._p_jar.root()
        root["big"] = PersistentMapping(text="x" * 100_000)

    register("big", big, context=True)
    return runs


def test_a_run_for_which_there_is_no_room_waits_and_others_run(
    workshop: Any, runs: list[Any], little_room: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    big, small = workshop.add("big"), workshop.add("echo")
    assert workshop.work() == [big, small]
    assert workshop.get(small, "status") == COMPLETED
    assert workshop.get(big, "status", "attempt", "errors", "error") == (QUEUED, 0, 0, NO_ROOM)
    waits = []
    for _ in range(20):
        waits.append(workshop.get(big, "due") - workshop.now)
        workshop.now += waits[-1]
        assert workshop.work() == [big]
    assert waits[0] == pytest.approx(1.0)
    assert waits[-1] == pytest.approx(15.0)
    assert [round(wait, 3) for wait in waits] == sorted(round(wait, 3) for wait in waits)
    assert workshop.get(big, "status", "attempt", "errors", "error") == (QUEUED, 0, 0, NO_ROOM)
    assert len(workshop.get(big, "failures")) == 1
    assert caplog.messages == [
        f"job {big}: task big, attempt 1 cannot be stored, waiting for room: OSError: {NO_ROOM}"
    ]
    little_room.clear()
    workshop.now += 15.0
    workshop.work()
    assert workshop.get(big, "status", "attempt", "error") == (COMPLETED, 1, None)
    workshop.claim()
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


@pytest.mark.parametrize(
    "error", [OperationalError("the server has gone"), OSError(5, "Input/output error")], ids=repr
)
def test_a_storage_that_cannot_write_for_another_reason_is_told_to_be_away(
    workshop: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    caplog.set_level(logging.INFO)
    workshop.add("echo")
    [claim] = workshop.claim()
    storage: Any = workshop.session.connection._storage
    store = storage.store
    errors = [error]

    def fail_once(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return store(*arguments)

    monkeypatch.setattr(storage, "store", fail_once)
    assert workshop.run(claim).status == COMPLETED
    assert ["does not work" in text or "works again" in text for text in caplog.messages] == [
        True,
        True,
    ]
    assert workshop.get(claim.jobid, "attempt", "failures") == (1, ())


def test_a_run_for_which_a_full_disk_has_no_room_counts_no_attempt(
    file_workshop: Any, runs: list[Any], tmp_path: Path
) -> None:
    workshop = file_workshop
    with workshop.transaction() as root:  # more than what is written in a temporary file before
        root["large"] = PersistentMapping(text="l" * 200_000)
    big, small = workshop.add("big"), workshop.add("echo")
    with room_for(50_000, tmp_path / "Data.fs"):
        assert workshop.work() == [big, small]
        assert workshop.get(small, "status") == COMPLETED
        assert workshop.get(big, "status", "attempt", "errors") == (QUEUED, 0, 0)
    workshop.now += 1.0
    workshop.work()
    assert workshop.get(big, "status", "attempt") == (COMPLETED, 1)


def test_a_run_for_which_another_database_has_no_room_waits(workshop: Any, register: Any) -> None:
    def write(context: Any, input: Any) -> None:
        other = context.service._p_jar.get_connection("other")
        other.root()["written"] = "x" * 20_000

    register("write", write, context=True)
    jobid = workshop.add("write")
    databases = workshop.db.databases
    with closing(ZODB.DB(DemoStorage(), databases=databases, database_name="other")):
        storage = workshop.session.connection.get_connection("other")._storage
        room = [10_000]
        storage.store = storing_in(room, storage.store)
        workshop.work()
        assert workshop.get(jobid, "status", "attempt", "error") == (QUEUED, 0, NO_ROOM)
        room.clear()
        workshop.now += 1.0
        workshop.work()
        assert workshop.get(jobid, "status", "attempt") == (COMPLETED, 1)


def test_who_waits_for_room_can_be_cancelled(
    workshop: Any, runs: list[Any], little_room: list[int]
) -> None:
    waiting, running = workshop.add("big"), workshop.add("big")
    workshop.step()
    [claim] = workshop.claim()
    with workshop.service() as service:
        service.cancel(waiting)
        service.cancel(running)
    assert workshop.run(claim).status == CANCELLED
    assert workshop.get(waiting, "status") == CANCELLED


def test_a_run_for_which_there_is_no_room_heeds_a_request_to_cancel_it(
    workshop: Any, register: Any, little_room: list[int]
) -> None:
    def big(context: Any, input: Any) -> str:
        with workshop.service() as service:
            service.cancel(context.jobid)
        return "x" * 20_000

    register("big", big, context=True)
    jobid = workshop.add("big")
    assert workshop.step().status == CANCELLED
    assert workshop.get(jobid, "status", "error") == (
        CANCELLED,
        "The job was cancelled while it ran.",
    )


class Refusing:
    """A data manager whose server does not answer."""

    transaction_manager = transaction.manager

    def tpc_begin(self, txn: Any) -> None:
        """See `IDataManager`."""

    tpc_abort = abort = tpc_finish = tpc_vote = tpc_begin

    def commit(self, txn: Any) -> None:
        raise OSError(28, "No space left on device")

    def sortKey(self) -> str:
        return "refusing"


class Unready(Persistent):
    """What needs a file of its own to tell its state."""

    def __getstate__(self) -> Any:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("whose", ["a data manager", "an object"])
def test_what_others_raise_in_a_commit_is_the_error_of_the_job(
    workshop: Any, register: Any, whose: str
) -> None:
    def write(context: Any, input: Any) -> None:
        if whose == "an object":
            context.service._p_jar.root()["unready"] = Unready()
        else:
            transaction.get().join(Refusing())

    register("write", write, context=True, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("write")
    workshop.work()
    assert workshop.get(jobid, "status", "attempt", "errors", "error") == (ERROR, 1, 1, NO_ROOM)


# -- what a failed run holds -------------------------------------------------------------------


class Held:
    """What a task holds: a blob, say, whose file fills the disk."""


@pytest.fixture
def hold() -> Callable[[], None]:
    """A function that fails, and whose frame holds something."""
    refs: list[Any] = []

    def hold() -> None:
        held = Held()
        refs.append(weakref.ref(held))
        raise ValueError("it is full")

    hold.is_held = lambda: any(ref() is not None for ref in refs)  # type: ignore[attr-defined]
    return hold


def fail_so(how: str, hold: Callable[[], None]) -> None:
    """Fail by what holds something, or by what came of that."""
    try:
        hold()
    except ValueError as error:
        if how == "its cause":
            raise TaskError("no") from error
        if how == "its context":
            raise TaskError("no") from None
        if how == "its member":
            raise ExceptionGroup("no", [TaskError("no"), error]) from None  # noqa: F821
        raise


WAYS = ["itself", "its cause", "its context"]
if sys.version_info >= (3, 11):  # since when there are groups
    WAYS.append("its member")


@pytest.mark.parametrize("how", WAYS)
def test_what_a_failed_run_holds_is_let_go_before_anything_waits(
    workshop: Any, register: Any, fail_commits: Any, hold: Any, how: str
) -> None:
    def fail(input: Any) -> None:
        fail_commits(StorageError("gone"), StorageError("gone"))
        fail_so(how, hold)

    held: list[bool] = []
    workshop.while_pausing = lambda: held.append(hold.is_held())
    register("fail", fail, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("fail")
    assert workshop.step().status == ERROR
    assert held == [False, False]
    [failure] = workshop.get(jobid, "failures")
    assert "in fail_so" in failure.traceback
    assert ("in hold" in failure.traceback) == (how != "its context")


def test_what_a_run_holds_that_could_not_read_is_let_go_before_anything_waits(
    workshop: Any, register: Any, fail_commits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs, held = [], []
    storage = workshop.session.connection._storage
    load = storage.load

    def fail(*arguments: Any) -> Any:
        monkeypatch.setattr(storage, "load", load)
        fail_commits(StorageError("gone"))
        raise OSError(5, "Input/output error")

    def read(context: Any, input: Any) -> int:
        holding = Held()
        refs.append(weakref.ref(holding))
        if len(refs) == 1:
            monkeypatch.setattr(storage, "load", fail)
        root = context.service._p_jar.root()
        root._p_deactivate()
        return len(root)

    workshop.while_pausing = lambda: held.append(refs[0]() is not None)
    register("read", read, context=True)
    jobid = workshop.add("read")
    assert workshop.step().status == COMPLETED
    assert held == [False]
    assert workshop.get(jobid, "attempt", "failures") == (1, ())
