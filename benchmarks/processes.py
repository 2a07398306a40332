# SPDX-License-Identifier: ZPL-2.1
"""Processes that are started, asked and ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import payload

HERE = Path(__file__).parent

#: A worker process that does not answer within so many seconds is stuck.
ANSWER_SECONDS = 60.0


class Worker:
    """A process of ours that can work on a service, add jobs, or commit; see ``worker.py``."""

    def __init__(self, place: str, slot: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {payload.SLOT_VARIABLE: str(slot)},
        )
        self.ask("hello")

    def ask(self, command: str) -> Any:
        """Send a command, and return the answer."""
        self.tell(command)
        return self.answer()

    def tell(self, command: str) -> None:
        """Send a command, whose answer is asked for later."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the answer to the last command.

        :raises TimeoutError: there is none.
        """
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError(f"a worker of ours has not answered in {ANSWER_SECONDS:.0f} s")
        if not (line := stream.readline()):
            raise TimeoutError(f"a worker of ours has ended, with {self._process.wait(10)}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with suppress(Exception):
            self.ask("quit")
        end(self._process)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process, kindly at first."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def processor_seconds_of(pid: int) -> float:
    """Return how much time of a core another process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
