# SPDX-License-Identifier: ZPL-2.1
"""What is killed while ends of runs wait to be written: how much runs again, and that it does."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

from doors import CRASHED, most_at_once
from lovely.remotetask.engine.finishing import MAX_PIPED

pytestmark = pytest.mark.acceptance

#: How many jobs run at once, by the processor's kind.
THREADS = {"simple": 1, "multi": 5}

KINDS = pytest.mark.parametrize("factory", ["simple", "multi"])


@pytest.fixture
def door() -> str:
    """Job objects write when their runs begin, so the other door has no pipe."""
    return "tasks"


@pytest.fixture(params=["file", "zeo"])
def any_plant(request: pytest.FixtureRequest, plant: Any, tmp_path: Any) -> Any:
    """A plant around a file, and around a ZEO server."""
    if request.param == "file":
        return plant(f"file:{tmp_path / 'Data.fs'}")
    server = request.getfixturevalue("zeo_server")()
    made = plant(f"zeo:{server.address[1]}")
    made.server = server
    return made


def repeated(plant: Any) -> Counter[int]:
    """Return how often each job ran beyond once, of those that did."""
    runs = Counter(number for number, _, _ in plant.executions())
    return Counter({number: count - 1 for number, count in runs.items() if count > 1})


def check(found: dict[str, Any], plant: Any, allowed: int) -> int:
    """Check that all jobs are completed, and that no more runs were repeated than may be."""
    acknowledged = set(plant.acknowledged())
    statuses = dict(found["statuses"])
    assert acknowledged <= set(statuses)
    assert set(statuses.values()) == {"completed"}
    assert not found["problems"]
    assert {number for number, _, _ in plant.executions()} >= acknowledged
    again = sum(repeated(plant).values())
    assert again <= allowed, f"{again} runs were repeated, not only {allowed}"
    return again


@KINDS
def test_a_crash_before_or_after_each_commit_of_the_pipe_repeats_few_runs(
    any_plant: Any, factory: str
) -> None:
    plant = any_plant
    plant.dismiss(plant.start("--factory", factory, "--lease", "0.6"))
    crashes = 0
    for when, countdown in itertools.product(("before", "after"), (1, 2, 5)):
        crash = ("--crash", f"pipe:{when}:{countdown}")
        jobs = plant.producing(150, "quiet")
        worker = plant.start("--process", *crash, *jobs, is_ready=False)
        assert plant.bury(worker, 60) == CRASHED, "no commit of the pipe was reached"
        crashes += 1
    again = check(plant.finish("--process"), plant, crashes * (MAX_PIPED + THREADS[factory]))
    print(f"{again} runs were repeated after {crashes} crashes")


@KINDS
def test_a_killed_process_repeats_at_most_what_was_in_the_pipe(
    any_plant: Any, factory: str, chance: random.Random
) -> None:
    plant = any_plant
    plant.dismiss(plant.start("--factory", factory, "--lease", "0.6"))
    before, counts = 0, []
    for _ in range(6):
        worker = plant.start("--process", *plant.producing(200, "quiet"), is_ready=False)
        while len(plant.executions()) < before + 30 and worker.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        plant.kill(worker)
        before = len(plant.executions())
        counts.append(sum(repeated(plant).values()))
    again = check(plant.finish("--process"), plant, 6 * (MAX_PIPED + THREADS[factory]))
    print(f"{again} runs were repeated after {len(counts)} kills")


@KINDS
def test_a_killed_server_makes_no_pipe_run_again(
    plant: Any, zeo_server: Any, factory: str, chance: random.Random
) -> None:
    server = zeo_server()
    plant = plant(f"zeo:{server.address[1]}")
    plant.dismiss(plant.start("--factory", factory))
    worker = plant.start("--process")
    producer = plant.start(*plant.producing(1_000, "quiet"))
    for _ in range(4):
        time.sleep(chance.uniform(0.2, 0.5))
        server.kill()
        plant.kills["server"] += 1
        time.sleep(chance.uniform(0, 0.2))
        server.start()
    plant.bury(producer, 120)
    found = plant.finish()
    assert plant.dismiss(worker) == 0
    # Only one that has no other behind it is run in the transaction that is to keep its end.
    again = check(found, plant, 4 * THREADS[factory])
    print(f"{again} runs were repeated after 4 deaths of the server")


def test_a_stopped_process_that_wakes_up_keeps_nothing_of_its_pipe(
    plant: Any, zeo_server: Any
) -> None:
    server = zeo_server()
    plant = plant(f"zeo:{server.address[1]}")
    plant.dismiss(plant.start("--lease", "1.0"))
    zombie = plant.start("--process")
    plant.bury(plant.start(*plant.producing(500, "quiet")), 120)
    zombie.send_signal(signal.SIGSTOP)
    found = plant.finish("--process")
    zombie.send_signal(signal.SIGCONT)
    assert plant.dismiss(zombie) == 0
    check(found, plant, MAX_PIPED + 1)


@pytest.mark.parametrize("factory", ["simple", "multi"])
def test_killed_processes_with_a_full_pipe_never_let_two_jobs_of_a_lock_run_at_once(
    plant: Any, zeo_server: Any, factory: str, chance: random.Random
) -> None:
    plant = plant(f"zeo:{zeo_server().address[1]}")
    plant.dismiss(plant.start("--factory", factory, "--lease", "0.6"))
    plant.bury(plant.start(*plant.producing(900, "quiet,quiet,quiet_locked")), 120)
    workers = [plant.start("--process") for _ in range(2)]
    ends: dict[int, float] = {}
    for _ in range(5):
        time.sleep(chance.uniform(0.05, 0.3))
        killed = workers.pop(0)
        plant.kill(killed)
        ends[killed.pid] = time.monotonic()
        workers.append(plant.start("--process", is_ready=False))
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    again = check(found, plant, 5 * (MAX_PIPED + THREADS[factory]))
    most = most_at_once(plant.directory / "intervals.log", ends)
    assert set(most.values()) == {1}, most
    assert len(most) == 4
    print(f"{again} runs were repeated after 5 kills")
