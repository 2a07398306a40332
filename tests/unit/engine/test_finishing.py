# SPDX-License-Identifier: ZPL-2.1
"""Ends of runs that are handed over: written several together, each behind its own fence."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.Connection import Connection
from ZODB.POSException import ConflictError

from lovely.remotetask.base.shelf import Shelf
from lovely.remotetask.engine.finishing import MAX_PIPED, Finishing
from lovely.remotetask.engine.protocol import Stopping
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, CRONJOB, ERROR, PROCESSING, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import SimpleTask


@pytest.fixture(autouse=True)
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look after the pipe."""
    monkeypatch.setattr(Finishing, "_is_watched", lambda self: True)


def yes() -> bool:
    return True


class Pipe:
    """A worker that has claimed jobs, and goes on with the next one at once."""

    def __init__(self, workshop: Any) -> None:
        self.workshop = workshop
        self.execution = workshop.engine.execution
        self.claims = workshop.engine.claims

    def add(self, count: int, task: str = "echo") -> list[int]:
        return [self.workshop.add(task, number) for number in range(count)]

    def run(self, count: int = 1) -> list[str | None]:
        """Claim jobs and run them, each with another one behind it."""
        claims = self.workshop.claim(count)
        session = self.workshop.session
        return [self.execution.run(session, claim, yes).status for claim in claims]

    def settle(self) -> None:
        self.execution.settle(self.workshop.session)

    def statuses(self, jobids: list[int]) -> list[str]:
        return [self.workshop.get(jobid, "status") for jobid in jobids]


@pytest.fixture
def pipe(workshop: Any) -> Iterator[Pipe]:
    pipe = Pipe(workshop)
    yield pipe
    pipe.settle()
    assert not pipe.claims.ended


@pytest.fixture
def file_pipe(file_workshop: Any) -> Pipe:
    return Pipe(file_workshop)


# -- what is handed over ---------------------------------------------------------------------


def test_the_ends_of_quick_jobs_are_one_commit(file_pipe: Pipe) -> None:
    pipe = file_pipe
    jobids = pipe.add(10)
    claims = pipe.workshop.claim(10)
    before = pipe.workshop.count_transactions()
    for claim in claims:
        assert pipe.execution.run(pipe.workshop.session, claim, yes).status == PROCESSING
    assert pipe.workshop.count_transactions() == before
    assert set(pipe.statuses(jobids)) == {PROCESSING}
    assert len(pipe.claims.in_hand) == 10
    pipe.settle()
    assert pipe.workshop.count_transactions() == before + 1
    assert set(pipe.statuses(jobids)) == {COMPLETED}
    assert [pipe.workshop.get(jobid, "output") for jobid in jobids] == list(range(10))
    assert not pipe.claims.in_hand


def test_a_job_behind_which_nothing_waits_is_written_at_once(pipe: Pipe) -> None:
    pipe.add(1)
    assert pipe.workshop.step().status == COMPLETED


def test_who_goes_on_with_nothing_writes_what_others_have_left(pipe: Pipe) -> None:
    jobids = pipe.add(3)
    *claims, last = pipe.workshop.claim(3)
    for claim in claims:
        pipe.execution.run(pipe.workshop.session, claim, yes)
    assert pipe.workshop.run(last).status == COMPLETED
    assert set(pipe.statuses(jobids)) == {COMPLETED}


def test_the_pipe_holds_so_many_jobs_and_no_more(pipe: Pipe) -> None:
    pipe.add(2 * MAX_PIPED)
    statuses = pipe.run(2 * MAX_PIPED)
    assert statuses == 2 * [*[PROCESSING] * (MAX_PIPED - 1), COMPLETED]


def test_the_pipe_holds_what_has_run_within_ten_milliseconds(pipe: Pipe, register: Any) -> None:
    def work(input: Any) -> None:
        pipe.workshop.now += 0.0024

    register("work", work)
    pipe.add(8, "work")
    assert pipe.run(8) == 2 * [PROCESSING, PROCESSING, PROCESSING, COMPLETED]


