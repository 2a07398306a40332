# SPDX-License-Identifier: ZPL-2.1
"""Call times, against examples, and against a reference that is slow and plain."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lovely.remotetask.errors import MAX_WAIT_SECONDS, InvalidArgument, InvalidSchedule, shown
from lovely.remotetask.remote.calltime import (
    CronFields,
    adjustCallTime,
    checked_delay,
    checked_fields,
    next_call_time,
    next_delay_time,
)

MICROSECOND = timedelta(microseconds=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[misc,arg-type]


def item(**fields: Any) -> CronFields:
    return SimpleNamespace(**checked_fields(**fields))


def calls(fields: dict[str, Any], start: datetime, number: int) -> list[datetime]:
    """Return the call times of an item that is asked at each of them, and first at `start`."""
    found = [start]
    for _ in range(number):
        found.append(next_call_time(item(**fields), found[-1], found[-1]))
    return found[1:]


# -- where the time of day comes from ---------------------------------------------------------

# A Tuesday.
START = utc(2024, 2, 27, 21, 45, 30, 250)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [utc(2024, 2, 27, 21, 46), utc(2024, 2, 27, 21, 47)]),
        ({"minute": [45]}, [utc(2024, 2, 27, 22, 45), utc(2024, 2, 27, 23, 45)]),
        ({"minute": [50, 46]}, [utc(2024, 2, 27, 21, 46), utc(2024, 2, 27, 21, 50)]),
        ({"hour": [21, 23]}, [utc(2024, 2, 27, 23), utc(2024, 2, 28, 21)]),
        ({"minute": [45], "hour": [21]}, [utc(2024, 2, 28, 21, 45), utc(2024, 2, 29, 21, 45)]),
        ({"dayOfMonth": [27, 29]}, [utc(2024, 2, 29), utc(2024, 3, 27)]),
        ({"dayOfMonth": [31]}, [utc(2024, 3, 31), utc(2024, 5, 31)]),
        ({"month": [2, 8]}, [utc(2024, 8, 1, 21, 45, 30, 250), utc(2025, 2, 1, 21, 45, 30, 250)]),
        (
            {"dayOfWeek": [1, 3]},
            [utc(2024, 2, 29, 21, 45, 30, 250), utc(2024, 3, 5, 21, 45, 30, 250)],
        ),
        (
            {"month": [9], "dayOfWeek": [6]},
            [utc(2024, 9, 1, 21, 45, 30, 250), utc(2024, 9, 8, 21, 45, 30, 250)],
        ),
        ({"dayOfMonth": [13], "dayOfWeek": [4]}, [utc(2024, 9, 13), utc(2024, 12, 13)]),
        ({"month": [2], "dayOfMonth": [29]}, [utc(2024, 2, 29), utc(2028, 2, 29)]),
        ({"month": [2], "dayOfMonth": [29], "dayOfWeek": [0]}, [utc(2044, 2, 29)]),
        ({"month": [3], "hour": [4]}, [utc(2024, 3, 1, 4), utc(2024, 3, 2, 4)]),
        ({"minute": [7], "dayOfWeek": [2]}, [utc(2024, 2, 28, 0, 7), utc(2024, 2, 28, 1, 7)]),
    ],
)
def test_a_cron_item_is_called_when_all_its_fields_fit(
    fields: dict[str, Any], expected: list[datetime]
) -> None:
    assert calls(fields, START, len(expected)) == expected


def test_the_kept_time_of_day_is_that_of_the_stored_time_and_not_of_a_late_poll() -> None:
    late = utc(2024, 5, 7, 13, 30)  # a Tuesday
    assert next_call_time(item(month=[5, 6]), START, late) == utc(2024, 6, 1, 21, 45, 30, 250)
    tuesdays = item(dayOfWeek=[1])
    assert next_call_time(tuesdays, START, late) == utc(2024, 5, 7, 21, 45, 30, 250)
    assert next_call_time(tuesdays, utc(2024, 2, 27, 4), late) == utc(2024, 5, 14, 4)


def test_an_item_that_has_never_been_counted_keeps_the_time_of_day_of_the_poll() -> None:
    assert next_call_time(item(dayOfWeek=[1]), None, START) == START + timedelta(days=7)
    assert next_call_time(item(dayOfWeek=[2]), None, START) == START + timedelta(days=1)
    assert next_call_time(item(month=[3]), None, START) == utc(2024, 3, 1, 21, 45, 30, 250)


@pytest.mark.parametrize("fields", [{"dayOfMonth": [3]}, {"hour": [5]}, {"minute": [5]}, {}])
def test_other_items_do_not_care_for_the_stored_time(fields: dict[str, Any]) -> None:
    found = {
        next_call_time(item(**fields), stored, START) for stored in (None, START, utc(1970, 1, 1))
    }
    assert len(found) == 1


def test_a_kept_time_is_still_to_come_until_its_last_microsecond() -> None:
    mondays, stored = item(dayOfWeek=[0]), utc(2024, 1, 1, 9, 30, 0, 7)
    due = utc(2024, 3, 4, 9, 30, 0, 7)
    assert next_call_time(mondays, stored, due - MICROSECOND) == due
    assert next_call_time(mondays, stored, due) == due + timedelta(days=7)


def test_a_slot_is_still_to_come_until_its_last_microsecond() -> None:
    noon = utc(2024, 3, 4, 12)
    assert next_call_time(item(hour=[12]), None, noon - MICROSECOND) == noon
    assert next_call_time(item(hour=[12]), None, noon) == noon + timedelta(days=1)


def test_times_of_any_zone_are_taken_and_utc_is_returned() -> None:
    zone = ZoneInfo("Asia/Kathmandu")
    stored, poll = START.astimezone(zone), (START + timedelta(hours=3)).astimezone(zone)
    for fields in ({"dayOfWeek": [3]}, {"hour": [1]}, {"month": [1]}):
        found = next_call_time(item(**fields), stored, poll)
        assert found == next_call_time(item(**fields), START, START + timedelta(hours=3))
        assert found.tzinfo is timezone.utc
    assert adjustCallTime(item(hour=[1]), poll).tzinfo is timezone.utc
    assert adjustCallTime(item(hour=[1]), poll) == utc(2024, 2, 28, 0, 0, 0, 250)
    assert next_delay_time(60, poll).tzinfo is timezone.utc


def test_the_second_pass_of_an_hour_is_later_than_the_first() -> None:
    poll = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Zurich"))
    assert next_call_time(item(minute=[0]), None, poll) == utc(2026, 10, 25, 1)
    assert next_call_time(item(minute=[0]), None, poll.replace(fold=1)) == utc(2026, 10, 25, 2)


# -- against a reference ----------------------------------------------------------------------


def plain_calls(
    fields: dict[str, set[int]], stored: datetime, poll: datetime
) -> Iterator[datetime]:
    """Yield the calls after `poll`, looking at every day, and on it at every minute."""
    minute, hour, month, days, weekdays = (
        fields.get(name, set()) for name in ("minute", "hour", "month", "dayOfMonth", "dayOfWeek")
    )
    for ordinal in count(poll.date().toordinal()):
        day = date.fromordinal(ordinal)
        if month and day.month not in month:
            continue
        if days and day.day not in days:
            continue
        if weekdays and (day - date(2001, 1, 1)).days % 7 not in weekdays:
            continue
        midnight = utc(day.year, day.month, day.day)
        if minute or hour or not (month or days or weekdays):
            for number in range(24 * 60):
                moment = midnight + timedelta(minutes=number)
                if minute and moment.minute not in minute:
                    continue
                if hour and moment.hour not in hour:
                    continue
                if hour and not minute and moment.minute:
                    continue
                if moment > poll:
                    yield moment
        elif days:
            if midnight > poll:
                yield midnight
        elif weekdays or day.day == 1:
            moment = datetime.combine(day, stored.timetz())
            if moment > poll:
                yield moment


moments = st.datetimes(
    datetime(1970, 1, 1), datetime(2110, 1, 1), timezones=st.just(timezone.utc)
) | st.sampled_from(
    [
        utc(1970, 1, 1),
        utc(2024, 2, 29),
        utc(2024, 2, 28, 23, 59, 59, 999_999),
        utc(2025, 12, 31, 23, 59, 30),
        utc(2099, 12, 31, 23, 59),
        utc(2096, 2, 29, 12),
    ]
)
fields_of_items = st.fixed_dictionaries(
    {},
    optional={
        "minute": st.sets(st.integers(0, 59), max_size=4),
        "hour": st.sets(st.integers(0, 23), max_size=3),
        # Some of them are in every month, so that no combination is impossible.
        "dayOfMonth": st.sets(st.integers(1, 31), max_size=4).map(lambda days: days and days | {9}),
        "month": st.sets(st.integers(1, 12), max_size=3),
        "dayOfWeek": st.sets(st.integers(0, 6), max_size=3),
    },
)


@settings(max_examples=300, deadline=None, database=None)
@given(fields=fields_of_items, stored=moments, poll=moments)
def test_call_times_are_those_of_a_plain_search(
    fields: dict[str, set[int]], stored: datetime, poll: datetime
) -> None:
    cron, expected = item(**fields), plain_calls(fields, stored, poll)
    for _ in range(3):
        poll = next_call_time(cron, stored, poll)
        assert poll == next(expected)
        stored = poll


@settings(max_examples=200, deadline=None, database=None)
@given(
    fields=fields_of_items,
    start=moments,
    waits=st.lists(st.timedeltas(timedelta(), timedelta(days=400)), max_size=8),
)
def test_late_polls_skip_calls_and_shift_none(
    fields: dict[str, set[int]], start: datetime, waits: list[timedelta]
) -> None:
    cron = item(**fields)
    stored, poll = next_call_time(cron, start, start), start
    for wait in waits:
        poll = max(poll, stored) + wait
        # Whoever has polled in time all the while counts the same.
        assert next_call_time(cron, stored, poll) == next_call_time(cron, start, poll)
        stored = next_call_time(cron, stored, poll)


@settings(max_examples=200, deadline=None, database=None)
@given(fields=fields_of_items, poll=moments)
def test_each_call_time_is_where_its_period_begins(
    fields: dict[str, set[int]], poll: datetime
) -> None:
    found = next_call_time(item(**fields), None, poll)
    assert found > poll
    assert adjustCallTime(item(**fields), found) == found


def test_29_february_is_found_from_any_year() -> None:
    leap_day = item(month=[2], dayOfMonth=[29])
    draw = random.Random(29)
    for year in range(1971, 2120):
        poll = utc(year, 1, 1) + timedelta(seconds=draw.randrange(366 * 86_400))
        expected = next(
            day
            for later in range(year, year + 9)
            if later % 4 == 0 and later != 2100
            if (day := utc(later, 2, 29)) > poll
        )
        assert next_call_time(leap_day, poll, poll) == expected


def test_a_rare_day_is_called_once() -> None:
    fields = {"dayOfMonth": [31], "month": [1, 2, 3, 4]}
    found = calls(fields, utc(2023, 1, 30, 12), 6)
    assert [(time.year, time.month, time.day) for time in found] == [
        (year, month, 31) for year in (2023, 2024, 2025) for month in (1, 3)
    ]
    assert all(later - earlier > timedelta(days=50) for earlier, later in pairwise(found))


# -- the start of a period --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, utc(2024, 2, 27, 21, 45, 0, 250)),
        ({"minute": [3]}, utc(2024, 2, 27, 21, 45, 0, 250)),
        ({"minute": [3], "hour": [7], "month": [5]}, utc(2024, 2, 27, 21, 45, 0, 250)),
        ({"hour": [3]}, utc(2024, 2, 27, 21, 0, 0, 250)),
        ({"hour": [3], "dayOfMonth": [7]}, utc(2024, 2, 27, 21, 0, 0, 250)),
        ({"dayOfMonth": [3]}, utc(2024, 2, 27, 0, 0, 0, 250)),
        ({"dayOfMonth": [3], "month": [7], "dayOfWeek": [1]}, utc(2024, 2, 27, 0, 0, 0, 250)),
        ({"dayOfWeek": [3]}, START),
        ({"dayOfWeek": [3], "month": [7]}, START),
        ({"month": [3]}, utc(2024, 2, 1, 21, 45, 30, 250)),
    ],
)
def test_the_finest_field_tells_where_the_period_of_a_call_time_begins(
    fields: dict[str, Any], expected: datetime
) -> None:
    assert adjustCallTime(item(**fields), START) == expected


# -- delays -----------------------------------------------------------------------------------


def test_a_delay_counts_from_when_it_is_asked() -> None:
    assert next_delay_time(10, utc(1970, 1, 1, 0, 0, 40)) == utc(1970, 1, 1, 0, 0, 50)
    assert next_delay_time(0.25, START) == START + timedelta(milliseconds=250)


def test_the_shortest_delay_is_later_still() -> None:
    assert next_delay_time(checked_delay(1e-6), START) == START + MICROSECOND


@pytest.mark.parametrize("delay", [1, 10, 86_400 * 365, 0.5, 1e-6])
def test_a_delay_is_kept_as_it_is_given(delay: float) -> None:
    assert checked_delay(delay) == delay
    assert type(checked_delay(delay)) is type(delay)


def test_another_number_makes_a_plain_delay() -> None:
    assert type(checked_delay(Fraction(5, 2))) is float  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "delay",
    [
        0,
        0.0,
        -1,
        -0.5,
        1e-7,
        MAX_WAIT_SECONDS + 1,
        1e300,
        10**400,
        math.nan,
        math.inf,
        -math.inf,
        True,
        "10",
        "",
        None,
        [],
    ],
    ids=lambda delay: repr(delay)[:10],
)
def test_a_delay_is_a_positive_number_of_seconds(delay: Any) -> None:
    with pytest.raises(InvalidArgument, match="delay must be seconds, from a microsecond to"):
        checked_delay(delay)


def test_a_delay_does_not_lead_past_all_years() -> None:
    with pytest.raises(InvalidArgument, match="leads past the year 9999"):
        next_delay_time(checked_delay(MAX_WAIT_SECONDS), utc(9899, 12, 31, 23))


# -- what is given ----------------------------------------------------------------------------


def test_fields_are_kept_as_sorted_lists_without_doubles() -> None:
    found = checked_fields(
        minute=(30, 0, 30), hour={23, 1}, dayOfMonth=[31, 1], month=frozenset({12}), dayOfWeek=()
    )
    assert found == {
        "minute": [0, 30],
        "hour": [1, 23],
        "dayOfMonth": [1, 31],
        "month": [12],
        "dayOfWeek": [],
    }
    assert {type(values) for values in found.values()} == {list}


def test_the_lists_are_not_shared_between_items() -> None:
    checked_fields(minute=[5])["minute"].append(6)
    assert checked_fields(minute=[5])["minute"] == [5]


FULL = {
    "minute": range(60),
    "hour": range(24),
    "dayOfMonth": range(1, 32),
    "month": range(1, 13),
    "dayOfWeek": range(7),
}


@pytest.mark.parametrize("name", FULL)
def test_a_field_takes_all_its_numbers_and_no_more(name: str) -> None:
    numbers = FULL[name]
    assert checked_fields(**{name: numbers})[name] == [*numbers]
    for other in (numbers[0] - 1, numbers[-1] + 1):
        with pytest.raises(InvalidSchedule, match=f"{name}={other}: must be "):
            checked_fields(**{name: [other]})


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize(
    "value",
    [
        5,
        None,
        "",
        "5",
        b"",
        b"\x05",
        bytearray(b"\x05"),
        {},
        {5: 5},
        [True],
        [None],
        [""],
        ["5"],
        [5.0],
        [math.nan],
        [math.inf],
        [10**5000],
        [-(10**30)],
        [[5]],
    ],
    ids=lambda value: shown(value)[:12],
)
def test_a_field_that_is_no_collection_of_whole_numbers_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidSchedule, match=f"{name}="):
        checked_fields(**{name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"month": [2], "dayOfMonth": [30, 31]},
        {"month": [4, 6, 9, 11], "dayOfMonth": [31]},
        {"month": [2], "dayOfMonth": [30], "dayOfWeek": [0]},
    ],
)
def test_fields_that_no_day_ever_fits_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchedule, match="there is no such day"):
        checked_fields(**fields)


def test_fields_that_were_changed_into_nonsense_are_refused_when_they_are_counted() -> None:
    broken = SimpleNamespace(**{**checked_fields(), "hour": [25]})
    with pytest.raises(InvalidSchedule, match="hour=25"):
        next_call_time(broken, None, START)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (START.replace(tzinfo=None), "must have a time zone"),
        (START.date(), "must be a datetime"),
        (START.timestamp(), "must be a datetime"),
        ("2024-02-27", "must be a datetime"),
        (utc(1, 12, 31), "must lie within the years 2 to 9899"),
        (utc(9900, 1, 1), "must lie within the years 2 to 9899"),
        (datetime.max.replace(tzinfo=timezone.utc), "must lie within the years 2 to 9899"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))), "must lie within the years"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), "must lie within the years"),
    ],
)
def test_a_time_must_be_aware_and_within_reach(time: Any, words: str) -> None:
    fields = item(dayOfWeek=[0])
    with pytest.raises(InvalidArgument, match=f"^callTime {words}"):
        next_call_time(fields, START, time)
    with pytest.raises(InvalidArgument, match=f"^callTime {words}"):
        next_delay_time(1, time)
    with pytest.raises(InvalidArgument, match=f"^callTime {words}"):
        adjustCallTime(fields, time)
    with pytest.raises(InvalidArgument, match=f"^nextCallTime {words}"):
        next_call_time(fields, time, START)


def test_the_last_times_within_reach_have_a_call_after_them() -> None:
    last = utc(9899, 12, 31, 23, 59, 59, 999_999)
    assert next_call_time(item(month=[1]), last, last) == utc(9900, 1, 1, 23, 59, 59, 999_999)
    leap_monday = item(month=[2], dayOfMonth=[29], dayOfWeek=[0])
    assert next_call_time(leap_monday, None, last).year < 9950


class MyTime(datetime):
    """A datetime that is to be stored nowhere."""


def test_what_is_returned_is_an_exact_datetime() -> None:
    mine = MyTime(2024, 2, 27, 21, 45, tzinfo=timezone.utc)
    fields = item(dayOfWeek=[3])
    for found in (
        next_call_time(fields, mine, mine),
        adjustCallTime(fields, mine),
        next_delay_time(5, mine),
    ):
        assert type(found) is datetime
