# SPDX-License-Identifier: ZPL-2.1
"""A job's way through a worker: claim, run, finish, or keep the failure."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.mvccadapter import MVCCAdapterInstance
from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError, StorageError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.execution import MAX_REPEATS
from lovely.remotetask.engine.protocol import Stopping
from lovely.remotetask.errors import RetryLater, TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    ERROR,
    PROCESSING,
    QUEUED,
    ITask,
)
from lovely.remotetask.retry import MAX_COLLISIONS, RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.queue import JobQueue
from lovely.remotetask.task import TaskContext

AT_ONCE = RetryPolicy(first_wait_seconds=0)


def write(context: TaskContext, input: Any) -> Any:
    context.service._p_jar.root()["written"] = input
    return input


def written(workshop: Any) -> Any:
    with workshop.transaction() as root:
        return root.get("written")


# -- claim -----------------------------------------------------------------------------------


def test_a_claim_is_committed_before_the_job_runs(workshop: Any, register: Any) -> None:
    seen = []

    def look(context: TaskContext, input: Any) -> None:
        seen.append(workshop.get(context.jobid, "status", "attempt", "owner"))

    register("look", look, context=True)
    workshop.add("look")
    workshop.work()
    assert seen == [(PROCESSING, 1, workshop.engine.claims.identity.id)]


def test_jobs_are_claimed_in_the_order_they_were_added(workshop: Any) -> None:
    added = [workshop.add("echo", number) for number in range(150)]
    first = workshop.claim(limit=100)
    second = workshop.claim(limit=100)
    assert [claim.jobid for claim in first + second] == added


def test_a_claim_takes_no_more_than_its_limit(workshop: Any) -> None:
    for number in range(3):
        workshop.add("echo", number)
    assert len(workshop.claim(limit=2)) == 2


def test_a_claim_of_many_jobs_is_one_transaction(file_workshop: Any) -> None:
    for number in range(5):
        file_workshop.add("echo", number)
    before = file_workshop.count_transactions()
    file_workshop.claim(limit=5)
    assert file_workshop.count_transactions() == before + 1


def test_a_claim_that_finds_nothing_writes_nothing(workshop: Any) -> None:
    before = workshop.last_transaction()
    assert workshop.claim() == []
    assert workshop.last_transaction() == before


def test_a_worker_has_a_record_as_long_as_it_holds_something(workshop: Any) -> None:
    jobid = workshop.add("echo")
    [claim] = workshop.claim()
    with workshop.service() as service:
        assert {key: worker.held for key, worker in service.workers.items()} == {
            workshop.engine.claims.identity.id: (jobid,)
        }
    workshop.run(claim)
    workshop.claim()
    with workshop.service() as service:
        assert not service.workers


def test_two_workers_never_hold_the_same_job(workshop: Any) -> None:
    added = [workshop.add("echo", number) for number in range(4)]
    rival = workshop.new_engine()
    claims = workshop.claim(2)
    while more := rival.claims.claim(workshop.session, 4):
        claims += more
    assert sorted(claim.jobid for claim in claims) == sorted(added)


def test_a_claim_that_conflicts_is_repeated(
    workshop: Any, fail_commits: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobid = workshop.add("echo")
    fail_commits(ConflictError("somebody was faster"))
    [claim] = workshop.claim()
    assert claim.attempt == workshop.get(jobid, "attempt") == 1
    assert len(workshop.pauses) == 1
    assert workshop.pauses[0] <= 0.004
    assert caplog.records == []  # a conflict is no fault of the storage


# -- finish ----------------------------------------------------------------------------------


def test_result_status_and_effects_are_one_transaction(file_workshop: Any, register: Any) -> None:
    register("write", write, context=True)
    jobid = file_workshop.add("write", "something")
    [claim] = file_workshop.claim()
    before = file_workshop.count_transactions()
    outcome = file_workshop.run(claim)
    assert file_workshop.count_transactions() == before + 1
    assert outcome.status == COMPLETED
    assert file_workshop.get(jobid, "status", "output", "owner") == (COMPLETED, "something", None)
    assert written(file_workshop) == "something"


def test_the_transaction_of_a_run_names_the_task_and_the_job(file_workshop: Any) -> None:
    jobid = file_workshop.add("echo")
    file_workshop.step()
    last = list(file_workshop.db.storage.iterator())[-1]
    assert last.description == f"remotetask echo {jobid}".encode()


def test_a_task_can_have_a_name_that_no_note_can_hold(file_workshop: Any, register: Any) -> None:
    name = "x" * 70_000
    register(name, lambda input: input)
    jobid = file_workshop.add(name)
    file_workshop.work()
    assert file_workshop.get(jobid, "status") == COMPLETED


def test_a_job_that_a_task_adds_is_committed_with_its_effects(workshop: Any, register: Any) -> None:
    def chain(context: TaskContext, input: int) -> None:
        if input:
            context.service.add("chain", input - 1)

    register("chain", chain, context=True)
    workshop.add("chain", 2)
    assert len(workshop.work()) == 3


def test_a_job_that_a_failing_task_adds_does_not_exist(workshop: Any, register: Any) -> None:
    def fail(context: TaskContext, input: Any) -> None:
        context.service.add("echo")
        raise TaskError("no")

    register("fail", fail, context=True)
    jobid = workshop.add("fail")
    workshop.work()
    with workshop.service() as service:
        assert list(service.jobs) == [jobid]


def test_times_are_those_of_the_workers_clock(workshop: Any, register: Any) -> None:
    begun = workshop.now

    def take_a_while(input: Any) -> None:
        workshop.now += 7

    register("long", take_a_while)
    jobid = workshop.add("long")
    outcome = workshop.step()
    assert workshop.get(jobid, "started_at", "completed_at") == (begun, begun + 7)
    assert outcome.seconds == 7


def test_a_persistent_result_keeps_its_identity(workshop: Any, register: Any) -> None:
    def make(context: TaskContext, input: Any) -> Any:
        made = context.service._p_jar.root()["made"] = PersistentMapping(number=input)
        return made

    register("make", make, context=True)
    jobid = workshop.add("make", 5)
    workshop.work()
    with workshop.transaction() as root:
        assert root["tasks"].getResult(jobid) is root["made"]


# -- failures --------------------------------------------------------------------------------


def test_a_task_error_is_final_and_keeps_nothing(workshop: Any, register: Any) -> None:
    def fail(context: TaskContext, input: Any) -> None:
        write(context, input)
        raise TaskError("An error occurred.")

    register("fail", fail, context=True)
    jobid = workshop.add("fail", "something")
    assert workshop.step().status == ERROR
    assert workshop.work() == []
    assert written(workshop) is None
    with workshop.service() as service:
        assert service.getError(jobid) == "An error occurred."
        assert service.getResult(jobid) is None
        assert service.jobs[jobid].attempt == 1


def test_other_exceptions_are_repeated_with_growing_waits(workshop: Any, register: Any) -> None:
    calls = []

    def fail(input: Any) -> None:
        calls.append(workshop.now)
        raise ValueError("no luck")

    register("fail", fail, retry=RetryPolicy(attempts=3, first_wait_seconds=10, jitter=0))
    jobid = workshop.add("fail")
    begun = workshop.now
    for waited in (0, 9.9, 10, 29.9, 30, 1000):
        workshop.now = begun + waited
        workshop.work()
    assert calls == [begun, begun + 10, begun + 30]
    status, attempt, failures = workshop.get(jobid, "status", "attempt", "failures")
    assert (status, attempt) == (ERROR, 3)
    assert [failure.attempt for failure in failures] == [1, 2, 3]
    assert {failure.type for failure in failures} == {"ValueError"}
    assert "in fail" in failures[0].traceback


def test_a_job_that_waits_for_another_attempt_is_queued(workshop: Any, register: Any) -> None:
    register("fail", lambda input: 1 / 0, retry=RetryPolicy(first_wait_seconds=10))
    jobid = workshop.add("fail")
    workshop.step()
    with workshop.service() as service:
        assert service.getStatus(jobid) == QUEUED
        assert service.getError(jobid) == "division by zero"
        assert service.jobs[jobid].scheduledFor is not None


def test_a_success_keeps_the_failures_before_it(workshop: Any, register: Any) -> None:
    outcomes = [ValueError("once"), None]

    def stumble(input: Any) -> str:
        if error := outcomes.pop(0):
            raise error
        return "done"

    register("stumble", stumble, retry=AT_ONCE)
    jobid = workshop.add("stumble")
    workshop.work()
    with workshop.service() as service:
        assert service.getResult(jobid) == "done"
        assert service.getError(jobid) == "None"
        [failure] = service.jobs[jobid].failures
        assert (failure.attempt, failure.message) == (1, "once")
        assert service.jobs[jobid].attempt == 2


def test_the_policy_of_the_job_goes_before_that_of_the_task(workshop: Any, register: Any) -> None:
    register("fail", lambda input: 1 / 0, retry=AT_ONCE)
    once = workshop.add("fail", retry=RetryPolicy(attempts=1))
    often = workshop.add("fail")
    workshop.work()
    assert workshop.get(once, "attempt") == 1
    assert workshop.get(often, "attempt") == 4


def test_a_wish_to_be_run_later_is_no_failed_attempt(workshop: Any, register: Any) -> None:
    calls = []

    def wait(input: Any) -> str:
        calls.append(workshop.now)
        if len(calls) <= 8:
            raise RetryLater(30, "not yet")
        return "done"

    register("wait", wait, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("wait")
    begun = workshop.now
    for _ in range(9):
        workshop.work()
        workshop.now += 30
    assert calls == [begun + 30 * number for number in range(9)]
    assert workshop.get(jobid, "status", "errors") == (COMPLETED, 0)


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_what_would_end_a_thread_is_the_error_of_the_job(
    workshop: Any, register: Any, kind: type[BaseException]
) -> None:
    def end(input: Any) -> None:
        raise kind("the end")

    register("end", end)
    jobid = workshop.add("end")
    follower = workshop.add("echo")
    assert workshop.work() == [jobid, follower]
    assert workshop.get(jobid, "status", "error", "attempt") == (ERROR, "the end", 1)


@pytest.mark.parametrize("result", [lambda: None, (n for n in ())], ids=["lambda", "generator"])
def test_a_result_that_cannot_be_stored_is_the_error_of_the_job(
    workshop: Any, register: Any, result: Any
) -> None:
    register("make", lambda input: [result])
    jobid = workshop.add("make")
    follower = workshop.add("echo")
    assert workshop.work() == [jobid, follower]
    status, attempt, error = workshop.get(jobid, "status", "attempt", "error")
    assert (status, attempt) == (ERROR, 1)
    assert error.startswith("the result cannot be stored: ")


def test_effects_that_cannot_be_stored_are_the_error_of_the_job(
    workshop: Any, register: Any
) -> None:
    register("write", write, context=True, retry=RetryPolicy(attempts=1))

    def write_lambda(context: TaskContext, input: Any) -> None:
        write(context, lambda: None)

    register("bad", write_lambda, context=True, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("bad")
    follower = workshop.add("write", "fine")
    assert workshop.work() == [jobid, follower]
    assert workshop.get(jobid, "status") == ERROR
    assert written(workshop) == "fine"


def test_an_exception_that_cannot_be_printed_is_an_error_all_the_same(
    workshop: Any, register: Any
) -> None:
    class Broken(TaskError):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    def fail(input: Any) -> None:
        raise Broken

    register("fail", fail)
    jobid = workshop.add("fail")
    workshop.work()
    assert workshop.get(jobid, "status") == ERROR
    assert workshop.get(jobid, "error") == "(the message cannot be printed)"


def test_a_traceback_begins_with_the_task(workshop: Any, register: Any) -> None:
    def divide(input: Any) -> float:
        return 1 / input

    register("divide", divide, retry=RetryPolicy(1))
    register("unstorable", lambda input: lambda: None)
    jobids = [workshop.add("divide", 0), workshop.add("unstorable")]
    workshop.work()
    [divided], [refused] = (workshop.get(jobid, "failures") for jobid in jobids)
    lines = divided.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in divide")
    assert sum(line.startswith("  File") for line in lines) == 1
    assert "lovely/remotetask" in refused.traceback  # there is nothing else in it


def test_messages_and_tracebacks_are_shortened(workshop: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("x" * 1_000_000)

    register("fail", fail)
    jobid = workshop.add("fail")
    workshop.work()
    [failure] = workshop.get(jobid, "failures")
    assert failure.message == "x" * 2000
    assert failure.traceback == "x" * 7999 + "\n"


def test_of_many_failures_the_last_twenty_are_kept(workshop: Any, register: Any) -> None:
    register("fail", lambda input: 1 / 0, retry=RetryPolicy(attempts=30, first_wait_seconds=0))
    jobid = workshop.add("fail")
    workshop.work()
    failures = workshop.get(jobid, "failures")
    assert [failure.attempt for failure in failures] == list(range(11, 31))


# -- the fence -------------------------------------------------------------------------------


def take_away(workshop: Any, jobid: int) -> None:
    """Let somebody else run the job, as after a rescue."""
    with workshop.service() as service:
        job = service.jobs[jobid]
        job.wait(None)
        job.start("somebody else", workshop.now)


def test_a_job_that_was_taken_away_is_not_run(workshop: Any, register: Any) -> None:
    calls = []
    register("note", calls.append)
    jobid = workshop.add("note")
    [claim] = workshop.claim()
    take_away(workshop, jobid)
    assert workshop.run(claim).status is None
    assert calls == []
    assert workshop.get(jobid, "owner") == "somebody else"


@pytest.mark.parametrize("error", [None, TaskError("no")], ids=["success", "failure"])
def test_of_a_job_that_is_taken_away_while_it_runs_nothing_is_kept(
    workshop: Any, register: Any, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    def lose(context: TaskContext, input: Any) -> None:
        write(context, input)
        take_away(workshop, context.jobid)
        if error:
            raise error

    register("lose", lose, context=True)
    jobid = workshop.add("lose", "something")
    assert workshop.step().status is None
    assert written(workshop) is None
    assert workshop.get(jobid, "status", "owner", "attempt", "failures") == (
        PROCESSING,
        "somebody else",
        2,
        (),
    )
    assert "no longer held, its run is not kept" in caplog.text


def test_a_job_that_is_deleted_by_hand_while_it_runs_leaves_no_trace(
    workshop: Any, register: Any
) -> None:
    def remove(context: TaskContext, input: Any) -> None:
        with workshop.service() as service:
            del service.jobs[context.jobid]

    register("remove", remove, context=True)
    workshop.add("remove")
    workshop.step()
    assert workshop.claim() == []
    with workshop.service() as service:
        assert set(service.countJobs().values()) == {0}
        assert check_all(service, workshop.now, repair=False) == []


# -- conflicts and faults --------------------------------------------------------------------


def test_a_conflict_repeats_the_transaction_and_not_the_attempt(
    workshop: Any, register: Any
) -> None:
    with workshop.transaction() as root:
        root["counter"] = PersistentMapping(n=0)
    calls = []

    def count(context: TaskContext, input: Any) -> int:
        calls.append(workshop.now)
        counter = context.service._p_jar.root()["counter"]
        counter["n"] += 1
        if len(calls) <= 2:
            with workshop.transaction() as root:
                root["counter"]["n"] += 100
        return int(counter["n"])

    register("count", count, context=True, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("count")
    assert workshop.step().status == COMPLETED
    assert workshop.get(jobid, "output", "attempt", "conflicts", "failures") == (201, 1, 2, ())
    assert len(calls) == 3
    assert len(workshop.pauses) == 2


@pytest.mark.parametrize("kind", [ConflictError, ReadConflictError])
def test_a_conflict_that_the_task_raises_is_one_too(
    workshop: Any, register: Any, kind: type[Exception]
) -> None:
    errors = [kind("no"), None]

    def stumble(input: Any) -> None:
        if error := errors.pop(0):
            raise error

    register("stumble", stumble, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("stumble")
    assert workshop.step().status == COMPLETED
    assert workshop.get(jobid, "attempt", "conflicts") == (1, 1)


def always_conflict(runs: list[int], seconds: float, workshop: Any) -> Any:
    """Return a function that takes some seconds and meets a conflict, each time."""

    def conflict(input: Any) -> None:
        runs.append(1)
        workshop.now += seconds
        raise ConflictError("somebody was quicker")

    return conflict


@pytest.mark.parametrize(("seconds", "most"), [(0.0, MAX_REPEATS + 1), (1.0, 1)])
def test_a_job_that_meets_conflicts_is_put_back_so_that_others_run(
    workshop: Any, register: Any, seconds: float, most: int
) -> None:
    runs: list[int] = []
    register("conflict", always_conflict(runs, seconds, workshop), retry=RetryPolicy(attempts=1))
    jobid = workshop.add("conflict")
    follower = workshop.add("echo")
    begun = workshop.now
    assert workshop.work() == [jobid, follower]
    assert workshop.now - begun < seconds + 1.0
    assert len(runs) == most
    assert workshop.get(jobid, "status", "attempt", "errors") == (QUEUED, 0, 0)
    assert workshop.get(jobid, "conflicts", "failures") == (most, ())
    assert 0 < workshop.get(jobid, "due") - workshop.now <= 2.0


def test_after_repeats_in_vain_others_are_put_back_sooner(workshop: Any, register: Any) -> None:
    runs: list[int] = []
    register("conflict", always_conflict(runs, 0.1, workshop))
    for _ in range(5):
        workshop.add("conflict")
    follower = workshop.add("echo")
    begun = workshop.now
    while workshop.get(follower, "status") == QUEUED:
        workshop.step()
    assert workshop.now - begun < 2.0
    del runs[:]
    workshop.now += 10.0
    workshop.step()
    assert len(runs) > 1


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_conflicts_without_end_are_an_error_that_says_so(
    workshop: Any, register: Any, seconds: float
) -> None:
    runs: list[int] = []
    register("conflict", always_conflict(runs, seconds, workshop))
    jobid = workshop.add("conflict")
    begun = workshop.now
    while workshop.get(jobid, "status") == QUEUED:
        workshop.work()
        workshop.now += 0.1
    assert workshop.get(jobid, "status", "attempt") == (ERROR, 1)
    assert re.fullmatch(
        r"the job met write conflicts in \d+ runs in a row; last: somebody was quicker",
        workshop.get(jobid, "error"),
    )
    assert MAX_COLLISIONS <= len(runs) < MAX_COLLISIONS + MAX_REPEATS + 1
    assert workshop.now - begun < MAX_COLLISIONS * (seconds + 2.5)
    workshop.claim(0)
    assert workshop.get(jobid, "collisions") == 0


def test_conflicts_are_forgotten_when_the_job_completes(workshop: Any, register: Any) -> None:
    runs: list[int] = []

    def conflict(input: Any) -> None:
        runs.append(1)
        if len(runs) % (2 * MAX_REPEATS):
            raise ConflictError("somebody was quicker")

    register("conflict", conflict)
    jobid = workshop.add_cron_job("conflict", minute=())
    while len(runs) < 4 * MAX_COLLISIONS:
        workshop.work()
        workshop.now += 5.0
    assert workshop.get(jobid, "status", "failures") == (CRONJOB, ())
    assert workshop.get(jobid, "conflicts") >= 3 * MAX_COLLISIONS


def test_a_job_that_meets_conflicts_can_be_cancelled_while_it_runs(
    workshop: Any, register: Any
) -> None:
    def conflict(input: Any) -> None:
        with workshop.service() as service:
            service.cancel(jobid)
        workshop.now += 1.0
        raise ConflictError("somebody was quicker")

    register("conflict", conflict)
    jobid = workshop.add("conflict")
    workshop.work()
    assert workshop.get(jobid, "status") == CANCELLED


def test_a_missing_object_is_the_error_of_the_job(workshop: Any, register: Any) -> None:
    def miss(input: Any) -> None:
        raise POSKeyError(b"\0" * 7 + b"\x99")

    register("miss", miss, retry=RetryPolicy(attempts=2, first_wait_seconds=0))
    jobid = workshop.add("miss")
    follower = workshop.add("echo")
    workshop.work()
    assert workshop.get(jobid, "status", "attempt") == (ERROR, 2)
    assert workshop.get(follower, "status") == COMPLETED


class OperationalError(Exception):
    """As the drivers of databases have it (PEP 249), each a class of its own."""


class AdminShutdown(OperationalError):
    """One of its kinds."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        StorageError("gone"),
        ConnectionError("lost"),
        AdminShutdown("lost"),
    ],
    ids=repr,
)
def test_a_storage_that_cannot_write_is_waited_for(
    workshop: Any,
    fail_commits: Callable[..., list[BaseException]],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    jobid = workshop.add("echo", "something")
    [claim] = workshop.claim()
    waiting = fail_commits(*[error] * 9)
    assert workshop.run(claim).status == COMPLETED
    assert waiting == []
    assert workshop.get(jobid, "attempt", "output", "failures", "errors") == (1, "something", (), 0)
    assert workshop.pauses == sorted(workshop.pauses)
    assert workshop.pauses[-1] > 2 * workshop.pauses[0]
    assert [record.name for record in caplog.records] == ["lovely.remotetask"]
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("where", ["begin", "load"])
@pytest.mark.parametrize("kind", [AdminShutdown, OSError])
def test_a_storage_that_cannot_read_is_no_failure_of_the_job(
    workshop: Any, register: Any, where: str, kind: Any
) -> None:
    def fail(*arguments: object) -> None:
        patch.undo()
        raise kind("lost")

    def read(context: Any, input: Any) -> Any:
        root = context.service._p_jar.root()
        root._p_deactivate()
        if where == "load" and context.attempt == 1 and not failed:
            failed.append(1)
            patch.setattr(MVCCAdapterInstance, "load", fail)
        return len(root)

    failed: list[int] = []
    register("read", read, context=True, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("read")
    [claim] = workshop.claim()
    patch = pytest.MonkeyPatch()
    if where == "begin":
        patch.setattr(MVCCAdapterInstance, "poll_invalidations", fail)
    outcome = workshop.run(claim)
    assert outcome.status == COMPLETED
    assert workshop.get(jobid, "attempt") == 1


def test_an_error_of_a_task_that_is_like_one_of_the_storage_is_its_own(
    workshop: Any, register: Any
) -> None:
    def fail(input: Any) -> None:
        raise OperationalError("of another database")

    register("fail", fail, retry=RetryPolicy(attempts=1))
    workshop.add("fail")
    assert workshop.step().status == ERROR


def test_a_long_fault_is_logged_once_and_so_is_its_end_and_it_is_asked_after_often(
    workshop: Any, fail_commits: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lovely.remotetask")
    workshop.add("echo")
    fail_commits(*[StorageError("gone"), OSError(28, "No space")] * 20)
    begun = workshop.now
    workshop.claim()
    assert workshop.now - begun > 5 * 60
    assert max(workshop.pauses) == 15.0
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "the storage of service tasks does not work, waiting for it: StorageError: gone",
        ),
        ("INFO", "the storage of service tasks works again"),
    ]


def test_faults_that_follow_each_other_fast_are_logged_once_a_minute(
    workshop: Any, fail_commits: Any, caplog: pytest.LogCaptureFixture
) -> None:
    begun = workshop.now
    for _ in range(200):
        workshop.add("echo")
        fail_commits(StorageError("gone"))
        workshop.claim()
        workshop.now += 1.0
    minutes = (workshop.now - begun) / 60
    assert minutes - 1 <= len(caplog.records) <= minutes + 1


def test_a_fault_at_the_claim_counts_no_attempt(workshop: Any, fail_commits: Any) -> None:
    jobid = workshop.add("echo")
    fail_commits(StorageError("gone"), StorageError("gone"))
    workshop.step()
    assert workshop.get(jobid, "status", "attempt") == (COMPLETED, 1)


def test_a_fault_while_a_failure_is_kept_is_waited_for(
    workshop: Any, register: Any, fail_commits: Any
) -> None:
    calls = []

    def fail(input: Any) -> None:
        calls.append(1)
        fail_commits(StorageError("gone"), StorageError("gone"))
        raise TaskError("no")

    register("fail", fail)
    jobid = workshop.add("fail")
    assert workshop.step().status == ERROR
    assert calls == [1]
    assert workshop.get(jobid, "error") == "no"


def test_a_worker_that_stops_waits_for_no_storage(workshop: Any, fail_commits: Any) -> None:
    jobid = workshop.add("echo")
    [claim] = workshop.claim()
    fail_commits(*[StorageError("gone")] * 5)
    workshop.is_stopping = True
    with pytest.raises(Stopping):
        workshop.run(claim)
    assert workshop.get(jobid, "status", "attempt") == (PROCESSING, 1)


def test_an_oid_that_is_used_twice_is_a_conflict(workshop: Any, fail_commits: Any) -> None:
    jobid = workshop.add("echo")
    [claim] = workshop.claim()
    fail_commits(ValueError("A different object already has the same oid"))
    assert workshop.run(claim).status == COMPLETED
    assert workshop.get(jobid, "attempt", "conflicts") == (1, 1)


# -- tasks that are not there ------------------------------------------------------------------


def test_jobs_of_an_unknown_task_wait_and_the_others_run(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    register("late", lambda input: input)
    parked = [workshop.add("late", number) for number in range(3)]
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    follower = workshop.add("echo")
    assert workshop.work() == [follower]
    workshop.now += 1000
    assert workshop.work() == []
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in records] == [
        f"job {parked[0]}: task 'late' is not registered here; its jobs wait until it is"
    ]
    assert {workshop.get(jobid, "status", "attempt") for jobid in parked} == {(QUEUED, 0)}
    register("late", lambda input: input)
    assert workshop.work() == parked


def test_a_parked_job_costs_an_idle_worker_no_writes(workshop: Any, register: Any) -> None:
    register("late", lambda input: input)
    workshop.add("late")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    workshop.work()
    before = workshop.last_transaction()
    workshop.work()
    assert workshop.last_transaction() == before


def test_a_task_that_vanishes_after_the_claim_is_tried_again(workshop: Any, register: Any) -> None:
    register("late", lambda input: input)
    jobid = workshop.add("late")
    [claim] = workshop.claim()
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    assert workshop.run(claim).status == QUEUED
    register("late", lambda input: input)
    workshop.now += 1
    workshop.work()
    assert workshop.get(jobid, "status", "errors") == (COMPLETED, 0)


# -- cancelling --------------------------------------------------------------------------------


def cancel(workshop: Any, jobid: int) -> None:
    with workshop.service() as service:
        service.cancel(jobid)
        assert service.jobs[jobid].is_cancel_requested


def test_a_claimed_job_that_is_cancelled_is_not_run(workshop: Any, register: Any) -> None:
    calls = []
    register("note", calls.append)
    jobid = workshop.add("note")
    [claim] = workshop.claim()
    cancel(workshop, jobid)
    assert workshop.run(claim).status == CANCELLED
    assert calls == []


def test_a_running_job_sees_that_it_is_to_stop(workshop: Any, register: Any) -> None:
    seen = []

    def look(context: TaskContext, input: Any) -> None:
        seen.append(context.should_stop())
        context.check_cancelled()
        cancel(workshop, context.jobid)
        workshop.now += 1
        seen.append(context.should_stop())
        context.check_cancelled()
        seen.append("not reached")

    register("look", look, context=True)
    jobid = workshop.add("look")
    assert workshop.step().status == CANCELLED
    assert seen == [False, True]
    workshop.claim()
    with workshop.service() as service:
        assert list(service.requests) == []
        assert service.countJobs()[CANCELLED] == 1
        assert service.jobs[jobid].completed is not None


def test_a_job_that_heeds_no_request_completes(workshop: Any, register: Any) -> None:
    register("deaf", lambda context, input: cancel(workshop, context.jobid), context=True)
    jobid = workshop.add("deaf")
    assert workshop.step().status == COMPLETED
    workshop.claim()
    with workshop.service() as service:
        assert list(service.requests) == []
        assert service.getStatus(jobid) == COMPLETED


def test_a_request_does_not_touch_the_record_of_the_running_job(
    workshop: Any, register: Any
) -> None:
    register("deaf", lambda context, input: cancel(workshop, context.jobid), context=True)
    jobid = workshop.add("deaf")
    workshop.step()
    assert workshop.get(jobid, "conflicts") == 0


def test_a_job_that_fails_after_a_request_is_not_repeated(workshop: Any, register: Any) -> None:
    def fail(context: TaskContext, input: Any) -> None:
        cancel(workshop, context.jobid)
        raise ValueError("no")

    register("fail", fail, context=True)
    jobid = workshop.add("fail")
    assert workshop.step().status == CANCELLED
    assert workshop.get(jobid, "error") == "no"


# -- progress ----------------------------------------------------------------------------------


def test_progress_is_seen_while_the_job_runs_and_gone_afterwards(
    workshop: Any, register: Any
) -> None:
    seen = []

    def look(jobid: int) -> None:
        with workshop.service() as service:
            seen.append(service.getProgress(jobid))

    def tell(context: TaskContext, input: Any) -> None:
        for done in range(1, 4):
            context.progress(done, 3, "half way")
            look(context.jobid)

    register("tell", tell, context=True)
    jobid = workshop.add("tell")
    workshop.step()
    # Two notes that follow fast upon each other are one, but for the last one.
    assert seen == [(1, 3, "half way"), (1, 3, "half way"), (3, 3, "half way")]
    workshop.claim()
    look(jobid)
    assert seen[-1] is None
    assert workshop.get(jobid, "conflicts") == 0


def test_the_time_that_remains_is_counted_by_the_monotonic_clock(
    workshop: Any, register: Any
) -> None:
    seen = []

    def look(context: TaskContext, input: Any) -> None:
        seen.append((context.time_remaining(), context.should_stop()))
        workshop.now += 4
        seen.append((context.time_remaining(), context.should_stop()))
        workshop.now += 1
        seen.append((context.time_remaining(), context.should_stop()))

    register("look", look, context=True, timeout_seconds=5)
    workshop.add("look")
    workshop.step()
    assert seen == [(pytest.approx(5), False), (pytest.approx(1), False), (pytest.approx(0), True)]


def test_a_task_is_told_when_its_processor_stops(workshop: Any, register: Any) -> None:
    seen = []
    register("look", lambda context, input: seen.append(context.should_stop()), context=True)
    workshop.add("look")
    [claim] = workshop.claim()
    workshop.is_stopping = True
    workshop.run(claim)
    assert seen == [True]


# -- timeouts ----------------------------------------------------------------------------------


def test_what_a_job_does_after_its_timeout_is_not_kept(workshop: Any, register: Any) -> None:
    def hang(context: TaskContext, input: Any) -> None:
        write(context, input)
        [deadline] = workshop.engine.execution.deadlines
        assert (deadline.end, deadline.seconds) == (workshop.now + 5, 5)
        with workshop.engine.claims.open_beside() as session:  # as the maintenance does
            workshop.engine.execution.expire(session, deadline.claim, deadline.seconds)

    register("hang", hang, context=True, timeout_seconds=5)
    jobid = workshop.add("hang", "something")
    assert workshop.step().status is None
    assert written(workshop) is None
    assert workshop.get(jobid, "status", "error", "attempt") == (
        ERROR,
        "the job ran longer than 5 s",
        1,
    )
    assert list(workshop.engine.execution.deadlines) == []
    assert workshop.engine.claims.in_hand == {}


def test_a_job_that_has_just_ended_does_not_expire(workshop: Any, register: Any) -> None:
    register("quick", lambda input: "done", timeout_seconds=5)
    jobid = workshop.add("quick")
    [claim] = workshop.claim()
    workshop.run(claim)
    with workshop.engine.claims.open_beside() as session:
        workshop.engine.execution.expire(session, claim, 5)
    assert workshop.get(jobid, "status", "output") == (COMPLETED, "done")


# -- cleaning beside a worker ----------------------------------------------------------------------


def test_a_job_that_is_not_filed_yet_is_removed_by_its_worker(workshop: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    kept, gone = workshop.add("echo"), workshop.add("fail")
    for claim in workshop.claim(2):
        workshop.engine.execution.run(workshop.session, claim)
    with workshop.service() as service:
        assert (service.getStatus(kept), service.getStatus(gone)) == (COMPLETED, ERROR)
        service.clean([ERROR])
        assert service.countJobs()[ERROR] == 0
        assert service.countJobs()[COMPLETED] == 1
    workshop.claim(1)
    with workshop.service() as service:
        assert gone not in service.jobs
        assert service.countJobs()[COMPLETED] == 1
        assert check_all(service, workshop.now, repair=False) == []


def test_a_job_that_is_filed_while_it_is_cleaned_is_removed_by_the_next(workshop: Any) -> None:
    jobid = workshop.add("echo")
    workshop.engine.execution.run(workshop.session, *workshop.claim(1))
    manager = transaction.TransactionManager()
    connection = workshop.db.open(manager)
    service = connection.root()["tasks"]
    service.clean()
    workshop.claim(1)  # files the job
    manager.commit()
    assert service.countJobs()[COMPLETED] == 1
    assert check_all(service, workshop.now, repair=False) == []
    service.clean()
    manager.commit()
    assert jobid not in service.jobs
    assert service.countJobs()[COMPLETED] == 0
    connection.close()


def test_a_claim_that_is_repeated_looks_at_the_clock_again(
    workshop: Any, fail_commits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(JobQueue, "recount", lambda self, jobs, now: seen.append(now))
    fail_commits(ConflictError("somebody was quicker"))
    workshop.add("echo")
    workshop.claim(1)
    assert len(seen) == 2
    workshop.claim(1)
    assert len(seen) == 2
    workshop.now -= 10.0
    workshop.claim(1)
    assert len(seen) == 3


def test_a_run_looks_once_for_what_others_have_changed(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.add("echo")
    [claim] = workshop.claim()
    looks = []
    look = MVCCAdapterInstance.poll_invalidations

    def count(self: Any) -> Any:
        # Threads of other tests may be about to end, and connections that they have left open
        # look too, at databases of their own.
        if threading.get_ident() == here and self._storage is workshop.db.storage:
            looks.append(self)
        return look(self)

    here = threading.get_ident()
    monkeypatch.setattr(MVCCAdapterInstance, "poll_invalidations", count)
    assert workshop.run(claim).status == COMPLETED
    assert len(looks) == 1


def test_a_hook_of_a_task_sees_what_others_have_changed_meanwhile(
    workshop: Any, register: Any
) -> None:
    seen = []

    def task(context: Any, input: Any) -> None:
        root = context.service._p_jar.root()
        assert root["word"] == "first"
        with workshop.transaction() as others:
            others["word"] = "second"
        transaction.get().addAfterCommitHook(lambda is_committed: seen.append(root["word"]))

    register("task", task, context=True)
    with workshop.transaction() as root:
        root["word"] = "first"
    workshop.add("task")
    assert workshop.step().status == COMPLETED
    assert seen == ["second"]


def test_what_a_run_that_failed_has_done_to_its_record_is_not_stored(
    workshop: Any, register: Any
) -> None:
    seen: list[Any] = []

    def empty(context: TaskContext, input: Any) -> None:
        seen.append(list(input))
        context.job.input.clear()
        raise ValueError("not yet")

    register("empty", empty, context=True, retry=RetryPolicy(3, 0.0, jitter=0.0))
    jobid = workshop.add("empty", [1, 2])
    workshop.work()
    assert seen == [[1, 2]] * 3
    assert workshop.get(jobid, "status", "input") == (ERROR, [1, 2])
