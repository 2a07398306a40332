# SPDX-License-Identifier: ZPL-2.1
"""Schedules, against examples, and against references that are slow and plain."""

from __future__ import annotations

import math
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from itertools import count, pairwise, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterError, croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from lovely.remotetask.errors import InvalidArgument, InvalidSchedule
from lovely.remotetask.schedule import Schedule, make_schedule, zone_named

MINUTE, HOUR, DAY = 60, 3600, 86400

Fields = Mapping[str, Collection[int]]
IsMatch = Callable[[datetime], bool]


def instant(*wall: int, zone: str = "UTC", fold: int = 0) -> float:
    return datetime(*wall, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[misc,arg-type]


def slots(schedule: Schedule, after: float, number: int) -> list[float]:
    found = []
    for _ in range(number):
        after = schedule.next_time(after)
        found.append(after)
    return found


# -- the examples of the first lovely.remotetask --------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "after", "expected"),
    [
        ({"minute": (0, 10)}, 0, (1970, 1, 1, 0, 10)),
        ({"minute": (0, 10)}, 600, (1970, 1, 1, 1, 0)),
        ({"hour": (2, 13)}, 0, (1970, 1, 1, 2, 0)),
        ({"hour": (2, 13)}, 2 * HOUR, (1970, 1, 1, 13, 0)),
        ({"month": (1, 5, 12)}, 0, (1970, 5, 1, 0, 0)),
        ({"month": (1, 5, 12)}, 120 * DAY, (1970, 12, 1, 0, 0)),
        ({"dayOfWeek": (0, 2, 4, 5)}, 0, (1970, 1, 2, 0, 0)),
        ({"dayOfWeek": (0, 2, 4, 5)}, DAY, (1970, 1, 3, 0, 0)),
        ({"dayOfWeek": (0, 2, 4, 5)}, 2 * DAY, (1970, 1, 5, 0, 0)),
        ({"dayOfWeek": (0, 2, 4, 5)}, 4 * DAY, (1970, 1, 7, 0, 0)),
        ({"dayOfMonth": (1, 12, 21, 30)}, 0, (1970, 1, 12, 0, 0)),
        ({"dayOfMonth": (1, 12, 21, 30)}, 12 * DAY, (1970, 1, 21, 0, 0)),
        ({"minute": (10,), "dayOfMonth": (1, 12, 21, 30)}, 0, (1970, 1, 1, 0, 10)),
        ({"minute": (10,), "dayOfMonth": (1, 12, 21, 30)}, 600, (1970, 1, 1, 1, 10)),
        ({"minute": (10,), "hour": (4,), "dayOfMonth": (1, 12)}, 0, (1970, 1, 1, 4, 10)),
        ({"minute": (10,), "hour": (4,), "dayOfMonth": (1, 12)}, 15000, (1970, 1, 12, 4, 10)),
    ],
)
def test_the_examples_of_the_first_release_hold(
    fields: Fields, after: float, expected: tuple[int, ...]
) -> None:
    assert time.gmtime(make_schedule(**fields).next_time(after))[:5] == expected


# -- which wall times match -----------------------------------------------------------------------


def test_without_any_field_every_minute_is_a_slot() -> None:
    assert slots(make_schedule(), 0, 3) == [60, 120, 180]


def test_finer_fields_stand_at_their_first_value_and_coarser_ones_are_free() -> None:
    assert slots(make_schedule(hour=(3,)), 0, 2) == [3 * HOUR, DAY + 3 * HOUR]
    assert slots(make_schedule(dayOfMonth=(1,)), 0, 2) == [31 * DAY, 59 * DAY]
    assert slots(make_schedule(month=(5,)), 0, 2) == [instant(1970, 5, 1), instant(1971, 5, 1)]
    assert slots(make_schedule(dayOfWeek=(0,)), 0, 2) == [4 * DAY, 11 * DAY]
    assert slots(make_schedule(month=(2,), dayOfWeek=(0,)), 0, 1) == [instant(1970, 2, 2)]


def test_day_of_month_and_day_of_week_must_both_match() -> None:
    friday_13th = make_schedule(dayOfMonth=(13,), dayOfWeek=(4,))
    assert slots(friday_13th, instant(2026, 1, 1), 2) == [
        instant(2026, 2, 13),
        instant(2026, 3, 13),
    ]


def test_one_day_field_of_a_cron_expression_is_enough() -> None:
    friday_or_13th = make_schedule(cron="0 0 13 * 5")
    assert slots(friday_or_13th, instant(2026, 1, 8), 3) == [
        instant(2026, 1, 9),
        instant(2026, 1, 13),
        instant(2026, 1, 16),
    ]


def test_29_february_comes_in_leap_years_and_on_a_monday_too() -> None:
    leap_day = make_schedule(dayOfMonth=(29,), month=(2,))
    monday = make_schedule(dayOfMonth=(29,), month=(2,), dayOfWeek=(0,))
    assert leap_day.next_time(instant(2026, 1, 1)) == instant(2028, 2, 29)
    assert leap_day.next_time(instant(2097, 1, 1)) == instant(2104, 2, 29)
    assert monday.next_time(instant(2026, 1, 1)) == instant(2044, 2, 29)


