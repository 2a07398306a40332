# SPDX-License-Identifier: ZPL-2.1
"""What lovely.remotetask 0.5 has written is refused in words, and never overwritten."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.errors import JobUnusable, OldRecord
from lovely.remotetask.hosts.autostart import start_services
from lovely.remotetask.interfaces import COMPLETED, STATUSES
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.processor import SimpleProcessor
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.tree import JobTree

DATA = Path(__file__).parent.parent / "data"
SENTENCE = "was written by lovely.remotetask 0.5; .* see 'Coming from 0.5' in the documentation"


class Old:
    """A database of 0.5."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = ZODB.DB(FileStorage(str(path)))
        self.root = self.db.open().root()
        self.service = self.root["tasks"]
        self.before = path.read_bytes()

    @property
    def is_untouched(self) -> bool:
        return self.path.read_bytes() == self.before

    def id_of(self, name: str) -> int:
        jobid: int = self.root["ids"][name]
        return jobid


@pytest.fixture
def old(tmp_path: Path, register: Any) -> Iterator[Old]:
    """A database of 0.5, that zodbupdate has converted for Python 3."""
    register("echo", lambda input: input)
    path = tmp_path / "Data.fs"
    shutil.copyfile(DATA / "written-by-0.5-python3.fs", path)
    path.chmod(0o600)
    old = Old(path)
    yield old
    transaction.abort()
    old.db.close()


