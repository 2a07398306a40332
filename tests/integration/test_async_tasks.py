# SPDX-License-Identifier: ZPL-2.1
"""Tasks that are coroutines: in threads, inline, and in other processes."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from zope.component import getGlobalSiteManager
from zope.interface import implementer

from lovely.remotetask.engine import registry
from lovely.remotetask.errors import LoopIsRunning
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED, ITask
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService

language = contextvars.ContextVar("language", default="en")


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


class Waiting:
    """A task that waits for ever, and tells what becomes of it."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended: list[str] = []
        self.threads: list[threading.Thread] = []

    async def __call__(self, context: Any, input: Any) -> None:
        context.root["written"] = input
        self.threads.append(threading.current_thread())
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


@pytest.fixture
def waiting(register: Any) -> Waiting:
    waiting = Waiting()
    register("wait", waiting, context=True)
    return waiting


def test_a_coroutine_and_what_it_writes_are_one_commit(workplace: Any, register: Any) -> None:
    async def write(context: Any, input: Any) -> int:
        await asyncio.sleep(0)
        context.root["written"] = input
        return await asyncio.to_thread(len, input)

    register("write", write, context=True)
    workplace.start()
    [jobid] = workplace.add("write", "text")
    assert workplace.wait_for([jobid]) == [COMPLETED]
    with workplace.transaction() as root:
        assert root["written"] == "text"
        assert root["tasks"].getResult(jobid) == 4


def test_a_cancel_request_cancels_the_coroutine(workplace: Any, waiting: Waiting) -> None:
    workplace.start()
    [jobid] = workplace.add("wait", 1)
    assert waiting.started.wait(60)
    with workplace.service() as service:
        service.cancel(jobid)
    assert workplace.wait_for([jobid]) == [CANCELLED]
    assert waiting.ended == ["cancelled"]
    with workplace.transaction() as root:
        assert "written" not in root


def test_a_coroutine_whose_time_is_over_ends_in_its_thread(
    workplace: Any, register: Any, waiting: Waiting
) -> None:
    register("wait", waiting, context=True, timeout_seconds=0.05)
    workplace.start()
    [jobid] = workplace.add("wait", 1)
    assert workplace.wait_for([jobid]) == [ERROR]
    assert waiting.ended == ["cancelled"]
    with workplace.service() as service:
        assert service.getError(jobid) == "the job ran longer than 0.05 s"
        service.retry(jobid)
    workplace.wait_for([jobid])
    assert waiting.threads[0] is waiting.threads[1]  # it was not given up


def test_a_coroutine_that_does_not_wait_is_given_up_like_any_other(
    workplace: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lovely.remotetask.task.GRACE_SECONDS", 0.05)

    async def block(input: Any) -> None:
        workplace.hang(input)

    register("block", block, timeout_seconds=0.05)
    workplace.start()
    [jobid] = workplace.add("block", 1)
    assert workplace.wait_for([jobid]) == [ERROR]
    with workplace.service() as service:
        assert service.getError(jobid) == "the job ran longer than 0.05 s"
    [other] = workplace.add("echo", 1)
    assert workplace.wait_for([other]) == [COMPLETED]


def test_a_coroutine_runs_on_when_its_service_is_stopped_until_the_process_waits_no_longer(
    workplace: Any, waiting: Waiting, until: Any
) -> None:
    workplace.start()
    [jobid] = workplace.add("wait", 1)
    assert waiting.started.wait(60)
    with workplace.service() as service:
        service.stopProcessing()
    assert waiting.ended == []
    registry.leave(0.05)
    until(lambda: waiting.ended == ["cancelled"], "the end of the coroutine")
    with workplace.service() as service:
        job = service.jobs[jobid]
        assert (job.status, job.attempt, job.deaths) == (QUEUED, 0, 0)
        assert [failure.type for failure in job.failures] == ["JobInterrupted"]


def test_context_variables_are_those_of_the_caller_and_do_not_leak(register: Any) -> None:
    async def speak(input: Any) -> str:
        before = language.get()
        language.set(input)
        await asyncio.sleep(0)
        return f"{before} {language.get()}"

    register("speak", speak)
    service = TaskService()
    token = language.set("de")
    try:
        jobids = [service.add("speak", "fr"), service.add("speak", "it")]
        service.process()
        assert [service.getResult(jobid) for jobid in jobids] == ["de fr", "de it"]
        assert language.get() == "de"
    finally:
        language.reset(token)


def test_a_coroutine_that_fails_is_repeated_as_its_policy_says(register: Any) -> None:
    runs: list[Any] = []

    async def stumble(input: Any) -> str:
        runs.append(input)
        await asyncio.sleep(0)
        if len(runs) < 3:
            raise ConnectionError("not yet")
        return "done"

    register("stumble", stumble, retry=RetryPolicy(first_wait_seconds=0, jitter=0))
    service = TaskService()
    jobid = service.add("stumble")
    service.process()
    assert (service.getResult(jobid), len(runs)) == ("done", 3)


def test_amid_a_running_loop_the_caller_is_told_and_the_job_waits(
    register: Any, workplace: Any
) -> None:
    register("double", double)

    async def work(service: TaskService) -> None:
        jobid = service.add("double", 2)
        with pytest.raises(LoopIsRunning):
            service.process()
        job = service.jobs[jobid]
        assert (job.status, job.attempt, job.failures) == (QUEUED, 0, ())
        if service._p_jar is None:
            await asyncio.to_thread(service.process)
            assert service.getResult(jobid) == 4

    asyncio.run(work(TaskService()))
    with workplace.service() as service:
        asyncio.run(work(service))
        service.process()
        assert service.countJobs()[COMPLETED] == 1


def test_a_coroutine_runs_in_another_process(need: Any, workplace: Any, register: Any) -> None:
    pytest.importorskip("pebble")
    register("double", double, executor="process")
    workplace.start()
    [jobid] = workplace.add("double", 21)
    assert workplace.wait_for([jobid]) == [COMPLETED]
    with workplace.service() as service:
        assert service.getResult(jobid) == 42


@implementer(ITask)
class AsyncTask:
    """A task that is no `SimpleTask`."""

    async def __call__(self, service: Any, jobid: int, input: Any) -> Any:
        await asyncio.sleep(0)
        return jobid, input


def test_a_task_of_any_class_may_be_asynchronous() -> None:
    getGlobalSiteManager().registerUtility(AsyncTask(), ITask, name="async")
    service = TaskService()
    jobid = service.add("async", 5)
    service.process()
    assert service.getResult(jobid) == (jobid, 5)
