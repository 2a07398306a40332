# SPDX-License-Identifier: ZPL-2.1
"""What pages say of times, numbers, values and schedules, and what they draw."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from zope.interface import Interface, Invalid, invariant
from zope.schema import (
    Bool,
    Bytes,
    Choice,
    Date,
    Datetime,
    Dict,
    Float,
    FrozenSet,
    Int,
    List,
    Object,
    Set,
    Text,
    TextLine,
    Time,
    Timedelta,
    Tuple,
)
from zope.schema import (
    Decimal as DecimalField,
)

pytest.importorskip("webob")

from lovely.remotetask.web.pages import inputform, scheduleform, wording
from lovely.remotetask.web.pages.chart import HEIGHT, WIDTH, chart
from lovely.remotetask.web.pages.inputform import PREFIX, empty_form, parse_json, read_form
from lovely.remotetask.web.pages.scheduleform import SETS, numbers_of, read_times
from lovely.remotetask.web.schedules import Fields

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than 1 s"),
        (-5, "less than 1 s"),
        (1.9, "1 s"),
        (99, "99 s"),
        (100, "1 min"),
        (5_999, "99 min"),
        (6_000, "1 h"),
        (172_799, "47 h"),
        (172_800, "2 days"),
        (1e9, "11,574 days"),
    ],
)
def test_spans_are_told_in_their_most_telling_unit(seconds: float, text: str) -> None:
    assert wording.span(seconds) == text


def test_times_are_told_from_now() -> None:
    def age(seconds: float) -> str:
        return wording.age(datetime.fromtimestamp(NOW + seconds, timezone.utc), NOW)

    assert [age(-30), age(0), age(60)] == ["30 s ago", "just now", "in 60 s"]


def test_what_is_due_is_not_told_as_long_ago() -> None:
    moment = datetime.fromtimestamp(NOW - 30, timezone.utc)
    shown = wording.due_of(moment, NOW)
    assert shown is not None
    assert shown["age"] == "due now"


def test_texts_are_shortened_in_one_line() -> None:
    assert wording.shortened("a\n  b") == "a b"
    assert wording.shortened("x" * 300) == "x" * 199 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None]}, '{"a": [1, null]}'),
        ("text", "text"),
        (12, "12"),
        (object, "<class 'object'>"),
    ],
)
def test_values_are_told_as_json_where_they_can(value: Any, text: str) -> None:
    assert wording.brief(value) == text


# -- the chart ---------------------------------------------------------------------------------


def test_bars_stand_on_each_other_and_keep_within_the_chart() -> None:
    drawn = chart([0, 3, 7], [0, 1, 0])
    assert drawn["top"] == 10
    kinds = [bar["kind"] for bar in drawn["bars"]]
    assert kinds == ["done", "failed", "done"]
    done, failed, _ = drawn["bars"]
    assert float(failed["y"]) + float(failed["height"]) == pytest.approx(float(done["y"]))
    for bar in drawn["bars"]:
        assert 0 <= float(bar["x"]) <= WIDTH - float(bar["width"])
        assert 0 <= float(bar["y"]) <= HEIGHT - float(bar["height"]) + 0.1


def test_a_chart_of_nothing_has_no_scale() -> None:
    assert chart([0, 0], [0, 0]) == {"bars": [], "top": None, "width": WIDTH, "height": HEIGHT}


@pytest.mark.parametrize(("highest", "top"), [(1, 1), (2, 2), (3, 5), (6, 10), (101, 200)])
def test_the_scale_reads_well(highest: int, top: int) -> None:
    assert chart([highest], [0])["top"] == top


# -- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", SETS)
def test_what_is_shown_of_numbers_gives_them_again(field: scheduleform.Set) -> None:
    for numbers in ((), field.all, (field.first,), (field.first, field.last)):
        assert numbers_of(field, scheduleform.text_of_numbers(field, numbers)) == numbers


def test_all_that_is_wrong_is_said() -> None:
    typed = {"minute": "61", "hour": "x", "delay": "-1", "timezone": "Mars", "cron": "no"}
    assert read_times(typed).wrong.keys() == typed.keys()


def test_schedules_are_told_in_words() -> None:
    assert scheduleform.told(Fields()) == "every minute (UTC)"
    assert scheduleform.told(Fields(hour=[3], dayOfWeek=[5, 6], timezone="Europe/Berlin")) == (
        "hours 3; days of the week 5 6 (Europe/Berlin)"
    )
    assert scheduleform.told(Fields(cron="@daily")) == "@daily (UTC)"
    assert scheduleform.told(Fields(delay=90.0)) == "once, 90 s after it was added"
    assert scheduleform.told(Fields(delay=90.0), is_repeated=True) == "every 90 s"


# -- forms -----------------------------------------------------------------------------------------


class IInner(Interface):
    x = Int(title="X")


class IAll(Interface):
    int = Int(title="Int", required=False)
    float = Float(title="Float", required=False)
    decimal = DecimalField(title="Decimal", required=False)
    bool = Bool(title="Bool", required=False)
    line = TextLine(title="Line", required=False)
    text = Text(title="Text", required=False)
    bytes = Bytes(title="Bytes", required=False)
    choice = Choice(title="Choice", values=[1, 2], required=False)
    datetime = Datetime(title="Datetime", required=False)
    date = Date(title="Date", required=False)
    time = Time(title="Time", required=False)
    delta = Timedelta(title="Delta", required=False)
    list = List(title="List", value_type=Int(), required=False)
    tuple = Tuple(title="Tuple", value_type=TextLine(), required=False)
    set = Set(title="Set", value_type=Int(), required=False)
    frozen = FrozenSet(title="Frozen", value_type=Choice(values=["a", "b"]), required=False)
    dict = Dict(title="Dict", key_type=TextLine(), value_type=Int(), required=False)


ALL = {
    "int": 12,
    "float": 1.5,
    "decimal": Decimal("1.50"),
    "bool": True,
    "line": "a line",
    "text": "two\nlines",
    "bytes": b"bytes",
    "choice": 2,
    "datetime": datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    "date": date(2030, 1, 2),
    "time": time(3, 4, 5),
    "delta": timedelta(seconds=90),
    "list": [1, 2],
    "tuple": ("a", "b"),
    "set": {1, 2},
    "frozen": frozenset({"a"}),
    "dict": {"a": 1},
}


def test_values_of_all_kinds_of_fields_come_back_as_they_were_shown() -> None:
    typed = {field.name: field.typed for field in empty_form(IAll, ALL)}
    read = read_form(IAll, typed)
    assert [(field.name, field.wrong) for field in read.fields if field.wrong] == []
    assert read.value == ALL
    assert read.is_good


def test_what_is_left_empty_and_not_needed_is_none() -> None:
    read = read_form(IAll, {})
    assert read.is_good
    assert read.value == {**dict.fromkeys(ALL), "bool": False}


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("int", "1.5"),
        ("int", "9" * 5000),
        ("float", "x"),
        ("decimal", "x"),
        ("choice", "3"),
        ("datetime", "tomorrow"),
        ("date", "2030-02-31"),
        ("time", "25:00"),
        ("delta", "x"),
        ("list", "1\nx"),
        ("frozen", "c"),
        ("dict", "{"),
        ("dict", "[1]"),
        ("dict", '{"a": "b"}'),
        ("line", "two\nlines"),
    ],
)
def test_what_makes_no_sense_is_said_beside_its_field(name: str, typed: str) -> None:
    read = read_form(IAll, {PREFIX + name: typed})
    [field] = [field for field in read.fields if field.wrong]
    assert field.name == PREFIX + name
    assert field.typed == typed
    assert not read.is_good


class IPair(Interface):
    low = Int(title="Low")
    high = Int(title="High")

    @invariant
    def are_in_order(pair: Any) -> None:
        if pair.low > pair.high:
            raise Invalid("low must not be above high")


def test_what_fields_have_to_be_together_is_said_of_all() -> None:
    assert read_form(IPair, {PREFIX + "low": "2", PREFIX + "high": "1"}).wrong == (
        "low must not be above high",
    )


def test_an_object_is_typed_as_json() -> None:
    class IOuter(Interface):
        inner = Object(title="Inner", schema=IInner, required=False)

    [field] = empty_form(IOuter)
    assert (field.kind, field.hint) == ("text", "As JSON.")


def test_a_schema_without_fields_is_none() -> None:
    class Task:
        inputSchema = Interface

    assert inputform.schema_of(Task()) is None


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "NaN", "1" * 5000])
def test_json_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)
