# SPDX-License-Identifier: ZPL-2.1
"""A service of 0.5 is brought to today's records, in steps, with nothing lost."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import transaction
import ZODB
from BTrees.IOBTree import IOBTree
from zc.queue import Queue
from ZODB.FileStorage import FileStorage

from lovely.remotetask.engine import upgrade as upgrading
from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.engine.upgrade import Report, Upgrade, is_upgradable
from lovely.remotetask.errors import TaskError
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all

DATA = Path(__file__).parent.parent.parent / "data"
CREATED = datetime(2026, 11, 26, 7, 23, 51)


@pytest.fixture
def file(tmp_path: Path, register: Any) -> Iterator[Path]:
    """The path of a database of 0.5, that zodbupdate has converted for Python 3."""
    register("echo", lambda input: input)
    path = tmp_path / "Data.fs"
    shutil.copyfile(DATA / "written-by-0.5-python3.fs", path)
    path.chmod(0o600)
    yield path
    transaction.abort()


def upgraded(service: Any, zone: Any = timezone.utc, runs_claimed: bool = True) -> Report:
    """Bring a service to today's records, committing each step."""
    upgrade = Upgrade(service, zone, time.time(), runs_claimed)
    while True:
        report = upgrade.step()
        transaction.commit()
        if report is not None:
            return report


class Recorded:
    """The service that 0.5 has written, and the ids of its jobs by name."""

    def __init__(self, path: Path) -> None:
        self.db = ZODB.DB(FileStorage(str(path)))
        self.root = self.db.open().root()
        self.service: Any = self.root["tasks"]

    @property
    def stored(self) -> dict[str, Any]:
        self.service._p_activate()
        return vars(self.service)

    def job(self, name: str) -> Any:
        return self.service.job(self.root["ids"][name])


@pytest.fixture
def recorded(file: Path) -> Iterator[Recorded]:
    recorded = Recorded(file)
    yield recorded
    transaction.abort()
    recorded.db.close()


def test_every_job_of_the_recording_keeps_its_id_its_status_and_its_values(
    recorded: Recorded,
) -> None:
    ids = set(recorded.stored["jobs"])
    report = upgraded(recorded.service)
    assert report.jobs == {
        "completed": 1,
        "error": 2,
        "cronjob": 3,
        "delayed": 2,
        "queued": 3,
        "start later": 1,
        "cancelled": 1,
    }
    assert (report.claimed, report.dropped, report.remarks) == (0, 0, [])
    assert set(recorded.service.jobs) == ids
    completed = recorded.job("completed")
    assert completed.output["u"] == "ä"
    assert completed.output == completed.input
    assert completed.attempt == 1
    assert completed.completed - completed.started < timedelta(seconds=1)
    assert completed.completed.tzinfo is timezone.utc
    assert recorded.service.getError(recorded.job("generic").id) == "käse"
    [failure] = recorded.job("error").failures
    assert (failure.type, failure.message) == ("TaskError", "An error occurred.")
    assert recorded.job("cron").minute == (0, 10)
    assert recorded.job("cronrun").output == {"n": 7}
    assert list(check_all(recorded.service, time.time(), False, transaction.abort)) == []


def test_jobs_that_wait_for_a_time_are_due_when_0_5_had_them_due(recorded: Recorded) -> None:
    due = {
        job._p_oid: when for when, jobs in recorded.stored["_scheduledJobs"].items() for job in jobs
    }
    names = ("cron", "cronrun", "delayed")
    old = recorded.stored["jobs"]
    expected = [due[old[recorded.root["ids"][name]]._p_oid] for name in names]
    upgraded(recorded.service)
    assert [recorded.job(name).scheduledFor.timestamp() for name in names] == expected
    fresh = recorded.job("delayed_new")
    assert fresh.scheduledFor == fresh.created + timedelta(seconds=60)
    assert recorded.job("cron_new").scheduledFor > datetime.now(timezone.utc)


def test_the_service_works_on_afterwards_in_the_order_of_0_5(
    recorded: Recorded, register: Any
) -> None:
    seen: list[Any] = []
    register("echo", seen.append)
    upgraded(recorded.service)
    recorded.service.process()
    assert [recorded.job(name).status for name in ("queued", "queued2", "queued3")] == [
        "completed"
    ] * 3
    in_line = [{"n": 1}, {"n": 2}, ("t", 3)]
    assert [input for input in seen if input in in_line] == in_line
    transaction.commit()
    assert not is_upgradable(recorded.service)


