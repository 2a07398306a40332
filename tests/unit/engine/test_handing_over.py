# SPDX-License-Identifier: ZPL-2.1
"""Claims change hands in one step: from a thread that hangs, at an exit, after Ctrl-C."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from lovely.remotetask.engine.filing import release
from lovely.remotetask.engine.protocol import Stopping
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.engine.session import Session
from lovely.remotetask.interfaces import COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import DEATH_WAITS_SECONDS, RetryPolicy
from lovely.remotetask.store.check import check_all

KINDS = [SimpleProcessor, MultiProcessor]
ONCE = RetryPolicy(attempts=1)


def has_left_nothing(workshop: Any) -> bool:
    with workshop.service() as service:
        return not len(service.workers) and check_all(service, time.time(), repair=False) == []


@pytest.fixture
def processor(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleProcessor:
    """A processor without a maintenance's thread."""
    processor = SimpleProcessor(workshop.db, workshop.path)
    monkeypatch.setattr(processor.loop, "start_maintenance", lambda: None)
    processor.loop.crew.runner.batch = 20.0
    return processor


# -- a thread that hangs -----------------------------------------------------------------------


def test_a_thread_that_was_given_up_finds_nothing_more_to_do(
    workshop: Any, register: Any, processor: SimpleProcessor
) -> None:
    ran = []

    def hang(input: Any) -> None:
        processor.engine.claims.monotonic = lambda: time.monotonic() + 1000.0
        processor.loop.maintenance._expire()

    register("hang", hang, timeout_seconds=100.0)
    register("share", ran.append, shared_commit=True)
    register("alone", ran.append)
    hanging = workshop.add("hang")
    others = [workshop.add(task) for task in ("alone", "share", "share", "alone", "share")]
    processor.loop.crew.work(workshop.session)
    assert ran == []
    assert workshop.get(hanging, "status") == ERROR
    assert processor.loop.crew.runner.batch == 20.0
    processor.loop.give_back_left(workshop.session)  # as its successor does
    assert {workshop.get(jobid, "status", "attempt") for jobid in others} == {(QUEUED, 0)}
    processor.loop.crew.work(workshop.session)
    assert len(ran) == 5
    processor.engine.claims.give_back(workshop.session, [])
    assert has_left_nothing(workshop)


def test_a_job_that_has_just_ended_is_not_given_up(
    workshop: Any, register: Any, processor: SimpleProcessor
) -> None:
    deadlines = []

    def look(input: Any) -> None:
        deadlines.extend(processor.engine.execution.deadlines)

    register("look", look, timeout_seconds=100.0)
    jobid, other = workshop.add("look"), workshop.add("echo")
    processor.loop.crew.work(workshop.session)
    assert not processor.loop.ledger.abandon(deadlines[0])
    assert workshop.get(jobid, "status") == workshop.get(other, "status") == COMPLETED


def test_a_task_that_has_a_timeout_by_now_shares_no_commit(workshop: Any, register: Any) -> None:
    register("share", lambda input: None, shared_commit=True)
    workshop.add("share")
    claims = workshop.reserve()
    register("share", lambda input: None, shared_commit=True, timeout_seconds=1.0)
    assert workshop.run_together(claims) is None


def test_only_a_thread_that_carries_claims_picks_them_up(
    workshop: Any, processor: SimpleProcessor
) -> None:
    workshop.add("echo")
    claims = processor.engine.claims.claim(workshop.session, 1)
    assert not processor.loop.crew.runner.pick_up(claims)
    with processor.loop.ledger.carrying(claims):
        assert processor.loop.crew.runner.pick_up(claims)
        processor.stop()
        assert not processor.loop.crew.runner.pick_up(claims)


# -- claims are compared, and not ids ----------------------------------------------------------


def test_a_claim_that_was_given_back_is_not_given_back_again(workshop: Any) -> None:
    jobid = workshop.add("echo")
    before = workshop.claim()
    workshop.engine.claims.give_back(workshop.session, before)
    [claim] = workshop.claim()
    assert claim == before[0]  # to look at
    workshop.engine.claims.give_back(workshop.session, before)
    assert workshop.get(jobid, "status") == PROCESSING
    with workshop.service() as service:
        assert [worker.held for worker in service.workers.values()] == [(jobid,)]
    assert workshop.run(claim).status == COMPLETED


