# SPDX-License-Identifier: ZPL-2.1
"""What one thread has loaded of a database, and what its transaction writes.

A `Connection` is to documents what a ZODB connection is to records: it loads objects once in a
transaction, is told of their first change (they are `Persistent`, and it is their ``_p_jar``), and
writes what was changed when the transaction commits, each document only if it still has the
version that was loaded.  What it has loaded is forgotten at the end of the transaction.

A claim alone is written at once, so that all see it, and given back if the transaction aborts.

MongoDB has no second phase of a commit.  So all is written in the vote, by the data manager that
votes last.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from bson import ObjectId, decode

from lovely.remotetask.engine import registry
from lovely.remotetask.errors import (
    InvalidInput,
    InvalidResult,
    JobNotFound,
    RemoteTaskError,
    StaleDocument,
    shown,
)
from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING
from lovely.remotetask.remote.mongo.database import (
    FACTORIES,
    ITEMS,
    JOBS,
    Database,
    Document,
    Write,
)
from lovely.remotetask.remote.mongo.documents import (
    NOTES,
    DocumentRecord,
    dump_factory,
    dump_item,
    dump_job,
    load_job,
    load_plain,
)
from lovely.remotetask.remote.values import time_at

log = logging.getLogger("lovely.remotetask.remote")

#: The name of a collection, and the ``_id`` of a document in it.
Key = tuple[str, Any]

#: Values of these types that are equal need not be written again; others may share what has
#: changed with the document that was read.
UNCHANGING = (str, int, float, bool, datetime, type(None))

#: No more documents than this are deleted in one write.
MAX_DELETED = 10_000


@dataclass(eq=False)
class Entry:
    """An object and its document, in one transaction.

    :ivar stored: the document as it is in the database; None if it is new.
    :ivar record: that of a job.
    :ivar claim: of a job that runs: who has claimed it, see `documents`.
    :ivar lease: of a job that was claimed here: when the claim is over, seconds since the epoch.
    :ivar before: the document before this transaction has claimed it, for what is given back.
    :ivar conditions: what else its document has to be like when it is written.
    """

    key: Key
    found: Any
    stored: Document | None = None
    record: Any = None
    is_changed: bool = False
    claim: Document | None = None
    lease: float | None = None
    before: Document | None = None
    conditions: Document = field(default_factory=dict)


class Connection:
    """One thread's view of a database; see the module's text.

    :param processor: the parent of what is loaded.
    :param manager: the transaction manager.
    """

    def __init__(self, database: Database, processor: Any, manager: Any) -> None:
        self.database = database
        self.processor = processor
        self.manager = manager
        self.entries: dict[Key, Entry] = {}
        self.removed: dict[Key, Document] = {}  # with what has to be true of them
        self.notes: dict[Any, Document] = {}  # by the id of a running job
        self.parents: dict[str, Any] = {}  # what is loaded stands in, by collection
        self._objects: weakref.WeakValueDictionary[Key, Any] = weakref.WeakValueDictionary()
        self._read: dict[Key, Document] = {}  # for objects that are about to be loaded
        self._writes: list[Write] = []
        self._is_joined = False
        self._is_written = False
        manager.registerSynch(self)

    # -- loading ------------------------------------------------------------------------

    def db(self) -> Database:
        """Return what is the database to others; see `persistent.interfaces`."""
        return self.database

    def get(self, name: str, key: Any) -> Entry | None:
        """Return the entry of a document; None if there is none.

        :raises TypeError: its class is not known here.
        """
        place = (name, key)
        if place in self.removed:
            return None
        entry = self.entries.get(place)
        if entry is None:
            document = self.database.find_one(name, {"_id": key})
            return None if document is None else self.see(name, document)
        return entry

    def see(self, name: str, document: Document) -> Entry:
        """Return the entry of a document that was read, which may be newer than what is loaded.

        :raises TypeError: its class is not known here.
        """
        place = (name, document["_id"])
        entry = self.entries.get(place)
        if entry is not None and (entry.is_changed or entry.stored is None):
            return entry
        found = self._objects.get(place)
        if entry is None and found is not None:  # of an earlier transaction
            self._read[place] = document
            found._p_activate()
            return self.entries[place]
        if entry is None:
            entry = self._enter(place, self._new(document))
        self._fill(entry, document)
        return entry

    def _new(self, document: Document) -> Any:
        kind = document.get("_type")
        known = self.database.known.get(str(kind))
        if known is None:
            raise TypeError(f"document {document['_id']} is a {kind}, which is not known here")
        return known.__new__(known)

    def _enter(self, place: Key, found: Any) -> Entry:
        entry = Entry(place, found)
        if place[0] == JOBS:
            entry.record = DocumentRecord.__new__(DocumentRecord)
        for stored in filter(lambda each: each is not None, (found, entry.record)):
            stored._p_jar = self
            stored._p_oid = place
        self.entries[place] = entry
        self._objects[place] = found
        return entry

    def _fill(self, entry: Entry, document: Document) -> None:
        entry.stored = document
        entry.claim = document.get("_claim")
        self._load(entry, document)

    def _load(self, entry: Entry, document: Document) -> None:
        name = entry.key[0]
        if name == JOBS:
            load_job(entry.found, entry.record, document)
            entry.record._p_changed = False
        else:
            load_plain(entry.found, document, self.parents[name])
        entry.found._p_changed = False
        entry.is_changed = False

    def setstate(self, found: Any) -> None:
        """See `persistent.interfaces.IPersistentDataManager`: an object of an earlier transaction.

        :raises KeyError: its document is gone.
        """
        name, key = found._p_oid
        document = self._read.pop((name, key), None)
        if document is None:
            document = self.database.find_one(name, {"_id": key})
        if document is None or (name, key) in self.removed:
            raise JobNotFound(f"there is no {shown(key)} in {name} any more")
        self._fill(self._enter((name, key), found), document)

    # -- changing -----------------------------------------------------------------------

    def register(self, changed: Any) -> None:
        """See `persistent.interfaces.IPersistentDataManager`: the first change of an object."""
        entry = self.entries.get(changed._p_oid)
        if entry is None or not (changed is entry.found or changed is entry.record):
            raise StaleDocument(f"{changed!r} was loaded in an earlier transaction")
        entry.is_changed = True
        self.join()

    def readCurrent(self, record: Any) -> None:
        """See `Connection.readCurrent` of ZODB: notes are kept only for jobs that run."""

    def add(self, name: str, key: Any, found: Any, record: Any = None) -> Entry:
        """Add a new object."""
        self.join()
        entry = Entry((name, key), found, record=record, is_changed=True)
        for stored in filter(lambda each: each is not None, (found, record)):
            stored._p_jar = self
            stored._p_oid = entry.key
        self.entries[entry.key] = entry
        self._objects[entry.key] = found
        return entry

    def remove(self, name: str, key: Any, conditions: Document | None = None) -> None:
        """Remove a document.

        :param conditions: what has to be true of it; None: its version is the one loaded.
        """
        self.join()
        place = (name, key)
        entry = self.entries.pop(place, None)
        if entry is not None and entry.stored is None:
            self._detach(entry)
            return
        if conditions is None:
            stored = None if entry is None else entry.stored
            conditions = {"_version": (stored or {}).get("_version")}
        self.removed[place] = conditions

    def check(self, name: str, key: Any) -> None:
        """Check that an object can be stored.

        :raises InvalidInput: it cannot.
        """
        self._whole(self.entries[name, key])

    def forget_object(self, name: str, key: Any) -> None:
        """Let another object take the place of one that is loaded."""
        entry = self.entries.pop((name, key), None)
        self._objects.pop((name, key), None)
        self.removed.pop((name, key), None)
        if entry is not None:
            self._detach(entry)

    def drop(self, entry: Entry) -> None:
        """Let the object of a removed document belong to nothing."""
        self._objects.pop(entry.key, None)
        self._detach(entry)

    def note(self, key: Any, name: str, value: Any) -> None:
        """Keep a note about a running job."""
        self.join()
        self.notes.setdefault(key, {})[name] = value

    def note_of(self, key: Any, name: str) -> Any:
        """Return a note about a running job, or None."""
        entry = self.entries.get((JOBS, key))
        stored = None if entry is None else entry.stored
        return self.notes.get(key, {}).get(name, (stored or {}).get(name))

    def join(self) -> None:
        """Take part in the transaction."""
        if not self._is_joined:
            self.manager.get().join(self)
            self._is_joined = True

    # -- claims -------------------------------------------------------------------------

    def claim(self, entry: Entry, claim: Document, until: float) -> bool:
        """Write at once that a job was claimed; say whether nobody else had been quicker.

        :param claim: see `documents`.
        :param until: when the lease is over, in seconds since the epoch.
        """
        entry.claim, entry.lease = claim, until
        if entry.stored is None:
            return True  # nobody else sees it
        self.join()
        return self.take(entry, {"$set": self._changes(entry), "$inc": {"_version": 1}})

    def take(self, entry: Entry, update: Document) -> bool:
        """Write at once what is to be given back if the transaction aborts."""
        self.join()
        assert entry.stored is not None
        if self.database.swap(entry.key[0], entry.stored, update) is None:
            self.forget(entry)
            return False
        if entry.before is None:
            entry.before = entry.stored
        version = entry.stored.get("_version", 0) + 1
        entry.stored = {**entry.stored, **update["$set"], "_version": version}
        for stored in (entry.found, entry.record):
            if stored is not None:
                stored._p_changed = False
        entry.is_changed = False
        return True

    def forget(self, entry: Entry) -> None:
        """Forget what was loaded of a document, and changed."""
        if self.entries.get(entry.key) is entry:
            del self.entries[entry.key]
            self._objects.pop(entry.key, None)
        if entry.stored is None:
            self._detach(entry)
        else:
            entry.found._p_invalidate()

    def _give_back(self, entries: Iterable[Entry]) -> None:
        updates = []
        for entry in entries:
            if entry.before is not None and entry.stored is not None:
                version = {"_version": entry.stored["_version"]}
                gone = dict.fromkeys(entry.stored.keys() - entry.before.keys(), "")
                values = {**entry.before, "_version": version["_version"] + 1}
                del values["_id"]
                update: Document = {"$set": values}
                if gone:
                    update["$unset"] = gone
                updates.append((entry.key[0], ({"_id": entry.key[1], **version}, update)))
                entry.before = None
        try:
            for name in (JOBS, ITEMS):
                self.database.update_each(name, [each for of, each in updates if of == name])
        except Exception as error:  # of a server that is away: the lease ends by itself
            log.warning("claims were not given back, and end with their lease: %s", error)

    # -- the end of a transaction -------------------------------------------------------

    def sortKey(self) -> str:
        """See `IDataManager`.  After all that can go back."""
        return f"~~remotetask:{id(self)}"

    def tpc_begin(self, txn: Any) -> None:
        """See `IDataManager`."""

    def commit(self, txn: Any) -> None:
        """See `IDataManager`.  Nothing is written before it is known that it can be."""
        new: dict[str, list[Document]] = {ITEMS: [], JOBS: [], FACTORIES: []}
        updates: list[Write] = []
        for entry in self.entries.values():
            if entry.stored is None:
                new[entry.key[0]].append(self._whole(entry))
            elif entry.is_changed:
                updates.append(self._update(entry))
        # Where it cannot be one: what was added is there before what has added it is over.
        self._writes = [
            *(
                self.database.insert(name, documents)
                for name, documents in new.items()
                if documents
            ),
            *updates,
            *(self._note(key, note) for key, note in self.notes.items()),
            *self._deletions(),
        ]

    def _whole(self, entry: Entry) -> Document:
        document = {"_id": entry.key[1], **self._document(entry), "_version": 1}
        self._check(entry, document)
        return document

    def _document(self, entry: Entry) -> Document:
        name, key = entry.key
        if name == JOBS:
            document = dump_job(entry.record)
            if entry.record.status == PROCESSING and entry.claim is not None:
                document["_claim"] = entry.claim
                if entry.lease is not None:
                    document["retryTime"] = time_at(entry.lease)
        else:
            document = dump_item(entry.found) if name == ITEMS else dump_factory(entry.found)
        document["_type"] = type(entry.found).__name__
        document["__name__"] = str(key)
        document["modified"] = datetime.now(timezone.utc)
        return document

    def _changes(self, entry: Entry) -> Document:
        """Return what is to be set in a document that is stored."""
        stored = entry.stored or {}
        return {
            name: value
            for name, value in self._document(entry).items()
            if type(value) not in UNCHANGING or value != stored.get(name, stored)
        }

    def _check(self, entry: Entry, document: Document) -> bytes:
        is_run = entry.record is not None and entry.record.attempt
        error: type[RemoteTaskError] = InvalidResult if is_run else InvalidInput
        return self.database.check(document, error, repr(entry.found))

    def _update(self, entry: Entry) -> Write:
        assert entry.stored is not None
        document = self._document(entry)
        self._check(entry, document)
        gone = entry.stored.keys() - document.keys() - NOTES - {"_id", "_version"}
        if entry.record is not None:
            if entry.record.status == PROCESSING:
                gone.discard("retryTime")
            elif entry.record.status in FINAL_STATUSES:
                gone |= NOTES
            elif "_due" in entry.stored:
                gone.add("_due")  # it was heeded
        update: Document = {"$set": self._changes(entry), "$inc": {"_version": 1}}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        query = {"_id": entry.key[1], "_version": entry.stored.get("_version"), **entry.conditions}
        return self.database.update(entry.key[0], query, update)

    def _note(self, key: Any, note: Document) -> Write:
        return self.database.update(JOBS, {"_id": key, "status": PROCESSING}, {"$set": note})

    def _deletions(self) -> list[Write]:
        alike: dict[tuple[str, str], list[Any]] = {}
        for (name, key), conditions in self.removed.items():
            alike.setdefault((name, repr(conditions)), []).append((key, conditions))
        writes = []
        for (name, _), found in alike.items():
            conditions = found[0][1]
            is_exact = "_version" in conditions
            for start in range(0, len(found), MAX_DELETED):
                keys = [key for key, _ in found[start : start + MAX_DELETED]]
                query = {"_id": {"$in": keys}, **conditions}
                writes.append(self.database.delete(name, query, len(keys) if is_exact else None))
        return writes

    def tpc_vote(self, txn: Any) -> None:
        """See `IDataManager`, and the module's text."""
        if self._writes:
            self.database.write(self._writes)
        self._is_written = True

    def tpc_finish(self, txn: Any) -> None:
        """See `IDataManager`."""
        for entry in self.entries.values():
            entry.before = None
            if entry.stored is None:
                entry.stored = {}  # not new any more
        if self._writes:
            registry.wake(self.database, b"")
        self._is_joined = False

    def abort(self, txn: Any) -> None:
        """See `IDataManager`."""
        entries = list(self.entries.values())
        if not self._is_written:
            self._give_back(entries)
        for entry in entries:
            if entry.stored is None or entry.is_changed:
                self.forget(entry)
        self.removed.clear()
        self.notes.clear()
        self._writes = []
        self._is_joined = False

    tpc_abort = abort

    # -- synchronizer: see `transaction.interfaces.ISynchronizer` -----------------------------

    def beforeCompletion(self, txn: Any) -> None:
        """See `ISynchronizer`."""

    def newTransaction(self, txn: Any) -> None:
        """See `ISynchronizer`."""

    def afterCompletion(self, txn: Any) -> None:
        """See `ISynchronizer`.  What is asked for from now on is loaded anew."""
        for entry in self.entries.values():
            if entry.stored is not None:
                entry.found._p_invalidate()
        self.entries.clear()
        self.removed.clear()
        self.notes.clear()
        self._writes = []
        self._is_joined = self._is_written = False

    @staticmethod
    def _detach(entry: Entry) -> None:
        """Let an object that was not stored be as if it had not been added."""
        for stored in (entry.found, entry.record):
            if stored is not None:
                del stored._p_jar
                del stored._p_oid
        if entry.key[0] != JOBS:
            vars(entry.found).update(__name__=None, __parent__=None)

    # -- savepoints ---------------------------------------------------------------------

    def savepoint(self) -> _Savepoint:
        """See `ISavepointDataManager`."""
        entries = {}
        for key, entry in self.entries.items():
            if entry.is_changed:
                whole = {"_id": key[1], **self._document(entry)}
                entries[key] = (entry, self._check(entry, whole), entry.before)
            else:
                entries[key] = (entry, None, entry.before)
        notes = {key: dict(note) for key, note in self.notes.items()}
        return _Savepoint(self._restore, (entries, dict(self.removed), notes))

    def _restore(self, kept: Any) -> None:
        entries, removed, notes = kept
        for key, entry in list(self.entries.items()):
            is_claimed_since = (
                entry.before is not None and entries.get(key, (0, 0, None))[2] is None
            )
            if is_claimed_since:
                self._give_back([entry])
            if is_claimed_since or key not in entries:
                self.forget(entry)
        for key, (entry, state, _) in entries.items():
            if key in self.entries or state is not None:
                self.entries[key] = entry
                if state is not None:
                    self._load(entry, decode(state, self.database.options))
                    entry.is_changed = True
                elif entry.is_changed:
                    self._load(entry, entry.stored or {})
        self.removed = dict(removed)
        self.notes = {key: dict(note) for key, note in notes.items()}


class _Savepoint:
    """See `transaction.interfaces.IDataManagerSavepoint`."""

    def __init__(self, restore: Callable[[Any], None], kept: Any) -> None:
        self._restore = restore
        self._kept = kept

    def rollback(self) -> None:
        """See `IDataManagerSavepoint`."""
        self._restore(self._kept)


def id_of(name: Any) -> ObjectId | None:
    """Return the id that a text stands for, or None."""
    is_id = isinstance(name, str) and ObjectId.is_valid(name)
    return ObjectId(name) if is_id else None
