# SPDX-License-Identifier: ZPL-2.1
"""Threads that add jobs while others work on them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.store import ended, ready
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.tree import MAX_JOB_ID

pytestmark = pytest.mark.race

ADDERS = 4
JOBS_EACH = 60


class Adders:
    """Threads with plain ``add; commit`` loops, which never repeat anything.

    Each begins in a lane of its own: chance would now and then let two draw the same one.
    """

    def __init__(self, arena: Any, jobs_each: int = JOBS_EACH, together: int = 1) -> None:
        self.arena = arena
        self.together = together
        self.jobs_each = jobs_each
        self.acknowledged: list[int] = []
        self.conflicts: list[str] = []
        self._barrier = threading.Barrier(ADDERS)

    def run(self) -> None:
        for number in range(ADDERS):
            self.arena.spawn(self._add, number * self.jobs_each, 1 + number * MAX_JOB_ID // ADDERS)
        self.arena.join()

    def _add(self, first: int, first_id: int) -> None:
        with self.arena.connected() as (manager, root):
            root["tasks"]._v_next_id = first_id
            self._barrier.wait()
            for start in range(first, first + self.jobs_each, self.together):
                numbers = range(start, start + self.together)
                manager.begin()
                if self.together == 1:
                    root["tasks"].add("count", start)
                else:
                    root["tasks"].add_many("count", numbers)
                try:
                    manager.commit()
                except ConflictError as error:
                    manager.abort()
                    self.conflicts.append(str(error))
                else:
                    self.acknowledged.extend(numbers)


@pytest.mark.parametrize("factory", [SimpleProcessor, MultiProcessor])
def test_no_acknowledged_job_is_lost_while_a_processor_drains(arena: Any, factory: Any) -> None:
    arena.work(factory)
    adders = Adders(arena)
    adders.run()
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys(adders.acknowledged, 1)
    arena.check_books()
    arena.check_clean()


@pytest.fixture
def small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that happens seldom happen often."""
    monkeypatch.setattr(ready, "GENERATION_SIZE", 2)
    monkeypatch.setattr(ready, "SEGMENT_SIZE", 4)
    monkeypatch.setattr(ended, "ENDED_PAGE_SIZE", 8)
    monkeypatch.setattr(ended, "SWEEP_SIZE", 4)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("together", "jobs_each"), [(1, JOBS_EACH), (50, 1000)])
@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.usefixtures("small_generations")
def test_adders_do_not_conflict(
    arena: Any, workers: int, together: int, jobs_each: int, is_shared: bool
) -> None:
    arena.task("count").shared_commit = is_shared
    with arena.transaction() as root:
        root["tasks"].retention = {"completed": Retention(None, 10)}
    for _ in range(workers):
        arena.work()
    adders = Adders(arena, jobs_each, together)
    adders.run()
    arena.wait_until_drained() if workers else None
    arena.rest()
    assert not adders.conflicts, Counter(adders.conflicts)
    if workers:
        assert arena.effects() == dict.fromkeys(adders.acknowledged, 1)
        arena.check_books()


@pytest.mark.usefixtures("small_generations")
def test_cleaning_conflicts_neither_with_workers_nor_with_adders(arena: Any) -> None:
    for _ in range(2):
        arena.work()
    conflicts = []
    over = threading.Event()

    def clean() -> None:
        with arena.connected() as (manager, root):
            while not over.wait(0.002):
                manager.begin()
                root["tasks"].clean()
                try:
                    manager.commit()
                except ConflictError as error:
                    manager.abort()
                    conflicts.append(str(error))

    adders = Adders(arena, 3 * JOBS_EACH)
    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        adders.run()
        arena.wait_until_drained()
    finally:
        over.set()
        cleaner.join()
    arena.rest()
    assert arena.effects() == dict.fromkeys(adders.acknowledged, 1)
    assert not conflicts, Counter(conflicts)
    assert not adders.conflicts, Counter(adders.conflicts)
    arena.check_books()
    with arena.connected() as (_, root):
        assert check_all(root["tasks"], time.time(), repair=False) == []
    arena.check_clean()


def test_no_acknowledged_job_is_lost_between_rival_processors(arena: Any) -> None:
    for factory in (SimpleProcessor, MultiProcessor, SimpleProcessor):
        arena.work(factory)
    adders = Adders(arena)
    adders.run()
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys(adders.acknowledged, 1)
    arena.check_books()


def test_jobs_of_aborted_transactions_never_run(arena: Any) -> None:
    arena.work()

    def add(first: int) -> None:
        with arena.connected() as (manager, root):
            for number in range(first, first + 40):
                manager.begin()
                root["tasks"].add("count", number)
                if number % 2:
                    manager.abort()
                else:
                    with_conflicts_repeated(manager, root, number)

    def with_conflicts_repeated(manager: Any, root: Any, number: int) -> None:
        while True:
            try:
                return manager.commit()
            except ConflictError:
                manager.abort()
                root["tasks"].add("count", number)

    for first in (0, 1000, 2000):
        arena.spawn(add, first)
    arena.join()
    arena.wait_until_done()
    expected = {first + n for first in (0, 1000, 2000) for n in range(0, 40, 2)}
    assert arena.effects() == dict.fromkeys(expected, 1)


def test_jobs_that_jobs_add_all_run(arena: Any, register: Any) -> None:
    def multiply(context: Any, number: int) -> None:
        effects = context.service._p_jar.root()["effects"]
        effects[number] = effects.get(number, 0) + 1
        if number < 100:
            for digit in (0, 1, 2):
                context.service.add("multiply", number * 10 + digit)

    register("multiply", multiply, context=True)
    for _ in range(3):
        arena.work()
    with arena.transaction() as root:
        root["tasks"].add("multiply", 1)
    arena.wait_until_done()
    arena.rest()
    tens = [10, 11, 12]
    expected = [1, *tens, *(ten * 10 + digit for ten in tens for digit in (0, 1, 2))]
    assert arena.effects() == dict.fromkeys(expected, 1)
    arena.check_books()
