# SPDX-License-Identifier: ZPL-2.1
"""Processors and their threads: started, woken, stopped, and left by their service."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine import registry
from lovely.remotetask.errors import TransactionInProgress
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    ERROR,
    PROCESSING,
    QUEUED,
)
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.worker import Worker
from meddling import change_status, data_manager_aborts, hook_aborts, raise_fenced

KINDS = [SimpleProcessor, MultiProcessor]


def processor_for(workplace: Any, kind: Any = SimpleProcessor, **arguments: Any) -> Any:
    with workplace.service() as service:
        return kind(workplace.db, path_to(service), **arguments)


# -- start and stop ----------------------------------------------------------------------------


def test_a_service_is_not_processing_before_it_is_started(workplace: Any) -> None:
    assert not workplace.is_processing()


def test_a_started_service_works_until_it_is_stopped(workplace: Any, threads: Any) -> None:
    workplace.start()
    assert workplace.is_processing()
    jobids = workplace.add("echo", *range(20))
    assert set(workplace.wait_for(jobids)) == {COMPLETED}
    workplace.stop()
    assert not workplace.is_processing()
    assert threads("remotetasks.") == []
    late = workplace.add("echo", 1)
    assert workplace.statuses(late) == [QUEUED]


def test_the_thread_is_a_daemon_and_named_after_the_path(workplace: Any, threads: Any) -> None:
    workplace.start()
    [thread] = threads("remotetasks.")
    assert thread.name == "remotetasks.tasks"
    assert thread.daemon


def test_starting_twice_gives_one_thread(workplace: Any, threads: Any) -> None:
    for _ in range(3):
        workplace.start()
    assert len(threads("remotetasks.")) == 1


def test_starting_at_the_same_time_gives_one_thread(workplace: Any, threads: Any) -> None:
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        workplace.start()

    starters = [threading.Thread(target=start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len(threads("remotetasks.")) == 1


def test_a_stopped_service_can_be_started_again(workplace: Any) -> None:
    for number in range(3):
        workplace.start()
        jobids = workplace.add("echo", number)
        assert workplace.wait_for(jobids) == [COMPLETED]
        workplace.stop()


def test_stopping_what_does_not_run_does_nothing(workplace: Any) -> None:
    workplace.stop()
    workplace.stop()
    assert not workplace.is_processing()


def test_an_idle_thread_ends_when_it_is_told_to(workplace: Any, threads: Any, until: Any) -> None:
    workplace.start(waitTime=3600)
    with workplace.service() as service:
        assert service.stopProcessing() is None
        assert not service.isProcessing()
    until(lambda: not threads("remotetasks."))


def test_a_stopping_processor_finishes_its_job_and_gives_back_the_others(
    workplace: Any, until: Any
) -> None:
    workplace.start()
    workplace.wait_for(workplace.add("echo", *range(50)))  # so that several are claimed at once
    running = workplace.add("hang", 1)
    waiting = workplace.add("echo", *range(5))
    until(lambda: workplace.hanging)
    with workplace.service() as service:
        service.stopProcessing()
    workplace.gate.set()
    until(lambda: workplace.statuses(running) == [COMPLETED])
    workplace.stop()
    until(lambda: set(workplace.statuses(waiting)) == {QUEUED})
    with workplace.service() as service:
        assert {service.jobs[jobid].attempt for jobid in waiting} == {0}
    workplace.start()
    assert set(workplace.wait_for(waiting)) == {COMPLETED}


# -- work --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_is_woken_by_a_commit(workplace: Any, kind: Any) -> None:
    with workplace.service() as service:
        service.processorFactory = kind
    workplace.start(waitTime=3600)  # so it is not by looking again
    for number in range(3):
        assert workplace.wait_for(workplace.add("echo", number)) == [COMPLETED]


def test_a_thread_is_woken_by_what_follows_the_adding(workplace: Any) -> None:
    workplace.start(waitTime=3600)
    [later] = workplace.add("echo", 1, startLater=True)
    with workplace.service() as service:
        service.startJob(later)
    assert workplace.wait_for([later]) == [COMPLETED]


def test_a_thread_wakes_in_time_for_a_delayed_job(workplace: Any) -> None:
    workplace.start(waitTime=3600)
    workplace.wait_for(workplace.add("echo", 1))
    with workplace.service() as service:
        jobid = service.addCronJob("echo", delay=0.3)
    assert workplace.wait_for([jobid]) == [COMPLETED]
    with workplace.service() as service:
        job = service.jobs[jobid]
        assert job.started_at >= job.created_at + 0.3


@pytest.mark.parametrize("task", [None, "echo"])
def test_a_service_that_is_resumed_wakes_the_thread(
    workplace: Any, register: Any, task: str | None
) -> None:
    with workplace.service() as service:
        service.pause(task)
    workplace.start(waitTime=3600)
    jobids = workplace.add("echo", 1)
    if task:
        register("other", lambda input: input)
        others = workplace.add("other", 2)
        assert workplace.wait_for(others) == [COMPLETED]
    with workplace.service() as service:
        service.resume(task)
    assert workplace.wait_for(jobids) == [COMPLETED]


def test_a_job_that_is_repeated_or_hurried_wakes_the_thread(workplace: Any) -> None:
    workplace.start(waitTime=3600)
    with workplace.service() as service:
        delayed, cancelled = (service.addCronJob("echo", 1, delay=3600) for _ in range(2))
        service.cancel(cancelled)
    with workplace.service() as service:
        service.run_now(delayed)
    assert workplace.wait_for([delayed]) == [COMPLETED]
    with workplace.service() as service:
        service.retry(cancelled)
    assert workplace.wait_for([cancelled]) == [COMPLETED]


def test_a_rescheduled_job_wakes_the_thread(workplace: Any) -> None:
    workplace.start(waitTime=3600)
    with workplace.service() as service:
        jobid = service.addCronJob("echo", delay=3600)
    with workplace.service() as service:
        service.jobs[jobid].update(delay=0)
        service.reschedule(jobid)
    assert workplace.wait_for([jobid]) == [COMPLETED]


def test_an_aborted_job_is_never_run(workplace: Any, register: Any) -> None:
    ran: list[int] = []
    register("note", ran.append)
    workplace.start()
    manager = transaction.TransactionManager()
    connection = workplace.db.open(manager)
    connection.root()["tasks"].add("note", 1)
    manager.abort()
    connection.close()
    workplace.wait_for(workplace.add("note", 2))
    assert ran == [2]


def test_repeats_come_in_time(workplace: Any, register: Any) -> None:
    attempts = []

    def stumble(context: Any, input: Any) -> None:
        attempts.append(context.attempt)
        if len(attempts) < 4:
            raise ValueError("no luck")

    register("stumble", stumble, context=True)
    workplace.start(waitTime=3600)
    assert workplace.wait_for(workplace.add("stumble", 1)) == [COMPLETED]
    assert attempts == [1, 2, 3, 4]


def test_a_simple_processor_keeps_the_order(workplace: Any, register: Any) -> None:
    ran: list[int] = []
    register("note", ran.append)
    workplace.add("note", *range(100))
    workplace.start()
    workplace.wait_for(workplace.add("note", *range(100, 200)))
    assert ran == list(range(200))


def test_a_multi_processor_never_runs_more_jobs_than_it_may(workplace: Any, until: Any) -> None:
    with workplace.service() as service:
        service.processorFactory = MultiProcessor
    workplace.start(waitTime=0.02, maxThreads=3)
    jobids = workplace.add("hang", *range(10))
    until(lambda: workplace.hanging == 3)
    with workplace.service() as service:
        [worker] = service.list_workers()
        assert worker.threads == 3
    workplace.gate.set()
    assert set(workplace.wait_for(jobids)) == {COMPLETED}
    assert workplace.most_hanging == 3


def test_a_multi_processor_has_five_threads_by_default(workplace: Any, until: Any) -> None:
    processor = processor_for(workplace, MultiProcessor)
    assert processor.maxThreads == 5
    assert processor.threads == []


def test_a_running_job_can_be_cancelled(workplace: Any, register: Any, until: Any) -> None:
    entered = threading.Event()

    def loop(context: Any, input: Any) -> None:
        entered.set()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            context.check_cancelled()
            time.sleep(0.01)

    register("loop", loop, context=True)
    workplace.start()
    jobids = workplace.add("loop", 1)
    assert entered.wait(20)
    with workplace.service() as service:
        service.cancel(jobids[0])
        assert service.jobs[jobids[0]].is_cancel_requested
    assert workplace.wait_for(jobids) == [CANCELLED]


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_runs_too_long_is_given_up_and_others_run(
    workplace: Any, register: Any, kind: Any
) -> None:
    register("slow", workplace.hang, timeout_seconds=0.2)
    with workplace.service() as service:
        service.processorFactory = kind
    workplace.start(waitTime=0.05)
    slow = workplace.add("slow", 1)
    others = workplace.add("echo", *range(5))
    assert workplace.wait_for(slow) == [ERROR]
    assert set(workplace.wait_for(others)) == {COMPLETED}
    with workplace.service() as service:
        assert service.getError(slow[0]) == "the job ran longer than 0.2 s"
    workplace.gate.set()
    workplace.wait_for(workplace.add("echo", 1))
    assert workplace.statuses(slow) == [ERROR]


def test_quick_jobs_share_a_commit(file_workplace: Any, register: Any) -> None:
    register("share", lambda input: input, shared_commit=True)
    jobids = file_workplace.add("share", *range(200))
    before = sum(1 for _ in file_workplace.db.storage.iterator())
    file_workplace.start()
    assert set(file_workplace.wait_for(jobids)) == {COMPLETED}
    file_workplace.stop()
    assert sum(1 for _ in file_workplace.db.storage.iterator()) - before < 100


def test_a_thread_keeps_its_connection_from_one_job_to_the_next(
    workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_connection = workplace.db.open

    def noted(*arguments: Any, **keywords: Any) -> Any:
        opened.append(threading.current_thread().name)
        return open_connection(*arguments, **keywords)

    jobids = workplace.add("echo", *range(30))
    monkeypatch.setattr(workplace.db, "open", noted)
    with workplace.service() as service:
        service.processorFactory = MultiProcessor
    workplace.start(maxThreads=2)
    assert set(workplace.wait_for(jobids)) == {COMPLETED}
    workplace.stop()
    assert 1 <= sum(name.startswith("remotetask-job.") for name in opened) <= 2


def test_who_claims_many_has_room_for_them_and_leaves_the_connection_as_it_was(
    workplace: Any,
) -> None:
    processor = processor_for(workplace)
    claims = processor.engine.claims
    with claims.open_beside() as session:
        cache = session.connection._cache
        before = cache.cache_size
        claims.claim(session, 1)
        assert cache.cache_size == before
        claims.claim(session, 200)
        assert cache.cache_size == 800
    assert cache.cache_size == before


def test_two_services_run_at_once(workplace: Any, threads: Any, until: Any) -> None:
    workplace.new_service("other")
    workplace.start()
    workplace.start("other")
    assert {thread.name for thread in threads("remotetasks.")} == {
        "remotetasks.tasks",
        "remotetasks.other",
    }
    workplace.add("hang", 1)
    until(lambda: workplace.hanging)
    jobids = workplace.add("echo", 1, name="other")
    assert workplace.wait_for(jobids, "other") == [COMPLETED]
    workplace.stop("other")
    assert workplace.is_processing()
    assert not workplace.is_processing("other")


def test_what_an_undo_has_left_is_mended_at_the_start_on_an_idle_service(
    file_workplace: Any, until: Any
) -> None:
    [jobid] = file_workplace.add("echo", 1)
    with file_workplace.service() as service:
        service.cancel(jobid)
    with file_workplace.service() as service:
        job = service.jobs[jobid]
        service.queue.indexes[CANCELLED].remove(*service.queue.entry_of(job))
    file_workplace.start(waitTime=3600)

    def is_mended() -> bool:
        with file_workplace.service() as service:
            return check_all(service, time.time(), repair=False) == []

    until(is_mended, "the check at the start")
    with file_workplace.service() as service:
        assert service.countJobs()[CANCELLED] == 1


@pytest.mark.parametrize("seconds", [1e15, float("inf"), threading.TIMEOUT_MAX])
def test_stopping_can_wait_as_long_as_it_takes(workplace: Any, seconds: float) -> None:
    workplace.start()
    with workplace.service() as service:
        service.stopProcessing(seconds)
    assert not workplace.is_processing()


def test_a_processor_of_ones_own_is_called(workplace: Any, until: Any) -> None:
    made: list[Any] = []

    class Mine:
        waitTime = 1.0

        def __init__(self, db: Any, path: list[str], **arguments: Any) -> None:
            made.append((db, list(path), arguments))
            self.running = True
            self._stop = threading.Event()

        def __call__(self) -> None:
            self._stop.wait(20)

        def stop(self) -> None:
            self.running = False
            self._stop.set()

    with workplace.service() as service:
        # A factory is stored by its name; this one, which has none, is only there in memory.
        vars(service)["processorFactory"] = Mine
        service.processorArguments = {"color": "red"}
        service._p_changed = False
        service.startProcessing()
        assert service.isProcessing()
        workplace.add("echo", 1)  # it cannot be woken, and that is no harm
        service.stopProcessing(20)
        assert not service.isProcessing()
    assert made == [(workplace.db, ["tasks"], {"color": "red"})]


# -- single steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_can_be_run_step_by_step(workplace: Any, kind: Any) -> None:
    processor = processor_for(workplace, kind)
    assert processor.running
    assert not processor.hasJobsWaiting()
    assert processor.processNext() is False
    assert processor.claimNextJob() is None
    first, second = workplace.add("echo", 1, 2)
    assert processor.hasJobsWaiting()
    assert processor.processNext() is True
    assert workplace.statuses([first, second]) == [COMPLETED, QUEUED]
    assert processor.claimNextJob() == second
    assert workplace.statuses([second]) == [PROCESSING]
    assert not processor.hasJobsWaiting()
    assert processor.processNext(second) is True
    assert workplace.statuses([second]) == [COMPLETED]
    assert processor.processNext(second) is False
    assert processor.processNext(4711) is False
    with workplace.service() as service:
        assert not service.workers
        assert check_all(service, time.time(), repair=False) == []


def test_a_claim_that_waits_to_be_run_shows_signs_of_life(workplace: Any, until: Any) -> None:
    workplace.add("echo", 1)
    with workplace.service() as service:
        service.lease_seconds = 0.1
    processor = processor_for(workplace)
    jobid = processor.claimNextJob()

    def has_beaten() -> bool:
        with workplace.service() as service:
            [worker] = service.workers.values()
            return bool(worker.beats)

    until(has_beaten)
    assert processor.processNext(jobid)
    processor.maintenance_thread.join(60)
    assert not processor.maintenance_thread.is_alive()


def test_a_processor_runs_what_the_service_has_claimed(workplace: Any) -> None:
    [jobid] = workplace.add("echo", 1)
    with workplace.service() as service:
        assert service.claimNextJob() == jobid
    processor = processor_for(workplace)
    assert processor.processNext(jobid) is True
    assert workplace.statuses([jobid]) == [COMPLETED]


@pytest.mark.parametrize("step", ["processNext", "claimNextJob", "hasJobsWaiting"])
def test_a_step_refuses_to_lose_the_callers_changes(workplace: Any, step: str) -> None:
    workplace.add("echo", 1)
    processor = processor_for(workplace)
    connection = workplace.db.open()
    connection.root()["mine"] = 1
    with pytest.raises(TransactionInProgress):
        getattr(processor, step)()
    transaction.commit()
    assert connection.root()["mine"] == 1
    connection.close()
    assert getattr(processor, step)()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("misdeed", [hook_aborts, data_manager_aborts, change_status, raise_fenced])
def test_a_job_that_hides_its_end_keeps_nobody_waiting(
    workplace: Any, register: Any, kind: Any, misdeed: Any
) -> None:
    calls = []

    def meddle(context: Any, input: Any) -> None:
        calls.append(context.jobid)
        misdeed(context)

    register("meddle", meddle, context=True, retry=RetryPolicy(attempts=1))
    jobids = [*workplace.add("meddle", 1), *workplace.add("echo", 1, 2)]
    with workplace.service() as service:
        service.processorFactory = kind
    workplace.start()
    assert workplace.wait_for(jobids) == [ERROR, COMPLETED, COMPLETED]
    assert calls == jobids[:1]


# -- places ------------------------------------------------------------------------------------


def test_a_path_leads_from_the_application_object(db: ZODB.DB, make_workplace: Any) -> None:
    workplace = make_workplace(db)
    with workplace.transaction() as root:
        root["Application"] = {"folder": {"tasks": TaskService()}}
    with workplace.transaction() as root:
        root["Application"]["folder"]["tasks"].add("echo", 1)
    processor = SimpleProcessor(db, ["folder", "tasks"])
    assert processor.processNext() is True
    assert processor.processNext() is False


def test_a_path_leads_from_the_root_of_a_plain_script(workplace: Any) -> None:
    workplace.add("echo", 1)
    assert SimpleProcessor(workplace.db, ["tasks"]).processNext() is True


def test_a_service_is_found_whatever_its_name_has_become(workplace: Any) -> None:
    workplace.start()
    with workplace.transaction() as root:
        root["renamed"] = root.pop("tasks")
    jobids = workplace.add("echo", 1, name="renamed")
    assert workplace.wait_for(jobids, "renamed") == [COMPLETED]
    workplace.stop("renamed")


# -- the end of other things -------------------------------------------------------------------


def test_the_thread_of_a_removed_service_ends_with_one_line(
    workplace: Any, threads: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workplace.start(waitTime=0.05)
    workplace.wait_for(workplace.add("echo", 1))
    caplog.clear()
    with workplace.transaction() as root:
        del root["tasks"]
    until(lambda: not threads("remotetasks."))
    assert [record.getMessage() for record in caplog.records] == [
        "service tasks is gone, its thread ends"
    ]


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_closed_database_ends_the_thread_quietly(
    tmp_path: Path,
    make_workplace: Any,
    threads: Any,
    until: Any,
    caplog: pytest.LogCaptureFixture,
    is_busy: bool,
) -> None:
    db = ZODB.DB(FileStorage(str(tmp_path / "Other.fs")))
    workplace = make_workplace(db)
    workplace.start(waitTime=0.05)
    workplace.wait_for(workplace.add("echo", *range(5)))
    if is_busy:
        workplace.add("hang", 1)
        until(lambda: workplace.hanging)
    db.close()
    workplace.gate.set()
    until(lambda: not threads("remotetasks."))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_jobs_of_a_process_that_died_run_when_the_file_is_opened_again(
    tmp_path: Path, make_workplace: Any
) -> None:
    path = str(tmp_path / "Other.fs")
    db = ZODB.DB(FileStorage(path))
    workplace = make_workplace(db)
    jobids = workplace.add("echo", *range(3))
    with workplace.service() as service:
        service.workers["former"] = worker = Worker()
        worker.held = tuple(jobids)
        for jobid in jobids:
            service.queue.remove(service.jobs[jobid])
            service.jobs[jobid].start("former", 1.0)
    db.close()
    db = ZODB.DB(FileStorage(path))
    try:
        workplace.db = db
        workplace.start()
        assert set(workplace.wait_for(jobids)) == {COMPLETED}
        with workplace.service() as service:
            assert {service.jobs[jobid].attempt for jobid in jobids} == {2}
        workplace.stop()
    finally:
        db.close()


# -- what is written ---------------------------------------------------------------------------


def test_a_service_without_jobs_writes_nothing(file_workplace: Any, until: Any) -> None:
    names = []
    for kind in KINDS:
        names.append(kind.__name__)
        file_workplace.new_service(
            kind.__name__,
            lease_seconds=0.1,
            processorFactory=kind,
            processorArguments={"waitTime": 0.01},
        )
    before = file_workplace.last_transaction(), file_workplace.db.storage.getSize()
    for name in names:
        file_workplace.start(name)
    end = time.monotonic() + 0.5
    until(lambda: time.monotonic() > end)
    for name in names:
        assert file_workplace.is_processing(name)
        file_workplace.stop(name)
    assert (file_workplace.last_transaction(), file_workplace.db.storage.getSize()) == before


def test_a_service_whose_work_is_done_writes_nothing(file_workplace: Any, until: Any) -> None:
    with file_workplace.service() as service:
        service.lease_seconds = 0.3
    file_workplace.start(waitTime=0.01)
    file_workplace.wait_for(file_workplace.add("echo", *range(5)))

    def has_no_worker() -> bool:
        with file_workplace.service() as service:
            return not service.workers

    until(has_no_worker)
    before = file_workplace.last_transaction()
    end = time.monotonic() + 0.5
    until(lambda: time.monotonic() > end)
    file_workplace.stop()
    assert file_workplace.last_transaction() == before


def test_a_running_worker_gives_signs_of_life(workplace: Any, until: Any) -> None:
    with workplace.service() as service:
        service.lease_seconds = 0.3
    workplace.start()
    workplace.add("hang", 1)
    until(lambda: workplace.hanging)

    def beats() -> int:
        with workplace.service() as service:
            return max((worker.beats for worker in service.workers.values()), default=0)

    until(lambda: beats() >= 3)


# -- the log -----------------------------------------------------------------------------------


def test_normal_operation_is_silent_at_every_level(
    workplace: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    register("fail", lambda input: 1 / 0)
    with caplog.at_level(logging.DEBUG):
        workplace.start(waitTime=0.01)
        jobids = workplace.add("echo", *range(20))
        jobids += workplace.add("fail", 1)
        workplace.wait_for(jobids)
        workplace.stop()
    names = {record.name for record in caplog.records}
    assert [name for name in names if name.split(".")[0] == "lovely"] == []
    assert "remotetask.job" in names


def test_the_log_of_jobs_tells_task_attempt_and_what_became_of_it(
    workplace: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def end(input: Any) -> None:
        raise SystemExit("no luck")

    register("end", end)
    with caplog.at_level(logging.DEBUG, "remotetask.job"):
        workplace.start()
        good, bad = workplace.add("echo", 1) + workplace.add("end", 1)
        workplace.wait_for([good, bad])
        workplace.stop()
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    [failed] = [text for level, text in messages if level == "ERROR"]
    assert failed.splitlines()[0] == f"job {bad}: task end, attempt 1 failed: no luck"
    assert any(
        level == "DEBUG" and text.startswith(f"job {good}: task echo, attempt 1: completed after ")
        for level, text in messages
    )


def test_who_stops_all_twice_hears_twice_that_a_job_still_runs(
    workplace: Any, register: Any
) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(input: Any) -> None:
        begun.set()
        release.wait(30)

    register("hang", hang)
    workplace.start()
    workplace.add("hang", 1)
    assert begun.wait(10)
    assert not registry.stop_all(0.05)
    assert not registry.stop_all(0.05)
    release.set()
    assert registry.stop_all(10)


def test_a_missing_part_of_an_index_is_mended_while_the_service_runs(workplace: Any) -> None:
    with workplace.service() as service:
        service.addCronJob("echo", delay=3600)
    with workplace.service() as service:
        node = service.queue.indexes["delayed"].pages
        oid = next(iter(node.entries.values()))._p_oid
    del workplace.db.storage.changes._data[oid]
    workplace.db.cacheMinimize()
    gc.collect()
    jobids = workplace.add("echo", 1, 2)
    workplace.start()
    assert workplace.wait_for(jobids) == [COMPLETED] * 2
    workplace.stop()


# -- beside a caller who runs jobs in a transaction of its own -----------------------------------


@pytest.mark.parametrize("ends", ["commit", "abort"])
def test_what_a_caller_has_claimed_is_left_to_it_until_its_transaction_ends(
    workplace: Any, register: Any, ends: str
) -> None:
    ran = []
    register("note", ran.append)
    mine, other = workplace.add("note", "mine", "other")
    manager = transaction.TransactionManager()
    connection = workplace.db.open(manager)
    service = connection.root()["tasks"]
    assert service.processNext()
    assert ran == ["mine"]
    workplace.start()
    assert workplace.wait_for([other]) == [COMPLETED]
    time.sleep(0.1)  # time enough for the worker to take it, if it would
    assert ran == ["mine", "other"]
    getattr(manager, ends)()
    assert workplace.wait_for([mine]) == [COMPLETED]
    assert ran == ["mine", "other"] + ["mine"] * (ends == "abort")
    connection.close()
