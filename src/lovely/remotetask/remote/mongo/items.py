# SPDX-License-Identifier: ZPL-2.1
"""What a remote processor on MongoDB consists of, as one thread sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from zope.interface import implementer

from lovely.remotetask.errors import InvalidArgument, JobNotFound, is_kind, shown
from lovely.remotetask.job import time_at
from lovely.remotetask.remote.interfaces import IJobFactories, IJobs
from lovely.remotetask.remote.job import Job, attach, record_of
from lovely.remotetask.remote.mongo.connection import Connection
from lovely.remotetask.remote.mongo.database import FACTORIES, ITEMS, JOBS, Document
from lovely.remotetask.remote.mongo.documents import DocumentRecord, dump_item, dump_job, id_of
from lovely.remotetask.remote.mongo.entry import Entry
from lovely.remotetask.remote.scheduler import SchedulerBase

log = logging.getLogger("lovely.remotetask.remote")

#: So many items are read to find one that can be pulled: others may be quicker with the first.
CANDIDATES = 8


class Stored(Mapping[str, Any]):
    """The objects in one collection, by the texts of their ids."""

    collection: str

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.parents[self.collection] = self

    @property
    def __parent__(self) -> Any:
        return self.connection.processor

    def key_of(self, name: Any) -> Any:
        """Return the id of a document; None if a name is none."""
        return id_of(name)

    def entry(self, name: Any) -> Entry | None:
        """Return the entry of an object, or None."""
        key = self.key_of(name)
        return None if key is None else self.connection.get(self.collection, key)

    def __getitem__(self, name: str) -> Any:
        entry = self.entry(name)
        if entry is None:
            raise KeyError(name)
        return entry.found

    def mine(self) -> list[Entry]:
        """Return what the current transaction has loaded or added, and not removed."""
        entries = self.connection.entries.items()
        return [entry for (name, _), entry in entries if name == self.collection]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names({"_id": 1}, lambda document: None))

    def _names(self, projection: Any, see: Any) -> list[str]:
        keys = {entry.key[1] for entry in self.mine() if entry.stored is None}
        found = self.connection.database.find(self.collection, {}, projection=projection)
        for document in found:
            if (self.collection, document["_id"]) not in self.connection.removed:
                keys.add(document["_id"])
                see(document)
        return [str(key) for key in sorted(keys)]

    def _loaded(self) -> list[tuple[str, Any]]:
        names = self._names(None, lambda document: self.connection.see(self.collection, document))
        return [(name, self[name]) for name in names]

    def values(self) -> Any:
        """Return all objects, loaded at once."""
        return [value for _, value in self._loaded()]

    def items(self) -> Any:
        """Return all names and objects, loaded at once."""
        return self._loaded()

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __bool__(self) -> bool:
        return True


@implementer(IJobFactories)
class JobFactories(Stored):
    """Name -> factory.  See `IJobFactories`."""

    __name__ = "factories"
    collection = FACTORIES

    def key_of(self, name: Any) -> Any:
        """See `Stored`."""
        return name if is_kind(name, str) else None

    def put(self, name: str, job: Any) -> None:
        """Put a factory in."""
        connection = self.connection
        connection.database.note_class(type(job))
        entry = self.entry(name)
        if entry is None or entry.found is not job:
            job.__name__ = name
            job.__parent__ = self
            connection.replace(FACTORIES, name, job)


@implementer(IJobs)
class Jobs(Stored):
    """Id -> job.  See `IJobs`."""

    __name__ = "jobs"
    collection = JOBS

    def add(self, job: Job) -> str:
        """See `IJobs`."""
        record = record_of(job) if is_kind(job, Job) else None
        if not is_kind(job, Job) or (record is not None and record.__parent__ is not None):
            raise InvalidArgument(f"{shown(job)} is no new job")
        key = ObjectId()
        record = DocumentRecord(str(key), job)  # type: ignore[arg-type]
        attach(job, record)
        self.connection.add(JOBS, key, job, record)
        return record.__name__

    def record(self, jobid: Any) -> DocumentRecord:
        """Return the record of a job.

        :raises JobNotFound: there is none.
        """
        entry = self.entry(jobid)
        if entry is None:
            raise JobNotFound(f"there is no job {shown(jobid)}")
        record: DocumentRecord = entry.record
        return record

    def __getitem__(self, jobid: str) -> Any:
        return self.record(jobid).input


class Records:
    """Id -> record: the jobs as the engine asks for them."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def get(self, jobid: str) -> DocumentRecord | None:
        """Return a record, or None."""
        entry = self._jobs.entry(jobid)
        return None if entry is None else entry.record


class Queue:
    """Where jobs wait, as the engine sees it: in their documents, and nowhere else."""

    #: Of tasks of the other door.
    limits: dict[str, int] = {}  # noqa: RUF012 (never changed)

    #: Nor do jobs here wait for others, or for a lock; and there is no ZODB.
    links = gates = _p_jar = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def assign(self, job: DocumentRecord) -> None:
        """Heed what was noted while a job ran, which waits now."""
        due = self._connection.note_of(id_of(job.id), "_due")
        if due is not None:
            job.take_over(due.timestamp())

    def remove(self, job: DocumentRecord) -> None:
        """Take a job out of its place."""

    file = remove

    def refile(self, job: DocumentRecord, due: float | None) -> None:
        """Let a waiting job wait for another time; None is now."""
        job.wait(due)