def test_a_job_that_is_claimed_again_is_not_left_by_who_had_it_before(
    workshop: Any, processor: SimpleProcessor
) -> None:
    workshop.add("echo")
    before = processor.engine.claims.claim(workshop.session, 1)
    with processor.loop.ledger.carrying(before):
        processor.engine.claims.give_back(workshop.session, before)
        processor.engine.claims.claim(workshop.session, 1)
    assert processor.loop.ledger.left() == []


def test_a_job_that_its_worker_has_claimed_again_stays_in_the_record(workshop: Any) -> None:
    jobid = workshop.add("echo")
    [claim] = workshop.claim()
    with workshop.service() as service:
        release(service, claim.owner, jobid, workshop.now)
    with workshop.service() as service:
        assert service.workers[claim.owner].held == (jobid,)


def test_a_job_stands_in_the_record_once(workshop: Any, register: Any) -> None:
    register("stumble", lambda input: 1 / 0, retry=RetryPolicy(first_wait_seconds=0.0))
    jobid = workshop.add("stumble")
    [claim] = workshop.claim()
    workshop.run(claim)
    workshop.engine.claims.in_hand[jobid] = claim  # its thread is about to let it go
    with workshop.service() as service:
        service.queue.file(service.jobs[jobid])
    workshop.now += 1
    [again] = workshop.claim()
    assert again.attempt == 2
    with workshop.service() as service:
        assert service.workers[claim.owner].held == (jobid,)
        assert service.countJobs()[PROCESSING] == 1


# -- an exit -----------------------------------------------------------------------------------


def test_what_runs_at_an_exit_is_given_back_with_a_note(workshop: Any, register: Any) -> None:
    def exit(input: Any) -> None:
        with workshop.engine.claims.open_beside() as session:
            workshop.engine.claims.leave(session, [claim])

    register("exit", exit, retry=ONCE)
    jobid = workshop.add("exit")
    waiting = workshop.add("echo")
    claim, _ = workshop.claim(2)
    assert workshop.run(claim).status is None  # what it comes to is not kept
    assert workshop.get(jobid, "status", "attempt", "deaths", "errors") == (QUEUED, 0, 0, 0)
    [note] = workshop.get(jobid, "failures")
    assert note.type == "JobInterrupted"
    assert "was stopped while it ran the job" in workshop.get(jobid, "error")
    assert workshop.get(waiting, "status", "attempt", "failures") == (QUEUED, 0, ())
    assert has_left_nothing(workshop)
    with pytest.raises(Stopping):
        workshop.claim()


def test_what_shares_a_commit_at_an_exit_is_not_kept_either(workshop: Any, register: Any) -> None:
    def exit(input: Any) -> None:
        with workshop.engine.claims.open_beside() as session:
            workshop.engine.claims.leave(session, claims)

    register("exit", exit, shared_commit=True)
    jobid = workshop.add("exit")
    claims = workshop.reserve()
    assert workshop.run_together(claims) is None
    with pytest.raises(Stopping):
        workshop.claim_reserved(claims)
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)
    assert [note.type for note in workshop.get(jobid, "failures")] == ["JobInterrupted"]
    assert has_left_nothing(workshop)


def test_a_lost_reply_leaves_one_note(workshop: Any, register: Any, lose_the_reply: Any) -> None:
    register("share", lambda input: None, shared_commit=True)
    jobids = [workshop.add("share"), workshop.add("echo")]
    claims = workshop.reserve()
    assert {claim.is_reserved for claim in claims} == {True, False}
    lose_the_reply()
    workshop.engine.claims.leave(workshop.session, claims)
    assert [len(workshop.get(jobid, "failures")) for jobid in jobids] == [1, 1]


@pytest.mark.parametrize("max_deaths", [1, 5])
def test_the_limit_of_deaths_is_a_setting(workshop: Any, max_deaths: int) -> None:
    with workshop.service() as service:
        service.max_deaths = max_deaths
    jobid = workshop.add("echo")
    for death in range(1, max_deaths + 1):
        assert workshop.get(jobid, "status") == QUEUED
        [claim] = workshop.claim()
        with workshop.service() as service:
            rescue(service, claim.owner, workshop.now)
        workshop.engine = workshop.new_engine()
        assert workshop.get(jobid, "deaths") == death
        workshop.now += max(DEATH_WAITS_SECONDS)
    assert workshop.get(jobid, "status") == ERROR


