# SPDX-License-Identifier: ZPL-2.1
"""How long programs take to import the package, and the command to answer."""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import subprocess
import sys
import time

from places import Place

#: How often each is started before it counts, so that its files are in memory.
WARM = 1

BARE = "python -c pass"


def starts(rounds: int) -> dict[str, float]:
    """Return the median seconds from start to end of some programs, in turn, by their names."""
    place = Place()
    place.release()
    try:
        commands = _commands(str(place.directory / "Data.fs"))
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds + WARM):
            for name, command in commands.items():
                begun = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
                if turn >= WARM:
                    times[name].append(time.perf_counter() - begun)
    finally:
        shutil.rmtree(place.directory, ignore_errors=True)
    return {name: statistics.median(found) for name, found in times.items()}


def _commands(database: str) -> dict[str, list[str]]:
    remotetask = [sys.executable, "-m", "lovely.remotetask.cli"]
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        "import lovely.remotetask": [sys.executable, "-c", "import lovely.remotetask"],
        "remotetask --help": [*remotetask, "--help"],
        "remotetask status Data.fs": [*remotetask, "status", database],
    }
    for module in ("ZODB", "huey", "procrastinate", "pgqueuer", "celery", "rq"):
        if importlib.util.find_spec(module) is not None:
            commands[f"import {module}"] = [sys.executable, "-c", f"import {module}"]
    return commands
