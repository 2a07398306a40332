# SPDX-License-Identifier: ZPL-2.1
"""A task that ends the transaction it runs in: an error, and nothing is kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import transaction

from lovely.remotetask.errors import TransactionMeddled
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import TaskContext
from meddling import ENDING, HIDING, MEDDLING


def named(function: Any) -> str:
    return str(getattr(function, "__name__", function))


@pytest.fixture
def run_meddler(workshop: Any, register: Any) -> Callable[..., None]:
    """Return a function that runs a task that meddles, and checks what became of it."""

    def run_meddler(meddle: Callable[[], None], *, is_swallowed: bool) -> None:
        calls = []

        def task(context: TaskContext, input: Any) -> str:
            calls.append(context.jobid)
            root = context.service._p_jar.root()
            root["before"] = 1
            if is_swallowed:
                with suppress(Exception):
                    meddle()
                with suppress(Exception):
                    root["after"] = 1
            else:
                meddle()
                root["after"] = 1
            return "done"

        register("meddle", task, context=True)
        jobid = workshop.add("meddle")
        follower = workshop.add("echo", "fine")
        before = workshop.last_transaction()
        assert workshop.work() == [jobid, follower]
        assert workshop.last_transaction() > before
        assert calls == [jobid]
        with workshop.transaction() as root:
            assert "before" not in root
            assert "after" not in root
            service = root["tasks"]
            assert service.getStatus(jobid) == ERROR
            assert service.getResult(jobid) is None
            assert str(TransactionMeddled()) in service.getError(jobid)
            assert service.jobs[jobid].attempt == 1
            assert service.getStatus(follower) == COMPLETED

    return run_meddler


@pytest.mark.parametrize("meddle", MEDDLING, ids=named)
def test_a_task_that_meddles_with_the_transaction_is_an_error(
    run_meddler: Callable[..., None], meddle: Callable[[], None]
) -> None:
    run_meddler(meddle, is_swallowed=False)


@pytest.mark.parametrize("meddle", MEDDLING, ids=named)
def test_a_task_that_swallows_the_refusal_is_an_error_too(
    run_meddler: Callable[..., None], meddle: Callable[[], None]
) -> None:
    run_meddler(meddle, is_swallowed=True)


# -- what takes effect when the task has come to its end -----------------------------------------


def run_alone(workshop: Any) -> None:
    for _ in range(5):
        workshop.step()


def run_beside(workshop: Any) -> None:
    """Run what the loop has claimed as its threads do."""
    claims = workshop.engine.claims
    claims.desk = workshop.session
    for _ in range(3):
        for claim in workshop.claim(limit=2):
            with claims.open_beside() as session:
                workshop.engine.execution.run(session, claim)


def run_shared(workshop: Any) -> None:
    for _ in range(3):
        reserved = workshop.reserve()
        if reserved and workshop.run_together(reserved) is None:
            for claim in workshop.claim_reserved(reserved):
                workshop.run(claim)


@pytest.mark.parametrize("run", [run_alone, run_beside, run_shared], ids=named)
@pytest.mark.parametrize("misdeed", [*ENDING, *HIDING], ids=named)
def test_a_task_that_meddles_when_it_has_come_to_its_end_is_an_error(
    workshop: Any, register: Any, misdeed: Callable[[TaskContext], None], run: Any
) -> None:
    calls = []

    def task(context: TaskContext, input: Any) -> None:
        calls.append(context.jobid)
        context.service._p_jar.root()["written"] = 1
        misdeed(context)

    is_shared = run is run_shared
    once = RetryPolicy(attempts=1)
    register("meddle", task, context=True, shared_commit=is_shared, retry=once)
    register("follow", lambda input: input, shared_commit=is_shared)
    jobid, follower = workshop.add("meddle"), workshop.add("follow", "fine")
    run(workshop)
    assert calls == [jobid] * (2 if is_shared else 1)
    assert workshop.get(jobid, "status", "attempt", "output") == (ERROR, 1, None)
    assert "must not" in workshop.get(jobid, "error")
    assert workshop.get(follower, "status", "output") == (COMPLETED, "fine")
    with workshop.transaction() as root:
        assert "written" not in root
    with workshop.service() as service:
        assert not service.workers
        assert check_all(service, workshop.now, repair=False) == []


def test_hooks_and_data_managers_that_end_nothing_are_the_tasks_own_affair(
    workshop: Any, register: Any
) -> None:
    called: list[Any] = []

    def task(context: TaskContext, input: Any) -> None:
        root = context.service._p_jar.root()
        txn = transaction.get()
        txn.addBeforeCommitHook(root.__setitem__, ("kept", 1))
        txn.addBeforeCommitHook(transaction.savepoint)
        txn.addBeforeCommitHook(called.append, ("before",))
        txn.addAfterCommitHook(lambda is_committed: called.append(is_committed))
        txn.addAfterCommitHook(lambda is_committed: transaction.abort())

    register("hook", task, context=True)
    jobid, follower = workshop.add("hook"), workshop.add("echo")
    assert workshop.work() == [jobid, follower]
    assert called == ["before", True]
    assert workshop.get(jobid, "status") == COMPLETED
    with workshop.transaction() as root:
        assert root["kept"] == 1


def test_a_task_that_meddles_and_then_fails_is_not_repeated(workshop: Any, register: Any) -> None:
    calls = []

    def task(input: Any) -> None:
        calls.append(1)
        with suppress(TransactionMeddled):
            transaction.abort()
        raise ValueError("and this")

    register("meddle", task)
    jobid = workshop.add("meddle")
    workshop.work()
    assert calls == [1]
    status, error = workshop.get(jobid, "status", "error")
    assert status == ERROR
    assert error == f"{TransactionMeddled()} (and this)"


def test_nothing_of_a_meddler_is_in_the_database_at_any_time(workshop: Any, register: Any) -> None:
    seen = []

    def task(context: TaskContext, input: Any) -> None:
        context.service._p_jar.root()["before"] = 1
        with suppress(Exception):
            transaction.commit()
        with workshop.transaction() as root:
            seen.append("before" in root)

    register("meddle", task, context=True)
    workshop.add("meddle")
    workshop.work()
    assert seen == [False]


def test_savepoints_are_the_tasks_own_affair(workshop: Any, register: Any) -> None:
    def task(context: TaskContext, input: Any) -> None:
        root = context.service._p_jar.root()
        root["kept"] = 1
        point = transaction.savepoint()
        root["dropped"] = 1
        point.rollback()

    register("save", task, context=True)
    workshop.add("save")
    assert workshop.step().status == COMPLETED
    with workshop.transaction() as root:
        assert "kept" in root
        assert "dropped" not in root


def test_a_transaction_of_another_manager_is_the_tasks_own_affair(
    workshop: Any, register: Any
) -> None:
    def task(input: Any) -> None:
        with workshop.transaction() as root:
            root["kept"] = 1

    register("other", task)
    workshop.add("other")
    assert workshop.step().status == COMPLETED
    with workshop.transaction() as root:
        assert "kept" in root


@pytest.mark.parametrize("name", ["commit", "doom"])
@pytest.mark.parametrize("is_inline", [False, True])
def test_nor_does_another_thread_of_the_task_end_it(
    workshop: Any, register: Any, name: str, is_inline: bool
) -> None:
    def hand_over(input: Any) -> None:
        connection.root()["written"] = True
        end = getattr(connection.transaction_manager, name)
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(pool.submit(end).exception(), TransactionMeddled)

    register("hand over", hand_over)
    jobid, other = workshop.add("hand over"), workshop.add("echo")
    connection = workshop.session.connection
    if is_inline:
        connection.transaction_manager.begin()
        connection.root()["tasks"].process(workshop.now)
        connection.transaction_manager.commit()
    else:
        workshop.work()
    assert workshop.get(jobid, "status", "attempt") == (ERROR, 1)
    assert workshop.get(other, "status") == COMPLETED
    with workshop.transaction() as root:
        assert "written" not in root


def test_the_thread_may_commit_again_after_the_run(workshop: Any, register: Any) -> None:
    workshop.add("echo")
    workshop.step()
    workshop.session.begin().jobs  # noqa: B018 (a read)
    transaction.commit()


def test_a_guarded_transaction_leaves_nothing_to_the_garbage_collector(
    workshop: Any, register: Any
) -> None:
    seen: list[weakref.ref[Any]] = []
    register("look", lambda input: seen.append(weakref.ref(transaction.get())))
    jobids = [workshop.add("look"), workshop.add("look"), workshop.add("echo")]
    gc.disable()
    try:
        assert workshop.work() == jobids
        assert [found() for found in seen] == [None, None]
    finally:
        gc.enable()
