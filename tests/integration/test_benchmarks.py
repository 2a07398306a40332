# SPDX-License-Identifier: ZPL-2.1
"""The benchmarks still run; what they find here means nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RUN = BENCHMARKS / "run.py"


def run_tiny(directory: Path, *parts: str) -> tuple[dict[str, Any], str]:
    """Run some parts; return what was found, and what was printed."""
    found = directory / "found.json"
    only = [word for part in parts for word in ("--only", part)]
    done = subprocess.run(
        [sys.executable, str(RUN), "--tiny", "--json", str(found), *only],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(found.read_text(encoding="utf-8")), done.stdout


def test_a_tiny_run_measures_rates_depth_bytes_and_schedules(tmp_path: Path) -> None:
    data, told = run_tiny(tmp_path, "rates", "depth", "bytes", "schedule")
    assert all(rate["per_second"] > 0 for rate in data["rates"].values())
    assert set(data["depth"]) == {
        *("drain", "drain shared", "add", "add_many"),
        *("drain, priorities and locks", "add, priorities and locks"),
    }
    assert data["values"]["bytes a job, default"] > 0
    assert "drain / tiny commit" in told


def test_a_tiny_run_measures_processes_on_servers(tmp_path: Path) -> None:
    data, told = run_tiny(tmp_path, "scaling", "adders", "start")
    (fleet,) = (found for found in data["fleets"] if found["storage"] == "ZEO")
    assert fleet["per_second"] > 0
    assert fleet["server_ms"] >= 0 < fleet["worker_ms"]
    assert {found["adders"] for found in data["adders"] if found["storage"] == "ZEO"} == {1, 4}
    assert data["starts_seconds"]["remotetask --help"] > 0
    assert "conflicts a commit" in told


@pytest.fixture
def python(tmp_path: Path) -> Any:
    """Return a function that runs code beside the benchmarks, and returns what it has printed."""

    def python(code: str) -> str:
        paths = [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {
            "PYTHONPATH": os.pathsep.join(paths),
            "REMOTETASK_BENCHMARK_BOARD": str(tmp_path / "board"),
        }
        done = subprocess.run(
            [sys.executable, "-c", dedent(code)],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


def test_who_fails_or_is_stuck_gets_no_more_slices_and_the_others_go_on(python: Any) -> None:
    told = python(
        """
        import time
        import interleave

        class Fine(interleave.Contender):
            name = "fine"
            def work(self, seconds):
                return 1.0

        class Broken(Fine):
            name = "broken"
            def prepare(self, seconds):
                raise RuntimeError("the server is gone")

        class Stuck(Fine):
            name = "stuck"
            def work(self, seconds):
                time.sleep(60)

        interleave.at_most.__wrapped__.__defaults__ = (0.2,)
        for name, found in interleave.interleave([Broken(), Stuck(), Fine()], 2).items():
            print(name, found.rates, found.failure)
        """
    )
    assert told.splitlines() == [
        "broken [] RuntimeError: the server is gone",
        "stuck [] TimeoutError: nothing came of it in 0 s",
        "fine [1.0, 1.0] ",
    ]


#: A queue in a file, which has a byte for each job.
QUEUE = """
    import sys
    import payload
    from peer import Peer

    class FileQueue(Peer):
        slot = payload.FIRST_PEER
        last = -1  # the job after which the worker ends

        def connect(self):
            self.path = self.directory / "queue"
            self.path.touch()

        def command(self):
            return [sys.executable, "-m", "file_worker", str(self.path), str(self.last)]

        def send(self, count):
            with self.path.open("ab") as file:
                file.write(b"." * count)
"""
WORKER = """
    import os, sys, time, payload

    done = 0
    while True:
        while done < os.path.getsize(sys.argv[1]):
            payload.noop()
            time.sleep(0.001)
            done += 1
            if done == int(sys.argv[2]):
                sys.exit(7)
        time.sleep(0.001)
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module with a queue beside the code that runs."""
    (tmp_path / "file_queue.py").write_text(dedent(QUEUE))
    (tmp_path / "file_worker.py").write_text(dedent(WORKER))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))


@pytest.mark.usefixtures("queue")
def test_a_queue_that_runs_dry_is_filled_further_and_measured_again(python: Any) -> None:
    told = python(
        """
        from file_queue import FileQueue

        class Fast(FileQueue):
            _rate = 1.0  # it does far more: what is sent at first does not last

        peer = Fast()
        peer.open()
        peer.prepare(0.2)
        print(peer.work(0.2) > 20)
        peer.close()
        """
    )
    assert told == "True\n"


@pytest.mark.usefixtures("queue")
def test_a_worker_that_has_ended_is_told_and_not_waited_for(python: Any) -> None:
    told = python(
        """
        from file_queue import FileQueue

        class Dying(FileQueue):
            last = 1

        peer = Dying()
        peer.open()
        peer._process.wait(10)
        peer.prepare(0.1)
        try:
            peer.work(0.1)
        except TimeoutError as error:
            print(error)
        peer.close()
        """
    )
    assert told.startswith("its worker has ended, with 7: no job was started in ")


def test_what_more_machines_would_give_is_calculated(python: Any) -> None:
    told = python(
        """
        from model import zeo_cost

        commits = [
            {"storage": "ZEO", "processes": number, "server_ms": 0.5 + 0.1 * number}
            for number in (1, 2, 4)
        ]
        fleet = {"storage": "ZEO", "storages": 1, "processes": 1, "threads": 16, "job_ms": 20}
        fleets = [{**fleet, "server_ms": 0.3, "worker_ms": 1.0}]
        cost = zeo_cost(fleets, commits)
        print([round(part, 3) for part in cost])
        print(round(cost.rate(1, 1, 99)))  # bound by how long jobs take
        print(round(cost.rate(1, 100, 1)))  # by the core of its process
        print(round(cost.rate(45, 16, 20)), round(cost.rate(45, 16, 20, 9)))  # by the servers
        """
    )
    assert told.split("\n")[:4] == ["[1.0, 0.5, 0.1, 0.5]", "10", "1000", "400 18000"]