# -- Ctrl-C, and what else would end a thread --------------------------------------------------


def interrupt(input: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_in_the_main_thread_is_the_callers(
    workshop: Any, register: Any, kind: Any
) -> None:
    register("interrupt", interrupt, retry=ONCE)
    jobid = workshop.add("interrupt")
    processor = kind(workshop.db, workshop.path)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            processor.processNext()
        assert workshop.get(jobid, "status", "attempt", "failures") == (QUEUED, 0, ())
        assert has_left_nothing(workshop)
    assert processor.claimNextJob() == jobid
    with pytest.raises(KeyboardInterrupt):
        processor.processNext(jobid)
    assert has_left_nothing(workshop)


def test_an_interrupt_gives_back_what_the_service_had_claimed(workshop: Any, register: Any) -> None:
    register("interrupt", interrupt)
    jobid = workshop.add("interrupt")
    with workshop.service() as service:
        assert service.claimNextJob() == jobid
    with pytest.raises(KeyboardInterrupt):
        SimpleProcessor(workshop.db, workshop.path).processNext(jobid)
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)
    assert has_left_nothing(workshop)


def test_an_interrupt_while_jobs_share_a_commit_leaves_it(workshop: Any, register: Any) -> None:
    register("interrupt", interrupt, shared_commit=True)
    workshop.add("interrupt")
    with pytest.raises(KeyboardInterrupt):
        workshop.run_together(workshop.reserve())


def test_in_another_thread_it_is_the_error_of_the_job(workshop: Any, register: Any) -> None:
    register("interrupt", interrupt, retry=ONCE)
    jobid = workshop.add("interrupt")
    processor = SimpleProcessor(workshop.db, workshop.path)
    thread = threading.Thread(target=processor.processNext)
    thread.start()
    thread.join()
    assert workshop.get(jobid, "status", "failures")[0] == ERROR


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_in_the_main_thread_ends_by_an_interrupt_and_leaves_nothing(
    workshop: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = workshop.add("echo")
    processor = kind(workshop.db, workshop.path)
    claim = processor.engine.claims.claim

    def claim_and_be_interrupted(*arguments: Any, **options: Any) -> Any:
        claim(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(processor.engine.claims, "claim", claim_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        processor()
    assert not processor.running
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)
    assert has_left_nothing(workshop)


def test_what_would_end_a_thread_does_not_end_the_loop(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = SimpleProcessor(workshop.db, workshop.path)
    rounds = []

    def work(session: Session) -> bool:
        rounds.append(session)
        if len(rounds) == 1:
            raise SystemExit
        processor.stop()
        return True

    monkeypatch.setattr(processor.loop.crew, "work", work)
    processor()
    assert len(rounds) == 2


def test_a_loop_claims_nothing_once_the_interpreter_is_ending(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.add("echo")
    processor = SimpleProcessor(workshop.db, workshop.path)
    ended = threading.Thread()
    monkeypatch.setattr(threading, "main_thread", lambda: ended)
    processor()
    assert not processor.running
    with workshop.service() as service:
        assert [job.status for job in service.jobs.values()] == [QUEUED]


@pytest.mark.parametrize("is_ending", [False, True])
def test_a_run_that_is_refused_as_the_interpreter_ends_is_no_attempt(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch, is_ending: bool
) -> None:
    def refuse(input: Any) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    register("refuse", refuse, retry=ONCE)
    jobid = workshop.add("refuse")
    [claim] = workshop.claim()
    if not is_ending:
        assert workshop.run(claim).status == ERROR
        return
    ended = threading.Thread()
    monkeypatch.setattr(threading, "main_thread", lambda: ended)
    with pytest.raises(Stopping):
        workshop.run(claim)
    workshop.engine.claims.give_back(workshop.session, [claim])
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)


def test_who_is_told_to_stop_takes_nothing_that_comes_afterwards(workshop: Any) -> None:
    workshop.is_stopping = True
    jobid = workshop.add("echo")
    assert workshop.claim() == []
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)
