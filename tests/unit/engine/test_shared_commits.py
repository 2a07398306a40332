# SPDX-License-Identifier: ZPL-2.1
"""Jobs that share a commit: they are reserved, run together, and else claimed one by one."""

from __future__ import annotations

from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    ERROR,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
)
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import TaskContext

AT_ONCE = RetryPolicy(first_wait_seconds=0)


@pytest.fixture
def share(register: Any) -> list[Any]:
    """Register a task whose jobs share commits; return the inputs it is called with."""
    calls: list[Any] = []

    def share(context: TaskContext, input: Any) -> Any:
        root = context.service._p_jar.root()
        root["written"] = root.get("written", 0) + 1
        calls.append(input)
        return input

    register("share", share, context=True, shared_commit=True)
    return calls


def written(workshop: Any) -> Any:
    with workshop.transaction() as root:
        return root.get("written")


def check_books(workshop: Any) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def add(workshop: Any, count: int) -> list[int]:
    return [workshop.add("share", number) for number in range(count)]


def records(workshop: Any, jobids: list[int]) -> list[bytes]:
    with workshop.service() as service:
        return [job._p_serial for job in map(service.jobs.__getitem__, jobids) if job.status]


def run_one_by_one(workshop: Any, claims: list[Any]) -> None:
    """Do what the processor does when a shared transaction has failed."""
    for claim in workshop.claim_reserved(claims):
        workshop.run(claim)


# -- all is well -------------------------------------------------------------------------------


def test_jobs_that_declare_it_share_a_transaction(file_workshop: Any, share: Any) -> None:
    added = add(file_workshop, 5)
    claims = file_workshop.reserve()
    before = file_workshop.count_transactions()
    outcomes = file_workshop.run_together(claims)
    assert file_workshop.count_transactions() == before + 1
    assert [(outcome.jobid, outcome.status) for outcome in outcomes] == [
        (jobid, COMPLETED) for jobid in added
    ]
    assert [file_workshop.get(jobid, "output") for jobid in added] == [0, 1, 2, 3, 4]
    assert {file_workshop.get(jobid, "attempt") for jobid in added} == {1}
    assert file_workshop.engine.claims.in_hand == {}
    file_workshop.claim()
    check_books(file_workshop)


def test_their_records_are_written_once_when_they_have_run(workshop: Any, share: Any) -> None:
    added = add(workshop, 3)
    before = records(workshop, added)
    claims = workshop.reserve()
    assert records(workshop, added) == before
    assert {workshop.get(jobid, "status", "attempt") for jobid in added} == {(QUEUED, 0)}
    with workshop.service() as service:
        [worker] = service.workers.values()
        assert list(worker.held) == added
        assert service.countJobs()[QUEUED] == 3
    check_books(workshop)
    workshop.run_together(claims)
    assert len(set(records(workshop, added))) == 1


def test_a_task_that_shares_sees_its_own_job_processing(workshop: Any, register: Any) -> None:
    seen = []

    def look(context: TaskContext, input: Any) -> None:
        job = context.service.jobs[context.jobid]
        seen.append((job.status, job.attempt, context.attempt))

    register("share", look, context=True, shared_commit=True)
    workshop.add("share")
    workshop.run_together(workshop.reserve())
    assert seen == [(PROCESSING, 1, 1)]


def test_reserved_jobs_run_in_their_order_between_others(workshop: Any, share: Any) -> None:
    kinds = ["share", "share", "echo", "share"]
    added = [workshop.add(kind) for kind in kinds]
    claims = workshop.reserve()
    assert [claim.jobid for claim in claims] == added
    assert [claim.is_reserved for claim in claims] == [True, True, False, True]


# -- what is reserved is nobody else's -----------------------------------------------------------


def test_reserved_jobs_are_not_reserved_again(workshop: Any, share: Any) -> None:
    added = add(workshop, 4)
    first = workshop.reserve(2)
    second = workshop.reserve(2)
    assert [claim.jobid for claim in first + second] == added
    assert workshop.reserve() == []


