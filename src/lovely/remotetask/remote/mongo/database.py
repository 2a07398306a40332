# SPDX-License-Identifier: ZPL-2.1
"""The collections of one processor, and what is asked of their server.

Each method is one round trip, or, where it says so, several.  Errors of pymongo do not leave this
module as they are, where the engine has to know them: a server that does not answer is
`ServerAway`, and a conflict `StaleDocument`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timezone
from typing import Any

from bson import encode
from bson.errors import InvalidDocument
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
)

from lovely.remotetask.errors import RemoteTaskError, ServerAway, StaleDocument, describe

#: The collections.
FACTORIES, JOBS, ITEMS = "rfactories", "rjobs", "rscheduler"

#: Those that serve a look for jobs, for the next that is due, for leases that are over, and
#: for items.
INDEXES = {
    JOBS: [
        IndexModel([("status", ASCENDING), ("active", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("status", ASCENDING), ("retryTime", ASCENDING)]),
    ],
    ITEMS: [IndexModel([("active", ASCENDING), ("nextCallTime", ASCENDING)])],
    FACTORIES: [],
}

#: No document is larger, in bytes.
MAX_BYTES = 16 * 1024 * 1024

#: What a server answers to who meets another transaction at a document, or another document
#: with the same id.
CONFLICTS = frozenset({112, 11000})

Document = dict[str, Any]

#: One write, called with the session of the server's transaction, or None; returns what takes
#: it back where there is none, as far as that can be.
Write = Callable[[Any], Callable[[], Any] | None]


class Database:
    """The collections of one processor.

    :param database: a `pymongo.database.Database`; its codec options are overruled, so that all
        times are read as aware datetimes in UTC.
    :ivar known: classes of jobs and scheduler items, by their names.
    :ivar passed_over: ids of jobs whose classes are not, and that was logged.
    :ivar looked: when somebody looked for such jobs, by the monotonic clock.
    """

    def __init__(self, database: Any, classes: Iterable[type]) -> None:
        options = database.codec_options.with_options(
            document_class=dict, tz_aware=True, tzinfo=timezone.utc
        )
        self.client = database.client
        self.name: str = database.name
        self.options = options
        self._database = database.with_options(codec_options=options)
        self._lock = threading.Lock()
        self._is_indexed = False
        self._has_transactions: bool | None = None
        self.known: dict[str, type] = {}
        self.passed_over: set[Any] = set()
        self.looked = -math.inf
        for known in classes:
            self.note_class(known)

    def note_class(self, known: type) -> None:
        """Let documents with the name of a class be loaded."""
        self.known[known.__name__] = known

    # Whoever stops workers before a database is closed looks for its `close`.

    @property
    def close(self) -> Callable[[], None]:
        """Close the client."""
        close: Callable[[], None] = self.client.close
        return close

    @close.setter
    def close(self, close: Callable[[], None]) -> None:
        self.client.close = close

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return bool(getattr(self.client, "_closed", False))  # it has no public name

    def _collection(self, name: str) -> Any:
        if not self._is_indexed:
            with self._lock:
                if not self._is_indexed:
                    for indexed, indexes in INDEXES.items():
                        if indexes:
                            self._database[indexed].create_indexes(indexes)
                    self._is_indexed = True
        return self._database[name]

    def check(self, document: Mapping[str, Any], error: type[RemoteTaskError], what: str) -> bytes:
        """Return a document as it is stored.

        :param error: raised if it cannot be.
        """
        try:
            encoded: bytes = encode(document, codec_options=self.options)
        except (InvalidDocument, OverflowError, TypeError, ValueError, RecursionError) as cause:
            raise error(f"{what} cannot be stored: {describe(cause)}") from cause
        if len(encoded) > MAX_BYTES - 10_000:  # room for what a claim adds
            raise error(f"{what} cannot be stored: it is larger than a document can be")
        return encoded

    # -- reading ------------------------------------------------------------------------

    def find(
        self,
        name: str,
        query: Mapping[str, Any],
        sort: str = "_id",
        limit: int = 0,
        projection: Any = None,
    ) -> list[Document]:
        """Return documents."""
        with _told():
            found = self._collection(name).find(query, projection, limit=limit)
            return list(found.sort(sort, ASCENDING))

    def find_one(self, name: str, query: Mapping[str, Any]) -> Document | None:
        """Return a document, or None."""
        with _told():
            found: Document | None = self._collection(name).find_one(query)
            return found

    def count(self, name: str) -> int:
        """Return the number of documents."""
        with _told():
            count: int = self._collection(name).count_documents({})
            return count

    # -- writing, seen by all at once ---------------------------------------------------

    def swap(
        self, name: str, document: Document, update: Mapping[str, Any], **conditions: Any
    ) -> Document | None:
        """Update a document that nobody has changed; return it as it was, or None."""
        with _told():
            before: Document | None = self._collection(name).find_one_and_update(
                {"_id": document["_id"], "_version": document.get("_version"), **conditions}, update
            )
            return before

    def update_each(self, name: str, updates: Iterable[tuple[Document, Document]]) -> None:
        """Update documents, given as (filter, update), in one round trip."""
        with _told():
            operations = [UpdateOne(*update) for update in updates]
            if operations:
                self._collection(name).bulk_write(operations, ordered=False)

    # -- writing what a transaction has changed -----------------------------------------

    def insert(self, name: str, documents: list[Document]) -> Write:
        """Return what inserts documents."""
        collection = self._collection(name)

        def write(session: Any) -> Callable[[], Any]:
            collection.insert_many(documents, session=session)
            new = {"_id": {"$in": [each["_id"] for each in documents]}, "_version": 1}
            return lambda: collection.delete_many(new)  # but for what others have claimed by now

        return write

    def update(self, name: str, query: Mapping[str, Any], update: Mapping[str, Any]) -> Write:
        """Return what updates a document, which has to be found."""
        collection = self._collection(name)

        def write(session: Any) -> None:
            if not collection.update_one(query, update, session=session).matched_count:
                raise StaleDocument(f"a document of {name} was changed by others: {query['_id']}")

        return write

    def delete(self, name: str, query: Mapping[str, Any], count: int | None = None) -> Write:
        """Return what deletes documents.

        :param count: how many have to be found; None is any number.
        """
        collection = self._collection(name)

        def write(session: Any) -> None:
            deleted = collection.delete_many(query, session=session).deleted_count
            if count is not None and deleted != count:
                raise StaleDocument(f"documents of {name} were changed by others")

        return write

    def write(self, writes: list[Write]) -> None:
        """Do all of it, in a transaction of the server if it has any; else one after the other.

        :raises StaleDocument: others have changed what was to be written.
        """
        with _told():
            if len(writes) < 2 or not self.has_transactions:
                self._write_each(writes)
                return

            def write_all(session: Any) -> None:
                for write in writes:
                    write(session)

            with self.client.start_session() as session:
                session.with_transaction(write_all)

    @staticmethod
    def _write_each(writes: list[Write]) -> None:
        undo: list[Callable[[], Any]] = []
        try:
            for write in writes:
                taken_back = write(None)
                if taken_back is not None:
                    undo.append(taken_back)
        except Exception:
            with suppress(PyMongoError):
                for take_back in undo:
                    take_back()
            raise

    @property
    def has_transactions(self) -> bool:
        """Whether the server is a member of a replica set, or a router in front of some."""
        if self._has_transactions is None:
            with _told():
                hello = self.client.admin.command("hello")
            self._has_transactions = "setName" in hello or hello.get("msg") == "isdbgrid"
        return self._has_transactions


@contextmanager
def _told() -> Iterator[None]:
    """Raise what the engine knows in the place of errors of pymongo."""
    try:
        yield
    except (ConnectionFailure, InvalidOperation) as error:
        raise ServerAway(describe(error)) from error
    except DocumentTooLarge:
        raise
    except PyMongoError as error:
        if _codes(error) & CONFLICTS or error.has_error_label("TransientTransactionError"):
            raise StaleDocument(describe(error)) from error
        if error.has_error_label("RetryableWriteError"):
            raise ServerAway(describe(error)) from error
        raise


def _codes(error: PyMongoError) -> set[int | None]:
    if not isinstance(error, OperationFailure):
        return set()
    return {
        error.code,
        *(each.get("code") for each in (error.details or {}).get("writeErrors", ())),
    }