class Notes:
    """Notes about running jobs, of one kind: job id -> note.  They are in the jobs' documents."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    def __contains__(self, jobid: str) -> bool:
        return self._connection.note_of(id_of(jobid), self._name) is not None

    def insert(self, jobid: str) -> None:
        """Note that something is so."""
        self._connection.note(id_of(jobid), self._name, True)

    def __setitem__(self, jobid: str, due: float | None) -> None:
        self._connection.note(id_of(jobid), self._name, time_at(due or 0.0))


class Scheduler(Stored, SchedulerBase):
    """The items.  See `IScheduler`."""

    __name__ = "scheduler"
    collection = ITEMS

    def add(self, item: Any) -> str:
        """See `IScheduler`."""
        self.prepare(item)
        connection = self.connection
        connection.database.note_class(type(item))
        key = ObjectId()
        connection.add(ITEMS, key, item)
        vars(item).update(__name__=str(key), __parent__=self)
        return str(key)

    def remove(self, item: Any) -> None:
        """See `IScheduler`."""
        entry = self.entry(item.__name__)
        if entry is None or entry.found is not item:
            raise KeyError(item.__name__)
        self.connection.remove(ITEMS, entry.key[1])

    def added(self) -> list[Any]:
        """See `SchedulerBase`."""
        return [entry.found for entry in self.mine() if entry.stored is None]

    def note_change(self, item: Any) -> None:
        """See `SchedulerBase`: the connection was told of it."""

    def next_call(self) -> float | None:
        """Return when the next item can be pulled, in seconds since the epoch."""
        names = {"nextCallTime": 1, "retryTime": 1}
        wanted = {"active": True, "nextCallTime": {"$ne": None}, "_type": self._known()}
        found = self.connection.database.find(ITEMS, wanted, projection=names)
        times = [
            max(document["nextCallTime"], document.get("retryTime") or document["nextCallTime"])
            for document in found
        ]
        return min(times).timestamp() if times else None

    def _known(self) -> Document:
        return {"$in": list(self.connection.database.known)}

    def pull_stored(self, callTime: datetime) -> Any:
        """See `SchedulerBase`.

        That somebody pulls an item is seen by all at once: its ``retryTime`` says so until the
        transaction commits, or for ``retryDelay`` if it never ends.
        """
        changed = {e.key[1]: e for e in self.mine() if e.is_changed and e.stored is not None}
        for entry in changed.values():
            if _is_due(dump_item(entry.found), callTime) and self.advance(entry.found, callTime):
                return entry.found
        is_lost = True
        while is_lost:
            is_lost = False
            for document in self._due(callTime, len(changed)):
                place = (ITEMS, document["_id"])
                if document["_id"] in changed or place in self.connection.removed:
                    continue
                entry = self.connection.see(ITEMS, document)
                until = callTime + timedelta(seconds=entry.found.retryDelay)
                lock = {"$set": {"retryTime": until}, "$inc": {"_version": 1}}
                if not self.connection.take(entry, lock):
                    is_lost = True
                elif self.advance(entry.found, callTime):
                    return entry.found
        return None

    def _due(self, callTime: datetime, but: int) -> list[Document]:
        limit = CANDIDATES + but + len(self.connection.removed)
        wanted = {
            "active": True,
            "nextCallTime": {"$lte": callTime},
            "retryTime": {"$not": {"$gt": callTime}},
            "_type": self._known(),
        }
        return self.connection.database.find(ITEMS, wanted, sort="nextCallTime", limit=limit)


def _is_due(item: Document, callTime: datetime) -> bool:
    if not item["active"] or item["nextCallTime"] is None or item["nextCallTime"] > callTime:
        return False
    return item["retryTime"] is None or item["retryTime"] <= callTime


def open_connection(database: Any, processor: Any, manager: Any) -> Connection:
    """Return a thread's view of a database, with the containers that are made of it."""
    connection = Connection(database, processor, manager)
    for kind in (JobFactories, Jobs, Scheduler):
        kind(connection)
    return connection


def remove_with(connection: Connection, status: str, is_final: bool) -> int:
    """Remove the jobs with a status; return their number."""
    jobs: Jobs = connection.parents[JOBS]
    mine = {entry.key[1]: entry for entry in jobs.mine() if entry.is_changed}
    count = 0
    for key, entry in mine.items():
        if dump_job(entry.record)["status"] == status:
            connection.remove(JOBS, key)
            count += 1
    names = {"_version": 1}
    for document in connection.database.find(JOBS, {"status": status}, projection=names):
        key = document["_id"]
        if key in mine or (JOBS, key) in connection.removed:
            continue
        version = {"_version": document.get("_version")}
        connection.remove(JOBS, key, {"status": status} if is_final else version)
        count += 1
    return count
