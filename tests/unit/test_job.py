# SPDX-License-Identifier: ZPL-2.1
"""Job records: what they say of themselves, and the steps they take."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lovely.remotetask.errors import InvalidArgument, InvalidSchedule
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
)
from lovely.remotetask.job import CronJob, Failure, Job
from lovely.remotetask.retry import RetryPolicy


def failure(attempt: int = 1, message: str = "no luck") -> Failure:
    return Failure(attempt, 100.0, "ValueError", message, "")


# -- what a record says ------------------------------------------------------------------------


def test_a_new_job_is_queued() -> None:
    before = time.time()
    job = Job(7, "echo", {"foo": "bar"})
    assert (job.id, job.task, job.input, job.status) == (7, "echo", {"foo": "bar"}, QUEUED)
    assert before <= job.created_at <= time.time()
    assert (job.output, job.error, job.failures, job.attempt) == (None, None, (), 0)
    assert repr(job) == "<Job 7 'echo' queued>"


def test_times_read_as_aware_utc_datetimes() -> None:
    job = Job(1, "echo")
    assert (job.started, job.completed, job.scheduledFor) == (None, None, None)
    job.created_at = 86_400.5
    job.wait(3600.0)
    assert job.created == datetime(1970, 1, 2, 0, 0, 0, 500_000, timezone.utc)
    assert job.scheduledFor == datetime(1970, 1, 1, 1, tzinfo=timezone.utc)
    assert job.scheduledFor.utcoffset() == timedelta(0)
    job.start("me", 10.0)
    job.finish(None, 20.0)
    assert job.started == datetime(1970, 1, 1, 0, 0, 10, tzinfo=timezone.utc)
    assert job.completed == datetime(1970, 1, 1, 0, 0, 20, tzinfo=timezone.utc)


def test_a_record_stores_only_what_is_not_the_default() -> None:
    job = Job(1, "echo", "input")
    job.start("me", 1.0)
    job.wait(5.0)
    job.start("me", 6.0)
    job.finish("done", 7.0)
    assert set(job.__dict__) == {
        *("id", "task", "input", "created_at", "status", "output"),
        *("attempt", "started_at", "completed_at"),
    }


def test_a_policy_is_stored_where_one_is_given() -> None:
    assert "retry" not in Job(1, "echo").__dict__
    assert Job(1, "echo", retry=RetryPolicy(attempts=2)).retry == RetryPolicy(attempts=2)


# -- steps -------------------------------------------------------------------------------------


def test_a_job_that_is_started_is_held_by_one_attempt_of_one_worker() -> None:
    job = Job(1, "echo")
    job.start("me", 5.0)
    assert (job.status, job.owner, job.attempt, job.started_at) == (PROCESSING, "me", 1, 5.0)
    assert job.is_held_by("me", 1)
    assert not job.is_held_by("you", 1)
    assert not job.is_held_by("me", 2)
    job.finish(None, 6.0)
    assert not job.is_held_by("me", 1)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda job: job.finish("done", 9.0), COMPLETED),
        (lambda job: job.fail(failure(), 9.0), ERROR),
        (lambda job: job.cancel(9.0), CANCELLED),
    ],
)
def test_a_job_ends_in_one_of_three_ways(end: Any, status: str) -> None:
    job = Job(1, "echo")
    assert not job.is_final
    job.start("me", 5.0)
    assert not job.is_final
    end(job)
    assert (job.status, job.completed_at, job.owner) == (status, 9.0, None)
    assert job.is_final


def test_the_error_is_the_message_of_the_last_failure() -> None:
    job = Job(1, "echo")
    job.note_failure(failure(1, "first"))
    job.note_failure(failure(2, "second"))
    assert job.error == "second"


def test_the_last_failures_are_kept() -> None:
    job = Job(1, "echo")
    for attempt in range(1, 101):
        job.note_failure(failure(attempt))
    assert [kept.attempt for kept in job.failures] == list(range(101 - Job.max_failures, 101))
    assert Job.max_failures == 20


def test_a_job_that_is_given_back_waits_by_its_age() -> None:
    job = Job(1, "echo")
    job.created_at = 50.0
    job.start("me", 100.0)
    job.give_back(110.0)
    assert (job.status, job.due, job.attempt, job.owner) == (QUEUED, 50.0, 0, None)


# -- cron jobs ---------------------------------------------------------------------------------


def test_a_cron_job_is_one_of_two_kinds() -> None:
    assert CronJob(1, "echo", minute=(1,)).status == CRONJOB
    assert CronJob(1, "echo").status == CRONJOB
    assert CronJob(1, "echo", delay=10).status == DELAYED
    assert repr(CronJob(3, "echo")) == "<CronJob 3 'echo' cronjob>"


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"minute": (0, 10)}, [(0, "01 00:10"), (600, "01 01:00")]),
        ({"hour": (2, 13)}, [(0, "01 02:00"), (7200, "01 13:00")]),
        ({"dayOfMonth": (1, 12, 21, 30)}, [(0, "12 00:00"), (12 * 86400, "21 00:00")]),
        ({"delay": 10}, [(0, "01 00:00"), (50, "01 00:01")]),
    ],
)
def test_the_time_of_the_next_call_follows_the_schedule(
    fields: dict[str, Any], calls: list[tuple[float, str]]
) -> None:
    job = CronJob(-1, "echo", (), **fields)
    for now, expected in calls:
        assert time.strftime("%d %H:%M", time.gmtime(job.timeOfNextCall(now))) == expected


def test_a_delay_counts_to_the_second() -> None:
    job = CronJob(-1, "echo", (), delay=10)
    assert [job.timeOfNextCall(0), job.timeOfNextCall(1), job.timeOfNextCall(1.5)] == [10, 11, 11.5]


def test_the_next_call_is_counted_from_now_by_default() -> None:
    before = time.time()
    assert before + 10 <= CronJob(1, "echo", delay=10).timeOfNextCall() <= time.time() + 10


@pytest.mark.parametrize("now", ["now", True, float("nan"), float("inf")])
def test_the_next_call_is_counted_from_a_number(now: Any) -> None:
    with pytest.raises(InvalidArgument):
        CronJob(1, "echo", delay=10).timeOfNextCall(now)


@pytest.mark.parametrize(
    "fields",
    [
        {"minute": (60,)},
        {"minute": ("1",)},
        {"minute": 5},
        {"hour": (24,)},
        {"dayOfMonth": (0,)},
        {"month": (13,)},
        {"dayOfWeek": (7,)},
        {"month": (2,), "dayOfMonth": (30, 31)},
        {"delay": -1},
        {"delay": "10"},
        {"delay": True},
        {"delay": float("inf")},
        {"delay": float("nan")},
        {"delay": 10, "minute": (1,)},
        {"cron": "* * * *"},
        {"cron": "* * * * *", "minute": (1,)},
        {"timezone": "No/Where"},
    ],
    ids=repr,
)
def test_an_impossible_schedule_is_refused_and_changes_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchedule):
        CronJob(1, "echo", **fields)
    job = CronJob(1, "echo", minute=(7,))
    before = dict(job.__dict__)
    with pytest.raises(ValueError, match=r"."):
        job.update(**fields)
    assert job.__dict__ == before


def test_an_update_replaces_the_whole_schedule() -> None:
    job = CronJob(1, "echo", minute=(7,), hour=(3,), timezone="Europe/Vienna")
    job.update(dayOfWeek=(0,))
    assert (job.minute, job.hour, job.dayOfWeek, job.timezone) == ((), (), (0,), None)


def test_fields_are_kept_as_tuples_in_order() -> None:
    job = CronJob(1, "echo", minute=[30, 0], hour=range(3))
    assert set(job.minute) == {0, 30}
    assert isinstance(job.minute, tuple)
    assert tuple(job.hour) == (0, 1, 2)


def test_an_update_that_changes_the_kind_counts_once_the_job_waits_anew() -> None:
    job = CronJob(1, "echo", delay=10)
    job.update(minute=(5,))
    assert (job.status, job.delay) == (DELAYED, None)
    job.wait(job.count_from(0))
    assert (job.status, job.due) == (CRONJOB, 300.0)
    job.update(delay=3)
    job.wait(job.count_from(0))
    assert (job.status, job.due, job.minute) == (DELAYED, 3.0, ())


def test_an_update_of_a_running_job_leaves_its_status() -> None:
    job = CronJob(1, "echo", minute=(5,))
    job.wait(job.count_from(0))
    job.start("me", 300.0)
    job.update(minute=(6,))
    assert job.status == PROCESSING
    job.finish(None, 301.0)
    assert (job.status, job.due) == (CRONJOB, 360.0)


def test_a_cron_job_that_is_given_back_is_due_at_once_and_keeps_its_slot() -> None:
    job = CronJob(1, "echo", minute=(0,))
    job.wait(job.count_from(0))
    job.start("me", 3600.0)
    job.give_back(3650.0)
    assert (job.status, job.due, job.attempt, job.missed) == (CRONJOB, 3600.0, 0, 0)
    job.start("me", 3660.0)
    job.finish(None, 3661.0)
    assert (job.due, job.missed) == (7200.0, 0)
