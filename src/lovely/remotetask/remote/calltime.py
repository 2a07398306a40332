# SPDX-License-Identifier: ZPL-2.1
"""When a scheduler item is called next.  Pure: the clock is an argument.

The days and minutes that fit are counted by `schedule`, as they are for cron jobs.  What is
added here is the rule of m01.remote for items that name only weekdays or months: they keep
their time of day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Protocol

from lovely.remotetask.errors import (
    MAX_WAIT_SECONDS,
    InvalidArgument,
    InvalidSchedule,
    is_kind,
    number_of,
    shown,
    whole_of,
)
from lovely.remotetask.schedule import make_schedule

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND = timedelta(seconds=1)
_NO_TIME = timedelta(0)

#: In seconds; datetimes show no less, and an item would stay due for ever.
_SHORTEST_DELAY = 1e-6

#: Each of these can be iterated over, and none is meant for a list of numbers.
_NO_LISTS = (str, bytes, bytearray, dict)


class CronFields(Protocol):
    """What is read of a cron item; a field without numbers is free."""

    @property
    def minute(self) -> Sequence[int]: ...
    @property
    def hour(self) -> Sequence[int]: ...
    @property
    def dayOfMonth(self) -> Sequence[int]: ...
    @property
    def month(self) -> Sequence[int]: ...
    @property
    def dayOfWeek(self) -> Sequence[int]: ...


def checked_fields(
    minute: Iterable[int] = (),
    hour: Iterable[int] = (),
    dayOfMonth: Iterable[int] = (),
    month: Iterable[int] = (),
    dayOfWeek: Iterable[int] = (),
) -> dict[str, list[int]]:
    """Return the five fields of a cron item by name, each in order and without doubles.

    :param dayOfMonth: 1 to 31; a day that a month does not have does not fit there.
    :param dayOfWeek: 0 to 6, Monday is 0.
    :raises InvalidSchedule: a field is no collection of whole numbers, one of them is out of
        range, or no day can ever fit.
    """
    given = {
        "minute": minute,
        "hour": hour,
        "dayOfMonth": dayOfMonth,
        "month": month,
        "dayOfWeek": dayOfWeek,
    }
    for name, values in given.items():
        if is_kind(values, _NO_LISTS):
            raise InvalidSchedule(f"{name}={shown(values)}: must be a list of whole numbers")
    schedule = make_schedule(minute, hour, dayOfMonth, month, dayOfWeek)
    return {name: list(getattr(schedule, name)) for name in given}


def checked_delay(delay: float) -> float:
    """Return the seconds between the calls of a delay item; a whole number stays an int.

    :raises InvalidArgument: it is no number, less than a microsecond, or more than 100 years.
    """
    seconds = number_of(delay)
    if not _SHORTEST_DELAY <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidArgument(
            f"delay must be seconds, from a microsecond to 100 years, not {shown(delay)}"
        )
    whole = whole_of(delay)
    return seconds if whole is None else whole


def adjustCallTime(item: CronFields, callTime: datetime) -> datetime:
    """Return where the period begins that a call time lies in; its microseconds stay.

    The finest field of the item tells the period: the minute for ``minute``, and for an item
    without fields; the hour; the day for ``dayOfMonth``.  An item that names only weekdays or
    months keeps its time of day, so that there is nothing to reset but, for ``month`` alone,
    the day, to the 1st.

    :param callTime: of any time zone; the result is in UTC.
    :raises InvalidArgument: it is no aware datetime, or not within the years 2 to 9899.
    """
    moment = in_utc(callTime, "callTime")
    if item.minute:
        return moment.replace(second=0)
    if item.hour:
        return moment.replace(minute=0, second=0)
    if item.dayOfMonth:
        return moment.replace(hour=0, minute=0, second=0)
    if item.dayOfWeek:
        return moment
    if item.month:
        return moment.replace(day=1)
    return moment.replace(second=0)


def next_call_time(item: CronFields, nextCallTime: datetime | None, callTime: datetime) -> datetime:
    """Return when a cron item is called next: the first time later than `callTime` that fits.

    All fields that are given must fit.  Those finer than the finest one given stand at their
    first value, coarser ones are free, and without any field each minute fits.  These are the
    slots of cron jobs, whole minutes in UTC, with one difference: an item that names only
    weekdays or months is called at the time of day that `nextCallTime` has, to the
    microsecond, on the weekdays, or on the 1st of the months.

    Calls that were missed are not made up for, nor does a late `callTime` move the later ones.

    :param nextCallTime: when the item was to be called so far; None if never, and then the
        time of day is that of `callTime`.
    :param callTime: of any time zone, as `nextCallTime`; the result is in UTC.
    :raises InvalidArgument: a time is no aware datetime, or not within the years 2 to 9899.
    :raises InvalidSchedule: the fields are not such as `checked_fields` returns.
    """
    moment = in_utc(callTime, "callTime")
    stored = moment if nextCallTime is None else in_utc(nextCallTime, "nextCallTime")
    # Whoever keeps a time of day is called so much later than at midnight, which is the slot.
    kept = _time_of_day(stored) if _is_keeping(item) else _NO_TIME
    schedule = make_schedule(item.minute, item.hour, item.dayOfMonth, item.month, item.dayOfWeek)
    slot = schedule.next_time((moment - kept - _EPOCH) // _SECOND)
    return _EPOCH + timedelta(seconds=slot) + kept


def next_delay_time(delay: float, callTime: datetime) -> datetime:
    """Return when a delay item is called next: so many seconds after it was asked.

    :param delay: as `checked_delay` returns it.
    :param callTime: of any time zone; the result is in UTC.
    :raises InvalidArgument: `callTime` is no aware datetime, or not within the years 2 to
        9899, or `delay` leads past the year 9999.
    """
    try:
        return in_utc(callTime, "callTime") + timedelta(seconds=delay)
    except OverflowError:
        raise InvalidArgument(f"delay={shown(delay)} leads past the year 9999") from None


def _is_keeping(item: CronFields) -> bool:
    """Say whether an item keeps its time of day."""
    is_told = item.minute or item.hour or item.dayOfMonth
    return not is_told and bool(item.dayOfWeek or item.month)


def _time_of_day(moment: datetime) -> timedelta:
    return moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)


def in_utc(value: datetime, name: str) -> datetime:
    """Return an aware time in UTC, as an exact datetime, whatever subclass it is of."""
    if not is_kind(value, datetime):
        raise InvalidArgument(f"{name} must be a datetime, not {shown(value)}")
    try:
        moment = _EPOCH + (value - _EPOCH)
    except TypeError:
        raise InvalidArgument(f"{name} must have a time zone, unlike {shown(value)}") from None
    except OverflowError:  # in UTC it lies outside of all years
        moment = datetime.max
    if not 2 <= moment.year <= 9899:
        raise InvalidArgument(f"{name} must lie within the years 2 to 9899, not {shown(value)}")
    return moment
