# SPDX-License-Identifier: ZPL-2.1
"""What applications test with: a service and tasks that are stubs."""

from __future__ import annotations

from typing import Any

import pytest
from zope.component import getGlobalSiteManager

from lovely.remotetask.errors import TaskError, TaskNotFound
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED, ITask
from lovely.remotetask.task import SimpleTask
from lovely.remotetask.testing import ExceptionTask, ITaskStub, TaskServiceStub


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


def test_a_stub_knows_only_stub_tasks(stub: TaskServiceStub) -> None:
    assert set(stub.getAvailableTasks()) == {"echo", "error"}
    with pytest.raises(TaskNotFound):
        stub.add("real")


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