def test_dates_are_read_in_the_zone_that_is_named(recorded: Recorded) -> None:
    upgraded(recorded.service, ZoneInfo("America/New_York"))
    created = recorded.job("queued").created
    assert created.replace(microsecond=0) == datetime(2026, 11, 26, 12, 23, 51, tzinfo=timezone.utc)


def test_a_plan_tells_the_same_and_changes_nothing(recorded: Recorded, file: Path) -> None:
    before = file.read_bytes()
    planned = Upgrade(recorded.service, timezone.utc, time.time(), True).plan()
    transaction.commit()
    assert file.read_bytes() == before
    assert upgraded(recorded.service) == planned


def test_who_is_stopped_between_two_steps_goes_on_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrading, "STEP_SIZE", 2)
    steps = 0
    while True:
        recorded = Recorded(file)
        try:
            assert is_upgradable(recorded.service)
            report = Upgrade(recorded.service, timezone.utc, time.time(), True).step()
            transaction.commit()
            steps += 1
            if report is not None:
                break
        finally:
            transaction.abort()
            recorded.db.close()
    assert steps == 10  # 13 jobs, 3 of them in the line, and the end
    recorded = Recorded(file)
    assert sum(report.jobs.values()) == len(recorded.service.jobs) == 13
    recorded.service.process()
    assert [recorded.job(name).status for name in ("queued", "queued3")] == ["completed"] * 2
    transaction.abort()
    recorded.db.close()


# -- what the recording does not have --------------------------------------------------------


