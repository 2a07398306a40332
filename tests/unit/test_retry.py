# SPDX-License-Identifier: ZPL-2.1
"""Retry policies: how often, how long, and for which errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from zodbpickle import pickle

from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    JobTimeout,
    RetryLater,
    TaskError,
    TransactionMeddled,
)
from lovely.remotetask.retry import DEFAULT_POLICY, FINAL_ERRORS, RetryPolicy

EVEN = RetryPolicy(attempts=100, first_wait_seconds=1.0, jitter=0)


def waits(policy: RetryPolicy, error: BaseException, chance: float = 0.0) -> list[float]:
    """Return all waits until the policy gives up."""
    found: list[float] = []
    while True:
        wait = policy.wait_seconds(len(found) + 1, error, lambda: chance)
        if wait is None:
            return found
        found.append(wait)


def test_the_default_repeats_three_times_within_about_a_second() -> None:
    assert waits(DEFAULT_POLICY, ValueError()) == pytest.approx([0.1, 0.2, 0.4])
    assert waits(DEFAULT_POLICY, ValueError(), 1.0) == pytest.approx([0.075, 0.15, 0.3])


def test_the_first_run_is_an_attempt() -> None:
    assert waits(RetryPolicy(attempts=1), ValueError()) == []
    assert len(waits(RetryPolicy(attempts=7), ValueError())) == 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 4, 8]),
        ({"factor": 1}, [1, 1, 1, 1]),
        ({"factor": 10}, [1, 10, 100, 1000]),
        ({"cap_seconds": 3}, [1, 2, 3, 3]),
        ({"cap_seconds": 0}, [0, 0, 0, 0]),
        ({"first_wait_seconds": 0}, [0, 0, 0, 0]),
        ({"first_wait_seconds": 10, "cap_seconds": 3}, [3, 3, 3, 3]),
    ],
)
def test_waits_grow_up_to_the_cap(options: dict[str, Any], expected: list[float]) -> None:
    policy = RetryPolicy(**{"first_wait_seconds": 1, "jitter": 0, "attempts": 5, **options})
    assert waits(policy, ValueError()) == expected


@pytest.mark.parametrize(
    ("jitter", "chance", "expected"),
    [(0, 1.0, 8.0), (0.5, 0.0, 8.0), (0.5, 1.0, 4.0), (0.5, 0.5, 6.0), (1, 1.0, 0.0)],
)
def test_jitter_is_the_part_of_a_wait_that_is_left_to_chance(
    jitter: float, chance: float, expected: float
) -> None:
    policy = RetryPolicy(first_wait_seconds=8, jitter=jitter)
    assert policy.wait_seconds(1, ValueError(), lambda: chance) == expected


def test_waits_stay_finite_for_ever() -> None:
    policy = RetryPolicy(attempts=10**9, cap_seconds=60, jitter=0)
    assert policy.wait_seconds(10**8, ValueError()) == 60


def test_waits_stay_finite_with_a_large_factor() -> None:
    policy = RetryPolicy(attempts=10**9, factor=1e5, cap_seconds=60, jitter=0)
    assert policy.wait_seconds(10**8, ValueError()) == 60


# -- which errors ------------------------------------------------------------------------------


def test_exceptions_are_repeated_and_other_ends_are_not() -> None:
    assert EVEN.wait_seconds(1, Exception()) == 1
    for error in (SystemExit(), KeyboardInterrupt(), GeneratorExit()):
        assert EVEN.wait_seconds(1, error) is None


def test_only_the_named_errors_and_their_subclasses_are_repeated() -> None:
    policy = RetryPolicy(retry_on=(OSError, ZeroDivisionError))
    assert policy.wait_seconds(1, ConnectionError()) is not None
    assert policy.wait_seconds(1, ZeroDivisionError()) is not None
    assert policy.wait_seconds(1, ValueError()) is None


def test_what_is_given_up_on_is_not_repeated() -> None:
    policy = RetryPolicy(retry_on=(OSError,), give_up_on=(PermissionError,))
    assert policy.wait_seconds(1, FileNotFoundError()) is not None
    assert policy.wait_seconds(1, PermissionError()) is None


def test_a_single_class_may_be_named_without_a_tuple() -> None:
    policy = RetryPolicy(retry_on=OSError, give_up_on=PermissionError)  # type: ignore[arg-type]
    assert policy == RetryPolicy(retry_on=(OSError,), give_up_on=(PermissionError,))


@pytest.mark.parametrize(
    "kind", [TaskError, TransactionMeddled, InvalidInput, InvalidResult, JobTimeout]
)
def test_no_policy_repeats_what_is_final(kind: type[Exception]) -> None:
    assert kind in FINAL_ERRORS
    assert RetryPolicy(retry_on=(BaseException,)).wait_seconds(1, kind()) is None


def test_subclasses_of_final_errors_are_final() -> None:
    class Mine(TaskError):
        pass

    assert EVEN.wait_seconds(1, Mine()) is None


# -- the task's own wish -----------------------------------------------------------------------


def test_a_wish_with_a_time_is_granted_however_often_it_comes() -> None:
    policy = RetryPolicy(attempts=1, retry_on=(OSError,), cap_seconds=5)
    for failures in (0, 1, 10**6):
        assert policy.wait_seconds(failures, RetryLater(7200)) == 7200
    assert policy.wait_seconds(1, RetryLater(0)) == 0


def test_a_wish_without_a_time_waits_as_the_policy_says() -> None:
    assert EVEN.wait_seconds(0, RetryLater()) == 1
    assert EVEN.wait_seconds(3, RetryLater()) == 4
    assert RetryPolicy(attempts=1, jitter=0).wait_seconds(5, RetryLater()) == pytest.approx(1.6)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_a_wish_for_an_impossible_time_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgument):
        RetryLater(seconds)


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": 1.5},
        {"attempts": True},
        {"attempts": "3"},
        {"attempts": None},
        {"first_wait_seconds": -0.1},
        {"first_wait_seconds": float("inf")},
        {"first_wait_seconds": float("nan")},
        {"first_wait_seconds": "1"},
        {"first_wait_seconds": True},
        {"factor": 0.5},
        {"factor": None},
        {"cap_seconds": -1},
        {"cap_seconds": float("inf")},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"retry_on": ("ValueError",)},
        {"retry_on": (int,)},
        {"give_up_on": (ValueError(),)},
    ],
    ids=repr,
)
def test_a_policy_refuses_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        RetryPolicy(**options)


def test_a_policy_can_be_stored_and_compared() -> None:
    policy = RetryPolicy(attempts=9, retry_on=(OSError,))
    assert pickle.loads(pickle.dumps(policy, 3)) == policy
    assert copy.copy(policy) == policy
    assert policy != DEFAULT_POLICY
