# SPDX-License-Identifier: ZPL-2.1
"""Jobs that follow others, and groups, whose workers and adders are killed."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from doors import CRASHED

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.parametrize("door", ["tasks"], indirect=True),
]

WORKERS = 3
STEPS = ("claim", "run", "record", "rescue")

#: A bundle has more than twenty jobs.
BUNDLE_SIZE = 20


@pytest.fixture
def following_plant(plant: Any) -> Any:
    """Return a function that makes a plant whose processes run the program of these tests."""

    def make(url: str) -> Any:
        made = plant(url)
        made.program = Path(__file__).with_name("following_program.py")
        return made

    return make


def judge(plant: Any, found: dict[str, Any], name: str) -> dict[str, int]:
    """Check that all follows once, and nothing too early; return the figures."""
    acknowledged = plant.acknowledged()
    assert found["problems"] == []
    status = {input: status for input, status, _ in found["jobs"]}
    twice = [input for input, count in Counter(i for i, _, _ in found["jobs"]).items() if count > 1]
    assert twice == [], "a job is there twice"
    bundles = {int(input.split()[0]) for input in status}
    assert bundles >= set(acknowledged), "a bundle was lost"
    effects = found["effects"]
    for number in bundles:
        expected = dict.fromkeys((f"{number} {trace}" for trace in found["traces"]), "completed")
        if number not in acknowledged:  # the last job may not have been added
            expected[f"{number} late"] = status.get(f"{number} late", "")
        expected[f"{number} fail"] = expected[f"{number} never"] = "error"
        for place in range(found["members"]):
            expected[f"{number} {place}"] = "error" if place == 3 else "completed"
        there = {input: status.get(input, "") for input in expected}
        assert there == expected, [row for row in found["jobs"] if row[2]]
        for input, outcome in expected.items():
            assert effects.get(input, 0) == (outcome == "completed"), input
    errors = [
        error for input, _, error in found["jobs"] if input.split()[1] in found["traces"] and error
    ]
    assert errors == []
    assert set(map(tuple, found["groups"])) <= {(found["members"] - 1, 1, 0, True)}
    figures = {"acknowledged": len(acknowledged), "bundles": len(bundles), "jobs": len(status)}
    figures.update({f"x {what}": count for what, count in sorted(plant.kills.items())})
    print(f"\n{name}: {figures}")
    return figures


@pytest.mark.parametrize("factory", ["simple", "multi"])
def test_killed_workers_and_adders_lose_nothing_that_follows(
    following_plant: Any, zeo_server: Any, jobs: int, chance: random.Random, factory: str
) -> None:
    plant = following_plant(f"zeo:{zeo_server().address[1]}")
    plant.dismiss(plant.start("--factory", factory))
    count = max(2, jobs // BUNDLE_SIZE // 3)
    workers = [plant.start("--process") for _ in range(WORKERS)]
    producers = [plant.start(*plant.producing(count, "")[:3]) for _ in range(3)]
    for number in range(4 + jobs // 200):
        time.sleep(chance.uniform(0.05, 0.8))
        victim = workers.pop(chance.randrange(len(workers)))
        plant.kill(victim)
        workers.append(plant.start("--process", is_ready=False))
        if number % 3 == 1:
            plant.kill(producers.pop())
            producers.append(plant.start(*plant.producing(count, "")[:3], is_ready=False))
    for producer in producers:
        plant.bury(producer, 600)
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    figures = judge(plant, found, f"killed workers and adders, {factory}")
    assert figures["acknowledged"]


def test_a_crash_before_or_after_each_commit_loses_nothing_that_follows(
    following_plant: Any, tmp_path: Path
) -> None:
    plant = following_plant(f"file:{tmp_path / 'Data.fs'}")
    for step, when in itertools.product(STEPS, ("before", "after")):
        crash = ("--crash", f"{step}:{when}:{1 if step == 'rescue' else 4}")
        worker = plant.start("--process", *crash, *plant.producing(3, "")[:3], is_ready=False)
        assert plant.bury(worker) in (0, CRASHED)
        plant.kills[f"crash {when} {step}"] += 1
    judge(plant, plant.finish("--process"), "a crash before or after each commit")
