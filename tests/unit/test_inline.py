# SPDX-License-Identifier: ZPL-2.1
"""The inline form in a database: jobs run in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.POSException import ConflictError

from lovely.remotetask.check import check_all
from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import TaskContext


@pytest.fixture
def root(db: ZODB.DB, register: Any) -> Iterator[Any]:
    """The root of a database with a service at *tasks*, in the thread's own transaction."""
    register("echo", lambda input: input)
    connection = db.open()
    connection.root()["tasks"] = TaskService()
    transaction.commit()
    yield connection.root()
    transaction.abort()
    connection.close()


def write(context: TaskContext, input: Any) -> Any:
    context.service._p_jar.root()["written"] = input
    return input


def test_what_jobs_do_is_committed_by_the_caller(root: Any, register: Any) -> None:
    register("write", write, context=True)
    jobid = root["tasks"].add("write", "something")
    transaction.commit()
    root["tasks"].process()
    assert root["written"] == "something"
    transaction.abort()
    assert "written" not in root
    assert root["tasks"].getStatus(jobid) == QUEUED
    assert root["tasks"].jobs[jobid].attempt == 0
    root["tasks"].process()
    transaction.commit()
    assert root["written"] == "something"
    assert root["tasks"].getStatus(jobid) == COMPLETED


def test_of_a_job_that_fails_nothing_is_kept_but_its_error(root: Any, register: Any) -> None:
    def fail(context: TaskContext, input: Any) -> None:
        write(context, input)
        raise TaskError("no")

    register("fail", fail, context=True)
    register("write", write, context=True)
    root["mine"] = "the caller's own change"
    jobid = root["tasks"].add("fail", "bad")
    root["tasks"].add("write", "good")
    root["tasks"].process()
    transaction.commit()
    assert root["tasks"].getStatus(jobid) == ERROR
    assert root["written"] == "good"
    assert root["mine"] == "the caller's own change"


def test_a_repeat_starts_from_where_the_first_run_started(root: Any, register: Any) -> None:
    seen = []

    def stumble(context: TaskContext, input: Any) -> None:
        seen.append("written" in context.service._p_jar.root())
        write(context, input)
        if len(seen) < 3:
            raise ValueError("no luck")

    register("stumble", stumble, context=True)
    jobid = root["tasks"].add("stumble")
    transaction.commit()
    root["tasks"].process(1000)
    assert seen == [False, False, False]
    assert root["tasks"].getStatus(jobid) == COMPLETED
    assert root["tasks"].jobs[jobid].attempt == 3


def test_a_conflict_is_the_callers_affair(root: Any, register: Any) -> None:
    def conflict(input: Any) -> None:
        raise ConflictError("somebody was faster")

    register("conflict", conflict)
    jobid = root["tasks"].add("conflict")
    transaction.commit()
    with pytest.raises(ConflictError):
        root["tasks"].process()
    transaction.abort()
    assert root["tasks"].getStatus(jobid) == QUEUED


def test_jobs_of_an_aborted_transaction_do_not_exist(root: Any) -> None:
    jobid = root["tasks"].add("echo")
    transaction.abort()
    assert jobid not in root["tasks"].jobs
    assert not root["tasks"].hasJobsWaiting()
    assert set(root["tasks"].countJobs().values()) == {0}


def test_a_claim_that_is_committed_can_be_run_in_the_next_transaction(root: Any) -> None:
    jobid = root["tasks"].add("echo", "something")
    assert root["tasks"].claimNextJob() == jobid
    transaction.commit()
    assert root["tasks"].processNext(jobid=jobid)
    transaction.commit()
    assert root["tasks"].getResult(jobid) == "something"
    assert check_all(root["tasks"], 0, repair=False) == []


def test_a_claimed_job_that_is_cancelled_is_not_run(root: Any, register: Any) -> None:
    calls: list[Any] = []
    register("note", calls.append)
    jobid = root["tasks"].add("note")
    root["tasks"].claimNextJob()
    transaction.commit()
    assert root["tasks"].cancel(jobid) is None
    root["tasks"].processNext(jobid=jobid)
    assert calls == []
    assert root["tasks"].getStatus(jobid) == CANCELLED


