# SPDX-License-Identifier: ZPL-2.1
"""What has happened to jobs is told when it was committed."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import zope.event
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask import events
from lovely.remotetask.engine import telling
from lovely.remotetask.errors import RetryLater, TaskError
from lovely.remotetask.events import (
    JobAdded,
    JobAttemptFailed,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobRescued,
    JobStarted,
)
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    ERROR,
    PROCESSING,
    QUEUED,
    IJobAdded,
    IJobAttemptFailed,
    IJobCancelled,
    IJobCompleted,
    IJobEvent,
    IJobFailed,
    IJobRescued,
    IJobStarted,
)
from lovely.remotetask.remote.scheduler import Cron
from lovely.remotetask.retry import MAX_DEATHS, RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """The events that a subscriber hears."""
    heard: list[Any] = []

    def hear(event: Any) -> None:
        if isinstance(event, JobEvent):
            heard.append(event)

    zope.event.subscribers.append(hear)
    yield heard
    zope.event.subscribers.remove(hear)


@pytest.fixture(autouse=True)
def fail(register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)


def kinds(heard: list[Any]) -> list[str]:
    return [type(event).__name__ for event in heard]


# -- what is told ------------------------------------------------------------------------------


def test_a_job_is_added_started_and_completed(workshop: Any, heard: list[Any]) -> None:
    jobid = workshop.add("echo", 5)
    workshop.work()
    assert kinds(heard) == ["JobAdded", "JobStarted", "JobCompleted"]
    added, started, completed = heard
    oid = workshop.path.oid
    assert {(e.service, e.database_name, e.service_oid) for e in heard} == {
        ("tasks", "unnamed", oid)
    }
    assert {(e.jobid, e.name, e.task) for e in heard} == {(jobid, str(jobid), "echo")}
    assert [(e.status, e.attempt) for e in heard] == [(QUEUED, 0), (PROCESSING, 1), (COMPLETED, 1)]
    assert started.time == completed.time == workshop.now
    assert added.time < started.time
    assert completed.seconds == 0.0


def test_events_are_plain_data(workshop: Any, heard: list[Any]) -> None:
    workshop.add("fail")
    workshop.work()
    assert pickle.loads(pickle.dumps(heard)) == heard


def test_each_kind_has_its_interface() -> None:
    pairs = {
        JobAdded: IJobAdded,
        JobStarted: IJobStarted,
        JobCompleted: IJobCompleted,
        JobAttemptFailed: IJobAttemptFailed,
        JobFailed: IJobFailed,
        JobCancelled: IJobCancelled,
        JobRescued: IJobRescued,
    }
    for kind, interface in pairs.items():
        assert interface.implementedBy(kind)
        assert interface.extends(IJobEvent)
        assert set(interface.names(all=True)) == set(kind.__dataclass_fields__)


def test_many_jobs_are_told_of_one_by_one(workshop: Any, heard: list[Any]) -> None:
    with workshop.service() as service:
        jobids = service.add_many("echo", range(3))
    assert [event.jobid for event in heard] == jobids


def test_a_failed_attempt_and_the_end_of_a_job_are_two_things(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    register("stumble", lambda input: 1 / 0, retry=RetryPolicy(2, 0.0))
    workshop.add("stumble")
    for _ in range(2):
        workshop.work()
        workshop.now += 5
    assert kinds(heard) == ["JobAdded", "JobStarted", "JobAttemptFailed", "JobStarted", "JobFailed"]
    assert (heard[2].status, heard[4].status) == (QUEUED, ERROR)
    assert [event.failure.type for event in (heard[2], heard[4])] == ["ZeroDivisionError"] * 2


def test_those_that_wait_in_vain_for_a_job_have_failed_too(workshop: Any, heard: list[Any]) -> None:
    first = workshop.add("fail")
    second = workshop.add("echo", after=first)
    third = workshop.add("echo", after=second)
    workshop.work()
    late = workshop.add("echo", after=first)
    failed = [event for event in heard if isinstance(event, JobFailed)]
    assert [event.jobid for event in failed] == [first, second, third, late]
    assert {(event.status, event.attempt) for event in failed[1:]} == {(ERROR, 0)}
    assert all(event.failure.type == "JobFailed" for event in failed[1:])
    assert kinds(heard)[-2:] == ["JobAdded", "JobFailed"]


def test_one_whose_predecessor_is_gone_has_failed_when_it_comes_to_be_claimed(
    workshop: Any, heard: list[Any]
) -> None:
    first = workshop.add("echo")
    second = workshop.add("echo", after=first)
    with workshop.service() as service:
        del service.jobs[first]
        check_all(service, workshop.now, repair=True)
    workshop.work()
    assert [event.jobid for event in heard if isinstance(event, JobFailed)] == [second]


def test_who_asks_to_be_run_again_has_failed_an_attempt(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    def later(input: Any) -> None:
        raise RetryLater(60)

    register("later", later)
    workshop.add("later")
    workshop.work()
    assert kinds(heard)[-1] == "JobAttemptFailed"


def test_runs_of_a_schedule_tell_that_it_goes_on(workshop: Any, heard: list[Any]) -> None:
    workshop.add_cron_job("echo", minute=(0,))
    workshop.add_cron_job("fail", minute=(0,))
    workshop.now += 3600
    workshop.work()
    ended = [event for event in heard if type(event) in (JobCompleted, JobAttemptFailed)]
    assert {(event.task, type(event), event.status) for event in ended} == {
        ("echo", JobCompleted, CRONJOB),
        ("fail", JobAttemptFailed, CRONJOB),
    }


def test_a_waiting_job_is_cancelled(workshop: Any, heard: list[Any]) -> None:
    jobid = workshop.add("echo")
    with workshop.service() as service:
        service.cancel(jobid)
        assert kinds(heard) == ["JobAdded"]
    assert kinds(heard) == ["JobAdded", "JobCancelled"]
    assert heard[-1].status == CANCELLED


def test_a_running_job_is_cancelled_when_it_has_heeded_that(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    def heed(context: Any, input: Any) -> None:
        with workshop.service() as service:
            service.cancel(jobid)
        context.check_cancelled()

    register("heed", heed, context=True)
    jobid = workshop.add("heed")
    workshop.work()
    assert kinds(heard) == ["JobAdded", "JobStarted", "JobCancelled"]


def test_a_schedule_is_cancelled_behind_a_run_that_has_not_heeded_it(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    def ignore(input: Any) -> None:
        with workshop.service() as service:
            service.cancel(jobid)

    register("ignore", ignore)
    jobid = workshop.add_cron_job("ignore", minute=(0,))
    workshop.now += 3600
    workshop.work()
    assert kinds(heard) == ["JobAdded", "JobStarted", "JobCompleted", "JobCancelled"]


def test_a_rescue_is_told_of_and_the_end_that_it_may_be(workshop: Any, heard: list[Any]) -> None:
    workshop.add("echo")
    for _ in range(MAX_DEATHS):
        workshop.now += 1000
        workshop.claim()
        dead = workshop.engine.claims.identity.id
        workshop.engine = workshop.new_engine()
        workshop.engine.upkeep.free(workshop.session, [dead])
    assert kinds(heard) == ["JobAdded", "JobRescued", "JobRescued", "JobRescued", "JobFailed"]
    assert [event.status for event in heard[1:]] == [QUEUED, QUEUED, ERROR, ERROR]
    assert heard[-1].failure.type == "WorkerDied"


def test_jobs_that_share_a_commit_are_told_of_behind_it(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    register("share", lambda input: input, shared_commit=True)
    jobids = [workshop.add("share") for _ in range(2)]
    claims = workshop.reserve()
    heard.clear()
    workshop.run_together(claims)
    assert [(type(event), event.jobid) for event in heard] == [
        (kind, jobid) for jobid in jobids for kind in (JobStarted, JobCompleted)
    ]


# -- only what was committed -------------------------------------------------------------------


def test_nothing_is_told_before_the_commit_and_nothing_of_what_is_aborted(
    workshop: Any, heard: list[Any]
) -> None:
    with workshop.connected() as (manager, root):
        root["tasks"].add("echo")
        assert heard == []
        manager.abort()
        root["tasks"].add("echo")
        manager.commit()
    assert kinds(heard) == ["JobAdded"]


def test_nothing_is_told_of_what_went_back_to_a_savepoint(workshop: Any, heard: list[Any]) -> None:
    with workshop.connected() as (manager, root):
        before_all = manager.savepoint()
        root["tasks"].add("echo")
        before_all.rollback()
        kept = root["tasks"].add("echo")
        point = manager.savepoint()
        root["tasks"].add("echo")
        root["tasks"].cancel(kept)
        point.rollback()
        manager.commit()
    assert [(type(event), event.jobid) for event in heard] == [(JobAdded, kept)]


def test_a_run_that_is_repeated_is_told_of_once(
    workshop: Any, heard: list[Any], fail_commits: Any
) -> None:
    workshop.add("echo")
    [claim] = workshop.claim()
    heard.clear()
    fail_commits(ConflictError(), ConflictError())
    workshop.run(claim)
    assert kinds(heard) == ["JobStarted", "JobCompleted"]


def test_what_a_task_adds_is_told_of_with_its_run_and_not_at_all_if_it_fails(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    def add(context: Any, input: Any) -> None:
        context.service.add("echo")
        if input == "fail":
            raise TaskError("no")

    register("add", add, context=True)
    workshop.add("add", "fail")
    workshop.add("add")
    heard.clear()
    assert len(workshop.work()) == 3
    assert kinds(heard) == [
        *("JobStarted", "JobFailed"),
        *("JobStarted", "JobAdded", "JobCompleted"),
        *("JobStarted", "JobCompleted"),
    ]


def test_inline_runs_are_told_of_behind_the_callers_commit(
    workshop: Any, heard: list[Any], register: Any
) -> None:
    def add(context: Any, input: Any) -> None:
        context.service.add("echo", startLater=True)
        raise TaskError("no")

    register("add", add, context=True)
    workshop.add("echo")
    workshop.add("add")
    heard.clear()
    with workshop.service() as service:
        service.process(workshop.now)
        assert heard == []
    assert kinds(heard) == ["JobStarted", "JobCompleted", "JobStarted", "JobFailed"]


def test_a_service_that_is_stored_with_its_jobs_is_named_too(db: Any, heard: list[Any]) -> None:
    connection = db.open()
    service = connection.root()["shop"] = TaskService()
    service.add("fail")
    transaction.commit()
    [event] = heard
    assert (event.service, event.service_oid) == ("shop", service._p_oid)
    connection.close()


def test_a_service_in_no_database_tells_nothing(service: TaskService, heard: list[Any]) -> None:
    service.add("echo")
    service.process()
    transaction.commit()
    assert heard == []


# -- subscribers -------------------------------------------------------------------------------


def test_a_subscriber_that_fails_is_logged_and_breaks_nothing(
    workshop: Any, heard: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(event: Any) -> None:
        raise SystemExit("in vain")

    zope.event.subscribers.insert(0, stumble)
    try:
        jobid = workshop.add("echo")
        workshop.work()
    finally:
        zope.event.subscribers.remove(stumble)
    assert kinds(heard) == ["JobAdded", "JobStarted", "JobCompleted"]
    assert workshop.get(jobid, "status") == COMPLETED
    assert f"a subscriber has failed to hear of job {jobid} (JobStarted)" in caplog.messages


def test_handlers_of_components_hear_of_the_kinds_that_they_name(workshop: Any) -> None:
    heard: list[Any] = []
    getGlobalSiteManager().registerHandler(heard.append, (IJobCompleted,))
    workshop.add("echo")
    workshop.work()
    assert kinds(heard) == ["JobCompleted"]


def test_where_nobody_listens_nothing_is_noted(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Cron  # whose module subscribes to other events
    assert not any(map(events.is_heard, (JobAdded, JobCompleted)))
    monkeypatch.setattr(telling, "Notes", None)
    workshop.add("echo")
    workshop.work()


# -- the log -----------------------------------------------------------------------------------


def test_the_traceback_of_a_job_that_is_an_error_is_logged_once(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    register("stumble", lambda input: 1 / 0, retry=RetryPolicy(2, 0.0))
    with caplog.at_level(logging.INFO, "remotetask.job"):
        workshop.add("stumble")
        for _ in range(2):
            workshop.work()
            workshop.now += 5
    first, last = [m for m in caplog.messages if "failed" in m]
    assert first.endswith("attempt 1 failed: division by zero")
    assert last.count("Traceback (most recent call last)") == 1
    assert last.splitlines()[0].endswith("attempt 2 failed: division by zero")
