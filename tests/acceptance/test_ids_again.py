# SPDX-License-Identifier: ZPL-2.1
"""A ZEO server that is restarted again and again: it hands out object ids more than once.

What became of it is read off the history of the database: no transaction has written what a
task wrote without the record of its job.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from persistent.mapping import PersistentMapping

from history import states, transactions
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.job import Job
from lovely.remotetask.remote.record import JobRecord

pytestmark = pytest.mark.acceptance

DOWN_SECONDS = 0.5
TASKS = "effect,shared,effect,shared,effect,shared,effect,many"


def effects_without_a_record(path: Path) -> list[tuple[bytes, set[int]]]:
    """Return the transactions that hold what tasks wrote, but not that the jobs have ended."""
    found = []
    for transaction in transactions(path):
        bags = states(transaction, PersistentMapping)
        wrote = {state["data"].get("jobid") for _, state in bags}
        ended = set()
        for _, state in states(transaction, Job, JobRecord):
            job = Job.__new__(Job)
            job.__setstate__(state)
            if job.status == COMPLETED:
                ended.add(job.id)
        if missing := wrote - ended - {None}:
            found.append((transaction.tid, missing))
    return found


@pytest.mark.parametrize("ids", ["dropped", "kept"])
def test_a_restarted_server_doubles_and_loses_nothing(
    plant: Any,
    zeo_server: Any,
    judge: Any,
    request: pytest.FixtureRequest,
    chance: random.Random,
    ids: str,
) -> None:
    server = zeo_server()
    plant = plant(f"zeo:{server.address[1]}")
    options = ("--keep-ids",) if ids == "kept" else ()
    plant.dismiss(plant.start())
    workers = [
        plant.start("--process", "--factory", factory, *options) for factory in ("simple", "multi")
    ]
    restarts = request.config.getoption("--restarts")
    producers = [plant.start(*plant.producing(60 * restarts, TASKS), *options) for _ in range(2)]
    for number in range(restarts):
        time.sleep(chance.uniform(0.5, 1.5))
        if number % 2:
            server.kill()
        else:
            server.stop()
        plant.kills["server"] += 1
        time.sleep(DOWN_SECONDS)
        server.start()
    for producer in producers:
        plant.kill(producer)
    found = plant.finish(*options)
    for worker in workers:
        assert plant.dismiss(worker) == 0
    server.stop()
    assert effects_without_a_record(server.directory / "Data.fs") == []
    assert "has stumbled" not in plant.stderr()
    assert judge(plant, found)["acknowledged"]
