# SPDX-License-Identifier: ZPL-2.1
"""The demo: jobs that index text files into a catalog in their own database.

``remotetask demo`` runs it; see `lovely.remotetask.cli`.  Each file is a job.  What a job
writes into the catalog, its result and its status are one commit, so that catalog and
completed jobs agree whenever one looks, whatever was killed when.  `prove` looks.
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
from typing import Any, NamedTuple

import transaction
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB import DB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.interfaces import COMPLETED, ERROR, FINAL_STATUSES, PROCESSING, QUEUED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import TaskContext, task

#: The names of the tasks.
INDEX = "demo.index"
FREQUENT_WORDS = "demo.frequent_words"
REPORT = "demo.report"

#: The names in the root object of the database.
SERVICE_NAME = "tasks"
CATALOG_NAME = "catalog"

#: The files in the directory of the database.  The second one is made to be an error.
DATABASE_FILE = "demo.fs"
UNREADABLE_FILE = "unreadable.txt"

#: What is taken for text, by the end of its name.
SUFFIXES = frozenset(
    ".c .cfg .conf .cpp .css .csv .h .htm .html .ini .java .js .json .md .po .py .pyi .rst .sh "
    ".sql .toml .ts .txt .xml .yaml .yml .zcml".split()
)

#: Directories that are passed over, beside those whose names start with a dot.
SKIPPED_DIRECTORIES = frozenset({"__pycache__", "dist-packages", "node_modules", "site-packages"})

#: Files of more bytes than this are passed over.
MAX_FILE_BYTES = 1_000_000

#: The cron job runs every minute; this many of its reports are kept.
SCHEDULE = "* * * * *"
MAX_REPORTS = 60

#: The delayed job counts this many words, after this many seconds.
FREQUENT_COUNT = 10
FREQUENT_DELAY_SECONDS = 1.0

#: Jobs that are added in one commit.
CHUNK_SIZE = 100

#: How often a transaction of the demo itself is tried when it conflicts with the jobs'.
TRIES = 20

#: Seconds between two looks at the jobs.
LOOK_SECONDS = 0.1

_WORD = re.compile(r"[^\W\d_]{2,40}")

# -- the catalog --------------------------------------------------------------------------


class Document(NamedTuple):
    """A file in the catalog.

    :ivar id: the id of the job that indexed it.
    :ivar version: what `version_of` said when the job was added.
    :ivar words: how many words it has.
    """

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

    One tree of word -> documents would cost some 300 records for each file (measured:
    50 ms and 300 KB).  Here a file writes the one record of its shelf, and a search looks
    into all shelves.  Files that are indexed one after the other stand on different
    shelves, so that several workers seldom write the same one.

    Stored: ``documents`` OOBTree of path -> `Document`; ``shelves`` IOBTree of number ->
    `Shelf`; ``reports`` OOBTree of seconds since the epoch -> dict, by the cron job.
    """

    shelf_size = 8
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
        shelf.postings = {
            word: rest
            for word, counts in shelf.postings.items()
            if (rest := {other: count for other, count in counts.items() if other != id})
        }

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
        found: dict[int, int] = {}
        for shelf in self.shelves.values():
            found.update(shelf.postings.get(word.lower(), {}))
        return found

    def postings(self) -> Iterator[tuple[str, int, int]]:
        """Yield all of the index: (word, document id, how often it stands there).

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
        raise TaskError(f"{path} is no text: there is a zero byte at {data.index(0)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return Counter(match.group().lower() for match in _WORD.finditer(text))


# -- the tasks ----------------------------------------------------------------------------


def index_file(context: TaskContext, input: dict[str, str]) -> dict[str, int | None]:
    """Index one file: ``{"path": ..., "version": ...}``.

    Transaction: caller commits.
    """
    counts = count_words(Path(input["path"]))
    catalog = catalog_of(context.service)
    replaced = catalog.index(context.jobid, input["path"], input["version"], counts)
    return {"words": sum(counts.values()), "replaces": replaced}


def find_frequent_words(context: TaskContext, input: int) -> list[tuple[str, int]]:
    """Return the most frequent words of the catalog, `input` of them.

    Transaction: reads only.
    """
    totals: Counter[str] = Counter()
    for word, _, count in catalog_of(context.service).postings():
        totals[word] += count
    return totals.most_common(input)


def write_report(context: TaskContext, input: None) -> int:
    """Write down how far the catalog is; return the number of its documents.

    Transaction: caller commits.
    """
    catalog = catalog_of(context.service)
    documents = len(catalog.documents)
    catalog.reports[time.time()] = {"documents": documents, "jobs": context.service.countJobs()}
    while len(catalog.reports) > MAX_REPORTS:
        del catalog.reports[catalog.reports.minKey()]
    return documents


def catalog_of(service: TaskService) -> Catalog:
    """Return the catalog in the database of a service."""
    catalog: Catalog = service._p_jar.root()[CATALOG_NAME]
    return catalog


def register() -> None:
    """Register the tasks; importing this module does it too.

    Transaction: none.
    """
    task(INDEX, context=True)(index_file)
    task(FREQUENT_WORDS, context=True)(find_frequent_words)
    task(REPORT, context=True)(write_report)


register()

# -- the files ----------------------------------------------------------------------------


def version_of(path: Path) -> str:
    """Return what changes with a file: its size in bytes and its times in nanoseconds.

    :raises OSError: there is no such file.
    """
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def find_files(path: Path, limit: int, skip: Path) -> list[Path]:
    """Return the text files under `path`, or `path` itself if it is a file.

    :param limit: no more files than this.
    :param skip: a directory that is passed over.
    :raises InvalidArgument: there is no such path, or there are no text files.
    :raises OSError: it cannot be read.
    """
    path = path.absolute()
    if not path.exists():
        raise InvalidArgument(f"there is no file or directory {path}")
    if path.is_file():
        return [path]
    os.scandir(path).close()  # os.walk would pass over what it cannot read
    found = list(islice(_walk(path, skip.resolve()), limit))
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
            and Path(folder, name).resolve() != skip
        )
        for name in sorted(names):
            found = Path(folder, name)
            if found.suffix.lower() in SUFFIXES and _is_indexable(found):
                yield found


def _is_indexable(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= MAX_FILE_BYTES


# -- the proof ----------------------------------------------------------------------------


@dataclass
class Check:
    """One thing that must be true of catalog and jobs, and where it is not."""

    claim: str
    problems: list[str] = field(default_factory=list)


def prove(service: TaskService, catalog: Catalog) -> list[Check]:
    """Check that the completed jobs and the catalog agree, entry by entry.

    Transaction: reads only.
    """
    completed = {
        job.id: job
        for job in service.jobs.values()
        if job.task == INDEX and job.status == COMPLETED
    }
    replaced = {job.output["replaces"] for job in completed.values()}
    documents = {document.id: document for document in catalog.documents.values()}
    current = [job for id, job in completed.items() if id not in replaced]
    kept = Check(f"each of {len(current)} completed jobs has its document, with its word count")
    for job in current:
        words = documents[job.id].words if job.id in documents else None
        if words != job.output["words"]:
            kept.problems.append(
                f"job {job.id} counted {job.output['words']} words in {job.input['path']}, "
                + ("which is not in the catalog" if words is None else f"the catalog has {words}")
            )
    made = Check(f"each of {len(documents)} documents has its completed job")
    for path, document in catalog.documents.items():
        if document.id not in completed or document.id in replaced:
            made.problems.append(f"{path}: job {document.id} is not completed")
    return [kept, made, *_prove_postings(catalog, documents)]


def _prove_postings(catalog: Catalog, documents: Mapping[int, Document]) -> list[Check]:
    sums: Counter[int] = Counter()
    entries = 0
    for _, id, count in catalog.postings():
        entries += 1
        sums[id] += count
    known = Check(f"none of {entries} postings is of an unknown document")
    known.problems.extend(f"document {id} is unknown" for id in sums if id not in documents)
    equal = Check("the postings of each document add up to its word count")
    for path, document in catalog.documents.items():
        if sums[document.id] != document.words:
            equal.problems.append(
                f"{path}: {sums[document.id]} words in the postings, not {document.words}"
            )
    return [known, equal]


# -- the run ------------------------------------------------------------------------------


@dataclass
class Plan:
    """What a run finds to do.

    ``inputs``: of the jobs to add.  ``files`` counts the text files that were found;
    ``indexed``, ``failed`` and ``waiting`` those among them that need no new job: they are
    in the catalog, were an error, or are jobs of a run that was ended.  ``running`` counts
    the jobs that ran when it was.
    """

    files: int
    inputs: list[dict[str, str]] = field(default_factory=list)
    indexed: int = 0
    failed: int = 0
    waiting: int = 0
    running: int = 0


@dataclass
class Result:
    """What a run has come to.

    ``left`` jobs still wait: it was interrupted, then ``checks`` is empty.  ``done`` jobs
    ended in it, within ``seconds``.  ``jobs``: counts by status.  ``errors``: path and
    message.  ``next_report``: seconds since the epoch.
    """

    left: int
    done: int
    seconds: float
    jobs: dict[str, int]
    documents: int
    words: int
    reports: int
    next_report: float | None
    errors: list[tuple[str, str]]
    frequent_words: list[tuple[str, int]]
    checks: list[Check]


class Demo:
    """The demo's database, while it is open.

    :ivar service: the `TaskService`.
    :ivar catalog: the `Catalog`.
    """

    def __init__(self, db: DB, directory: Path, workers: int) -> None:
        self._unreadable = directory / UNREADABLE_FILE
        self._manager = transaction.TransactionManager(explicit=True)
        self._root = db.open(self._manager).root()
        self._change(lambda: self._prepare(workers))

    def _change(self, change: Callable[[], Any]) -> Any:
        return self._manager.run(change, TRIES)

    def _look(self) -> TaskService:
        self._manager.abort()
        self._manager.begin()
        return self.service

    def _prepare(self, workers: int) -> None:
        if SERVICE_NAME not in self._root:
            self._root[SERVICE_NAME] = TaskService()
            self._root[CATALOG_NAME] = Catalog()
