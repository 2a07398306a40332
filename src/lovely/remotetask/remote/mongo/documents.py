# SPDX-License-Identifier: ZPL-2.1
"""How jobs, job factories and scheduler items stand in documents.

What users set as attributes stands there under its own name.  Names with an underscore in front
are the processor's: ``_type`` the name of the class, ``_version`` int, counted by each write but
that of a lease; of a job ``_claim``: who has it; ``_deaths``, ``_conflicts`` and ``_collisions``
int, if there were any; ``_cancel`` and ``_due``: notes about one that runs, see `NOTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId

from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING, QUEUED
from lovely.remotetask.job import Failure, time_at
from lovely.remotetask.remote.interfaces import ICron, IDelay
from lovely.remotetask.remote.job import values_of
from lovely.remotetask.remote.record import JobRecord
from lovely.remotetask.remote.scheduler import CRON_FIELDS

#: Of each document, beside what the class of its object stores.
COMMON = frozenset({"_id", "_type", "_version", "__name__", "modified"})

#: What was noted about a running job, by others.
NOTES = frozenset({"_cancel", "_due"})

#: Of a job: what its record tells.
_RUN = ("status", "output", "errors", "retryTime", "retryCounter")
_TIMES = ("created", "queued", "picked", "started", "completed")
_COUNTS = ("deaths", "conflicts", "collisions")
_TOLD = COMMON.union(_RUN, _TIMES, NOTES, ("_claim",), (f"_{name}" for name in _COUNTS))

#: What each item has in its document, set or not.
_ITEM = ("jobName", "title", "description", "input", "active", "nextCallTime", "retryTime")


class DocumentRecord(JobRecord):
    """The record of a job that stands in a document; its id is the text of the document's."""

    id: Any

    @property
    def __name__(self) -> str:
        """See `JobRecord`."""
        name: str = self.id
        return name

    @property
    def __parent__(self) -> Any:
        """See `JobRecord`."""
        return None if self._p_jar is None else self._p_jar.processor


# -- jobs ------------------------------------------------------------------------------------


def dump_job(record: JobRecord) -> dict[str, Any]:
    """Return the document of a job; the lease of one that runs is left out."""
    job = record.input
    status = record.shown_status
    document = {
        **values_of(job),
        "jobName": job.jobName,
        "input": job.input,
        "active": job.active,
        "status": status,
        "output": record.output,
        "errors": [_dump_failure(failure) for failure in record.failures],
        "retryDelay": job.retryDelay,
        "retryCounter": record.runs,
        "maxRetries": job.maxRetries,
        "created": record.created,
        "queued": job.queued,
        "picked": job.picked,
        "started": job.started,
        "completed": job.completed,
    }
    if status != PROCESSING:
        document["retryTime"] = record.scheduledFor
    for name in _COUNTS:
        if getattr(record, name):
            document[f"_{name}"] = getattr(record, name)
    return document


def _dump_failure(failure: Failure) -> dict[str, Any]:
    created = time_at(failure.time)
    return {"created": created, "message": failure.message, "tb": failure.traceback}


def _load_failure(document: Mapping[str, Any]) -> Failure:
    at = document["created"].timestamp()
    return Failure(0, at, "", document["message"], document["tb"])


def load_object(job: Any, record: DocumentRecord, document: Mapping[str, Any]) -> None:
    """Let a job, but not its record, be as a document says."""
    attributes = vars(job)
    attributes.clear()
    attributes.update({name: value for name, value in document.items() if name not in _TOLD})
    attributes["_record"] = record


def load_job(job: Any, record: DocumentRecord, document: Mapping[str, Any]) -> None:
    """Let a job and its record be as a document says."""
    load_object(job, record, document)
    status = document["status"]
    deaths = document.get("_deaths", 0)
    runs = document.get("retryCounter", 0)
    values = {
        "id": str(document["_id"]),
        "task": document.get("jobName") or "",
        "input": job,
        "status": status,
        "output": document.get("output"),
        "attempt": runs + deaths,
        "errors": runs - (status == PROCESSING),
        "failures": tuple(map(_load_failure, document.get("errors") or ())),
        "owner": (document.get("_claim") or {}).get("worker"),
        "created_at": _seconds(document.get("created")) or 0.0,
        "started_at": _seconds(document.get("picked")),
        "begun_at": _seconds(document.get("started")),
        "completed_at": _seconds(document.get("completed")),
        **{name: document.get(f"_{name}", 0) for name in _COUNTS},
    }
    if status not in (*FINAL_STATUSES, PROCESSING):
        values["due"] = _seconds(document.get("retryTime"))
    attributes = record.__dict__
    attributes.clear()
    attributes.update({name: value for name, value in values.items() if value is not None})
    if status == QUEUED:
        attributes["status"] = record.resting_status


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


# -- factories and items ---------------------------------------------------------------------


def dump_factory(factory: Any) -> dict[str, Any]:
    """Return the document of a job factory."""
    return values_of(factory)


def dump_item(item: Any) -> dict[str, Any]:
    """Return the document of a scheduler item."""
    names = [*_ITEM, "retryDelay"]
    if IDelay.providedBy(item):
        names.append("delay")
    if ICron.providedBy(item):
        names.extend(CRON_FIELDS)
    others = {name: value for name, value in vars(item).items() if name not in _NOT_OF_ITEMS}
    return {**others, **{name: getattr(item, name) for name in names}}


_NOT_OF_ITEMS = frozenset({"__parent__", *COMMON})


def load_plain(found: Any, document: Mapping[str, Any], parent: Any) -> None:
    """Let a factory or an item be as a document says."""
    vars(found).clear()
    vars(found).update({name: value for name, value in document.items() if name not in COMMON})
    vars(found).update(__name__=str(document["_id"]), __parent__=parent)


def id_of(name: Any) -> ObjectId | None:
    """Return the id that a text stands for, or None."""
    is_id = isinstance(name, str) and ObjectId.is_valid(name)
    return ObjectId(name) if is_id else None