def test_other_workers_reserve_other_jobs(workshop: Any, share: Any) -> None:
    added = add(workshop, 4)
    workshop.reserve(2)
    workshop.engine = workshop.new_engine()
    assert [claim.jobid for claim in workshop.reserve()] == added[2:]


def test_a_job_that_ends_while_another_claim_has_begun_is_not_reserved_anew(
    workshop: Any, share: Any
) -> None:
    add(workshop, 1)
    claims = workshop.reserve()
    begin = workshop.session.begin

    def begin_and_let_them_end() -> Any:
        service = begin()
        workshop.session.begin = begin
        with workshop.engine.claims.open_beside() as session:
            assert workshop.engine.execution.run_together(session, claims)
        return service

    workshop.session.begin = begin_and_let_them_end
    assert workshop.reserve() == []
    assert written(workshop) == 1


@pytest.mark.parametrize("waits", ["cancelled", "removed", "claimed"])
def test_what_was_taken_away_is_not_run(workshop: Any, share: list[Any], waits: str) -> None:
    first, second = add(workshop, 2)
    claims = workshop.reserve()
    with workshop.service() as service:
        match waits:
            case "cancelled":
                service.cancel(first)
                assert service.getStatus(first) == CANCELLED
            case "removed":
                service.cancel(first)
                service.clean()
            case "claimed":
                job = service.jobs[first]
                service.queue.remove(job)
                job.start("somebody else", workshop.now)
    assert workshop.run_together(claims) is None
    assert [claim.jobid for claim in workshop.claim_reserved(claims)] == [second]
    assert set(workshop.engine.claims.in_hand) == {second}


def test_of_a_shared_commit_and_a_cancelling_meanwhile_one_wins(
    workshop: Any, register: Any
) -> None:
    def share(input: Any) -> None:
        with workshop.service() as service:
            service.cancel(jobid)
            assert service.getStatus(jobid) == CANCELLED

    register("share", share, shared_commit=True)
    jobid = workshop.add("share")
    claims = workshop.reserve()
    assert workshop.run_together(claims) is None
    assert workshop.get(jobid, "status") == CANCELLED
    assert workshop.claim_reserved(claims) == []
    workshop.claim()
    check_books(workshop)


@pytest.mark.parametrize("step", ["claim_reserved", "give_back"])
def test_a_job_that_another_worker_has_run_is_left_to_that_one_to_file(
    workshop: Any, share: Any, step: str
) -> None:
    _, waiting = add(workshop, 2)
    first = workshop.engine
    claims = workshop.reserve()
    workshop.engine = workshop.new_engine()
    workshop.engine.claims._reserved = lambda service, held: {
        waiting
    }  # both claim at the same moment
    rival = workshop.reserve()
    with first.claims.open_beside() as session:
        assert first.execution.run_together(session, claims[:1])
    assert workshop.run_together(rival) is None
    begin = workshop.session.begin

    def begin_and_let_it_be_filed_and_removed() -> Any:
        service = begin()
        assert len(service.jobs) == 2
        workshop.session.begin = begin
        with first.claims.open_beside() as session:
            first.claims.claim(session, 0)
        with workshop.service() as other:
            other.clean()
        return service

    workshop.session.begin = begin_and_let_it_be_filed_and_removed
    getattr(workshop.engine.claims, step)(workshop.session, rival)
    with workshop.service() as service:
        assert list(service.jobs) == [waiting]
        assert service.countJobs()[COMPLETED] == 0
        assert list(service.workers) == [first.claims.identity.id]
    check_books(workshop)


