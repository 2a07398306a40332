# SPDX-License-Identifier: ZPL-2.1
"""Services, jobs and their values as plain data: what programs are told of them."""

from __future__ import annotations

import base64
import math
import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from lovely.remotetask.engine.undoing import time_of, transaction_of
from lovely.remotetask.errors import InvalidArgument, shown
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.store.group import GroupState, is_whole
from lovely.remotetask.store.quarantine import load

#: A value that is nested deeper than this, or has more parts, is shown by its text alone.
MAX_DEPTH = 100
MAX_PARTS = 100_000


# -- services ------------------------------------------------------------------------------


def names_of(match: Match) -> dict[str, Any]:
    """Return what names a service to programs."""
    return {"site": match.site_name, "service": match.service_name}


def title_of(match: Match) -> str:
    """Return what names a service to people."""
    return f"{match.service_name} on {match.site_name}"


def pattern_of(match: Match) -> str:
    """Return what names a service to ``--service``, and in addresses."""
    site_name = "" if match.site_name == "root" else match.site_name
    return f"{site_name}@{match.service_name}"


# -- jobs ----------------------------------------------------------------------------------


def id_of(job: Any) -> int | str:
    """Return the id of a job as its service shows it."""
    name: str = job.__name__
    return job.id if name == str(job.id) else name


def time_text(moment: datetime | None) -> str | None:
    """Return a time in the form of ISO 8601; None is None."""
    return None if moment is None else moment.isoformat()


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?"
    r"(?:([Zz])|([+-])(\d\d):(\d\d))"
)


def moment_of(text: str | None, name: str) -> datetime | None:
    """Return the time that a text in the form of RFC 3339 tells; None is None.

    :raises InvalidArgument: it is none.
    """
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    if found is None:
        raise InvalidArgument(
            f"{name} must be a time such as 2030-01-31T12:00:00Z, not {shown(text)}"
        )
    *parts, fraction, _, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        microseconds = int((fraction or "0").ljust(9, "0")[:6])
        year, month, day, hour, minute, second = map(int, parts)
        # A leap second is the last one that Python knows.
        moment = datetime(year, month, day, hour, minute, min(second, 59), microseconds, zone)
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"{name}: there is no time {shown(text)}") from None


def told_of(job: Any) -> dict[str, Any]:
    """Return what a list tells programs of a job."""
    return {
        "id": id_of(job),
        "task": job.task,
        "status": job.status,
        "attempt": job.attempt,
        "error": job.error,
        "created": time_text(job.created),
        "started": time_text(job.started),
        "completed": time_text(job.completed),
        "scheduled_for": time_text(job.scheduledFor),
    }


def facts_of(service: Any, job: Any) -> dict[str, Any]:
    """Return all that programs are told of a job, but for its input, result and failures."""
    progress = service.progress.get(job.id)
    return {
        **told_of(job),
        "waits_for": job.waits_for,
        **_others_of(service, job),
        "priority": job.priority,
        "unique_key": job.unique_key,
        "lock": job.lock,
        "expires": time_text(job.expires),
        "note": job.note,
        "transaction": transaction_text(job),
        "deaths": job.deaths,
        "conflicts": job.conflicts,
        "cancel_requested": job.is_cancel_requested,
        "progress": None if progress is None else list(progress),
    }


def _others_of(service: Any, job: Any) -> dict[str, Any]:
    """Return what programs are told of the jobs that this one follows, and that follow it."""
    group = group_of(service, job)
    return {
        "after": list(job.after),
        "awaits": list(job.awaits),
        "cause": job.cause,
        "on_success": job.on_success and job.on_success[0],
        "on_error": job.on_error and job.on_error[0],
        "group": None if group is None else counts_of(group),
    }


def counts_of(group: GroupState) -> dict[str, Any]:
    """Return how far a group is."""
    counts = ("id", "total", "completed", "errors", "cancelled", "is_ended")
    return {name: getattr(group, name) for name in counts}


def group_of(service: Any, job: Any) -> GroupState | None:
    """Return the group that a job belongs to, or ends, if it is there, and whole."""
    last = None if job.group is None else load(service.jobs, job.group)
    if last is None or last.members is None or not is_whole(last.members):
        return None
    return GroupState(service, last)


def transaction_text(job: Any) -> str | None:
    """Return which transaction has ended a job, for people; None if that is not known."""
    tid = transaction_of(job)
    return None if tid is None else f"0x{tid.hex()} of {time_of(tid):%Y-%m-%d %H:%M:%S} UTC"


def failures_of(job: Any) -> list[dict[str, Any]]:
    """Return the failures of a job, the first one first; their ``time`` is as in a `Failure`."""
    return [failure._asdict() for failure in job.failures]


def input_of(job: Any) -> Any:
    """Return the input of a job, also of one that is an object."""
    given = job.input
    is_object = job.__name__ != str(job.id)
    return getattr(given, "input", None) if is_object else given


# -- values --------------------------------------------------------------------------------


def plain_value(value: Any) -> Any:
    """Return a value as JSON can have it.

    Tuples and sets become lists, times texts in the form of ISO 8601, decimals texts; bytes become
    ``{"$bytes": BASE64}``, numbers that are none ``{"$float": "nan"}``, dicts whose keys are not
    all texts, or begin with a ``$``, ``{"$dict": [[KEY, VALUE], ...]}``; and all else, as what is
    nested too deep or too large, ``{"$repr": TEXT}``.
    """
    try:
        return _Plain().of(value, 0)
    except _TooMuch:
        return {"$repr": shown(value)}


class _TooMuch(Exception):
    """The value is too large, or nested too deep."""


class _Plain:
    """Makes one value plain, and counts its parts."""

    def __init__(self) -> None:
        self.parts = 0

    def of(self, value: Any, depth: int) -> Any:
        self.parts += 1
        if self.parts > MAX_PARTS or depth > MAX_DEPTH:
            raise _TooMuch
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if value.bit_length() <= 10_000 else {"$repr": shown(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind in (list, tuple):
            return [self.of(part, depth + 1) for part in value]
        if kind in (set, frozenset):
            return [self.of(part, depth + 1) for part in in_order(value)]
        if kind is dict:
            return self._of_dict(value, depth)
        if kind in (bytes, bytearray):
            return {"$bytes": base64.b64encode(value).decode()}
        if kind in (datetime, date, time):
            return value.isoformat()
        if kind is Decimal:
            return str(value)
        return {"$repr": shown(value)}

    def _of_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.of(part, depth + 1) for key, part in value.items()}
        pairs = [[self.of(part, depth + 1) for part in pair] for pair in value.items()]
        return {"$dict": pairs}


def in_order(values: Any) -> list[Any]:
    """Return the values of a set, sorted if they can be."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)
