# SPDX-License-Identifier: ZPL-2.1
"""What this release has once written is read for ever; ``tests/recording.py`` has written it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.broken import Broken

from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
    STATUSES,
)
from lovely.remotetask.job import CronJob, Edit, Failure, Job, Progress
from lovely.remotetask.processor import MultiProcessor
from lovely.remotetask.remote.worker import MultiJobWorker as RemoteMultiJobWorker
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from recording import END, START, TRACEBACK

ANYTHING = {"key": [1, 2.5, "text", b"bytes", None, True]}
STUMBLED = (Failure(1, START + 10.0, "ValueError", "not yet", TRACEBACK),)

#: Name of a job -> its status, input and output.
JOBS: dict[str, tuple[str, Any, Any]] = {
    "completed": (COMPLETED, ANYTHING, ANYTHING),
    "error": (ERROR, "input", None),
    "again": (QUEUED, "input", None),
    "cancelled": (CANCELLED, (1, 2), None),
    "worn": (DELAYED, None, None),
    "cron again": (CRONJOB, "input", "input"),
    "claimed": (PROCESSING, "claimed", None),
    "running": (PROCESSING, "running", None),
    "to be cancelled": (PROCESSING, "to be cancelled", None),
    "just ended": (COMPLETED, "just ended", "just ended"),
    "unwanted": (COMPLETED, "unwanted", "unwanted"),
    "edited": (PROCESSING, "edited", None),
    "replaced": (PROCESSING, "old", None),
    "queued": (QUEUED, None, None),
    "many 1": (QUEUED, "one", None),
    "many 2": (QUEUED, "two", None),
    "later": (STARTLATER, "later", None),
    "delayed": (DELAYED, "delayed", None),
    "cron": (CRONJOB, "cron", None),
    "parked": (QUEUED, "parked", None),
    "without zone": (CRONJOB, None, None),
    "keyed": (CRONJOB, "keyed", None),
    "declared": (CRONJOB, None, None),
    "first": (QUEUED, "first", None),
    "second": (QUEUED, "second", None),
    "end": (QUEUED, "end", None),
    "member": (QUEUED, "member", None),
    "linked": (QUEUED, "linked", None),
}

#: Name of a job -> when it was created, started, completed and is due, in seconds after `START`.
TIMES: dict[str, tuple[float | None, ...]] = {
    "completed": (0.0, 10.0, 10.0, None),
    "error": (0.0, 10.0, 10.0, None),
    "again": (0.0, 10.0, None, 610.0),
    "cancelled": (0.0, None, 0.0, None),
    "worn": (0.0, 10.0, None, 510.0),
    "cron again": (0.0, 200.0, None, 240.0),
    "claimed": (210.0, 220.0, None, None),
    "running": (210.0, 230.0, None, None),
    "to be cancelled": (210.0, 230.0, None, None),
    "just ended": (210.0, 230.0, 240.0, None),
    "unwanted": (210.0, 230.0, 240.0, None),
    "edited": (210.0, 230.0, None, None),
    "replaced": (210.0, 230.0, None, None),
    "queued": (300.0, None, None, None),
    "many 1": (300.0, None, None, None),
    "many 2": (300.0, None, None, None),
    "later": (300.0, None, None, None),
    "delayed": (300.0, None, None, 3900.0),
    "cron": (300.0, None, None, 4064400.0),
    "parked": (300.0, None, None, None),
    "without zone": (300.0, None, None, None),
    "keyed": (300.0, None, None, 10800.0),
    "declared": (300.0, None, None, 14400.0),
    "first": (300.0, None, None, None),
    "second": (300.0, None, None, None),
    "end": (300.0, None, None, None),
    "member": (300.0, None, None, None),
    "linked": (300.0, None, None, None),
}

#: Name of a job -> what else is told of it.
DETAILS: dict[str, dict[str, Any]] = {
    "completed": {"attempt": 1, "owner": None, "place": None, "failures": (), "retry": None},
    "error": {
        "errors": 1,
        "failures": (Failure(1, START + 10.0, "TaskError", "no", TRACEBACK),),
        "error": "no",
    },
    "again": {
        "errors": 1,
        "failures": STUMBLED,
        "retry": RetryPolicy(3, 600.0, jitter=0.0, give_up_on=(KeyError,)),
    },
    "cancelled": {"attempt": 0},
    "worn": {"deaths": 1, "conflicts": 2, "collisions": 3, "delay": 0.0, "failures": STUMBLED},
    "cron again": {"minute": tuple(range(60)), "missed": 2, "slot": START + 200.0, "attempt": 1},
    "running": {"attempt": 1, "owner": "former"},
    "unwanted": {"is_unwanted": True},
    "edited": {"cron": "30 * * * *", "timezone": None, "owner": "former"},
    "later": {"color": "red"},
    "delayed": {"delay": 3600.0, "minute": ()},
    "cron": {
        "minute": (0,),
        "hour": (1, 13),
        "dayOfMonth": (1,),
        "month": (1, 7),
        "dayOfWeek": (0,),
        "timezone": "Europe/Vienna",
    },
    "parked": {"place": "late"},
    "without zone": {"minute": (45,), "timezone": "Asia/Tokyo"},
    "replaced": {"key": "replaced", "cron": "30 * * * *", "is_declared": False},
    "keyed": {"key": "a key", "hour": (3,), "timezone": "Europe/Vienna", "is_declared": False},
    "declared": {"key": "declared", "cron": "0 3 * * *", "is_declared": True},
    "first": {"on_success": ("echo", "of first"), "on_error": None, "after": ()},
    "second": {"on_error": ("echo", None), "cause": None},
}

#: What has become of the jobs after a call of `process` at `END`, and two hours later: status and
#: output.  What is not here is as it was.
AT_ONCE: dict[str, tuple[str, Any]] = {
    "cron again": (CRONJOB, "echo of input"),
    "claimed": (COMPLETED, "echo of claimed"),
    "running": (COMPLETED, "echo of running"),
    "to be cancelled": (CANCELLED, None),
    "edited": (CRONJOB, None),
    "replaced": (CRONJOB, None),
    "queued": (COMPLETED, "echo of None"),
    "many 1": (COMPLETED, "echo of one"),
    "many 2": (COMPLETED, "echo of two"),
    "parked": (COMPLETED, "late of parked"),
    "first": (COMPLETED, "echo of first"),
    "second": (COMPLETED, "fail of second"),
    "member": (COMPLETED, "echo of member"),
    "end": (COMPLETED, "echo of end"),
}
AFTER_HOURS: dict[str, tuple[str, Any]] = {
    "again": (COMPLETED, "stumble of input"),
    "worn": (COMPLETED, "stumble of None"),
    "edited": (CRONJOB, "echo of edited"),
    "replaced": (CRONJOB, "echo of new"),
    "delayed": (COMPLETED, "echo of delayed"),
    "without zone": (CRONJOB, "echo of None"),
    "linked": (COMPLETED, "echo of linked"),
}


@pytest.fixture
def service(recorded: ZODB.DB) -> Iterator[Any]:
    """The service of the recording, in the thread's own transaction."""
    with closing(recorded.open()) as connection:
        yield connection.root()["tasks"]
        connection.transaction_manager.abort()


