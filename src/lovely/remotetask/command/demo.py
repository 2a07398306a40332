# SPDX-License-Identifier: ZPL-2.1
"""The demo: jobs that index text files into a catalog in their own database.

``remotetask demo`` runs it.  Each file is a job.  What the job writes into the catalog, its
result and its status are one commit, so that the catalog and the completed jobs agree
whenever one looks, whatever was killed when.  `prove` looks.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import transaction
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB import DB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import TaskContext, task

#: The names of the tasks.
INDEX = "demo.index"
FREQUENT_WORDS = "demo.frequent_words"
REPORT = "demo.report"

#: In the directory of the database: the database, and a file that is made to be an error.
DATABASE_FILE = "demo.fs"
UNREADABLE_FILE = "unreadable.txt"

#: What is taken for text, by the end of its name.
SUFFIXES = (
    *(".c", ".cfg", ".conf", ".cpp", ".css", ".csv", ".h", ".htm", ".html", ".ini", ".java"),
    *(".js", ".json", ".md", ".po", ".py", ".pyi", ".rst", ".sh", ".sql", ".toml", ".ts"),
    *(".txt", ".xml", ".yaml", ".yml", ".zcml"),
)

#: Passed over: these directories, those whose names start with a dot, and larger files.
SKIPPED_DIRECTORIES = frozenset({"__pycache__", "dist-packages", "node_modules", "site-packages"})
MAX_FILE_BYTES = 1_000_000

#: The cron job runs every minute; this many of its reports are kept.
SCHEDULE = "* * * * *"
MAX_REPORTS = 60

#: The delayed job waits this long, and then finds this many words.
DELAY_SECONDS = 1.0
FREQUENT_COUNT = 10

#: Jobs that are added in one commit, and how often that is tried when it conflicts.
CHUNK_SIZE = 100
TRIES = 20

#: Seconds between two looks at the jobs.
LOOK_SECONDS = 0.1

_WORD = re.compile(r"[^\W\d_]{2,40}")

# -- the catalog --------------------------------------------------------------------------


class Document(NamedTuple):
    """A file in the catalog: the id of the job that indexed it, its version, its word count."""

    id: int
    version: str
    words: int


class Shelf(Persistent):
    """The inverted index of a few documents.

    Stored: ``postings`` dict of word -> dict of document id -> how often it stands there.
    """

    def __init__(self) -> None:
        self.postings: dict[str, dict[int, int]] = {}


class Catalog(Persistent):
    """An inverted index of files.

    One tree of word -> documents would cost some 300 records for each file (measured: 50 ms
    and 300 KB).  Here a file writes one record, its shelf, and a search looks into all
    shelves.  Files that come one after the other stand on different shelves, so that two
    workers seldom write the same one.

    Stored: ``documents`` OOBTree of path -> `Document`; ``shelves`` IOBTree of number ->
    `Shelf`; ``reports`` OOBTree of seconds since the epoch -> dict, by the cron job.
    """

    shelf_size = 4
    shelves_in_turn = 32

    def __init__(self) -> None:
        self.documents = OOBTree()
        self.shelves = IOBTree()
        self.reports = OOBTree()

    def index(self, id: int, path: str, version: str, counts: Mapping[str, int]) -> int | None:
        """Put a file in; return the id of the document it takes the place of.

        Transaction: caller commits.
        """
        replaced: Document | None = self.documents.get(path)
        if replaced is not None:
            self._remove(replaced.id)
        shelf = self._shelf(id)
        for word, count in counts.items():
            shelf.postings.setdefault(word, {})[id] = count
        shelf._p_changed = True
        self.documents[path] = Document(id, version, sum(counts.values()))
        return None if replaced is None else replaced.id

    def _remove(self, id: int) -> None:
        shelf = self._shelf(id)
        for counts in shelf.postings.values():
            counts.pop(id, None)
        shelf.postings = {word: counts for word, counts in shelf.postings.items() if counts}

    def _shelf(self, id: int) -> Shelf:
        turn, place = divmod(id, self.shelf_size * self.shelves_in_turn)
        number = turn * self.shelves_in_turn + place % self.shelves_in_turn
        shelf: Shelf | None = self.shelves.get(number)
        if shelf is None:
            shelf = self.shelves[number] = Shelf()
        return shelf

    def search(self, word: str) -> dict[int, int]:
        """Return the documents with a word: id -> how often it stands there.

        Transaction: reads only.
        """
        shelves = self.shelves.values()
        return {id: n for shelf in shelves for id, n in shelf.postings.get(word, {}).items()}

    def postings(self) -> Iterator[tuple[str, int, int]]:
        """Yield the whole index: (word, document id, how often it stands there).

        Transaction: reads only.
        """
        for shelf in self.shelves.values():
            for word, counts in shelf.postings.items():
                for id, count in counts.items():
                    yield word, id, count
            shelf._p_deactivate()  # they are many, and each is looked at once


def count_words(path: Path) -> Counter[str]:
    """Count the words of a file: runs of letters, in lower case.

    :raises TaskError: it is no text.
    :raises OSError: it cannot be read.
    """
    data = path.read_bytes()
    if b"\0" in data:
        raise TaskError(f"{path} is no text: it has a zero byte at {data.index(0)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return Counter(match.group().lower() for match in _WORD.finditer(text))


# -- the tasks ----------------------------------------------------------------------------


class File(TypedDict):
    """The input of an index job.  ``version`` changes with the file."""

    path: str
    version: str


def index_file(context: TaskContext, input: File) -> dict[str, int | None]:
    """Index one file.

    Transaction: caller commits.
    """
    counts = count_words(Path(input["path"]))
    catalog = catalog_of(context.service)
    replaced = catalog.index(context.jobid, input["path"], input["version"], counts)
    return {"words": sum(counts.values()), "replaces": replaced}


def find_frequent_words(context: TaskContext, input: int) -> dict[str, int]:
    """Return the most frequent words of the catalog, `input` of them, the first one first.

    Transaction: reads only.
    """
    totals: Counter[str] = Counter()
    for word, _, count in catalog_of(context.service).postings():
        totals[word] += count
    return dict(totals.most_common(input))


def write_report(context: TaskContext, input: None) -> None:
    """Write down how far the catalog is.

    Transaction: caller commits.
    """
    catalog = catalog_of(context.service)
    catalog.reports[time.time()] = {
        "documents": len(catalog.documents),
        "jobs": context.service.countJobs(),
    }
    while len(catalog.reports) > MAX_REPORTS:
        del catalog.reports[catalog.reports.minKey()]


def catalog_of(service: TaskService) -> Catalog:
    """Return the catalog in the database of a service.

    Transaction: reads only.
    """
    catalog: Catalog = service._p_jar.root()["catalog"]
    return catalog


def register() -> None:
    """Register the tasks.  Importing this module does it too, for ``remotetask run``.

    Transaction: none.
    """
    task(INDEX, context=True)(index_file)
    task(FREQUENT_WORDS, context=True)(find_frequent_words)
    task(REPORT, context=True)(write_report)


register()

# -- the files ----------------------------------------------------------------------------


def find_files(path: Path, limit: int, skip: Path) -> list[File]:
    """Return the text files under `path`, or `path` itself if it is a file.

    :param limit: no more files than this.
    :param skip: a directory that is passed over.
    :raises InvalidArgument: there is no such path, or there are no text files.
    :raises OSError: it cannot be read.
    """
    path = path.resolve()
    if not path.exists():
        raise InvalidArgument(f"there is no file or directory {path}")
    if path.is_dir():
        os.scandir(path).close()  # os.walk would pass over what it cannot read
    paths = _walk(path, skip.resolve()) if path.is_dir() else iter([path])
    found = list(islice(filter(None, map(_file, paths)), limit))
    if not found:
        raise InvalidArgument(f"there are no text files under {path}")
    return found


def _walk(path: Path, skip: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_DIRECTORIES
            and Path(folder, name) != skip
        )
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                yield Path(folder, name)


def _file(path: Path) -> File | None:
    try:
        status = path.stat()
    except OSError:  # it has just gone, or is a link to nowhere
        return None
    if not path.is_file() or status.st_size > MAX_FILE_BYTES:
        return None
    version = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return File(path=str(path), version=version)


# -- the proof ----------------------------------------------------------------------------


@dataclass
class Check:
    """One thing that must be true of jobs and catalog, and where it is not."""

    claim: str
    problems: list[str]


def prove(service: TaskService, catalog: Catalog) -> list[Check]:
    """Check that the jobs and the catalog agree, entry by entry.

    Transaction: reads only.
    """
    completed = [j for j in service.jobs.values() if j.task == INDEX and j.status == COMPLETED]
    replaced = {job.output["replaces"] for job in completed}
    jobs = {j.id: (j.input["path"], j.output["words"]) for j in completed if j.id not in replaced}
    documents = {file.id: (path, file.words) for path, file in catalog.documents.items()}
    return [
        Check(
            f"each of {len(jobs)} completed jobs has its document, with the words it counted",
            [
                f"job {id}: (path, words) is {job}, in the catalog {documents.get(id)}"
                for id, job in jobs.items()
                if job != documents.get(id)
            ],
        ),
        Check(
            f"each of {len(documents)} documents has its completed job",
            [f"{path}: no job {id}" for id, (path, _) in documents.items() if id not in jobs],
        ),
        *_prove_postings(catalog, documents),
        _prove_counts(service),
    ]


def _prove_postings(catalog: Catalog, documents: Mapping[int, tuple[str, int]]) -> list[Check]:
    sums: Counter[int] = Counter()
    entries = 0
    for _, id, count in catalog.postings():
        sums[id] += count
        entries += 1
    return [
        Check(
            f"each of {entries} postings is of a document in the catalog",
            [f"document {id} is not there" for id in sums if id not in documents],
        ),
        Check(
            "the postings of each document add up to its word count",
            [
                f"{path}: {sums[id]} words in the postings, {words} in the document"
                for id, (path, words) in documents.items()
                if sums[id] != words
            ],
        ),
    ]


def _prove_counts(service: TaskService) -> Check:
    records = Counter(job.status for job in service.jobs.values())
    return Check(
        "the counts by status are those of the records",
        [
            f"{status}: {count} counted, {records[status]} records"
            for status, count in service.countJobs().items()
            if count != records[status]
        ],
    )


# -- the run ------------------------------------------------------------------------------

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
    ``errors``: path -> message.  ``next_report``: seconds since the epoch.
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
    frequent_words: dict[str, int]
    checks: list[Check]

    @property
    def agrees(self) -> bool | None:
        """Whether jobs and catalog agree; None if the run was interrupted."""
        return not any(check.problems for check in self.checks) if self.checks else None


@contextmanager
def opened(directory: Path, workers: int) -> Iterator[Demo]:
    """Open the database in a directory, and make it if it is not there.

    :param workers: how many jobs run at the same time.
    :raises zc.lockfile.LockError: another process has it open.
    :raises OSError: it cannot be opened.

    Transaction: commits, through a connection of its own.
    """
    register()
    directory.mkdir(parents=True, exist_ok=True)
    storage = FileStorage(str(directory / DATABASE_FILE))
    db = DB(storage, pool_size=workers + 10, cache_size=1_000)
    try:
        yield Demo(db, directory, workers)
    finally:
        db.close()


class Demo:
    """The demo's database while it is open, with a connection of its own."""

    def __init__(self, db: Any, directory: Path, workers: int) -> None:
        self._manager = transaction.TransactionManager()
        self._root = db.open(self._manager).root()
        self._directory = directory
        self._unreadable = directory / UNREADABLE_FILE
        if not self._unreadable.exists():
            self._unreadable.write_bytes(b"This is\0no text.\n")
        self._change(self._prepare, workers)

    def _change(self, change: Callable[..., Any], *arguments: Any) -> Any:
        return self._manager.run(lambda: change(*arguments), TRIES)

    def _look(self) -> TaskService:
        self._manager.begin()
        return self._service

    @property
    def _service(self) -> TaskService:
        service: TaskService = self._root["tasks"]
        return service

    def _prepare(self, workers: int) -> None:
        if "tasks" not in self._root:
            self._root["catalog"] = Catalog()
            service = self._root["tasks"] = TaskService()
            service.addCronJob(REPORT, cron=SCHEDULE)
        factory: Any = SimpleProcessor if workers == 1 else MultiProcessor
        arguments = {"waitTime": 1.0} | ({} if workers == 1 else {"maxThreads": workers})
        service = self._service
        if (service.processorFactory, service.processorArguments) != (factory, arguments):
            service.processorFactory, service.processorArguments = factory, arguments

    def plan(self, files: list[File]) -> Plan:
        """Sort out which files need a job, and add the demo's own.

        Transaction: reads only.
        """
        service = self._look()
        documents = catalog_of(service).documents
        statuses = {
            (job.input["path"], job.input["version"]): job.status
            for job in service.jobs.values()
            if job.task == INDEX and job.status not in (COMPLETED, CANCELLED)
        }
        plan = Plan(running=service.countJobs()[PROCESSING])
        for file in filter(None, [*files, _file(self._unreadable)]):
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

    def work(self, plan: Plan, wait: Wait, show: Show) -> Result:
        """Add the jobs and wait until all have run; then see what has come of it.

        Transaction: commits.
        """
        begun = time.monotonic()
        service = self._look()
        total = _left(service) + len(plan.todo)
        frequent = None
        service.startProcessing()
        try:
            added = self._add(plan.todo, wait)
            is_through = added == len(plan.todo) and self._index(total, wait, show)
            seconds = time.monotonic() - begun
            if is_through:
                frequent = self._frequent_words(wait)
        finally:
            service.stopProcessing(threading.TIMEOUT_MAX)
        left = _left(self._look()) + len(plan.todo) - added
        return self._result(left, total - left, seconds, frequent)

    def _add(self, files: list[File], wait: Wait) -> int:
        def add(chunk: list[File]) -> None:
            for file in chunk:
                self._service.add(INDEX, file)

        for start in range(0, len(files), CHUNK_SIZE):
            if wait(0):
                return start
            self._change(add, files[start : start + CHUNK_SIZE])
        return len(files)

    def _index(self, total: int, wait: Wait, show: Show) -> bool:
        while left := _left(self._look()):
            show(total - left, total)
            if wait(LOOK_SECONDS):
                return False
        show(total, total)
        return True

    def _frequent_words(self, wait: Wait) -> dict[str, int] | None:
        def add() -> int:
            return self._service.addCronJob(FREQUENT_WORDS, FREQUENT_COUNT, delay=DELAY_SECONDS)

        jobid = self._change(add)
        while not (job := self._look().jobs[jobid]).is_final:
            if wait(LOOK_SECONDS):
                return None
        return job.output or {}

    def _result(
        self, left: int, done: int, seconds: float, frequent: dict[str, int] | None
    ) -> Result:
        service = self._look()
        catalog = catalog_of(service)
        jobs = list(service.jobs.values())
        failed = [job for job in jobs if job.task == INDEX and job.status == ERROR]
        return Result(
            database=str(self._directory / DATABASE_FILE),
            bytes=sum(file.stat().st_size for file in self._directory.iterdir()),
            left=left,
            done=done,
            seconds=seconds,
            jobs=service.countJobs(),
            documents=len(catalog.documents),
            words=sum(document.words for document in catalog.documents.values()),
            reports=len(catalog.reports),
            next_report=min((j.due for j in jobs if j.task == REPORT and j.due), default=None),
            errors={job.input["path"]: job.error for job in failed},
            frequent_words=frequent or {},
            checks=[] if frequent is None else prove(service, catalog),
        )


def _left(service: TaskService) -> int:
    counts = service.countJobs()
    return counts[QUEUED] + counts[PROCESSING]
