# SPDX-License-Identifier: ZPL-2.1
"""Processes that are killed, and the figures that tell what it did to their jobs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from figures import FIGURES

PROGRAM = Path(__file__).with_name("program.py")

#: What all processes together may take to finish the jobs, in seconds, and more for each.
PATIENCE_SECONDS = 90.0
PATIENCE_FOR_A_JOB = 0.1

#: Of all jobs that many may be given up because their processes died, time after time.
GIVEN_UP_SHARE = 0.005


@pytest.fixture
def jobs(request: pytest.FixtureRequest) -> int:
    """How many jobs a test adds."""
    return int(request.config.getoption("--jobs"))


class Plant:
    """The processes of one test, around one database."""

    def __init__(self, directory: Path, url: str, door: str) -> None:
        self.directory = directory
        self.url = url
        self.door = door
        self.program = PROGRAM
        self.running: list[subprocess.Popen[str]] = []
        self.produced = 0
        self.kills: Counter[str] = Counter()
        (directory / "acknowledged.log").touch()
        (directory / "executions.log").touch()

    def start(self, *options: str, is_ready: bool = True) -> subprocess.Popen[str]:
        """Start the program; return when it is at work."""
        command = [sys.executable, str(self.program), self.url, "--directory", str(self.directory)]
        command += ["--door", self.door]
        paths = [str(self.program.parent.parent), os.environ.get("PYTHONPATH", "")]
        with (self.directory / "stderr.log").open("ab") as errors:
            process = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                text=True,
            )
        self.running.append(process)
        if is_ready:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", self.stderr()[-3000:]
        return process

    def producing(self, count: int, task: str) -> tuple[str, ...]:
        """Return the options that add jobs with inputs that were not used before."""
        start, self.produced = self.produced, self.produced + count
        return ("--produce", str(start), str(count), "--task", task)

    def kill(self, process: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
        """End a process by a signal, and wait for its end."""
        process.send_signal(how)
        self.kills[signal.Signals(how).name] += 1
        self.bury(process)

    def bury(self, process: subprocess.Popen[str], seconds: float = 60.0) -> int:
        """Wait for the end of a process, and return its code."""
        code = process.wait(seconds)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if process in self.running:
            self.running.remove(process)
        return code

    def dismiss(self, process: subprocess.Popen[str]) -> int:
        """Ask a process to end, and wait for it."""
        assert process.stdin is not None
        process.stdin.close()
        return self.bury(process)

    def acknowledged(self) -> list[int]:
        """The inputs of the jobs whose commit returned."""
        return [int(line) for line in self._lines("acknowledged.log")]

    def executions(self) -> list[tuple[int, int, int]]:
        """Return (input, process id, attempt) of each call of a task.

        The attempt is told only where it is meant to fail, otherwise it is 0.
        """
        lines = [line.split() for line in self._lines("executions.log")]
        return [(int(line[0]), int(line[1]), int(line[2])) for line in lines if len(line) == 3]

    def _lines(self, name: str) -> list[str]:
        return (self.directory / name).read_text().splitlines()

    def stderr(self) -> str:
        """What all processes wrote on their standard error."""
        path = self.directory / "stderr.log"
        return path.read_text() if path.exists() else ""

    def finish(self, *options: str, seconds: float | None = None) -> dict[str, Any]:
        """Wait until all is done, and return what a process finds then.

        :param seconds: wait no longer; 0 where nobody works any more.
        """
        if seconds is None:
            seconds = PATIENCE_SECONDS + PATIENCE_FOR_A_JOB * self.produced
        last = self.start(*options, "--until-done", str(seconds))
        # Not communicate(): what was read ahead with the first line would be lost.
        assert last.stdout is not None
        guard = threading.Timer(seconds + 60, last.kill)
        guard.start()
        output = last.stdout.read()
        guard.cancel()
        assert self.bury(last) == 0, self.stderr()[-3000:]
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    def close(self) -> None:
        """End what still runs."""
        for process in list(self.running):
            process.send_signal(signal.SIGCONT)
            process.kill()
            self.bury(process)


class Judge:
    """Compares what was acknowledged with what there is."""

    def __init__(self, tell: Callable[[str, Any], None]) -> None:
        self._tell = tell

    def __call__(
        self, plant: Plant, found: dict[str, Any], expected_errors: int = 0
    ) -> dict[str, int]:
        """Check that no job is lost, unfinished or done twice; return the figures."""
        acknowledged = set(plant.acknowledged())
        statuses = Counter(status for _, status in found["statuses"])
        there = {number for number, _ in found["statuses"]}
        of_status = dict(found["statuses"])
        effects = {number: count for number, count in found["effects"] if number >= 0}
        executions = Counter(
            (number, attempt) for number, _, attempt in plant.executions() if number >= 0
        )
        final = ("completed", "error", "cancelled")
        figures = {
            "acknowledged": len(acknowledged),
            "lost": len(acknowledged - there)
            + sum(status == "completed" and not effects[n] for n, status in of_status.items()),
            "unfinished": sum(n for status, n in statuses.items() if status not in final),
            "duplicated ZODB effects": sum(count > 1 for count in effects.values()),
            "executed more than once": len(
                {n for (n, _), count in executions.items() if count > 1}
            ),
            "ended by the crash policy": statuses["error"] - expected_errors,
        }
        figures.update({f"x {name}": count for name, count in sorted(plant.kills.items())})
        self._tell(FIGURES, figures)
        print(figures)
        assert not found["problems"]
        assert figures["lost"] == 0
        assert figures["unfinished"] == 0, statuses
        assert figures["duplicated ZODB effects"] == 0
        assert len(there) == len(found["statuses"]), "an input is there twice"
        assert all(not effects[n] for n, status in of_status.items() if status == "error")
        allowed = max(1, GIVEN_UP_SHARE * len(acknowledged))
        assert figures["ended by the crash policy"] <= allowed, found["errors"]
        return figures


@pytest.fixture
def judge(record_property: Callable[[str, Any], None]) -> Judge:
    """Return the `Judge` of a test."""
    return Judge(record_property)


@pytest.fixture(params=["tasks", "remote"])
def door(request: pytest.FixtureRequest) -> str:
    """The door whose jobs meet with faults; see ``doors.py``."""
    return str(request.param)


@pytest.fixture
def plant(tmp_path: Path, door: str) -> Iterator[Callable[[str], Plant]]:
    """Return a function that makes a `Plant` around the database at a URL."""
    plants: list[Plant] = []

    def make(url: str) -> Plant:
        plants.append(Plant(tmp_path, url, door))
        return plants[-1]

    yield make
    for made in plants:
        made.close()


@pytest.fixture
def chance() -> random.Random:
    """Return chance with a seed that a failing test shows."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)
