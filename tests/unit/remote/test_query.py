# SPDX-License-Identifier: ZPL-2.1
"""Which jobs fit a query, beyond what the contract of processors says."""

from __future__ import annotations

from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.query import make_filter


class Touchy:
    """Cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("do not ask")

    __hash__ = None  # type: ignore[assignment]


class Moody(Job):
    """Has an attribute that raises what `error` is."""

    error: Any = None

    @property
    def mood(self) -> str:
        raise self.error


def test_a_job_that_cannot_be_asked_does_not_fit() -> None:
    assert not make_filter({"mood": "good"})(Moody({"error": RuntimeError("not now")}))
    assert not make_filter({"input": 1})(Job({"input": Touchy()}))


def test_a_fault_of_the_storage_is_no_answer() -> None:
    with pytest.raises(ConflictError):
        make_filter({"mood": "good"})(Moody({"error": ConflictError()}))


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({"input.size": 1}, True),
        ({"input.size": True}, True),
        ({"input.size": "1"}, False),
        ({"input.size": {"$in": (1, 2)}}, True),
        ({"input.size": {"unit": 1}}, False),
        ({"input.missing.deeper": None}, True),
        ({"input.missing": {"$in": [None]}}, True),
        ({"active": True}, True),
        ({"missing": None}, True),
    ],
)
def test_values_are_compared_by_equality(query: Any, fits: bool) -> None:
    assert make_filter(query)(Job({"input": {"size": 1}})) is fits


@pytest.mark.parametrize(
    "query",
    [
        {"$or": []},
        {"_record": 1},
        {"input": {"$gt": 1}},
        {"input": {"$in": 5}},
        {"input": {"$in": "text"}},
        {"input": {"$in": [1], "$gt": 0}},
    ],
)
def test_what_only_mongodb_answers_is_refused(query: Any) -> None:
    with pytest.raises(ValueError, match="jobQuery"):
        make_filter(query)
