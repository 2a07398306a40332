# SPDX-License-Identifier: ZPL-2.1
"""Rivals that work on jobs with locks, limits and unique keys."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.store.check import check_all

pytestmark = pytest.mark.race

KINDS = [SimpleProcessor, MultiProcessor]
ADDERS = 3


class Watch:
    """A task that sees how many of its jobs run at once, by a part of their input."""

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self.order: dict[str, list[int]] = defaultdict(list)
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, input: tuple[str, int]) -> int:
        group, number = input
        with self._lock:
            self._now[group] += 1
            self.most[group] = max(self.most[group], self._now[group])
            self.order[group].append(number)
        threading.Event().wait(0.001)  # lets others run
        with self._lock:
            self._now[group] -= 1
        return number


@pytest.fixture
def watch(register: Any) -> Watch:
    watch = Watch()
    register("watch", watch)
    return watch


def check_books(arena: Any) -> None:
    arena.rest()
    arena.check_books()
    with arena.connected() as (_, root):
        service = root["tasks"]
        assert check_all(service, 0.0, repair=False) == []
        queue = service.queue
        assert not list(queue.keys or ())
        if queue.gates is not None:
            assert not list(queue.gates.slots)
            assert not list(queue.gates.lots)


def add(arena: Any, rng: random.Random, group: str, number: int, **options: Any) -> int:
    while True:
        try:
            with arena.transaction() as root:
                jobid: int = root["tasks"].add("watch", (group, number), **options)
                return jobid
        except ConflictError:
            rng.random()


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_with_a_lock_run_one_at_a_time_and_in_order(
    arena: Any, watch: Watch, kind: Any
) -> None:
    for _ in range(3):
        arena.work(kind)
    groups = [f"desk {number}" for number in range(4)]

    def produce(group: str) -> None:
        rng = random.Random(group)
        for number in range(40):
            add(arena, rng, group, number, lock=group)

    for group in groups:
        arena.spawn(produce, group)
    arena.join()
    arena.wait_until_drained()
    assert dict(watch.most) == dict.fromkeys(groups, 1)
    for group in groups:  # a run that met a conflict was repeated at once
        assert list(dict.fromkeys(watch.order[group])) == list(range(40))
    check_books(arena)


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_is_never_exceeded(arena: Any, watch: Watch, kind: Any) -> None:
    with arena.transaction() as root:
        root["tasks"].limits = {"watch": 2}
    for _ in range(3):
        arena.work(kind)

    def produce(first: int) -> None:
        rng = random.Random(first)
        for number in range(first, first + 40):
            add(arena, rng, "all", number, priority=number % 2)

    for adder in range(ADDERS):
        arena.spawn(produce, adder * 100)
    arena.join()
    arena.wait_until_drained()
    assert watch.most["all"] <= 2
    assert len(set(watch.order["all"])) == ADDERS * 40
    check_books(arena)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_never_more_than_one_job_with_a_key(arena: Any, watch: Watch, kind: Any) -> None:
    with arena.transaction() as root:
        root["tasks"].retention = {"completed": Retention(max_count=20)}
    for _ in range(2):
        arena.work(kind)
    ids: list[int] = []

    def produce(adder: int) -> None:
        rng = random.Random(adder)
        for number in range(60):
            key = f"key {number % 3}"
            ids.append(add(arena, rng, key, number, unique_key=key))

    for adder in range(ADDERS):
        arena.spawn(produce, adder)
    arena.join()
    arena.wait_until_drained()
    assert set(watch.most.values()) == {1}
    assert len(ids) == ADDERS * 60
    assert sum(map(len, watch.order.values())) >= len(set(ids))
    check_books(arena)


def test_stops_and_starts_leave_nobody_waiting_for_a_lock(arena: Any, watch: Watch) -> None:
    rng = random.Random(1)
    for number in range(120):
        group = f"desk {number % 3}"
        add(arena, rng, group, number, lock=group)
    for round in range(6):
        arena.work(KINDS[round % 2])
        arena.work(KINDS[round % 2])
        threading.Event().wait(0.02)
        arena.rest()
    arena.work()
    arena.wait_until_drained()
    assert set(watch.most.values()) == {1}
    assert sum(len(set(numbers)) for numbers in watch.order.values()) == 120
    check_books(arena)
