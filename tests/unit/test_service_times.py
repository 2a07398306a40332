# SPDX-License-Identifier: ZPL-2.1
"""Delayed and cron jobs of a service, run in the inline form at given times."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lovely.remotetask.errors import InvalidArgument, InvalidSchedule, RetryLater, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, CRONJOB, DELAYED, ERROR, QUEUED
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all

MINUTE, HOUR = 60, 3600


@pytest.fixture(autouse=True)
def counter(register: Any) -> list[Any]:
    """What the task *counter* was called with; its result is how often it was called."""
    calls: list[Any] = []

    def count(input: Any) -> int:
        calls.append(input)
        return len(calls)

    register("counter", count)
    return calls


# -- delayed jobs ------------------------------------------------------------------------------


def test_a_delayed_job_runs_once_after_its_delay(service: TaskService, counter: list[Any]) -> None:
    jobid = service.addCronJob("counter", {"foo": "bar"}, delay=10)
    statuses = []
    for now in (None, 0, 9, 10, 11, 1000):
        if now is not None:
            service.process(now)
        statuses.append(service.getStatus(jobid))
    assert statuses == [DELAYED, DELAYED, DELAYED, COMPLETED, COMPLETED, COMPLETED]
    assert service.getResult(jobid) == 1
    assert counter == [{"foo": "bar"}]


def test_a_delay_counts_from_when_the_job_was_added(service: TaskService) -> None:
    before = time.time()
    jobid = service.addCronJob("counter", delay=1000)
    after = time.time()
    service.process(before + 999)
    assert service.getStatus(jobid) == DELAYED
    service.process(after + 1000)
    assert service.getStatus(jobid) == COMPLETED


def test_a_delay_of_nothing_is_due_at_once(service: TaskService) -> None:
    jobid = service.addCronJob("counter", delay=0)
    service.process(time.time() + 1)
    assert service.getStatus(jobid) == COMPLETED


def test_a_delayed_job_that_fails_is_an_error(service: TaskService, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    jobid = service.addCronJob("fail", delay=10)
    service.process(0)
    service.process(10)
    assert service.getStatus(jobid) == ERROR
    service.process(10**9)
    assert service.jobs[jobid].attempt == 1


def test_delayed_jobs_run_in_the_order_of_their_times(
    service: TaskService, counter: list[Any]
) -> None:
    for delay in (30, 10, 20):
        service.addCronJob("counter", delay, delay=delay)
    service.process(0)
    service.process(100)
    assert counter == [10, 20, 30]


# -- cron jobs ---------------------------------------------------------------------------------


def test_a_cron_job_runs_at_the_minutes_it_was_given(service: TaskService) -> None:
    jobid = service.addCronJob("counter", {"foo": "bar"}, minute=(10, 13))
    results = []
    for now in (0, 10 * MINUTE, 11 * MINUTE, 13 * MINUTE):
        service.process(now)
        results.append((service.getStatus(jobid), service.getResult(jobid)))
    assert results == [(CRONJOB, None), (CRONJOB, 1), (CRONJOB, 1), (CRONJOB, 2)]


def test_a_cron_job_runs_at_its_new_minutes_once_it_is_rescheduled(service: TaskService) -> None:
    jobid = service.addCronJob("counter", minute=(10, 13))
    for now in (0, 10 * MINUTE, 13 * MINUTE):
        service.process(now)
    service.jobs[jobid].update(minute=(11, 13))
    assert service.reschedule(jobid) is None
    service.process(HOUR + 10 * MINUTE)
    assert service.getResult(jobid) == 2
    service.process(HOUR + 11 * MINUTE)
    assert service.getResult(jobid) == 3


def test_a_cron_expression_stands_in_place_of_the_fields(service: TaskService) -> None:
    jobid = service.addCronJob("counter", cron="10,13 * * * *")
    for now in (0, 10 * MINUTE, 11 * MINUTE, 13 * MINUTE):
        service.process(now)
    assert service.getResult(jobid) == 2


def test_a_cron_job_without_fields_runs_every_minute(service: TaskService) -> None:
    jobid = service.addCronJob("counter")
    for now in range(0, 10 * MINUTE, 20):
        service.process(now)
    assert service.getResult(jobid) == 9


def test_a_time_zone_moves_the_slots(service: TaskService) -> None:
    jobid = service.addCronJob("counter", hour=(3,), timezone="Asia/Kolkata")
    service.process(0)
    assert service.jobs[jobid].due == 21.5 * HOUR


def test_a_cron_job_that_fails_goes_on(service: TaskService, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    jobid = service.addCronJob("fail", minute=(0,))
    service.process(0)
    service.process(HOUR)
    assert service.getStatus(jobid) == CRONJOB
    assert service.getError(jobid) == "no"
    service.process(2 * HOUR)
    assert service.jobs[jobid].attempt == 2


def test_a_cancelled_cron_job_runs_no_more(service: TaskService, counter: list[Any]) -> None:
    jobid = service.addCronJob("counter", minute=(0,))
    service.process(0)
    service.process(HOUR)
    service.cancel(jobid)
    service.process(10 * HOUR)
    assert service.getStatus(jobid) == CANCELLED
    assert len(counter) == 1


@pytest.mark.parametrize(
    "schedule",
    [{"minute": (60,)}, {"delay": -1}, {"cron": "x"}, {"month": (2,), "dayOfMonth": (31,)}],
    ids=repr,
)
def test_a_job_with_an_impossible_schedule_is_not_added(
    service: TaskService, schedule: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        service.addCronJob("counter", **schedule)
    assert isinstance(caught.value, InvalidSchedule)
    assert dict(service.jobs) == {}


# -- rescheduling ------------------------------------------------------------------------------


def test_an_update_counts_only_when_the_job_is_rescheduled(service: TaskService) -> None:
    jobid = service.addCronJob("counter", minute=(10,))
    service.process(0)
    service.jobs[jobid].update(minute=(20,))
    service.process(10 * MINUTE)
    assert service.getResult(jobid) == 1
    service.process(20 * MINUTE)
    assert service.getResult(jobid) == 2


def test_only_a_job_that_waits_for_a_time_is_rescheduled(service: TaskService) -> None:
    plain = service.add("counter")
    done = service.addCronJob("counter", delay=0)
    service.process(time.time() + 1)
    for jobid in (plain, done):
        with pytest.raises(InvalidArgument, match="waits for no time"):
            service.reschedule(jobid)


def test_rescheduling_counts_from_the_present(service: TaskService) -> None:
    jobid = service.addCronJob("counter", delay=10)
    service.jobs[jobid].update(delay=500)
    before = time.time()
    service.reschedule(jobid)
    assert before + 500 <= service.jobs[jobid].due <= time.time() + 500


@pytest.mark.parametrize("then", [TaskService.reschedule, TaskService.cancel])
def test_a_job_that_changes_its_kind_leaves_its_old_place(service: TaskService, then: Any) -> None:
    jobid = service.addCronJob("counter", delay=10)
    service.jobs[jobid].update(minute=(10,))
    then(service, jobid)
    assert service.countJobs()[DELAYED] == 0
    assert check_all(service, time.time(), repair=False) == []


# -- other waits -------------------------------------------------------------------------------


def test_a_job_that_wants_to_be_run_later_is_run_later(service: TaskService, register: Any) -> None:
    calls = []

    def wait(input: Any) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RetryLater(100)
        return "done"

    register("wait", wait)
    jobid = service.add("wait")
    service.process(1000)
    assert service.getStatus(jobid) == QUEUED
    service.process(1099)
    assert len(calls) == 1
    service.process(1100)
    assert service.getResult(jobid) == "done"
