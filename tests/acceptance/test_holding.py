# SPDX-License-Identifier: ZPL-2.1
"""Jobs of which only so many may run at once, with workers and adders that are killed."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from doors import LIMIT, most_at_once

pytestmark = pytest.mark.acceptance

TASKS = "locked,limited,unique"
WORKERS = 3


@pytest.mark.parametrize("door", ["tasks"], indirect=True)
@pytest.mark.parametrize("factory", ["simple", "multi"])
def test_killed_workers_and_adders_never_let_too_many_run_at_once(
    plant: Any, zeo_server: Any, jobs: int, chance: random.Random, judge: Any, factory: str
) -> None:
    plant = plant(f"zeo:{zeo_server().address[1]}")
    plant.dismiss(plant.start("--factory", factory))
    workers = [plant.start("--process") for _ in range(WORKERS)]
    ends: dict[int, float] = {}

    def kill(process: Any) -> None:
        plant.kill(process)
        ends[process.pid] = time.monotonic()

    adders = [plant.start(*plant.producing(jobs // 2, TASKS)) for _ in range(3)]
    for number in range(4 + jobs // 200):
        time.sleep(chance.uniform(0.05, 0.8))
        kill(workers.pop(chance.randrange(len(workers))))
        workers.append(plant.start("--process", is_ready=False))
        if number == 1:
            kill(adders.pop())
            adders.append(plant.start(*plant.producing(jobs // 2, TASKS)))
    for adder in adders:
        plant.bury(adder, 600)
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    judge(plant, found)
    most = most_at_once(plant.directory / "intervals.log", ends)
    assert most.pop("limit") <= LIMIT
    assert set(most.values()) == {1}, most
    assert len(most) == 9