@pytest.fixture
def job(service: Any) -> Callable[[str], Any]:
    """Return ``job(name)``, which returns a job of the recording, or None."""
    ids = service._p_jar.root()["ids"]
    return lambda name: service.jobs.get(ids[name])


def test_each_object_can_be_loaded(recorded: ZODB.DB, service: Any) -> None:
    with closing(recorded.storage.iterator()) as transactions:
        oids = {record.oid for txn in transactions for record in txn}
    assert len(oids) > 100
    for oid in oids:
        loaded = service._p_jar.get(oid)
        loaded._p_activate()
        assert not isinstance(loaded, Broken)


def test_it_has_jobs_in_each_status(service: Any) -> None:
    assert {status for status, _, _ in JOBS.values()} == set(STATUSES)
    counts = dict.fromkeys(STATUSES, 0)
    for name, (status, _, _) in JOBS.items():
        counts[status] += name != "unwanted"
    assert service.countJobs() == counts


def test_its_jobs_are_all_known(service: Any) -> None:
    ids = service._p_jar.root()["ids"]
    assert set(ids) == set(JOBS) == set(TIMES)
    assert sorted(ids.values()) == list(service.jobs)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_what_it_was(job: Any, name: str) -> None:
    found = job(name)
    assert (found.status, found.input, found.output) == JOBS[name]
    times = (found.created_at, found.started_at, found.completed_at, found.due)
    assert tuple(None if at is None else at - START for at in times) == TIMES[name]
    details = DETAILS.get(name, {})
    assert {attribute: getattr(found, attribute) for attribute in details} == details
    is_cron_job = found.status in (CRONJOB, DELAYED) or name in ("edited", "replaced")
    assert type(found) is (CronJob if is_cron_job else Job)


