# SPDX-License-Identifier: ZPL-2.1
"""Workers that race for the same jobs, and people who change jobs under their hands."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from ZODB.POSException import ConflictError, StorageError

from lovely.remotetask.engine.identity import Observer
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.engine.session import Session
from lovely.remotetask.interfaces import COMPLETED, PROCESSING
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy

pytestmark = pytest.mark.race


def test_rival_engines_never_claim_the_same_job(arena: Any) -> None:
    jobids = arena.add(300)
    claimed: list[int] = []
    barrier = threading.Barrier(4)

    def claim() -> None:
        engine = arena.engine()
        with arena.session() as session:
            barrier.wait()
            while claims := engine.claims.claim(session, 7):
                claimed.extend(claim.jobid for claim in claims)

    for _ in range(4):
        arena.spawn(claim)
    arena.join()
    assert sorted(claimed) == sorted(jobids)


def test_threads_of_one_engine_never_claim_the_same_job(arena: Any) -> None:
    jobids = arena.add(200)
    claimed: list[int] = []
    engine = arena.engine()

    def claim() -> None:
        with arena.session() as session:
            while claims := engine.claims.claim(session, 3):
                claimed.extend(claim.jobid for claim in claims)

    for _ in range(4):
        arena.spawn(claim)
    arena.join()
    assert sorted(claimed) == sorted(jobids)
    with arena.connected() as (_, root):
        (record,) = root["tasks"].workers.values()
        assert sorted(record.held) == sorted(jobids)


def test_a_claim_that_conflicts_loses_sight_of_no_job(arena: Any, until: Any) -> None:
    jobids = arena.add(30)
    engine, rival = arena.engine(), arena.engine()
    with arena.session() as session, arena.session() as other:
        commit, conflicts = session.commit, []

        def commit_late() -> None:
            if len(conflicts) < 3:
                conflicts.append(rival.claims.claim(other, 2))  # the very jobs this one has taken
            commit()

        session.commit = commit_late  # type: ignore[method-assign]
        claims = []
        while more := engine.claims.claim(session, 100):
            claims += more
    taken = [claim.jobid for claim in (*claims, *itertools.chain(*conflicts))]
    assert sorted(taken) == sorted(jobids)


@pytest.mark.parametrize("is_multi", [False, True])
def test_of_cancelling_and_running_exactly_one_wins(memory_arena: Any, is_multi: bool) -> None:
    arena = memory_arena
    races = 300
    arena.work(MultiProcessor if is_multi else SimpleProcessor)
    answers: dict[int, str] = {}
    ids: dict[int, int] = {}
    with arena.connected() as (manager, root):
        service = root["tasks"]
        for number in range(races):
            while True:
                manager.begin()
                jobid = service.add("count", number)
                with suppress(ConflictError):
                    manager.commit()
                    break
                manager.abort()
            ids[number] = jobid
            time.sleep(0.001 * (number % 4))
            while True:
                manager.begin()
                service.cancel(jobid)
                answers[number] = service.getStatus(jobid)
                with suppress(ConflictError):
                    manager.commit()
                    break
                manager.abort()
    arena.wait_until_done()
    arena.rest()
    effects, statuses = arena.effects(), arena.statuses()
    for number, jobid in ids.items():
        expected = {"cancelled": 0, "completed": 1}[statuses[jobid]]
        assert effects.get(number, 0) == expected, (number, answers[number], statuses[jobid])
        if answers[number] != PROCESSING:  # then it was asked to stop
            assert statuses[jobid] == answers[number]
    arena.check_books()
    arena.check_clean()


def test_started_and_rescheduled_jobs_run_once_beside_running_workers(arena: Any) -> None:
    arena.work()
    arena.work(MultiProcessor)
    with arena.transaction() as root:
        service = root["tasks"]
        later = [service.add("count", number, startLater=True) for number in range(40)]
        delayed = [service.addCronJob("count", 100 + n, delay=3600.0) for n in range(40)]

    def start() -> None:
        for jobid in later:
            arena.retried(lambda root, jobid=jobid: root["tasks"].startJob(jobid))

    def hasten() -> None:
        def change(root: Any, jobid: int) -> None:
            job = root["tasks"].jobs[jobid]
            if job.status == "delayed":
                job.update(delay=0.0)
                root["tasks"].reschedule(jobid)

        for jobid in delayed:
            arena.retried(lambda root, jobid=jobid: change(root, jobid))

    for body in (start, start, hasten, hasten):
        arena.spawn(body)
    arena.join()
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys([*range(40), *range(100, 140)], 1)
    arena.check_books()


def test_cleaning_beside_running_workers_removes_ended_jobs_only(arena: Any) -> None:
    arena.work()
    arena.work(MultiProcessor)
    is_over = threading.Event()

    def clean() -> None:
        while not is_over.wait(0.002):
            arena.retried(lambda root: root["tasks"].clean())

    cleaners = [arena.spawn(clean) for _ in range(2)]
    for start in range(0, 300, 10):
        arena.retried(
            lambda root, start=start: [
                root["tasks"].add("count", number) for number in range(start, start + 10)
            ]
        )
    arena.wait_until_done()
    is_over.set()
    for cleaner in cleaners:
        cleaner.join()
    arena.join()
    arena.rest()
    assert arena.effects() == dict.fromkeys(range(300), 1)
    arena.check_books()
    arena.check_clean()


def test_a_rescued_zombie_keeps_nothing(arena: Any, until: Any) -> None:
    (jobid,) = arena.add(1, "hang")
    zombie, rescuer = arena.engine(), arena.engine()
    outcomes = []

    def run() -> None:
        with arena.session() as session:
            (claim,) = zombie.claims.claim(session, 1)
            outcomes.append(zombie.execution.run(session, claim))

    arena.spawn(run)
    until(arena.entered.is_set)
    with arena.session() as session:
        assert arena.rescue(rescuer, session, zombie) == 1
        (claim,) = rescuer.claims.claim(session, 1)
        arena.gate.set()
        arena.join()
        assert outcomes[0].status is None
        assert arena.effects() == {}
        assert rescuer.execution.run(session, claim).status == COMPLETED
    assert arena.effects() == {0: 1}
    assert arena.statuses() == {jobid: COMPLETED}


def test_a_zombie_that_writes_first_is_not_rescued(arena: Any) -> None:
    arena.add(1)
    worker, rescuer = arena.engine(), arena.engine()
    with arena.session() as session, arena.session() as other:
        (claim,) = worker.claims.claim(session, 1)
        service = other.begin()
        rescue(service, worker.claims.identity.id, time.time())
        worker.claims.beat(session)  # shows its life between the rescuer's look and its commit
        with pytest.raises(ConflictError):
            other.manager.commit()
        other.abort()
        assert worker.execution.run(session, claim).status == COMPLETED
    assert arena.effects() == {0: 1}
    assert rescuer.claims.identity.id != worker.claims.identity.id


def test_a_worker_that_beats_is_alive_in_the_eyes_of_others(memory_arena: Any) -> None:
    arena = memory_arena
    arena.add(1)
    worker, observer = arena.engine(), Observer()
    with arena.session() as session, arena.session() as other:
        worker.claims.claim(session, 1)
        for second in range(5):
            service = other.begin()
            assert observer.dead(service.workers, 2.0, float(second)) == []
            worker.claims.beat(session)
        service = other.begin()
        for now in (5.0, 6.0):
            assert observer.dead(service.workers, 2.0, now) == []
        [(dead, _)] = observer.dead(service.workers, 2.0, 7.0)
        assert dead == worker.claims.identity.id


def test_of_rescue_and_the_end_of_the_job_exactly_one_wins(arena: Any) -> None:
    for number in range(30):
        arena.add(1, start=number)
        worker, rescuer = arena.engine(), arena.engine()
        barrier = threading.Barrier(2)
        with arena.session() as session:
            (claim,) = worker.claims.claim(session, 1)
            outcomes: list[Any] = []

            def run(
                worker: Any = worker,
                claim: Any = claim,
                barrier: Any = barrier,
                outcomes: Any = outcomes,
            ) -> None:
                with arena.session() as session:
                    barrier.wait()
                    outcomes.append(worker.execution.run(session, claim).status)

            arena.spawn(run)
            barrier.wait()
            time.sleep(0.0002 * (number % 10))
            freed = arena.rescue(rescuer, session, worker)
            arena.join()
            assert (outcomes, freed) in (([COMPLETED], 0), ([None], 1))
            for claim in rescuer.claims.claim(session, 10):
                rescuer.execution.run(session, claim)
            arena.give_up(rescuer, session)
    assert arena.effects() == dict.fromkeys(range(30), 1)
    arena.check_books()


def test_of_two_rescuers_one_frees_the_jobs(arena: Any) -> None:
    arena.add(10)
    dead = arena.engine()
    with arena.session() as session:
        dead.claims.claim(session, 10)
    freed: list[int] = []
    barrier = threading.Barrier(4)

    def save() -> None:
        with arena.session() as session:
            barrier.wait()
            freed.append(arena.rescue(arena.engine(), session, dead))

    for _ in range(4):
        arena.spawn(save)
    arena.join()
    assert sorted(freed) == [0, 0, 0, 10]
    with arena.connected() as (_, root):
        assert {job.deaths for job in root["tasks"].jobs.values()} == {1}


@pytest.mark.parametrize("unanswered", [1, 2])
def test_a_claim_whose_answer_was_lost_loses_no_job(
    memory_arena: Any, lose_the_reply: Any, unanswered: int
) -> None:
    arena = memory_arena
    arena.add(10)
    engine = arena.engine()
    session = Session(arena.db, arena.path)
    lose_the_reply(*[StorageError("the answer was lost")] * unanswered)
    while claims := engine.claims.claim(session, 4):
        for claim in claims:
            engine.execution.run(session, claim)
    arena.give_up(engine, session)
    session.close()
    with arena.session() as session:
        engine = arena.engine()
        while claims := engine.claims.claim(session, 4):  # what may have been given back
            for claim in claims:
                engine.execution.run(session, claim)
        arena.give_up(engine, session)
    assert arena.effects() == dict.fromkeys(range(10), 1)
    arena.check_books()


def test_an_end_whose_answer_was_lost_is_the_end(memory_arena: Any, lose_the_reply: Any) -> None:
    arena = memory_arena
    arena.add(3)
    engine = arena.engine()
    session = Session(arena.db, arena.path)
    for claim in engine.claims.claim(session, 10):
        lose_the_reply(StorageError("the answer was lost"))
        engine.execution.run(session, claim)
    arena.give_up(engine, session)
    session.close()
    assert arena.effects() == dict.fromkeys(range(3), 1)
    assert set(arena.statuses().values()) == {COMPLETED}
    arena.check_books()


def test_the_end_of_a_lost_run_does_not_let_go_of_the_next_one(
    memory_arena: Any, until: Any
) -> None:
    # One worker loses a job, gets it again, and only then the first run ends.
    arena = memory_arena
    (jobid,) = arena.add(1, "hang")
    worker = arena.engine()

    def run() -> None:
        with arena.session() as session:
            (claim,) = worker.claims.claim(session, 1)
            worker.execution.run(session, claim)

    arena.spawn(run)
    until(arena.entered.is_set)
    with arena.session() as session:
        arena.rescue(arena.engine(), session, worker)
        (claim,) = worker.claims.claim(session, 1)
        arena.gate.set()
        arena.join()
        (other,) = arena.add(1, start=1)
        claims = worker.claims.claim(session, 1)
        service = session.begin()
        assert jobid in service.workers[worker.claims.identity.id].held, (
            "a death would lose the job"
        )
        session.abort()
        assert [following.jobid for following in claims] == [other], "the job would run twice"
        worker.execution.run(session, claim)
        worker.execution.run(session, claims[0])
        arena.give_up(worker, session)
    assert arena.effects() == {0: 1, 1: 1}
    arena.check_books()


def test_a_request_to_cancel_survives_a_run_that_fails_at_that_moment(
    memory_arena: Any, register: Any
) -> None:
    arena = memory_arena
    runs: list[int] = []

    def fail(input: int) -> None:
        runs.append(input)
        with arena.transaction() as root:  # somebody else, while it runs
            root["tasks"].cancel(jobid)
            assert root["tasks"].jobs[jobid].is_cancel_requested or len(runs) > 1
        raise ValueError(input)

    policy = RetryPolicy(attempts=5, first_wait_seconds=0.0)
    register("fail", fail, retry=policy)
    with arena.transaction() as root:
        jobid = root["tasks"].add("fail", 1)
    engine = arena.engine()
    with arena.session() as session:
        while claims := engine.claims.claim(session, 1):
            for claim in claims:
                engine.execution.run(session, claim)
    assert arena.statuses() == {jobid: "cancelled"}
    assert runs == [1]


def test_a_request_to_cancel_is_not_dropped_by_a_worker_that_lost_the_job(
    memory_arena: Any,
) -> None:
    arena = memory_arena
    (jobid,) = arena.add(1)
    zombie, rescuer = arena.engine(), arena.engine()
    with arena.session() as session, arena.session() as other:
        (lost,) = zombie.claims.claim(session, 1)
        arena.rescue(rescuer, other, zombie)
        (claim,) = rescuer.claims.claim(other, 1)
        arena.add(1, start=1)
        zombie.claims.claim(session, 1)  # its new record still names the job that it has lost
        with arena.transaction() as root:
            root["tasks"].cancel(jobid)
            assert root["tasks"].jobs[jobid].is_cancel_requested
        zombie.execution.run(session, lost)
        zombie.claims.claim(session, 1)
        assert rescuer.execution.run(other, claim).status == "cancelled"


def test_every_ended_job_of_many_threads_is_filed(memory_arena: Any) -> None:
    arena = memory_arena
    processor = arena.work(MultiProcessor, maxThreads=4)
    for start in range(0, 200, 20):
        arena.retried(
            lambda root, start=start: [root["tasks"].add("count", start + n) for n in range(20)]
        )
    arena.wait_until_done()
    processor.stop()
    arena.rest()
    assert PROCESSING not in arena.statuses().values()
    arena.check_books()
    arena.check_clean()
