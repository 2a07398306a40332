# SPDX-License-Identifier: ZPL-2.1
"""Processes that share each of the storages, by both doors, and are killed."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from storages import Storage, over

pytestmark = pytest.mark.acceptance

WORKERS = 3
TASKS = "effect,shared,slow,twice"


@pytest.fixture
def shared_plant(plant: Any, storage: Storage) -> Any:
    """A plant around a storage."""
    return plant(storage.url)


# What ZEO does with a server that knows the classes is in all the other modules here.
@pytest.mark.parametrize(
    ("storage", "door"),
    [
        ("bare zeo", "tasks"),
        ("bare zeo", "remote"),
        ("postgresql", "tasks"),
        ("postgresql", "remote"),
        ("postgresql with history", "tasks"),
        ("sqlite", "tasks"),
        ("sqlite with history", "remote"),
    ],
    indirect=True,
)
def test_processes_share_the_jobs_and_rescue_those_of_a_killed_one(
    shared_plant: Any, jobs: int, judge: Any, until: Any
) -> None:
    plant = shared_plant
    victim = plant.start("--process", "--lease", "1.0")
    plant.bury(plant.start(*plant.producing(1, "stuck")))
    until(plant.executions, "the worker to be woken")
    plant.kill(victim)
    workers = [plant.start("--process") for _ in range(2)]
    producers = [plant.start(*plant.producing(max(jobs // 3, 50), TASKS)) for _ in range(2)]
    until(lambda: len({pid for _, pid, _ in plant.executions()}) == 3, "both workers to work")
    for producer in producers:
        assert plant.bury(producer, 300) == 0
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    judge(plant, found)
    runs = [pid for number, pid, _ in plant.executions() if number == 0]
    assert len(runs) == 2
    assert runs[0] == victim.pid != runs[1]


@over("zeo", "postgresql", "sqlite")
@pytest.mark.parametrize("door", ["tasks"], indirect=True)
def test_a_schedule_fires_once_a_slot_whatever_is_killed(
    shared_plant: Any, chance: random.Random, until: Any
) -> None:
    plant = shared_plant
    origin = time.time()
    clock = ("--clock", str(origin), "120")  # a minute is half a second
    plant.dismiss(plant.start("--lease", "0.5", "--schedule", "* * * * *", *clock))
    workers = [plant.start("--process", *clock) for _ in range(WORKERS)]
    for number in range(6):
        time.sleep(chance.uniform(0.1, 1.0))
        plant.kill(workers.pop(0))
        crash = ("--crash", f"{chance.choice(['claim', 'run'])}:before:2") if number % 2 else ()
        workers.append(plant.start("--process", *clock, *crash, is_ready=False))
    fired = len(plant.executions())
    workers.append(plant.start("--process", *clock))
    until(lambda: len(plant.executions()) >= fired + 4, "the schedule to go on")
    for worker in list(plant.running):
        plant.kill(worker)
    found = plant.finish(seconds=0)  # the last one may have been killed in the middle of a run
    assert all(count == 1 for _, count in found["ticks"]), found["ticks"]
    minutes = [slot // 60 for slot, _ in found["ticks"]]
    assert len(minutes) == len(set(minutes)), "a slot fired twice"
    assert not found["errors"]
    assert len(minutes) >= 4
