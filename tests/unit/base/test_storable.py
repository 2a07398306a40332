# SPDX-License-Identifier: ZPL-2.1
"""Input and results that cannot be stored, or not be loaded again, or are too large."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import transaction
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef

from lovely.remotetask.base.storable import OUTSIDE_MAX_DEPTH, check_limits, check_storable
from lovely.remotetask.errors import InvalidInput, InvalidResult
from lovely.remotetask.interfaces import ERROR
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService


class FailsToPickle:
    def __reduce__(self) -> Any:
        raise RuntimeError("I stay here")


class FailsToLoad:
    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("I do not come back")

    def __getstate__(self) -> Any:
        return {"some": "state"}


class NeedsArguments(Exception):
    """Pickles, but is called with too few arguments when it is loaded."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)


class Node(Persistent):
    """A persistent object that holds anything."""

    def __init__(self, value: Any) -> None:
        self.value = value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


UNSTORABLE: dict[str, Callable[[], Any]] = {
    "a lambda": lambda: lambda: None,
    "a local class": lambda: type("Local", (), {})(),
    "a generator": lambda: (n for n in ()),
    "a lock": threading.Lock,
    "a thread": threading.Thread,
    "a module": lambda: threading,
    "an exception that does not load": lambda: NeedsArguments(1, 2),
    "what refuses": FailsToPickle,
    "what does not load": FailsToLoad,
    "one in a list": lambda: [1, [2, [lambda: None]]],
    "one in a dict": lambda: {"key": FailsToLoad()},
    "one beside a persistent object": lambda: (Node(1), lambda: None),
    "too deep a nesting": lambda: nested(100_000),
}

STORABLE: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "a number": lambda: 2**100,
    "a text with a lone surrogate": lambda: "\ud800",
    "bytes": lambda: b"\xff",
    "a class": lambda: Node,
    "a function": lambda: nested,
    "an exception": lambda: ValueError("no"),
    "a set": lambda: {1, frozenset({2})},
    "a persistent object": lambda: Node(1),
    "a persistent object with what cannot be checked": lambda: Node(lambda: None),
    "a persistent mapping in a list": lambda: [PersistentMapping(a=[Node(1)])],
    "a weak reference": lambda: WeakRef(Node(1)),
    "nesting": lambda: nested(50),
}


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_what_cannot_be_stored_and_loaded_is_refused(kind: str) -> None:
    value = UNSTORABLE[kind]()
    with pytest.raises(InvalidResult, match=r"^the result cannot be stored: ."):
        check_storable(value, InvalidResult, "the result")


@pytest.mark.parametrize("kind", STORABLE)
def test_what_can_be_stored_passes(kind: str) -> None:
    check_storable(STORABLE[kind](), InvalidResult, "the result")


def test_a_value_that_holds_itself_passes() -> None:
    value: list[Any] = []
    value.append(value)
    check_storable(value, InvalidResult, "the result")


def test_a_persistent_object_is_not_loaded_by_the_check() -> None:
    node = Node(FailsToLoad())
    check_storable([node], InvalidResult, "the result")


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_of_a_job_whose_input_cannot_be_stored_nothing_is_stored(
    service: TaskService, kind: str
) -> None:
    value = UNSTORABLE[kind]()
    for add in (service.add, service.addCronJob):
        with pytest.raises(InvalidInput, match="the input cannot be stored: "):
            add("echo", value)
    with pytest.raises(InvalidInput):
        service.add_many("echo", [1, value])
    assert dict(service.jobs) == {}
    assert len(service.queue) == 0
    assert set(service.countJobs().values()) == {0}


# -- limits ------------------------------------------------------------------------------------


def test_without_limits_anything_passes() -> None:
    check_limits(["x" * 10_000_000, nested(1000)], None, None)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 995,
        "ä" * 497,
        b"x" * 995,
        bytearray(995),
        [1] * 300,
        dict.fromkeys(range(160)),
        2 ** (8 * 990),
        ["x" * 490, "y" * 490],
    ],
    ids=lambda value: type(value).__name__,
)
def test_input_is_about_as_large_as_it_is_stored(value: Any) -> None:
    check_limits(value, 1000, None)
    with pytest.raises(InvalidInput, match="the input is larger than 1000 bytes"):
        check_limits([value, value], 1000, None)


