# SPDX-License-Identifier: ZPL-2.1
"""When a cron job runs next.  Pure: knows calendars and zones, but no clock.

Schedules speak of the wall clock of a zone, jobs run at instants, so there are three
parts: a `_Calendar` finds the wall times that match, a `_Zone` tells which instants show
a wall time, and a `Schedule` decides in the nights in which the clock is changed.
Within, both are whole seconds; a wall time counts them as if its zone were UTC.

croniter reads the cron expressions but does not search: its search takes up to 2 ms
(29 February on a Monday, ``0 0 31 2 1``), raises for days that exist (``0 0 1 * 5#2``)
and runs a fixed time twice in the autumn night.  With the days of the 28 shapes of a
month at hand the search is one expression (`_Calendar.first_day`), takes microseconds,
and has no state that threads would share.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from itertools import count, product
from math import floor
from zoneinfo import ZoneInfo

from lovely.remotetask.crontab import EVERY_WEEK, RANGES, Fields, read_crontab
from lovely.remotetask.errors import (
    LAST_MOMENT,
    InvalidArgument,
    InvalidSchedule,
    UnknownZone,
    is_kind,
    list_of,
    plain,
    shown,
    whole_of,
)

#: Files beside the zones of the IANA database, or a whole other set of them.
_OF_THE_MACHINE = re.compile(r"(localtime|posixrules|factory)$|(posix|right)/|/|.*\.\.", re.I)

#: No set has more numbers, each as often as anybody likes, and no text more characters.
MAX_NUMBERS = 1_000
MAX_TEXT = 1_000

_DAY = 86400
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_DAY = _EPOCH.toordinal()

# Python knows the years 1 to 9999, and the next matching day can be 40 years away
# (29 February on a Monday, around the year 2100).
_EARLIEST = (date(2, 1, 1).toordinal() - _EPOCH_DAY) * _DAY
_LATEST = LAST_MOMENT


@dataclass(frozen=True)
class Schedule:
    """Tell the slots of a cron job; made by `make_schedule`, which explains the fields.

    A slot is a whole minute on the wall clock of the zone.  Where that clock is changed,
    it matters whether the times of the day are told, or a wildcard stands for them.  If
    they are told, by the sets with an hour, and in a cron expression if neither minute nor
    hour begins with ``*``, the schedule is *fixed*: it runs once for every wall time, at
    the first instant that shows it, or where the gap ends that has swallowed it.  If not
    (every hour, every ten minutes at night), it *runs through*, by the time that really
    passes: in both passes of a repeated hour, never in a gap.  So does Vixie cron.
    """

    minute: tuple[int, ...]
    hour: tuple[int, ...]
    dayOfMonth: tuple[int, ...]
    month: tuple[int, ...]
    dayOfWeek: tuple[int, ...]
    cron: str | None
    timezone: str | None
    _calendar: _Calendar = field(repr=False, compare=False)
    _zone: _Zone | None = field(repr=False, compare=False)

    def next_time(self, after: float) -> float:
        """Return the first slot that is later than `after`.

        :param after: seconds since the epoch, UTC, as is the result.
        :raises InvalidArgument: `after` is no number, or not within the years 2 to 9899.
        """
        if not _EARLIEST <= after < _LATEST:
            raise InvalidArgument(f"after must lie within the years 2 to 9899, not {after!r}")
        # A slot is a whole second, so it is later than `after` if later than its floor.
        moment = floor(after)
        if self._zone is None:
            return float(self._calendar.next_match(moment))
        if self._calendar.is_fixed:
            return float(self._next_fixed(moment, self._zone))
        return float(self._next_running(moment, self._zone))

    def count_between(self, after: float, until: float, limit: int) -> int:
        """Return how many slots are later than `after` and not later than `until`.

        :param limit: where the count stops.
        """
        found = 0
        while found < limit and after < until:
            after = self.next_time(after)
            found += after <= until
        return found

    def _next_fixed(self, moment: int, zone: _Zone) -> int:
        wall = moment + zone.offset(moment)
        first, second = zone.instants(wall)
        if first < moment:
            # The second pass of a repeated hour: go on with the wall time after it.
            wall = zone.change(first, second) + (wall - first) - 1
        first, second = zone.instants(self._calendar.next_match(wall))
        return first if first <= second else zone.change(second, first)

    def _next_running(self, moment: int, zone: _Zone) -> int:
        offset = zone.offset(moment)
        wall = self._calendar.next_match(moment + offset)
        # A clock that is put back shows once more what is already behind `wall`.  It is
        # never put back by more than a day, so a later change cannot interfere.
        if zone.offset(moment + _DAY) != offset:
            change = zone.change(moment, moment + _DAY)
            if wall - offset >= change:
                moment, wall = self._start_after(change, zone)
        while True:
            first, second = zone.instants(wall)
            if first <= second:
                return first if first > moment else second
            moment, wall = self._start_after(zone.change(second, first), zone)

    def _start_after(self, change: int, zone: _Zone) -> tuple[int, int]:
        """Return the moment before `change`, and the first match on the new clock."""
        return change - 1, self._calendar.next_match(change - 1 + zone.offset(change))


@dataclass(frozen=True)
class _Zone:
    """Map between instants and the wall clock of a time zone."""

    zone: ZoneInfo

    def offset(self, moment: int) -> int:
        """Return by how much the wall clock is ahead of UTC."""
        return _offset((_EPOCH + timedelta(seconds=moment)).astimezone(self.zone))

    def instants(self, wall: int) -> tuple[int, int]:
        """Return the instants of `wall` by the offsets before and after a change.

        They are the same far from any change.  A wall time that comes twice has its first
        and its second instant here.  For one that never comes the first is the later: it
        lies after the change, the second before.
        """
        local = (_EPOCH + timedelta(seconds=wall)).replace(tzinfo=self.zone)
        return wall - _offset(local), wall - _offset(local.replace(fold=1))

    def change(self, before: int, after: int) -> int:
        """Return the first instant after `before` at which the offset is another."""
        old = self.offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            if self.offset(middle) == old:
                before = middle
            else:
                after = middle
        return after


def _offset(local: datetime) -> int:
    offset = local.utcoffset() or timedelta()
    return offset.days * _DAY + offset.seconds


@dataclass(frozen=True)
class _Calendar:
    """Find the wall times that match: the times of the day, on the days.

    :ivar times: seconds since midnight, ascending.
    :ivar months: 1 to 12, ascending.
    :ivar days: the days, ascending, that match in a month of this shape: the weekday of
        its 1st (Monday is 0), and its length.
    :ivar is_fixed: the times are told, and no wildcard stands for them: see `Schedule`.
    """

    times: tuple[int, ...]
    months: tuple[int, ...]
    days: Mapping[tuple[int, int], tuple[int, ...]]
    is_fixed: bool

    def next_match(self, wall: int) -> int:
        """Return the first matching wall time that is later than `wall`."""
        day = self.first_day(date.fromordinal(_EPOCH_DAY + wall // _DAY))
        midnight = (day.toordinal() - _EPOCH_DAY) * _DAY
        index = bisect_right(self.times, wall - midnight)
        if index < len(self.times):
            return midnight + self.times[index]
        day = self.first_day(day + timedelta(days=1))
        return (day.toordinal() - _EPOCH_DAY) * _DAY + self.times[0]

    def first_day(self, since: date) -> date:
        """Return the first matching day that is not before `since`."""
        return next(
            date(year, month, day)
            for year in count(since.year)
            for month in self.months
            if (year, month) >= (since.year, since.month)
            for day in self.days[monthrange(year, month)]
            if (year, month, day) >= (since.year, since.month, since.day)
        )

    def has_days(self) -> bool:
        """Tell whether any day can match."""
        # In the long run each month, 29 days of February too, begins on every weekday.
        return any(
            self.days[weekday, monthrange(year, month)[1]]
            for month in self.months
            for year in (2000, 2001)  # a leap year and another
            for weekday in range(7)
        )


def make_schedule(
    minute: Iterable[int] = (),
    hour: Iterable[int] = (),
    dayOfMonth: Iterable[int] = (),
    month: Iterable[int] = (),
    dayOfWeek: Iterable[int] = (),
    cron: str | None = None,
    timezone: str | None = None,
) -> Schedule:
    """Return the schedule of these fields.

    All the sets that are given must match.  Fields finer than the finest one given stand
    at their first value, coarser ones are free; without any, every minute matches.

    :param dayOfMonth: 1 to 31; a day that a month does not have does not match there.
    :param dayOfWeek: 0 to 6, Monday is 0.
    :param cron: in place of the sets, an expression of five fields as in crontab(5), or
        an alias like ``@daily``.  Either day field may match, unless one begins with
        ``*``, as ``*/2`` does, or is ``?``: then both must.  Also understood are ``L``, the
        last day of the month, ``1#2``, the second Monday, ``5L`` and ``L5``, the last
        Friday, and ranges that wrap: ``23-3/2`` is 23, 1 and 3.
    :param timezone: a name of the IANA database; None is UTC.
    :raises InvalidSchedule: a field is malformed or out of range, the zone is unknown,
        `cron` comes with a set, or no day can ever match.
    """
    values = (minute, hour, dayOfMonth, month, dayOfWeek)
    sets = tuple(_whole_numbers(*pair) for pair in zip(RANGES, values, strict=True))
    for name, text in (("cron", cron), ("timezone", timezone)):
        if text is not None and not is_kind(text, str):
            raise InvalidSchedule(f"{name}={shown(text)}: must be a string")
        if text is not None and len(plain(text)) > MAX_TEXT:
            raise InvalidSchedule(f"{name}={shown(text)}: must have {MAX_TEXT} characters at most")
    # Of exact types, for what is returned is kept for others, and stored: enums would not do.
    cron, timezone = (text if text is None else plain(text) for text in (cron, timezone))
    return _cached_schedule(sets, cron, timezone)


def zone_named(timezone: str) -> ZoneInfo:
    """Return the time zone of this name.

    :raises InvalidSchedule: no machine has to have it, or have the same under this name.
    :raises UnknownZone: there is no such zone on this machine.
    """
    if _OF_THE_MACHINE.match(timezone):
        raise InvalidSchedule(f"timezone={timezone!r}: there is no such time zone everywhere")
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder of zones
        raise UnknownZone(f"timezone={timezone!r}: there is no such time zone") from None


def is_zone_known(timezone: str) -> bool:
    """Say whether this machine knows a time zone."""
    try:
        zone_named(timezone)
    except InvalidSchedule:
        return False
    return True


def _whole_numbers(name: str, values: Iterable[int]) -> tuple[int, ...]:
    allowed = RANGES[name]
    numbers = set()
    for value in list_of(values, name, InvalidSchedule, MAX_NUMBERS):
        number = whole_of(value)
        if number is None:
            raise InvalidSchedule(f"{name}={shown(value)}: must be a whole number")
        if number not in allowed:
            raise InvalidSchedule(f"{name}={shown(number)}: must be {allowed[0]} to {allowed[-1]}")
        numbers.add(number)
    return tuple(sorted(numbers))


@lru_cache(maxsize=512)
def _cached_schedule(
    sets: tuple[tuple[int, ...], ...], cron: str | None, timezone: str | None
) -> Schedule:
    pairs = zip(RANGES, sets, strict=True)
    given = ", ".join(f"{name}={numbers}" for name, numbers in pairs if numbers)
    if cron is None:
        calendar = _calendar_of_sets(sets)
    elif given:
        raise InvalidSchedule(f"cron={cron!r} takes the place of {given}")
    else:
        calendar = _calendar(read_crontab(cron))
    if not calendar.has_days():
        raise InvalidSchedule(f"{given or f'cron={cron!r}'}: there is no such day")
    zone = None if timezone is None else _Zone(zone_named(timezone))
    minute, hour, days, month, weekdays = sets
    return Schedule(minute, hour, days, month, weekdays, cron, timezone, calendar, zone)


def _calendar_of_sets(sets: Sequence[tuple[int, ...]]) -> _Calendar:
    minute, hour, days, month, weekdays = sets
    if month and not (days or weekdays or hour or minute):
        days = (1,)
    if (days or weekdays) and not (hour or minute):
        hour = (0,)
    if hour and not minute:
        minute = (0,)
    weeks = dict.fromkeys(weekdays, EVERY_WEEK)
    return _calendar(Fields(minute, hour, days, month, weeks, all, is_fixed=bool(hour)))


def _calendar(fields: Fields) -> _Calendar:
    """Return the calendar of these fields."""
    minute, hour, days, month, weeks, combine, is_fixed = fields

    def is_match(day: int, first_weekday: int, length: int) -> bool:
        in_weeks = weeks.get((first_weekday + day - 1) % 7, ())
        is_day = day in days or (day == length and "l" in days)
        is_weekday = (day + 6) // 7 in in_weeks or (day + 7 > length and "l" in in_weeks)
        return combine((is_day or not days, is_weekday or not weeks))

    return _Calendar(
        times=tuple(h * 3600 + m * 60 for h in hour or range(24) for m in minute or range(60)),
        months=tuple(month or range(1, 13)),
        days={
            shape: tuple(day for day in range(1, shape[1] + 1) if is_match(day, *shape))
            for shape in product(range(7), range(28, 32))
        },
        is_fixed=is_fixed,
    )
