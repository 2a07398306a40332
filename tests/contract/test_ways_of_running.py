# SPDX-License-Identifier: ZPL-2.1
"""One suite over all ways of running jobs, in all kinds of storages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConnectionStateError
from zope.component import getGlobalSiteManager
from zope.component.hooks import getSite, setSite

from lovely.remotetask.base.site import path_to
from lovely.remotetask.errors import TaskError, TransactionMeddled
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    ERROR,
    FINAL_STATUSES,
    QUEUED,
    STARTLATER,
    ITask,
)
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.ready import SEGMENT_SIZE

AT_ONCE = RetryPolicy(first_wait_seconds=0)

Work = Callable[[], None]


@pytest.fixture(
    params=["inline", "claimed inline", "simple, step", "multi, step", "simple", "multi"]
)
def work(request: pytest.FixtureRequest, place: Any, until: Any) -> Iterator[Work]:
    """Return a function that runs all jobs that are ready."""

    def inline() -> None:
        with place.service() as service:
            service.process()

    def claimed_inline() -> None:
        while True:
            with place.service() as service:
                jobid = service.claimNextJob()
            if jobid is None:
                return
            with place.service() as service:
                assert service.processNext(jobid=jobid)

    with place.service() as service:
        path = path_to(service)
    kind = MultiProcessor if request.param.startswith("multi") else SimpleProcessor
    processor = kind(place.db, path, waitTime=0.02)

    def step() -> None:
        while processor.processNext():
            pass

    def has_rested() -> bool:
        with place.service() as service:
            counts = service.countJobs()
            done = sum(counts[status] for status in (*FINAL_STATUSES, STARTLATER, CRONJOB))
            parked = sum(map(len, service.queue.parked.values()))
            is_all = done + parked == len(service.jobs)
            return is_all and not service.hasJobsWaiting() and not service.workers

    threads = []

    def in_threads() -> None:
        if not threads:
            threads.append(threading.Thread(target=processor, daemon=True))
            threads[0].start()
        until(has_rested)

    ways = {
        "inline": inline,
        "claimed inline": claimed_inline,
        "simple, step": step,
        "multi, step": step,
    }
    yield ways.get(request.param, in_threads)
    processor.stop()
    for thread in [*threads, processor.maintenance_thread]:
        if thread is not None:
            thread.join(10)
            assert not thread.is_alive()


def add(place: Any, task: str, *inputs: Any, **options: Any) -> list[int]:
    with place.service() as service:
        return [service.add(task, input, **options) for input in inputs]


def statuses(place: Any, jobids: list[int]) -> list[str]:
    with place.service() as service:
        return [service.getStatus(jobid) for jobid in jobids]


@pytest.fixture(autouse=True)
def tasks(place: Any, register: Any) -> Iterator[None]:
    register("echo", lambda input: input)

    def fail(input: Any) -> None:
        raise TaskError("An error occurred.")

    register("error", fail)
    yield
    with place.service() as service:
        assert check_all(service, 0, repair=False) == []


def test_results_are_kept(place: Any, work: Work) -> None:
    jobids = add(place, "echo", *range(10))
    work()
    with place.service() as service:
        assert [service.getResult(jobid) for jobid in jobids] == list(range(10))
        assert {service.getError(jobid) for jobid in jobids} == {"None"}
        assert service.countJobs()[COMPLETED] == 10
        assert {service.jobs[jobid].attempt for jobid in jobids} == {1}


def test_errors_are_kept(place: Any, work: Work) -> None:
    [bad] = add(place, "error", None)
    [good] = add(place, "echo", None)
    work()
    assert statuses(place, [bad, good]) == [ERROR, COMPLETED]
    with place.service() as service:
        assert service.getError(bad) == "An error occurred."
        assert service.getResult(bad) is None


def test_effects_of_a_failing_attempt_are_not_kept(place: Any, work: Work, register: Any) -> None:
    lock, attempts = threading.Lock(), []

    def stumble(context: Any, input: Any) -> int:
        counter = context.service._p_jar.root()["counter"]
        counter["n"] = counter.get("n", 0) + 1
        with lock:
            attempts.append(context.attempt)
        if len(attempts) < 3:
            raise ValueError("no luck")
        return int(counter["n"])

    register("stumble", stumble, context=True, retry=AT_ONCE)
    with place.connected() as (manager, root):
        root["counter"] = PersistentMapping()
        manager.commit()
    [jobid] = add(place, "stumble", None)
    work()
    with place.service() as service:
        assert service.getResult(jobid) == 1
        assert service.jobs[jobid].attempt == 3
    assert attempts == [1, 2, 3]


def test_a_job_is_given_up_after_its_attempts(place: Any, work: Work, register: Any) -> None:
    register("fail", lambda input: 1 / 0, retry=AT_ONCE)
    [jobid] = add(place, "fail", None)
    work()
    with place.service() as service:
        assert service.getStatus(jobid) == ERROR
        assert service.getError(jobid) == "division by zero"
        assert len(service.jobs[jobid].failures) == 4


def test_cancelled_jobs_are_not_run(place: Any, work: Work, register: Any) -> None:
    ran: list[int] = []
    register("note", ran.append)
    jobids = add(place, "note", 1, 2, 3)
    with place.service() as service:
        service.cancel(jobids[1])
    work()
    assert sorted(ran) == [1, 3]
    assert statuses(place, jobids) == [COMPLETED, CANCELLED, COMPLETED]


def test_jobs_that_are_started_later_wait_for_it(place: Any, work: Work) -> None:
    [later] = add(place, "echo", "later", startLater=True)
    add(place, "echo", "now")
    work()
    assert statuses(place, [later]) == [STARTLATER]
    with place.service() as service:
        assert service.startJob(later) is True
        assert service.startJob(later) is False
    work()
    assert statuses(place, [later]) == [COMPLETED]


def test_cron_jobs_wait_for_their_time(place: Any, work: Work) -> None:
    with place.service() as service:
        cron = service.addCronJob("echo", month=(1,), dayOfMonth=(1,), cron=None)
        service.jobs[cron].slot -= 400 * 86400
        service.queue.remove(service.jobs[cron])
        service.jobs[cron].wait(service.jobs[cron].due - 400 * 86400)
        service.queue.file(service.jobs[cron])
    work()
    with place.service() as service:
        job = service.jobs[cron]
        assert (job.status, job.attempt) == (CRONJOB, 1)
        assert job.due > job.started_at


def test_jobs_that_jobs_add_are_run(place: Any, work: Work, register: Any) -> None:
    def chain(context: Any, input: int) -> None:
        if input:
            context.service.add("chain", input - 1)

    register("chain", chain, context=True)
    add(place, "chain", 5)
    work()
    with place.service() as service:
        assert service.countJobs()[COMPLETED] == 6


def test_jobs_of_an_unknown_task_wait(place: Any, work: Work, register: Any) -> None:
    register("late", lambda input: input)
    jobids = add(place, "late", 1, 2)
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    others = add(place, "echo", 1, 2)
    work()
    assert statuses(place, jobids + others) == [QUEUED, QUEUED, COMPLETED, COMPLETED]
    register("late", lambda input: input)


def test_results_that_cannot_be_stored_are_errors(place: Any, work: Work, register: Any) -> None:
    register("make", lambda input: lambda: None)
    jobids = [*add(place, "make", None), *add(place, "echo", None)]
    work()
    assert statuses(place, jobids) == [ERROR, COMPLETED]


def test_what_has_ended_can_be_cleaned(place: Any, work: Work) -> None:
    add(place, "echo", *range(5))
    add(place, "error", *range(5))
    work()
    with place.service() as service:
        service.clean()
    with place.service() as service:
        assert dict(service.jobs) == {}
        assert set(service.countJobs().values()) == {0}


def test_one_thread_keeps_the_order(
    request: pytest.FixtureRequest, place: Any, work: Work, register: Any
) -> None:
    if "-multi]" in request.node.name:
        return  # several threads promise no order
    ran: list[int] = []
    register("note", ran.append)
    add(place, "note", *range(SEGMENT_SIZE + 3))
    work()
    assert ran == list(range(SEGMENT_SIZE + 3))


# -- odd tasks ---------------------------------------------------------------------------------


def swallow(function: Callable[[], Any]) -> Callable[[], None]:
    def swallowing() -> None:
        with suppress(Exception):
            function()

    swallowing.__name__ = f"swallow_{function.__name__}"
    return swallowing


def in_a_block() -> None:
    with transaction.manager:
        pass


ENDS = (
    *(transaction.commit, transaction.abort, transaction.begin, transaction.doom),
    in_a_block,
)


@pytest.mark.parametrize("meddle", [*ENDS, *map(swallow, ENDS)], ids=lambda end: end.__name__)
def test_a_task_must_not_end_the_transaction(
    place: Any, work: Work, register: Any, meddle: Callable[[], Any]
) -> None:
    def task(context: Any, input: Any) -> None:
        root = context.service._p_jar.root()
        root["before"] = 1
        # The inline ways of this suite have a transaction manager of their own.
        with patch.object(transaction.manager, "manager", root._p_jar.transaction_manager):
            meddle()
        root["after"] = 1

    register("meddle", task, context=True)
    bad, good = add(place, "meddle", None) + add(place, "echo", "fine")
    work()
    with place.connected() as (_, root):
        service = root["tasks"]
        assert service.getStatus(bad) == ERROR
        assert str(TransactionMeddled()) in service.getError(bad)
        assert service.getResult(good) == "fine"
        assert not {"before", "after"}.intersection(root)


def unpicklable() -> PersistentMapping:
    return PersistentMapping(function=lambda: None)


@pytest.mark.parametrize("is_written", [False, True])
def test_what_cannot_be_pickled_is_the_jobs_error(
    place: Any, work: Work, register: Any, is_written: bool
) -> None:
    def task(context: Any, input: Any) -> Any:
        root = context.service._p_jar.root()
        root["before"] = 1
        if not is_written:
            return unpicklable()
        root["unpicklable"] = unpicklable()

    register("bad", task, context=True, retry=RetryPolicy(attempts=1))
    bad, good = add(place, "bad", None) + add(place, "echo", "fine")
    work()
    with place.connected() as (_, root):
        assert root["tasks"].getStatus(bad) == ERROR
        assert root["tasks"].getResult(good) == "fine"
        assert not {"before", "unpicklable"}.intersection(root)


@pytest.mark.parametrize("fails", [False, True])
def test_a_site_that_a_task_leaves_behind_is_gone(
    place: Any, work: Work, register: Any, fails: bool
) -> None:
    class Site:
        """A site whose connection is closed at the end of the task."""

        is_closed = False

        def getSiteManager(self) -> Any:
            if self.is_closed:
                raise ConnectionStateError("the connection is closed")
            return getGlobalSiteManager()

    def task(input: Any) -> None:
        site = Site()
        setSite(site)
        site.is_closed = True
        if fails:
            raise TaskError

    seen: list[Any] = []
    register("leave", task)
    register("look", lambda input: seen.append(getSite()))
    jobids = add(place, "leave", None) + add(place, "look", None)
    work()
    assert statuses(place, jobids) == [ERROR if fails else COMPLETED, COMPLETED]
    assert seen == [None]
    assert getSite() is None