def test_a_job_that_is_longer_than_a_commit_is_not_piped(pipe: Pipe, register: Any) -> None:
    def work(input: Any) -> None:
        pipe.workshop.now += 0.006

    register("work", work)
    pipe.add(2, "work")
    assert pipe.run(2) == [COMPLETED, COMPLETED]


@pytest.mark.parametrize(
    ("seconds", "statuses"),
    [(0.006, [PROCESSING, COMPLETED, PROCESSING, COMPLETED]), (0.011, 4 * [COMPLETED])],
)
def test_what_threads_have_run_waits_for_others_until_ten_milliseconds_are_over(
    pipe: Pipe, register: Any, seconds: float, statuses: list[str]
) -> None:
    def work(input: Any) -> None:
        pipe.workshop.now += seconds

    register("work", work)
    pipe.add(4, "work")
    pipe.claims.desk = pipe.workshop.session
    assert pipe.run(4) == statuses


def test_a_task_can_say_no(pipe: Pipe, register: Any) -> None:
    register("sensitive", lambda input: input, piped=False)
    pipe.add(2, "sensitive")
    assert pipe.run(2) == [COMPLETED, COMPLETED]


def test_a_service_can_say_no(pipe: Pipe) -> None:
    pipe.add(3)
    assert pipe.run() == [PROCESSING]
    with pipe.workshop.service() as service:
        service.piped = False
    assert pipe.run(2) == [COMPLETED, COMPLETED]


def test_where_it_says_no_the_threads_share_no_commits_either(file_pipe: Pipe) -> None:
    pipe = file_pipe
    jobids = pipe.add(2)
    claims = pipe.workshop.claim(2)
    with pipe.workshop.service() as service:
        service.piped = False
    before = pipe.workshop.count_transactions()
    with pipe.claims.lock:  # which only those need who write for others
        assert [run_beside(pipe, claim) for claim in claims] == [COMPLETED] * 2
    assert pipe.workshop.count_transactions() == before + 2
    assert pipe.statuses(jobids) == [COMPLETED] * 2


