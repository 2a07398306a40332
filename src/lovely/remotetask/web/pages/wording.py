# SPDX-License-Identifier: ZPL-2.1
"""How times, numbers and values are told to people."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.errors import shown, text_of
from lovely.remotetask.web.facts import plain_value

#: Characters of a text that a table shows, and of a value that a job's page shows.
MAX_DETAIL = 200
MAX_VALUE = 20_000

#: Units of spans: its name, how many seconds it has, and up to how many seconds it is told.
_UNITS = (
    ("s", 1, 100),
    ("min", 60, 6_000),
    ("h", 3_600, 172_800),
    ("days", 86_400, math.inf),
)


def span(seconds: float) -> str:
    """Return a span of time in its most telling unit, rounded down."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return "less than 1 s"
    for name, size, end in _UNITS:
        if seconds < end:
            return f"{int(seconds // size):,} {name}"
    raise AssertionError("the last unit has no end")


def age(moment: datetime, now: float) -> str:
    """Return how long ago a time was, or in how long it will be."""
    seconds = now - moment.timestamp()
    if abs(seconds) < 1:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def stamp(moment: datetime) -> str:
    """Return a time to the second, which says its zone."""
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".rstrip()


def moment_of(moment: datetime | None, now: float) -> dict[str, str] | None:
    """Return what a template shows of a time; None is None."""
    if moment is None:
        return None
    return {"iso": moment.isoformat(), "stamp": stamp(moment), "age": age(moment, now)}


def due_of(moment: datetime | None, now: float) -> dict[str, str] | None:
    """Return what a template shows of a time at which something is due; None is None."""
    shown = moment_of(moment, now)
    if shown is not None and moment is not None and moment.timestamp() <= now:
        shown["age"] = "due now"
    return shown


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with what it counts: ``1 job``, ``1,204 jobs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Return what an error says as a sentence."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def shortened(text: str, limit: int = MAX_DETAIL) -> str:
    """Return a text in one line, cut off where it is too long."""
    line = " ".join(text[: limit * 4].split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def value_text(value: Any) -> str:
    """Return a value for people: as JSON where it is plain, else as Python shows it."""
    text = _text_of(value, 2)
    if len(text) <= MAX_VALUE:
        return text
    return f"{text[:MAX_VALUE]}…\n({len(text) - MAX_VALUE:,} characters more)"


def _text_of(value: Any, indent: int | None) -> str:
    if isinstance(value, str):
        return value
    plain = plain_value(value)
    if isinstance(plain, dict) and plain.keys() == {"$repr"}:
        return text_of(value) if indent else shown(value)
    return json.dumps(plain, indent=indent, ensure_ascii=False)


def brief(value: Any) -> str:
    """Return a value in a few words, for a table."""
    return shortened(_text_of(value, None))


def utc_iso(seconds: float) -> str:
    """Return a time in seconds since the epoch in the form of ISO 8601."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def utc_text(seconds: float) -> str:
    """Return a time in seconds since the epoch for people."""
    return stamp(datetime.fromtimestamp(seconds, timezone.utc))
