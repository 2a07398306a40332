# SPDX-License-Identifier: ZPL-2.1
"""Running jobs again, and at once: `retry`, `retry_all`, `run_now`."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.errors import InvalidArgument, InvalidInput, JobNotFound, TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
)
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all


@pytest.fixture(autouse=True)
def moody(register: Any) -> list[str]:
    """The task *moody*, which fails as long as this list says with what."""
    moods = ["final"]

    def moody(input: Any) -> Any:
        if moods:
            raise TaskError("no") if moods[-1] == "final" else ValueError("not yet")
        return input

    register("moody", moody)
    return moods


def check(service: Any) -> None:
    assert check_all(service, time.time(), repair=False) == []


# -- retry -------------------------------------------------------------------------------------


def test_an_error_runs_again_and_keeps_its_failures(workshop: Any, moody: list[str]) -> None:
    jobid = workshop.add("moody", "input")
    workshop.work()
    assert workshop.get(jobid, "status") == ERROR
    moody.clear()
    with workshop.service() as service:
        service.retry(jobid)
        assert service.getStatus(jobid) == QUEUED
        assert service.job(jobid).completed is None
        check(service)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status", "output", "attempt") == (COMPLETED, "input", 2)
    [failure] = workshop.get(jobid, "failures")
    assert (failure.attempt, failure.message) == (1, "no")
    with workshop.service() as service:
        workshop.claim()
        assert service.countJobs()[ERROR] == 0
        check(service)


def test_a_cancelled_job_runs_after_all(workshop: Any) -> None:
    jobid = workshop.add("echo", 5)
    with workshop.service() as service:
        service.cancel(jobid)
    assert workshop.work() == []
    with workshop.service() as service:
        service.retry(jobid)
        check(service)
    workshop.work()
    assert workshop.get(jobid, "status", "output") == (COMPLETED, 5)


def test_it_has_as_many_attempts_as_a_new_one(workshop: Any, moody: list[str]) -> None:
    moody[:] = ["again"]
    jobid = workshop.add("moody", retry=RetryPolicy(3, 0.0))
    assert workshop.work() == [jobid] * 3
    with workshop.service() as service:
        service.jobs[jobid].deaths = 2
        service.jobs[jobid].collisions = 5
    with workshop.service() as service:
        service.retry(jobid)
    assert workshop.get(jobid, "deaths_in_a_row", "deaths", "collisions") == (0, 2, 0)
    assert workshop.work() == [jobid] * 3
    assert workshop.get(jobid, "status", "attempt") == (ERROR, 6)
    assert [failure.attempt for failure in workshop.get(jobid, "failures")] == [1, 2, 3, 4, 5, 6]


def test_it_can_get_another_input(workshop: Any, moody: list[str]) -> None:
    jobid = workshop.add("moody", "old")
    workshop.work()
    moody.clear()
    given = ["new"]
    with workshop.service() as service:
        service.retry(jobid, input=given)
        given.append("later")
    workshop.work()
    assert workshop.get(jobid, "output") == ["new"]


def test_an_input_that_cannot_be_stored_changes_nothing(workshop: Any) -> None:
    jobid = workshop.add("moody", "old")
    workshop.work()
    with workshop.service() as service:
        with pytest.raises(InvalidInput):
            service.retry(jobid, input=lambda: 1)
        assert service.job(jobid).status == ERROR


@pytest.mark.parametrize("status", [QUEUED, PROCESSING, COMPLETED])
def test_other_jobs_are_not_repeated(workshop: Any, status: str) -> None:
    jobid = workshop.add("echo")
    if status != QUEUED:
        claims = workshop.claim()
        if status == COMPLETED:
            workshop.run(*claims)
    with workshop.service() as service:
        with pytest.raises(InvalidArgument, match=f"is {status}"):
            service.retry(jobid)
        assert service.getStatus(jobid) == status
        with pytest.raises(JobNotFound):
            service.retry(jobid + 1)


def test_a_job_that_nobody_has_filed_yet_is_repeated_once(workshop: Any, moody: list[str]) -> None:
    jobid = workshop.add("moody")
    workshop.run(*workshop.claim())
    with workshop.service() as service:
        assert not service.queue.is_filed(service.jobs[jobid])
        service.retry(jobid)
    with workshop.service() as service:
        assert service.countJobs()[ERROR] == 0
        assert service.countJobs()[QUEUED] == 1
        check(service)
    moody.clear()
    assert workshop.work() == [jobid]
    with workshop.service() as service:
        assert service.countJobs()[COMPLETED] == 1
        check(service)


def test_of_who_repeats_a_job_and_who_files_it_one_commits(workshop: Any) -> None:
    jobid = workshop.add("moody")
    workshop.run(*workshop.claim())

    def retry_beside_a_claim() -> None:
        with workshop.service() as service:
            service.retry(jobid)
            assert workshop.claim() == []  # files it

    with pytest.raises(ConflictError):
        retry_beside_a_claim()
    with workshop.service() as service:
        service.retry(jobid)
        check(service)
        assert service.countJobs()[ERROR] == 0


def test_of_two_who_repeat_a_job_one_commits(workshop: Any) -> None:
    jobid = workshop.add("moody")
    workshop.work()

    def retry_twice() -> None:
        with workshop.service() as service, workshop.service() as other:
            service.retry(jobid)
            other.retry(jobid)

    with pytest.raises(ConflictError):
        retry_twice()


def test_a_job_that_is_about_to_be_removed_is_gone(workshop: Any) -> None:
    jobid = workshop.add("moody")
    workshop.run(*workshop.claim())
    with workshop.service() as service:
        service.clean()
    with workshop.service() as service, pytest.raises(JobNotFound):
        service.retry(jobid)


def test_a_schedule_that_was_cancelled_runs_and_goes_on(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", 5, minute=(0,))
    with workshop.service() as service:
        service.cancel(jobid)
    workshop.now += 86_400
    with workshop.service() as service:
        service.retry(jobid)
        assert service.getStatus(jobid) == CRONJOB
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status", "output") == (CRONJOB, 5)
    assert workshop.get(jobid, "due") > workshop.now


def test_a_delayed_job_that_was_cancelled_does_not_wait_again(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", 5, delay=3600)
    with workshop.service() as service:
        service.cancel(jobid)
        service.retry(jobid)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status") == COMPLETED


# -- retry_all ---------------------------------------------------------------------------------


def test_all_errors_run_again_a_few_at_a_time(workshop: Any) -> None:
    ids = [workshop.add("moody") for _ in range(7)]
    workshop.work()
    numbers = []
    while True:
        with workshop.service() as service:
            numbers.append(service.retry_all(before=time.time() + 3600, limit=3))
        if not numbers[-1]:
            break
    assert numbers == [3, 3, 1, 0]
    assert {workshop.get(jobid, "status") for jobid in ids} == {QUEUED}


def test_only_errors_of_a_task_and_a_time_run_again(workshop: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError

    register("fail", fail)
    early = [workshop.add("moody"), workshop.add("fail")]
    with workshop.service() as service:
        service.cancel(service.add("moody"))
    workshop.work()
    between = workshop.now + 1
    workshop.now += 2
    late = [workshop.add("moody"), workshop.add("fail")]
    workshop.work()
    with workshop.service() as service:
        assert service.retry_all(task="moody", before=between) == 1
        assert [service.getStatus(jobid) for jobid in early] == [QUEUED, ERROR]
        assert service.retry_all(task="moody") == 1
        assert [service.getStatus(jobid) for jobid in late] == [QUEUED, ERROR]
        assert service.retry_all() == 2
        assert service.retry_all() == 0
        assert service.countJobs()[CANCELLED] == 1


@pytest.mark.parametrize(
    "arguments", [{"task": 5}, {"before": "x"}, {"limit": 0}, {"limit": None}, {"task": "\0"}]
)
def test_what_makes_no_sense_is_refused(service: TaskService, arguments: Any) -> None:
    with pytest.raises(InvalidArgument):
        service.retry_all(**arguments)


# -- run_now -----------------------------------------------------------------------------------


def test_a_delayed_job_runs_at_once(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", 5, delay=3600)
    assert workshop.work() == []
    with workshop.service() as service:
        service.run_now(jobid)
        assert service.getStatus(jobid) == DELAYED
        check(service)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status") == COMPLETED


def test_a_schedule_runs_once_more_and_at_its_time_too(workshop: Any) -> None:
    later = (time.gmtime().tm_hour + 6) % 24
    jobid = workshop.add_cron_job("echo", minute=(0,), hour=(later,))
    due = workshop.get(jobid, "due")
    workshop.now = due - 120
    with workshop.service() as service:
        service.run_now(jobid)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "due", "missed") == (due, 0)


def test_a_job_that_waits_for_its_next_attempt_runs_at_once(
    workshop: Any, moody: list[str]
) -> None:
    moody[:] = ["again"]
    jobid = workshop.add("moody", retry=RetryPolicy(3, 3600.0, jitter=0.0))
    assert workshop.work() == [jobid]
    moody.clear()
    with workshop.service() as service:
        service.run_now(jobid)
    workshop.work()
    assert workshop.get(jobid, "status", "attempt") == (COMPLETED, 2)


def test_a_job_that_is_ready_stays_in_its_place(workshop: Any) -> None:
    first, second = workshop.add("echo"), workshop.add("echo")
    place = workshop.get(second, "place")
    with workshop.service() as service:
        service.run_now(second)
    assert workshop.get(second, "place") == place
    assert workshop.work() == [first, second]


def test_what_waits_for_no_time_cannot_run_now(workshop: Any) -> None:
    with workshop.service() as service:
        later = service.add("echo", startLater=True)
    done, running = workshop.add("echo"), workshop.add("echo")
    workshop.step()
    workshop.claim()
    with workshop.service() as service:
        for jobid in (later, done, running):
            with pytest.raises(InvalidArgument):
                service.run_now(jobid)
        with pytest.raises(JobNotFound):
            service.run_now(4711)


def test_of_who_hurries_a_job_and_who_files_it_one_commits(workshop: Any, moody: list[str]) -> None:
    moody[:] = ["again"]
    jobid = workshop.add("moody", retry=RetryPolicy(3, 3600.0))
    workshop.run(*workshop.claim())

    def hurry_beside_a_claim() -> None:
        with workshop.service() as service:
            service.run_now(jobid)
            assert workshop.claim() == []  # files it

    with pytest.raises(ConflictError):
        hurry_beside_a_claim()
    with workshop.service() as service:
        service.run_now(jobid)
        check(service)
        assert service.countJobs()[QUEUED] == 1
