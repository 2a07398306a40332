# SPDX-License-Identifier: ZPL-2.1
"""Priorities: jobs with a higher one are claimed first."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.interfaces import QUEUED, STARTLATER
from lovely.remotetask.job import Job
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all


def problems(workshop: Any, repair: bool = False) -> list[str]:
    with workshop.service() as service:
        return [problem.text for problem in check_all(service, time.time(), repair)]


def test_jobs_with_a_higher_priority_run_first_and_in_order(workshop: Any) -> None:
    ids = {
        priority: [workshop.add("echo", priority=priority) for _ in range(3)]
        for priority in (0, -5, 7, 100, -100, 1)
    }
    assert workshop.work() == [
        jobid for priority in (100, 7, 1, 0, -5, -100) for jobid in ids[priority]
    ]
    assert problems(workshop) == []


def test_jobs_that_were_added_together_are_all_seen(workshop: Any) -> None:
    with workshop.service() as service:
        ids = [service.add("echo", priority=priority) for priority in (2, 1, 0)]
    assert workshop.work() == ids


def test_a_batch_goes_from_the_highest_priority_down(workshop: Any) -> None:
    low = [workshop.add("echo", priority=-1) for _ in range(3)]
    high = [workshop.add("echo", priority=1) for _ in range(3)]
    assert [claim.jobid for claim in workshop.claim(5)] == [*high, *low[:2]]


def test_many_jobs_can_have_a_priority(workshop: Any) -> None:
    plain = workshop.add("echo")
    with workshop.service() as service:
        ids = service.add_many("echo", range(300), priority=2)
        assert service.add_many("echo", [], priority=3) == []
        assert set(service.queue.levels) == {2}
    assert workshop.work() == [*ids, plain]


def test_what_has_waited_for_its_time_keeps_its_priority(workshop: Any) -> None:
    delayed = workshop.add("echo", delay=50, priority=-1)
    urgent = workshop.add("echo", delay=60, priority=1)
    cron = workshop.add_cron_job("echo", minute=(), priority=2)
    plain = workshop.add("echo")
    assert workshop.get(cron, "priority") == 2
    workshop.now += 100
    assert workshop.work() == [cron, urgent, plain, delayed]


def test_a_job_that_failed_or_was_given_back_keeps_its_priority(
    workshop: Any, register: Any
) -> None:
    causes = [ValueError("once")]

    def stumble(input: Any) -> None:
        if causes:
            raise causes.pop()

    register("stumble", stumble)
    retry = RetryPolicy(retry_on=(ValueError,))
    failed = workshop.add("stumble", priority=1, retry=retry)
    workshop.step()
    low = workshop.add("echo", priority=-1)
    workshop.claim()
    plain = workshop.add("echo")
    workshop.engine.claims.give_back(
        workshop.session, list(workshop.engine.claims.in_hand.values())
    )
    workshop.now += 1000
    assert workshop.work() == [failed, plain, low]
    assert problems(workshop) == []


def test_parked_jobs_keep_their_priority(workshop: Any) -> None:
    ids = {priority: workshop.add("echo", priority=priority) for priority in (0, 2, 1)}
    with workshop.service() as service:
        service.pause("echo")
    assert workshop.work() == []
    with workshop.service() as service:
        assert service.countJobs()[QUEUED] == 3
        assert {job.id for job in service.list("queued").jobs} == set(ids.values())
        assert not service.hasJobsWaiting()
        service.resume()
        assert service.hasJobsWaiting()
    assert workshop.work() == [ids[2], ids[1], ids[0]]


def test_jobs_that_are_started_later_and_again_keep_their_priority(workshop: Any) -> None:
    later = workshop.add("echo", startLater=True, priority=1)
    plain = workshop.add("echo")
    cancelled = workshop.add("echo", priority=2)
    with workshop.service() as service:
        assert service.countJobs()[STARTLATER] == 1
        service.cancel(cancelled)
        service.startJob(later)
        service.retry(cancelled)
    assert workshop.work() == [cancelled, later, plain]


def test_jobs_of_all_priorities_are_counted_listed_and_due(workshop: Any) -> None:
    ids = [workshop.add("echo", priority=priority) for priority in (3, 0, -3)]
    ids.append(workshop.add("echo", priority=3, delay=1000))
    with workshop.service() as service:
        assert (service.countJobs()[QUEUED], service.countJobs()["delayed"]) == (3, 1)
        assert len(service.queue) == 3
        assert [job.id for job in service.list(order="oldest", limit=2).jobs] == ids[:2]
        assert {job.id for job in service.list("queued").jobs} == set(ids[:3])
        assert service.queue.next_due() == service.jobs[ids[3]].due
        assert service.hasJobsWaiting()
        assert service.claimNextJob() == ids[0]


def test_jobs_with_a_priority_can_share_a_commit(workshop: Any, register: Any) -> None:
    register("shared", lambda input: input, shared_commit=True)
    ids = [workshop.add("shared", priority=1) for _ in range(3)]
    claims = workshop.reserve()
    assert [claim.jobid for claim in claims] == ids
    assert all(claim.is_reserved for claim in claims)
    assert len(workshop.run_together(claims)) == 3
    assert workshop.reserve() == []
    assert problems(workshop) == []


def test_priorities_that_nobody_uses_take_no_object(service: TaskService) -> None:
    service.add("echo")
    service.add("echo", priority=0)
    assert {"levels", "gates", "keys", "expiring", "in_order"}.isdisjoint(vars(service.queue))
    assert len(service.queue.all_levels()) == 1
    assert "priority" not in vars(next(iter(service.jobs.values())))
    assert len(service.queue.signals) == len(TaskService().queue.signals)


@pytest.mark.parametrize("priority", [101, -101, 1.5, None, "1", True, 10**30])
def test_priorities_that_make_no_sense_are_refused(service: TaskService, priority: Any) -> None:
    with pytest.raises(InvalidArgument, match="priority must be an int of -100 to 100"):
        service.add("echo", priority=priority)
    with pytest.raises(InvalidArgument):
        service.add_many("echo", [1], priority=priority)
    with pytest.raises(InvalidArgument):
        service.addCronJob("echo", priority=priority)
    assert not service.jobs


def test_the_index_of_a_priority_follows_the_jobs(workshop: Any) -> None:
    ids = [workshop.add("echo", priority=1) for _ in range(2)]
    ids.append(workshop.add("echo", priority=1, delay=1000))
    with workshop.service() as service:
        service.queue.levels = {}  # as by an undo
    assert len(problems(workshop)) >= 3
    problems(workshop, repair=True)
    assert problems(workshop) == []
    workshop.now += 10_000
    assert set(workshop.work()) == set(ids)


def test_a_record_without_options_has_none() -> None:
    job = Job(1, "echo")
    assert (job.priority, job.unique_key, job.lock, job.expires) == (0, None, None, None)
    assert len(job.__getstate__()) == 5
