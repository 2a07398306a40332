# SPDX-License-Identifier: ZPL-2.1
"""Jobs that wait for others: ``after``."""

from __future__ import annotations

import time
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from lovely.remotetask.engine.filing import retire_jobs
from lovely.remotetask.engine.following import MAX_AFTER
from lovely.remotetask.errors import InvalidArgument, JobNotFound, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.job import CronJob
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.links import LINK_RUN
from lovely.remotetask.store.lots import AWAITING


@pytest.fixture(autouse=True)
def moods(register: Any) -> list[str]:
    """The task *moody*, which fails for good as long as something is in this list."""
    moods: list[str] = []

    def moody(input: Any) -> Any:
        if moods:
            raise TaskError(moods[-1])
        return input

    register("moody", moody)
    return moods


def check(place: Any) -> None:
    with place.service() as service:
        assert check_all(service, time.time(), repair=False) == []


def chain(workshop: Any, count: int, task: str = "moody") -> list[int]:
    """Add jobs, each after the one before, in one transaction."""
    jobids: list[int] = []
    with workshop.service() as service:
        for number in range(count):
            jobids.append(service.add(task, number, after=jobids[-1:]))
    return jobids


# -- waiting -----------------------------------------------------------------------------------


def test_a_chain_runs_in_its_order(workshop: Any) -> None:
    jobids = chain(workshop, 5)
    check(workshop)
    assert workshop.work() == jobids
    assert {workshop.get(jobid, "status") for jobid in jobids} == {COMPLETED}
    check(workshop)


