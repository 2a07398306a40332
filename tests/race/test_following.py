# SPDX-License-Identifier: ZPL-2.1
"""Jobs that wait for others, and groups, while many add, run, cancel and repeat."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.errors import InvalidArgument, JobNotFound, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor

pytestmark = pytest.mark.race

#: The tasks of groups leave as their effect so much more than their number.
END = 10_000


@pytest.fixture(autouse=True)
def tasks(arena: Any, register: Any) -> None:
    """*ordered* fails if it runs too early; *end* does, and counts the members of its group."""

    def ordered(context: Any, input: int) -> int:
        for jobid in context.job.after:
            status = context.service.getStatus(jobid)
            assert status == COMPLETED, f"job {jobid} is {status}"
        count: int = arena._count(context, input)
        return count

    def end(context: Any, input: int) -> int:
        assert context.group.is_ended
        arena._count(context, END + input)
        done: int = context.group.done
        return done

    def picky(context: Any, input: int) -> int:
        if input % 7 == 3:
            raise TaskError("no")
        count: int = arena._count(context, input)
        return count

    register("ordered", ordered, context=True)
    register("end", end, context=True)
    register("picky", picky, context=True)
    register("shared", picky, context=True, shared_commit=True)


def finish(arena: Any) -> None:
    """Wait until all has ended, and check the books."""
    arena.wait_until_drained()
    arena.rest()
    arena.check_books()
    assert all(count == 1 for count in arena.effects().values())


def _add_ordered(input: int, after: list[int], root: Any) -> int:
    jobid: int = root["tasks"].add("ordered", input, after=after)
    return jobid


@pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])
def test_followers_that_are_added_while_jobs_run_run_after_them(arena: Any, kind: Any) -> None:
    for _ in range(3):
        arena.work(kind)

    def add(seed: int) -> None:
        chance = random.Random(seed)
        jobids: list[int] = []
        for number in range(40):
            after = chance.sample(jobids[-6:], min(len(jobids), chance.randrange(3)))
            jobids.append(arena.retried(partial(_add_ordered, 1000 * seed + number, after)))

    for seed in range(3):
        arena.spawn(add, seed)
    arena.join()
    finish(arena)
    assert len(arena.effects()) == 120
    assert set(arena.statuses().values()) == {COMPLETED}
    arena.check_clean()


def test_what_is_cancelled_lets_those_fail_who_are_just_added(arena: Any) -> None:
    for _ in range(2):
        arena.work()
    firsts: list[int] = []
    followers: dict[int, int] = {}

    def add(seed: int) -> None:
        for number in range(seed * 1000, seed * 1000 + 40):
            first = add_one("linger", number)
            firsts.append(first)
            for part in (100, 200):
                followers[add_one("ordered", part + number, after=first)] = first

    def add_one(task: str, input: int, **options: Any) -> int:
        jobid: int = arena.retried(lambda root: root["tasks"].add(task, input, **options))
        return jobid

    def cancel() -> None:
        chance = random.Random(5)
        for _ in range(150):
            if firsts:
                victim = chance.choice(firsts[-4:])
                arena.retried(lambda root, victim=victim: root["tasks"].cancel(victim))

    for seed in range(2):
        arena.spawn(add, seed)
    arena.spawn(cancel)
    arena.join()
    finish(arena)
    statuses = arena.statuses()
    assert {statuses[first] for first in firsts} <= {COMPLETED, CANCELLED}
    for follower, first in followers.items():
        assert (statuses[follower] == COMPLETED) == (statuses[first] == COMPLETED)


@pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])
def test_each_group_ends_once(arena: Any, kind: Any) -> None:
    for _ in range(3):
        arena.work(kind)
    groups: list[tuple[int, int]] = []

    def add(seed: int) -> None:
        for number in range(8):
            size = (0, 1, 2, 30)[number % 4]
            inputs = range(1000 * seed + 50 * number, 1000 * seed + 50 * number + size)
            task = ("picky", "shared")[number % 2]
            groupid = arena.retried(
                lambda root, inputs=inputs, task=task, end=1000 * seed + number: root[
                    "tasks"
                ].add_group(task, inputs, ("end", end))
            )
            groups.append((groupid, size))

    def meddle() -> None:
        chance = random.Random(7)
        for _ in range(100):
            groupid, size = chance.choice(groups or [(0, 0)])
            if size:
                try:
                    with arena.transaction() as root:
                        service = root["tasks"]
                        member = chance.choice(list(service.group(groupid)))
                        if member.status == ERROR:
                            service.retry(member.jobid)
                        else:
                            service.cancel(member.jobid)
                except (ConflictError, InvalidArgument, JobNotFound):
                    continue

    for seed in range(3):
        arena.spawn(add, seed)
    arena.spawn(meddle)
    arena.join()
    finish(arena)
    effects = arena.effects()
    assert sum(number >= END for number in effects) == len(groups) == 24
    with arena.service() as service:
        for groupid, size in groups:
            group = service.group(groupid)
            assert (group.total, group.done, group.is_ended) == (size, size, True)
            counted = [group.completed, group.errors, group.cancelled]
            statuses = [member.status for member in group]
            assert counted == [statuses.count(each) for each in (COMPLETED, ERROR, CANCELLED)]
            assert service.getResult(groupid) == size
    arena.check_clean()


def test_workers_that_share_a_large_group_end_it_once(arena: Any) -> None:
    with arena.service() as service:
        groupid = service.add_group("shared", range(800), ("end", 0))
    for _ in range(3):
        arena.work()
    finish(arena)
    with arena.service() as service:
        group = service.group(groupid)
        assert (group.total, group.done) == (800, 800)
        assert service.getStatus(groupid) == COMPLETED
    assert arena.effects()[END] == 1
