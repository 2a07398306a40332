# SPDX-License-Identifier: ZPL-2.1
"""Input and output that is checked against the schemas of a task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from zope.interface import Interface, Invalid, invariant
from zope.schema import Choice, Int, List, TextLine

from lovely.remotetask.errors import InvalidInput, InvalidResult
from lovely.remotetask.interfaces import ERROR
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask, check_input, check_output


class IRange(Interface):
    """A range of numbers."""

    low = Int(title="Low", min=0)
    high = Int(title="High", max=100)
    name = TextLine(title="Name", required=False, default="nameless")

    @invariant
    def in_order(self: Any) -> None:
        if self.low > self.high:
            raise Invalid("low lies above high")

    def method() -> None:
        """Not a field."""


RANGE = SimpleTask(lambda input: input, inputSchema=IRange, outputSchema=IRange)

GOOD = [
    {"low": 1, "high": 2},
    {"low": 1, "high": 1, "name": "one"},
    {"low": 1, "high": 2, "name": None},
    SimpleNamespace(low=1, high=2),
    SimpleNamespace(low=1, high=2, other="an object may have more"),
]

BAD: list[tuple[Any, list[str]]] = [
    ({"low": 1}, ["high: is missing"]),
    ({}, ["low: is missing", "high: is missing"]),
    ({"low": "1", "high": 2.5}, ["low: WrongType('1'", "high: WrongType(2.5"]),
    ({"low": -1, "high": 101}, ["low: TooSmall(-1, 0", "high: TooBig(101, 100"]),
    ({"low": None, "high": 1}, ["low: RequiredMissing"]),
    ({"low": 1, "high": 2, "size": 3, 4: 5}, ["size: no such field", "4: no such field"]),
    ({"low": 1, "high": 2, "method": 3}, ["method: no such field"]),
    ({"low": 1, "high": 2, "name": b"x"}, ["name: WrongType"]),
    ({"low": 2, "high": 1}, ["low lies above high"]),
    (SimpleNamespace(low=1), ["high: is missing"]),
    (SimpleNamespace(low=2, high=1), ["low lies above high"]),
    (None, ["low: is missing", "high: is missing"]),
    ("text", ["low: is missing", "high: is missing"]),
]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_what_keeps_the_schema_passes(value: Any) -> None:
    check_input(RANGE, value)
    check_output(RANGE, value)


@pytest.mark.parametrize(("value", "complaints"), BAD, ids=repr)
def test_the_error_names_every_field_that_is_wrong(value: Any, complaints: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_input(RANGE, value)
    message = str(caught.value).replace("WrongType(1,", "WrongType('1',")
    assert message.startswith("the input is not valid: ")
    for complaint in complaints:
        assert complaint in message
    assert message.count(";") >= len(complaints) - 1
    with pytest.raises(InvalidResult, match="the result is not valid: "):
        check_output(RANGE, value)


def test_a_task_without_schemas_takes_anything() -> None:
    for task in (SimpleTask(lambda input: input), object()):
        check_input(task, object())
        check_output(task, object())


def test_fields_of_inherited_schemas_count() -> None:
    class INamed(IRange):
        """A range with an owner."""

        owner = Choice(title="Owner", values=("me", "you"))

    with pytest.raises(InvalidInput, match="owner: ConstraintNotSatisfied"):
        check_input(SimpleTask(len, inputSchema=INamed), {"low": 1, "high": 2, "owner": "they"})


def test_the_elements_of_a_list_count() -> None:
    class INumbers(Interface):
        """Numbers."""

        numbers = List(title="Numbers", value_type=Int())

    with pytest.raises(InvalidInput, match="numbers: WrongContainedType"):
        check_input(SimpleTask(len, inputSchema=INumbers), {"numbers": [1, "2"]})


def test_a_constraint_may_raise_an_error_of_its_own() -> None:
    def is_odd(value: int) -> bool:
        if not value % 2:
            raise Invalid("the number must be odd")
        return True

    class IOdd(Interface):
        """An odd number."""

        number = Int(title="Number", constraint=is_odd)

    with pytest.raises(InvalidInput, match=r"number: .*must be odd"):
        check_input(SimpleTask(len, inputSchema=IOdd), {"number": 2})


def test_a_job_with_bad_input_is_not_added(service: TaskService, register: Any) -> None:
    register("range", lambda input: input, inputSchema=IRange)
    for add in (service.add, service.addCronJob):
        with pytest.raises(ValueError, match="high: is missing"):
            add("range", {"low": 1})
    with pytest.raises(ValueError, match="high: is missing"):
        service.add_many("range", [{"low": 1, "high": 2}, {"low": 1}])
    assert dict(service.jobs) == {}


def test_a_bad_result_is_the_error_of_the_job(service: TaskService, register: Any) -> None:
    calls = []
    register("range", calls.append, outputSchema=IRange)
    jobid = service.add("range", "something")
    service.process()
    assert calls == ["something"]
    assert service.getStatus(jobid) == ERROR
    assert "low: is missing; high: is missing" in service.getError(jobid)