@pytest.mark.parametrize("weekday", range(7))
@pytest.mark.parametrize("year", [1895, 2026, 2090, 9890])
def test_a_rare_day_is_found_however_far_away(weekday: int, year: int) -> None:
    day = date(year, 1, 2)
    while (day.month, day.day, day.weekday()) != (2, 29, weekday):
        day += timedelta(days=1)
    schedule = make_schedule(dayOfMonth=(29,), month=(2,), dayOfWeek=(weekday,))
    assert schedule.next_time(instant(year, 1, 1)) == instant(*day.timetuple()[:3])


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 L * *", [(1, 31), (2, 28), (3, 31), (4, 30)]),
        ("0 0 L,15 2 *", [(2, 15), (2, 28)]),
        ("0 0 * * 1#2", [(1, 12), (2, 9), (3, 9)]),
        ("0 0 * * 3#1", [(1, 7), (2, 4), (3, 4)]),
        ("0 0 * * 3#2", [(1, 14), (2, 11), (3, 11)]),
        ("0 0 * * 4#5", [(1, 29), (4, 30), (7, 30)]),
        ("0 0 * * L5", [(1, 30), (2, 27), (3, 27)]),
        ("0 0 * * L6", [(1, 31), (2, 28), (3, 28)]),
        ("0 0 * * L7", [(1, 25), (2, 22), (3, 29)]),
        ("0 0 * * 1#1,5#2", [(1, 5), (1, 9), (2, 2), (2, 13)]),
        ("0 0 20 * 1#1", [(1, 5), (1, 20), (2, 2), (2, 20)]),
        ("0 0 31 2 1", [(2, 2), (2, 9), (2, 16), (2, 23)]),
        ("0 0 1 * 5#2", [(1, 9), (2, 1), (2, 13), (3, 1)]),
        ("0 0 * * 5L", [(1, 30), (2, 27), (3, 27)]),
        ("0 0 * * 7L", [(1, 25), (2, 22), (3, 29)]),
        ("0 0 * * friL", [(1, 30), (2, 27), (3, 27)]),
        ("0 0 * * LFri", [(1, 30), (2, 27), (3, 27)]),
        ("0 0 * * 5L,1#1", [(1, 5), (1, 30), (2, 2), (2, 27)]),
        ("0 0 20 * 5L", [(1, 20), (1, 30), (2, 20), (2, 27)]),
        ("0 0 * * mon-sun#1", [*((1, n) for n in range(2, 8)), (2, 1)]),
        ("0 0 * * 5-7#2", [(1, 9), (1, 10), (1, 11), (2, 8)]),
        ("0 0 */10 * 1", [(5, 11), (6, 1), (8, 31), (9, 21)]),
        ("0 0 13 * */4", [(8, 13), (9, 13), (12, 13)]),
        ("0 0 1-31 3 1", [(3, 1), (3, 2), (3, 3)]),
        ("0 0 5,* 3 1", [(3, 1), (3, 2), (3, 3)]),
        ("0 0 1,*/30 * 6", [(1, 3), (1, 10), (1, 17), (1, 24), (1, 31)]),
        ("0 0 31-L 3 *", [(3, 31)]),
        ("0 0 28-3/2 * *", [(1, 3), (1, 28), (1, 30), (2, 1)]),
        ("0 0 ? 2 7", [(2, 1), (2, 8), (2, 15), (2, 22)]),
        ("0 0 * feb Sun", [(2, 1), (2, 8), (2, 15), (2, 22)]),
        ("0 0 * * fri-mon", [(1, 2), (1, 3), (1, 4), (1, 5), (1, 9)]),
        ("0 0 5-5 * *", [(1, 5), (2, 5)]),
        ("0 0 5-5/2,7 * *", [(1, 5), (1, 7), (2, 5)]),
        ("0 0 */10 * *", [(1, 11), (1, 21), (1, 31), (2, 1)]),
        ("0 0 *,7 3 *", [(3, 1), (3, 2), (3, 3)]),
        ("@weekly", [(1, 4), (1, 11)]),
        ("@monthly", [(2, 1), (3, 1)]),
        ("@Daily", [(1, 2), (1, 3)]),
    ],
)
def test_days_of_a_cron_expression(cron: str, days: list[tuple[int, int]]) -> None:
    expected = [instant(2026, *day) for day in days]
    assert slots(make_schedule(cron=cron), instant(2026, 1, 1), len(days)) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 23-3/2 * * *", "0 23,1,3 * * *"),
        ("0 22-2/3 * * *", "0 22,1 * * *"),
        ("0 20-5/5 * * *", "0 20,1 * * *"),
        ("20-5/5 * * * *", "20,25,30,35,40,45,50,55,0,5 * * * *"),
        ("59-0/7 * * * *", "59 * * * *"),
        ("0 0 20-5/5 * *", "0 0 20,25,30,4 * *"),
        ("0 0 1 9-8/3 *", "0 0 1 9,12,3,6 *"),
        ("0 0 1 nov-feb/3 *", "0 0 1 11,2 *"),
        ("0 0 1 Apr-Jan/4 *", "0 0 1 4,8,12 *"),
        ("0 0 * * sat-tue/2", "0 0 * * 6,1"),
        ("0 0 * * 6-2/2", "0 0 * * 6,1"),
        ("0 0 * * 5-7/2", "0 0 * * 5,7"),
        ("0 0 * * 1-7/3", "0 0 * * 1,4,0"),
        ("0 0 * * 0-7/2", "0 0 * * 0,2,4,6"),
        ("0 0 * * 7-1/2", "0 0 * * 0"),
        ("0 0 * * 7-0", "0 0 * * 0"),
        ("0 0 * * 0-7", "0 0 * * *"),
        ("0 08-09 * * *", "0 8,9 * * *"),
        ("0 22-22/3,23-1/2 * * *", "0 22,23,1 * * *"),
    ],
)
def test_a_step_counts_on_where_its_range_wraps(cron: str, expected: str) -> None:
    start = instant(2026, 1, 1)
    assert slots(make_schedule(cron=cron), start, 60) == slots(
        make_schedule(cron=expected), start, 60
    )


