# SPDX-License-Identifier: ZPL-2.1
"""Paused services, and paused tasks: nothing of them is claimed, in any process."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytest
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.interfaces import COMPLETED, CRONJOB, DELAYED, QUEUED, ITask
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all


@pytest.fixture(autouse=True)
def other(register: Any) -> None:
    register("other", lambda input: input)


def pause(workshop: Any, *tasks: str) -> None:
    with workshop.service() as service:
        service.pause(*tasks)


def resume(workshop: Any, *tasks: str) -> None:
    with workshop.service() as service:
        service.resume(*tasks)


def test_a_paused_service_claims_nothing_until_it_is_resumed(workshop: Any) -> None:
    ids = [workshop.add("echo"), workshop.add_cron_job("echo", delay=0)]
    before = workshop.db.storage.lastTransaction()
    pause(workshop)
    paused = workshop.db.storage.lastTransaction()
    assert paused != before
    assert workshop.work() == []
    assert workshop.new_engine().claims.claim(workshop.session, 1) == []
    assert workshop.db.storage.lastTransaction() == paused  # and writes nothing
    with workshop.service() as service:
        assert not service.hasJobsWaiting(workshop.now)
        assert service.claimNextJob() is None
        assert not service.processNext()
        service.process()
        assert service.list_paused() == [None]
    resume(workshop)
    with workshop.service() as service:
        assert service.hasJobsWaiting(workshop.now)
        assert service.list_paused() == []
    assert sorted(workshop.work()) == sorted(ids)


def test_the_jobs_of_a_paused_task_wait_and_others_run(workshop: Any) -> None:
    waiting = [workshop.add("echo") for _ in range(3)]
    waiting.append(workshop.add_cron_job("echo", delay=0))
    running = [workshop.add("other") for _ in range(3)]
    pause(workshop, "echo")
    waiting.append(workshop.add("echo"))
    assert sorted(workshop.work()) == sorted(running)
    with workshop.service() as service:
        assert service.list_paused() == ["echo"]
        assert not service.hasJobsWaiting(workshop.now)
        counts = service.countJobs()
        assert (counts[QUEUED], counts[DELAYED]) == (4, 1)
        assert sorted(job.id for job in service.list(QUEUED).jobs) == sorted(
            jobid for jobid in waiting if service.getStatus(jobid) == QUEUED
        )
        assert check_all(service, time.time(), repair=False) == []
    resume(workshop, "echo")
    assert sorted(workshop.work()) == sorted(waiting)
    assert {workshop.get(jobid, "status") for jobid in waiting} == {COMPLETED}


def test_jobs_that_are_set_aside_cost_further_claims_nothing(workshop: Any) -> None:
    with workshop.service() as service:
        service.add_many("echo", range(300))
    pause(workshop, "echo")
    assert workshop.claim() == []
    workshop.claim()
    before = workshop.db.storage.lastTransaction()
    session = workshop.session
    session.begin()
    session.connection.cacheMinimize()
    assert workshop.claim() == []
    assert workshop.db.storage.lastTransaction() == before
    with workshop.service() as service:
        ids = [job.id for job in service.jobs.values()]
    loaded = [session.service().jobs.get(jobid)._p_changed is not None for jobid in ids]
    assert sum(loaded) == 0


def test_a_cron_job_of_a_paused_task_goes_on_after_it(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,))
    pause(workshop, "echo")
    workshop.now = workshop.get(jobid, "due") + 3601
    assert workshop.work() == []
    resume(workshop)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status", "missed") == (CRONJOB, 1)


def test_what_was_claimed_goes_on(workshop: Any) -> None:
    jobid = workshop.add("echo")
    claims = workshop.claim()
    pause(workshop)
    workshop.run(*claims)
    assert workshop.get(jobid, "status") == COMPLETED
    with workshop.service() as service:
        callers = service.add("echo")
        service.resume()
        assert service.claimNextJob() == callers
        service.pause()
        assert service.processNext(jobid=callers)


def test_jobs_are_reserved_only_if_their_task_is_not_paused(workshop: Any, register: Any) -> None:
    register("shared", lambda input: input, shared_commit=True)
    jobid = workshop.add("shared")
    pause(workshop, "shared")
    assert workshop.reserve() == []
    resume(workshop, "shared")
    assert [claim.jobid for claim in workshop.reserve()] == [jobid]


def test_a_task_that_is_unknown_and_paused_waits_for_both(workshop: Any, register: Any) -> None:
    register("late", lambda input: input)
    jobid = workshop.add("late")
    late = getGlobalSiteManager().getUtility(ITask, name="late")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    assert workshop.work() == []
    pause(workshop, "late")
    getGlobalSiteManager().registerUtility(late, ITask, name="late")
    assert workshop.work() == []
    resume(workshop, "late")
    assert workshop.work() == [jobid]


def test_pauses_of_two_tasks_are_two(workshop: Any) -> None:
    first, second = workshop.add("echo"), workshop.add("other")
    pause(workshop, "echo")
    pause(workshop, "echo")
    pause(workshop, "other")
    pause(workshop)
    with workshop.service() as service:
        assert service.list_paused() == [None, "echo", "other"]
    resume(workshop, "echo")
    assert workshop.work() == []
    resume(workshop, "echo")
    resume(workshop)
    assert sorted(workshop.work()) == sorted([first, second])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_job_that_is_set_aside_while_the_last_one_is_taken_is_not_lost(
    workshop: Any, is_first: bool
) -> None:
    first, second = workshop.add("echo"), workshop.add("echo")

    def park(service: Any, jobid: int) -> None:
        service.queue.park(service.jobs[jobid])

    def park_and_take() -> None:
        with ExitStack() as stack:
            services = [stack.enter_context(workshop.service()) for _ in range(2)]
            park(services[is_first], second)
            services[1 - is_first].queue.remove(services[1 - is_first].jobs[first])

    with workshop.service() as service:
        park(service, first)
    with pytest.raises(ConflictError):
        park_and_take()


def test_two_who_pause_at_once_do_not_collide(workshop: Any) -> None:
    pause(workshop, "another")  # of two who fill an empty set one has to repeat
    with workshop.service() as service:
        service.pause("echo")
        with workshop.service() as other:
            other.pause("other")
    with workshop.service() as service:
        assert service.list_paused() == ["another", "echo", "other"]


def test_a_pause_that_is_aborted_has_never_been(workshop: Any) -> None:
    jobid = workshop.add("echo")
    with workshop.connected() as (_, root):
        root["tasks"].pause()
    assert workshop.work() == [jobid]


def test_a_queue_that_was_stored_without_pauses_can_be_paused(workshop: Any) -> None:
    with workshop.service() as service:
        del service.queue.paused
    with workshop.service() as service:
        assert service.list_paused() == []
        service.resume()
    jobid = workshop.add("echo")
    pause(workshop)
    assert workshop.work() == []
    assert TaskService().list_paused() == []
    resume(workshop)
    assert workshop.work() == [jobid]


def test_a_resumed_service_is_woken(workshop: Any) -> None:
    with workshop.service() as service:
        assert service.queue.paused in service.queue.signals


@pytest.mark.parametrize("name", [5, b"echo", "\0", "\ud800"])
def test_what_can_be_no_name_is_refused(service: TaskService, name: Any) -> None:
    for call in (service.pause, service.resume):
        with pytest.raises(InvalidArgument):
            call(name)
    assert service.list_paused() == []
