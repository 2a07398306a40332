# SPDX-License-Identifier: ZPL-2.1
"""A run of the demo: what is to do, the jobs that do it, and what has come of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transaction
from ZODB import DB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.command.demo.catalog import Catalog
from lovely.remotetask.command.demo.door import Door
from lovely.remotetask.command.demo.files import File, file_at
from lovely.remotetask.command.demo.indexing import INDEX, catalog_of
from lovely.remotetask.command.demo.proof import Check, prove
from lovely.remotetask.command.demo.tasks import register
from lovely.remotetask.engine.service import Service
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.store.count import count_jobs

#: In the directory of the database: a file that is made to be an error, and one that is there
#: only after its job has failed.
UNREADABLE_FILE = "unreadable.txt"
LATE_FILE = "late.txt"

#: Jobs that are added in one commit, and how often that is tried when it conflicts.
CHUNK_SIZE = 100
TRIES = 20

#: Seconds between two looks at the jobs.
LOOK_SECONDS = 0.1

#: Waits for so many seconds, and says whether the run is to be interrupted.
Wait = Callable[[float], bool]

#: Is called now and then with the number of the jobs that are done, and of all.
Show = Callable[[int, int], None]


@dataclass
class Plan:
    """What a run has to do.

    ``todo``: files to add jobs for.  ``indexed``, ``failed`` and ``waiting`` count files that
    need none: they are in the catalog, or have jobs that were an error or still wait since
    the run before; ``running``: what ran when that was ended.
    """

    todo: list[File] = field(default_factory=list)
    indexed: int = 0
    failed: int = 0
    waiting: int = 0
    running: int = 0


@dataclass
class Result:
    """What a run has come to; when it was interrupted, there are no checks.

    ``bytes``: the size of the ``database`` and all beside it.  ``done`` jobs ended in the
    run, within ``seconds``, and ``left`` are still to be done.  ``jobs``: counts by status.
    ``errors``: path -> message.  ``repeated``: path -> what a job has met before it was completed.
    ``next_report``: seconds since the epoch.
    """

    database: str
    bytes: int
    left: int
    done: int
    seconds: float
    jobs: dict[str, int]
    documents: int
    words: int
    reports: int
    next_report: float | None
    errors: dict[str, str]
    repeated: dict[str, list[str]]
    frequent_words: dict[str, int]
    checks: list[Check]

    @property
    def agrees(self) -> bool | None:
        """Whether jobs and catalog agree; None if the run was interrupted."""
        return not any(check.problems for check in self.checks) if self.checks else None


@contextmanager
def opened(directory: Path, workers: int, door: Door) -> Iterator[Demo]:
    """Open the database of a door in a directory, and make it if it is not there.

    :param workers: how many jobs run at the same time.
    :raises zc.lockfile.LockError: another process has it open.
    :raises OSError: it cannot be opened.

    Transaction: commits, through a connection of its own.
    """
    register()
    if not directory.exists():
        directory.mkdir(parents=True)
        # It is often made where one stands, in a clone of something: that ignores it.
        (directory / ".gitignore").write_text("*\n")
    path = directory / door.database_file
    storage = FileStorage(str(path))
    db = DB(storage, pool_size=workers + 10, cache_size=1_000)
    try:
        yield Demo(db, path, workers, door)
    finally:
        db.close()


class Demo:
    """The demo's database while it is open, with a connection of its own.

    :ivar db: the database.
    """

    def __init__(self, db: Any, path: Path, workers: int, door: Door) -> None:
        self.db = db
        self._manager = transaction.TransactionManager()
        self._root = db.open(self._manager).root()
        self._path = path
        self._door = door
        self._late = path.parent / LATE_FILE if door.has_late_file else None
        self._unreadable = path.parent / UNREADABLE_FILE
        if not self._unreadable.exists():
            self._unreadable.write_bytes(b"This is\0no text.\n")
        self._change(self._prepare, workers)

    def _change(self, change: Callable[..., Any], *arguments: Any) -> Any:
        return self._manager.run(lambda: change(*arguments), TRIES)

    def _look(self) -> Any:
        self._manager.begin()
        return self._service

    @property
    def _service(self) -> Any:
        return self._root[self._door.key]

    def _prepare(self, workers: int) -> None:
        if self._door.key not in self._root:
            self._root["catalog"] = Catalog()
            self._door.make(self._root)
        self._door.set_workers(self._service, workers)

    def plan(self, files: list[File]) -> Plan:
        """Sort out which files need a job, and add the demo's own.

        Transaction: reads only.
        """
        service = self._look()
        documents = catalog_of(service).documents
        statuses = {
            (job.input["path"], job.input["version"]): job.status
            for job in self._door.jobs(service)
            if job.name == INDEX and job.status not in (COMPLETED, CANCELLED)
        }
        plan = Plan(running=count_jobs(service)[PROCESSING])
        for file in filter(None, [*files, file_at(self._unreadable), self._late_file()]):
            document = documents.get(file["path"])
            status = statuses.get((file["path"], file["version"]))
            if document is not None and document.version == file["version"]:
                plan.indexed += 1
            elif status is None:
                plan.todo.append(file)
            elif status == ERROR:
                plan.failed += 1
            else:
                plan.waiting += 1
        return plan

    def _late_file(self) -> File | None:
        return None if self._late is None else File(path=str(self._late), version=LATE_FILE)

    def work(self, plan: Plan, wait: Wait, show: Show) -> Result:
        """Add the jobs and wait until all have run; then see what has come of it.

        Transaction: commits.
        """
        begun = time.monotonic()
        service = self._look()
        total = _left(service) + len(plan.todo)
        frequent = None
        self._door.start(service)
        try:
            added = self._add(plan.todo, wait)
            is_through = added == len(plan.todo) and self._index(total, wait, show)
            seconds = time.monotonic() - begun
            if is_through:
                frequent = self._frequent_words(wait)
        finally:
            self._door.stop(service)
        left = _left(self._look()) + len(plan.todo) - added
        return self._result(left, total - left, seconds, frequent)

    def _add(self, files: list[File], wait: Wait) -> int:
        def add(chunk: list[File]) -> None:
            for file in chunk:
                self._door.add(self._service, file)

        for start in range(0, len(files), CHUNK_SIZE):
            if wait(0):
                return start
            self._change(add, files[start : start + CHUNK_SIZE])
        return len(files)

    def _index(self, total: int, wait: Wait, show: Show) -> bool:
        while left := _left(self._look()):
            show(total - left, total)
            self._bring_late_file(left)
            if wait(LOOK_SECONDS):
                return False
        show(total, total)
        return True

    def _bring_late_file(self, left: int) -> None:
        """Write the late file, once its job has failed: none but that is left then."""
        if self._late is None or self._late.exists() or left > 1:
            return
        for job in self._door.jobs(self._service):
            if job.name == INDEX and job.input["path"] == str(self._late) and job.errors:
                self._late.write_text("better late than never\n")

    def _frequent_words(self, wait: Wait) -> dict[str, int] | None:
        asked = self._change(lambda: self._door.ask_for_words(self._service))
        while (words := self._door.words(self._look(), asked)) is None:
            if wait(LOOK_SECONDS):
                return None
        return words

    def _result(
        self, left: int, done: int, seconds: float, frequent: dict[str, int] | None
    ) -> Result:
        service = self._look()
        catalog = catalog_of(service)
        counts = count_jobs(service)
        jobs = [job for job in self._door.jobs(service) if job.name == INDEX]
        return Result(
            database=str(self._path),
            bytes=sum(
                file.stat().st_size for file in self._path.parent.glob(f"{self._path.name}*")
            ),
            left=left,
            done=done,
            seconds=seconds,
            jobs={status: counts[status] for status in self._door.statuses},
            documents=len(catalog.documents),
            words=sum(document.words for document in catalog.documents.values()),
            reports=len(catalog.reports),
            next_report=self._door.next_report(service),
            errors={job.input["path"]: job.errors[-1] for job in jobs if job.status == ERROR},
            repeated={
                job.input["path"]: job.errors
                for job in jobs
                if job.status == COMPLETED and job.errors
            },
            frequent_words=frequent or {},
            checks=[] if frequent is None else prove(self._door, service, catalog),
        )


def _left(service: Service) -> int:
    counts = count_jobs(service)
    return counts[QUEUED] + counts[PROCESSING]
