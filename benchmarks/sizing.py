# SPDX-License-Identifier: ZPL-2.1
"""Measure which number of processes and threads gets most done: ``remotetask run``, as it is used.

Each configuration works off a backlog of jobs that sleep, on a database of its own.  They take
turns, several rounds of them, so that what else a machine does meets all alike; the median of the
rounds is shown.  The clock runs from the first jobs that have ended to those some seconds later.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import payload
import transaction
from places import HERE, Place, PostgresPlace, ZeoPlace, end

from lovely.remotetask.task import task

PLACES = {"zeo": ZeoPlace, "postgres": PostgresPlace}
RAMP_SECONDS = 2.0  # until all processes are at work
RAMP_JOBS = 50


@task("sizing.nap")
def nap(seconds: float) -> None:
    """Take a while, without using the processor."""
    time.sleep(seconds)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storages", nargs="*", default=sorted(PLACES), metavar="zeo|postgres")
    parser.add_argument("--job", type=float, default=0.02, help="seconds a job takes")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default="1x1,1x4,1x16,2x16,4x1,4x4,8x1", help="PxT,...")
    chosen = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in chosen.shapes.split(",")]
    rows = [(storage, *shape) for storage in chosen.storages for shape in shapes]
    measured: dict[Any, list[tuple[float, float, int]]] = {row: [] for row in rows}
    with tempfile.TemporaryDirectory() as directory:
        os.environ[payload.BOARD_VARIABLE] = f"{directory}/board"  # which every place has
        for number in range(chosen.rounds):
            for row in rows:
                measured[row].append(measure(PLACES[row[0]], row[1], row[2], chosen))
                print(number, row, measured[row][-1], file=sys.stderr, flush=True)
    print("storage   processes x threads  jobs/s  CPU ms a job  MB a process")
    for (storage, processes, threads), values in measured.items():
        rate, cpu, memory = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{storage:9} {processes:9} x {threads:<7} {rate:8.0f} {cpu:13.1f} {memory:13.0f}")


def measure(kind: type[Place], processes: int, threads: int, chosen: Any) -> tuple[Any, ...]:
    """Return jobs a second, ms of processor time of the workers for one, and MB of a worker."""
    backlog = int((RAMP_SECONDS + chosen.seconds + 4) * processes * threads / chosen.job)
    with ExitStack() as stack:
        place = kind()
        stack.callback(place.release)
        place.service.add_many("sizing.nap", [chosen.job] * min(backlog, 40_000))
        transaction.commit()
        workers = [stack.enter_context(working(place, threads)) for _ in range(processes)]
        while ended(place) < RAMP_JOBS:
            time.sleep(0.02)
        time.sleep(RAMP_SECONDS)
        usage, count, start = used(workers), ended(place), time.monotonic()
        time.sleep(chosen.seconds)
        done, seconds = ended(place) - count, time.monotonic() - start
        memory = sum(resident(worker) for worker in workers) / len(workers)
        return done / seconds, (used(workers) - usage) * 1000 / done, memory


def ended(place: Place) -> int:
    """Return how many jobs have ended."""
    transaction.begin()
    number: int = place.service.countJobs()["completed"]
    return number


@contextmanager
def working(place: Any, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker."""
    words = [
        "run",
        place.command_uri,
        "--import",
        "sizing",
        "--threads",
        str(threads),
        "--grace",
        "5",
    ]
    worker = subprocess.Popen(
        [sys.executable, "-m", "lovely.remotetask.cli", *words],
        cwd=HERE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield worker
    finally:
        end(worker)


def used(workers: list[subprocess.Popen[bytes]]) -> float:
    """Return the seconds of a processor that processes have used, in hundredths."""
    fields = [Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1] for worker in workers]
    return sum(int(field.split()[11]) + int(field.split()[12]) for field in fields) / 100


def resident(worker: subprocess.Popen[bytes]) -> float:
    """Return how many MB of memory a process has."""
    return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    main()