VERBS: dict[str, Callable[[Any, int], object]] = {
    "add": lambda service, jobid: service.add("echo"),
    "add an unknown task": lambda service, jobid: service.add("no such task"),
    "add_many": lambda service, jobid: service.add_many("echo", [1, 2]),
    "add none": lambda service, jobid: service.add_many("echo", []),
    "addCronJob": lambda service, jobid: service.addCronJob("echo", delay=5),
    "startJob": lambda service, jobid: service.startJob(jobid),
    "reschedule": lambda service, jobid: service.reschedule(jobid),
    "cancel": lambda service, jobid: service.cancel(jobid),
    "cancel an unknown job": lambda service, jobid: service.cancel(1),
    "clean": lambda service, jobid: service.clean(),
    "remove_oldest": lambda service, jobid: service.remove_oldest(COMPLETED),
    "getStatus": lambda service, jobid: service.getStatus(jobid),
    "getResult": lambda service, jobid: service.getResult(jobid),
    "getError": lambda service, jobid: service.getError(jobid),
    "getProgress": lambda service, jobid: service.getProgress(jobid),
    "countJobs": lambda service, jobid: service.countJobs(),
    "hasJobsWaiting": lambda service, jobid: service.hasJobsWaiting(),
    "claimNextJob": lambda service, jobid: service.claimNextJob(),
    "processNext": lambda service, jobid: service.processNext(),
    "processNext of a job": lambda service, jobid: service.processNext(jobid=jobid),
    "process": lambda service, jobid: service.process(),
    "startProcessing": lambda service, jobid: service.startProcessing(),
    "a setting": lambda service, jobid: setattr(service, "lease_seconds", 5.0),
    "retention": lambda service, jobid: setattr(service, "retention", {}),
    "an attribute": lambda service, jobid: setattr(service, "_mine", 5.0),
    "its jobs": lambda service, jobid: setattr(service, "jobs", JobTree()),
    "no jobs": lambda service, jobid: delattr(service, "jobs"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_service_of_old_refuses_each_verb_in_a_sentence(old: Old, verb: str) -> None:
    jobid = old.id_of("later")
    with pytest.raises(OldRecord, match=rf"^the service 'tasks' {SENTENCE}$"):
        VERBS[verb](old.service, jobid)
    transaction.commit()
    assert not old.service.isProcessing()
    old.service.stopProcessing(1.0)
    assert old.is_untouched


def test_a_service_of_old_can_be_taken_out_of_its_container(old: Old) -> None:
    old.service.__parent__ = None  # what a container does
    del old.root["tasks"]
    new = old.root["tasks"] = TaskService()
    transaction.commit()
    jobid = new.add("echo", 1)
    new.process()
    assert new.getResult(jobid) == 1


JOBS = (
    *("completed", "error", "generic", "queued", "queued2", "queued3", "later", "cancelled"),
    *("cron", "cronrun", "delayed", "delayed_new", "cron_new"),
)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_old_says_what_it_is_and_is_not_written(old: Old, name: str) -> None:
    jobid = old.id_of(name)
    job = old.service.jobs[jobid]
    uses: list[Callable[[], object]] = [
        lambda: job.status,
        lambda: setattr(job, "status", "queued"),
        lambda: job.start("worker", 0.0),
        lambda: job.cancel(0.0),
        lambda: job.__getstate__(),
        lambda: copy.copy(job),
        lambda: delattr(job, "input"),
        lambda: setattr(job, "_p_changed", True),
    ]
    if isinstance(job, CronJob):
        uses.append(lambda: job.update(minute=(5,)))
    for use in uses:
        with pytest.raises(OldRecord, match=rf"^the job {jobid} {SENTENCE}$"):
            use()
    transaction.commit()
    assert old.is_untouched


@pytest.mark.parametrize("state", [{"color": "red"}, {}, None, ["a", "b"], "state", 5])
def test_what_is_no_record_of_a_job_is_not_taken_for_one(state: Any) -> None:
    job = Job.__new__(Job)
    with pytest.raises(TypeError, match="is not the state of a job"):
        job.__setstate__(state)
    assert vars(job) == {}


def test_autostart_says_it_in_a_line_and_starts_the_others(
    old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    old.root["new"] = TaskService()
    transaction.commit()
    with caplog.at_level(logging.INFO, "lovely.remotetask"):
        assert start_services(old.db, ["*@*"]) == 1
    assert old.root["new"].isProcessing()
    old.root["new"].stopProcessing(20)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None
    start = "service tasks on site root could not be started: the service 'tasks' was written by"
    assert record.getMessage().startswith(start)


def test_a_processor_of_a_service_of_old_ends(old: Old, caplog: pytest.LogCaptureFixture) -> None:
    processor = SimpleProcessor(old.db, ["tasks"])
    processor()  # in this thread: it would never come back
    assert not processor.running
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "is of no use, its thread ends: the service 'tasks' was written" in record.getMessage()
    assert old.is_untouched


@pytest.mark.parametrize("repair", [False, True])
def test_a_check_names_a_service_of_old(old: Old, repair: bool) -> None:
    [problem] = check_all(old.service, time.time(), repair, transaction.commit)
    assert (problem.jobid, problem.is_mendable) == (None, False)
    assert problem.text.startswith("the service 'tasks' was written by lovely.remotetask 0.5")
    assert old.is_untouched


# -- jobs of 0.5 that somebody has put into a new service -------------------------------------


@pytest.fixture
def moved(old: Old) -> TaskService:
    """A new service, into which all jobs of the old one were put by hand."""
    new = old.root["new"] = TaskService()
    for jobid, job in old.service.jobs.items():
        new.jobs[jobid] = job
        new.queue.ready.put([jobid])
    transaction.commit()
    return new


def records_of(db: ZODB.DB, service: Any) -> dict[int, tuple[bytes, bytes]]:
    return {jobid: db.storage.load(service.jobs[jobid]._p_oid, "") for jobid in service.jobs}


def test_jobs_of_old_in_a_new_service_wait_aside(old: Old, moved: TaskService) -> None:
    before = records_of(old.db, moved)
    assert len(before) == len(JOBS)
    mine = moved.add("echo", "mine")
    moved.process()
    transaction.commit()
    assert moved.getResult(mine) == "mine"
    assert not moved.hasJobsWaiting()
    queued = old.id_of("queued")
    uses: list[Callable[[int], object]] = [
        *(moved.cancel, moved.startJob, moved.reschedule, moved.getStatus, moved.getResult),
        *(moved.getError, moved.getProgress),
    ]
    for use in uses:
        with pytest.raises(JobUnusable, match=f"the job {queued} {SENTENCE}$"):
            use(queued)
    moved.clean()
    assert set(moved.countJobs()) == set(STATUSES)
    transaction.commit()
    problems = check_all(moved, time.time(), True, transaction.commit)
    assert {problem.jobid for problem in problems if not problem.is_mendable} == set(before)
    assert records_of(old.db, moved) == before


def test_a_worker_passes_them_over(old: Old, moved: TaskService) -> None:
    before = records_of(old.db, moved)
    mine = moved.add("echo", "mine")
    transaction.commit()
    processor = SimpleProcessor(old.db, ["new"])
    assert processor.processNext()
    assert not processor.processNext()
    transaction.begin()
    assert moved.getResult(mine) == "mine"
    after = records_of(old.db, moved)
    del after[mine]
    assert after == before
    processor.stop()


def test_they_can_be_taken_out(old: Old, moved: TaskService) -> None:
    del moved.jobs[old.id_of("queued")]
    transaction.commit()
    assert old.id_of("queued") not in moved.jobs