# -- one of them fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["raise", "abort", "conflict", "unstorable", "exit"])
def test_if_one_of_them_fails_nothing_of_any_is_kept(
    file_workshop: Any, register: Any, ending: str
) -> None:
    def share(context: TaskContext, input: int) -> Any:
        root = context.service._p_jar.root()
        root["written"] = root.get("written", 0) + 1
        if input == 2:
            match ending:
                case "raise":
                    raise TaskError("no")
                case "abort":
                    transaction.abort()
                case "conflict":
                    raise ConflictError("no")
                case "exit":
                    raise SystemExit
                case "unstorable":
                    return lambda: None
        return None

    register("share", share, context=True, shared_commit=True, retry=RetryPolicy(attempts=1))
    added = add(file_workshop, 4)
    claims = file_workshop.reserve()
    before = file_workshop.count_transactions()
    assert file_workshop.run_together(claims) is None
    assert file_workshop.count_transactions() == before
    assert written(file_workshop) is None
    assert {file_workshop.get(jobid, "status", "attempt") for jobid in added} == {(QUEUED, 0)}
    run_one_by_one(file_workshop, claims)
    statuses = [file_workshop.get(jobid, "status") for jobid in added]
    ended = QUEUED if ending == "conflict" else ERROR  # a conflict is no failure
    assert statuses == [COMPLETED, COMPLETED, ended, COMPLETED]
    attempts = {file_workshop.get(jobid, "attempt") for jobid in added}
    assert attempts == ({0, 1} if ending == "conflict" else {1})
    assert written(file_workshop) == 3
    file_workshop.claim()
    check_books(file_workshop)


def test_what_has_failed_before_is_not_reserved(workshop: Any, register: Any) -> None:
    register("share", lambda input: 1 / 0, shared_commit=True, retry=AT_ONCE)
    workshop.add("share")
    run_one_by_one(workshop, workshop.reserve())
    [claim] = workshop.reserve()
    assert not claim.is_reserved


def test_jobs_with_a_timeout_are_not_reserved(workshop: Any, register: Any) -> None:
    register("share", lambda input: input, shared_commit=True, timeout_seconds=5)
    workshop.add("share")
    assert not workshop.reserve()[0].is_reserved


def test_single_steps_reserve_nothing(workshop: Any, share: Any) -> None:
    [jobid] = add(workshop, 1)
    [claim] = workshop.claim()
    assert not claim.is_reserved
    assert workshop.get(jobid, "status", "attempt") == (PROCESSING, 1)


# -- deaths, goodbyes, lost replies --------------------------------------------------------------


def die(workshop: Any) -> int:
    dead = workshop.engine.claims.identity.id
    workshop.engine = workshop.new_engine()
    return workshop.engine.upkeep.free(workshop.session, [dead])


def test_the_death_of_a_process_counts_for_what_it_had_reserved(workshop: Any, share: Any) -> None:
    added = add(workshop, 3)
    workshop.reserve()
    assert die(workshop) == 3
    assert {workshop.get(jobid, "status", "attempt", "deaths") for jobid in added} == {
        (QUEUED, 1, 1)
    }
    check_books(workshop)
    for jobid in added:  # each alone, so that the next death tells which one it was
        [claim] = workshop.reserve()
        assert (claim.jobid, claim.is_reserved) == (jobid, False)
        workshop.run(claim)
    workshop.claim()
    assert written(workshop) == 3
    check_books(workshop)


