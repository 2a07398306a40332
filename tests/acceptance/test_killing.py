# SPDX-License-Identifier: ZPL-2.1
"""Workers, producers and servers that are killed, and what becomes of the jobs."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

from doors import CRASHED

pytestmark = pytest.mark.acceptance

WORKERS = 3
STEPS = ("claim", "run", "record", "rescue", "beat")
TASKS = "effect,shared,slow,twice"


def over_doors(name: str, of_tasks: list[str], of_remote: list[str]) -> Any:
    """Parametrise a test by its door and something else: what both share one of them shows."""
    pairs = [*(("tasks", each) for each in of_tasks), *(("remote", each) for each in of_remote)]
    return pytest.mark.parametrize(("door", name), pairs, indirect=["door"])


@pytest.fixture
def zeo_plant(plant: Any, zeo_server: Any) -> Any:
    """A plant around a ZEO server, which is ``plant.server``."""
    server = zeo_server()
    made = plant(f"zeo:{server.address[1]}")
    made.server = server
    return made


@pytest.fixture
def file_plant(plant: Any, tmp_path: Any) -> Any:
    """A plant around a file, which only one process can have open."""
    return plant(f"file:{tmp_path / 'Data.fs'}")


@over_doors("factory", ["simple", "multi"], ["multi"])
def test_killed_workers_of_a_zeo_server_lose_nothing(
    zeo_plant: Any, jobs: int, chance: random.Random, judge: Any, factory: str
) -> None:
    plant = zeo_plant
    plant.dismiss(plant.start("--factory", factory))
    workers = [plant.start("--process") for _ in range(WORKERS)]
    producers = [plant.start(*plant.producing(jobs // 4, TASKS)) for _ in range(2)]
    kills = 4 + jobs // 200
    for _ in range(kills):
        time.sleep(chance.uniform(0.05, 0.8))
        victim = workers.pop(chance.randrange(len(workers)))
        plant.kill(victim)
        workers.append(plant.start("--process", is_ready=False))
    for producer in producers:
        plant.bury(producer, 600)
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    figures = judge(plant, found)
    assert figures["acknowledged"] >= jobs // 4 * 2 * 0.9


def test_killed_producers_and_a_killed_server_lose_nothing_acknowledged(
    zeo_plant: Any, jobs: int, chance: random.Random, judge: Any
) -> None:
    plant = zeo_plant
    workers = [plant.start("--process") for _ in range(WORKERS)]
    rounds = 4 + jobs // 500
    for number in range(rounds):
        producer = plant.start(*plant.producing(jobs // 2, TASKS))
        time.sleep(chance.uniform(0.2, 1.0))
        if number % 2:
            plant.server.kill()
            plant.kills["server"] += 1
            time.sleep(chance.uniform(0, 0.3))
            plant.server.start()
            time.sleep(chance.uniform(0.1, 0.5))
        plant.kill(producer)
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    judge(plant, found)


def test_a_crash_before_or_after_each_commit_loses_nothing(zeo_plant: Any, judge: Any) -> None:
    plant = zeo_plant
    plant.dismiss(plant.start("--lease", "0.6"))
    for step, when in itertools.product(STEPS, ("before", "after")):
        crash = ("--crash", f"{step}:{when}:2")
        jobs = plant.producing(8, "twice,long,shared" if step == "beat" else TASKS)
        worker = plant.start("--process", *crash, *jobs, is_ready=False)
        assert plant.bury(worker, 60) == CRASHED, f"no commit of {step} was reached"
        plant.kills[f"crash {when} {step}"] += 1
    found = plant.finish("--process")
    judge(plant, found)


def test_a_crash_before_or_after_each_commit_loses_nothing_in_a_file(
    file_plant: Any, judge: Any
) -> None:
    plant = file_plant
    for step, when in itertools.product(STEPS[:4], ("before", "after")):
        crash = ("--crash", f"{step}:{when}:1")
        jobs = plant.producing(12, "twice,slow,effect,shared")
        worker = plant.start("--process", *crash, *jobs, is_ready=False)
        assert plant.bury(worker) == CRASHED, f"no commit of {step} was reached"
        plant.kills[f"crash {when} {step}"] += 1
    found = plant.finish("--process")
    judge(plant, found)


@over_doors("factory", ["simple", "multi"], ["simple"])
def test_a_killed_application_on_a_file_loses_nothing(
    file_plant: Any, jobs: int, chance: random.Random, judge: Any, factory: str
) -> None:
    plant = file_plant
    plant.dismiss(plant.start("--factory", factory))
    for _ in range(3 + jobs // 200):
        process = plant.start("--process", *plant.producing(max(jobs // 6, 50), TASKS))
        time.sleep(chance.uniform(0.0, 0.7))
        plant.kill(process)
    found = plant.finish("--process")
    judge(plant, found)


def test_a_stopped_worker_that_wakes_up_again_keeps_nothing(
    zeo_plant: Any, judge: Any, until: Any
) -> None:
    plant = zeo_plant
    zombie = plant.start("--process", "--lease", "1.0")
    plant.bury(plant.start(*plant.producing(1, "long")))
    until(plant.executions, "the job to start")
    zombie.send_signal(signal.SIGSTOP)
    plant.kills["SIGSTOP"] += 1
    rescuer = plant.start("--process")
    until(lambda: len(plant.executions()) == 2, "the rescue")
    zombie.send_signal(signal.SIGCONT)
    plant.bury(plant.start(*plant.producing(30, "effect,twice")))
    found = plant.finish()
    assert plant.dismiss(zombie) == 0
    assert plant.dismiss(rescuer) == 0
    judge(plant, found)
    (first, *_), (second, *_) = plant.executions()[:2]
    assert first == second == 0


def test_workers_that_are_stopped_at_random_are_fenced(
    zeo_plant: Any, jobs: int, chance: random.Random, judge: Any
) -> None:
    plant = zeo_plant
    plant.dismiss(plant.start("--lease", "0.5"))
    workers = [plant.start("--process") for _ in range(WORKERS)]
    producer = plant.start(*plant.producing(max(jobs // 2, 100), TASKS))
    for _ in range(4 + jobs // 300):
        worker = chance.choice(workers)
        time.sleep(chance.uniform(0, 0.3))
        worker.send_signal(signal.SIGSTOP)
        plant.kills["SIGSTOP"] += 1
        time.sleep(chance.uniform(0.5, 1.5))
        worker.send_signal(signal.SIGCONT)
    plant.bury(producer, 600)
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    judge(plant, found)


def test_a_poisonous_job_is_given_up_and_those_behind_it_run(
    zeo_plant: Any, judge: Any, until: Any
) -> None:
    plant = zeo_plant
    plant.dismiss(plant.start("--lease", "0.5"))
    plant.bury(plant.start(*plant.producing(20, "effect")))
    plant.bury(plant.start(*plant.producing(1, "poison")))
    plant.bury(plant.start(*plant.producing(20, "effect,slow")))
    workers = [plant.start("--process") for _ in range(2)]
    last = plant.start("--until-done", "60")

    def is_over() -> bool:
        for worker in list(workers):
            if worker.poll() is not None:
                workers.remove(worker)
                assert plant.bury(worker) == CRASHED
                plant.kills["poisoned"] += 1
                workers.append(plant.start("--process", is_ready=False))
        return last.poll() is not None

    until(is_over, "the end of the poison", 90.0)
    plant.bury(last)
    found = plant.finish()
    for worker in workers:
        assert plant.dismiss(worker) == 0
    judge(plant, found, expected_errors=1)
    executions = Counter(number for number, *_ in plant.executions())
    assert executions[20] == 3
    assert dict(found["statuses"])[20] == "error"


def test_a_full_disk_heals_by_itself(file_plant: Any, judge: Any) -> None:
    plant = file_plant
    found = plant.finish(
        "--process", "--disk-full", "0.5", "2.0", *plant.producing(400, "effect,shared,twice")
    )
    figures = judge(plant, found)
    assert figures["ended by the crash policy"] == 0
    assert "Traceback" not in plant.stderr()


@over_doors("place", ["zeo", "file"], ["zeo", "file"])
@pytest.mark.parametrize("factory", ["simple", "multi"])
def test_an_interpreter_that_exits_finishes_or_gives_back_its_jobs(
    place: str, factory: str, door: str, request: pytest.FixtureRequest, judge: Any
) -> None:
    plant = request.getfixturevalue(f"{place}_plant")
    plant.dismiss(plant.start("--factory", factory, "--lease", "20"))
    process = plant.start(
        "--process", *plant.producing(60, "slow,effect,shared"), "--exit-after", "0.1"
    )
    assert plant.bury(process, 30) == 0
    assert plant.stderr() == ""
    begun = time.monotonic()
    found = plant.finish("--process")
    assert plant.stderr() == ""
    judge(plant, found)
    assert max(Counter(n for n, *_ in plant.executions()).values()) == 1, "an exit is no crash"
    assert found["attempts"] == 1
    assert time.monotonic() - begun < 20, "somebody had to wait for a lease"


@over_doors("place", ["zeo", "file"], ["zeo"])
def test_a_terminated_process_loses_nothing(
    place: str, door: str, request: pytest.FixtureRequest, judge: Any
) -> None:
    plant = request.getfixturevalue(f"{place}_plant")
    for _ in range(2):
        process = plant.start("--process", *plant.producing(100, "slow,effect,shared"))
        time.sleep(0.3)
        plant.kill(process, signal.SIGTERM)
    found = plant.finish("--process")
    judge(plant, found)
