# SPDX-License-Identifier: ZPL-2.1
"""Attributes of jobs and scheduler items that have to make sense, whatever they are set to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.errors import InvalidArgument, is_kind, seconds_of, shown, whole_of

#: A job has no more runs than this.
MAX_RUNS = 1_000


def check_time(value: Any, name: str) -> datetime | None:
    """Return a time in UTC.

    :raises InvalidArgument: it is neither an aware datetime nor None.
    """
    if value is None:
        return None
    if not is_kind(value, datetime) or value.utcoffset() is None:
        raise InvalidArgument(f"{name} must be an aware datetime or None, not {shown(value)}")
    try:
        at: datetime = value.astimezone(timezone.utc)
    except OverflowError:
        raise InvalidArgument(f"{name} lies outside of all years: {shown(value)}") from None
    return at


def check_seconds(value: Any, name: str) -> float:
    """Return a wait in seconds; a whole number stays an int.

    :raises InvalidArgument: it is no number, or not within 0 to a hundred years.
    """
    seconds = seconds_of(value, name)
    whole = whole_of(value)
    return seconds if whole is None else whole


def check_runs(value: Any, name: str) -> int:
    """Return a number of runs.

    :raises InvalidArgument: it is no int of 1 to `MAX_RUNS`.
    """
    number = whole_of(value)
    if number is None or not 1 <= number <= MAX_RUNS:
        raise InvalidArgument(f"{name} must be an int of 1 to {MAX_RUNS}, not {shown(value)}")
    return number


def set_attributes(holder: Any, data: Any) -> None:
    """Set attributes by name, of any names but those that ZODB needs.

    :raises InvalidArgument: it is no mapping of such names.
    """
    if data is None:
        return
    if not is_kind(data, Mapping):
        raise InvalidArgument(f"data must be a dict or None, not {shown(data)}")
    for name, value in dict(data).items():
        if not is_kind(name, str) or name.startswith(("_p_", "_record")):
            raise InvalidArgument(f"data must name attributes, not {shown(name)}")
        setattr(holder, name, value)


class Checked:
    """An attribute that is checked when it is set.

    :param check: called with a value and the attribute's name, returns what is to be kept.
    :param on_change: called with the object.
    """

    def __init__(
        self,
        default: Any,
        check: Callable[[Any, str], Any],
        on_change: Callable[[Any], None] = lambda holder: None,
    ) -> None:
        self._default = default
        self._check = check
        self._on_change = on_change

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, holder: Any, owner: type | None = None) -> Any:
        if holder is None:
            return self
        holder._p_activate()
        return vars(holder).get(self._name, self._default)

    def __set__(self, holder: Any, value: Any) -> None:
        holder._p_activate()
        vars(holder)[self._name] = self._check(value, self._name)
        holder._p_changed = True
        self._on_change(holder)