@pytest.mark.parametrize(
    ("alias", "cron"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_an_alias_means_its_expression_in_the_autumn_night_too(alias: str, cron: str) -> None:
    after = instant(2026, 10, 24, 20, zone="Europe/Berlin")
    short, long = (make_schedule(cron=text, timezone="Europe/Berlin") for text in (alias, cron))
    assert slots(short, after, 10) == slots(long, after, 10)


def test_the_slot_is_later_than_any_fraction_of_a_second() -> None:
    schedule = make_schedule(minute=(0,))
    assert schedule.next_time(HOUR - 1e-6) == HOUR
    assert schedule.next_time(float(HOUR)) == 2 * HOUR
    assert schedule.next_time(HOUR + 1e-6) == 2 * HOUR
    assert schedule.next_time(math.nextafter(1.8e9, 0)) == 1.8e9


def test_times_before_1970_are_times_like_others() -> None:
    assert make_schedule().next_time(-0.5) == 0
    assert make_schedule(hour=(3,)).next_time(-DAY) == -21 * HOUR
    assert make_schedule(hour=(3,)).next_time(-21 * HOUR) == 3 * HOUR
    assert make_schedule(month=(1,)).next_time(instant(1899, 6, 1) - 0.25) == instant(1900, 1, 1)


@pytest.mark.parametrize("after", [math.nan, math.inf, -math.inf, 1e18, -1e18])
def test_a_time_outside_the_calendar_is_refused(after: float) -> None:
    with pytest.raises(InvalidArgument, match="after"):
        make_schedule().next_time(after)


# -- when the clock is changed --------------------------------------------------------------------


def test_a_fixed_time_that_comes_twice_runs_at_its_first_occurrence_only() -> None:
    schedule = make_schedule(hour=(2,), minute=(30,), timezone="Europe/Berlin")
    first = instant(2026, 10, 25, 2, 30, zone="Europe/Berlin")
    next_day = instant(2026, 10, 26, 2, 30, zone="Europe/Berlin")
    assert slots(schedule, first - DAY, 2) == [first, next_day]
    for after in (first, first + 10 * MINUTE, first + HOUR - 1, first + HOUR, first + 2 * HOUR):
        assert schedule.next_time(after) == next_day


def test_a_fixed_time_in_the_gap_runs_where_the_gap_ends() -> None:
    schedule = make_schedule(hour=(2,), minute=(30,), timezone="Europe/Berlin")
    end = instant(2026, 3, 29, 3, zone="Europe/Berlin")
    assert slots(schedule, end - HOUR, 2) == [
        end,
        instant(2026, 3, 30, 2, 30, zone="Europe/Berlin"),
    ]


def test_times_in_the_gap_and_the_one_at_its_end_are_one_slot() -> None:
    schedule = make_schedule(hour=(2, 3), minute=(0, 15), timezone="Europe/Berlin")
    end = instant(2026, 3, 29, 3, zone="Europe/Berlin")
    assert slots(schedule, end - HOUR, 2) == [end, end + 15 * MINUTE]


@pytest.mark.parametrize("fields", [{"minute": (0,)}, {"cron": "0 * * * *"}])
def test_an_hourly_schedule_runs_through_both_nights(fields: dict[str, object]) -> None:
    schedule = make_schedule(timezone="Europe/Berlin", **fields)  # type: ignore[arg-type]
    for start in (instant(2026, 3, 28, 12), instant(2026, 10, 24, 12)):
        assert slots(schedule, start, 24) == [start + n * HOUR for n in range(1, 25)]


def test_a_starred_hour_runs_in_both_passes_and_never_in_the_gap() -> None:
    schedule = make_schedule(cron="30 */2 * * *", timezone="Europe/Berlin")
    autumn = instant(2026, 10, 25, 2, 30, zone="Europe/Berlin")
    assert slots(schedule, autumn - MINUTE, 3) == [autumn, autumn + HOUR, autumn + 3 * HOUR]
    spring = instant(2026, 3, 29, 0, 30, zone="Europe/Berlin")
    assert slots(schedule, spring - MINUTE, 2) == [spring, spring + 3 * HOUR]


@pytest.mark.parametrize("cron", ["*/10 0-6 * * *", "* 0-6 * * *", "*,30 0-6 * * *"])
def test_a_starred_minute_runs_through_both_nights(cron: str) -> None:
    schedule = make_schedule(cron=cron, timezone="Europe/Berlin")
    a_day = schedule.count_between(instant(2026, 6, 1), instant(2026, 6, 2), 9999)
    for day, hours in ((date(2026, 10, 25), 1), (date(2026, 3, 29), -1)):
        start = instant(*day.timetuple()[:3], zone="Europe/Berlin") - 1
        assert schedule.count_between(start, start + 12 * HOUR, 9999) * 7 == a_day * (7 + hours)


def test_all_hours_spelled_out_are_fixed_times() -> None:
    autumn = instant(2026, 10, 25, zone="Europe/Berlin") - 1
    for fields in ({"cron": "0 0-23 * * *"}, {"hour": range(24)}):
        schedule = make_schedule(timezone="Europe/Berlin", **fields)  # type: ignore[arg-type]
        assert schedule.count_between(autumn, autumn + 25 * HOUR, 99) == 24


@pytest.mark.parametrize("days", [{"dayOfMonth": (30,)}, {"dayOfWeek": (4,)}])
def test_a_day_that_a_country_leaves_out_runs_where_the_next_one_begins(days: Fields) -> None:
    schedule = make_schedule(**days, timezone="Pacific/Apia")
    next_day = instant(2011, 12, 31, zone="Pacific/Apia")
    assert schedule.next_time(next_day - HOUR) == next_day


def test_a_day_that_comes_twice_is_run_through_twice() -> None:
    # At the end of the month Kwajalein went from one side of the date line to the other:
    # 23 hours of its 30th of September were repeated.
    schedule = make_schedule(cron="30 */8 * * *", timezone="Pacific/Kwajalein")
    start = instant(1969, 9, 30, zone="Pacific/Kwajalein")
    expected = [0.5, 8.5, 16.5, 23 + 8.5, 23 + 16.5, 23 + 24.5]
    assert slots(schedule, start, 6) == [start + hours * HOUR for hours in expected]


def test_an_odd_offset_does_not_shift_the_wall_clock() -> None:
    # Until 1972 the clocks of Liberia were 44 minutes and 30 seconds behind UTC.
    schedule = make_schedule(minute=(0,), timezone="Africa/Monrovia")
    assert schedule.next_time(0) == 44 * MINUTE + 30
    gap = instant(1972, 1, 7, zone="Africa/Monrovia")
    daily = make_schedule(hour=(0,), timezone="Africa/Monrovia")
    assert daily.next_time(gap - HOUR) == instant(1972, 1, 7, 0, 44, 30)


# -- against a reference that asks every minute ---------------------------------------------------

#: Days on which, or next to which, the clock is changed, except for the first.
NIGHTS = [
    ("UTC", date(2026, 6, 15)),
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 4)),  # by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 3)),
    ("Antarctica/Troll", date(2026, 3, 29)),  # by two hours
    ("Antarctica/Troll", date(2026, 10, 25)),
    ("Africa/Cairo", date(2026, 4, 23)),  # at midnight
    ("Africa/Cairo", date(2026, 10, 29)),
    ("America/Havana", date(2026, 3, 8)),
    ("America/Havana", date(2026, 11, 1)),
    ("Asia/Beirut", date(2026, 3, 28)),
    ("Asia/Beirut", date(2026, 10, 24)),
    ("America/Sao_Paulo", date(2017, 10, 15)),
    ("America/Sao_Paulo", date(2018, 2, 18)),
    ("Europe/Dublin", date(2026, 10, 25)),  # winter is what is saved there
    ("Pacific/Apia", date(2011, 12, 30)),  # a day left out
    ("Pacific/Kwajalein", date(1969, 9, 30)),  # a day that comes twice, but for an hour
]


