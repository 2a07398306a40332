# SPDX-License-Identifier: ZPL-2.1
"""What a task does with its input and its result changes nothing that is stored."""

from __future__ import annotations

from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from ZODB.POSException import ConflictError

from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.errors import InvalidInput
from lovely.remotetask.interfaces import COMPLETED


@pytest.fixture
def eat(register: Any) -> list[Any]:
    """The inputs that the task *eat* was given; it eats them up, and fails the first time."""
    seen: list[Any] = []

    def eat(input: Any) -> None:
        seen.append(list(input))
        input.clear()
        if len(seen) == 1:
            raise ValueError("once more")

    register("eat", eat)
    register("share", eat, shared_commit=True)
    return seen


@pytest.mark.parametrize("task", ["eat", "share"])
def test_the_next_attempt_gets_what_was_added(workshop: Any, eat: list[Any], task: str) -> None:
    jobid = workshop.add(task, ["a", "b"])
    claims = workshop.reserve()
    if claims[0].is_reserved:
        assert workshop.run_together(claims) is None
        claims = workshop.claim_reserved(claims)
    workshop.run(claims[0])
    workshop.now += 10.0
    workshop.work()
    assert eat == [["a", "b"], ["a", "b"]]
    assert workshop.get(jobid, "status", "input") == (COMPLETED, ["a", "b"])


def test_a_run_that_is_repeated_gets_what_was_added(workshop: Any, register: Any) -> None:
    seen: list[Any] = []

    def conflict(input: Any) -> None:
        seen.append(dict(input))
        input.popitem()
        if len(seen) == 1:
            raise ConflictError

    register("conflict", conflict)
    jobid = workshop.add("conflict", {"key": 1})
    workshop.work()
    assert seen == [{"key": 1}, {"key": 1}]
    assert workshop.get(jobid, "input") == {"key": 1}


def test_the_next_slot_gets_what_was_added(workshop: Any, register: Any) -> None:
    seen: list[Any] = []

    def pop(input: Any) -> None:
        seen.append(dict(input))
        input.pop("key")

    register("pop", pop)
    workshop.add_cron_job("pop", {"key": [1]}, minute=(0,))
    for _ in range(2):
        workshop.now += 3600.0
        workshop.work()
    assert seen == [{"key": [1]}] * 2


def test_the_inline_form_gives_a_copy_too(workshop: Any, eat: list[Any]) -> None:
    jobid = workshop.add("eat", ["a"])
    with workshop.service() as service:
        service.process(workshop.now)
    assert eat == [["a"], ["a"]]
    assert workshop.get(jobid, "status", "input") == (COMPLETED, ["a"])


def test_persistent_objects_are_the_same_ones(workshop: Any, register: Any) -> None:
    def fill(input: Any) -> None:
        input["box"]["full"] = True
        assert input["weak"]() is input["box"]

    register("fill", fill)
    with workshop.transaction() as root:
        box = root["box"] = PersistentMapping()
        root._p_jar.add(box)
        jobid = root["tasks"].add("fill", {"box": box, "weak": WeakRef(box)})
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED
    with workshop.transaction() as root:
        assert root["box"] == {"full": True}


def test_what_is_plain_is_not_copied() -> None:
    for value in ("text", 2**70, b"bytes", ("a", 1), frozenset({"a"})):
        assert check_storable(value, InvalidInput, "the input") is value


def test_what_is_stored_is_what_was_there_at_the_add(workshop: Any) -> None:
    with workshop.service() as service:
        value: list[Any] = [1]
        once = service.add("echo", value)
        several = service.add_many("echo", (value for value[0] in (1, 2)))
        cron = service.addCronJob("echo", value, minute=(0,))
        value[:] = [lambda: None]
    assert [workshop.get(jobid, "input") for jobid in (once, *several, cron)] == [
        *([1], [1], [2], [2])
    ]


def test_a_result_is_what_was_returned(workshop: Any, register: Any) -> None:
    seen: list[int] = []

    def collect(input: Any) -> list[int]:
        seen.append(len(seen))
        if len(seen) > 1:
            raise ValueError("not any more")
        return seen

    register("collect", collect)
    jobid = workshop.add_cron_job("collect", minute=(0,))
    for _ in range(2):
        workshop.now += 3600.0
        workshop.work()
    assert workshop.get(jobid, "output") == [0]
