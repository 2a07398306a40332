# SPDX-License-Identifier: ZPL-2.1
"""People who pause, resume, repeat and hurry jobs while workers are at them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy

pytestmark = pytest.mark.race


@pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])
def test_jobs_run_once_however_often_they_are_paused(arena: Any, kind: Any) -> None:
    jobids = []
    for _ in range(3):
        arena.work(kind)
    for number in range(40):
        task = [None, "count", "linger"][number % 3]
        arena.retried(lambda root, task=task: root["tasks"].pause(task))
        jobids += arena.add(5, ["count", "linger"][number % 2], start=number * 5)
        arena.retried(lambda root, task=task: root["tasks"].resume(task))
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys(range(200), 1)
    assert set(arena.statuses().values()) == {COMPLETED}
    arena.check_books()
    arena.check_clean()


def test_a_paused_task_is_not_run_by_anybody(arena: Any, until: Any) -> None:
    arena.retried(lambda root: root["tasks"].pause("count"))
    for _ in range(3):
        arena.work()
    jobids = arena.add(50)
    others = arena.add(50, "linger", start=50)
    until(lambda: all(arena.statuses()[jobid] == COMPLETED for jobid in others), "the others")
    assert not set(arena.effects()) & set(range(50))
    arena.retried(lambda root: root["tasks"].resume("count"))
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys(range(100), 1)
    assert len(jobids) == 50
    arena.check_books()
    arena.check_clean()


def test_what_is_repeated_and_hurried_has_its_effect_once(arena: Any, register: Any) -> None:
    rests = dict.fromkeys(range(60), 3)

    def stumble(context: Any, input: int) -> int:
        rests[input] -= 1
        if rests[input] >= 0:
            raise TaskError if rests[input] % 2 else ValueError
        effects = context.service._p_jar.root()["effects"]
        effects[input] = effects.get(input, 0) + 1
        return input

    register("stumble", stumble, context=True, retry=RetryPolicy(2, 3600.0))
    jobids = arena.add(60, "stumble")
    for _ in range(3):
        arena.work()

    def hurry(root: Any, jobid: int) -> None:
        service = root["tasks"]
        job = service.job(jobid)
        if job.status == ERROR:
            service.retry(jobid)
        elif job.due is not None:
            service.run_now(jobid)

    def interfere(seed: int) -> None:
        chance = random.Random(seed)
        while any(status != COMPLETED for status in arena.statuses().values()):
            try:
                with arena.transaction() as root:
                    hurry(root, chance.choice(jobids))
            except (ConflictError, InvalidArgument):
                continue

    for seed in range(2):
        arena.spawn(interfere, seed)
    arena.join()
    arena.rest()
    assert arena.effects() == dict.fromkeys(range(60), 1)
    arena.check_books()
    arena.check_clean()
