# SPDX-License-Identifier: ZPL-2.1
"""Which job is taken next, and by whom.  Claims are seen by all at once; nothing here commits."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from lovely.remotetask.engine.claim import take
from lovely.remotetask.errors import InvalidArgument, is_kind, shown
from lovely.remotetask.interfaces import PROCESSING, QUEUED
from lovely.remotetask.job import time_at
from lovely.remotetask.remote.mongo.connection import Connection, log
from lovely.remotetask.remote.mongo.database import JOBS, Document
from lovely.remotetask.remote.mongo.documents import dump_job
from lovely.remotetask.remote.mongo.entry import Entry
from lovely.remotetask.remote.query import make_filter
from lovely.remotetask.setting import read

#: Workers look each so many seconds whether there are jobs of unknown classes.
UNKNOWN_SECONDS = 10.0

#: So many jobs are read for one claim: others may be quicker with the first ones.
CANDIDATES = 8


class Worker(NamedTuple):
    """Who claims jobs, as it stands in their documents.

    :ivar is_inline: it is a caller's transaction, which gives no signs of life.
    """

    worker: str
    host: str
    pid: int
    is_inline: bool = False

    @classmethod
    def here(cls, worker: str, is_inline: bool = False) -> Worker:
        """Return who claims in this process."""
        return cls(worker, socket.gethostname(), os.getpid(), is_inline)

    @classmethod
    def of(cls, document: Document) -> Worker:
        """Return who has claimed a job."""
        claim = document.get("_claim") or {}
        names = (("worker", ""), ("host", "?"), ("pid", 0), ("is_inline", False))
        return cls(*(claim.get(name, default) for name, default in names))


def check_query(query: Any) -> Mapping[str, Any]:
    """Return a query.

    :raises InvalidArgument: it is none.
    """
    if query is None:
        return {}
    if not is_kind(query, Mapping):
        raise InvalidArgument(f"jobQuery must be a dict or None, not {shown(query)}")
    for name in query:
        if not is_kind(name, str) or not name:
            raise InvalidArgument(f"jobQuery must name fields of documents, not {shown(name)}")
    return dict(query)


def waiting(
    query: Mapping[str, Any], now: float, kinds: Document, has_suspect: bool = False
) -> Document:
    """Return the filter of jobs that may run now.

    :param kinds: of the names of their classes.
    :param has_suspect: leave out those whose processes have died.
    """
    # Not `$or`, for which no index serves: who has no time is not later than now either.
    found: Document = {
        "status": QUEUED,
        "active": True,
        "retryTime": {"$not": {"$gt": time_at(now)}},
        "_type": kinds,
    }
    if has_suspect:
        found["_deaths"] = None
    return {"$and": [found, query]} if query else found


def claim_next(
    service: Any,
    worker: Worker,
    query: Mapping[str, Any],
    now: float,
    until: float,
    limit: int = 1,
    has_suspect: bool = False,
) -> list[Any]:
    """Claim up to `limit` jobs, one after the other; return their records.

    :param until: jobs are taken that are due by then, in seconds since the epoch.
    :param has_suspect: see `waiting`.
    """
    connection: Connection = service.connection
    claimed: list[Any] = []
    is_lost = True
    while is_lost and not claimed:
        is_lost = False
        for entry in _candidates(connection, query, until, has_suspect):
            # Of the jobs that a dying process held nobody knows which one killed it.  One
            # at a time, so that the next death tells.
            if entry.record.deaths_in_a_row and claimed:
                break
            end = time.time() + read(service, "lease_seconds")
            if not take(service, entry.record, worker.worker, now):
                continue
            if connection.claim(entry, worker._asdict(), end):
                claimed.append(entry.record)
            else:
                is_lost = True
            if len(claimed) >= limit or (claimed and claimed[-1].deaths_in_a_row):
                break
    if worker.is_inline or not claimed:
        _log_unknown(connection, query, until, worker.is_inline)
    return claimed


def _candidates(
    connection: Connection, query: Mapping[str, Any], now: float, has_suspect: bool
) -> Iterator[Entry]:
    """Yield jobs that may run now, the oldest first."""
    database = connection.database
    changed = _changed(connection)
    found = [entry for entry in changed if _fits(entry, query, now, has_suspect)]
    stored = {entry.key[1] for entry in changed if entry.stored is not None}
    stored.update(key for name, key in connection.removed if name == JOBS)
    known = {"$in": list(database.known)}
    wanted = waiting(query, now, known, has_suspect)
    for document in database.find(JOBS, wanted, limit=CANDIDATES + len(stored)):
        if document["_id"] not in stored:
            found.append(connection.see(JOBS, document))
    yield from sorted(found, key=lambda entry: entry.key[1])


def _log_unknown(
    connection: Connection, query: Mapping[str, Any], now: float, is_asked: bool
) -> None:
    """Log which jobs are passed over, once each; looked for now and then if not asked for."""
    database = connection.database
    if not is_asked and time.monotonic() < database.looked + UNKNOWN_SECONDS:
        return
    database.looked = time.monotonic()
    unknown = waiting(query, now, {"$nin": list(database.known)})
    names = {"_type": 1}
    for document in database.find(JOBS, unknown, limit=CANDIDATES, projection=names):
        if document["_id"] not in database.passed_over:
            database.passed_over.add(document["_id"])
            text = "TypeError: job %s is a %s, which is not known here; it is passed over"
            log.error(text, document["_id"], document.get("_type"))


def _changed(connection: Connection) -> list[Entry]:
    """Return the jobs that the current transaction has added or changed."""
    return [
        entry
        for (name, _), entry in connection.entries.items()
        if name == JOBS and (entry.is_changed or entry.stored is None)
    ]


def _fits(entry: Entry, query: Mapping[str, Any], now: float, has_suspect: bool) -> bool:
    record = entry.record
    if record.status != QUEUED or (record.due or 0.0) > now or (has_suspect and record.deaths):
        return False
    with suppress(InvalidArgument):  # what MongoDB alone can answer: when it is committed
        return make_filter(query)({**dump_job(record), "_type": type(entry.found).__name__})
    return False


def extend(service: Any, keys: Iterable[Any], worker: str) -> None:
    """Give a sign of life: let the leases of a worker's claims begin anew.

    :param keys: the ids of the documents.
    """
    until = datetime.now(timezone.utc) + timedelta(seconds=read(service, "lease_seconds"))
    mine = {"status": PROCESSING, "_claim.worker": worker}
    update = {"$set": {"retryTime": until}}
    updates = [({"_id": key, **mine}, update) for key in keys]
    service.connection.database.update_each(JOBS, updates)
