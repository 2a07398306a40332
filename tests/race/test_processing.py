# SPDX-License-Identifier: ZPL-2.1
"""Processors that are started, stopped, robbed of their database, and set against each other."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.POSException import StorageError

from lovely.remotetask import processor as processors
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.session import Session
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor

pytestmark = pytest.mark.race

BOTH = pytest.mark.parametrize("factory", [SimpleProcessor, MultiProcessor])


@pytest.fixture
def names_of_threads() -> Callable[[], list[str]]:
    """Return a function that names the threads that processors have started in this test."""
    before = set(threading.enumerate())

    def names() -> list[str]:
        started = set(threading.enumerate()) - before
        return [thread.name for thread in started if thread.name.startswith("remotetask")]

    return names


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_threads_than_allowed_run_jobs_at_once(arena: Any, most: int) -> None:
    arena.add(60, "linger")
    arena.work(MultiProcessor, maxThreads=most)
    arena.add(40, "linger", start=100)
    arena.wait_until_done()
    arena.rest()
    assert arena.most_at_once == most
    assert arena.effects() == dict.fromkeys([*range(60), *range(100, 140)], 1)


def test_delayed_and_cron_jobs_run_once_a_slot_with_rivals(
    arena: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock of the workers runs 600 times as fast as the wall's.
    origin = time.time()
    start = time.monotonic()

    def clock() -> float:
        return origin + (time.monotonic() - start) * 600

    def tick(context: Any, input: Any) -> None:
        root = context.service._p_jar.root()
        job = context.service.jobs[context.jobid]
        root["ticks"] = (*root.get("ticks", ()), job.slot)

    register("tick", tick, context=True)
    with arena.transaction() as root:
        service = root["tasks"]
        cron = service.addCronJob("tick", cron="* * * * *")
        for number in range(30):
            service.addCronJob("count", number, delay=float(number * 20))
    for factory in (SimpleProcessor, MultiProcessor, SimpleProcessor):
        processor = factory(arena.db, arena.path, waitTime=0.02)
        processor.engine.claims.clock = clock
        thread = threading.Thread(target=processor, name="remotetasks.race", daemon=True)
        arena._processors.append((processor, thread))
        thread.start()
    while clock() < origin + 12 * 60:
        time.sleep(0.01)
    arena.rest()
    with arena.connected() as (_, root):
        ticks = list(root.get("ticks", ()))
        missed = root["tasks"].jobs[cron].missed
    minutes = [int(slot // 60) for slot in ticks]
    assert len(minutes) == len(set(minutes)), "a slot fired twice"
    assert len(minutes) + missed in (11, 12, 13)
    assert arena.effects() == dict.fromkeys(range(30), 1)
    arena.check_books()


@BOTH
def test_a_storm_of_starts_and_stops_ends_with_one_processor(arena: Any, factory: Any) -> None:
    with arena.transaction() as root:
        root["tasks"].processorFactory = factory
        root["tasks"].processorArguments = {"waitTime": 0.02}
    is_over = threading.Event()
    added = iter(range(10_000))
    acknowledged: list[int] = []

    def storm() -> None:
        chance = random.Random()
        with arena.connected() as (manager, root):
            service = root["tasks"]
            while not is_over.is_set():
                manager.begin()
                chance.choice(
                    [
                        service.startProcessing,
                        service.startProcessing,
                        service.stopProcessing,
                        service.isProcessing,
                        lambda: service.stopProcessing(5),
                    ]
                )()
                is_over.wait(chance.uniform(0, 0.01))

    for _ in range(4):
        arena.spawn(storm)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        number = next(added)
        arena.retried(lambda root, number=number: root["tasks"].add("count", number))
        acknowledged.append(number)
    is_over.set()
    arena.join()
    with arena.connected() as (_, root):
        service = root["tasks"]
        service.startProcessing()
        assert service.isProcessing()
        arena.wait_until_done()
        service.stopProcessing(10)
        assert not service.isProcessing()
    assert arena.effects() == dict.fromkeys(acknowledged, 1)
    arena.check_books()


@BOTH
def test_the_threads_end_when_their_database_is_closed(
    factory: Any,
    caplog: pytest.LogCaptureFixture,
    until: Any,
    register: Any,
    tmp_path: Path,
    names_of_threads: Any,
) -> None:
    register("echo", lambda input: input)
    from lovely.remotetask.service import TaskService

    for number in range(12):
        path = str(tmp_path / f"{number}.fs")
        db = ZODB.DB(FileStorage(path) if number % 2 else DemoStorage())
        connection = db.open()
        service = connection.root()["tasks"] = TaskService()
        service.processorFactory = factory
        service.processorArguments = {"waitTime": 0.02}
        transaction.commit()
        for _ in range(200):
            service.add("echo")
        transaction.commit()
        service.startProcessing()
        time.sleep(0.01 * number)  # somewhere in its work, or after it
        transaction.abort()
        connection.close()
        db.close()
        until(lambda: not names_of_threads(), "the threads to end", 10.0)
    ours = [record.getMessage() for record in caplog.records if "remotetask" in record.name]
    assert not ours, "the end of a database is nothing to warn of"


@BOTH
def test_the_threads_end_when_their_service_is_removed(
    arena: Any,
    factory: Any,
    caplog: pytest.LogCaptureFixture,
    until: Any,
    names_of_threads: Any,
) -> None:
    arena.add(100)
    with arena.transaction() as root:
        root["tasks"].processorFactory = factory
        root["tasks"].processorArguments = {"waitTime": 0.02}
    caplog.set_level(logging.WARNING, "lovely.remotetask")
    with arena.connected() as (_, root):
        root["tasks"].startProcessing()
        until(lambda: arena.executed)

        def remove(root: Any) -> None:
            del root["tasks"]

        arena.retried(remove)
        arena.db.pack()  # and with it goes the record
        until(lambda: not names_of_threads(), "the threads to end", 10.0)
    gone = [record for record in caplog.records if "is gone" in record.getMessage()]
    assert len(gone) == 1


def test_packing_while_jobs_are_added_and_run_loses_none(file_arena: Any) -> None:
    arena, file_db = file_arena, file_arena.db
    arena.work()
    arena.work(MultiProcessor)
    is_over = threading.Event()
    acknowledged: list[int] = []

    def pack() -> None:
        while not is_over.wait(0.01):
            file_db.pack(time.time())

    packer = arena.spawn(pack)
    for number in range(200):
        arena.retried(lambda root, number=number: root["tasks"].add("count", number))
        acknowledged.append(number)
        if number % 20 == 0:
            arena.retried(lambda root: root["tasks"].clean())
    arena.wait_until_done()
    is_over.set()
    packer.join()
    arena.join()
    arena.rest()
    assert arena.effects() == dict.fromkeys(acknowledged, 1)
    arena.check_books()


def test_two_processors_on_one_database_fence_each_other(arena: Any, until: Any) -> None:
    arena.add(20, "linger")
    first = arena.work()
    second = arena.work()
    engines = [first.engine, second.engine]
    freed = 0
    rescuer = arena.engine()
    with arena.session() as session:
        for number in range(40):
            arena.add(5, "linger", start=100 + 5 * number)
            # Both are alive; that somebody takes them for dead must cost nothing but time.
            freed += arena.rescue(rescuer, session, engines[number % 2])
    with arena.connected() as (manager, root):

        def is_done() -> bool:
            manager.begin()
            return all(job.is_final for job in root["tasks"].jobs.values())

        until(is_done)
        errors = [job for job in root["tasks"].jobs.values() if job.status == "error"]
        assert all(job.deaths == 3 for job in errors)
        numbers = {job.input for job in root["tasks"].jobs.values()} - {j.input for j in errors}
    arena.rest()
    assert freed, "the race did not take place"
    assert arena.effects() == dict.fromkeys(numbers, 1)
    arena.check_books()


class _Broken(Session):
    """A session that now and then raises what no storage should."""

    chance = random.Random(7)
    is_broken = False

    def commit(self) -> None:
        if self.is_broken and self.chance.random() < 0.3:
            raise RuntimeError("something unheard of")
        super().commit()
        if self.is_broken and self.chance.random() < 0.1:
            raise RuntimeError("something unheard of, after the commit")


@BOTH
def test_no_job_is_lost_in_the_hands_of_a_thread_that_fails(
    memory_arena: Any, factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = memory_arena
    arena.add(100)
    monkeypatch.setattr(processors, "Session", _Broken)
    monkeypatch.setattr(_Broken, "is_broken", True)
    processor = arena.work(factory)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        time.sleep(0.01)
    monkeypatch.setattr(_Broken, "is_broken", False)
    statuses = {}
    with suppress(AssertionError):
        end = time.monotonic() + 20
        while "processing" in (statuses := arena.statuses()).values() or "queued" in (
            statuses.values()
        ):
            assert time.monotonic() < end
            time.sleep(0.02)
    left = [jobid for jobid, status in statuses.items() if status in ("processing", "queued")]
    assert not left, f"{len(left)} jobs wait for ever"
    assert processor.running
    arena.rest()
    completed = sum(status == "completed" for status in arena.statuses().values())
    assert sum(arena.effects().values()) == completed
    assert set(arena.effects().values()) == {1}


def test_a_thread_stopped_while_the_storage_failed_leaves_no_job_behind(
    memory_arena: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = memory_arena
    is_broken, commit = threading.Event(), Session.commit

    def commit_unless_broken(session: Session) -> None:
        if is_broken.is_set():
            raise StorageError("the disk is full")
        commit(session)

    monkeypatch.setattr(Session, "commit", commit_unless_broken)
    arena.add(20, "hang")
    with arena.connected() as (_, root):
        service = root["tasks"]
        service.startProcessing()
        until(arena.entered.is_set)
        is_broken.set()
        arena.gate.set()
        service.stopProcessing(10)
        is_broken.clear()
        service.startProcessing()
        arena.wait_until_done()
        service.stopProcessing(10)
    assert arena.effects() == dict.fromkeys(range(20), 1)
    arena.check_books()


def test_after_a_timeout_there_is_still_one_processor(
    memory_arena: Any, until: Any, register: Any, names_of_threads: Any
) -> None:
    arena = memory_arena
    release = threading.Event()
    register("stuck", lambda input: release.wait(30), timeout_seconds=0.05)
    with arena.transaction() as root:
        root["tasks"].processorArguments = {"waitTime": 0.02}
        (stuck,) = [root["tasks"].add("stuck")]
    with arena.connected() as (_, root):
        service = root["tasks"]
        service.startProcessing()
        until(lambda: arena.statuses()[stuck] == "error")
        arena.add(1)
        until(lambda: arena.effects() == {0: 1}, "the thread in its place")
        release.set()
        until(lambda: len([name for name in names_of_threads() if "tasks." in name]) == 1)
        assert service.isProcessing()
        first = registry.find(service)
        service.startProcessing()
        assert registry.find(service) is first
        service.stopProcessing(10)
        assert not [name for name in names_of_threads() if name.startswith("remotetasks.")]


def test_a_schedule_goes_on_beside_a_run_that_hangs(
    memory_arena: Any, until: Any, register: Any
) -> None:
    arena = memory_arena
    release, runs = threading.Event(), []

    def stuck(input: Any) -> None:
        runs.append(input)
        if len(runs) == 1:
            release.wait(30)

    register("stuck", stuck, timeout_seconds=0.05)
    with arena.transaction() as root:
        jobid = root["tasks"].addCronJob("stuck", cron="* * * * *")
        job = root["tasks"].jobs[jobid]
        root["tasks"].queue.remove(job)
        job.wait(time.time())
        root["tasks"].queue.file(job)
    processor = arena.work()
    until(lambda: runs)
    until(lambda: arena.statuses()[jobid] == "cronjob" and not processor.engine.claims.in_hand)
    with arena.connected() as (_, root):
        assert root["tasks"].jobs[jobid].failures
    release.set()
    arena.rest()
    arena.check_books()


FORK = """
    import os, sys, time
    import transaction, ZODB
    from ZODB.FileStorage import FileStorage
    from lovely.remotetask import processor, task
    from lovely.remotetask.service import TaskService
    from lovely.remotetask.engine.identity import local_ids
    from lovely.remotetask.store import worker

    @task.task("echo")
    def echo(input):
        return input

    db = ZODB.DB(FileStorage(sys.argv[1]))
    connection = db.open()
    service = connection.root()["tasks"] = TaskService()
    service.processorArguments = {"waitTime": 0.02}
    transaction.commit()
    service.startProcessing()
    for number in range(50):
        service.add("echo", number)
        transaction.commit()
    before = local_ids(service)
    worker.origin = worker.Origin(os.getppid(), 1, 1, "", "this process and no fork of it")
    child = os.fork()
    if child == 0:
        ok = not service.isProcessing() and not (local_ids(service) & before)
        ok = ok and worker.Worker().token == ""
        service.stopProcessing(1)  # of nobody
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0, "the child took the parent's processor for its own"
    assert service.isProcessing()
    jobid = service.add("echo", "after")
    transaction.commit()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        transaction.abort()
        if all(job.status == "completed" for job in service.jobs.values()):
            break
        time.sleep(0.01)
    else:
        sys.exit("the parent does not go on")
    service.stopProcessing(5)
    transaction.abort()
    connection.close()
    db.close()
"""


def test_a_forked_child_has_no_processor_and_its_parent_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "fork.py"
    script.write_text(textwrap.dedent(FORK))
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(script),
            str(tmp_path / "Data.fs"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
