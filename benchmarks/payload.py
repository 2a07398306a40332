# SPDX-License-Identifier: ZPL-2.1
"""The job that everybody runs: it does nothing, counts that it did, and stops at a gate.

Gates and counts lie in a file that all processes map into their memory, so that they cost
every contender the same, next to nothing, in whatever process its jobs run.  Each
contender has a slot with a gate and a count of its own.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import threading
import time
from pathlib import Path

#: The environment variable that tells other processes where the file is.
BOARD_VARIABLE = "REMOTETASK_BENCHMARK_BOARD"

#: The environment variable with the number of a process' slot.
SLOT_VARIABLE = "REMOTETASK_BENCHMARK_SLOT"

#: The slots: 0 are jobs in the process that measures, the next ones worker processes of
#: ours, the last ones peers.
SLOTS = 64
FIRST_PEER = 20

_SLOT = struct.Struct("=qd")  # how many jobs were started; when the last one was
_SIZE = SLOTS + SLOTS * _SLOT.size


class Board:
    """The shared memory, and one slot of it."""

    def __init__(self, path: str | Path, slot: int = 0) -> None:
        with open(path, "a+b") as stream:
            stream.truncate(_SIZE)
            self._memory = mmap.mmap(stream.fileno(), _SIZE)
        self._slot = slot
        self._offset = SLOTS + slot * _SLOT.size
        self._lock = threading.Lock()  # of the threads of one process; a slot belongs to one

    def open_gate(self, slot: int = 0) -> None:
        """Let jobs run."""
        self._memory[slot] = 1

    def close_gate(self, slot: int = 0) -> None:
        """Let the jobs that start from now on wait."""
        self._memory[slot] = 0

    def count(self, *slots: int) -> int:
        """Return how many jobs were started."""
        return sum(self._read(slot)[0] for slot in slots)

    def last(self, slot: int) -> float:
        """Return when the last job was started, by the monotonic clock of this machine."""
        return self._read(slot)[1]

    def _read(self, slot: int) -> tuple[int, float]:
        count, last = _SLOT.unpack_from(self._memory, SLOTS + slot * _SLOT.size)
        return count, last

    def is_open(self) -> bool:
        """Say whether jobs run."""
        return bool(self._memory[self._slot])

    def tick(self, now: float) -> None:
        """Count one job, which was called at `now`."""
        with self._lock:
            count, _ = _SLOT.unpack_from(self._memory, self._offset)
            _SLOT.pack_into(self._memory, self._offset, count + 1, now)


_board: Board | None = None


def board() -> Board:
    """Return the board of this process."""
    global _board
    if _board is None:
        _board = Board(os.environ[BOARD_VARIABLE], int(os.environ.get(SLOT_VARIABLE, "0")))
    return _board


def noop(value: object = None) -> None:
    """Do nothing."""
    shared, now = board(), time.monotonic()
    while not shared.is_open():
        time.sleep(0.001)
    shared.tick(now)


def nap(seconds: float) -> None:
    """Take a while, without using the processor."""
    noop()
    time.sleep(seconds)


async def nap_in_loop(seconds: float) -> None:
    """Do the same on an event loop, and nothing for no time."""
    shared, now = board(), time.monotonic()
    while not shared.is_open():
        await asyncio.sleep(0.001)
    shared.tick(now)
    if seconds:
        await asyncio.sleep(seconds)


def measured(seconds: float, *slots: int) -> float:
    """Open the gates for some seconds; return how many jobs were started a second.

    The clock starts when jobs do: a worker may have gone to sleep at the gate.

    :param slots: by default that of this process.
    :raises TimeoutError: not one was started.
    """
    shared, slots = board(), slots or (0,)
    first = shared.count(*slots) + 5
    limit = time.monotonic() + 2.0 + seconds
    for slot in slots:
        shared.open_gate(slot)
    while shared.count(*slots) < first and time.monotonic() < limit:
        time.sleep(0.0005)
    before = shared.count(*slots)
    begun = time.perf_counter()
    time.sleep(seconds)
    while not (count := shared.count(*slots) - before) and time.monotonic() < limit:
        time.sleep(0.0005)  # not one in all that time: wait for it
    elapsed = time.perf_counter() - begun
    for slot in slots:
        shared.close_gate(slot)
    if not count:
        raise TimeoutError(f"no job was started in {elapsed:.1f} s")
    return count / elapsed


def wait_for(count: int, *slots: int, seconds: float = 60.0) -> None:
    """Wait until so many jobs were started.

    :raises TimeoutError: they were not.
    """
    end = time.monotonic() + seconds
    while (started := board().count(*slots)) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{started} jobs of {count} were started")
        time.sleep(0.0005)