def test_a_job_that_kills_its_process_again_and_again_is_given_up(
    workshop: Any, share: Any
) -> None:
    killer, innocent = add(workshop, 2)
    while workshop.get(killer, "status") not in FINAL_STATUSES:
        claims = workshop.reserve()
        if [claim.jobid for claim in claims] == [innocent]:
            workshop.run(claims[0])
        else:
            die(workshop)
        workshop.now += 10
    assert workshop.get(killer, "status", "attempt") == (ERROR, 3)
    assert workshop.get(innocent, "status") == COMPLETED


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_worker_that_was_taken_for_dead_keeps_nothing_of_what_it_reserved(
    workshop: Any, register: Any, when: str
) -> None:
    calls = []

    def zombie(context: TaskContext, input: Any) -> None:
        root = context.service._p_jar.root()
        root["written"] = root.get("written", 0) + 1
        calls.append(input)
        if when == "while" and len(calls) == 2:
            with workshop.engine.claims.open_beside() as session:
                workshop.new_engine().upkeep.free(session, [workshop.engine.claims.identity.id])

    register("share", zombie, context=True, shared_commit=True)
    added = add(workshop, 3)
    claims = workshop.reserve()
    if when == "before":
        workshop.new_engine().upkeep.free(workshop.session, [workshop.engine.claims.identity.id])
    assert workshop.run_together(claims) is None
    assert workshop.claim_reserved(claims) == []
    assert workshop.engine.claims.in_hand == {}
    assert {workshop.get(jobid, "status", "deaths") for jobid in added} == {(QUEUED, 1)}
    assert sorted(workshop.work()) == sorted(added)
    assert written(workshop) == 3
    check_books(workshop)


def test_a_worker_that_was_taken_for_dead_can_claim_what_it_reserved_if_that_is_free(
    workshop: Any, share: Any
) -> None:
    # Its record is gone, but nobody has touched the job: so it is written anew.
    [jobid] = add(workshop, 1)
    claims = workshop.reserve()
    with workshop.service() as service:
        del service.workers[workshop.engine.claims.identity.id]
    [claim] = workshop.claim_reserved(claims)
    with workshop.service() as service:
        assert service.workers[workshop.engine.claims.identity.id].held == (jobid,)
    assert workshop.run(claim).status == COMPLETED


def test_what_was_reserved_is_given_back_without_a_trace(workshop: Any, share: Any) -> None:
    added = add(workshop, 3)
    before = records(workshop, added)
    claims = workshop.reserve()
    workshop.engine.claims.give_back(workshop.session, claims)
    assert records(workshop, added) == before
    assert workshop.engine.claims.in_hand == {}
    with workshop.service() as service:
        assert not service.workers
    workshop.engine = workshop.new_engine()
    assert [claim.jobid for claim in workshop.reserve()] == added


def test_a_reservation_whose_reply_is_lost_is_made_again(
    workshop: Any, share: Any, lose_the_reply: Any
) -> None:
    added = add(workshop, 3)
    lose_the_reply()
    done = []
    while claims := workshop.reserve(2):
        done += [outcome.jobid for outcome in workshop.run_together(claims)]
    assert sorted(done) == added
    assert written(workshop) == 3
    check_books(workshop)


def test_a_shared_commit_whose_reply_is_lost_is_the_end_of_its_jobs(
    workshop: Any, share: Any, lose_the_reply: Any
) -> None:
    added = add(workshop, 3)
    claims = workshop.reserve()
    lose_the_reply()
    assert workshop.run_together(claims) is None
    assert workshop.claim_reserved(claims) == []
    assert {workshop.get(jobid, "status") for jobid in added} == {COMPLETED}
    assert written(workshop) == 3
    assert workshop.reserve() == []
    with workshop.service() as service:
        assert service.countJobs()[COMPLETED] == 3
    check_books(workshop)


def test_where_there_is_room_for_some_the_others_wait(
    workshop: Any, register: Any, little_room: list[int]
) -> None:
    register("share", lambda input: "x" * input, shared_commit=True)
    big, small = workshop.add("share", 20_000), workshop.add("share", 5)
    claims = workshop.reserve()
    assert workshop.run_together(claims) is None
    run_one_by_one(workshop, claims)
    assert workshop.get(small, "status", "attempt") == (COMPLETED, 1)
    assert workshop.get(big, "status", "attempt", "errors") == (QUEUED, 0, 0)
    little_room.clear()
    workshop.now += 1.0
    workshop.work()
    assert workshop.get(big, "status", "attempt") == (COMPLETED, 1)
    workshop.claim()
    check_books(workshop)