@pytest.mark.parametrize("kind", [list, tuple, frozenset, dict])
def test_nesting_is_counted_through_all_containers(kind: type) -> None:
    def wrap(value: Any) -> Any:
        return {"key": value} if kind is dict else kind([value])

    value: Any = 1
    for _ in range(5):
        value = wrap(value)
    check_limits(value, None, 5)
    with pytest.raises(InvalidInput, match="the input is nested deeper than 5 levels"):
        check_limits(wrap(value), None, 5)


def test_nesting_in_the_keys_of_a_dict_counts() -> None:
    with pytest.raises(InvalidInput, match="nested deeper"):
        check_limits({(((1,),),): None}, None, 3)


def test_a_few_lists_that_refer_to_each_other_in_many_ways_are_measured() -> None:
    value: Any = []
    for _ in range(50):
        value = [value, value]
    check_limits(value, None, 50)
    for limits in ((1000, None), (None, 49), (1000, 50)):
        with pytest.raises(InvalidInput):
            check_limits(value, *limits)


def test_a_deep_nesting_is_refused_before_it_is_stored(service: TaskService) -> None:
    service.max_input_depth = OUTSIDE_MAX_DEPTH
    with pytest.raises(InvalidInput, match="nested deeper than 100 levels"):
        service.add("echo", nested(100_000))


def test_a_service_can_bound_its_input(service: TaskService) -> None:
    service.max_input_bytes = 100
    service.max_input_depth = 2
    service.add("echo", {"a": ["b"]})
    for add in (
        service.add,
        service.addCronJob,
        lambda task, input: service.add_many(task, [input]),
    ):
        with pytest.raises(InvalidInput, match="larger than 100 bytes"):
            add("echo", "x" * 100)
        with pytest.raises(InvalidInput, match="deeper than 2 levels"):
            add("echo", [[[1]]])
    assert len(service.jobs) == 1


def test_a_service_bounds_nothing_by_default(service: TaskService) -> None:
    assert (service.max_input_bytes, service.max_input_depth) == (None, None)


@pytest.fixture
def strangers(db: ZODB.DB) -> Iterator[dict[str, Any]]:
    """Persistent objects of other connections: to the same database, and to another one."""
    with closing(ZODB.DB(None)) as other:
        connections = [place.open(transaction.TransactionManager()) for place in (db, other)]
        for connection in connections:
            connection.root()["node"] = Node(1)
            connection.transaction_manager.commit()
        names = ("the same database", "another database")
        yield {
            name: connection.root()["node"]
            for name, connection in zip(names, connections, strict=True)
        }
        for connection in connections:
            connection.transaction_manager.abort()
            connection.close()


@pytest.mark.parametrize("where", ["the same database", "another database"])
def test_an_object_of_another_connection_is_refused_before_the_commit_refuses_it(
    workshop: Any, strangers: Any, where: str
) -> None:
    with workshop.service() as service:
        for input in (strangers[where], {"nodes": [strangers[where]]}):
            with pytest.raises(InvalidInput, match="a Node of another connection to a database"):
                service.add("echo", input)
    with workshop.service() as service:
        assert dict(service.jobs) == {}


@pytest.mark.parametrize("is_result", [True, False])
def test_a_task_that_stores_one_is_no_fault_of_the_storage(
    workshop: Any,
    register: Any,
    strangers: Any,
    caplog: pytest.LogCaptureFixture,
    is_result: bool,
) -> None:
    def store(context: Any, input: Any) -> Any:
        stranger = strangers["another database"]
        if not is_result:
            context.service._p_jar.root()["kept"] = stranger
        return stranger if is_result else None

    register("store", store, context=True, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("store")
    with caplog.at_level(logging.WARNING, "lovely.remotetask"):
        workshop.work()
    assert workshop.get(jobid, "status", "attempt") == (ERROR, 1)
    [message] = caplog.messages
    assert message.startswith(f"job {jobid}: task store, attempt 1 failed: ")
