# SPDX-License-Identifier: ZPL-2.1
"""Locks and limits: of the jobs that have one in common only so many run at once."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED, ITask
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.tree import MAX_JOB_ID


@pytest.fixture(autouse=True)
def tasks(register: Any) -> None:
    register("other", lambda input: input)

    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    register("stumble", lambda input: 1 / 0)


def add(workshop: Any, count: int, task: str = "echo", lock: str | None = "desk") -> list[int]:
    return [workshop.add(task, number, lock=lock) for number in range(count)]


def claimed(worker: Any, workshop: Any, limit: int = 10) -> list[int]:
    return [claim.jobid for claim in worker.claims.claim(workshop.session, limit)]


def problems(workshop: Any) -> list[str]:
    with workshop.service() as service:
        return [problem.text for problem in check_all(service, time.time(), repair=False)]


def check_books(workshop: Any) -> None:
    """Check that nothing is left when all jobs have ended."""
    workshop.claim(0)  # files what has ended
    assert problems(workshop) == []
    with workshop.service() as service:
        gates = service.queue.gates
        assert not list(gates.slots)
        assert not list(gates.lots)
        assert not any(len(index) for index in gates.aside.values())


def test_of_the_jobs_with_a_lock_one_is_claimed_at_a_time_and_in_order(workshop: Any) -> None:
    ids = add(workshop, 5)
    plain = workshop.add("echo")
    assert sorted(claimed(workshop.engine, workshop)) == sorted([ids[0], plain])
    assert claimed(workshop.new_engine(), workshop) == []
    with workshop.service() as service:
        assert not service.hasJobsWaiting(workshop.now)
        assert service.countJobs()[QUEUED] == 4
    for claim in list(workshop.engine.claims.in_hand.values()):
        workshop.run(claim)
    assert workshop.work() == ids[1:]
    check_books(workshop)


def test_jobs_with_other_locks_and_without_run_beside_it(workshop: Any) -> None:
    add(workshop, 2, lock="one")
    add(workshop, 2, lock="two")
    add(workshop, 2, lock=None)
    assert len(workshop.claim(10)) == 4


def test_a_lock_knows_no_task(workshop: Any) -> None:
    first = workshop.add("echo", lock="desk")
    workshop.add("other", lock="desk")
    assert claimed(workshop.engine, workshop) == [first]


def test_jobs_that_wait_for_a_lock_cost_claims_nothing(file_workshop: Any) -> None:
    add(file_workshop, 30)
    assert len(file_workshop.claim(10)) == 1
    before = file_workshop.count_transactions()
    rival = file_workshop.new_engine()
    assert claimed(rival, file_workshop) == []
    assert file_workshop.count_transactions() == before  # they were set aside by the first claim
    with file_workshop.service() as service:
        pulled = service.queue.pull(service.jobs, file_workshop.now)
        assert list(pulled) == []


def test_one_thread_takes_several_jobs_of_a_lock_to_run_them_in_turn(workshop: Any) -> None:
    ids = add(workshop, 5)
    workshop.engine.claims.runs_in_turn = True
    claims = workshop.claim(3)
    assert [claim.jobid for claim in claims] == ids[:3]
    assert claimed(workshop.new_engine(), workshop) == []  # which sets the others aside
    for claim in claims:
        workshop.run(claim)
    assert [claim.jobid for claim in workshop.claim(3)] == ids[3:]


def test_who_came_later_does_not_go_before_those_that_were_set_aside(workshop: Any) -> None:
    ids = add(workshop, 3)
    [claim] = workshop.claim()
    assert claimed(workshop.new_engine(), workshop) == []
    ids += add(workshop, 2)
    workshop.run(claim)
    worker = workshop.new_engine()
    worker.claims.runs_in_turn = True
    workshop.claim(0)
    assert claimed(worker, workshop) == ids[1:]


@pytest.mark.parametrize("start", [0.0, 0.3, 0.6, 0.9])
def test_workers_beside_each_other_keep_the_order_of_each_lock(workshop: Any, start: float) -> None:
    with workshop.service() as service:
        for number in range(60):
            service._v_next_id = 1 + number % 5 * (MAX_JOB_ID // 5) + number
            service.add("echo", number, lock=f"desk {number % 3}", priority=number % 2)
    with workshop.service() as service:
        pulled = [job.input for job in service.queue.pull(service.jobs, workshop.now, start)]
        for lock in range(3):
            for priority in range(2):
                numbers = [n for n in pulled if (n % 3, n % 2) == (lock, priority)]
                assert numbers == sorted(numbers)
        assert sorted(pulled) == list(range(60))


def test_the_next_job_can_be_claimed_although_its_holder_has_more_in_hand(workshop: Any) -> None:
    ids = add(workshop, 3)
    workshop.add("echo")
    first, _ = workshop.claim(2)
    assert first.jobid == ids[0]
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    workshop.run(first)
    assert claimed(rival, workshop) == [ids[1]]


@pytest.mark.parametrize("task", ["echo", "fail", "stumble"])
def test_whatever_a_run_comes_to_frees_the_lock(workshop: Any, task: str) -> None:
    first = workshop.add(task, lock="desk", retry=RetryPolicy(retry_on=(Exception,)))
    second = workshop.add("echo", lock="desk")
    assert workshop.step().jobid == first
    assert workshop.step().jobid == second
    workshop.now += 1000
    workshop.work()
    assert workshop.get(second, "status") == COMPLETED
    workshop.now += 10_000
    workshop.work()
    check_books(workshop)


def test_a_job_that_runs_again_waits_for_the_lock_again(workshop: Any) -> None:
    first = workshop.add("stumble", lock="desk", retry=RetryPolicy(retry_on=(Exception,)))
    second = workshop.add("echo", lock="desk")
    workshop.step()
    [claim] = workshop.claim()
    assert claim.jobid == second
    workshop.now += 1000
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    workshop.run(claim)
    workshop.claim(0)
    assert claimed(rival, workshop) == [first]


def test_what_is_given_back_keeps_its_place_in_the_order(workshop: Any) -> None:
    ids = add(workshop, 4)
    workshop.engine.claims.runs_in_turn = True
    workshop.claim(2)
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    workshop.engine.claims.leave(workshop.session, [])
    assert claimed(rival, workshop) == ids[:1]
    rival.claims.leave(workshop.session, [])
    last = workshop.new_engine()
    last.claims.runs_in_turn = True
    assert claimed(last, workshop) == ids


def test_the_lock_of_a_dead_worker_is_freed_with_its_jobs(workshop: Any) -> None:
    first, second = add(workshop, 2)
    workshop.claim()
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    with workshop.service() as service:
        rescue(service, workshop.engine.claims.identity.id, workshop.now)
    assert claimed(rival, workshop) == [second]
    assert workshop.get(first, "status", "deaths") == (QUEUED, 1)


def test_a_timeout_frees_the_lock(workshop: Any) -> None:
    _, second = add(workshop, 2)
    [claim] = workshop.claim()
    assert workshop.engine.execution.expire(workshop.session, claim, 1.0)
    assert claimed(workshop.engine, workshop) == [second]


def test_jobs_that_wait_for_a_lock_can_be_cancelled(workshop: Any) -> None:
    ids = add(workshop, 4)
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    with workshop.service() as service:
        service.cancel(ids[1])
        assert service.getStatus(ids[1]) == CANCELLED
        service.cancel(ids[0])
    workshop.run(claim)
    assert workshop.work() == ids[2:]
    check_books(workshop)


def test_the_turn_of_a_job_that_is_cancelled_is_the_next_ones(workshop: Any) -> None:
    ids = add(workshop, 4)
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    workshop.run(claim)
    workshop.claim(0)  # gives the turn to the second job
    with workshop.service() as service:
        service.cancel(ids[1])
    assert workshop.work() == ids[2:]


def test_the_turn_of_a_job_that_nobody_can_run_is_the_next_ones(workshop: Any) -> None:
    first = workshop.add("echo", lock="desk")
    second = workshop.add("other", lock="desk")
    third = workshop.add("echo", lock="desk")
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="other")
    workshop.run(claim)
    assert claim.jobid == first
    assert workshop.work() == [third]
    assert workshop.get(second, "waits_for") == "a worker that has the task 'other'"


def test_a_paused_task_keeps_no_lock(workshop: Any) -> None:
    first = workshop.add("other", lock="desk")
    second = workshop.add("echo", lock="desk")
    with workshop.service() as service:
        service.pause("other")
    assert workshop.work() == [second]
    with workshop.service() as service:
        service.resume("other")
    assert workshop.work() == [first]


def test_a_job_with_a_higher_priority_gets_the_lock_first(workshop: Any) -> None:
    ids = add(workshop, 3)
    [claim] = workshop.claim()
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    urgent = workshop.add("echo", lock="desk", priority=1)
    assert claimed(rival, workshop) == []
    workshop.run(claim)
    assert workshop.work() == [urgent, *ids[1:]]


def test_delayed_and_cron_jobs_wait_for_the_lock_when_their_time_has_come(workshop: Any) -> None:
    [held] = add(workshop, 1)
    delayed = workshop.add("echo", lock="desk", delay=50)
    cron = workshop.add_cron_job("echo", minute=(), lock="desk")
    [claim] = workshop.claim()
    assert claim.jobid == held
    workshop.now += 100
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    with workshop.service() as service:
        assert (service.countJobs()["delayed"], service.countJobs()["cronjob"]) == (1, 1)
        assert {job.id for job in service.list().jobs} == {held, delayed, cron}
        assert {job.id for job in service.list("delayed").jobs} == {delayed}
    assert problems(workshop) == []
    workshop.run(claim)
    assert workshop.work() == [delayed, cron]


def test_a_job_that_is_started_later_and_one_that_is_hurried_heed_the_lock(workshop: Any) -> None:
    later = workshop.add("echo", lock="desk", startLater=True)
    soon = workshop.add("echo", lock="desk", delay=1000)
    [held] = add(workshop, 1)
    [claim] = workshop.claim()
    assert claim.jobid == held
    with workshop.service() as service:
        service.startJob(later)
        service.run_now(soon)
    rival = workshop.new_engine()
    workshop.now += 5
    assert claimed(rival, workshop) == []
    workshop.run(claim)
    assert sorted(workshop.work()) == sorted([later, soon])


def test_a_job_says_for_which_lock_it_waits_and_who_has_it(workshop: Any) -> None:
    first, second, third = add(workshop, 3)
    assert workshop.get(first, "waits_for") is None
    workshop.claim()
    assert workshop.get(second, "waits_for") == f"the lock 'desk', after job {first}"
    assert workshop.get(third, "waits_for") == f"the lock 'desk', after job {first}"
    assert workshop.get(first, "waits_for") is None


def test_jobs_run_inline_heed_locks(workshop: Any) -> None:
    ids = add(workshop, 3)
    with workshop.service() as service:
        assert service.claimNextJob(workshop.now) == ids[0]
        assert service.claimNextJob(workshop.now) is None
        assert not service.processNext(workshop.now)
        assert service.processNext(workshop.now, ids[0])
        service.process(workshop.now)
        assert [service.getStatus(jobid) for jobid in ids] == [COMPLETED] * 3
    check_books(workshop)


def test_of_an_inline_run_and_a_claim_with_the_same_lock_one_commits(workshop: Any) -> None:
    add(workshop, 2)
    with pytest.raises(ConflictError), workshop.service() as service:  # noqa: PT012
        assert service.processNext(workshop.now)
        assert len(workshop.claim()) == 1


def test_of_two_claims_of_different_jobs_with_a_lock_one_commits(workshop: Any) -> None:
    first = workshop.add("echo", lock="desk")
    delayed = workshop.add("echo", lock="desk", delay=0)
    with pytest.raises(ConflictError), workshop.service() as service:  # noqa: PT012
        assert service.claimNextJob(workshop.now) in (first, delayed)
        assert len(workshop.claim()) == 1


def test_who_is_set_aside_while_the_holder_ends_is_not_forgotten(workshop: Any) -> None:
    first, second = add(workshop, 2)
    [claim] = workshop.claim()
    with suppress(ConflictError), workshop.service() as service:
        assert service.claimNextJob(workshop.now) is None  # sets the second job aside
        workshop.run(claim)
        workshop.claim(0)
    assert workshop.get(first, "status") == COMPLETED
    assert workshop.work() == [second]


def test_a_job_with_a_lock_or_a_limit_shares_no_commit(workshop: Any, register: Any) -> None:
    register("shared", lambda input: input, shared_commit=True)
    register("few", lambda input: input, shared_commit=True)
    with workshop.service() as service:
        service.limits = {"few": 1}
    workshop.add("shared", lock="desk")
    workshop.add("few")
    assert [claim.is_reserved for claim in workshop.reserve()] == [False, False]


def test_a_limit_that_is_set_while_a_job_is_reserved_is_kept(workshop: Any, register: Any) -> None:
    register("few", lambda input: input, shared_commit=True)
    for number in range(3):
        workshop.add("few", number)
    claims = workshop.reserve()
    with workshop.service() as service:
        service.limits = {"few": 1}
    assert workshop.run_together(claims) is None
    assert len(workshop.claim_reserved(claims)) == 1


# -- limits -----------------------------------------------------------------------------------


def limit(workshop: Any, **limits: int) -> None:
    with workshop.service() as service:
        service.limits = limits


def test_no_more_jobs_of_a_task_run_at_once_than_its_limit_says(workshop: Any) -> None:
    limit(workshop, echo=2)
    ids = add(workshop, 5, lock=None)
    other = add(workshop, 2, task="other", lock=None)
    claims = workshop.claim(10)
    assert sorted(claim.jobid for claim in claims) == sorted([*ids[:2], *other])
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    assert workshop.get(ids[2], "waits_for") == (
        f"the limit of the task 'echo', after jobs {ids[0]}, {ids[1]}"
    )
    workshop.run(claims[0])
    assert claimed(rival, workshop) == [ids[2]]
    for claim in claims[1:]:
        workshop.run(claim)
    assert workshop.work() == ids[3:]
    rival.claims.leave(workshop.session, [])
    assert workshop.work() == [ids[2]]
    check_books(workshop)


def test_what_one_thread_runs_in_turn_takes_one_place(workshop: Any) -> None:
    limit(workshop, echo=2)
    ids = add(workshop, 9, lock=None)
    workers = [workshop.new_engine() for _ in range(3)]
    for worker in workers:
        worker.claims.runs_in_turn = True
    taken = [claimed(worker, workshop, 3) for worker in workers]
    assert [len(jobids) for jobids in taken] == [3, 3, 0]
    assert set().union(*taken) <= set(ids)


def test_a_limit_counts_the_jobs_that_run_when_it_is_set(workshop: Any) -> None:
    ids = add(workshop, 4, lock=None)
    claims = workshop.claim(2)
    limit(workshop, echo=2)
    rival = workshop.new_engine()
    assert claimed(rival, workshop) == []
    workshop.run(claims[0])
    workshop.claim(0)
    assert claimed(rival, workshop) == [ids[2]]


def test_a_limit_can_be_raised_lowered_and_removed(workshop: Any) -> None:
    limit(workshop, echo=1)
    add(workshop, 12, lock=None)
    first = workshop.claim(10)
    assert len(first) == 1
    assert claimed(workshop.new_engine(), workshop) == []
    limit(workshop, echo=3)
    second = workshop.claim(10)
    assert len(second) == 2
    limit(workshop, echo=2)
    workshop.run(first[0])
    assert workshop.claim(10) == []
    workshop.run(second[0])
    assert len(workshop.claim(10)) == 1
    limit(workshop)
    assert len(workshop.claim(20)) == 8
    limit(workshop, echo=1)  # those that run count
    workshop.add("echo")
    assert workshop.claim(10) == []


def test_a_limit_that_is_removed_wakes_who_waits(workshop: Any) -> None:
    limit(workshop, echo=1)
    add(workshop, 3, lock=None)
    workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    with workshop.service() as service:
        assert not service.hasJobsWaiting(workshop.now)
        service.limits = {}
        assert service.hasJobsWaiting(workshop.now)


def test_a_job_needs_its_lock_and_a_place_below_the_limit(workshop: Any) -> None:
    limit(workshop, echo=2)
    with_lock = add(workshop, 2)
    without = add(workshop, 2, lock=None)
    other = workshop.add("other", lock="desk")
    claims = workshop.claim(10)
    assert {claim.jobid for claim in claims} == {with_lock[0], without[0]}
    workshop.run(next(claim for claim in claims if claim.jobid == without[0]))
    assert [claim.jobid for claim in workshop.claim(10)] == [without[1]]
    workshop.run(next(claim for claim in claims if claim.jobid == with_lock[0]))
    assert [claim.jobid for claim in workshop.claim(10)] == [with_lock[1]]
    assert workshop.get(other, "waits_for") == f"the lock 'desk', after job {with_lock[1]}"


def test_a_job_that_waits_for_a_limit_keeps_no_lock(workshop: Any) -> None:
    limit(workshop, echo=1)
    [claim] = workshop.claim() if add(workshop, 1, task="other") else []
    both = workshop.add("echo", lock="desk")
    third = workshop.add("other", lock="desk")
    [running] = workshop.claim(2) if workshop.add("echo") else []
    assert claimed(workshop.new_engine(), workshop) == []
    workshop.run(claim)
    assert workshop.work() == [third]
    assert (
        workshop.get(both, "waits_for") == f"the limit of the task 'echo', after job {running[0]}"
    )
    workshop.run(running)
    assert workshop.work() == [both]
    check_books(workshop)


def test_limits_that_make_no_sense_are_refused(service: TaskService) -> None:
    for limits in ({"echo": 0}, {"echo": None}, {"echo": True}, {1: 1}, 5, {"\ud800": 1}):
        with pytest.raises(InvalidArgument):
            service.limits = limits
    assert service.limits == {}
    service.limits["echo"] = 1
    assert service.limits == {}


# -- what has gone wrong --------------------------------------------------------------------


def test_a_job_that_nobody_lets_go_on_is_found_and_mended(workshop: Any) -> None:
    ids = add(workshop, 3)
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    with workshop.service() as service:  # its holder is gone, as by an undo
        service.queue.gates.slots.drop("\0lock desk")
    workshop.run(claim)
    workshop.claim(0)
    assert workshop.claim() == []
    assert problems(workshop) == ["it waits for a lock or a limit that nobody holds"]
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    assert workshop.work() == ids[1:]
    check_books(workshop)


def test_who_comes_to_a_lock_that_nobody_has_lets_those_go_first_that_wait(workshop: Any) -> None:
    ids = add(workshop, 3)
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    with workshop.service() as service:
        service.queue.gates.slots.drop("\0lock desk")
    workshop.run(claim)
    ids += add(workshop, 1)
    assert workshop.work() == ids[1:]


def test_a_job_that_waits_at_no_gate_although_it_says_so_is_mended(workshop: Any) -> None:
    first, second = add(workshop, 2)
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    with workshop.service() as service:
        job = service.jobs[second]
        place = job.place
        service.queue.gates.take_out(job, place)
    assert problems(workshop) == [f"it is {QUEUED}, but waits nowhere"]
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    workshop.run(claim)
    assert (claim.jobid, workshop.work()) == (first, [second])


def test_entries_of_jobs_that_are_gone_are_found_and_mended(workshop: Any) -> None:
    ids = add(workshop, 3)
    [claim] = workshop.claim()
    workshop.new_engine().claims.claim(workshop.session, 1)
    with workshop.service() as service:
        for jobid in ids[1:]:
            del service.jobs[jobid]
    assert len(problems(workshop)) == 4  # in two places each
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    workshop.run(claim)
    check_books(workshop)


def test_the_jobs_of_a_service_that_was_stored_without_gates_get_them(workshop: Any) -> None:
    with workshop.service() as service:
        assert {"gates", "keys", "levels", "limits", "expiring", "in_order"}.isdisjoint(
            vars(service.queue)
        )
    first, second = add(workshop, 2)
    assert workshop.work() == [first, second]
    assert workshop.get(first, "status") == COMPLETED
    assert workshop.get(second, "status") not in (ERROR, PROCESSING)
