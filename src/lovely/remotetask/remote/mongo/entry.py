# SPDX-License-Identifier: ZPL-2.1
"""One object and its document, in one transaction."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.errors import InvalidInput, InvalidResult, RemoteTaskError
from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING
from lovely.remotetask.job import time_at
from lovely.remotetask.remote.mongo.database import ITEMS, JOBS, Database, Document
from lovely.remotetask.remote.mongo.documents import (
    NOTES,
    dump_factory,
    dump_item,
    dump_job,
    load_job,
    load_object,
    load_plain,
)

#: The name of a collection, and the ``_id`` of a document in it.
Key = tuple[str, Any]


#: What the steps of an item write: to count when it is due, and to lock it.
TIMES = frozenset({"nextCallTime", "retryTime"})


@dataclass(eq=False)
class Entry:
    """See the module's text.

    :ivar found: the object.
    :ivar stored: the document as it is in the database; None if it is new.
    :ivar record: that of a job.
    :ivar is_changed: something of it was changed.
    :ivar is_step: so was the record of a job, and not only what users may set at any time.
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
    is_step: bool = False
    claim: Document | None = None
    lease: float | None = None
    before: Document | None = None
    conditions: Document = field(default_factory=dict)

    def attach(self, connection: Any) -> None:
        """Let the objects belong to a connection."""
        for stored in self.objects:
            stored._p_jar = connection
            stored._p_oid = self.key

    def detach(self) -> None:
        """Let the objects be as if they had not been added."""
        for stored in self.objects:
            del stored._p_jar
            del stored._p_oid
        if self.record is None:
            vars(self.found).update(__name__=None, __parent__=None)

    @property
    def objects(self) -> list[Any]:
        """The object, and the record of a job."""
        return [self.found] if self.record is None else [self.found, self.record]

    def load(self, document: Document, parent: Any) -> None:
        """Let the objects be as a document says, which shares nothing with them."""
        document = deepcopy(document)
        if self.record is not None:
            load_job(self.found, self.record, document)
        else:
            load_plain(self.found, document, parent)
        self.note_unchanged()

    def note_unchanged(self) -> None:
        """Take the objects for what is stored."""
        for stored in self.objects:
            stored._p_changed = False
        self.is_changed = self.is_step = False

    def forget_untold(self) -> None:
        """Let a job object be as it is stored again, unless it was told that it has changed."""
        if self.stored and not self.found._p_changed:
            load_object(self.found, self.record, deepcopy(self.stored))

    # -- as a document ------------------------------------------------------------------

    def document(self) -> Document:
        """Return the document of the object as it is now, but for its version."""
        name, key = self.key
        if name == JOBS:
            document = dump_job(self.record)
            if self.record.status == PROCESSING and self.claim is not None:
                document["_claim"] = self.claim
                if self.lease is not None:
                    document["retryTime"] = time_at(self.lease)
        else:
            document = dump_item(self.found) if name == ITEMS else dump_factory(self.found)
        document["_type"] = type(self.found).__name__
        document["__name__"] = str(key)
        document["modified"] = datetime.now(timezone.utc)
        return {"_id": key, **document}

    def check(self, database: Database, document: Document) -> bytes:
        """Return a document as it is stored.

        :raises InvalidResult: it cannot be, after a run.
        :raises InvalidInput: it cannot be.
        """
        is_run = self.record is not None and self.record.attempt
        error: type[RemoteTaskError] = InvalidResult if is_run else InvalidInput
        return database.check(document, error, repr(self.found))

    def claimed(self) -> Document:
        """Return the update that a claim writes."""
        return {"$set": self._changes(self.document()), "$inc": {"_version": 1}}

    def changed(self, database: Database) -> tuple[Document, Document]:
        """Return the filter and the update that write what was changed, if nobody else has.

        What users set of a running job, or of an item, is none of its steps: it neither fails
        because of one, nor lets the end of a run fail.

        :raises RemoteTaskError: see `check`.
        """
        stored = self.stored or {}
        document = self.document()
        self.check(database, document)
        update: Document = {"$set": self._changes(document)}
        is_of_run = not self.is_step and stored.get("status") == PROCESSING
        if self.record is None or not is_of_run:
            update["$inc"] = {"_version": 1}
        gone = stored.keys() - document.keys() - NOTES - {"_version"}
        if self.record is not None:
            gone |= self._gone_notes(stored)
            if self.record.status == PROCESSING:
                gone.discard("retryTime")  # the lease
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        query = {"_id": self.key[1], **self.conditions}
        if self.key[0] != ITEMS or not TIMES.isdisjoint(update["$set"]):
            query["_version"] = stored.get("_version")
        return query, update

    def _gone_notes(self, stored: Document) -> set[str]:
        if self.record.status in FINAL_STATUSES:
            return set(NOTES)
        return {"_due"} & stored.keys()  # it was heeded

    def _changes(self, document: Document) -> Document:
        stored = self.stored or {}
        return {
            name: value
            for name, value in document.items()
            if name != "_id" and value != stored.get(name, stored)
        }

    def given_back(self) -> tuple[Document, Document] | None:
        """Return the filter and the update that take back a claim; None if there is none."""
        if self.before is None or self.stored is None:
            return None
        version = self.stored["_version"]
        if self.key[0] == ITEMS:  # whoever has changed it since: it is locked no more
            lock = {"_id": self.key[1], "retryTime": self.stored["retryTime"]}
            return lock, {"$set": {"retryTime": self.before.get("retryTime")}}
        values = {**self.before, "_version": version + 1}
        update: Document = {"$set": {n: value for n, value in values.items() if n != "_id"}}
        gone = self.stored.keys() - self.before.keys() - {"_version"}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        return {"_id": self.key[1], "_version": version}, update
