# SPDX-License-Identifier: ZPL-2.1
"""The index of jobs that wait for a time: what two transactions may do at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.POSException import ConflictError

from lovely.remotetask.store.timeindex import _SHIFTS, PAGE_COUNT, PAGE_SECONDS, TimeIndex, _spans

NOW = 1_800_000_000.0 // PAGE_SECONDS * PAGE_SECONDS  # where a span begins


class Side:
    """One of two connections, with a transaction manager of its own."""

    def __init__(self, db: ZODB.DB) -> None:
        self.manager = transaction.TransactionManager()
        self.connection = db.open(self.manager)

    @property
    def index(self) -> TimeIndex:
        index: TimeIndex = self.connection.root()["index"]
        return index


@pytest.fixture
def sides(db: ZODB.DB) -> Iterator[tuple[Side, Side]]:
    with db.transaction() as connection:
        index = connection.root()["index"] = TimeIndex()
        for jobid in range(3):
            index.insert(NOW + jobid, jobid * PAGE_COUNT)
    sides = Side(db), Side(db)
    yield sides
    for side in sides:
        side.manager.abort()
        side.connection.close()


def both(sides: tuple[Side, Side], *changes: Callable[[TimeIndex], object]) -> TimeIndex:
    """Let both sides begin, change and commit; return what is there then."""
    for side in sides:
        side.manager.begin()
    for side, change in zip(sides, changes, strict=True):
        change(side.index)
    for side in sides:
        side.manager.commit()
    sides[0].manager.begin()
    return sides[0].index


def test_an_entry_is_added_while_a_worker_takes_the_first_one(sides: Any) -> None:
    index = both(
        sides,
        lambda index: index.remove(NOW, 0),
        lambda index: index.insert(NOW + 3, 3 * PAGE_COUNT),
    )
    assert [jobid // PAGE_COUNT for _, jobid in index] == [1, 2, 3]
    assert len(index) == 3
    assert index.miscounted({}) == 0


def test_workers_take_different_entries_of_a_page(sides: Any) -> None:
    index = both(
        sides,
        lambda index: index.remove(NOW, 0),
        lambda index: index.remove(NOW + 1, PAGE_COUNT),
    )
    assert list(index) == [(NOW + 2, 2 * PAGE_COUNT)]


@pytest.mark.parametrize(
    "change", [lambda index: index.remove(NOW, 0), lambda index: index.insert(NOW + 9, 9)]
)
def test_of_two_that_make_the_same_change_one_commits(sides: Any, change: Any) -> None:
    with pytest.raises(ConflictError):
        both(sides, change, change)


def test_a_put_into_a_page_that_is_taken_out_collides_and_is_not_lost(sides: Any) -> None:
    def empty(index: TimeIndex) -> None:
        for when, jobid in list(index):
            index.remove(when, jobid)
        index.insert(NOW + 10 * PAGE_SECONDS, 1)
        index.remove(NOW + 10 * PAGE_SECONDS, 1)
        assert count_pages(index) == 1

    late = NOW, 32
    with pytest.raises(ConflictError):
        both(sides, empty, lambda index: index.insert(*late))
    sides[1].manager.abort()
    with sides[1].manager:
        sides[1].index.insert(*late)
    with sides[0].manager:
        assert list(sides[0].index) == [late]
        assert len(sides[0].index) == 1


def count_pages(index: TimeIndex) -> int:
    return sum(map(len, _spans(index.pages, _SHIFTS, 0, 2**60)))


def test_pages_that_are_used_up_do_not_gather(sides: Any) -> None:
    with sides[0].manager:
        index = sides[0].index
        for number in range(1000):
            index.insert(NOW + number * PAGE_SECONDS, 1)
            index.remove(NOW + number * PAGE_SECONDS, 1)
        assert count_pages(index) <= 2 + 4 * len(_SHIFTS)


@pytest.mark.parametrize("seconds", [PAGE_SECONDS, 64 * PAGE_SECONDS, 2**20])
def test_jobs_that_nobody_can_run_keep_no_pages_of_others(sides: Any, seconds: float) -> None:
    with sides[0].manager:
        index = sides[0].index
        for number in range(100):
            index.insert(NOW + number * seconds, 16)
        for number in range(300):
            index.insert(NOW + number * seconds + 1, 1)
            index.remove(NOW + number * seconds + 1, 1)
        assert len(index) == 103
        assert count_pages(index) <= 2 * 103 + 8


def test_who_adds_in_another_lane_meets_nobody_but_for_a_new_node(sides: Any) -> None:
    lanes = 1, 1 + (1 << 27)

    def fill(lane: int) -> Callable[[TimeIndex], None]:
        return lambda index: [index.insert(NOW + n, lane + n) for n in range(2 * PAGE_SECONDS)]

    both(sides, *map(fill, lanes))
    assert len(sides[0].index) == 3 + 4 * PAGE_SECONDS


def test_what_is_taken_out_under_way_by_others_is_passed_over() -> None:
    index = TimeIndex()
    entries = [(NOW + number * 600.0, 1) for number in range(200)]
    for entry in entries:
        index.insert(*entry)
    walk = index.between(-math.inf, math.inf)
    assert next(walk) == entries[0]
    for entry in entries[:150]:
        index.remove(*entry)
    assert list(walk) == entries[150:]


def test_entries_can_be_taken_out_under_way() -> None:
    index = TimeIndex()
    for number in range(500):
        index.insert(NOW + number % 40, number)
    seen = []
    for when, jobid in index.between(NOW + 3, NOW + 30):
        index.remove(when, jobid)
        seen.append(when)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (NOW + 4, NOW + 30)
    assert len(seen) == sum(3 < number % 40 <= 30 for number in range(500))
    assert len(index) == 500 - len(seen)


@pytest.mark.parametrize("when", [0.0, 0.1, 1e-9, 2.0**31 + 0.3, 4e9, 1e14, NOW + 0.1])
def test_what_was_filed_is_found_and_taken_out_again(when: float) -> None:
    index = TimeIndex()
    index.insert(when, 2**31 - 1)
    index.insert(when, 2**31 - 1)
    assert (when, 2**31 - 1) in index
    [(found, jobid)] = index
    assert found == pytest.approx(when, abs=1e-6)
    index.remove(found, jobid)
    assert list(index) == []
    assert len(index) == 0
