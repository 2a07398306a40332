# SPDX-License-Identifier: ZPL-2.1
"""Cron expressions: the only room that knows croniter, which parses most of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from typing import NamedTuple

from croniter import croniter

from lovely.remotetask.errors import InvalidSchedule

#: What the sets may hold, in the order of the fields of a cron expression.
RANGES = {
    "minute": range(60),
    "hour": range(24),
    "dayOfMonth": range(1, 32),
    "month": range(1, 13),
    "dayOfWeek": range(7),
}

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

#: Where the day fields stand in a cron expression.
_MONTH_DAY, _WEEKDAY = 2, 4

#: A range with its step, or with the week of its weekdays.
_RANGE = re.compile(r"(\d+|[a-z]+)-(\d+|[a-z]+)(?:/(\d+)|(#\d))?", re.ASCII)

#: The last one of a weekday; croniter reads it in the first order only.
_LAST = re.compile(r"l(\d|[a-z]{3})|(\d|[a-z]{3})l", re.ASCII)

#: The weeks of a month in which a weekday counts, where nothing else is said.
EVERY_WEEK = range(1, 6)


class Fields(NamedTuple):
    """What a calendar is made of; an empty field is free.

    ``days`` may hold "l", the last day of a month; ``weeks`` says in which weeks of a month, or
    "l" for the last one, a weekday counts, from Monday as 0; ``combine`` is `all` if days and
    weekdays must both fit, `any` if one of them will do; ``is_fixed`` tells a job of fixed times
    from one that runs through.
    """

    minute: Collection[int]
    hour: Collection[int]
    days: Collection[int | str]
    month: Collection[int]
    weeks: Mapping[int, Collection[int | str]]
    combine: Callable[[Iterable[bool]], bool]
    is_fixed: bool


def read_crontab(cron: str) -> Fields:
    """Read five fields, or an alias.

    :raises InvalidSchedule: they make no sense.
    """
    fields = _ALIASES.get(cron.lower(), cron).lower().split()
    if len(fields) != 5:
        raise InvalidSchedule(f"cron={cron!r}: must be five fields or one of the aliases")
    if any(text[0] in "hr" for text in fields) or "w" in fields[_MONTH_DAY]:
        # croniter would draw lots for an R, and not tell of a W.
        raise InvalidSchedule(f"cron={cron!r}: H, R and W are not understood")
    if len({bool(set("#l") & set(part)) for part in fields[_WEEKDAY].split(",")}) > 1:
        raise InvalidSchedule(f"cron={cron!r}: # and L do not mix with plain weekdays")
    try:
        expanded, weeks = croniter.expand(" ".join(map(_spelled_out, fields, count())))
    except ValueError as error:  # CroniterError is one
        reason = str(error).rpartition("] ")[2]
        raise InvalidSchedule(f"cron={cron!r}: {reason}") from None
    minute, hour, days, month, weekdays = (() if "*" in part else part for part in expanded)
    weeks = weeks or dict.fromkeys(weekdays, EVERY_WEEK)
    # cron counts from Sunday.
    weeks = {(weekday - 1) % 7: numbers for weekday, numbers in weeks.items()}
    # The first character makes a wildcard, whatever comes after it: that is Vixie cron's.
    is_free = [text[0] in "*?" for text in fields]
    combine = all if is_free[_MONTH_DAY] or is_free[_WEEKDAY] else any
    is_fixed = not (is_free[0] or is_free[1])
    return Fields(minute, hour, days, month, weeks, combine, is_fixed)


def _spelled_out(text: str, position: int) -> str:
    """Return a field of a cron expression without what croniter reads wrongly or not at all.

    For it a range from a value to itself is the whole field, the step of a range that wraps
    starts anew after the wrap, and ``31-0`` is the 31st.

    :raises ValueError: the bounds of a range, or its step, are out of range.
    """
    parts = []
    for part in text.split(","):
        if match := _RANGE.fullmatch(part):
            low, high, step, week = match.groups("")
            numbers = _numbers_of_range(low, high, int(step or 1), position)
            parts += [f"{number}{week}" for number in numbers]
        elif position == _WEEKDAY and (match := _LAST.fullmatch(part)):
            weekday = match[1] or match[2]
            parts.append(f"l{croniter.ALPHACONV[position].get(weekday, weekday)}")
        else:
            parts.append(part)
    return ",".join(parts)


def _numbers_of_range(low: str, high: str, step: int, position: int) -> list[int]:
    ring = (*RANGES.values(),)[position]
    names = croniter.ALPHACONV[position]
    if (position, high) == (_MONTH_DAY, "l"):
        high = "31"
    try:
        first, last = (int(names.get(bound, bound)) for bound in (low, high))
    except ValueError:
        raise ValueError(f"{low}-{high} is no range") from None
    end = 7 if position == _WEEKDAY else ring[-1]  # Sunday is 7 too
    if not (step and ring[0] <= first <= end and ring[0] <= last <= end):
        raise ValueError(f"the range {low}-{high}, or its step, is out of range")
    if first > last:
        last += len(ring)
    return [(number - ring[0]) % len(ring) + ring[0] for number in range(first, last + 1, step)]
