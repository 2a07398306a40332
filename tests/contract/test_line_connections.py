# SPDX-License-Identifier: ZPL-2.1
"""The ready queue between two connections: no job is lost, and none is there twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from lovely.remotetask.interfaces import QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.queue import JobQueue
from lovely.remotetask.store.ready import SEGMENT_SIZE
from lovely.remotetask.store.tree import JobTree

NOW = 4e9  # later than any job was added


class Side:
    """One connection to a job queue."""

    def __init__(self, manager: transaction.TransactionManager, root: Any) -> None:
        self.manager = manager
        self.root = root

    def add(self, jobid: int, due: float | None = None) -> None:
        job = self.root["jobs"][jobid] = Job(jobid, "echo")
        job.due = due
        self.root["queue"].file(job)

    def waiting(self) -> list[int]:
        """The jobs that wait, as a pull finds them; it may close segments."""
        return [job.id for job in self.root["queue"].pull(self.root["jobs"], NOW)]

    def claim(self, count: int = 1) -> list[int]:
        claimed = []
        for job in self.root["queue"].pull(self.root["jobs"], NOW):
            self.root["queue"].remove(job)
            job.start("me", NOW)
            claimed.append(job.id)
            if len(claimed) == count:
                break
        return claimed

    def commit(self) -> bool:
        """Commit, and say whether there was no conflict."""
        try:
            self.manager.commit()
        except ConflictError:
            self.manager.abort()
            return False
        return True


@pytest.fixture
def sides(place: Any) -> Iterator[tuple[Side, Side]]:
    """Two connections to a queue."""
    with ExitStack() as stack:
        first, second = (Side(*stack.enter_context(place.connected())) for _ in range(2))
        first.root["jobs"] = JobTree()
        first.root["queue"] = JobQueue()
        first.manager.commit()
        second.manager.begin()
        yield first, second


def refresh(*sides: Side) -> None:
    for side in sides:
        side.manager.begin()


def check(side: Side, waiting: set[int]) -> None:
    refresh(side)
    found = side.waiting()
    assert sorted(found) == sorted(waiting)
    assert len(side.root["queue"]) == len(waiting)
    side.manager.abort()


# Each takes a side and returns how the set of waiting jobs changes when it is committed.


def add_one(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    jobid = next(ids)
    side.add(jobid)
    return {jobid}, set()


def add_many(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    jobids = [next(ids) for _ in range(SEGMENT_SIZE + 5)]
    for jobid in jobids:
        side.add(jobid)
    return set(jobids), set()


def add_due(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    jobid = next(ids)
    side.add(jobid, due=10.0)
    return {jobid}, set()


def claim_one(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    return set(), set(side.claim(1))


def claim_many(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    return set(), set(side.claim(SEGMENT_SIZE + 5))


def close(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    side.waiting()
    return set(), set()


def park(side: Side, ids: Iterator[int]) -> tuple[set[int], set[int]]:
    for job in side.root["queue"].pull(side.root["jobs"], NOW):
        if not isinstance(job.place, str):
            side.root["queue"].park(job)
            break
    return set(), set()


ACTIONS: list[Callable[..., Any]] = [add_one, add_many, add_due, claim_one, claim_many, close, park]


def named(action: Any) -> str:
    return str(action.__name__) if callable(action) else str(action)


@pytest.mark.parametrize("waiting", [0, 1, SEGMENT_SIZE + 3])
@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations_with_replacement(ACTIONS, 2)), ids=named
)
def test_whatever_two_connections_do_no_job_is_lost(
    sides: tuple[Side, Side], one: Any, other: Any, waiting: int
) -> None:
    first, second = sides
    ids = itertools.count(1)
    done = list(itertools.islice(ids, SEGMENT_SIZE))
    for jobid in done:
        first.add(jobid)
    assert first.claim(SEGMENT_SIZE) == done  # so a used-up segment stands in front of it all
    first.commit()
    there = set(itertools.islice(ids, waiting))
    for jobid in sorted(there):
        first.add(jobid)
    first.commit()
    refresh(*sides)
    for side, action in zip(sides, (one, other), strict=True):
        side.change = action(side, ids)  # type: ignore[attr-defined]
    for side in sides:
        if side.commit():
            added, taken = side.change  # type: ignore[attr-defined]
            there = (there | added) - taken
    check(first, there)
    check(second, there)
    # What is there can be claimed, by whomever.
    claimed = first.claim(len(there) + 1)
    assert sorted(claimed) == sorted(there)
    assert first.commit()
    check(second, set())


def test_adding_to_a_segment_collides_with_its_closing(sides: tuple[Side, Side]) -> None:
    first, second = sides
    first.add(1)
    first.commit()
    refresh(*sides)
    first.add(2)  # into the last segment, as far as this connection knows
    for jobid in range(100, 100 + SEGMENT_SIZE):
        second.add(jobid)  # opens another one
    assert second.commit()
    second.claim(SEGMENT_SIZE)
    assert second.commit()
    second.waiting()  # finds the first one used up, and closes it
    assert second.commit()
    there = {100 + SEGMENT_SIZE - 1}
    if first.commit():
        there.add(2)
    check(first, there)
    check(second, there)


def test_two_claims_of_the_same_job_collide(sides: tuple[Side, Side]) -> None:
    first, second = sides
    first.add(1)
    first.commit()
    refresh(*sides)
    assert first.claim() == second.claim() == [1]
    assert first.commit()
    assert not second.commit()


def test_claims_of_different_jobs_do_not_collide(sides: tuple[Side, Side]) -> None:
    first, second = sides
    for jobid in (1, 2):
        first.add(jobid)
    first.commit()
    refresh(*sides)
    first.claim(1)
    queue, jobs = second.root["queue"], second.root["jobs"]
    queue.remove(jobs[2])
    jobs[2].start("me", 1.0)
    assert first.commit()
    assert second.commit()
    check(first, set())


def test_adding_beside_a_claim_does_not_collide(sides: tuple[Side, Side]) -> None:
    first, second = sides
    first.add(1)
    first.commit()
    refresh(*sides)
    second.claim()
    first.add(2)
    assert second.commit()
    assert first.commit()
    check(second, {2})


def test_adders_in_two_connections_do_not_collide(sides: tuple[Side, Side]) -> None:
    first, second = sides
    first.add(1)
    first.commit()
    for round in range(2, 30):
        refresh(*sides)
        first.add(round)
        second.add(round + 1000)
        assert first.commit()
        assert second.commit()
    check(first, {*range(1, 30), *range(1002, 1030)})


def test_adders_in_different_lanes_write_nothing_in_common(sides: tuple[Side, Side]) -> None:
    for round in range(3 * SEGMENT_SIZE):
        refresh(*sides)
        written = []
        for number, side in enumerate(sides):
            side.add(number * 2**27 + round)
            written.append({obj._p_oid for obj in side.root._p_jar._registered_objects})
        assert not written[0] & written[1]
        for side in sides:
            assert side.commit()
    check(sides[0], {n * 2**27 + round for n in (0, 1) for round in range(3 * SEGMENT_SIZE)})


def test_the_order_is_kept_across_connections(sides: tuple[Side, Side]) -> None:
    for number in range(3 * SEGMENT_SIZE):
        side = sides[number % 2]
        refresh(side)
        side.add(number)
        assert side.commit()
    refresh(*sides)
    for side in sides:
        assert side.waiting() == list(range(3 * SEGMENT_SIZE))


def test_jobs_that_leave_are_noticed_by_the_other_connection(sides: tuple[Side, Side]) -> None:
    first, second = sides
    for jobid in range(10):
        first.add(jobid)
    first.commit()
    refresh(second)
    assert second.waiting() == list(range(10))
    second.manager.abort()
    first.claim(4)
    first.commit()
    refresh(second)
    assert second.waiting() == list(range(4, 10))


def test_a_signal_changes_when_a_job_is_added_elsewhere(sides: tuple[Side, Side]) -> None:
    first, second = sides

    def signals() -> list[bytes]:
        refresh(second)
        found = second.root["queue"].signals
        for signal in found:
            signal._p_activate()
        return [signal._p_serial for signal in found]

    before = signals()
    refresh(first)
    first.root["something else"] = 1
    first.commit()
    assert signals() == before
    first.add(1)
    first.commit()
    after = signals()
    assert after != before
    refresh(first)
    first.add(2, due=5.0)
    first.commit()
    assert signals() != after
    assert first.root["jobs"][2].status == QUEUED
