# SPDX-License-Identifier: ZPL-2.1
"""A database with all that this release stores; ``python tests/recording.py`` writes it anew.

What stands in ``tests/data/written-by-1.0.fs`` must be read for ever: once 1.0 is out, it is not
written again.  ``tests/contract/test_recording.py`` says what is in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.job import Progress
from lovely.remotetask.processor import MultiProcessor
from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Cron, Delay
from lovely.remotetask.remote.testing import EchoJob, ErrorJob, FatalErrorJob
from lovely.remotetask.remote.worker import MultiJobWorker, SchedulerWorker
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.gates import LOCK
from lovely.remotetask.store.joblog import JobLog
from lovely.remotetask.store.words import leave_word
from lovely.remotetask.store.worker import Worker
from lovely.remotetask.task import SimpleTask

RECORDING = Path(__file__).with_name("data") / "written-by-1.0.fs"

#: When the recording begins, in seconds since the epoch: a full hour.
START = 1_700_002_800.0

#: When it ends.
END = START + 300.0

TRACEBACK = 'Traceback (most recent call last):\n  File "shop.py", line 1, in fail\n'


def fail(input: Any) -> None:
    """Be a task that fails for good."""
    raise TaskError("no")


def stumble(input: Any) -> None:
    """Be a task that fails, and may be tried again."""
    raise ValueError("not yet")


TASKS: dict[str, Callable[[Any], Any]] = {
    "echo": lambda input: input,
    "fail": fail,
    "stumble": stumble,
    "late": lambda input: input,
}


def record(path: Path) -> None:
    """Write a database with jobs of each kind in each status, as it is at `END`.

    ``root["tasks"]`` is the service, and ``root["ids"]`` names the ids of its jobs.  The tasks of
    `TASKS` but *late* are registered at the end.  ``root["remote"]`` is a remote processor, and
    ``root["remote ids"]`` names the ids of its jobs and scheduler items.  ``root["chosen"]`` is a
    service with jobs of which it is decided which one may be claimed, and ``root["chosen ids"]``
    names their ids.
    """
    registry = getGlobalSiteManager()
    for name, function in TASKS.items():
        registry.registerUtility(SimpleTask(function), ITask, name=name)
    with closing(ZODB.DB(FileStorage(str(path), create=True))) as db:
        connection = db.open()
        root = connection.root()
        with mock.patch.object(time, "time", return_value=START) as clock:
            service = root["tasks"] = TaskService()
            root["ids"] = ids = PersistentMapping()
            _set_up(service)
            transaction.commit()
            _run(service, ids, clock)
            transaction.commit()
            registry.unregisterUtility(provided=ITask, name="late")
            _hold(service, ids, clock)
            transaction.commit()
            clock.return_value = END
            _wait(service, ids)
            transaction.commit()
            ids["linked"] = service.add("echo", "linked", after=ids["delayed"])
            transaction.commit()
            root["remote"] = remote = RemoteProcessor()
            root["remote ids"] = PersistentMapping()
            _set_up_remote(remote)
            transaction.commit()
            _run_remote(remote, root["remote ids"], clock)
            transaction.commit()
            root["chosen"] = chosen = TaskService()
            root["chosen ids"] = PersistentMapping()
            transaction.commit()
            _choose(chosen, root["chosen ids"])
            transaction.commit()
        transaction.abort()
        connection.close()
        db.pack()


def _set_up(service: TaskService) -> None:
    """Set all that an application can set."""
    service.lease_seconds = 30.0
    service.max_deaths = 5
    service.max_input_bytes = 10_000
    service.max_input_depth = 10
    service.around = ()
    service.log_level = 30
    service.processorFactory = MultiProcessor
    service.processorArguments = {"waitTime": 0.5, "maxThreads": 2}
    service.retention = {"completed": Retention(None, 1000), "error": Retention(1e9)}


def _run(service: TaskService, ids: dict[str, int], clock: mock.Mock) -> None:
    """Let jobs end, or wait for another attempt."""
    ids["completed"] = service.add("echo", {"key": [1, 2.5, "text", b"bytes", None, True]})
    ids["error"] = service.add("fail", "input")
    ids["again"] = service.add(
        "stumble", "input", retry=RetryPolicy(3, 600.0, jitter=0.0, give_up_on=(KeyError,))
    )
    ids["cancelled"] = service.add("echo", (1, 2))
    service.cancel(ids["cancelled"])
    patient = RetryPolicy(first_wait_seconds=500.0, jitter=0.0)
    ids["worn"] = service.addCronJob("stumble", delay=0.0, retry=patient)
    ids["cron again"] = service.addCronJob("echo", "input", minute=range(60), timezone="UTC")
    service.process(START + 10.0)
    service.process(START + 200.0)  # this one has missed some of its slots
    clock.return_value = START + 210.0
    for name in ("error", "again", "worn"):
        job = service.jobs[ids[name]]  # no paths of a machine
        job.failures = tuple(failure._replace(traceback=TRACEBACK) for failure in job.failures)
    service.jobs[ids["completed"]].carried = {"language": "cs"}
    log = service.jobs[ids["completed"]].log = JobLog()
    log.lines, log.left_out = ((START + 10.0, "INFO", 1, "done"),), 3
    worn = service.jobs[ids["worn"]]
    worn.deaths, worn.conflicts, worn.collisions = 1, 2, 3


def _choose(service: TaskService, ids: dict[str, int]) -> None:
    """Add jobs with priorities, keys, locks, limits and a time to expire.

    What it takes two processes with different code for is written down by hand.
    """
    service.limits = {"fail": 1}
    ids["locked"] = service.add("echo", lock="desk")
    ids["limited"] = service.add("fail", priority=5)
    ids["late"] = service.add("echo", priority=-5, unique_key="key", expires=1000)
    for name, task in (("behind lock", "echo"), ("behind limit", "fail")):
        ids[name] = service.add(task, priority=5, lock="desk" if task == "echo" else None)
    service.cancel(ids.setdefault("expired", service.add("echo", expires=2000)))
    for name in ("limited", "behind lock"):
        assert service.claimNextJob(END + 1.0) == ids[name]
    assert service.claimNextJob(END + 1.0) == ids["late"]
    service.queue.gates.idle = (LOCK + "desk",)
    leave_word(service.queue, ids["behind limit"], ids["locked"], True)
    [caller] = service.workers.values()
    caller.host, caller.pid = "recorder", 1


def _hold(service: TaskService, ids: dict[str, int], clock: mock.Mock) -> None:
    """Let workers hold jobs: one of a processor, and one of the application."""
    ids["claimed"] = service.add("echo", "claimed")
    assert service.claimNextJob(START + 220.0) == ids["claimed"]
    [caller] = service.workers.values()
    former = service.workers["former"] = Worker()
    former.threads = 3
    former.beats = 3
    for worker in (caller, former):
        worker.host, worker.pid = "recorder", 1
    for name in ("running", "to be cancelled", "just ended", "unwanted"):
        ids[name] = service.add("echo", name)
    ids["edited"] = service.addCronJob("echo", "edited", cron="30 * * * *")
    ids["replaced"] = service.ensure("replaced", "echo", "old", cron="30 * * * *")
    held = ["running", "to be cancelled", "just ended", "unwanted", "edited", "replaced"]
    for name in held:
        job = service.jobs[ids[name]]
        service.queue.remove(job)
        job.start("former", START + 230.0)
        former.held = (*former.held, job.id)
    service.progress[ids["running"]] = Progress(1, 2, "half way")
    service.lines[ids["running"]] = (((START + 235.0, "INFO", 1, "half way"),), 1)
    service.cancel(ids["to be cancelled"])
    service.jobs[ids["edited"]].update(cron="15 * * * *", timezone="UTC")
    service.ensure("replaced", "echo", "new", cron="15 * * * *", retry=RetryPolicy())
    for name in ("just ended", "unwanted"):
        service.jobs[ids[name]].finish(name, START + 240.0)
    service.jobs[ids["unwanted"]].is_unwanted = True


def _wait(service: TaskService, ids: dict[str, int]) -> None:
    """Let jobs wait for whatever a job can wait for."""
    ids["queued"] = service.add("echo")
    ids["many 1"], ids["many 2"] = service.add_many("echo", ["one", "two"])
    ids["later"] = service.add("echo", "later", startLater=True)
    service.jobs[ids["later"]].color = "red"  # an attribute of the application's own
    ids["delayed"] = service.addCronJob("echo", "delayed", delay=3600.0)
    ids["cron"] = service.addCronJob(
        "echo", "cron", (0,), (1, 13), (1,), (1, 7), (0,), timezone="Europe/Vienna"
    )
    registry = getGlobalSiteManager()
    registry.registerUtility(SimpleTask(TASKS["late"]), ITask, name="late")
    ids["parked"] = service.add("late", "parked")
    registry.unregisterUtility(provided=ITask, name="late")
    service.queue.park(service.jobs[ids["parked"]])
    ids["without zone"] = service.addCronJob("echo", minute=(45,), timezone="Asia/Tokyo")
    service.queue.count_later(service.jobs[ids["without zone"]], END)
    ids["keyed"] = service.ensure("a key", "echo", "keyed", hour=(3,), timezone="Europe/Vienna")
    declared = SimpleTask(TASKS["late"], cron="0 3 * * *")
    registry.registerUtility(declared, ITask, name="declared")
    ids["declared"] = service.ensure_declared()["declared"]
    registry.unregisterUtility(provided=ITask, name="declared")
    ids["first"] = service.add("echo", "first", on_success=("echo", "of first"))
    ids["second"] = service.add("fail", "second", after=ids["first"], on_error=("echo", None))
    ids["end"] = service.add_group("echo", ["member"], ("echo", "end"))
    [member] = service.group(ids["end"])
    ids["member"] = member.jobid


def _set_up_remote(remote: RemoteProcessor) -> None:
    """Set all that an application can set, and add factories."""
    remote.jobWorkerFactory = MultiJobWorker
    remote.jobWorkerArguments = {"waitTime": 0.5, "maxThreads": 2, "jobQuery": {"input": 1}}
    remote.schedulerWorkerFactory = SchedulerWorker
    remote.schedulerWorkerArguments = {"waitTime": 5.0}
    remote.addJobFactory("plain", Job({"color": "red"}))
    remote.addJobFactory("echo", EchoJob())
    remote.addJobFactory("error", ErrorJob())
    remote.addJobFactory("fatal", FatalErrorJob({"retryDelay": 600, "maxRetries": 5}))


def _run_remote(remote: RemoteProcessor, ids: dict[str, str], clock: mock.Mock) -> None:
    """Let jobs end, or wait for whatever a job can wait for, and add scheduler items."""
    now = datetime.fromtimestamp(END + 20.0, timezone.utc)
    ids["completed"] = remote.addJob("echo", {"key": [1, 2.5]})
    ids["error"] = remote.addJob("error", "input")
    ids["again"] = remote.addJob("fatal", "input")
    clock.return_value = END + 10.0
    with suppress(ValueError):
        remote.processJobs(callTime=now)
    for name in ("error", "again"):
        record = remote._jobs.record(ids[name])  # no paths of a machine
        record.failures = tuple(each._replace(traceback=TRACEBACK) for each in record.failures)
    ids["pulled"] = remote.addJob("echo", "pulled")
    assert remote.pullNextJob(callTime=now).__name__ == ids["pulled"]
    [worker] = remote.workers.values()
    worker.host, worker.pid = "recorder", 1
    remote._jobs[ids["pulled"]].retryTime = datetime(2080, 1, 1, tzinfo=timezone.utc)
    ids["cancelled"] = remote.addJob("echo", (1, 2))
    remote.cancelJob(ids["cancelled"])
    ids["queued"] = remote.addJob("plain")
    ids["resting"] = remote.addJob("echo", "resting")
    remote._jobs[ids["resting"]].active = False
    ids["timed"] = remote.addJob("echo", "timed")
    remote._jobs[ids["timed"]].retryTime = datetime(2080, 1, 1, tzinfo=timezone.utc)
    data = {"title": "title", "description": "text", "input": 1, "active": True, "retryDelay": 60}
    times = {"nextCallTime": now, "retryTime": now}
    ids["delay"] = remote.addScheduler(Delay({"jobName": "echo", "delay": 60.5, **data, **times}))
    fields = {"minute": [0, 30], "hour": [1], "dayOfMonth": [1], "month": [1], "dayOfWeek": [0]}
    ids["cron"] = remote.addScheduler(Cron({"jobName": "echo", **fields, **data, **times}))
    ids["idle"] = remote.addScheduler(Cron({"jobName": "echo"}))


if __name__ == "__main__":
    RECORDING.unlink(missing_ok=True)
    record(RECORDING)
    for name in (".index", ".lock", ".tmp", ".old"):
        Path(f"{RECORDING}{name}").unlink(missing_ok=True)
    print(f"{RECORDING}: {RECORDING.stat().st_size} bytes")
