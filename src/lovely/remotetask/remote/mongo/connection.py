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
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from bson import decode

from lovely.remotetask.base.guard import stay_registered
from lovely.remotetask.base.ownership import Savepoint
from lovely.remotetask.engine import registry
from lovely.remotetask.errors import InvalidArgument, JobNotFound, StaleDocument, shown
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.remote.mongo.database import (
    FACTORIES,
    ITEMS,
    JOBS,
    Database,
    Document,
    Write,
)
from lovely.remotetask.remote.mongo.documents import DocumentRecord
from lovely.remotetask.remote.mongo.entry import Entry, Key

log = logging.getLogger("lovely.remotetask.remote")

#: No more documents than this are deleted in one write.
MAX_DELETED = 10_000


@stay_registered
class Connection:
    """One thread's view of a database; see the module's text.

    :param processor: the parent of what is loaded.
    :param manager: the transaction manager.
    :ivar entries: what was loaded, added and changed.
    :ivar removed: what was removed, with what has to be true of it.
    :ivar parents: what is loaded stands in, by collection.
    """

    def __init__(self, database: Database, processor: Any, manager: Any) -> None:
        self.database = database
        self.processor = processor
        self.transaction_manager = manager
        self.entries: dict[Key, Entry] = {}
        self.removed: dict[Key, Document] = {}
        self.parents: dict[str, Any] = {}
        self._notes: dict[Any, Document] = {}  # by the id of a running job
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
        if (name, key) in self.removed:
            return None
        entry = self.entries.get((name, key))
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
        if entry is None:
            found = self._objects.get(place)
            if found is not None:  # of an earlier transaction
                self._read[place] = document
                found._p_activate()
                return self.entries[place]
            entry = self._enter(place, self._new(document))
        elif entry.is_changed or entry.stored is None:
            return entry
        self._fill(entry, document)
        return entry

    def _new(self, document: Document) -> Any:
        kind = document.get("_type")
        known: Any = self.database.known.get(str(kind))
        if known is None:
            raise TypeError(f"document {document['_id']} is a {kind}, which is not known here")
        return known.__new__(known)

    def _enter(self, place: Key, found: Any) -> Entry:
        is_job = place[0] == JOBS
        record = DocumentRecord.__new__(DocumentRecord) if is_job else None
        entry = self.entries[place] = Entry(place, found, record=record)
        entry.attach(self)
        self._objects[place] = found
        return entry

    def _fill(self, entry: Entry, document: Document) -> None:
        entry.stored = document
        entry.claim = document.get("_claim")
        entry.load(document, self.parents[entry.key[0]])

    def setstate(self, found: Any) -> None:
        """See `persistent.interfaces.IPersistentDataManager`: an object of an earlier transaction.

        :raises KeyError: its document is gone.
        """
        place = name, key = found._p_oid
        document = self._read.pop(place, None)
        if document is None:
            document = self.database.find_one(name, {"_id": key})
        if document is None or place in self.removed:
            raise JobNotFound(f"there is no {shown(key)} in {name} any more")
        self._fill(self._enter(place, found), document)

    # -- changing -----------------------------------------------------------------------

    def register(self, changed: Any) -> None:
        """See `persistent.interfaces.IPersistentDataManager`: the first change of an object.

        :raises StaleDocument: it is not what this transaction has loaded.
        """
        entry = self.entries.get(changed._p_oid)
        if entry is None or not any(changed is stored for stored in entry.objects):
            raise StaleDocument(f"{changed!r} was removed, or loaded in an earlier transaction")
        entry.is_changed = True
        entry.is_step = entry.is_step or changed is entry.record
        self.join()

    def readCurrent(self, record: Any) -> None:
        """See ZODB: a note is kept only if its job still runs, see `_note`."""

    def add(self, name: str, key: Any, found: Any, record: Any = None) -> Entry:
        """Add a new object.

        :raises InvalidInput: it cannot be stored.
        :raises InvalidArgument: it belongs to another database.
        """
        if found._p_jar not in (None, self):
            raise InvalidArgument(f"{found!r} belongs to another database")
        entry = Entry((name, key), found, record=record, is_changed=True)
        entry.check(self.database, entry.document())
        self.join()
        entry.attach(self)
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
        if entry is not None:
            self._objects.pop(place, None)
            if entry.stored is None or name != JOBS:
                entry.detach()
            if entry.stored is None:
                return
        if conditions is None:
            stored = None if entry is None else entry.stored
            conditions = {"_version": (stored or {}).get("_version")}
        self.removed[place] = conditions

    def replace(self, name: str, key: Any, found: Any) -> None:
        """Let an object take the place of another one, if there is any.

        :raises InvalidInput: it cannot be stored.
        """
        before = self.entries.get((name, key))
        entry = self.add(name, key, found)
        if before is not None:
            entry.stored = before.stored
            before.detach()

    def note(self, key: Any, name: str, value: Any) -> None:
        """Keep a note about a running job."""
        self.join()
        self._notes.setdefault(key, {})[name] = value

    def note_of(self, key: Any, name: str) -> Any:
        """Return a note about a running job, or None."""
        entry = self.entries.get((JOBS, key)) or self.get(JOBS, key)
        stored = None if entry is None else entry.stored
        return self._notes.get(key, {}).get(name, (stored or {}).get(name))

    def join(self) -> None:
        """Take part in the transaction."""
        if not self._is_joined:
            self.transaction_manager.get().join(self)
            self._is_joined = True

    def forget(self, entry: Entry) -> None:
        """Forget what was loaded of a document, and changed."""
        if self.entries.get(entry.key) is entry:
            del self.entries[entry.key]
        if entry.stored is None:
            self._objects.pop(entry.key, None)
            entry.detach()
        else:
            entry.note_unchanged()  # who goes on writing to its record is told
            entry.found._p_invalidate()

    # -- claims -------------------------------------------------------------------------

    def claim(self, entry: Entry, claim: Document, until: float) -> bool:
        """Write at once that a job was claimed; say whether nobody else had been quicker.

        :param claim: see `documents`.
        :param until: when the lease is over, in seconds since the epoch.
        """
        entry.claim, entry.lease = claim, until
        if entry.stored is None:
            return True  # nobody else sees it
        return self.take(entry, entry.claimed())

    def take(self, entry: Entry, update: Document) -> bool:
        """Write at once what is given back if the transaction aborts; say whether it was written.

        :param update: of a document that nobody must have changed.
        """
        self.join()
        stored = entry.stored or {}
        if self.database.swap(entry.key[0], stored, update) is None:
            self.forget(entry)
            return False
        if entry.before is None:
            entry.before = stored
        written = deepcopy(update["$set"])  # the object goes on to be changed
        entry.stored = {**stored, **written, "_version": stored.get("_version", 0) + 1}
        entry.note_unchanged()
        return True

    def _give_back(self, entries: Iterable[Entry]) -> None:
        updates: dict[str, list[tuple[Document, Document]]] = {}
        for entry in entries:
            update = entry.given_back()
            entry.before = None
            if update is not None:
                updates.setdefault(entry.key[0], []).append(update)
        try:
            for name, each in updates.items():
                self.database.update_each(name, each)
        except Exception as error:  # whatever keeps it from that: the lease ends by itself
            log.warning("claims could not be given back, they end by their lease: %s", error)

    # -- the end of a transaction -------------------------------------------------------

    def sortKey(self) -> str:
        """See `IDataManager`.  After all that can go back."""
        return f"~~remotetask:{id(self)}"

    def tpc_begin(self, txn: Any) -> None:
        """See `IDataManager`."""

    def commit(self, txn: Any) -> None:
        """See `IDataManager`.  Nothing is written before it is known that all can be."""
        new: dict[str, list[Document]] = {}
        updates: list[Write] = []
        for entry in self.entries.values():
            name = entry.key[0]
            if entry.stored is None:
                document = {**entry.document(), "_version": 1}
                entry.check(self.database, document)
                new.setdefault(name, []).append(document)
            elif entry.is_changed:
                updates.append(self.database.update(name, *entry.changed(self.database)))
        # Where it cannot be one: what was added is there before what has added it is over.
        names = [name for name in (FACTORIES, ITEMS, JOBS) if name in new]
        inserts = [self.database.insert(name, new[name]) for name in names]
        notes = [self._note(key, note) for key, note in self._notes.items()]
        self._writes = [*inserts, *updates, *notes, *self._deletions()]

    def _note(self, key: Any, note: Document) -> Write:
        return self.database.update(JOBS, {"_id": key, "status": PROCESSING}, {"$set": note})

    def _deletions(self) -> list[Write]:
        alike: dict[tuple[str, str], list[tuple[Any, Document]]] = {}
        for (name, key), conditions in self.removed.items():
            alike.setdefault((name, repr(conditions)), []).append((key, conditions))
        writes = []
        for (name, _), found in alike.items():
            conditions = found[0][1]
            for start in range(0, len(found), MAX_DELETED):
                keys = [key for key, _ in found[start : start + MAX_DELETED]]
                count = len(keys) if "_version" in conditions else None
                query = {"_id": {"$in": keys}, **conditions}
                writes.append(self.database.delete(name, query, count))
        return writes

    def tpc_vote(self, txn: Any) -> None:
        """See `IDataManager`, and the module's text."""
        if self._writes:
            self.database.write(self._writes)
        self._is_written = True

    def tpc_finish(self, txn: Any) -> None:
        """See `IDataManager`."""
        for entry in self.entries.values():
            if entry.stored is None:
                entry.stored = {}  # not new any more
        if self._writes:
            registry.wake(self.database, b"")
        self._is_joined = False

    def abort(self, txn: Any) -> None:
        """See `IDataManager`.  It is also called by the rollback to an earlier savepoint."""
        entries = list(self.entries.values())
        claimed = [entry for entry in entries if entry.before is not None]
        if not self._is_written:
            self._give_back(claimed)
        for entry in entries:
            if entry.stored is None or entry.is_changed or entry in claimed:
                self.forget(entry)
        self._reset()

    tpc_abort = abort

    def _reset(self) -> None:
        self.removed.clear()
        self._notes.clear()
        self._writes = []
        self._is_joined = False

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
        self._reset()
        self._is_written = False

    # -- savepoints ---------------------------------------------------------------------

    def savepoint(self) -> Savepoint:
        """See `ISavepointDataManager`."""
        entries = {}
        for key, entry in self.entries.items():
            state = entry.check(self.database, entry.document()) if entry.is_changed else None
            entries[key] = (entry, state, entry.is_step, entry.before is not None)
        notes = {key: dict(note) for key, note in self._notes.items()}
        return Savepoint(self._restore, (entries, dict(self.removed), notes))

    def _restore(self, kept: Any) -> None:
        entries, removed, notes = kept
        for key, entry in list(self.entries.items()):
            *_, was_claimed = entries.get(key, (False,))
            is_claimed_since = entry.before is not None and not was_claimed
            if is_claimed_since:
                self._give_back([entry])
            if is_claimed_since or key not in entries or entries[key][0] is not entry:
                self.forget(entry)
        for key, (entry, state, is_step, _) in entries.items():
            if state is None and not entry.is_changed:
                continue
            if key not in self.entries:  # it was removed, or replaced
                entry.attach(self)
                self.entries[key], self._objects[key] = entry, entry.found
            document = entry.stored if state is None else decode(state, self.database.options)
            entry.load(document or {}, self.parents[key[0]])
            entry.is_changed, entry.is_step = state is not None, is_step
        self.removed = dict(removed)
        self._notes = {key: dict(note) for key, note in notes.items()}
