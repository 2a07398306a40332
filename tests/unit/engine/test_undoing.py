# SPDX-License-Identifier: ZPL-2.1
"""What a job has done is undone, as one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest
import transaction
import zope.event
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData

from lovely.remotetask.engine import undoing
from lovely.remotetask.engine.undoing import time_of, transaction_of
from lovely.remotetask.errors import (
    CannotUndo,
    InvalidArgument,
    JobNotFound,
    ServiceNotStored,
    TransactionInProgress,
)
from lovely.remotetask.events import JobCancelled
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all, check_jobs


@pytest.fixture(autouse=True)
def tasks(file_workshop: Any, register: Any) -> None:
    def sell(context: Any, amount: int) -> str:
        context.root["stock"]["apples"] -= amount
        context.root["sold"].change(amount)
        logging.getLogger("shop").warning("sold %d", amount)
        return f"{amount} sold"

    register("sell", sell, context=True)
    with file_workshop.transaction() as root:
        root["stock"] = PersistentMapping(apples=100)
        root["sold"] = Length()


@pytest.fixture
def run(file_workshop: Any) -> Callable[..., int]:
    """Return ``run(task, input)``, which lets a worker run and file a job; it returns its id."""

    def run(task: str = "sell", input: Any = 10) -> int:
        jobid: int = file_workshop.add(task, input)
        file_workshop.work()
        return jobid

    return run


def undo(workshop: Any, jobid: int, by: str | None = "Ada") -> None:
    with workshop.service() as service:
        service.undo(jobid, by)


def stock(workshop: Any) -> tuple[int, int]:
    with workshop.transaction() as root:
        return root["stock"]["apples"], root["sold"]()


def check_books(workshop: Any) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        assert not service.requests


# -- what is undone ----------------------------------------------------------------------------


def test_the_writes_the_result_and_the_status_are_gone_together(
    file_workshop: Any, run: Any
) -> None:
    jobid = run()
    assert stock(file_workshop) == (90, 10)
    undo(file_workshop, jobid)
    assert stock(file_workshop) == (100, 0)
    assert file_workshop.get(jobid, "status", "output", "owner", "attempt", "error") == (
        *(CANCELLED, None, None, 1, None),
    )
    check_books(file_workshop)
    with file_workshop.service() as service:
        assert service.countJobs()[COMPLETED] == 0
        assert [job.id for job in service.list(CANCELLED).jobs] == [jobid]
        assert service.list(COMPLETED).jobs == []


def test_the_note_says_who_it_was_and_when_behind_what_it_has_said(file_workshop: Any) -> None:
    jobid = file_workshop.add("sell", 1, note="for Bob")
    file_workshop.work()
    undo(file_workshop, jobid)
    first, second = file_workshop.get(jobid, "note").splitlines()
    assert first == "for Bob"
    assert second.startswith("undone by Ada at 20")
    assert second.endswith(" UTC")


def test_it_is_the_user_of_the_process_if_nobody_is_named(file_workshop: Any, run: Any) -> None:
    jobid = run()
    undo(file_workshop, jobid, None)
    assert " on " in file_workshop.get(jobid, "note")


def test_failures_attempts_and_log_are_kept(file_workshop: Any, register: Any) -> None:
    runs: list[int] = []

    def stumble(input: Any) -> None:
        runs.append(1)
        logging.getLogger("shop").warning("run %d", len(runs))
        if len(runs) == 1:
            raise ValueError("not yet")

    register("stumble", stumble, retry=RetryPolicy(2, 0.0))
    jobid = file_workshop.add("stumble")
    for _ in range(2):
        file_workshop.work()
        file_workshop.now += 5
    assert file_workshop.get(jobid, "status") == COMPLETED
    undo(file_workshop, jobid)
    assert file_workshop.get(jobid, "status", "attempt") == (CANCELLED, 2)
    [failure] = file_workshop.get(jobid, "failures")
    assert (failure.attempt, failure.message) == (1, "not yet")
    with file_workshop.service() as service:
        assert [line.text for line in service.getLog(jobid)] == ["run 1", "run 2"]


def test_it_does_not_run_again_by_itself_but_when_it_is_told_to(
    file_workshop: Any, run: Any
) -> None:
    jobid = run()
    undo(file_workshop, jobid)
    assert file_workshop.work() == []
    with file_workshop.service() as service:
        service.retry(jobid)
    assert file_workshop.work() == [jobid]
    assert stock(file_workshop) == (90, 10)
    assert file_workshop.get(jobid, "status", "attempt") == (COMPLETED, 2)
    undo(file_workshop, jobid)
    assert stock(file_workshop) == (100, 0)
    check_books(file_workshop)


def test_a_job_that_is_not_filed_yet_is_undone_too(file_workshop: Any) -> None:
    jobid = file_workshop.add("sell", 10)
    file_workshop.step()
    with file_workshop.service() as service:
        assert [jobid] == [held for w in service.workers.values() for held in w.held]
    undo(file_workshop, jobid)
    assert file_workshop.work() == []
    assert file_workshop.get(jobid, "status") == CANCELLED
    check_books(file_workshop)


def test_jobs_that_the_run_has_added_are_gone_too(file_workshop: Any, register: Any) -> None:
    def add(context: Any, input: Any) -> list[int]:
        return [context.service.add("echo", delay=delay) for delay in (None, 3600)]

    register("add", add, context=True)
    jobid = file_workshop.add("add")
    file_workshop.step()
    before = file_workshop.add("echo")
    followers = file_workshop.get(jobid, "output")
    undo(file_workshop, jobid)
    with file_workshop.service() as service:
        for follower in followers:
            with pytest.raises(JobNotFound):
                service.getStatus(follower)
    assert file_workshop.work() == [before]
    check_books(file_workshop)


def test_a_delayed_job_is_undone_too(file_workshop: Any) -> None:
    jobid = file_workshop.add("sell", 10, delay=0)
    file_workshop.work()
    undo(file_workshop, jobid)
    assert stock(file_workshop) == (100, 0)
    file_workshop.now += 1000
    assert file_workshop.work() == []
    check_books(file_workshop)


def test_one_that_alone_was_run_without_a_claim_is_undone_too(
    file_workshop: Any, register: Any
) -> None:
    register("share", lambda input: input, shared_commit=True)
    jobid = file_workshop.add("share")
    file_workshop.run_together(file_workshop.reserve())
    file_workshop.claim()
    undo(file_workshop, jobid)
    assert file_workshop.work() == []
    assert file_workshop.get(jobid, "status") == CANCELLED
    check_books(file_workshop)


def test_one_that_was_run_inline_is_undone_with_its_transaction(file_workshop: Any) -> None:
    jobid = file_workshop.add("sell", 10)
    with file_workshop.service() as service:
        service.process(file_workshop.now)
    undo(file_workshop, jobid)
    assert stock(file_workshop) == (100, 0)
    assert file_workshop.work() == []
    assert file_workshop.get(jobid, "status") == CANCELLED
    check_books(file_workshop)


def test_the_cancelling_is_told(file_workshop: Any, run: Any) -> None:

    heard: list[Any] = []
    zope.event.subscribers.append(heard.append)
    try:
        jobid = run()
        heard.clear()
        undo(file_workshop, jobid)
    finally:
        zope.event.subscribers.remove(heard.append)
    assert [(type(event), event.jobid) for event in heard] == [(JobCancelled, jobid)]


def test_a_completed_job_names_its_transaction(file_workshop: Any, run: Any) -> None:
    jobid = run()
    with file_workshop.service() as service:
        job = service.jobs[jobid]
        tid = transaction_of(job)
        assert tid == job._p_serial
        assert abs(time_of(tid).timestamp() - job.created_at) < 3600
        assert transaction_of(service.jobs[service.add("echo")]) is None


# -- what cannot be undone, and then nothing is changed ----------------------------------------


def refused(workshop: Any, jobid: int, match: str) -> None:
    """Check that undoing is refused, and that nothing has come of it."""
    seen = stock(workshop), workshop.get(jobid, "status", "output", "note", "place")
    with workshop.service() as service, pytest.raises(CannotUndo, match=match):
        service.undo(jobid)
    assert (stock(workshop), workshop.get(jobid, "status", "output", "note", "place")) == seen
    check_books(workshop)


def test_what_was_changed_since_is_named(file_workshop: Any, run: Any) -> None:
    first = run()
    with file_workshop.transaction() as root:
        root["stock"]["apples"] = 7
        oid = int.from_bytes(root["stock"]._p_oid, "big")
    refused(
        file_workshop,
        first,
        f"job {first} has written was changed since: PersistentMapping 0x{oid:x}$",
    )


def test_of_two_jobs_the_later_one_is_undone_first(file_workshop: Any, run: Any) -> None:
    first, second = run(), run()
    refused(file_workshop, first, "was changed since")
    undo(file_workshop, second)
    undo(file_workshop, first)
    assert stock(file_workshop) == (100, 0)
    check_books(file_workshop)


def test_what_merges_is_no_hindrance(file_workshop: Any, run: Any, register: Any) -> None:
    register("count", lambda context, n: context.root["sold"].change(n), context=True)
    first, _ = run("count", 5), run("count", 7)
    undo(file_workshop, first)
    assert stock(file_workshop) == (100, 7)
    check_books(file_workshop)


def test_a_follow_up_that_has_run_is_a_later_change(file_workshop: Any, register: Any) -> None:
    register("add", lambda context, input: context.service.add("echo"), context=True)
    jobid = file_workshop.add("add")
    file_workshop.work()
    refused(file_workshop, jobid, "was changed since: ")


def test_jobs_that_have_shared_the_commit_are_named(file_workshop: Any, register: Any) -> None:
    register("share", lambda input: input, shared_commit=True)
    one, two = (file_workshop.add("share") for _ in range(2))
    file_workshop.run_together(file_workshop.reserve())
    file_workshop.claim()
    refused(file_workshop, one, f"has shared its commit with other jobs: {two}$")


def test_jobs_that_were_run_inline_together_are_named(file_workshop: Any) -> None:
    jobids = [file_workshop.add("sell", 1) for _ in range(3)]
    with file_workshop.service() as service:
        service.process(file_workshop.now)
    refused(file_workshop, jobids[0], "has shared its commit with other jobs: ")


def test_one_that_was_added_in_the_same_transaction_is_refused(file_workshop: Any) -> None:
    with file_workshop.service() as service:
        jobid = service.add("sell", 1)
        service.process(file_workshop.now)
    refused(file_workshop, jobid, "was added in the transaction that has run it")


def test_a_packed_transaction_is_refused(file_workshop: Any, run: Any) -> None:
    jobid = run()
    file_workshop.db.pack()
    refused(file_workshop, jobid, "was packed away")


def test_a_record_that_was_written_since_is_refused(file_workshop: Any, run: Any) -> None:
    jobid = run()
    with file_workshop.service() as service:
        service.jobs[jobid].color = "red"
    refused(file_workshop, jobid, f"the record of job {jobid} was changed since it has run")


def test_a_storage_without_history_is_refused(workshop: Any) -> None:
    jobid = workshop.add("echo")
    workshop.work()
    with workshop.service() as service, pytest.raises(CannotUndo, match="keeps no history"):
        service.undo(jobid)
    assert workshop.get(jobid, "status") == COMPLETED


def test_only_completed_jobs_are_undone(file_workshop: Any, register: Any) -> None:
    register("divide", lambda input: 1 / 0, retry=RetryPolicy(1))
    failed, waiting = file_workshop.add("divide"), file_workshop.add("sell", 1, delay=3600)
    file_workshop.work()
    with file_workshop.service() as service:
        for jobid, status in ((failed, ERROR), (waiting, "delayed")):
            with pytest.raises(InvalidArgument, match=f"job {jobid} is {status}"):
                service.undo(jobid)
        with pytest.raises(JobNotFound):
            service.undo(4711)
    check_books(file_workshop)


def test_nothing_is_undone_in_a_transaction_with_changes(file_workshop: Any, run: Any) -> None:
    jobid = run()
    with file_workshop.connected() as (manager, root):
        root["other"] = 1
        with pytest.raises(TransactionInProgress, match="nothing is undone"):
            root["tasks"].undo(jobid)
        manager.abort()


def test_a_service_in_no_database_undoes_nothing(service: TaskService) -> None:
    jobid = service.add("echo")
    service.process()
    transaction.abort()
    with pytest.raises(ServiceNotStored):
        service.undo(jobid)


@pytest.mark.parametrize("by", [5, "x" * 1001])
def test_who_it_is_must_be_a_text(file_workshop: Any, run: Any, by: Any) -> None:
    jobid = run()
    with file_workshop.service() as service, pytest.raises(InvalidArgument):
        service.undo(jobid, by)


# -- between the transactions ------------------------------------------------------------------


def interrupted(workshop: Any, jobid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo a job, and die before it is cancelled."""

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, workshop.connected() as (_, root):
        patch.setattr(undoing, "_settle", die)
        with pytest.raises(KeyboardInterrupt):
            root["tasks"].undo(jobid)
    assert workshop.get(jobid, "status") == PROCESSING


