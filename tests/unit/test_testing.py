# SPDX-License-Identifier: ZPL-2.1
"""What applications test with: stubs, a clock, and jobs that run when the test says so."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date, datetime, timezone
from typing import Any

import pytest
import transaction
import ZODB
from zope.component import getGlobalSiteManager

from lovely.remotetask.errors import (
    InvalidArgument,
    JobFailed,
    RetryLater,
    TaskError,
    TaskNotFound,
)
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    DELAYED,
    ERROR,
    QUEUED,
    STARTLATER,
    ITask,
)
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask, task
from lovely.remotetask.testing import (
    ExceptionTask,
    ITaskStub,
    TaskServiceStub,
    assert_added,
    eager,
    moving_clock,
    run_all,
)


@pytest.fixture
def stub() -> TaskServiceStub:
    """A stub that knows the tasks *echo* and *error*, while *real* is a task of others."""

    def fail(input: Any) -> None:
        raise TaskError("An error occurred.")

    register = getGlobalSiteManager().registerUtility
    register(SimpleTask(lambda input: input), ITaskStub, name="echo")
    register(SimpleTask(fail), ITaskStub, name="error")
    register(SimpleTask(lambda input: input), ITask, name="real")
    return TaskServiceStub()


def test_ids_of_a_stub_count_from_one(stub: TaskServiceStub) -> None:
    assert [stub.add("echo") for _ in range(3)] == [1, 2, 3]
    assert stub.addCronJob("echo", delay=5) == 4
    assert stub.add_many("echo", [1, 2]) == [5, 6]
    assert TaskServiceStub().add("echo") == 1


def test_a_stub_knows_the_tasks_of_the_application_and_stubs_in_their_places(
    stub: TaskServiceStub,
) -> None:
    @task("welcome")
    def welcome(user: str) -> str:
        return f"Welcome, {user}"

    @task("send")
    def send(text: str) -> str:
        raise AssertionError("a mail was sent")

    outbox: list[str] = []
    getGlobalSiteManager().registerUtility(SimpleTask(outbox.append), ITaskStub, name="send")
    assert {"echo", "error", "real", "welcome", "send"} <= set(stub.getAvailableTasks())
    assert stub.getAvailableTasks()["send"] is stub.find_task("send")
    jobids = [stub.add(welcome, "Ada"), stub.add(send, "one"), stub.add("send", "two")]
    stub.process()
    assert [stub.getResult(jobid) for jobid in jobids] == ["Welcome, Ada", None, None]
    assert outbox == ["one", "two"]
    with pytest.raises(TaskNotFound):
        stub.add("nobody's")


def test_jobs_of_a_stub_run_when_it_is_told_to(stub: TaskServiceStub) -> None:
    jobid = stub.add("echo", {"foo": "bar"})
    assert stub.getStatus(jobid) == QUEUED
    stub.process()
    assert stub.getStatus(jobid) == COMPLETED
    assert stub.getResult(jobid) == {"foo": "bar"}


def test_jobs_of_a_stub_can_be_cancelled(stub: TaskServiceStub) -> None:
    jobid = stub.add("echo")
    stub.cancel(jobid)
    stub.process()
    assert stub.getStatus(jobid) == CANCELLED


def test_jobs_of_a_stub_can_fail(stub: TaskServiceStub) -> None:
    getGlobalSiteManager().registerUtility(ExceptionTask(), ITaskStub, name="divide")
    jobids = [stub.add("error"), stub.add("divide")]
    stub.process(1000)
    assert [stub.getStatus(jobid) for jobid in jobids] == [ERROR, ERROR]
    assert [stub.getError(jobid) for jobid in jobids] == ["An error occurred.", "division by zero"]


def test_a_stub_has_no_thread(stub: TaskServiceStub) -> None:
    with pytest.raises(NotImplementedError):
        stub.startProcessing()
    with pytest.raises(NotImplementedError):
        stub.stopProcessing()
    assert not stub.isProcessing()


# -- run_all -----------------------------------------------------------------------------------


@pytest.fixture(params=["in a database", "in none"])
def service(request: Any, db: ZODB.DB, register: Any) -> TaskService:
    """A service that knows the tasks *echo*, *fail* and *flaky*."""

    def fail(input: Any) -> None:
        raise TaskError(f"no {input}")

    def flaky(input: list[int]) -> str:
        seen.append(1)
        if len(seen) < 3:
            raise ValueError("not yet")
        return "done"

    seen: list[int] = []
    register("echo", lambda input: input)
    register("fail", fail)
    register("flaky", flaky)
    service = TaskService()
    if request.param == "in a database":
        db.open().root()["tasks"] = service
        transaction.commit()
    return service


def test_all_that_is_due_is_run_and_what_it_adds(service: TaskService, register: Any) -> None:
    register("more", lambda context, input: context.service.add("echo", input), context=True)
    jobids = [service.add("more", 1), service.add("flaky"), service.add("echo", delay=60)]
    ran = run_all(service)
    assert {job.id for job in ran} == {*jobids[:2], service.getResult(jobids[0])}
    assert {job.status for job in ran} == {COMPLETED}
    assert run_all(service) == []
    assert service.getStatus(jobids[2]) == DELAYED


def test_failures_are_raised_when_all_have_run(service: TaskService) -> None:
    failing = service.add("fail", "way")
    others = [service.add("fail", "more"), service.add("echo", 1)]
    with pytest.raises(JobFailed) as caught:
        run_all(service)
    text = str(caught.value)
    assert text.startswith(f"job {failing}, task fail, is error: TaskError: no way\n\nTraceback")
    assert 'raise TaskError(f"no {input}")' in text
    assert f"also failed: job {others[0]}, task fail" in text
    assert isinstance(caught.value.__cause__, TaskError)
    assert service.getStatus(others[1]) == COMPLETED
    service.add("fail", "way")
    assert [job.status for job in run_all(service, raises=False)] == [ERROR]


def test_a_failure_is_raised_though_the_job_waits_to_be_repeated(
    service: TaskService, register: Any
) -> None:
    patient = RetryPolicy(first_wait_seconds=600)
    jobid = service.add("flaky", retry=patient)
    with pytest.raises(JobFailed, match="is queued: ValueError: not yet"):
        run_all(service)
    assert service.getStatus(jobid) == QUEUED

    def ask_again(input: Any) -> None:
        raise RetryLater(600)

    register("ask again", ask_again)
    service.add("ask again")
    assert len(run_all(service)) == 1


# -- the clock ---------------------------------------------------------------------------------


def test_delays_schedules_and_repeats_follow_the_clock(service: TaskService) -> None:
    with moving_clock() as clock:
        clock.set(datetime(2027, 3, 1, 1, 30, tzinfo=timezone.utc))
        assert clock.now.date() == date(2027, 3, 1)
        delayed = service.add("echo", delay=3600)
        nightly = service.ensure("nightly", "echo", cron="0 3 * * *")
        repeated = service.add("flaky", retry=RetryPolicy(first_wait_seconds=600, jitter=0))
        assert [job.id for job in run_all(service, raises=False)] == [repeated]
        clock.move(minutes=10)
        assert [job.id for job in run_all(service, raises=False)] == [repeated]
        clock.move(3600)
        assert {job.id for job in run_all(service)} == {repeated, delayed}
        clock.move(hours=1)
        assert [job.id for job in run_all(service)] == [nightly]
        clock.move(days=1)
        assert [job.id for job in run_all(service)] == [nightly]
    assert abs(time.time() - datetime.now(timezone.utc).timestamp()) < 3600


def test_threads_follow_the_clock_too(workplace: Any) -> None:
    with moving_clock() as clock:
        [jobid] = workplace.add("echo", 1, delay=86_400.0)
        clock.move(days=2)
        workplace.start()
        assert workplace.wait_for([jobid]) == [COMPLETED]
        workplace.stop()


def test_a_clock_is_set_to_an_aware_time() -> None:
    with moving_clock() as clock, pytest.raises(InvalidArgument):
        clock.set(datetime(2027, 3, 1))


# -- eager -------------------------------------------------------------------------------------


def test_eager_jobs_run_when_they_are_added(service: TaskService, register: Any) -> None:
    def more(context: Any, input: int) -> str:
        jobid = context.service.add("echo", input)
        return f"{context.service.getStatus(jobid)} {context.service.getResult(jobid)}"

    register("more", more, context=True)
    before = service.add("echo")
    with eager():
        jobid = service.add("more", 5)
        many = service.add_many("echo", [1, 2])
        delayed = service.add("echo", delay=60)
        later = service.add("echo", startLater=True)
        assert service.getResult(jobid) == "completed 5"
        assert [service.getResult(jobid) for jobid in many] == [1, 2]
    after = service.add("echo")
    assert [service.getStatus(jobid) for jobid in (before, delayed, later, after)] == [
        QUEUED,
        DELAYED,
        STARTLATER,
        QUEUED,
    ]


def test_what_an_eager_job_raises_add_raises(service: TaskService) -> None:
    with eager():
        with pytest.raises(TaskError, match="no way"):
            service.add("fail", "way")
        with pytest.raises(ValueError, match="not yet"):  # it is not repeated
            service.add("flaky")
        with pytest.raises(TaskNotFound):
            service.add("nobody's")


@pytest.mark.parametrize("service", ["in a database"], indirect=True)
def test_what_an_eager_job_has_added_is_taken_back_when_it_fails(
    service: TaskService, register: Any
) -> None:
    def fail_late(context: Any, input: Any) -> None:
        context.service.add("echo", "inner")
        raise TaskError("late")

    register("fail late", fail_late, context=True)
    with eager(), pytest.raises(TaskError):
        service.add("fail late")
    assert [job.task for job in service.jobs.values()] == ["fail late"]


def test_an_eager_group_runs_with_the_job_that_ends_it(service: TaskService, register: Any) -> None:
    def gather(context: Any, input: Any) -> list[Any]:
        return [member.result for member in context.group]

    def add_group(context: Any, input: Any) -> Any:
        groupid = context.service.add_group("echo", [3, 4], then="gather")
        return context.service.getResult(groupid)

    register("gather", gather, context=True)
    register("add group", add_group, context=True)
    with eager():
        assert service.getResult(service.add_group("echo", [1, 2], then="gather")) == [1, 2]
        assert service.getResult(service.add("add group")) == [3, 4]
        with pytest.raises(TaskError):
            service.add_group("fail", [1], then="gather")


def test_an_eager_stub_runs_its_stubs(stub: TaskServiceStub) -> None:
    with eager():
        assert stub.getResult(stub.add("echo", 5)) == 5


# -- assert_added ------------------------------------------------------------------------------


def test_a_job_that_was_added_is_found(service: TaskService) -> None:
    jobids = [service.add("echo", {"to": name}) for name in ("Ada", "Ben")]
    assert assert_added(service, "echo", {"to": "Ada"}).id == jobids[0]
    assert assert_added(service, "echo").id in jobids
    assert_added(service, "echo", times=2)
    assert assert_added(service, "fail", times=0) is None
    assert_added(service, "echo", None, times=0)


def test_what_was_added_instead_is_named(service: TaskService) -> None:
    with pytest.raises(AssertionError, match=r"none was; there is no job at all$"):
        assert_added(service, "echo")
    jobid = service.add("echo", {"to": "Ada"})
    with pytest.raises(AssertionError) as caught:
        assert_added(service, "echo", {"to": "Ben"})
    assert str(caught.value) == (
        "a job of task 'echo' with the input {'to': 'Ben'} should have been added, and none was;"
        f" there are:\n  <Job {jobid} 'echo' queued> with the input {{'to': 'Ada'}}"
    )
    with pytest.raises(AssertionError, match=r"2 jobs of task 'echo' should .* and 1 was"):
        assert_added(service, "echo", times=2)
    service.add_many("echo", range(30))
    with pytest.raises(AssertionError, match="and 21 more"):
        assert_added(service, "echo", times=0)


# -- without pytest ----------------------------------------------------------------------------


def test_nothing_but_the_fixtures_needs_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None;"
        " import lovely.remotetask.testing as testing; print(*testing.__all__)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run_all" in ended.stdout