def test_its_workers_hold_what_they_held(service: Any, job: Any) -> None:
    former = service.workers["former"]
    held = [job(name).id for name in JOBS if job(name).owner == "former"]
    assert sorted(former.held) == sorted([*held, job("just ended").id, job("unwanted").id])
    assert (former.host, former.pid, former.beats, former.is_inline) == ("recorder", 1, 3, False)
    [caller] = (worker for worker in service.workers.values() if worker is not former)
    assert (caller.held, caller.is_inline) == ((job("claimed").id,), True)


def test_what_is_noted_of_running_jobs(service: Any, job: Any) -> None:
    assert dict(service.progress) == {job("running").id: Progress(1, 2, "half way")}
    assert list(service.requests) == [job("to be cancelled").id]
    edit = Edit((), (), (), (), (), "UTC", "15 * * * *", None)
    assert set(service.edits) == {job("edited").id, job("replaced").id}
    assert service.edits[job("edited").id] == edit
    replacement = service.edits[job("replaced").id]
    assert (replacement.task, replacement.input, replacement.cron) == ("echo", "new", "15 * * * *")
    assert job("to be cancelled").is_cancel_requested


def test_its_jobs_wait_for_each_other(service: Any, job: Any) -> None:
    for name, before in (("second", "first"), ("linked", "delayed")):
        assert job(name).after == job(name).awaits == (job(before).id,)
    assert job("end").awaits == (job("end").id,)
    group = service.group(job("end").id)
    assert [tuple(member) for member in group] == [(job("member").id, QUEUED, None)]
    assert (group.total, group.done, job("member").group) == (1, 0, group.id)


def test_its_settings_are_what_they_were(service: Any) -> None:
    assert service.processorFactory is MultiProcessor
    assert service.processorArguments == {"waitTime": 0.5, "maxThreads": 2}
    assert (service.lease_seconds, service.max_deaths) == (30.0, 5)
    assert (service.max_input_bytes, service.max_input_depth) == (10_000, 10)
    retention = {status: tuple(kept) for status, kept in service.retention.items()}
    assert retention == {"completed": (None, 1000), "error": (1e9, None)}


def test_a_check_finds_nothing(service: Any) -> None:
    assert check_all(service, END, repair=False) == []


def test_its_jobs_go_on(service: Any, job: Any, register: Any) -> None:
    for task in ("echo", "fail", "stumble", "late"):
        register(task, lambda input, task=task: f"{task} of {input}")
    expected = {name: (status, output) for name, (status, _, output) in JOBS.items()}
    del expected["unwanted"]
    for now, changes in ((END, AT_ONCE), (END + 7200.0, AFTER_HOURS)):
        service.process(now)
        expected |= changes
        found = {name: job(name) for name in JOBS if job(name) is not None}
        assert {name: (of.status, of.output) for name, of in found.items()} == expected
        assert check_all(service, now, repair=False) == []
        service._p_jar.transaction_manager.commit()
    assert job("running").attempt == 2
    assert job("edited").cron == job("replaced").cron == "15 * * * *"
    assert job("replaced").input == "new"
    assert not len(service.workers)
    assert service.startJob(job("later").id)
    service.process(END + 7200.0)
    assert job("later").output == "echo of later"
    service.clean()
    assert {of.status for of in service.jobs.values()} == {CRONJOB}


# -- the remote processor ----------------------------------------------------------------------

LATER = datetime(2080, 1, 1, tzinfo=timezone.utc)

