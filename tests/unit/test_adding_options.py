# SPDX-License-Identifier: ZPL-2.1
"""What `add` can be told: a function in place of a name, when to run, and a note."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lovely.remotetask.errors import InvalidArgument, TaskNotFound
from lovely.remotetask.interfaces import COMPLETED, DELAYED, QUEUED
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import task


def greet(name: Any) -> str:
    return f"Hello {name}"


def test_a_function_stands_for_its_task(service: TaskService) -> None:
    task("greeting")(greet)
    ids = [service.add(greet, "Ada"), *service.add_many(greet, ["Bea"])]
    ids.append(service.addCronJob(greet, "Cleo", delay=0))
    assert {service.job(jobid).task for jobid in ids} == {"greeting"}
    service.process(time.time() + 1)
    assert [service.getResult(jobid) for jobid in ids] == ["Hello Ada", "Hello Bea", "Hello Cleo"]


def test_a_function_that_is_no_task_is_refused(service: TaskService) -> None:
    for add in (service.add, service.addCronJob):
        with pytest.raises(TaskNotFound, match="no task is registered for <function greet"):
            add(greet)
    with pytest.raises(TaskNotFound):
        service.add_many(greet, [])


def test_a_function_with_two_names_needs_one_of_them(service: TaskService) -> None:
    task("one")(greet)
    task("two")(greet)
    with pytest.raises(InvalidArgument, match="'one', 'two'"):
        service.add(greet)
    assert service.job(service.add("two")).task == "two"


def test_a_job_waits_for_some_seconds(service: TaskService) -> None:
    jobid = service.add("echo", 5, delay=60)
    job = service.job(jobid)
    assert (job.status, job.due) == (DELAYED, job.created_at + 60)
    service.process()
    assert job.status == DELAYED
    service.process(time.time() + 61)
    assert (job.status, job.output) == (COMPLETED, 5)


def test_a_job_waits_until_a_time(service: TaskService) -> None:
    zone = timezone(timedelta(hours=5))
    at = datetime.now(zone) + timedelta(hours=2)
    job = service.job(service.add("echo", at=at))
    assert job.scheduledFor is not None
    assert abs(job.scheduledFor - at) < timedelta(seconds=1)
    past = service.job(service.add("echo", at=at - timedelta(days=1)))
    service.process(time.time() + 1)
    assert (job.status, past.status) == (DELAYED, COMPLETED)


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": "soon"},
        {"at": 5.0},
        {"at": datetime(2030, 1, 1)},
        {"at": datetime(9990, 1, 1, tzinfo=timezone.utc)},
        {"delay": 1, "at": datetime(2030, 1, 1, tzinfo=timezone.utc)},
        {"delay": 1, "startLater": True},
        {"note": 5},
        {"note": "x" * 1001},
    ],
)
def test_what_makes_no_sense_is_refused(service: TaskService, options: Any) -> None:
    with pytest.raises(InvalidArgument):
        service.add("echo", **options)
    assert dict(service.jobs) == {}


def test_a_note_stays_with_the_job(workshop: Any) -> None:
    jobid = workshop.add("echo", note="for the audit")
    assert workshop.get(jobid, "note", "status") == ("for the audit", QUEUED)
    workshop.work()
    assert workshop.get(jobid, "note", "status") == ("for the audit", COMPLETED)
    assert workshop.get(workshop.add("echo", delay=5, note="later"), "note") == "later"
    assert workshop.get(workshop.add("echo"), "note") is None
