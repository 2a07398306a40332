# SPDX-License-Identifier: ZPL-2.1
"""The times of a schedule as people type them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lovely.remotetask.errors import InvalidArgument, InvalidSchedule, seconds_of
from lovely.remotetask.schedule import make_schedule
from lovely.remotetask.web.schedules import Fields

#: Stands for all values of a field.
ALL = "*"

#: Characters of a field that are read: more than all its values take.
MAX_FIELD = 500


class Set(NamedTuple):
    """A field with a set of numbers.

    :ivar name: as in `ICronJob`.
    """

    name: str
    label: str
    first: int
    last: int
    hint: str

    @property
    def all(self) -> tuple[int, ...]:
        """All numbers that can be in it."""
        return tuple(range(self.first, self.last + 1))


SETS = (
    Set("minute", "Minutes", 0, 59, "0 to 59"),
    Set("hour", "Hours", 0, 23, "0 to 23"),
    Set("dayOfMonth", "Days of the month", 1, 31, "1 to 31"),
    Set("month", "Months", 1, 12, "1 to 12"),
    Set("dayOfWeek", "Days of the week", 0, 6, "0 to 6; Monday is 0"),
)


def numbers_of(field: Set, text: str) -> tuple[int, ...]:
    """Return what was typed into a field: numbers, with blanks or commas between them.

    :raises ValueError: the text says what is wrong.
    """
    if text.strip() == ALL:
        return field.all
    numbers = set()
    for word in re.split(r"[\s,]+", text[:MAX_FIELD].strip(" ,\t\n\r")):
        if not word:
            continue
        is_number = re.fullmatch("[0-9]{1,4}", word, re.ASCII) is not None
        if not is_number or not field.first <= int(word) <= field.last:
            raise ValueError(f"“{word[:20]}” is no number from {field.first} to {field.last}")
        numbers.add(int(word))
    if len(text) > MAX_FIELD:
        raise ValueError("this is too long")
    return tuple(sorted(numbers))


def text_of_numbers(field: Set, numbers: Iterable[int]) -> str:
    """Return what stands in a field for what is stored."""
    given = tuple(sorted(numbers))
    return ALL if given == field.all else " ".join(map(str, given))


class Times(NamedTuple):
    """What was typed of a schedule's times.

    :ivar given: keywords of ``addCronJob`` and ``update``.
    :ivar wrong: the name of a field -> what is wrong with it; the empty name is for all of them.
    """

    given: dict[str, Any]
    wrong: dict[str, str]


def read_times(typed: Mapping[str, str]) -> Times:
    """Read what was typed into the fields of a schedule."""
    given: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for field in SETS:
        try:
            given[field.name] = numbers_of(field, typed.get(field.name, ""))
        except ValueError as error:
            wrong[field.name] = str(error)
    delay = typed.get("delay", "").strip()
    given["delay"] = None
    if delay:
        try:
            given["delay"] = seconds_of(float(delay), "Delay")
        except (ValueError, InvalidArgument):
            wrong["delay"] = "this is no number of seconds from 0 on"
    given["cron"] = typed.get("cron", "").strip() or None
    given["timezone"] = typed.get("timezone", "").strip() or None
    for name in ("cron", "timezone"):
        try:
            make_schedule(**{name: given[name]})
        except InvalidSchedule as error:
            # What was typed stands beside it.
            wrong[name] = str(error).removeprefix(f"{name}={given[name]!r}: ")
    if not wrong:
        _check_together(given, wrong)
    return Times(given, wrong)


def _check_together(given: dict[str, Any], wrong: dict[str, str]) -> None:
    if given["cron"] is not None and any(given[field.name] for field in SETS):
        wrong["cron"] = "this is in place of the numbers: leave one or the other empty"
        return
    try:
        schedule = make_schedule(**{key: value for key, value in given.items() if key != "delay"})
    except InvalidSchedule as error:  # the names of arguments stand before that
        wrong[""] = str(error).rpartition(": ")[2]
        return
    if given["delay"] is not None and schedule != make_schedule():
        wrong["delay"] = "a job has a delay or a schedule, not both"


def typed_of(fields: Fields) -> dict[str, str]:
    """Return what stands in the fields for a schedule that is stored."""
    typed = {field.name: text_of_numbers(field, getattr(fields, field.name)) for field in SETS}
    typed["delay"] = "" if fields.delay is None else f"{fields.delay:.15g}"
    typed["cron"] = fields.cron or ""
    typed["timezone"] = fields.timezone or ""
    return typed


def told(fields: Fields, is_repeated: bool = False) -> str:
    """Return a schedule in a few words, for a table.

    :param is_repeated: whether it runs again and again with a delay, instead of once.
    """
    zone = fields.timezone or "UTC"
    if fields.delay is not None:
        if is_repeated:
            return f"every {fields.delay:g} s"
        return f"once, {fields.delay:g} s after it was added"
    if fields.cron:
        return f"{fields.cron} ({zone})"
    parts = [
        f"{field.label.lower()} {text_of_numbers(field, getattr(fields, field.name))}"
        for field in SETS
        if getattr(fields, field.name)
    ]
    return f"{'; '.join(parts) or 'every minute'} ({zone})"