def test_a_job_whose_undoing_was_interrupted_is_not_run_but_cancelled(
    file_workshop: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = run()
    interrupted(file_workshop, jobid, monkeypatch)
    with file_workshop.service() as service:
        [problem], _ = check_jobs(service, file_workshop.now, repair=True)
        assert problem.text == "it is processing, but no worker holds it"
    file_workshop.now += 1000
    file_workshop.work()
    assert stock(file_workshop) == (100, 0)
    assert file_workshop.get(jobid, "status") == CANCELLED
    with file_workshop.service() as service:
        check_all(service, file_workshop.now, repair=True)  # the entry among the completed ones
    check_books(file_workshop)


def test_one_who_comes_to_the_job_in_between_does_not_run_it(
    file_workshop: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = run()
    settle = undoing._settle

    def come_in_between(service: Any, *arguments: Any) -> None:
        with file_workshop.service() as other:
            check_jobs(other, file_workshop.now, repair=True)
        file_workshop.work()
        service._p_jar.sync()
        settle(service, *arguments)

    monkeypatch.setattr(undoing, "_settle", come_in_between)
    undo(file_workshop, jobid)
    assert stock(file_workshop) == (100, 0)
    assert file_workshop.get(jobid, "status") == CANCELLED
    assert "undone by Ada" in file_workshop.get(jobid, "note")
    check_books(file_workshop)


def test_one_who_has_just_claimed_it_is_left_to_find_that_it_is_cancelled(
    file_workshop: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = run()
    settle = undoing._settle
    claims: list[Any] = []

    def claim_in_between(service: Any, *arguments: Any) -> None:
        with file_workshop.service() as other:
            check_jobs(other, file_workshop.now, repair=True)
        claims.extend(file_workshop.claim())
        service._p_jar.sync()
        settle(service, *arguments)

    monkeypatch.setattr(undoing, "_settle", claim_in_between)
    undo(file_workshop, jobid)
    [claim] = claims
    assert file_workshop.run(claim).status == CANCELLED
    file_workshop.claim()
    assert stock(file_workshop) == (100, 0)
    check_books(file_workshop)


def test_an_undoing_that_came_to_pass_although_it_failed_goes_on(
    file_workshop: Any, run: Any, lose_the_reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = run()
    undo_transaction = undoing._undo_transaction

    def undo_and_lose(*arguments: Any) -> None:
        lose_the_reply()
        undo_transaction(*arguments)

    monkeypatch.setattr(undoing, "_undo_transaction", undo_and_lose)
    undo(file_workshop, jobid)
    assert file_workshop.get(jobid, "status") == CANCELLED
    assert stock(file_workshop) == (100, 0)
    check_books(file_workshop)


def test_a_fault_of_the_storage_leaves_nothing_behind(
    file_workshop: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = run()

    def fail(*arguments: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch, file_workshop.connected() as (_, root):
        patch.setattr(undoing, "_undo_transaction", fail)
        with pytest.raises(OSError, match="no space left"):
            root["tasks"].undo(jobid)
    assert file_workshop.get(jobid, "status") == COMPLETED
    check_books(file_workshop)


def test_who_asks_sees_what_there_is_now(file_workshop: Any, run: Any) -> None:
    jobid = run()
    with file_workshop.connected() as (_, root):
        assert root["tasks"].getStatus(jobid) == COMPLETED
        root["tasks"].undo(jobid)
        assert root["tasks"].getStatus(jobid) == CANCELLED
        assert root["stock"]["apples"] == 100
    assert file_workshop.get(jobid, "status") != QUEUED


def test_a_file_is_not_read_while_a_transaction_is_being_written(
    file_workshop: Any, run: Callable[..., int]
) -> None:
    """What FileStorage's iterator meets then makes it fail, in one of three ways."""
    jobid = run()
    file_workshop.add("echo")
    storage = file_workshop.db.storage
    with file_workshop.service() as service:
        tid = service.jobs[jobid]._p_serial
    expected = undoing._oids_of(file_workshop.db, tid)
    assert expected
    commit = TransactionMetaData()
    storage.tpc_begin(commit)
    with ThreadPoolExecutor(1) as pool:
        with open(storage.getName(), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.write(bytes(1000))  # a part of a large record
            file.flush()
            found = pool.submit(undoing._oids_of, file_workshop.db, tid)
            with pytest.raises(FutureTimeoutError):
                found.result(0.3)
            file.truncate(size)
        storage.tpc_abort(commit)
        assert found.result(10) == expected