def test_one_that_waits_is_queued_and_says_for_whom(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    assert workshop.get(second, "status", "after", "awaits") == (QUEUED, (first,), (first,))
    with workshop.service() as service:
        assert service.countJobs()[QUEUED] == 2
        assert {job.id for job in service.list(QUEUED).jobs} == {first, second}
    workshop.work()
    assert workshop.get(second, "after", "awaits") == ((first,), ())


def test_nobody_finds_it_while_it_waits(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    [claim] = workshop.claim(10)
    with workshop.service() as service:
        assert not service.hasJobsWaiting(workshop.now)
        assert list(service.queue.pull(service.jobs, workshop.now)) == []
    assert claim.jobid == first
    assert workshop.claim(10) == []
    workshop.run(claim)
    assert [claim.jobid for claim in workshop.claim(10)] == [second]


@pytest.mark.parametrize("step", ["waiting", "running", "ended", "filed"])
def test_it_can_be_added_later_than_what_it_waits_for(workshop: Any, step: str) -> None:
    first = workshop.add("moody")
    claims = workshop.claim() if step != "waiting" else []
    if step in ("ended", "filed"):
        workshop.run(claims.pop())
    if step == "filed":
        workshop.claim(0)
    second = workshop.add("moody", after=first)
    check(workshop)
    assert workshop.get(second, "awaits") == (() if step in ("ended", "filed") else (first,))
    for claim in claims:
        workshop.run(claim)
    workshop.work()
    assert workshop.get(second, "status") == COMPLETED
    check(workshop)


def test_it_waits_for_all_that_are_named(workshop: Any) -> None:
    jobids = [workshop.add("moody", number) for number in range(3)]
    last = workshop.add("moody", after=[*jobids, jobids[0]])
    assert workshop.get(last, "after") == tuple(jobids)
    assert workshop.work()[-1] == last
    check(workshop)


def test_many_can_wait_for_one(workshop: Any) -> None:
    with workshop.service() as service:
        first = service.add("moody")
        with_it = {service.add("moody", after=first) for _ in range(20)}
    later = {workshop.add("moody", after=first) for _ in range(20)}
    ran = workshop.work()
    assert ran[0] == first
    assert set(ran[1:]) == with_it | later
    check(workshop)


def test_a_task_can_let_jobs_wait_for_its_own_one(workshop: Any, register: Any) -> None:
    added: list[int] = []

    def begin(context: Any, input: Any) -> None:
        added.append(context.service.add("moody", after=context.jobid))

    register("begin", begin, context=True)
    first = workshop.add("begin")
    assert workshop.work() == [first, added[-1]]
    with workshop.service() as service:
        own = service.add("begin")
        service.process()
        assert service.getStatus(own) == service.getStatus(added[-1]) == COMPLETED
    check(workshop)


def test_an_inline_call_runs_a_chain(service: Any) -> None:
    first = service.add("moody")
    second = service.add("moody", after=first)
    third = service.add("moody", after=(first, second))
    service.process()
    assert [service.getStatus(jobid) for jobid in (first, second, third)] == [COMPLETED] * 3


def test_jobs_that_share_a_commit_are_waited_for(workshop: Any, register: Any) -> None:
    register("shared", lambda input: input, shared_commit=True)
    with workshop.service() as service:
        jobids = service.add_many("shared", range(3))
        last = service.add("shared", after=jobids)
    claims = workshop.reserve()
    assert {claim.jobid for claim in claims} == set(jobids)
    late = workshop.add("shared", after=jobids[0])
    assert workshop.run_together(claims) is not None
    assert set(workshop.work()) == {last, late}


def test_it_starts_although_its_predecessor_was_removed_since(workshop: Any) -> None:
    first, other = workshop.add("moody"), workshop.add("moody", delay=3600.0)
    last = workshop.add("moody", after=(first, other))
    workshop.work()
    with workshop.service() as service:
        service.clean()
        assert first not in service.jobs
    workshop.now += 3600.0
    assert workshop.work() == [other, last]


def test_a_predecessor_that_is_cleaned_before_it_is_filed_is_told_of(workshop: Any) -> None:
    _, second = chain(workshop, 2)
    workshop.step()
    with workshop.service() as service:
        service.clean()
    assert workshop.work() == [second]


def test_a_predecessor_that_is_tried_again_has_not_ended(workshop: Any, register: Any) -> None:
    def stumble(input: Any) -> None:
        raise ValueError("not yet")

    register("moody", stumble)
    _, second = chain(workshop, 2)
    workshop.step()
    assert workshop.claim(10) == []
    assert workshop.get(second, "status") == QUEUED


def test_a_dead_worker_is_no_end(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    dead = workshop.new_engine()
    assert dead.claims.claim(workshop.session, 1)
    late = workshop.add("moody", after=first)
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    workshop.now += 60.0
    assert workshop.work()[0] == first
    assert {workshop.get(jobid, "status") for jobid in (second, late)} == {COMPLETED}


def test_a_worker_that_dies_before_it_files_leaves_nobody_waiting(workshop: Any) -> None:
    _, second = chain(workshop, 2)
    dead = workshop.new_engine()
    [claim] = dead.claims.claim(workshop.session, 1)
    dead.execution.run(workshop.session, claim)
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    assert workshop.work() == [second]
    check(workshop)


# -- predecessors that fail -----------------------------------------------------------------------


def test_an_error_lets_all_that_follow_fail(workshop: Any, moods: list[str]) -> None:
    jobids = chain(workshop, 4)
    moods.append("no")
    assert workshop.work() == jobids[:1]
    assert {workshop.get(jobid, "status") for jobid in jobids} == {ERROR}
    error = workshop.get(jobids[1], "error")
    assert f"job {jobids[0]}, task moody, which was to be completed first, is error: no" in error
    assert f"job {jobids[2]}" in workshop.get(jobids[3], "error")
    with workshop.service() as service:
        assert service.countJobs()[ERROR] == 4
    check(workshop)


def test_the_error_names_the_predecessor_and_the_cause_however_long_the_chain(
    workshop: Any, moods: list[str]
) -> None:
    jobids = chain(workshop, 12)
    moods.append("no")
    workshop.work()
    late = workshop.add("moody", after=jobids[-1])
    for jobid, before in ((jobids[-1], jobids[-2]), (late, jobids[-1])):
        assert workshop.get(jobid, "error") == (
            f"job {before}, task moody, which was to be completed first, is error: "
            f"job {jobids[0]}, task moody, which was to be completed first, is error: no"
        )


def test_a_cancelled_predecessor_lets_it_fail_at_once(workshop: Any) -> None:
    jobids = chain(workshop, 3)
    late = workshop.add("moody", after=jobids[0])
    with workshop.service() as service:
        service.cancel(jobids[0])
    for jobid in (*jobids[1:], late):
        assert workshop.get(jobid, "status") == ERROR
    assert "is cancelled" in workshop.get(late, "error")
    check(workshop)


def test_what_is_cancelled_while_it_runs_lets_it_fail(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    [claim] = workshop.claim()
    with workshop.service() as service:
        service.cancel(first)
    workshop.run(claim)
    workshop.claim()
    assert workshop.get(first, "status") == CANCELLED
    assert workshop.get(second, "status") == ERROR


def test_deaths_without_end_let_it_fail(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    with workshop.service() as service:
        service.max_deaths = 1
    dead = workshop.new_engine()
    dead.claims.claim(workshop.session, 1)
    late = workshop.add("moody", after=first)
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    for jobid in (second, late):
        assert workshop.get(jobid, "status") == ERROR


def test_its_own_on_error_is_added(workshop: Any, moods: list[str], register: Any) -> None:
    causes = []
    register("tell", lambda context, input: causes.append(context.job.cause), context=True)
    with workshop.service() as service:
        first = service.add("moody")
        second = service.add("moody", after=first, on_error="tell")
    moods.append("no")
    workshop.work()  # its last claim lets the second one fail, and adds what follows
    workshop.work()
    assert causes == [second]


def test_one_that_has_failed_already_lets_it_fail_when_it_is_added(
    workshop: Any, moods: list[str], register: Any
) -> None:
    causes = []
    register("tell", lambda context, input: causes.append(context.job.cause), context=True)
    moods.append("no")
    first = workshop.add("moody")
    workshop.work()
    second = workshop.add("moody", after=first, on_error="tell")
    assert workshop.get(second, "status", "place") == (ERROR, None)
    assert str(first) in workshop.get(second, "error")
    workshop.work()
    assert causes == [second]
    check(workshop)


def test_one_that_was_removed_by_hand_is_found_by_the_check(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    late = workshop.add("moody", after=first)
    with workshop.service() as service:
        del service.jobs[first]
        problems = check_all(service, time.time(), repair=False)
        assert f"it waits for job {first}, which is gone" in [found.text for found in problems]
        check_all(service, time.time(), repair=True)
        assert check_all(service, time.time(), repair=False) == []
    assert workshop.work() == []
    for jobid in (second, late):
        assert workshop.get(jobid, "status") == ERROR
        assert workshop.get(jobid, "error").endswith("was removed")
    check(workshop)


def test_one_that_was_removed_while_it_ran_lets_those_fail_who_came_later(workshop: Any) -> None:
    first = workshop.add("moody")
    [claim] = workshop.claim()
    second = workshop.add("moody", after=first)
    with workshop.service() as service:
        del service.jobs[first]
    workshop.run(claim)
    workshop.work()
    assert workshop.get(second, "status") == ERROR


def test_each_that_waits_is_looked_at_in_its_turn(workshop: Any) -> None:
    with workshop.service() as service:
        firsts = [service.add("moody", delay=3600.0) for _ in range(2)]
        last = [service.add("moody", after=firsts[number == 249]) for number in range(250)][-1]
        for job in service.jobs.values():
            assert job.place is not None
        del service.jobs[firsts[1]]
    looks = [workshop.engine.upkeep.look_after(workshop.session) for _ in range(4)]
    assert looks == [False, False, True, False]
    workshop.work()
    assert workshop.get(last, "status") == ERROR


# -- the one that waits ---------------------------------------------------------------------------


def test_it_can_be_cancelled_while_it_waits(workshop: Any) -> None:
    first, second, third = chain(workshop, 3)
    with workshop.service() as service:
        service.cancel(second)
        assert service.getStatus(second) == CANCELLED
        assert service.getStatus(third) == ERROR
    assert workshop.work() == [first]
    check(workshop)


def test_it_cannot_be_hurried(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    with workshop.service() as service:
        with pytest.raises(InvalidArgument, match=f"job {second} waits for other jobs: {first}"):
            service.run_now(second)
        assert not service.startJob(second)
        with pytest.raises(InvalidArgument):
            service.reschedule(second)
    check(workshop)


def test_it_is_repeated_after_its_predecessor_was(workshop: Any, moods: list[str]) -> None:
    first, second = chain(workshop, 2)
    moods.append("no")
    workshop.work()
    moods.clear()
    with workshop.service() as service:
        with pytest.raises(InvalidArgument, match=f"job {second} cannot run: job {first}"):
            service.retry(second)
        assert service.getStatus(second) == ERROR
    with workshop.service() as service:
        service.retry(first)
        service.retry(second)
        assert service.job(second).awaits == (first,)
        assert service.getStatus(second) == QUEUED
    check(workshop)
    assert workshop.work() == [first, second]
    check(workshop)


def test_it_is_repeated_at_once_when_its_predecessor_is_completed(
    workshop: Any, moods: list[str]
) -> None:
    first, second = chain(workshop, 2)
    moods.append("no")
    workshop.work()
    moods.clear()
    with workshop.service() as service:
        service.retry(first)
    assert workshop.work() == [first]
    with workshop.service() as service:
        service.retry(second)
    assert workshop.work() == [second]


def test_repeating_all_passes_over_those_that_would_fail_again(
    workshop: Any, moods: list[str]
) -> None:
    first, second = chain(workshop, 2)
    moods.append("no")
    workshop.work()
    with workshop.service() as service:
        service.cancel(first)
        del service.jobs[first]
        assert service.retry_all() == 0
        assert service.getStatus(second) == ERROR


def test_a_repeat_of_all_brings_back_a_chain(workshop: Any, moods: list[str]) -> None:
    jobids = chain(workshop, 3)
    moods.append("no")
    workshop.work()
    moods.clear()
    with workshop.service() as service:
        assert service.retry_all() == 3
    assert workshop.work() == jobids


def test_an_own_repeat_does_not_wait_again(workshop: Any, moods: list[str]) -> None:
    _, second = chain(workshop, 2)
    workshop.step()
    moods.append("no")
    workshop.work()
    moods.clear()
    with workshop.service() as service:
        service.clean([COMPLETED])
        service.retry(second)
    assert workshop.work() == [second]


def test_the_claim_has_the_last_word(workshop: Any) -> None:
    first, second = chain(workshop, 2)
    with workshop.service() as service:
        service.queue.release(service.jobs[second], 0.0)
    assert workshop.work() == [first, second]
    check(workshop)


def test_a_link_that_was_lost_is_found_by_the_check(workshop: Any) -> None:
    first = workshop.add("moody")
    second = workshop.add("moody", after=first)
    with workshop.service() as service:
        for lane in service.queue.links.lanes:
            lane.entries.clear()
            lane._p_changed = True
    with workshop.service() as service:
        texts = [problem.text for problem in check_all(service, time.time(), repair=True)]
        assert texts == [f"it waits for job {first}, which will not tell it"]
    assert workshop.work() == [first, second]
    check(workshop)


def test_a_paused_task_of_a_job_that_may_run_waits_on(workshop: Any, register: Any) -> None:
    with workshop.service() as service:
        first = service.add("echo")
        second = service.add("moody", after=first)
        service.pause("moody")
    assert workshop.work() == [first]
    with workshop.service() as service:
        service.resume("moody")
    assert workshop.work() == [second]


# -- what is given -------------------------------------------------------------------------------


def test_what_cannot_be_waited_for_is_refused(workshop: Any) -> None:
    cron = workshop.add_cron_job("moody", hour=(3,))
    first = workshop.add("moody")
    with workshop.service() as service:
        for wrong, error in (
            (12345, JobNotFound),
            ([first, 12345], JobNotFound),
            (cron, InvalidArgument),
            ("text", InvalidArgument),
            (None, InvalidArgument),
            (True, InvalidArgument),
            (1.5, InvalidArgument),
            ([first] * (MAX_AFTER + 1), InvalidArgument),
        ):
            with pytest.raises(error):
                service.add("moody", after=wrong)
        for others in ({"delay": 1.0}, {"startLater": True}):
            with pytest.raises(InvalidArgument, match="one of after"):
                service.add("moody", after=first, **others)
        assert set(service.jobs) == {cron, first}


def test_a_delayed_job_can_be_waited_for(workshop: Any) -> None:
    first = workshop.add("moody", delay=0.0)
    assert isinstance(workshop.db.open().root()["tasks"].jobs[first], CronJob)
    second = workshop.add("moody", after=first)
    assert workshop.work() == [first, second]


# -- several at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("has_links", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_who_waits_for_a_job_that_ends_at_this_moment_meets_a_conflict(
    workshop: Any, has_links: bool, is_first: bool
) -> None:
    first, other = workshop.add("moody"), workshop.add("moody")
    if has_links:
        workshop.add("moody", after=other)
    with workshop.connected() as (adding, root), workshop.connected() as (ending, there):
        second = root["tasks"].add("moody", after=first)
        there["tasks"].cancel(first)
        earlier, later = (adding, ending) if is_first else (ending, adding)
        earlier.commit()
        with pytest.raises(ConflictError):
            later.commit()
    if is_first:
        with workshop.service() as service:
            service.cancel(first)
        assert workshop.get(second, "status") == ERROR


@pytest.mark.parametrize("is_first", [False, True])
def test_who_waits_for_a_job_that_is_run_inline_meets_a_conflict(
    workshop: Any, is_first: bool
) -> None:
    first = workshop.add("moody")
    manager = transaction.TransactionManager()
    connection = workshop.db.open(manager)
    with workshop.connected() as (adding, root):
        root["tasks"].add("moody", after=first)
        connection.root()["tasks"].process()
        earlier, later = (adding, manager) if is_first else (manager, adding)
        earlier.commit()
        with pytest.raises(ConflictError):
            later.commit()
    manager.abort()
    connection.close()


@pytest.mark.parametrize("is_first", [False, True])
def test_who_waits_for_a_job_that_fails_with_another_meets_a_conflict(
    workshop: Any, is_first: bool
) -> None:
    first, *_ = (workshop.add("moody") for _ in range(LINK_RUN + 1))  # the next is in another lane
    second = workshop.add("moody", after=first)
    with workshop.connected() as (adding, root), workshop.connected() as (ending, there):
        root["tasks"].add("moody", after=second)
        there["tasks"].cancel(first)
        earlier, later = (adding, ending) if is_first else (ending, adding)
        earlier.commit()
        with pytest.raises(ConflictError):
            later.commit()


@pytest.mark.parametrize("is_first", [False, True])
def test_who_waits_for_a_job_that_is_cancelled_after_its_run_meets_a_conflict(
    workshop: Any, is_first: bool
) -> None:
    first = workshop.add("moody", delay=3600.0)
    with workshop.service() as service:
        service.requests.insert(first)  # as when its last run did not see it
    with workshop.connected() as (adding, root), workshop.connected() as (ending, there):
        root["tasks"].add("moody", after=first)
        service = there["tasks"]
        retire_jobs(service, [(first, service.jobs[first])], workshop.now)
        assert service.getStatus(first) == CANCELLED
        earlier, later = (adding, ending) if is_first else (ending, adding)
        earlier.commit()
        with pytest.raises(ConflictError):
            later.commit()


def test_who_waits_for_a_running_job_does_not_disturb_the_run(workshop: Any) -> None:
    first = workshop.add("moody")
    [claim] = workshop.claim()
    second = workshop.add("moody", after=first)
    outcome = workshop.run(claim)
    assert outcome.status == COMPLETED
    assert workshop.get(first, "conflicts") == 0
    assert workshop.work() == [second]


def test_who_waits_for_a_run_that_has_just_ended_meets_a_conflict(workshop: Any) -> None:
    first = workshop.add("moody")
    [claim] = workshop.claim()
    with workshop.connected() as (adding, root):
        root["tasks"].add("moody", after=first)
        workshop.run(claim)
        with pytest.raises(ConflictError):
            adding.commit()


def test_two_that_end_at_once_release_it_once(workshop: Any, register: Any) -> None:
    with workshop.service() as service:
        jobids = [service.add("moody"), service.add("moody")]
        last = service.add("moody", after=jobids)
    one, two = workshop.new_engine(), workshop.new_engine()
    for engine in (one, two):
        [claim] = engine.claims.claim(workshop.session, 1)
        engine.execution.run(workshop.session, claim)
    # Both file at the same time: of the two one has to look again.
    with workshop.connected() as (first, root), workshop.connected() as (second, there):
        for service, jobid in ((root["tasks"], jobids[0]), (there["tasks"], jobids[1])):
            retire_jobs(service, [(jobid, service.jobs[jobid])], workshop.now)
        first.commit()
        with pytest.raises(ConflictError):
            second.commit()
    one.claims.claim(workshop.session, 0)
    two.claims.claim(workshop.session, 0)
    assert workshop.get(last, "awaits") == ()
    assert workshop.work() == [last]


def test_jobs_that_wait_for_nobody_write_nothing_more(workshop: Any) -> None:
    workshop.add("moody")
    workshop.work()
    workshop.claim(0)
    with workshop.service() as service:
        assert service.queue.links is None
        assert AWAITING not in service.queue.parked
        [job] = service.jobs.values()
        assert not {"after", "awaits", "followers", "on_success", "cause"} & set(vars(job))
