# SPDX-License-Identifier: ZPL-2.1
"""Waiting for jobs to end: woken by the commit, in a connection of one's own."""

from __future__ import annotations

import pickle
import threading
from contextlib import closing
from typing import Any

import pytest
import transaction

from lovely.remotetask.engine import waiting
from lovely.remotetask.errors import (
    InvalidArgument,
    JobFailed,
    JobNotDone,
    JobNotFound,
    ServiceNotStored,
    TaskError,
    TransactionInProgress,
)
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.service import TaskService


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits does not look again by himself in the time of a test, but for a moment."""
    monkeypatch.setattr(waiting, "LAST_LOOK_SECONDS", 600.0)
    monkeypatch.setattr(waiting, "LOOK_FACTOR", 1e6)


def wait(place: Any, *arguments: Any, method: str = "wait") -> Any:
    with place.connected() as (_, root):
        return getattr(root["tasks"], method)(*arguments)


class Waiter(threading.Thread):
    """Waits in a thread of its own."""

    def __init__(self, place: Any, *arguments: Any) -> None:
        super().__init__(daemon=True)
        self.status: Any = None
        self._arguments = place, *arguments
        self.start()

    def run(self) -> None:
        self.status = wait(*self._arguments)


def test_a_job_is_waited_for(workplace: Any) -> None:
    workplace.start(waitTime=3600)
    [jobid] = workplace.add("echo", 5)
    assert wait(workplace, jobid, 60) == COMPLETED
    assert wait(workplace, jobid) == COMPLETED


@pytest.mark.parametrize("kind", ["workplace", "file_workplace"])
@pytest.mark.usefixtures("seldom")
def test_who_waits_is_woken_by_the_commit(
    request: pytest.FixtureRequest, until: Any, kind: str
) -> None:
    place = request.getfixturevalue(kind)
    place.start(waitTime=3600)
    [jobid] = place.add("hang", 5)
    waiter = Waiter(place, jobid)
    until(lambda: place.hanging == 1)
    waiter.join(0.5)  # looks for the last time for ten minutes
    place.gate.set()
    waiter.join(60)
    assert waiter.status == COMPLETED


@pytest.mark.usefixtures("seldom")
def test_a_job_that_is_cancelled_wakes_too(workplace: Any) -> None:
    [jobid] = workplace.add("echo", None)
    waiter = Waiter(workplace, jobid)
    waiter.join(0.3)
    with workplace.service() as service:
        service.cancel(jobid)
    waiter.join(60)
    assert waiter.status == CANCELLED


def test_when_the_time_is_over_the_status_is_told(workplace: Any, until: Any) -> None:
    [jobid] = workplace.add("hang", None)
    assert wait(workplace, jobid, 0) == QUEUED
    assert wait(workplace, jobid, 0.01) == QUEUED
    workplace.start()
    until(lambda: workplace.hanging == 1)
    assert wait(workplace, jobid, 0) == PROCESSING
    with pytest.raises(JobNotDone, match="it is processing"):
        wait(workplace, jobid, 0, method="wait_result")


def test_all_of_several_jobs_are_waited_for(workplace: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError

    register("fail", fail)
    workplace.start()
    jobids = [*workplace.add("echo", 1, 2), *workplace.add("fail", 3)]
    statuses = wait(workplace, jobids, 60, method="wait_all")
    assert statuses == dict(zip(jobids, [COMPLETED, COMPLETED, ERROR], strict=True))
    assert wait(workplace, [], method="wait_all") == {}
    [hanging] = workplace.add("hang", None)
    statuses = wait(workplace, [jobids[0], hanging], 0.05, method="wait_all")
    assert statuses[jobids[0]] == COMPLETED
    assert statuses[hanging] in (QUEUED, PROCESSING)


def test_the_caller_sees_what_there_is_now(workplace: Any) -> None:
    workplace.start()
    with workplace.connected() as (manager, root):
        service = root["tasks"]
        jobid = service.add("echo", "result")
        manager.commit()
        assert service.getStatus(jobid) == QUEUED
        assert service.wait(jobid, 60) == COMPLETED
        assert service.getResult(jobid) == "result"
        service.cancel(service.add("echo"))
        manager.commit()


def test_the_result_is_what_the_task_has_returned(workplace: Any) -> None:
    workplace.start()
    [jobid] = workplace.add("echo", {"a": [1]})
    assert wait(workplace, jobid, 60, method="wait_result") == {"a": [1]}
    with workplace.connected() as (_, root):
        root["tasks"].wait_result(jobid)["a"].append(2)
        assert root["tasks"].wait_result(jobid) == {"a": [1]}  # it was a copy


def test_a_failure_tells_where_the_task_has_failed(workplace: Any, register: Any) -> None:
    def stumble_over_this(input: Any) -> None:
        raise TaskError("no such order")

    register("stumble", stumble_over_this)
    workplace.start()
    [jobid] = workplace.add("stumble", None)
    with pytest.raises(JobFailed, match="is error: TaskError: no such order") as raised:
        wait(workplace, jobid, 60, method="wait_result")
    assert "in stumble_over_this" in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with workplace.service() as service:
        cancelled = service.add("echo")
        service.cancel(cancelled)
    with pytest.raises(JobFailed, match=r"is cancelled$"):
        wait(workplace, cancelled, method="wait_result")


def test_nobody_waits_in_a_transaction_with_changes(workplace: Any) -> None:
    with workplace.connected() as (manager, root):
        service = root["tasks"]
        jobid = service.add("echo")
        for method in (service.wait, service.wait_result):
            with pytest.raises(TransactionInProgress):
                method(jobid, 0)
        with pytest.raises(TransactionInProgress):
            service.wait_all([jobid], 0)
        manager.commit()
        assert service.wait(jobid, 0) == QUEUED


def test_one_can_wait_where_transactions_are_begun_explicitly(workplace: Any) -> None:
    workplace.start()
    [jobid] = workplace.add("echo", 1)
    manager = transaction.TransactionManager(explicit=True)
    with closing(workplace.db.open(manager)) as connection:
        manager.begin()
        service = connection.root()["tasks"]
        assert service.wait_result(jobid, 60) == 1
        manager.abort()
        assert service.wait(jobid, 60) == COMPLETED


def test_what_is_not_there_is_not_waited_for(workplace: Any) -> None:
    with pytest.raises(JobNotFound):
        wait(workplace, 4711, 60)
    with pytest.raises(ServiceNotStored):
        TaskService().wait(1)
    for arguments in ([1, -1], [1, "x"], ["x"], [None]):
        with pytest.raises(InvalidArgument):
            wait(workplace, *arguments)
    with pytest.raises(InvalidArgument):
        wait(workplace, 5, method="wait_all")


def test_nothing_is_left_behind(workplace: Any) -> None:
    [jobid] = workplace.add("echo", None)
    before = len(workplace.db._mvcc_storage._instances)
    for _ in range(3):
        wait(workplace, jobid, 0)
    assert len(workplace.db._mvcc_storage._instances) <= before + 2  # connections in the pool
