# SPDX-License-Identifier: ZPL-2.1
"""Schedulers and workers in processes of their own, which are killed, and so is their server.

Whether a slot was taken once is read off the history of the database: each transaction that has
moved an item on has added one job of it, and no item has ever gone back.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from doors import TickJob
from history import states, transactions
from lovely.remotetask.remote.scheduler import Delay

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.parametrize("door", ["remote"], indirect=True),
]

WORKERS = 4
SCHEDULERS = 2
DELAYS = "0.2,0.2,0.3,0.5,0.5,0.7,1.1"
TASKS = "effect,slow,twice"


def slots(path: Path) -> Counter[int]:
    """Return how many slots of each item were taken, by the input of its jobs.

    It fails where one was taken without a job, or with more than one, or twice.
    """
    at: dict[bytes, Any] = {}
    taken: Counter[int] = Counter()
    known: set[bytes] = set()
    for transaction in transactions(path):
        moved: Counter[int] = Counter()
        for oid, state in states(transaction, Delay):
            when = state["nextCallTime"]
            if oid in at and when != at[oid]:
                assert when > at[oid], "an item went back"
                moved[state["input"]] += 1
            at[oid] = when
        jobs = {oid: state.get("input") for oid, state in states(transaction, TickJob)}
        added = Counter(input for oid, input in jobs.items() if oid not in known and input)
        known.update(jobs)
        assert moved == added, "a slot and its job are one commit"
        taken += moved
    return taken


def test_no_slot_and_no_job_is_taken_twice_and_none_is_lost_whoever_is_killed(
    plant: Any, zeo_server: Any, jobs: int, chance: random.Random, judge: Any, until: Any
) -> None:
    server = zeo_server()
    plant = plant(f"zeo:{server.address[1]}")
    plant.dismiss(plant.start("--schedule", DELAYS))
    running = {
        "--process": [plant.start("--process") for _ in range(WORKERS)],
        "--scheduler": [plant.start("--scheduler") for _ in range(SCHEDULERS)],
    }
    producer = plant.start(*plant.producing(jobs, TASKS))
    for number in range(6 + jobs // 50):
        time.sleep(chance.uniform(0.1, 0.7))
        if number % 4 == 3:
            server.kill()
            plant.kills["server"] += 1
            time.sleep(chance.uniform(0, 0.3))
            server.start()
        role = "--scheduler" if number % 2 else "--process"
        victim = running[role].pop(chance.randrange(len(running[role])))
        if number % 3:
            plant.kill(victim)
            victim = plant.start(role, is_ready=False)
        else:
            victim.send_signal(signal.SIGSTOP)
            plant.kills["SIGSTOP"] += 1
            time.sleep(chance.uniform(0.1, 0.5))
            victim.send_signal(signal.SIGCONT)
        running[role].append(victim)
    plant.bury(producer, 600)
    ticks = len(plant.executions())
    until(lambda: len(plant.executions()) > ticks + 8, "the schedulers to go on")
    for scheduler in running["--scheduler"]:
        assert plant.dismiss(scheduler) == 0
    found = plant.finish()
    for worker in running["--process"]:
        assert plant.dismiss(worker) == 0
    server.stop()
    judge(plant, found)
    taken = slots(server.directory / "Data.fs")
    ran = [count for _, count in found["ticks"]]
    print(f"{sum(taken.values())} slots of {len(taken)} items, {len(ran)} jobs of them have run")
    assert set(ran) == {1}
    assert len(ran) == sum(taken.values())
    assert len(taken) == len(DELAYS.split(","))
