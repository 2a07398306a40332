# SPDX-License-Identifier: ZPL-2.1
"""A queue beside ours: its jobs are sent, and its worker is a process."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import payload
from interleave import Contender, Unavailable
from places import scratch_directory
from processes import HERE, end

AT_LEAST_ONCE = "at least once"
AT_MOST_ONCE = "at most once"

FSYNC = "fsync each commit"


#: So often is a slice begun again whose queue ran dry, with more jobs each time.
TRIES = 6
DRY = "its queue ran dry again and again"


def imported(module: str, package: str) -> Any:
    """Import a peer.

    :raises Unavailable: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed", f"pip install {package}") from None


class Peer(Contender):
    """A queue with jobs that are sent, and a worker that runs them.

    While others are measured its worker is stopped (SIGSTOP): it would look at the gate for each
    of its threads.

    :cvar slot: its gate and its count; no two workers that live at a time have the same one.
    """

    slot = 0
    has_worker = True
    _rate = 300.0
    _sent = 0

    def open(self) -> None:
        self.directory = scratch_directory()
        self.queue = f"benchmark-{uuid.uuid4().hex}"
        os.environ["BENCHMARK_QUEUE"] = self.queue
        payload.board().open_gate(self.slot)
        self._before = payload.board().count(self.slot)
        self.connect()
        try:
            self.start()
            self.send(1)
            payload.wait_for(self._before + 1, self.slot, seconds=30)
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise self.ended(error) from None
            raise
        self._sent = 1

    def connect(self) -> None:
        """Connect to the server, and make a queue."""

    def start(self) -> None:
        """Start the worker."""
        with (self.directory / "worker.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=HERE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]]),
                    payload.SLOT_VARIABLE: str(self.slot),
                },
            )

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        raise NotImplementedError

    def send(self, count: int) -> None:
        """Add so many jobs that do nothing."""
        raise NotImplementedError

    def prepare(self, seconds: float) -> None:
        payload.board().close_gate(self.slot)
        self.wake()
        wanted = int(self._rate * seconds * 1.6) + 20
        if (waiting := self.waiting()) < wanted:
            self.send(wanted - waiting)
            self._sent += wanted - waiting
        time.sleep(0.1)  # it has taken what it takes in advance, and waits at the gate

    def waiting(self) -> int:
        """Return how many jobs were sent and not started."""
        return self._sent - (payload.board().count(self.slot) - self._before)

    def work(self, seconds: float) -> float:
        for _ in range(TRIES):
            rate = self.measured(seconds, self.waiting)
            self._rate = max(self._rate, rate)
            if self.waiting() > 0:
                self.rest()
                return rate
            self._rate *= 4  # what it could do was not seen
            self.prepare(seconds)
        raise TimeoutError(DRY)

    def measured(self, seconds: float, waiting: Callable[[], int]) -> float:
        """Return how many jobs were started a second; 0 if none was left before the slice.

        :raises TimeoutError: there were jobs, and none was started.
        """
        try:
            return payload.measured(seconds, self.slot)
        except TimeoutError as error:
            if waiting() > 0 or self._process.poll() is not None:
                raise self.ended(error) from None
            return 0.0

    def ended(self, error: TimeoutError) -> TimeoutError:
        """Say why nothing came of it: the worker may have ended."""
        process = getattr(self, "_process", None)
        code = None if process is None else process.poll()
        return (
            error if code is None else TimeoutError(f"its worker has ended, with {code}: {error}")
        )

    def rest(self) -> None:
        """Let the worker use no processor until it is needed again."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let the worker go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def latency(self) -> float:
        """Send one job to the idle worker; return the seconds until it starts."""
        time.sleep(0.05)
        count = payload.board().count(self.slot)
        self.send(1)
        sent = time.monotonic()
        payload.wait_for(count + 1, self.slot, seconds=10)
        return max(0.0, payload.board().last(self.slot) - sent)

    def be_idle(self) -> None:
        """Let all jobs run.

        :raises TimeoutError: they do not.
        """
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is not None:
            raise self.ended(TimeoutError("it cannot become idle"))
        self.wake()
        payload.board().open_gate(self.slot)
        try:
            payload.wait_for(self._before + self._sent, self.slot)
        except TimeoutError as error:
            raise self.ended(error) from None

    def close(self) -> None:
        payload.board().open_gate(self.slot)
        self.stop()
        self.disconnect()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self) -> None:
        """End the worker."""
        if hasattr(self, "_process"):
            self.wake()
            end(self._process)
            self._signal(signal.SIGKILL)  # what it has started itself

    def disconnect(self) -> None:
        """Leave nothing on the server."""


class Naps(Contender):
    """Jobs of one length, for a peer that is open and has several of these.

    Jobs of another length that still wait are taken away first.

    :param job_seconds: how long one takes, without using the processor.
    :param at_once: how many the worker runs at a time.
    """

    def __init__(self, name: str, peer: Any, job_seconds: float, at_once: int) -> None:
        self.name = name
        self.durability, self.guarantee = peer.durability, peer.guarantee
        self._peer = peer
        self._job_seconds = job_seconds
        self._at_once = at_once
        self._rate = at_once / job_seconds if job_seconds else 2000.0

    def prepare(self, seconds: float) -> None:
        payload.board().close_gate(self._peer.slot)
        self._peer.wake()
        self._peer.purge()
        self._sent = int(self._rate * seconds * 1.6) + 20 + self._at_once
        self._before = payload.board().count(self._peer.slot)
        self._peer.send_naps(self._sent, self._job_seconds)
        time.sleep(0.1)

    def work(self, seconds: float) -> float:
        for _ in range(TRIES):
            rate = self._peer.measured(seconds, self._waiting)
            self._rate = max(self._rate, rate)
            if self._waiting() > 0:
                self._peer.rest()
                return rate
            self._rate *= 4
            self.prepare(seconds)
        raise TimeoutError(DRY)

    def _waiting(self) -> int:
        return self._sent - (payload.board().count(self._peer.slot) - self._before)
