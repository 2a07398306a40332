# SPDX-License-Identifier: ZPL-2.1
"""What workers do when they are asked, and what their threads do by themselves."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
from transaction.interfaces import TransientError

import remotejobs
from lovely.remotetask.remote.scheduler import Delay
from lovely.remotetask.remote.worker import MultiJobWorker, SchedulerWorker, SimpleJobWorker
from workplace import PATIENCE_SECONDS, wait_until

LATER = datetime(2080, 1, 1, tzinfo=timezone.utc)


def names_of_threads(before: set[threading.Thread]) -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread not in before)


@pytest.fixture
def threads_before() -> set[threading.Thread]:
    """The threads that there are before the test."""
    return set(threading.enumerate())


@pytest.fixture
def shared(shared_store: Any) -> Any:
    """A processor in a store that threads share."""
    return shared_store.processor()


# -- without threads -----------------------------------------------------------------------


def test_workers_have_defaults(remote: Any) -> None:
    simple = SimpleJobWorker(remote)
    assert (simple.waitTime, simple.jobQuery) == (1.0, None)
    multi = MultiJobWorker(remote)
    assert (multi.waitTime, multi.jobQuery) == (1.0, None)
    assert multi.threads == []
    assert multi.maxThreads >= 1
    assert SchedulerWorker(remote).waitTime == 1.0


@pytest.mark.parametrize("kind", [SimpleJobWorker, MultiJobWorker, SchedulerWorker])
def test_workers_ignore_keywords_that_they_do_not_know(remote: Any, kind: Any) -> None:
    assert kind(remote, waitTime=0, colour="blue").waitTime == 0


def test_workers_take_the_same_arguments(remote: Any) -> None:
    arguments = {"jobQuery": {"input": 1}, "waitTime": 2, "maxThreads": 3}
    assert SimpleJobWorker(remote, **arguments).waitTime == 2
    assert MultiJobWorker(remote, **arguments).maxThreads == 3
    assert SchedulerWorker(remote, **arguments).waitTime == 2


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (SimpleJobWorker, {"waitTime": -1}),
        (SchedulerWorker, {"waitTime": "soon"}),
        (MultiJobWorker, {"maxThreads": 0}),
        (MultiJobWorker, {"maxThreads": 2.5}),
        (MultiJobWorker, {"jobQuery": 5}),
    ],
)
def test_arguments_that_make_no_sense_are_refused(remote: Any, kind: Any, arguments: Any) -> None:
    [name] = arguments
    with pytest.raises(ValueError, match=name):
        kind(remote, **arguments)


def test_a_simple_worker_runs_a_job_in_the_transaction_of_its_caller(
    store: Any, remote: Any, done: list[Any]
) -> None:
    jobid = remote.addJob("note", 1)
    store.commit()
    worker = SimpleJobWorker(remote, waitTime=0)
    assert worker.doProcessNextJob() is True
    assert remote.getJobStatus(jobid) == "completed"
    assert worker.doProcessNextJob() is False
    store.abort()
    assert remote.getJobStatus(jobid) == "queued"
    assert done == [1]


def test_a_simple_worker_heeds_its_query(store: Any, remote: Any, done: list[Any]) -> None:
    for number in range(3):
        remote.addJob("note", number)
    worker = SimpleJobWorker(remote, jobQuery={"input": {"$in": [1, 2]}})
    assert [worker.doProcessNextJob() for _ in range(3)] == [True, True, False]
    assert done == [1, 2]


def test_a_simple_worker_logs_what_a_job_raises(store: Any, remote: Any, logged: Any) -> None:
    jobid = remote.addJob("stumble")
    store.commit()
    assert SimpleJobWorker(remote).doProcessNextJob() is True
    store.commit()
    assert remote._jobs[jobid].retryCounter == 1
    assert any("failed" in line for line in logged())


def test_a_worker_for_many_pulls_a_job_and_runs_it_then(
    store: Any, remote: Any, done: list[Any], logged: Any
) -> None:
    first, second = remote.addJob("note", 1), remote.addJob("note", 2)
    store.commit()
    worker = MultiJobWorker(remote, waitTime=0, maxThreads=2)
    job = worker.doPullNextJob()
    assert (job.__name__, job.status, done) == (first, "processing", [])
    store.abort()
    assert remote.getJobStatus(first) == "queued"
    job = worker.doPullNextJob()
    assert worker.doProcessJob(job.__name__) is None
    store.abort()
    assert remote.getJobStatus(first) == "completed"
    assert remote.getJobStatus(second) == "queued"
    assert done == [1]
    assert worker.threads == []
    assert logged() == []


def test_a_worker_for_many_commits_what_became_of_a_job_that_raises(
    store: Any, remote: Any
) -> None:
    jobid = remote.addJob("stumble")
    worker = MultiJobWorker(remote)
    worker.doProcessJob(worker.doPullNextJob().__name__)
    store.abort()
    job = remote._jobs[jobid]
    assert (job.status, job.retryCounter, job.seen) == ("queued", 1, None)


def test_a_scheduler_worker_adds_a_job_in_the_transaction_of_its_caller(
    store: Any, remote: Any
) -> None:
    now = datetime.now(timezone.utc)
    remote.addScheduler(Delay({"jobName": "note", "delay": 60, "active": True}))
    store.commit()
    worker = SchedulerWorker(remote)
    assert worker.doScheduleNextJob() is None
    [item] = remote._scheduler.values()
    item.nextCallTime = now
    store.commit()
    jobid = worker.doScheduleNextJob()
    assert remote._jobs[jobid].jobName == "note"
    assert worker.doScheduleNextJob() is None
    store.abort()
    assert len(remote._jobs) == 0


# -- starting and stopping ----------------------------------------------------------------------


def test_one_thread_works_from_the_start_to_the_stop(
    shared_store: Any, shared: Any, logged: Any, threads_before: Any
) -> None:
    before = time.time()
    assert shared.startProcessor() is None
    assert shared.isProcessing is True
    assert shared.isScheduling is False
    assert before <= shared.processorStartTime <= time.time()
    assert shared.schedulerStartTime is None
    [thread] = [each for each in threading.enumerate() if each.name == "root-worker"]
    assert thread.daemon
    assert type(thread) is threading.Thread
    shared.startProcessor()
    assert shared.stopProcessor() is None
    assert shared.isProcessing is False
    assert shared.processorStartTime is None
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    shared.stopProcessor()
    assert logged() == [
        "Processor 'root-worker' started",
        "Processor 'root-worker' already running",
        "Processor 'root-worker' stopped",
    ]


def test_another_thread_schedules(shared_store: Any, shared: Any, logged: Any) -> None:
    before = time.time()
    shared.startScheduler()
    assert shared.isScheduling is True
    assert shared.isProcessing is False
    assert before <= shared.schedulerStartTime <= time.time()
    [thread] = [each for each in threading.enumerate() if each.name == "root-scheduler"]
    assert thread.daemon
    shared.startScheduler()
    shared.stopScheduler()
    assert shared.isScheduling is False
    assert shared.schedulerStartTime is None
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert logged() == [
        "Scheduler 'root-scheduler' started",
        "Scheduler 'root-scheduler' already running",
        "Scheduler 'root-scheduler' stopped",
    ]


@pytest.mark.parametrize("kind", [SimpleJobWorker, MultiJobWorker])
def test_threads_are_named_after_the_processor(
    store: Any, remote: Any, eventually: Any, threads_before: Any, logged: Any, kind: Any
) -> None:
    remote.__name__ = "bakery"
    remote.jobWorkerFactory = kind
    remote.jobWorkerArguments = {"waitTime": 60.0, "maxThreads": 2}
    store.commit()
    remote.startProcessor()
    remote.startScheduler()
    jobids = [remote.addJob("hang", number) for number in range(2)]
    store.commit()
    wait_until(lambda: len(remotejobs.hanging) == (1 if kind is SimpleJobWorker else 2))
    names = names_of_threads(threads_before)
    assert [name for name in names if name.startswith("bakery")] == [
        "bakery-scheduler",
        "bakery-worker",
    ]
    others = [name for name in names if not name.startswith("bakery")]
    assert not [name for name in others if name.endswith(("-worker", "-scheduler"))]
    remotejobs.gate.set()
    eventually(store, lambda: [remote.getJobStatus(jobid) for jobid in jobids] == ["completed"] * 2)
    remote.stopProcessor()
    remote.stopScheduler()
    said = [line for line in logged() if "job" not in line.split(":")[-1]]
    assert said == [
        "Processor 'bakery-worker' started",
        "Scheduler 'bakery-scheduler' started",
        "Processor 'bakery-worker' stopped",
        "Scheduler 'bakery-scheduler' stopped",
    ]
    wait_until(lambda: not names_of_threads(threads_before), "the threads to end")


def test_starting_and_stopping_write_nothing(store: Any, remote: Any) -> None:
    before = store.last_write(remote)
    remote.startProcessor()
    remote.startScheduler()
    remote.stopProcessor()
    remote.stopScheduler()
    store.commit()
    assert store.last_write(remote) == before


def test_settings_are_read_at_the_start(store: Any, remote: Any, eventually: Any) -> None:
    remote.jobWorkerFactory = MultiJobWorker
    remote.jobWorkerArguments = {"waitTime": 60.0, "maxThreads": 2, "jobQuery": {"input": 1}}
    remote.startProcessor()
    store.commit()
    jobids = [remote.addJob("note", number) for number in range(3)]
    store.commit()
    eventually(store, lambda: remote.getJobStatus(jobids[1]) == "completed")
    remote.stopProcessor()
    assert [remote.getJobStatus(jobid) for jobid in jobids] == ["queued", "completed", "queued"]


@pytest.mark.parametrize("arguments", [{"waitTime": -1}, 5])
def test_settings_that_make_no_sense_start_nothing(
    store: Any, remote: Any, logged: Any, arguments: Any
) -> None:
    remote.jobWorkerArguments = arguments
    with pytest.raises(ValueError, match=r"waitTime|does not take"):
        remote.startProcessor()
    assert remote.isProcessing is False
    assert logged() == []


# -- what the threads do ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SimpleJobWorker, MultiJobWorker])
def test_jobs_are_run_whenever_they_are_added(
    shared_store: Any, shared: Any, eventually: Any, kind: Any
) -> None:
    shared.jobWorkerFactory = kind
    shared.jobWorkerArguments = {"waitTime": 0.1, "maxThreads": 2}
    jobids = [shared.addJob("note", number) for number in range(5)]
    shared_store.commit()
    shared.startProcessor()
    eventually(shared_store, lambda: all(shared._jobs[each].completed for each in jobids))
    later = shared.addJob("keep")
    shared_store.commit()
    eventually(shared_store, lambda: shared.getJobStatus(later) == "completed")
    assert [shared.getJobResult(jobid) for jobid in jobids] == list(range(5))
    assert shared._jobs[later].count == 1


@pytest.mark.parametrize("kind", [SimpleJobWorker, MultiJobWorker])
def test_threads_commit_what_jobs_come_to(
    shared_store: Any, shared: Any, eventually: Any, kind: Any
) -> None:
    shared.jobWorkerFactory = kind
    shared.addJobFactory("again", remotejobs.Stumble({"retryDelay": 0, "notes": ["as given"]}))
    names = ("refuse", "again", "exit", "unfit", "meddle", "stumble")
    jobids = {name: shared.addJob(name) for name in names}
    shared._jobs[jobids["meddle"]].input = "commit"
    shared_store.commit()
    shared.startProcessor()
    eventually(
        shared_store,
        lambda: (
            all(shared.getJobErrors(jobid) for jobid in jobids.values())
            and shared.getJobStatus(jobids["again"]) == "error"
        ),
    )
    assert {name: len(shared.getJobErrors(jobid)) for name, jobid in jobids.items()} == {
        **dict.fromkeys(names, 1),
        "again": 3,
    }
    for name in ("refuse", "meddle"):
        assert shared.getJobStatus(jobids[name]) == "error"
    waiting = shared._jobs[jobids["stumble"]]
    assert (waiting.status, waiting.retryCounter, waiting.seen) == ("queued", 1, None)
    assert waiting.retryTime > datetime.now(timezone.utc) - timedelta(seconds=PATIENCE_SECONDS)
    again = shared._jobs[jobids["again"]]
    assert (again.retryCounter, again.seen, again.notes) == (3, None, ["as given"])
    assert set(shared._jobs) == set(jobids.values())


@pytest.mark.parametrize("name", ["drain", "seep"])
def test_what_a_job_changes_in_place_is_not_there_for_the_next_run_of_a_thread(
    shared_store: Any, shared: Any, eventually: Any, done: list[Any], name: str
) -> None:
    jobid = shared.addJob(name, [1, 2])
    shared._jobs[jobid].parts = ["a", "b"]
    shared._jobs[jobid].retryDelay = 0
    shared_store.commit()
    shared.startProcessor()
    eventually(shared_store, lambda: shared.getJobStatus(jobid) == "completed")
    assert done == [([1, 2], ["a", "b"])] * 3
    assert (shared._jobs[jobid].input, shared._jobs[jobid].parts) == ([1, 2], ["a", "b"])
    assert list(shared.getJobResult(jobid)) == [[1, 2], ["a", "b"]]


def test_a_thread_that_is_free_takes_the_next_job_at_once(
    shared_store: Any, shared: Any, logged: Any, eventually: Any
) -> None:
    shared.jobWorkerFactory = MultiJobWorker
    shared.jobWorkerArguments = {"waitTime": 3600.0, "maxThreads": 2}
    jobids = [shared.addJob("hang", "first")]
    jobids += [shared.addJob("note", number) for number in range(6)]
    shared_store.commit()
    shared.startProcessor()
    eventually(shared_store, lambda: all(shared._jobs[each].completed for each in jobids[1:]))
    assert remotejobs.hanging == ["first"]
    jobids.append(shared.addJob("note", 7))
    shared_store.commit()
    eventually(shared_store, lambda: shared.getJobStatus(jobids[-1]) == "completed")
    remotejobs.gate.set()
    eventually(shared_store, lambda: shared.getJobStatus(jobids[0]) == "completed")
    shared.stopProcessor()
    begun, *lines, ended = logged()
    assert begun == "Processor 'root-worker' started"
    # Two threads begin with the first two jobs, and either may come first.
    assert sorted(lines) == [f"MultiJobWorker: processing job {jobid}" for jobid in jobids]
    assert ended == "Processor 'root-worker' stopped"


def test_no_more_jobs_are_taken_than_there_are_threads(
    shared_store: Any, shared: Any, eventually: Any, logged: Any
) -> None:
    shared.jobWorkerFactory = MultiJobWorker
    shared.jobWorkerArguments = {"waitTime": 0.01, "maxThreads": 2}
    jobids = [shared.addJob("hang", number) for number in range(5)]
    shared_store.commit()
    shared.startProcessor()
    wait_until(lambda: len(remotejobs.hanging) == 2)
    for _ in range(20):
        time.sleep(0.01)
        shared_store.abort()
        statuses = [shared.getJobStatus(jobid) for jobid in jobids]
        assert statuses.count("processing") <= 2
        assert len(remotejobs.hanging) == 2
    assert len([line for line in logged() if "processing" in line]) == 2
    remotejobs.gate.set()
    eventually(shared_store, lambda: all(shared._jobs[each].completed for each in jobids))


def test_a_thread_that_was_stopped_ends_its_job_and_takes_no_other(
    shared_store: Any, shared: Any, eventually: Any
) -> None:
    jobids = [shared.addJob("hang", 0), shared.addJob("note", 1)]
    shared_store.commit()
    shared.startProcessor()
    wait_until(lambda: remotejobs.hanging)
    [thread] = [each for each in threading.enumerate() if each.name == "root-worker"]
    shared.stopProcessor()
    assert shared.isProcessing is False
    remotejobs.gate.set()
    thread.join(PATIENCE_SECONDS)
    shared_store.abort()
    assert [shared.getJobStatus(jobid) for jobid in jobids] == ["completed", "queued"]


def test_the_scheduler_adds_jobs_and_the_worker_runs_them(
    shared_store: Any, shared: Any, eventually: Any
) -> None:
    shared.schedulerWorkerArguments = {"waitTime": 3600.0}
    shared.jobWorkerArguments = {"waitTime": 0.1}
    shared_store.commit()
    shared.startProcessor()
    shared.startScheduler()
    shared.addScheduler(Delay({"jobName": "note", "input": "due", "delay": 0.05, "active": True}))
    shared_store.commit()
    eventually(
        shared_store,
        lambda: sum(job.output == "due" for job in shared._jobs.values()) >= 3,
        "three jobs",
    )
    for _ in range(50):  # the scheduler may be counting the item at the same moment
        try:
            [item] = shared._scheduler.values()
            item.active = False
            shared_store.commit()
            break
        except TransientError:
            shared_store.abort()
    shared.stopScheduler()
    count = len(shared._jobs)
    shared_store.abort()
    assert shared.scheduleNextJob(LATER) is None
    assert len(shared._jobs) == count


def test_a_scheduler_goes_on_after_an_item_that_cannot_be_scheduled(
    store: Any, remote: Any, eventually: Any
) -> None:
    for name in ("lost", "note"):
        remote.addScheduler(Delay({"jobName": name, "delay": 0.05, "active": True}))
    store.commit()
    remote.startScheduler()
    eventually(store, lambda: len(remote._jobs) >= 2)


# -- what others do to a job that runs -------------------------------------------------------


@pytest.fixture
def running(shared_store: Any, shared: Any) -> Any:
    """Return ``running(**attributes)``: a job that runs in the thread, and waits for the gate."""

    def start(**attributes: Any) -> Any:
        job = shared._jobs[shared.addJob("hang", "it")]
        for name, value in attributes.items():
            setattr(job, name, value)
        shared_store.commit()
        shared.startProcessor()
        wait_until(lambda: remotejobs.hanging)
        shared_store.abort()
        assert job.status == "processing"
        return job

    return start


def test_attributes_that_others_set_are_kept(
    shared_store: Any, shared: Any, running: Any, eventually: Any, done: list[Any]
) -> None:
    job = running()
    job.colour = "blue"
    shared_store.commit()
    remotejobs.gate.set()
    eventually(shared_store, lambda: job.completed)
    assert (job.status, job.output, job.colour, done) == ("completed", "it", "blue", ["it"])


def test_a_retry_time_that_others_set_holds_for_the_next_run(
    shared_store: Any, shared: Any, running: Any, eventually: Any, done: list[Any]
) -> None:
    job = running(fails=True, retryDelay=0)
    job.retryTime = LATER
    shared_store.commit()
    remotejobs.gate.set()
    eventually(shared_store, lambda: job.status == "queued" and job.retryTime == LATER)
    assert done == ["it"]
    assert job.retryCounter == 1


def test_a_job_that_others_let_rest_is_not_repeated(
    shared_store: Any, shared: Any, running: Any, eventually: Any, done: list[Any]
) -> None:
    job = running(fails=True, retryDelay=0)
    job.active = False
    shared_store.commit()
    remotejobs.gate.set()
    eventually(shared_store, lambda: job.status == "queued")
    last = shared.addJob("note", "last")
    shared_store.commit()
    eventually(shared_store, lambda: shared.getJobStatus(last) == "completed")
    assert done == ["it", "last"]


def test_a_job_that_others_cancel_is_not_repeated(
    shared_store: Any, shared: Any, running: Any, eventually: Any
) -> None:
    job = running(fails=True, retryDelay=0)
    assert shared.cancelJob(job.__name__) is None
    shared_store.commit()
    remotejobs.gate.set()
    eventually(shared_store, lambda: job.status == "cancelled")
    assert len(job.errors) == 1


def test_a_job_that_runs_is_not_removed(
    shared_store: Any, shared: Any, running: Any, eventually: Any
) -> None:
    job = running()
    assert shared.removeJobs() == {"cancelled": 0, "completed": 0, "error": 0}
    shared_store.commit()
    remotejobs.gate.set()
    eventually(shared_store, lambda: job.status == "completed")
    assert shared.removeJobs("completed") == {"completed": 1}
    assert len(shared._jobs) == 0


def test_a_job_that_a_thread_runs_is_not_for_others_to_run(
    shared_store: Any, shared: Any, running: Any, eventually: Any, done: list[Any]
) -> None:
    job = running()
    with pytest.raises(TypeError, match="another worker"):
        shared.processJob(job.__name__)
    assert shared.processNextJob() is False
    remotejobs.gate.set()
    eventually(shared_store, lambda: job.status == "completed")
    assert done == ["it"]


def test_threads_and_callers_never_take_a_job_twice(
    shared_store: Any, shared: Any, eventually: Any, done: list[Any]
) -> None:
    shared.jobWorkerFactory = MultiJobWorker
    shared.jobWorkerArguments = {"waitTime": 0.01, "maxThreads": 3}
    jobids = [shared.addJob("keep") for _ in range(40)]
    shared_store.commit()
    shared.startProcessor()
    for _ in range(10):
        try:
            shared.processNextJob()
            shared_store.commit()
        except transaction.interfaces.TransientError:
            shared_store.abort()
    eventually(shared_store, lambda: all(shared._jobs[each].completed for each in jobids))
    assert [shared._jobs[jobid].count for jobid in jobids] == [1] * len(jobids)
