# SPDX-License-Identifier: ZPL-2.1
"""The two doors, as the demo uses them: a service with tasks, a processor with job objects."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from lovely.remotetask.command.demo.files import File
from lovely.remotetask.command.demo.indexing import FREQUENT_WORDS, INDEX, REPORT
from lovely.remotetask.command.demo.jobs import (
    FindFrequentWords,
    IndexFile,
    WriteReport,
    number_of,
)
from lovely.remotetask.interfaces import FINAL_STATUSES, STATUSES
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.remote.interfaces import JOB_STATUS_NAMES
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Cron, Delay
from lovely.remotetask.remote.worker import SCHEDULER, WORKER, MultiJobWorker, SimpleJobWorker
from lovely.remotetask.service import TaskService

#: The cron job runs every minute; so does a `Cron` item without fields.
SCHEDULE = "* * * * *"

#: The delayed job waits this long, and then finds this many words.
DELAY_SECONDS = 1.0
FREQUENT_COUNT = 10

#: Where a scheduler adds it: it comes again after this many seconds.
FREQUENT_SECONDS = 3600

#: A job object that fails is repeated after this many seconds, up to so many runs.
RETRY_SECONDS = 0.3
MAX_RUNS = 1000


class Seen(NamedTuple):
    """What the demo looks at of a job.  ``errors``: all that it has raised, as text."""

    id: int
    name: str
    status: str
    input: Any
    output: Any
    errors: list[str]


class Door(ABC):
    """What a run asks of a service, or of a processor.

    ``database_file``: its name in the directory; ``key``: where it stands in the root object;
    ``statuses``: of its jobs; ``reporter``: what writes the reports; ``has_report_jobs``: whether
    each report has a job of its own; ``has_late_file``: whether one file is there only after its
    job has failed.
    """

    database_file: str
    key: str
    statuses: Sequence[str]
    reporter: str
    has_report_jobs: bool
    has_late_file: bool

    @abstractmethod
    def make(self, root: Any) -> None:
        """Put a new one into the root object.  Transaction: caller commits."""

    @abstractmethod
    def set_workers(self, service: Any, workers: int) -> None:
        """Let it run so many jobs at a time.  Transaction: caller commits."""

    @abstractmethod
    def start(self, service: Any) -> None:
        """Start its threads.  Transaction: writes nothing."""

    @abstractmethod
    def stop(self, service: Any) -> None:
        """Stop its threads, and wait for them.  Transaction: writes nothing."""

    @abstractmethod
    def add(self, service: Any, file: File) -> Any:
        """Add a job that indexes a file; return its id.  Transaction: caller commits."""

    @abstractmethod
    def jobs(self, service: Any) -> Iterator[Seen]:
        """Yield all jobs.  Transaction: reads only."""

    @abstractmethod
    def ask_for_words(self, service: Any) -> Any:
        """Have the frequent words found after a moment; return what `words` wants to know.

        Transaction: caller commits.
        """

    @abstractmethod
    def words(self, service: Any, asked: Any) -> dict[str, int] | None:
        """Return the frequent words that were asked for, or None so far.

        Transaction: reads only.
        """

    @abstractmethod
    def next_report(self, service: Any) -> float | None:
        """Return when the next report is due.  Transaction: reads only."""


def _workers(simple: Any, multi: Any, workers: int) -> tuple[Any, dict[str, Any]]:
    """Return what works on a service, and its arguments."""
    arguments: dict[str, Any] = {"waitTime": 1.0}
    return (simple, arguments) if workers == 1 else (multi, arguments | {"maxThreads": workers})


class Tasks(Door):
    """A `TaskService`: functions with names, cron jobs among the jobs."""

    database_file = "demo.fs"
    key = "tasks"
    statuses = STATUSES
    reporter = "a cron job"
    has_report_jobs = False
    has_late_file = False

    def make(self, root: Any) -> None:
        """See `Door`."""
        service = root[self.key] = TaskService()
        service.addCronJob(REPORT, cron=SCHEDULE)

    def set_workers(self, service: TaskService, workers: int) -> None:
        """See `Door`."""
        factory, arguments = _workers(SimpleProcessor, MultiProcessor, workers)
        if (service.processorFactory, service.processorArguments) != (factory, arguments):
            service.processorFactory, service.processorArguments = factory, arguments

    def start(self, service: TaskService) -> None:
        """See `Door`."""
        service.startProcessing()

    def stop(self, service: TaskService) -> None:
        """See `Door`."""
        service.stopProcessing(threading.TIMEOUT_MAX)

    def add(self, service: TaskService, file: File) -> int:
        """See `Door`."""
        return service.add(INDEX, file)

    def jobs(self, service: TaskService) -> Iterator[Seen]:
        """See `Door`."""
        for job in service.jobs.values():
            errors = [failure.message for failure in job.failures]
            yield Seen(job.id, job.task, job.status, job.input, job.output, errors)

    def ask_for_words(self, service: TaskService) -> int:
        """See `Door`."""
        return service.addCronJob(FREQUENT_WORDS, FREQUENT_COUNT, delay=DELAY_SECONDS)

    def words(self, service: TaskService, asked: int) -> dict[str, int] | None:
        """See `Door`."""
        job = service.jobs[asked]
        return (job.output or {}) if job.is_final else None

    def next_report(self, service: TaskService) -> float | None:
        """See `Door`."""
        return min(
            (j.due for j in service.jobs.values() if j.task == REPORT and j.due), default=None
        )


class Remote(Door):
    """A `RemoteProcessor`: job objects, their factories, a scheduler apart, retries."""

    database_file = "remote.fs"
    key = "processor"
    statuses = JOB_STATUS_NAMES
    reporter = "a Cron item"
    has_report_jobs = True
    has_late_file = True

    def make(self, root: Any) -> None:
        """See `Door`."""
        processor = root[self.key] = RemoteProcessor()
        retries = {"retryDelay": RETRY_SECONDS, "maxRetries": MAX_RUNS}
        processor.addJobFactory(INDEX, IndexFile(retries))
        processor.addJobFactory(FREQUENT_WORDS, FindFrequentWords({"input": FREQUENT_COUNT}))
        processor.addJobFactory(REPORT, WriteReport())
        processor.addScheduler(Cron({"jobName": REPORT, "active": True}))
        hourly = {"jobName": FREQUENT_WORDS, "delay": FREQUENT_SECONDS, "active": True}
        processor.addScheduler(Delay(hourly))

    def set_workers(self, service: RemoteProcessor, workers: int) -> None:
        """See `Door`."""
        factory, arguments = _workers(SimpleJobWorker, MultiJobWorker, workers)
        if (service.jobWorkerFactory, service.jobWorkerArguments) != (factory, arguments):
            service.jobWorkerFactory, service.jobWorkerArguments = factory, arguments

    def start(self, service: RemoteProcessor) -> None:
        """See `Door`."""
        service.startProcessor()
        service.startScheduler()

    def stop(self, service: RemoteProcessor) -> None:
        """See `Door`."""
        service.stopScheduler()
        service.stopProcessor()
        names = service.thread_name(SCHEDULER), service.thread_name(WORKER)
        for thread in threading.enumerate():
            if thread.name in names:
                thread.join()

    def add(self, service: RemoteProcessor, file: File) -> str:
        """See `Door`."""
        return service.addJob(INDEX, file)

    def jobs(self, service: RemoteProcessor) -> Iterator[Seen]:
        """See `Door`."""
        for job in service._jobs.values():
            errors = list(map(str, job.errors))
            number = number_of(job)
            yield Seen(number, job.jobName, job.status, job.input, job.output, errors)

    def ask_for_words(self, service: RemoteProcessor) -> datetime:
        """See `Door`."""
        item = self._item(service, FREQUENT_WORDS)
        due = datetime.now(timezone.utc) + timedelta(seconds=DELAY_SECONDS)
        item.nextCallTime = due
        return due

    def words(self, service: RemoteProcessor, asked: datetime) -> dict[str, int] | None:
        """See `Door`."""
        if self._item(service, FREQUENT_WORDS).nextCallTime == asked:
            return None  # the scheduler has added no job yet
        newest = max(id for id, job in service._jobs.items() if job.jobName == FREQUENT_WORDS)
        is_over = service.getJobStatus(newest) in FINAL_STATUSES
        return (service.getJobResult(newest) or {}) if is_over else None

    def next_report(self, service: RemoteProcessor) -> float | None:
        """See `Door`."""
        due = self._item(service, REPORT).nextCallTime
        return None if due is None else due.timestamp()

    @staticmethod
    def _item(service: RemoteProcessor, name: str) -> Any:
        return next(item for item in service._scheduler.values() if item.jobName == name)


#: What ``--door`` can name.
DOORS: dict[str, Door] = {"tasks": Tasks(), "remote": Remote()}
