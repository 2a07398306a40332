# SPDX-License-Identifier: ZPL-2.1
"""The index of ended jobs: from one connection, and from two that write at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.POSException import ConflictError

from lovely.remotetask.store import ended
from lovely.remotetask.store.ended import ENDED_PAGE_SIZE, SWEEP_SIZE, EndedIndex


@pytest.fixture
def index() -> EndedIndex:
    index = EndedIndex()
    for when, jobid in ((30.0, 1), (10.0, 2), (20.0, 3), (10.0, 4)):
        index.insert(when, jobid)
    return index


def pages(index: EndedIndex) -> list[int]:
    """The sizes of all pages."""
    return [len(page.entries) for lane in index.lanes for page in lane.values()]


def test_an_index_is_in_the_order_of_time_and_id(index: EndedIndex) -> None:
    assert list(index) == [(10.0, 2), (10.0, 4), (20.0, 3), (30.0, 1)]
    assert index.oldest(2) == [(10.0, 2), (10.0, 4)]
    assert index.oldest(None) == list(index)
    assert EndedIndex().oldest(3) == []
    assert EndedIndex()


def test_an_index_can_be_read_backwards(index: EndedIndex) -> None:
    assert list(index.latest(2)) == [(30.0, 1), (20.0, 3)]
    assert list(index.latest(9, before=(20.0, 3))) == [(10.0, 4), (10.0, 2)]
    assert list(EndedIndex().latest(3)) == []


def test_an_index_knows_its_size(index: EndedIndex) -> None:
    index.insert(30.0, 1)
    assert len(index) == 4
    for entry in ((30.0, 1), (30.0, 1), (99.0, 1), (20.0, 1)):
        index.remove(*entry)
    assert len(index) == 3
    assert (30.0, 1) not in index
    assert (20.0, 3) in index
    index.size.change(2)
    assert index.miscounted({}) == 2
    index.correct(2)
    assert index.miscounted({}) == 0


@pytest.mark.parametrize("start", [1_100_000_000.0, 1_790_000_000.123456, 2_147_483_000.7])
def test_times_are_kept_as_they_are(start: float) -> None:
    chance = random.Random(1)
    entries = {(start + chance.random() * 100, chance.randrange(2**31)) for _ in range(1000)}
    index = EndedIndex()
    for entry in entries:
        index.insert(*entry)
    assert list(index) == sorted(entries)
    assert all(entry in index for entry in entries)
    some = sorted(entries)[500]
    assert list(index.latest(1000, some)) == sorted(entries)[499::-1]


def test_jobs_can_be_filed_many_at_a_time() -> None:
    chance = random.Random(3)
    entries = [(1000.0 + chance.randrange(500), chance.randrange(2000)) for _ in range(4000)]
    one_by_one, together = EndedIndex(), EndedIndex()
    for first in range(0, len(entries), 100):
        together.insert_many(entries[first : first + 100])
        for entry in entries[first : first + 100]:
            one_by_one.insert(*entry)
        assert len(together) == len(one_by_one) == len(set(entries[: first + 100]))
    assert list(together) == list(one_by_one) == sorted(set(entries))
    assert max(pages(together)) <= 2 * ENDED_PAGE_SIZE
    together.insert_many(entries)
    assert len(together) == len(set(entries))


def test_entries_go_into_small_pages(index: EndedIndex) -> None:
    for number in range(50 * ENDED_PAGE_SIZE):
        index.insert(100.0 + number, number)
    assert max(pages(index)) == ENDED_PAGE_SIZE
    assert [when for when, _ in index.latest(1000)] == [
        100.0 + number
        for number in range(50 * ENDED_PAGE_SIZE - 1, 50 * ENDED_PAGE_SIZE - 1001, -1)
    ]


def test_two_who_begin_another_page_meet(sides: tuple[Side, Side]) -> None:
    one, two = sides
    for number in range(3):
        one.index.insert(100.0 + number, number)
    one.manager.commit()
    two.manager.begin()
    for side, times in ((one, (1000.0, 1002.0)), (two, (1001.0, 1003.0))):
        for when in times:  # the second one would be in the page of the other side
            side.index.insert(when, 1)
    one.manager.commit()
    with pytest.raises(ConflictError):
        two.manager.commit()


def test_two_who_file_the_same_job_meet(sides: tuple[Side, Side]) -> None:
    one, two = sides
    for side in sides:
        side.index.insert(1000.0, 1)
    one.manager.commit()
    with pytest.raises(ConflictError):
        two.manager.commit()


def test_empty_pages_are_dropped_at_the_old_end_many_at_a_time(
    index: EndedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended, "ENDED_RUN", 2**31)  # one lane
    for number in range((SWEEP_SIZE + 3) * ENDED_PAGE_SIZE):
        index.insert(100.0 + number, number)
    before = len(pages(index))
    for entry in index.oldest((SWEEP_SIZE - 1) * ENDED_PAGE_SIZE):
        index.remove(*entry)
    index.sweep()
    assert len(pages(index)) == before
    rest = index.oldest(None)
    for entry in rest[:-1]:
        index.remove(*entry)
    index.sweep()
    assert len(pages(index)) <= before - SWEEP_SIZE
    index.insert(50.0, 5)  # older than what the first page was for
    assert list(index) == [(50.0, 5), rest[-1]]
    assert (50.0, 5) in index
    assert list(index.latest(5)) == [rest[-1], (50.0, 5)]
    index.remove(50.0, 5)
    assert list(index) == rest[-1:]


def test_times_of_a_clock_that_was_put_back_go_into_small_pages(
    index: EndedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended, "ENDED_RUN", 2**31)  # one lane
    for number in range((SWEEP_SIZE + 2) * ENDED_PAGE_SIZE):
        index.insert(9000.0 + number, number)
    for entry in index.oldest(None)[ENDED_PAGE_SIZE // 2 :]:
        index.remove(*entry)
    entries = [*index, *((100.0 + number, number) for number in range(20 * ENDED_PAGE_SIZE))]
    for entry in entries:
        index.insert(*entry)
    assert max(pages(index)) <= 2 * ENDED_PAGE_SIZE
    assert list(index) == sorted(entries)
    assert all(entry in index for entry in entries)


# -- two connections ---------------------------------------------------------------------------


class Side:
    """A connection to an index."""

    def __init__(self, db: ZODB.DB) -> None:
        self.manager = transaction.TransactionManager()
        self.connection = db.open(self.manager)

    @property
    def index(self) -> Any:
        return self.connection.root()["index"]


@pytest.fixture
def sides(db: ZODB.DB, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Side, Side]]:
    monkeypatch.setattr(ended, "ENDED_RUN", 2**31)  # one lane
    one, two = Side(db), Side(db)
    one.connection.root()["index"] = EndedIndex()
    for number in range(ENDED_PAGE_SIZE - 3):
        one.index.insert(10.0 + number, number)
    one.manager.commit()
    two.manager.begin()
    yield one, two
    for side in (one, two):
        side.manager.abort()
        side.connection.close()


def test_who_files_and_who_removes_do_not_collide(sides: tuple[Side, Side]) -> None:
    one, two = sides
    for entry in one.index.oldest(None):
        one.index.remove(*entry)
    two.index.insert(1000.0, 1)
    two.index.insert(5.0, 2)
    one.manager.commit()
    two.manager.commit()
    one.manager.begin()
    assert list(one.index) == [(5.0, 2), (1000.0, 1)]
    assert len(one.index) == 2


def test_two_that_file_in_one_page_do_not_collide(sides: tuple[Side, Side]) -> None:
    one, two = sides
    one.index.insert(1000.0, 1)
    two.index.insert(999.0, 2)
    one.manager.commit()
    two.manager.commit()
    assert list(two.index.latest(2)) == [(1000.0, 1), (999.0, 2)]


@pytest.mark.parametrize("is_first", [True, False])
def test_who_begins_a_page_collides_with_who_files_into_the_one_before(
    sides: tuple[Side, Side], is_first: bool
) -> None:
    one, two = sides
    for number in range(4):
        one.index.insert(1000.0 + number, number)
    two.index.insert(2000.0, 1)  # it would be looked for in the new page
    first, second = sides if is_first else sides[::-1]
    first.manager.commit()
    with pytest.raises(ConflictError):
        second.manager.commit()


@pytest.mark.parametrize("is_first", [True, False])
def test_nothing_is_put_into_a_page_that_is_dropped(
    sides: tuple[Side, Side], is_first: bool
) -> None:
    one, two = sides
    for number in range((SWEEP_SIZE + 2) * ENDED_PAGE_SIZE):
        one.index.insert(1000.0 + number, number)
    for entry in one.index.oldest((SWEEP_SIZE + 1) * ENDED_PAGE_SIZE):
        one.index.remove(*entry)
    one.manager.commit()
    two.manager.begin()
    one.index.sweep()
    two.index.insert(1000.5 + ENDED_PAGE_SIZE, 1)
    first, second = sides if is_first else sides[::-1]
    first.manager.commit()
    with pytest.raises(ConflictError):
        second.manager.commit()


def test_what_has_ended_is_counted_between_times() -> None:
    index = EndedIndex()
    index.insert_many((1000.0 + number / 10, 1 + number) for number in range(1000))
    edges = [1000.0, 1010.0, 1050.0, 1200.0]
    assert index.counts(edges, 1000) == ([100, 400, 500], True)
    for number in range(100):
        index.remove(1000.0 + number / 10, 1 + number)
    assert index.counts(edges, 1000) == ([0, 400, 500], True)
    assert index.counts([0.0, 999.0], 1000) == ([0], True)


def test_of_very_many_that_have_ended_some_pages_stand_for_all() -> None:
    index = EndedIndex()
    index.insert_many((1000.0 + number / 100, 1 + number) for number in range(20_000))
    counted, is_exact = index.counts([1000.0, 1100.0, 1200.0], 40)
    assert not is_exact
    for number in counted:
        assert 8_000 < number < 12_000