class Neither:
    """Is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("neither")


def test_what_cannot_say_yes_or_no_is_refused(service: Any) -> None:
    with pytest.raises(InvalidArgument, match="piped"):
        service.piped = Neither()
    with pytest.raises(InvalidArgument, match="piped"):
        SimpleTask(len, piped=Neither())  # type: ignore[arg-type]
    assert service.piped


def test_a_job_that_may_have_killed_its_process_is_not_piped(pipe: Pipe) -> None:
    pipe.add(2)
    pipe.workshop.claim(2)
    rival = pipe.workshop.new_engine()
    pipe.claims.transact(
        pipe.workshop.session,
        lambda service: rescue(service, pipe.claims.identity.id, pipe.workshop.now),
    )
    pipe.workshop.now += 1000.0
    [claim] = rival.claims.claim(pipe.workshop.session, 1)
    assert claim.is_suspect
    assert rival.execution.run(pipe.workshop.session, claim, yes).status == COMPLETED
    pipe.claims.give_back(pipe.workshop.session, list(pipe.claims.in_hand.values()))


class Joined:
    """A data manager that does nothing."""

    def sortKey(self) -> str:
        return "joined"

    def abort(self, txn: Any) -> None:
        pass

    tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = abort


def _write(context: Any) -> None:
    context.service._p_jar.root()["written"] = PersistentMapping()


def _add_object(context: Any) -> None:
    context.service._p_jar.add(PersistentMapping())


def _rely(context: Any) -> None:
    root = context.service._p_jar.root()
    root._p_jar.readCurrent(root)


TRACES: dict[str, Callable[[Any], Any]] = {
    "a change": _write,
    "a new object": _add_object,
    "an object relied on": _rely,
    "a data manager": lambda context: transaction.get().join(Joined()),
    "a hook before": lambda context: transaction.get().addBeforeCommitHook(lambda: None),
    "a hook after": lambda context: transaction.get().addAfterCommitHook(lambda success: None),
    "a hook before an abort": lambda context: transaction.get().addBeforeAbortHook(lambda: None),
    "a hook after an abort": lambda context: transaction.get().addAfterAbortHook(lambda: None),
    "a note": lambda context: transaction.get().note("mine"),
    "a user": lambda context: transaction.get().setUser("me"),
    "something of the transaction": lambda context: transaction.get().setExtendedInfo("a", 1),
    "a persistent result": lambda context: [context.service._p_jar.root()],
    "a large result": lambda context: "x" * 100_000,
    "a large list": lambda context: [b"x" * 100_000],
    "a large number": lambda context: 1 << 1_000_000,
}


@pytest.mark.parametrize("trace", TRACES)
def test_what_leaves_more_than_the_end_of_its_job_has_a_commit_of_its_own(
    pipe: Pipe, register: Any, trace: str
) -> None:
    def leave(context: Any, input: Any) -> Any:
        return TRACES[trace](context)

    register("leave", leave, context=True)
    [first, _] = pipe.add(2)
    left = pipe.workshop.add("leave")
    assert pipe.run(3) == [PROCESSING, PROCESSING, COMPLETED]
    assert pipe.statuses([first, left]) == [PROCESSING, COMPLETED]


@pytest.mark.parametrize("output", [None, 1.5, "text", (1, 2), {"a": [1, 2]}, {3}])
def test_a_result_of_plain_values_is_handed_over(pipe: Pipe, register: Any, output: Any) -> None:
    register("result", lambda input: output)
    jobids = pipe.add(2, "result")
    assert pipe.run(2) == [PROCESSING, PROCESSING]
    pipe.settle()
    assert [pipe.workshop.get(jobid, "output") for jobid in jobids] == [output, output]


def test_a_run_of_a_cron_job_is_handed_over_and_waits_for_its_next_time(pipe: Pipe) -> None:
    jobid = pipe.workshop.add_cron_job("echo", cron="* * * * *")
    pipe.workshop.now += 60.0
    assert pipe.run() == [PROCESSING]
    pipe.settle()
    assert pipe.statuses([jobid]) == [CRONJOB]
    pipe.workshop.now += 60.0
    assert pipe.run() == [PROCESSING]


# -- fences, conflicts, and what cannot be stored ------------------------------------------------


def calls_of(register: Any, name: str = "count") -> list[Any]:
    calls: list[Any] = []
    register(name, calls.append)
    return calls


def test_each_end_is_behind_its_own_fence(
    pipe: Pipe, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    with pipe.workshop.service() as service:  # as a rescue does
        job = service.jobs[jobids[1]]
        job.give_back(pipe.workshop.now)
        service.queue.file(job)
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED, QUEUED, COMPLETED]
    assert f"job {jobids[1]}: no longer held, its run is not kept" in caplog.messages
    assert pipe.run() == [PROCESSING]
    assert calls == [0, 1, 2, 1]


def test_a_worker_that_was_taken_for_dead_keeps_nothing_of_its_pipe(
    pipe: Pipe, register: Any
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    rival = pipe.workshop.new_engine()
    with pipe.workshop.connected() as (manager, root):
        rescue(root["tasks"], pipe.claims.identity.id, pipe.workshop.now)
        manager.commit()
    pipe.settle()
    assert pipe.statuses(jobids) == [QUEUED] * 3
    pipe.workshop.now += 1000.0
    for _ in range(3):  # one at a time, as after each death
        [claim] = rival.claims.claim(pipe.workshop.session, 1)
        rival.execution.run(pipe.workshop.session, claim)
    assert pipe.statuses(jobids) == [COMPLETED] * 3
    assert calls == [0, 1, 2, 0, 1, 2]


def test_a_job_that_was_deleted_is_not_written_again(pipe: Pipe) -> None:
    jobids = pipe.add(2)
    pipe.run(2)
    with pipe.workshop.service() as service:
        del service.jobs[jobids[0]]
    pipe.settle()
    with pipe.workshop.service() as service:
        assert list(service.jobs) == jobids[1:]


def test_a_cancel_request_holds_for_what_would_follow(pipe: Pipe) -> None:
    jobid = pipe.workshop.add_cron_job("echo", cron="* * * * *")
    pipe.workshop.now += 60.0
    pipe.run()
    with pipe.workshop.service() as service:
        service.cancel(jobid)
    pipe.settle()
    pipe.workshop.claim()
    assert pipe.statuses([jobid]) == [CANCELLED]


def test_a_conflict_sends_the_ends_one_by_one_and_runs_no_task_again(
    pipe: Pipe, register: Any, fail_commits: Any
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    fail_commits(ConflictError("of one of them"), ConflictError("once more"))
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED] * 3
    assert calls == [0, 1, 2]
    assert [pipe.workshop.get(jobid, "conflicts") for jobid in jobids] == [2, 1, 1]


def test_of_a_real_conflict_in_a_group_only_the_fenced_job_is_lost(
    pipe: Pipe, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    keep, is_first = Finishing._keep, itertools.count()

    def meanwhile(*arguments: Any) -> Any:
        kept = keep(*arguments)
        if not next(is_first):
            with pipe.workshop.service() as service:
                job = service.jobs[jobids[2]]
                job.give_back(pipe.workshop.now)
                service.queue.file(job)
        return kept

    monkeypatch.setattr(Finishing, "_keep", meanwhile)
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED, COMPLETED, QUEUED]
    assert calls == [0, 1, 2]


class Fickle:
    """Can be stored so often."""

    left = 1_000

    def __reduce__(self) -> Any:
        Fickle.left -= 1
        if Fickle.left < 0:
            raise ValueError("not today")
        return Fickle, ()


def test_a_result_that_cannot_be_stored_in_the_end_is_the_error_of_its_job_alone(
    pipe: Pipe, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def result(input: Any) -> Any:
        calls.append(input)
        return Fickle() if input == 1 else input

    register("result", result, retry=RetryPolicy(attempts=1))
    jobids = pipe.add(3, "result")
    assert pipe.run(3) == [PROCESSING] * 3
    monkeypatch.setattr(Fickle, "left", 0)
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED, ERROR, COMPLETED]
    with pipe.workshop.service() as service:
        assert "not today" in service.getError(jobids[1])
    assert calls == [0, 1, 2]


def test_an_end_of_which_nothing_can_be_written_keeps_nobody_waiting(
    pipe: Pipe, register: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> str:
        raise RuntimeError("unheard of")

    register("result", lambda input: Fickle() if input == 1 else input)
    jobids = pipe.add(3, "result")
    pipe.run(3)
    monkeypatch.setattr(Fickle, "left", 0)
    monkeypatch.setattr(pipe.execution.finishing, "_fail", fail)
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED, PROCESSING, COMPLETED]
    assert any("has stumbled" in text for text in caplog.messages)
    assert [claim.jobid for claim in pipe.workshop.claim()] == [jobids[1]]
    give_back(pipe)


def test_a_group_whose_reply_is_lost_is_known_again(
    pipe: Pipe, register: Any, lose_the_reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    lose_the_reply()
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED] * 3
    assert calls == [0, 1, 2]
    assert not [text for text in caplog.messages if "no longer held" in text]


# -- who waits for the pipe ----------------------------------------------------------------------


def give_back(pipe: Pipe) -> None:
    claims = list(pipe.claims.in_hand.values())
    pipe.claims.give_back(pipe.workshop.session, claims)


STEPS: dict[str, Callable[[Pipe], Any]] = {
    "a claim": lambda pipe: pipe.workshop.claim(),
    "giving back": give_back,
    "leaving": lambda pipe: pipe.claims.leave(pipe.workshop.session, []),
    "a sign of life": lambda pipe: pipe.claims.beat(pipe.workshop.session),
    "a single step": lambda pipe: pipe.workshop.step(),
}


@pytest.mark.parametrize("step", STEPS)
def test_who_writes_for_the_worker_writes_what_is_in_the_pipe_first(pipe: Pipe, step: str) -> None:
    jobids = pipe.add(3)
    assert pipe.run(3) == [PROCESSING] * 3
    pipe.add(1)
    STEPS[step](pipe)
    assert pipe.statuses(jobids) == [COMPLETED] * 3
    assert [pipe.workshop.get(jobid, "attempt") for jobid in jobids] == [1, 1, 1]
    give_back(pipe)
    with pipe.workshop.service() as service:
        assert check_all(service, pipe.workshop.now, repair=False) == []


def test_giving_up_a_job_that_hangs_writes_what_is_in_the_pipe(pipe: Pipe, register: Any) -> None:
    def hang(input: Any) -> None:
        claim = pipe.claims.in_hand[hanging]
        with pipe.claims.open_beside() as session:
            assert pipe.execution.expire(session, claim, 1.0)
        assert pipe.statuses(jobids) == [COMPLETED, COMPLETED]

    register("hang", hang)
    jobids = pipe.add(2)
    hanging = pipe.workshop.add("hang")
    assert pipe.run(3) == [PROCESSING, PROCESSING, PROCESSING]
    pipe.settle()
    assert pipe.statuses([*jobids, hanging]) == [COMPLETED, COMPLETED, ERROR]


def test_a_thread_that_ends_leaves_what_is_in_the_pipe_to_nobody_to_give_back(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lovely.remotetask.engine.ledger import Ledger

    pipe.add(2)
    ledger = Ledger(pipe.claims, pipe.execution)
    claims = pipe.workshop.claim(2)
    with ledger.carrying(claims):
        pipe.execution.run(pipe.workshop.session, claims[0], yes)
    assert ledger.left() == claims[1:]
    give_back(pipe)


def test_while_the_storage_cannot_write_the_ends_are_kept(
    pipe: Pipe, register: Any, fail_commits: Any
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    errors = fail_commits(*[OSError("the disk is full")] * 5)
    pipe.settle()
    assert not errors
    assert pipe.statuses(jobids) == [COMPLETED] * 3
    assert calls == [0, 1, 2]


def test_a_result_for_which_there_is_no_room_keeps_no_others_waiting(
    pipe: Pipe, register: Any, little_room: list[int]
) -> None:
    register("big", lambda input: "x" * 20_000)
    small = pipe.add(2)
    [big] = pipe.add(1, "big")
    small += pipe.add(2)
    pipe.workshop.while_pausing = lambda: pytest.fail("all wait for room")
    pipe.run(5)
    pipe.settle()
    assert pipe.statuses(small) == [COMPLETED] * 4
    assert pipe.workshop.get(big, "status", "attempt", "errors") == (QUEUED, 0, 0)
    assert "No space left" in pipe.workshop.get(big, "error")
    little_room.clear()
    pipe.workshop.now += 1.0
    pipe.workshop.work()
    assert pipe.workshop.get(big, "status", "attempt") == (COMPLETED, 1)


def test_while_there_is_no_room_at_all_the_ends_are_kept(
    pipe: Pipe, register: Any, little_room: list[int]
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(3, "count")
    pipe.run(3)
    little_room[:] = [0]
    pauses: list[int] = []

    def make_room_soon() -> None:
        pauses.append(1)
        if len(pauses) == 3:
            little_room.clear()

    pipe.workshop.while_pausing = make_room_soon
    pipe.settle()
    assert pipe.statuses(jobids) == [COMPLETED] * 3
    assert calls == [0, 1, 2]


def test_who_stops_while_the_storage_cannot_write_can_write_later(
    pipe: Pipe, fail_commits: Any
) -> None:
    jobids = pipe.add(3)
    pipe.run(3)
    errors = fail_commits(*[OSError("the disk is full")] * 2)
    pipe.workshop.is_stopping = True
    with pytest.raises(Stopping):
        pipe.settle()
    assert not errors
    assert pipe.statuses(jobids) == [PROCESSING] * 3
    pipe.workshop.is_stopping = False
    give_back(pipe)  # what has run is not to run again
    assert pipe.statuses(jobids) == [COMPLETED] * 3


def test_ctrl_c_leaves_the_ends_to_who_comes_next(
    pipe: Pipe, fail_commits: Any, register: Any
) -> None:
    calls = calls_of(register)
    jobids = pipe.add(2, "count")
    pipe.run(2)
    fail_commits(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pipe.settle()
    give_back(pipe)
    assert pipe.statuses(jobids) == [COMPLETED] * 2
    assert calls == [0, 1]


# -- several threads -----------------------------------------------------------------------------


def test_who_gets_the_lock_writes_what_all_have_handed_over(file_pipe: Pipe) -> None:
    pipe = file_pipe
    jobids = pipe.add(4)
    claims = pipe.workshop.claim(4)
    pipe.claims.desk = pipe.workshop.session
    before = pipe.workshop.count_transactions()
    statuses: list[Any] = []

    def run(claim: Any) -> None:
        with pipe.claims.open() as session:
            statuses.append(pipe.execution.run(session, claim).status)

    with pipe.claims.lock:
        threads = [threading.Thread(target=run, args=[claim]) for claim in claims]
        for thread in threads:
            thread.start()
        while len(pipe.claims.ended) < 4:
            pass
        assert pipe.workshop.count_transactions() == before
    for thread in threads:
        thread.join()
    assert statuses == [COMPLETED] * 4
    assert pipe.workshop.count_transactions() == before + 1
    assert set(pipe.statuses(jobids)) == {COMPLETED}


def run_beside(pipe: Pipe, claim: Any) -> Any:
    """Run a job as a thread does whose loop has claimed it; return its status."""
    pipe.claims.desk = pipe.workshop.session
    with pipe.claims.open_beside() as session:
        return pipe.execution.run(session, claim).status


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is loaded of jobs, and of what leads to them: by which connection, and its class."""
    loaded: list[Any] = []
    load = Connection.setstate

    def setstate(connection: Connection, found: Any) -> None:
        if isinstance(found, Job | Shelf):
            loaded.append((connection, type(found)))
        load(connection, found)

    monkeypatch.setattr(Connection, "setstate", setstate)
    return loaded