#: Name of a job -> its factory, and what is told of it.
REMOTE_JOBS: dict[str, dict[str, Any]] = {
    "completed": {"jobName": "echo", "status": COMPLETED, "output": {"key": [1, 2.5]}},
    "error": {"jobName": "error", "status": ERROR, "input": "input", "retryCounter": 1},
    "again": {"jobName": "fatal", "status": QUEUED, "retryCounter": 1, "maxRetries": 5},
    "pulled": {"jobName": "echo", "status": PROCESSING, "input": "pulled"},
    "cancelled": {"jobName": "echo", "status": CANCELLED, "input": (1, 2)},
    "queued": {"jobName": "plain", "status": QUEUED, "color": "red", "active": True},
    "resting": {"jobName": "echo", "status": QUEUED, "active": False},
    "timed": {"jobName": "echo", "status": QUEUED, "retryTime": LATER},
}


@pytest.fixture
def remote(recorded: ZODB.DB) -> Iterator[Any]:
    """The remote processor of the recording, and the names of its ids."""
    with closing(recorded.open()) as connection:
        yield connection.root()["remote"], connection.root()["remote ids"]
        transaction.abort()


@pytest.mark.parametrize("name", REMOTE_JOBS)
def test_a_job_of_a_remote_processor_is_as_it_was(remote: Any, name: str) -> None:
    processor, ids = remote
    job = processor._jobs[ids[name]]
    told = REMOTE_JOBS[name]
    assert {attribute: getattr(job, attribute) for attribute in told} == told
    assert job.__name__ == ids[name]
    assert [error.split("] ")[1] for error in job.errors] == (
        ["An error occurred."] if name in ("error", "again") else []
    )


def test_the_rest_of_a_remote_processor_is_as_it_was(remote: Any) -> None:
    processor, ids = remote
    assert len(processor._jobs) == len(REMOTE_JOBS)
    assert sorted(processor._jobFactories) == ["echo", "error", "fatal", "plain"]
    assert processor.jobWorkerFactory is RemoteMultiJobWorker
    assert processor.jobWorkerArguments["jobQuery"] == {"input": 1}
    cron = processor._scheduler[ids["cron"]]
    assert (cron.minute, cron.hour, cron.month, cron.retryDelay) == ([0, 30], [1], [1], 60)
    assert processor._scheduler[ids["delay"]].delay == 60.5
    assert processor._scheduler[ids["idle"]].active is False
    assert [problem.text for problem in check_all(processor, END, repair=False)] == []


def test_a_remote_processor_that_was_recorded_goes_on(remote: Any) -> None:
    processor, ids = remote
    with pytest.raises(TypeError, match="another worker"):
        processor.processJob(ids["pulled"])  # that of the process which has recorded it
    assert processor.scheduleNextJob() is not None
    assert processor.processNextJob({"jobName": "echo"}) is True
    assert processor.getJobStatus(ids["timed"]) == QUEUED
    assert processor.processNextJob({"input": "timed"}, LATER) is True
    assert processor.getJobResult(ids["timed"]) == "timed"
    retryTime = processor._jobs[ids["pulled"]].retryTime
    assert (processor.getJobStatus(ids["pulled"]), retryTime) == (QUEUED, LATER)


def test_jobs_with_keys_locks_and_limits_go_on(recorded: ZODB.DB, register: Any) -> None:
    for task in ("echo", "fail"):
        register(task, lambda input: input)
    root = recorded.open().root()
    service, ids = root["chosen"], root["chosen ids"]
    assert check_all(service, END + 2.0, repair=False) == []
    assert service.limits == {"fail": 1}
    assert service.find("key") == ids["late"]
    waits = {name: service.job(jobid).waits_for for name, jobid in ids.items()}
    assert {name: reason for name, reason in waits.items() if reason} == {
        "locked": f"the lock 'desk', after job {ids['behind lock']}",
        "behind limit": f"the limit of the task 'fail', after job {ids['limited']}",
    }
    service.process(END + 100.0)  # the processes that have claimed some are gone
    statuses = {name: service.getStatus(jobid) for name, jobid in ids.items()}
    assert statuses == {**dict.fromkeys(ids, COMPLETED), "expired": CANCELLED}
    assert service.find("key") is None
    assert check_all(service, END + 100.0, repair=False) == []
    transaction.abort()
