# SPDX-License-Identifier: ZPL-2.1
"""Threads that work on MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
import transaction
from zope.interface.verify import verifyObject

from lovely.remotetask.remote import interfaces
from lovely.remotetask.remote.mongo import MongoRemoteProcessor
from lovely.remotetask.remote.scheduler import Delay
from lovely.remotetask.remote.testing import EchoJob
from lovely.remotetask.remote.worker import MultiJobWorker
from servers import mongo_server

IDLE = {"waitTime": 3600.0}  # who takes a job before has been woken


def statuses(processor: Any) -> set[str]:
    """Return the statuses of the jobs as they are now."""
    transaction.abort()
    return {job.status for job in processor._jobs.values()}


def test_the_contracts_hold(processor: Any) -> None:
    verifyObject(interfaces.IRemoteProcessor, processor)
    verifyObject(interfaces.IJobFactories, processor._jobFactories)
    verifyObject(interfaces.IJobs, processor._jobs)
    verifyObject(interfaces.IScheduler, processor._scheduler)
    assert repr(processor) == "<MongoRemoteProcessor None>"
    with pytest.raises(ValueError, match="no class of jobs"):
        MongoRemoteProcessor(processor.database, [int])

    class Hiding(EchoJob):
        status = "hidden"

    with pytest.raises(ValueError, match="status"):
        MongoRemoteProcessor(processor.database, [Hiding])


def test_a_worker_is_woken_when_its_process_commits(
    processor: Any, until: Callable[..., None]
) -> None:
    processor.jobWorkerArguments = IDLE
    processor.startProcessor()
    assert processor.isProcessing
    for number in range(3):
        jobid = processor.addJob("echo", number)
        transaction.commit()
        until(lambda: statuses(processor) == {"completed"})
        assert processor.getJobResult(jobid) == number


def test_a_worker_looks_for_what_other_processes_add(
    processor: Any, other: Any, until: Callable[..., None]
) -> None:
    processor.jobWorkerArguments = {"waitTime": 0.05}
    processor.startProcessor()
    other.processor.addJob("echo")
    other.commit()
    until(lambda: statuses(processor) == {"completed"})


def test_a_worker_waits_no_longer_than_until_the_next_job_is_due(
    processor: Any, until: Callable[..., None]
) -> None:
    processor.jobWorkerArguments = IDLE
    jobid = processor.addJob("fatal")
    processor._jobs[jobid].retryDelay = 0.1
    transaction.commit()
    processor.startProcessor()
    until(lambda: statuses(processor) == {"error"})
    assert len(processor.getJobErrors(jobid)) == 3


def test_several_threads_run_several_jobs(
    processor: Any, call: Any, until: Callable[..., None]
) -> None:
    together = threading.Barrier(3)
    call(lambda job, processor: together.wait(60) and None)
    processor.jobWorkerFactory = MultiJobWorker
    processor.jobWorkerArguments = {**IDLE, "maxThreads": 3}
    for number in range(6):
        processor.addJob("call", number)
    transaction.commit()
    processor.startProcessor()
    until(lambda: statuses(processor) == {"completed"})


def test_a_job_runs_in_the_transaction_that_ends_it(
    processor: Any, call: Any, until: Callable[..., None], mongo_database: Any
) -> None:
    call(lambda job, processor: processor.addJob("echo", processor is job.__parent__))
    processor.jobWorkerArguments = IDLE
    processor.addJob("call")
    transaction.commit()
    processor.startProcessor()
    until(lambda: mongo_database.rjobs.count_documents({"status": "completed"}) == 2)
    assert mongo_database.rjobs.find_one({"jobName": "echo"})["output"] is True


def test_a_scheduler_adds_jobs(processor: Any, until: Callable[..., None]) -> None:
    processor.schedulerWorkerArguments = IDLE
    processor.startScheduler()
    assert processor.isScheduling
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    item = Delay({"jobName": "echo", "delay": 0.05, "active": True, "nextCallTime": past})
    processor.addScheduler(item)
    transaction.commit()

    def count() -> int:
        transaction.abort()
        return len(processor._jobs)

    until(lambda: count() >= 3)


def test_stopping_leaves_no_threads(processor: Any, until: Callable[..., None]) -> None:
    processor.startProcessor()
    processor.startScheduler()
    processor.stopProcessor()
    processor.stopScheduler()
    assert not processor.isProcessing
    assert not processor.isScheduling
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("root-")])


def test_closing_the_client_ends_its_workers(
    mongo_uri: str, mongo_database: Any, until: Callable[..., None]
) -> None:
    import pymongo

    client = pymongo.MongoClient(mongo_uri)
    processor = MongoRemoteProcessor(client[mongo_database.name], [EchoJob])
    processor.__name__ = "closed"
    processor.startProcessor()
    processor.startScheduler()
    client.close()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("closed")])
    assert not processor.isProcessing


def test_a_server_without_transactions_writes_one_after_the_other(
    tmp_path: Any, mongo_uri: str
) -> None:
    import pymongo
    from transaction.interfaces import TransientError

    with (
        mongo_server(tmp_path, "--standalone") as uri,
        pymongo.MongoClient(uri) as client,
    ):
        processor = MongoRemoteProcessor(client.alone, [EchoJob])
        processor.addJobFactory("echo", EchoJob())
        jobid = processor.addJob("echo", 1)
        transaction.commit()
        assert not processor.database.has_transactions
        assert processor.processNextJob()
        child = processor.addJob("echo", 2)
        transaction.commit()
        assert processor.getJobStatus(jobid) == "completed"
        processor.addJob("echo", 3)
        processor.cancelJob(child)
        client.alone.rjobs.update_one({"__name__": child}, {"$inc": {"_version": 1}})
        with pytest.raises(TransientError):
            transaction.commit()
        transaction.abort()
        assert len(processor._jobs) == 2  # what was written first was taken back
        transaction.abort()
