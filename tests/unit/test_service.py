# SPDX-License-Identifier: ZPL-2.1
"""The service: adding, asking, cancelling, cleaning, and the inline form of running."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import transaction
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.errors import (
    InvalidArgument,
    JobIsLive,
    JobNotFound,
    ServiceNotStored,
    TaskError,
    TaskNotFound,
)
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
    STARTLATER,
    STATUSES,
    ITask,
)
from lovely.remotetask.processor import SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.tree import MAX_JOB_ID

NO_ID = [0, -1, 4711, 2**31, 2**70, -(2**70), "1", None, 1.5]


@pytest.fixture(autouse=True)
def failing_task(register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError(input or "An error occurred.")

    register("error", fail)


# -- defaults ----------------------------------------------------------------------------------


def test_a_new_service_is_empty_and_at_rest() -> None:
    service = TaskService()
    assert dict(service.jobs) == {}
    assert not service.isProcessing()
    assert (service.__name__, service.__parent__) == (None, None)


def test_the_processor_is_a_simple_one_by_default() -> None:
    service = TaskService()
    assert service.processorFactory is SimpleProcessor
    assert service.processorArguments == {"waitTime": 1.0}
    assert service.taskInterface is ITask


@pytest.mark.usefixtures("empty_registry")
def test_a_service_can_have_an_interface_of_its_own_for_tasks(register: Any) -> None:
    class IMyTask(ITask):
        """Mine."""

    register("echo", lambda input: input)
    mine = register("mine", lambda input: input)
    getGlobalSiteManager().registerUtility(mine, IMyTask, name="mine")
    service = TaskService()
    service.taskInterface = IMyTask
    assert service.getAvailableTasks() == {"mine": mine}
    with pytest.raises(TaskNotFound):
        service.add("echo")


def test_a_service_that_is_not_stored_cannot_start(service: TaskService) -> None:
    with pytest.raises(ServiceNotStored):
        service.startProcessing()
    service.stopProcessing()
    assert not service.isProcessing()


# -- adding ------------------------------------------------------------------------------------


def test_an_added_job_is_queued_and_has_no_result(service: TaskService) -> None:
    jobid = service.add("echo", {"foo": "bar"})
    assert service.getStatus(jobid) == QUEUED
    assert service.getResult(jobid) is None
    assert service.getError(jobid) == "None"
    assert service.getProgress(jobid) is None


def test_all_jobs_are_in_a_mapping(service: TaskService) -> None:
    jobid = service.add("echo")
    assert repr(dict(service.jobs)) == f"{{{jobid}: <Job {jobid} 'echo' queued>}}"
    assert service.jobs[jobid].id == jobid
    assert jobid in service.jobs
    assert len(service.jobs) == 1


@pytest.mark.parametrize("name", ["nobody's", "", None, 5, b"echo"])
def test_a_job_for_an_unknown_task_is_refused(service: TaskService, name: Any) -> None:
    for add in (service.add, service.addCronJob):
        with pytest.raises(ValueError, match="no task is registered under the name"):
            add(name)
    with pytest.raises(TaskNotFound):
        service.add_many(name, [1])
    assert dict(service.jobs) == {}


def test_a_policy_must_be_one(service: TaskService) -> None:
    for add in (service.add, service.addCronJob):
        with pytest.raises(InvalidArgument):
            add("echo", retry=3)
    with pytest.raises(InvalidArgument):
        service.add_many("echo", [1], retry=3)  # type: ignore[arg-type]


def test_many_jobs_can_be_added_at_once(service: TaskService) -> None:
    jobids = service.add_many("echo", (n * n for n in range(5)), RetryPolicy(attempts=2))
    assert len(set(jobids)) == 5
    assert {service.jobs[jobid].retry for jobid in jobids} == {RetryPolicy(attempts=2)}
    service.process()
    assert [service.getResult(jobid) for jobid in jobids] == [0, 1, 4, 9, 16]
    assert service.add_many("echo", []) == []


def test_a_result_is_a_copy(service: TaskService) -> None:
    jobid = service.add("echo", {"bread": [1]})
    service.process()
    service.getResult(jobid)["bread"].append(2)
    assert service.getResult(jobid) == {"bread": [1]}


# -- ids ---------------------------------------------------------------------------------------


def test_ids_come_in_runs_from_a_random_start(
    service: TaskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def choose(*bounds: int) -> int:
        asked.append(bounds)
        return 1_392_637_175

    monkeypatch.setattr(random, "randrange", choose)
    assert [service.add("echo") for _ in range(3)] == [1392637175, 1392637176, 1392637177]
    assert asked == [(1, 2**31)]


def test_an_id_that_is_taken_is_jumped_over(
    service: TaskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = [10, 12, 10, 500]
    monkeypatch.setattr(random, "randrange", lambda *bounds: starts.pop(0))
    first = service.add("echo")
    service._v_next_id = None
    assert [first, service.add("echo")] == [10, 12]
    service._v_next_id = 11
    assert service.add("echo") == 11
    # 12 is taken, and so is the next start, 10.
    assert service.add("echo") == 500


def test_many_jobs_are_a_run_also_after_an_abort(db: Any, register: Any) -> None:
    register("echo", lambda input: input)
    service = db.open().root()["tasks"] = TaskService()
    transaction.commit()
    for adds in (service.add_many, lambda task, inputs: [service.add(task) for _ in inputs]):
        adds("echo", range(50))
        transaction.abort()
        with transaction.manager:
            jobids = adds("echo", range(50))
        assert jobids == list(range(jobids[0], jobids[0] + 50))


def test_ids_end_at_31_bits(service: TaskService, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = [MAX_JOB_ID, 1]
    monkeypatch.setattr(random, "randrange", lambda *bounds: starts.pop(0))
    assert [service.add("echo") for _ in range(3)] == [2**31 - 1, 1, 2]


# -- start later -------------------------------------------------------------------------------


def test_a_job_can_wait_for_its_start(service: TaskService) -> None:
    jobid = service.add("echo", {"foo": "bar"}, startLater=True)
    assert service.getStatus(jobid) == STARTLATER
    service.process()
    assert service.getStatus(jobid) == STARTLATER
    assert service.getResult(jobid) is None
    assert service.startJob(jobid) is True
    assert service.getStatus(jobid) == QUEUED
    assert service.startJob(jobid) is False
    service.process()
    assert service.getStatus(jobid) == COMPLETED
    assert service.getResult(jobid) == {"foo": "bar"}
    assert service.getError(jobid) == "None"
    assert service.startJob(jobid) is False


def test_a_started_job_lines_up_behind_those_that_wait(service: TaskService) -> None:
    later = service.add("echo", startLater=True)
    first = service.add("echo")
    service.startJob(later)
    assert [service.claimNextJob(), service.claimNextJob()] == [first, later]


# -- cancelling --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("add", "status"),
    [
        (lambda service: service.add("echo"), QUEUED),
        (lambda service: service.add("echo", startLater=True), STARTLATER),
        (lambda service: service.addCronJob("echo", delay=10), DELAYED),
        (lambda service: service.addCronJob("echo", minute=(10,)), CRONJOB),
    ],
    ids=[QUEUED, STARTLATER, DELAYED, CRONJOB],
)
def test_a_job_that_waits_is_cancelled_at_once(service: TaskService, add: Any, status: str) -> None:
    jobid = add(service)
    assert service.getStatus(jobid) == status
    assert service.cancel(jobid) is None
    assert not service.jobs[jobid].is_cancel_requested
    assert service.getStatus(jobid) == CANCELLED
    assert service.jobs[jobid].completed is not None
    service.process(10**10)
    assert service.getStatus(jobid) == CANCELLED
    assert {name: n for name, n in service.countJobs().items() if n} == {CANCELLED: 1}


def test_a_job_that_waits_for_a_repeat_is_cancelled_at_once(
    service: TaskService, register: Any
) -> None:
    register("fail", lambda input: 1 / 0)
    jobid = service.add("fail", retry=RetryPolicy(first_wait_seconds=100, jitter=0))
    service.process(1000)
    assert service.getStatus(jobid) == QUEUED
    service.cancel(jobid)
    assert service.getStatus(jobid) == CANCELLED
    service.process(10**10)
    assert service.jobs[jobid].attempt == 1


def test_a_parked_job_is_cancelled_at_once(service: TaskService, register: Any) -> None:
    register("late", lambda input: input)
    jobid = service.add("late")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    service.process()
    assert service.getStatus(jobid) == QUEUED
    assert service.countJobs()[QUEUED] == 1
    service.cancel(jobid)
    assert service.getStatus(jobid) == CANCELLED
    register("late", lambda input: input)
    service.process()
    assert service.getStatus(jobid) == CANCELLED
    assert service.countJobs()[QUEUED] == 0


def test_a_running_job_is_only_asked_to_stop(service: TaskService) -> None:
    jobid = service.add("echo")
    assert service.claimNextJob() == jobid
    assert not service.jobs[jobid].is_cancel_requested
    assert service.cancel(jobid) is None
    assert service.jobs[jobid].is_cancel_requested
    assert service.getStatus(jobid) == PROCESSING
    assert list(service.requests) == [jobid]


def test_what_has_ended_cannot_be_cancelled(service: TaskService) -> None:
    jobids = [service.add("echo"), service.add("error"), service.add("echo")]
    service.cancel(jobids[2])
    service.process()
    before = [service.getStatus(jobid) for jobid in jobids]
    assert before == [COMPLETED, ERROR, CANCELLED]
    assert [service.cancel(jobid) for jobid in jobids] == [None] * 3
    assert [service.getStatus(jobid) for jobid in jobids] == before
    assert not any(job.is_cancel_requested for job in service.jobs.values())
    assert len(service.requests) == 0


@pytest.mark.parametrize("jobid", NO_ID)
def test_cancelling_an_unknown_job_does_nothing(service: TaskService, jobid: Any) -> None:
    assert service.cancel(jobid) is None
    assert len(service.requests) == 0


@pytest.mark.parametrize("jobid", NO_ID)
@pytest.mark.parametrize(
    "ask", ["getStatus", "getResult", "getError", "getProgress", "startJob", "reschedule"]
)
def test_asking_for_an_unknown_job_is_a_key_error(
    service: TaskService, ask: str, jobid: Any
) -> None:
    with pytest.raises(KeyError) as caught:
        getattr(service, ask)(jobid)
    assert isinstance(caught.value, JobNotFound)
    assert str(caught.value) == f"there is no job {jobid!r}"


# -- cleaning ----------------------------------------------------------------------------------


@pytest.fixture
def jobids(service: TaskService) -> dict[str, int]:
    """A job of each status but *processing*: status -> id."""
    jobids = {
        COMPLETED: service.add("echo"),
        ERROR: service.add("error"),
        CANCELLED: service.add("echo", startLater=True),
    }
    service.cancel(jobids[CANCELLED])
    service.process()
    jobids[STARTLATER] = service.add("echo", startLater=True)
    jobids[DELAYED] = service.addCronJob("echo", delay=10)
    jobids[CRONJOB] = service.addCronJob("echo", minute=(10,))
    jobids[QUEUED] = service.add("echo")
    return jobids


def test_cleaning_removes_all_that_has_ended(service: TaskService, jobids: dict[str, int]) -> None:
    assert service.clean() is None
    assert set(service.jobs) == {
        jobid for status, jobid in jobids.items() if status not in FINAL_STATUSES
    }


@pytest.mark.parametrize("status", FINAL_STATUSES)
@pytest.mark.parametrize("form", [str, lambda status: [status], lambda status: (status,)])
def test_one_status_can_be_cleaned(
    service: TaskService, jobids: dict[str, int], status: str, form: Any
) -> None:
    service.clean(form(status))
    assert set(service.jobs) == set(jobids.values()) - {jobids[status]}


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in FINAL_STATUSES])
def test_jobs_that_are_still_needed_are_not_cleaned(
    service: TaskService, jobids: dict[str, int], status: str
) -> None:
    for statuses in (status, [status], [COMPLETED, status]):
        with pytest.raises(ValueError, match="still needed") as caught:
            service.clean(statuses)
        assert isinstance(caught.value, JobIsLive)
        assert set(service.jobs) == set(jobids.values())
    with pytest.raises(JobIsLive):
        service.remove_oldest(status)


def test_an_unknown_status_is_refused(service: TaskService, jobids: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no status 'done'"):
        service.clean([COMPLETED, "done"])
    with pytest.raises(ValueError, match="no status 'done'"):
        service.remove_oldest("done")
    with pytest.raises(ValueError, match="no status 5"):
        service.retention = {5: Retention()}  # type: ignore[dict-item]
    assert set(service.jobs) == set(jobids.values())


def test_cleaning_nothing_removes_nothing(service: TaskService, jobids: dict[str, int]) -> None:
    service.clean([])
    assert set(service.jobs) == set(jobids.values())


def test_the_oldest_jobs_can_be_removed_a_few_at_a_time(service: TaskService) -> None:
    jobids = service.add_many("echo", range(5))
    for now, jobid in enumerate(jobids, start=2_000_000_000):
        service.processNext(now)
        assert service.jobs[jobid].completed_at == now
    assert service.remove_oldest(COMPLETED, limit=2) == 2
    assert set(service.jobs) == set(jobids[2:])
    assert service.remove_oldest(COMPLETED, before=2_000_000_003) == 1
    assert set(service.jobs) == set(jobids[3:])
    assert service.remove_oldest(COMPLETED) == 2
    assert service.remove_oldest(COMPLETED) == 0


# -- counting ----------------------------------------------------------------------------------


def test_jobs_are_counted_by_status(service: TaskService, jobids: dict[str, int]) -> None:
    expected = {status: int(status in jobids) for status in STATUSES}
    assert service.countJobs() == expected
    assert list(service.countJobs()) == list(STATUSES)
    service.claimNextJob()
    assert service.countJobs() == {**expected, QUEUED: 0, PROCESSING: 1}
    service.clean()
    assert sum(service.countJobs().values()) == 4


# -- running -----------------------------------------------------------------------------------


def test_parked_jobs_are_counted_by_their_status_too(
    service: TaskService, register: Any, empty_registry: None
) -> None:
    late = register("late", lambda input: input)
    jobids = [
        service.add("late"),
        service.addCronJob("late", delay=0),
        service.addCronJob("late", minute=(0,)),
    ]
    before = service.countJobs()
    getGlobalSiteManager().unregisterUtility(late, ITask, name="late")
    now = time.time() + 3600
    service.process(now)
    assert {place for job in service.jobs.values() if (place := job.place)} == {
        *service.queue.parked
    }
    assert service.countJobs() == before
    assert (before[QUEUED], before[DELAYED], before[CRONJOB]) == (1, 1, 1)
    assert not service.hasJobsWaiting(now)
    register("late", lambda input: input)
    assert service.hasJobsWaiting(now)
    service.process(now)
    assert [service.getStatus(jobid) for jobid in jobids] == [COMPLETED, COMPLETED, CRONJOB]
    assert not len(service.queue.parked)
    assert check_all(service, now, repair=False) == []


def test_processing_runs_all_jobs_in_order(service: TaskService, register: Any) -> None:
    ran: list[int] = []
    register("note", ran.append)
    service.add_many("note", range(200))
    assert service.process() is None
    assert ran == list(range(200))


def test_processing_runs_jobs_that_jobs_add(service: TaskService, register: Any) -> None:
    register(
        "chain",
        lambda context, input: input and context.service.add("chain", input - 1),
        context=True,
    )
    service.add("chain", 3)
    service.process()
    assert service.countJobs()[COMPLETED] == 4


def test_one_job_can_be_run_at_a_time(service: TaskService) -> None:
    jobids = service.add_many("echo", range(2))
    assert service.processNext() is True
    assert [service.getStatus(jobid) for jobid in jobids] == [COMPLETED, QUEUED]
    assert service.processNext() is True
    assert service.processNext() is False


def test_a_job_can_be_claimed_first_and_run_afterwards(service: TaskService) -> None:
    first, second = service.add_many("echo", range(2))
    assert service.claimNextJob() == first
    assert service.getStatus(first) == PROCESSING
    assert service.processNext(jobid=second) is False
    assert service.processNext(jobid=first) is True
    assert service.getStatus(first) == COMPLETED
    assert service.processNext(jobid=first) is False
    assert not service.workers
    with pytest.raises(JobNotFound):
        service.processNext(jobid=4711)


def test_nothing_is_claimed_where_nothing_waits(service: TaskService) -> None:
    assert service.claimNextJob() is None
    service.add("echo", startLater=True)
    service.addCronJob("echo", delay=1000)
    assert service.claimNextJob() is None
    assert not service.workers


def test_a_service_tells_whether_jobs_wait(service: TaskService) -> None:
    assert not service.hasJobsWaiting()
    service.add("echo", startLater=True)
    assert not service.hasJobsWaiting()
    service.add("echo")
    assert service.hasJobsWaiting()
    service.claimNextJob()
    assert not service.hasJobsWaiting()


def test_a_parked_job_waits_again_when_its_task_is_there(
    service: TaskService, register: Any
) -> None:
    register("late", lambda input: input)
    service.add("late")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    service.process()
    assert not service.hasJobsWaiting()
    register("late", lambda input: input)
    assert service.hasJobsWaiting()


@pytest.mark.parametrize("now", ["0", True, float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["process", "processNext", "claimNextJob", "hasJobsWaiting"])
def test_now_is_a_number_of_seconds(service: TaskService, method: str, now: Any) -> None:
    service.add("echo")
    with pytest.raises(InvalidArgument):
        getattr(service, method)(now)


def test_a_failed_job_is_an_error(service: TaskService) -> None:
    jobid = service.add("error")
    service.process()
    assert service.getStatus(jobid) == ERROR
    assert service.getError(jobid) == "An error occurred."
    assert service.getResult(jobid) is None


def test_quick_repeats_follow_at_once(service: TaskService, register: Any) -> None:
    calls = []

    def fail(input: Any) -> None:
        calls.append(1)
        raise ValueError("no luck")

    register("fail", fail)
    jobid = service.add("fail")
    service.process(1000)
    assert len(calls) == 4
    assert service.getStatus(jobid) == ERROR
    assert len(service.jobs[jobid].failures) == 4


def test_a_cancel_request_holds_for_a_job_that_was_claimed(service: TaskService) -> None:
    jobid = service.add("error")
    service.claimNextJob()
    service.cancel(jobid)
    service.processNext(jobid=jobid)
    assert service.getStatus(jobid) == CANCELLED
    assert list(service.requests) == []
    assert not service.jobs[jobid].is_cancel_requested