class Window:
    """Three days of a zone, asked minute by minute which of them are slots."""

    def __init__(self, zone: str, day: date) -> None:
        self.zone = zone
        self.day = day
        self.start = int(instant(*day.timetuple()[:3])) - DAY
        self.end = self.start + 3 * DAY
        moments = range(self.start - MINUTE, self.end, MINUTE)
        clock = [datetime.fromtimestamp(moment, ZoneInfo(zone)) for moment in moments]
        self.minutes = [
            (moment, now.replace(tzinfo=None), now.fold == 1, self.left_out(before, now))
            for moment, (before, now) in zip(moments[1:], pairwise(clock), strict=True)
        ]

    @staticmethod
    def left_out(before: datetime, now: datetime) -> list[datetime]:
        wall, end = before.replace(tzinfo=None), now.replace(tzinfo=None)
        return [wall + timedelta(minutes=n) for n in range(1, (end - wall) // timedelta(minutes=1))]

    def slots(self, is_match: IsMatch, is_fixed: bool) -> list[int]:
        if not is_fixed:
            return [moment for moment, wall, _, _ in self.minutes if is_match(wall)]
        return [
            moment
            for moment, wall, is_second_pass, left_out in self.minutes
            if (is_match(wall) and not is_second_pass) or any(map(is_match, left_out))
        ]


@lru_cache
def window_of(zone: str, day: date) -> Window:
    return Window(zone, day)


def is_match_of_sets(fields: Fields) -> tuple[IsMatch, bool]:
    """Return the rule of the sets, and whether it is fixed, in the words of the contract."""
    minutes, hours, days, months, weekdays = (
        frozenset(fields.get(name, ()))
        for name in ("minute", "hour", "dayOfMonth", "month", "dayOfWeek")
    )
    day_is_finest = bool((days or weekdays) and not hours and not minutes)
    month_is_finest = bool(months and not days and not weekdays and not hours and not minutes)

    def is_match(wall: datetime) -> bool:
        return (
            (not minutes or wall.minute in minutes)
            and (not hours or wall.hour in hours)
            and (not days or wall.day in days)
            and (not months or wall.month in months)
            and (not weekdays or wall.weekday() in weekdays)
            and (wall.minute == 0 or bool(minutes) or not (hours or days or months or weekdays))
            and (wall.hour == 0 or not (day_is_finest or month_is_finest))
            and (wall.day == 1 or not month_is_finest)
        )

    return is_match, bool(hours) or day_is_finest or month_is_finest


def check(schedule: Schedule, expected: list[int], window: Window, afters: list[float]) -> None:
    for after in afters:
        index = bisect_right(expected, after)
        slot = schedule.next_time(after)
        if index < len(expected):
            assert slot == expected[index], (schedule, after)
        else:
            assert slot >= window.end, (schedule, after)
        until = min(after + 5 * HOUR, window.end - 1)
        count = bisect_right(expected, until) - index
        assert schedule.count_between(after, until, 7) == min(max(count, 0), 7), (schedule, after)


def afters_in(window: Window, expected: list[int], chance: random.Random) -> list[float]:
    near = chance.sample(expected, min(4, len(expected)))
    afters = [
        *(chance.uniform(window.start, window.end) for _ in range(8)),
        *(slot + difference for slot in near for difference in (-HOUR, -0.5, 0, 0.5, HOUR)),
    ]
    return [max(after, window.start) for after in afters]


def random_sets(chance: random.Random, day: date) -> dict[str, list[int]]:
    """Return sets that are likely to match about this day, and about midnight."""

    def some(choices: list[list[int]], allowed: range) -> list[int]:
        if chance.random() < 0.2:
            return chance.sample(allowed, chance.randint(1, len(allowed)))
        return chance.choice([[], *choices])

    around = [day + timedelta(days=n) for n in (-1, 0, 1)]
    some_hours = chance.sample([0, 1, 2, 3, 22, 23], 2)
    return {
        "minute": some([[0], [30], [0, 15, 30, 45], list(range(60)), [59]], range(60)),
        "hour": some([[0], [1], [2], [23], some_hours, list(range(24))], range(24)),
        "dayOfMonth": some([[], [n.day for n in around], [day.day]], range(1, 32)),
        "month": some([[], [n.month for n in around]], range(1, 13)),
        "dayOfWeek": some([[], [n.weekday() for n in around], [day.weekday()]], range(7)),
    }


def is_possible(days: Collection[int], months: Collection[int]) -> bool:
    return not days or any(
        min(days) <= (29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31)
        for month in months or range(1, 13)
    )


@pytest.mark.parametrize(("zone", "day"), NIGHTS[1:])
def test_the_clock_is_changed_in_the_windows_of_these_tests(zone: str, day: date) -> None:
    window = window_of(zone, day)
    offsets = {
        moment - wall.replace(tzinfo=timezone.utc).timestamp()
        for moment, wall, _, _ in window.minutes
    }
    assert len(offsets) == 2


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_sets_match_what_the_reference_finds(zone: str, day: date) -> None:
    chance = random.Random(f"{zone} {day}")
    window = window_of(zone, day)
    for _ in range(60):
        sets = random_sets(chance, day)
        if not is_possible(sets["dayOfMonth"], sets["month"]):
            continue
        expected = window.slots(*is_match_of_sets(sets))
        schedule = make_schedule(**sets, timezone=zone)
        check(schedule, expected, window, afters_in(window, expected, chance))


@settings(max_examples=300, deadline=None, database=None)
@given(
    night=st.sampled_from(NIGHTS),
    sets=st.fixed_dictionaries(
        {},
        optional={
            "minute": st.sets(st.integers(0, 59), max_size=4),
            "hour": st.sets(st.integers(0, 23) | st.sampled_from([0, 1, 2, 3, 23]), max_size=4),
            "dayOfMonth": st.sets(st.integers(1, 31), max_size=20),
            "month": st.sets(st.integers(1, 12), max_size=8),
            "dayOfWeek": st.sets(st.integers(0, 6), max_size=5),
        },
    ),
    parts=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=10),
)
def test_any_sets_at_any_time_match_what_the_reference_finds(
    night: tuple[str, date], sets: Fields, parts: list[float]
) -> None:
    if not is_possible(sets.get("dayOfMonth", ()), sets.get("month", ())):
        with pytest.raises(InvalidSchedule):
            make_schedule(**sets)
        return
    window = window_of(*night)
    expected = window.slots(*is_match_of_sets(sets))
    afters = [window.start + part * 3 * DAY for part in parts]
    check(make_schedule(**sets, timezone=window.zone), expected, window, afters)


CRON_RANGES = (range(60), range(24), range(1, 32), range(1, 13), range(7))


def walk(allowed: range, start: int, end: int, step: int) -> set[int]:
    """Return each `step`-th of the values from `start` on to `end`, past the highest one too."""
    ring = [*allowed, *allowed]
    first = ring.index(start)
    return set(ring[first : ring.index(end, first) + 1 : step])


def random_cron_field(
    chance: random.Random, allowed: range, is_for_croniter: bool
) -> tuple[str, set[int]]:
    """Return a field, and what it stands for.

    :param is_for_croniter: the field is one that croniter reads as crontab(5) does.
    """
    low, high = allowed[0], allowed[-1]
    start, end = sorted(chance.sample(allowed, 2))
    step = chance.randint(2, high - 1)
    single = chance.randint(low, high)
    fields = [
        ("*", set(allowed)),
        ("*", set(allowed)),
        (f"*/{step}", set(allowed[::step])),
        (f"*/{step},{single}", {single, *allowed[::step]}),
        (f"{single}", {single}),
        (f"{single},{end}", {single, end}),
        (f"{start}/{step}", walk(allowed, start, high, step)),
    ]
    if (start, end) != (low, high):
        fields += [
            (f"{start}-{end}", walk(allowed, start, end, 1)),
            (f"{start}-{end}/{step},{single}", {single, *walk(allowed, start, end, step)}),
        ]
    if not is_for_croniter:
        fields += [
            (f"{low}-{high}", set(allowed)),
            (f"{single},*", set(allowed)),
            (f"{end}-{start}", walk(allowed, end, start, 1)),
            (f"{end}-{start}/{step}", walk(allowed, end, start, step)),
            (f"{single}-{single}/{step},{end}-{start}/2", {single, *walk(allowed, end, start, 2)}),
        ]
    return chance.choice(fields)


def random_cron(chance: random.Random, is_for_croniter: bool = False) -> tuple[str, IsMatch, bool]:
    """Return an expression that can come true, its rule, and whether it is fixed."""
    fields = [random_cron_field(chance, allowed, is_for_croniter) for allowed in CRON_RANGES]
    texts = [text for text, _ in fields]
    minutes, hours, days, months, weekdays = (values for _, values in fields)
    minute_is_free, hour_is_free, day_is_free, _, weekday_is_free = (
        text.startswith("*") for text in texts
    )
    both_must_match = day_is_free or weekday_is_free
    if both_must_match and not is_possible(days, months):
        return random_cron(chance, is_for_croniter)

    def is_match(wall: datetime) -> bool:
        is_day = wall.day in days
        is_weekday = (wall.weekday() + 1) % 7 in weekdays
        return (
            wall.minute in minutes
            and wall.hour in hours
            and wall.month in months
            and (is_day and is_weekday if both_must_match else is_day or is_weekday)
        )

    return " ".join(texts), is_match, not (minute_is_free or hour_is_free)


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_cron_expressions_match_what_the_reference_finds(zone: str, day: date) -> None:
    chance = random.Random(f"cron {zone} {day}")
    window = window_of(zone, day)
    for _ in range(30):
        cron, is_match, is_fixed = random_cron(chance)
        expected = window.slots(is_match, is_fixed)
        schedule = make_schedule(cron=cron, timezone=zone)
        check(schedule, expected, window, afters_in(window, expected, chance))


@pytest.mark.parametrize("day_or", [True, False])
def test_in_utc_croniter_finds_the_same_however_far_away(day_or: bool) -> None:
    chance = random.Random(f"croniter {day_or}")
    for _ in range(400):
        after = chance.uniform(-3e9, 3e9)
        cron = random_cron(chance, is_for_croniter=True)[0]
        if day_or:
            schedule = make_schedule(cron=cron)
        else:
            parts = [chance.sample(allowed, chance.randint(1, 4)) for allowed in CRON_RANGES]
            parts[2].append(28)  # in every month, so that no combination is impossible
            cron = " ".join(",".join(map(str, part)) for part in parts)
            parts[4] = [(weekday - 1) % 7 for weekday in parts[4]]
            schedule = make_schedule(*parts)
        # croniter rounds to microseconds: give it the whole minute.
        reference = croniter(cron, after // MINUTE * MINUTE, day_or=day_or, implement_cron_bug=True)
        assert schedule.next_time(after) == reference.get_next(float), (cron, after)


# -- the table of the documents -------------------------------------------------------------------

DIALECTS = Path(__file__).parents[2] / "docs" / "reference" / "cron-dialects.rst"


def rows_of_the_table() -> list[list[str]]:
    rows: list[list[str]] = []
    for line in DIALECTS.read_text("utf-8").partition("list-table::")[2].splitlines():
        if line.startswith("   * -"):
            rows.append([])
        if line.startswith(("   * -", "     -")):
            rows[-1].append(line[7:].strip())
    return rows


def slots_of_croniter(cron: str, start: datetime, until: float) -> list[float]:
    found = croniter(cron, start)
    return list(takewhile(lambda slot: slot < until, (found.get_next(float) for _ in count())))


def reading(read: Callable[[str, datetime, float], list[float]], cron: str, when: str) -> object:
    """Return how often a job runs on a day or in a month, or else its slots of some years."""
    if not when:
        start = datetime(2026, 12, 31, 23, 59, tzinfo=ZoneInfo("UTC"))
        return read(cron, start, start.timestamp() + (2 if cron[0] == "0" else 0.02) * 366 * DAY)
    day = datetime.strptime(when, "%d %B %Y" if when[0].isdigit() else "%B %Y")
    end = day + timedelta(days=1 if when[0].isdigit() else 31)
    zone = ZoneInfo("Europe/Berlin")
    start = day.replace(tzinfo=zone) - timedelta(minutes=1)
    return str(len(read(cron, start, end.replace(tzinfo=zone).timestamp())))


def test_the_table_of_dialects_has_rows() -> None:
    header, *rows = rows_of_the_table()
    assert header == ["expression", "in", "here", "crontab(5)", "Quartz", "croniter"]
    assert len(rows) > 30
    assert {len(row) for row in rows} == {6}


@pytest.mark.parametrize("row", rows_of_the_table()[1:], ids=lambda row: " ".join(row[:2]))
def test_expressions_are_read_as_the_table_of_dialects_says(row: list[str]) -> None:
    cron, when, here, crontab, quartz, other = row
    cron = cron.strip("`")

    def ours(cron: str, start: datetime, until: float) -> list[float]:
        schedule = make_schedule(cron=cron, timezone=str(start.tzinfo))
        number = schedule.count_between(start.timestamp(), until - 1, 10**6)
        return slots(schedule, start.timestamp(), number)

    for cell, read, refusal in (
        (here, ours, InvalidSchedule),
        (other, slots_of_croniter, CroniterError),
    ):
        if cell == "refused":
            with pytest.raises(refusal):
                reading(read, cron, when)
        elif cell.startswith("`"):
            assert reading(read, cron, when) == reading(ours, cell.strip("`"), when)
        elif when:
            assert reading(read, cron, when) == cell
        else:
            assert read is slots_of_croniter, "here it has to be an expression"
            assert reading(read, cron, when)
    # The others are not at hand, but what their cells say in our words must be words of ours.
    for cell in (crontab, quartz):
        if cell.startswith("`"):
            make_schedule(cron=cell.strip("`"))
    # Whatever crontab(5) reads we read alike, except in the night with a gap.
    if crontab != "refused" and when != "29 March 2026":
        assert crontab == here


# -- counting -------------------------------------------------------------------------------------


def test_the_end_of_a_count_belongs_to_it_and_its_start_does_not() -> None:
    schedule = make_schedule(minute=(0,))
    assert schedule.count_between(0, 3 * HOUR, 99) == 3
    assert schedule.count_between(-1, 3 * HOUR - 0.5, 99) == 3
    assert schedule.count_between(0, HOUR - 1, 99) == 0


def test_a_count_stops_at_its_limit() -> None:
    schedule = make_schedule()
    assert schedule.count_between(0, 1e9, 5) == 5
    assert schedule.count_between(0, 1e9, 0) == 0


def test_there_is_nothing_to_count_backwards() -> None:
    assert make_schedule().count_between(HOUR, 0, 99) == 0
    assert make_schedule().count_between(HOUR, HOUR, 99) == 0


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"minute": (60,)}, "minute=60: must be 0 to 59"),
        ({"minute": (-1,)}, "minute=-1: must be 0 to 59"),
        ({"hour": (3, 24)}, "hour=24: must be 0 to 23"),
        ({"dayOfMonth": (0,)}, "dayOfMonth=0: must be 1 to 31"),
        ({"dayOfMonth": (32,)}, "dayOfMonth=32: must be 1 to 31"),
        ({"month": (13,)}, "month=13: must be 1 to 12"),
        ({"month": (0,)}, "month=0: must be 1 to 12"),
        ({"dayOfWeek": (7,)}, "dayOfWeek=7: must be 0 to 6"),
        ({"minute": (True,)}, "minute=True: must be a whole number"),
        ({"minute": (1.0,)}, "minute=1.0: must be a whole number"),
        ({"hour": "3"}, "hour='3': must be a whole number"),
        ({"hour": 3}, "hour=3: must be a collection"),
        ({"hour": None}, "hour=None: must be a collection"),
        ({"dayOfMonth": (31,), "month": (2,)}, r"dayOfMonth=\(31,\), month=\(2,\): .*no such day"),
        ({"dayOfMonth": (30, 31), "month": (2,)}, "there is no such day"),
        ({"dayOfMonth": (31,), "month": (2, 4, 6, 9, 11)}, "there is no such day"),
        ({"dayOfMonth": (30,), "month": (2,), "dayOfWeek": (1,), "hour": (3,)}, "no such day"),
        ({"timezone": "Mars/Olympus"}, "timezone='Mars/Olympus': there is no such time zone"),
        ({"timezone": "Europe"}, "there is no such time zone"),
        ({"timezone": "../Berlin"}, "there is no such time zone"),
        ({"timezone": ""}, "timezone='': there is no such time zone"),
        *(
            ({"timezone": name}, "there is no such time zone everywhere")
            for name in ("localtime", "posixrules", "Factory", "right/UTC", "posix/UTC")
        ),
        ({"timezone": "/usr/share/zoneinfo/UTC"}, "there is no such time zone everywhere"),
        ({"timezone": "Europe/../UTC"}, "there is no such time zone everywhere"),
        ({"timezone": 2}, "timezone=2: must be a string"),
        (
            {"cron": "0 0 * * *", "hour": (3,)},
            r"cron='0 0 \* \* \*' takes the place of hour=\(3,\)",
        ),
        ({"cron": 5}, "cron=5: must be a string"),
        ({"cron": ""}, "cron='': must be five fields"),
        ({"cron": "0 0 * *"}, "must be five fields"),
        ({"cron": "0 0 * * * 0"}, "must be five fields"),
        ({"cron": "0 0 * * * 0 2030"}, "must be five fields"),
        ({"cron": "@reboot"}, "must be five fields or one of the aliases"),
        ({"cron": "60 * * * *"}, r"cron='60 \* \* \* \*': .*out of range"),
        ({"cron": "*/0 * * * *"}, "cron='"),
        ({"cron": "1-1-1 * * * *"}, "cron='"),
        ({"cron": "noon * * * *"}, "cron='"),
        ({"cron": "H * * * *"}, "H, R and W are not understood"),
        ({"cron": "0 R(1-5) * * *"}, "H, R and W are not understood"),
        ({"cron": "0 0 15W * *"}, "H, R and W are not understood"),
        ({"cron": "0 0 * * 1#2,0-6"}, "do not mix"),
        ({"cron": "0 0 * * 5,5#3"}, "do not mix"),
        ({"cron": "0 0 * * 5L,5"}, "do not mix"),
        ({"cron": "0 0 * * *,5L"}, "do not mix"),
        *(
            ({"cron": cron}, "out of range")
            for cron in ("0 0 31-0 * *", "0 0 1 9-0 *", "22-60/3 * * * *", "0 23-24 * * *")
        ),
        ({"cron": "0 0 * * 8-2"}, "the range 8-2, or its step, is out of range"),
        ({"cron": "5-1/0 * * * *"}, "the range 5-1, or its step, is out of range"),
        ({"cron": "0 0 L-3 * *"}, "l-3 is no range"),
        ({"cron": "0 0 jan-3 * *"}, "jan-3 is no range"),
        *(
            ({"cron": f"0 0 {days}"}, "cron='")
            for days in ("5L * *", "* * L", "* * 8L", "* * 5LL", "* * L5L", "* * 1-5L", "* * 5L/2")
        ),
        ({"cron": "9" * 5000 + " * * * *"}, "cron='"),
        ({"cron": "1-" + "9" * 5000 + " * * * *"}, "cron='"),
        ({"cron": "*/" + "9" * 5000 + " * * * *"}, "cron='"),
        ({"cron": "0 0 31 2 *"}, r"cron='0 0 31 2 \*': there is no such day"),
        ({"cron": "0 0 30,31 2 ?"}, "there is no such day"),
    ],
)
def test_what_is_malformed_or_can_never_come_is_refused(
    fields: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidSchedule, match=words):
        make_schedule(**fields)  # type: ignore[arg-type]