def test_a_thread_does_not_load_what_its_loop_has_claimed(pipe: Pipe, loaded: list[Any]) -> None:
    [jobid] = pipe.add(1)
    [claim] = pipe.workshop.claim()
    pipe.claims.db.cacheMinimize()
    loaded.clear()
    assert run_beside(pipe, claim) == COMPLETED
    assert {connection for connection, _ in loaded} == {pipe.workshop.session.connection}
    assert pipe.workshop.get(jobid, "output") == 0


@pytest.mark.parametrize("input", [[1], "x" * 2_000], ids=["a list", "a long text"])
def test_an_input_that_is_large_or_can_change_is_loaded(
    pipe: Pipe, loaded: list[Any], input: Any
) -> None:
    jobid = pipe.workshop.add("echo", input)
    [claim] = pipe.workshop.claim()
    loaded.clear()
    assert run_beside(pipe, claim) == COMPLETED
    assert [kind for _, kind in loaded].count(Job) == 1
    assert pipe.workshop.get(jobid, "output") == input


@pytest.mark.parametrize("task", ["count", "write"])
def test_a_job_that_was_taken_away_is_not_run_by_a_thread(
    pipe: Pipe, register: Any, task: str
) -> None:
    calls = calls_of(register)
    register("write", lambda context, input: _write(context), context=True)
    [jobid] = pipe.add(1, task)
    [claim] = pipe.workshop.claim()
    with pipe.workshop.connected() as (manager, root):
        rescue(root["tasks"], pipe.claims.identity.id, pipe.workshop.now)
        manager.commit()
    assert run_beside(pipe, claim) is None
    assert not calls
    assert pipe.statuses([jobid]) == [QUEUED]
    with pipe.workshop.connected() as (_, root):
        assert "written" not in root


