# SPDX-License-Identifier: ZPL-2.1
"""Threads that add jobs while others work on them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.processor import MultiProcessor, SimpleProcessor

pytestmark = pytest.mark.race

ADDERS = 4
JOBS_EACH = 60


class Adders:
    """Threads with plain ``add; commit`` loops, which never repeat anything."""

    def __init__(self, arena: Any, jobs_each: int = JOBS_EACH) -> None:
        self.arena = arena
        self.jobs_each = jobs_each
        self.acknowledged: list[int] = []
        self.conflicts: list[str] = []
        self._barrier = threading.Barrier(ADDERS)

    def run(self) -> None:
        for number in range(ADDERS):
            self.arena.spawn(self._add, number * self.jobs_each)
        self.arena.join()

    def _add(self, first: int) -> None:
        with self.arena.connected() as (manager, root):
            self._barrier.wait()
            for number in range(first, first + self.jobs_each):
                manager.begin()
                root["tasks"].add("count", number)
                try:
                    manager.commit()
                except ConflictError as error:
                    manager.abort()
                    self.conflicts.append(str(error))
                else:
                    self.acknowledged.append(number)


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


@pytest.mark.parametrize("is_drained", [True, False])
def test_adders_do_not_conflict(arena: Any, is_drained: bool) -> None:
    if is_drained:
        arena.work()
    adders = Adders(arena)
    adders.run()
    arena.rest()
    assert not adders.conflicts, Counter(adders.conflicts)


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


def test_jobs_that_jobs_add_all_run(arena: Any) -> None:
    from zope.component import getGlobalSiteManager

    from lovely.remotetask.interfaces import ITask
    from lovely.remotetask.task import SimpleTask

    def multiply(context: Any, number: int) -> None:
        effects = context.service._p_jar.root()["effects"]
        effects[number] = effects.get(number, 0) + 1
        if number < 100:
            for digit in (0, 1, 2):
                context.service.add("multiply", number * 10 + digit)

    getGlobalSiteManager().registerUtility(
        SimpleTask(multiply, context=True), ITask, name="multiply"
    )
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