class Old:
    """A database with a service of 0.5, filled by hand."""

    def __init__(self) -> None:
        self.db = ZODB.DB(None)
        self.root = self.db.open().root()
        service: Any = TaskService.__new__(TaskService)
        self.service = self.root["tasks"] = service
        self.parts = {
            "jobs": IOBTree(),
            "_queue": Queue(),
            "_scheduledJobs": IOBTree(),
            "_scheduledQueue": Queue(),
        }
        vars(self.service).update(self.parts, __name__="tasks")

    def add(self, jobid: int, kind: type[Job] = Job, **attributes: Any) -> Any:
        job = kind.__new__(kind)
        state = {"id": jobid, "task": "echo", "input": jobid, "created": CREATED, **attributes}
        vars(job).update(state)
        self.parts["jobs"][jobid] = job
        return job

    def add_cron(self, jobid: int, **attributes: Any) -> Any:
        fields: dict[str, Any] = dict.fromkeys(("minute", "hour", "dayOfMonth", "month"), ())
        fields |= {"dayOfWeek": (), "delay": None, "status": "cronjob", **attributes}
        return self.add(jobid, CronJob, **fields)

    def store(self) -> Any:
        """Commit, and return the service as somebody else loads it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Job, "__getstate__", lambda job: dict(vars(job)))
            transaction.commit()
        self.root._p_jar.cacheMinimize()
        return self.service


@pytest.fixture
def old(register: Any) -> Iterator[Old]:
    register("echo", lambda input: input)
    old = Old()
    yield old
    transaction.abort()
    old.db.close()


def test_a_job_that_a_thread_had_claimed_runs_first(old: Old, register: Any) -> None:
    seen: list[Any] = []
    register("echo", seen.append)
    for jobid in (7, 5, 6):
        job = old.add(jobid, status="queued")
        if jobid != 7:
            old.parts["_queue"].put(job)
    report = upgraded(old.store())
    assert report.claimed == 1
    old.service.process()
    assert seen == [7, 5, 6]


def test_a_job_that_a_thread_had_claimed_is_an_error_if_that_is_asked_for(old: Old) -> None:
    old.add(7, status="queued")
    old.add_cron(8, status="delayed", delay=60)
    report = upgraded(old.store(), runs_claimed=False)
    assert (report.claimed, report.jobs) == (2, {"error": 2})
    assert "had claimed it" in old.service.getError(7)


@pytest.mark.parametrize(
    ("stored", "today"),
    [
        ({"dayOfMonth": tuple(range(31))}, {"dayOfMonth": ()}),
        ({"month": tuple(range(12))}, {"month": ()}),
        ({"month": (0, 3)}, {"month": (3,)}),
        ({"hour": (3,), "dayOfWeek": (0, 6)}, {"hour": (3,), "dayOfWeek": (0, 6)}),
    ],
)
def test_sets_are_read_as_the_form_of_0_5_meant_them(
    old: Old, stored: dict[str, Any], today: dict[str, Any]
) -> None:
    old.parts["_scheduledQueue"].put(old.add_cron(3, minute=(5,), **stored))
    upgraded(old.store())
    job = old.service.job(3)
    assert job.status == "cronjob"
    assert {name: getattr(job, name) for name in today} == today


def test_a_schedule_that_never_comes_true_is_an_error_that_says_so(old: Old) -> None:
    old.parts["_scheduledQueue"].put(old.add_cron(3, dayOfMonth=(30,), month=(2,)))
    report = upgraded(old.store())
    assert report.jobs == {"error": 1}
    assert old.service.getError(3) == ("the schedule dayOfMonth=(30,), month=(2,) never comes true")
    assert list(check_all(old.service, time.time(), False, transaction.abort)) == []


def test_the_job_with_the_id_0_gets_another_one_and_that_is_told(old: Old) -> None:
    old.add(0, status="start later")
    old.add(1, status="start later")
    report = upgraded(old.store())
    [remark] = report.remarks
    other = next(jobid for jobid in old.service.jobs if jobid != 1)
    assert remark == f"job 0 is job {other} now: ids begin at 1"
    assert old.service.job(other).input == 0


def test_entries_of_jobs_that_are_gone_are_dropped_and_counted(old: Old) -> None:
    old.parts["_queue"].put(old.add(1, status="queued"))
    old.parts["_queue"].put(old.add(2, status="queued"))
    old.parts["_scheduledJobs"][1_300_000_000] = (old.add_cron(3, hour=(3,)),)
    del old.parts["jobs"][2], old.parts["jobs"][3]
    report = upgraded(old.store())
    assert (report.dropped, report.jobs) == (2, {"queued": 1})
    assert old.service.countJobs()["queued"] == 1


def test_what_cannot_be_kept_of_a_job_is_told(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gone_since")
    exec("class Gone: pass", vars(module))
    monkeypatch.setitem(sys.modules, "gone_since", module)
    Gone = vars(module)["Gone"]
    old.parts["_queue"].put(old.add(1, status="queued", input=Gone()))
    old.add(2, status="completed", completed=CREATED, output=Gone())
    service = old.store()
    monkeypatch.delitem(sys.modules, "gone_since")
    report = upgraded(service)
    assert report.jobs == {"error": 1, "completed": 1}
    assert report.remark_count == 2
    assert all("Gone" in remark for remark in report.remarks)
    assert "Gone" in service.getError(1)
    assert service.getResult(2) is None
    assert list(check_all(service, time.time(), False, transaction.abort)) == []


def test_jobs_that_ended_long_ago_are_kept_as_0_5_kept_them(old: Old) -> None:
    ended = datetime(2009, 9, 10)
    old.add(1, status="completed", started=ended, completed=ended)
    old.add(2, status="error", completed=ended, error=TaskError("no"))
    assert upgraded(old.store()).outdated == 2
    assert set(old.service.retention.values()) == {Retention()}


def test_the_default_retention_stays_where_it_would_remove_nothing(old: Old) -> None:
    now = datetime.now()
    old.add(1, status="completed", started=now, completed=now)
    assert upgraded(old.store(), None).outdated == 0
    assert "retention" not in vars(old.service)


def test_settings_and_other_attributes_stay_but_for_what_makes_no_sense(old: Old) -> None:
    vars(old.service).update(processorArguments={"waitTime": -1}, mine="kept", _counter=5)
    report = upgraded(old.store())
    assert old.service.mine == "kept"
    assert old.service.processorArguments == {"waitTime": 1.0}
    assert "processorArguments" in report.remarks[0]
    assert not vars(old.service).keys() & {"_counter", "_queue", "_upgraded"}


def test_a_cancelled_cron_job_that_still_stands_in_the_schedule_stays_cancelled(old: Old) -> None:
    old.parts["_scheduledJobs"][1_300_000_000] = (old.add_cron(3, status="cancelled"),)
    upgraded(old.store())
    assert old.service.getStatus(3) == "cancelled"
    assert not old.service.hasJobsWaiting()