def test_a_job_that_aborts_the_transaction_is_run_once(root: Any, register: Any) -> None:
    calls = []

    def abort(input: Any) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise SystemExit("it runs over and over again")
        transaction.abort()

    register("abort", abort)
    jobid = root["tasks"].add("abort")
    transaction.commit()
    try:
        root["tasks"].process()
    except SystemExit:
        pytest.fail("the job was run over and over again")
    assert calls == [1]
    assert root["tasks"].getStatus(jobid) == ERROR


def test_a_task_runs_in_the_site_around_the_service(db: ZODB.DB, root: Any, register: Any) -> None:
    from zope.component.hooks import getSite
    from zope.site.folder import rootFolder
    from zope.site.site import LocalSiteManager

    seen = []
    register("look", lambda input: seen.append(getSite()))
    site = rootFolder()
    site.setSiteManager(LocalSiteManager(site, default_folder=False))
    root["site"] = site
    service = site["tasks"] = TaskService()
    service.add("look")
    root["tasks"].add("look")
    service.process()
    root["tasks"].process()
    assert seen == [site, None]
    assert getSite() is None


def test_a_result_that_cannot_be_stored_harms_nobody_else(root: Any, register: Any) -> None:
    register("make", lambda input: lambda: None, retry=RetryPolicy(attempts=1))
    bad = root["tasks"].add("make")
    good = root["tasks"].add("echo", "fine")
    root["tasks"].process()
    transaction.commit()
    assert root["tasks"].getStatus(bad) == ERROR
    assert root["tasks"].getResult(good) == "fine"


# -- nothing is remembered that did not come to pass ---------------------------------------------


def _aborted(service: TaskService, work: Any) -> None:
    work(service)
    transaction.abort()


def _rolled_back(service: TaskService, work: Any) -> None:
    point = transaction.savepoint()
    work(service)
    point.rollback()


def _rolled_back_after_a_savepoint(service: TaskService, work: Any) -> None:
    point = transaction.savepoint()
    work(service)
    transaction.savepoint()
    work(service)
    point.rollback()
    transaction.commit()


def _aborted_after_a_savepoint(service: TaskService, work: Any) -> None:
    work(service)
    transaction.savepoint()
    work(service)
    transaction.abort()


WORKS: list[Any] = [
    lambda service: service.process(),
    lambda service: service.processNext(),
    lambda service: service.claimNextJob(),
    lambda service: service.hasJobsWaiting(),
    lambda service: [service.cancel(jobid) for jobid in list(service.jobs)],
    lambda service: service.add_many("echo", range(300)),
    lambda service: (service.add_many("echo", range(300)), service.process()),
]


@pytest.mark.parametrize("first", WORKS)
@pytest.mark.parametrize("second", WORKS)
@pytest.mark.parametrize(
    "undone", [_aborted, _rolled_back, _rolled_back_after_a_savepoint, _aborted_after_a_savepoint]
)
def test_what_is_undone_hides_no_job(root: Any, undone: Any, first: Any, second: Any) -> None:
    service = root["tasks"]
    jobids = [*service.add_many("echo", range(40)), *(service.add("echo", 1) for _ in range(40))]
    transaction.commit()
    undone(service, first)
    undone(service, second)
    jobids.append(service.add("echo", 1))  # into a segment of its own, maybe
    transaction.commit()
    assert service.countJobs()[QUEUED] == len(jobids)
    service.process()
    transaction.commit()
    assert service.countJobs()[COMPLETED] == len(jobids)
    assert service.countJobs()[QUEUED] == 0
    assert all(service.getStatus(jobid) == COMPLETED for jobid in jobids)
    assert check_all(service, 4e9, repair=False) == []


def test_a_schedule_is_counted_anew_although_a_look_at_the_clock_was_undone(root: Any) -> None:
    service = root["tasks"]
    jobid = service.addCronJob("echo", minute=(0,))
    now = service.jobs[jobid].created_at
    transaction.commit()
    ahead = now + 400 * 86_400.0
    service.queue.reschedule(service.jobs[jobid], ahead)
    transaction.commit()
    service.process(now)
    assert service.jobs[jobid].due < now + 4000
    transaction.abort()
    assert service.jobs[jobid].due > ahead
    service.process(now)
    transaction.commit()
    assert service.jobs[jobid].due < now + 4000