def test_a_job_that_is_taken_away_while_a_thread_runs_it_keeps_nothing(
    pipe: Pipe, register: Any
) -> None:
    def write(context: Any, input: Any) -> None:
        _write(context)
        with pipe.workshop.connected() as (manager, root):
            rescue(root["tasks"], pipe.claims.identity.id, pipe.workshop.now)
            manager.commit()

    register("write", write, context=True)
    [jobid] = pipe.add(1, "write")
    [claim] = pipe.workshop.claim()
    assert run_beside(pipe, claim) is None
    assert pipe.statuses([jobid]) == [QUEUED]
    with pipe.workshop.connected() as (_, root):
        assert "written" not in root


def test_a_job_that_was_deleted_keeps_nothing_of_its_run_by_a_thread(
    pipe: Pipe, register: Any
) -> None:
    register("write", lambda context, input: _write(context), context=True)
    [jobid] = pipe.add(1, "write")
    [claim] = pipe.workshop.claim()
    with pipe.workshop.connected() as (manager, root):
        del root["tasks"].jobs[jobid]
        manager.commit()
    assert run_beside(pipe, claim) is None
    with pipe.workshop.connected() as (_, root):
        assert "written" not in root
        assert jobid not in root["tasks"].jobs


@pytest.mark.parametrize("is_beside", [True, False])
def test_a_job_that_deletes_itself_has_gone(pipe: Pipe, register: Any, is_beside: bool) -> None:
    def delete(context: Any, input: Any) -> None:
        del context.service.jobs[context.jobid]

    register("delete", delete, context=True)
    [jobid] = pipe.add(1, "delete")
    [claim] = pipe.workshop.claim()
    run = run_beside if is_beside else lambda pipe, claim: pipe.workshop.run(claim).status
    assert run(pipe, claim) == COMPLETED
    with pipe.workshop.service() as service:
        assert jobid not in service.jobs


def test_what_a_thread_writes_beside_the_end_of_its_job_is_one_commit(
    pipe: Pipe, register: Any
) -> None:
    register("write", lambda context, input: _write(context), context=True)
    [jobid] = pipe.add(1, "write")
    [claim] = pipe.workshop.claim()
    assert run_beside(pipe, claim) == COMPLETED
    with pipe.workshop.connected() as (_, root):
        assert root["written"]._p_serial == root["tasks"].jobs[jobid]._p_serial


def test_nothing_piles_up(pipe: Pipe) -> None:
    for _ in range(20):
        pipe.add(10)
        pipe.run(10)
    pipe.settle()
    assert not pipe.claims.in_hand
    assert not pipe.claims.ended
    assert not pipe.execution.finishing._waiting


def test_each_run_looks_once_for_what_others_have_changed(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.add(4)
    claims = pipe.workshop.claim(4)
    storage = pipe.workshop.session.connection._storage
    look, looks = storage.poll_invalidations, []
    monkeypatch.setattr(storage, "poll_invalidations", lambda: looks.append(1) or look())
    for claim in claims:
        pipe.execution.run(pipe.workshop.session, claim, yes)
    assert len(looks) == 4
