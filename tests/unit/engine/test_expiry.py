# SPDX-License-Identifier: ZPL-2.1
"""Jobs that are cancelled if they have not started in time."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all


def problems(workshop: Any, repair: bool = False) -> list[str]:
    with workshop.service() as service:
        return [problem.text for problem in check_all(service, time.time(), repair)]


def expire(workshop: Any, size: int = 100) -> bool:
    has_more: bool = workshop.engine.upkeep.expire(workshop.session, size)
    return has_more


def test_a_job_that_starts_in_time_runs(workshop: Any) -> None:
    jobid = workshop.add("echo", expires=100)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status") == COMPLETED
    workshop.now += 1000
    expire(workshop)
    assert workshop.get(jobid, "status") == COMPLETED


@pytest.mark.parametrize("options", [{}, {"delay": 20}, {"priority": 1}, {"lock": "desk"}])
def test_a_job_that_comes_to_be_claimed_too_late_is_cancelled(
    workshop: Any, options: dict[str, Any]
) -> None:
    jobid = workshop.add("echo", expires=60, **options)
    workshop.now += 100
    assert workshop.work() == []
    status, error, failures = workshop.get(jobid, "status", "error", "failures")
    assert status == CANCELLED
    assert error.startswith("the job had not started by 2")
    assert [failure.type for failure in failures] == ["JobExpired"]
    expire(workshop)
    assert problems(workshop) == []
    with workshop.service() as service:
        assert len(service.queue.expiring) == 0


def test_a_job_can_expire_at_a_time(service: TaskService) -> None:
    at = datetime.now(timezone(timedelta(hours=3))) + timedelta(minutes=1)
    job = service.job(service.add("echo", expires=at))
    assert job.expires == at
    service.process(at.timestamp() + 1)
    assert job.status == CANCELLED


def test_a_job_that_has_expired_when_it_is_added_is_cancelled(service: TaskService) -> None:
    ids = [
        service.add("echo", expires=datetime.now(timezone.utc) - timedelta(days=1)),
        service.add("echo", expires=0),
    ]
    service.process(time.time() + 1)
    assert [service.getStatus(jobid) for jobid in ids] == [CANCELLED] * 2


def test_jobs_that_never_come_to_be_claimed_are_cancelled_by_the_maintenance(
    workshop: Any,
) -> None:
    workshop.add("echo", lock="desk")
    waiting = {
        "at a lock": workshop.add("echo", lock="desk", expires=60),
        "for a start": workshop.add("echo", startLater=True, expires=60),
        "in the ready queue": workshop.add("echo", expires=60),
        "in a pause": workshop.add("echo", expires=60),
    }
    later = workshop.add("echo", expires=100_000)
    workshop.claim()
    with workshop.service() as service:
        service.pause()
    expire(workshop)
    assert {workshop.get(jobid, "is_final") for jobid in waiting.values()} == {False}
    workshop.now += 1000
    assert expire(workshop, 2)
    expire(workshop)
    assert {workshop.get(jobid, "status") for jobid in waiting.values()} == {CANCELLED}
    assert workshop.get(later, "status") == QUEUED
    assert problems(workshop) == []


def test_what_was_started_in_time_can_run_again_later(workshop: Any, register: Any) -> None:
    calls: list[int] = []

    def stumble(input: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("once")

    register("stumble", stumble)
    jobid = workshop.add("stumble", expires=60, retry=RetryPolicy(retry_on=(ValueError,)))
    workshop.step()
    workshop.now += 1000
    expire(workshop)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status") == COMPLETED


def test_a_job_that_was_given_back_has_not_started(workshop: Any) -> None:
    jobid = workshop.add("echo", expires=60)
    workshop.engine.claims.give_back(workshop.session, workshop.claim())
    workshop.now += 1000
    assert workshop.work() == []
    assert workshop.get(jobid, "status") == CANCELLED


def test_a_job_that_has_expired_can_be_told_to_run_all_the_same(workshop: Any) -> None:
    jobid = workshop.add("echo", expires=60)
    workshop.now += 1000
    workshop.work()
    with workshop.service() as service:
        service.retry(jobid)
        assert service.job(jobid).expires is None
    expire(workshop)
    assert workshop.work() == [jobid]


def test_jobs_that_expire_share_no_commit(workshop: Any, register: Any) -> None:
    register("shared", lambda input: input, shared_commit=True)
    workshop.add("shared", expires=60)
    [claim] = workshop.reserve()
    assert not claim.is_reserved


def test_expiring_frees_the_unique_key(workshop: Any) -> None:
    workshop.add("echo", expires=60, unique_key="key")
    workshop.now += 1000
    expire(workshop)
    with workshop.service() as service:
        assert service.find("key") is None


@pytest.mark.parametrize(
    "options",
    [
        {"expires": -1},
        {"expires": "soon"},
        {"expires": True},
        {"expires": float("nan")},
        {"expires": datetime(2050, 1, 1)},
        {"expires": 5, "delay": 5},
        {"expires": 5, "at": datetime.now(timezone.utc) + timedelta(days=1)},
    ],
)
def test_times_that_make_no_sense_are_refused(
    service: TaskService, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match="expire"):
        service.add("echo", **options)
    assert not service.jobs


def test_an_expiry_that_nobody_would_see_is_found_and_mended(workshop: Any) -> None:
    jobid = workshop.add("echo", expires=60, startLater=True)
    with workshop.service() as service:
        [(when, _)] = list(service.queue.expiring)
        service.queue.expiring.remove(when, jobid)
    assert problems(workshop, repair=True) == ["nobody will see that it expires"]
    assert problems(workshop) == []
    workshop.now += 1000
    expire(workshop)
    assert workshop.get(jobid, "status") == CANCELLED


def test_an_entry_that_stands_for_nobody_any_more_is_dropped(workshop: Any) -> None:
    jobid = workshop.add("echo", expires=60)
    with workshop.service() as service:
        service.cancel(jobid)
        service.clean()
        assert len(service.queue.expiring) == 1
    workshop.now += 1000
    expire(workshop)
    with workshop.service() as service:
        assert len(service.queue.expiring) == 0