def test_whatever_is_written_as_a_cron_expression_is_read_or_refused() -> None:
    chance = random.Random("noise")
    parts = [*"0123456789*,-/#LWHR?@()", "mon", "Sun", "jan", "31", "60", "*/", "1-5"]
    for _ in range(5000):
        fields = [
            "".join(chance.choices(parts, k=chance.randint(1, 4))) if chance.random() < 0.4 else "*"
            for _ in range(5)
        ]
        try:
            schedule = make_schedule(cron=" ".join(fields))
        except InvalidSchedule:
            continue
        assert schedule.next_time(0) > 0


# -- the schedule as a value ----------------------------------------------------------------------


def test_any_iterable_becomes_a_sorted_tuple() -> None:
    schedule = make_schedule(minute=iter([30, 0, 30]), hour={5}, dayOfWeek=range(2))
    assert (schedule.minute, schedule.hour, schedule.dayOfWeek) == ((0, 30), (5,), (0, 1))
    assert (schedule.dayOfMonth, schedule.month) == ((), ())
    assert (schedule.cron, schedule.timezone) == (None, None)


def test_the_same_fields_are_the_same_schedule() -> None:
    assert make_schedule(minute=[0, 30]) is make_schedule(minute=(30, 0, 0))
    assert make_schedule(timezone="UTC") != make_schedule()


def test_a_zone_is_known_by_its_name() -> None:
    assert zone_named("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    with pytest.raises(InvalidSchedule, match="Mars"):
        zone_named("Mars/Olympus")


def test_threads_can_share_a_schedule() -> None:
    schedule = make_schedule(cron="*/7 1-4 * * 1-6", timezone="Europe/Berlin")
    start = instant(2026, 10, 20)
    afters = [start + n * 601.5 for n in range(1500)]
    expected = [schedule.next_time(after) for after in afters]

    def ask(seed: int) -> bool:
        order = random.Random(seed).sample(range(len(afters)), len(afters))
        return all(schedule.next_time(afters[n]) == expected[n] for n in order)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))
