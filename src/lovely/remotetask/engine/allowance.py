# SPDX-License-Identifier: ZPL-2.1
"""How much a process may do before another one takes its place."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

#: Seconds between two looks at the memory, which takes as long as a part of a short job.
LOOK_SECONDS = 0.02


class Allowance:
    """Counts the jobs that a process begins, and looks at its memory when one has ended.

    :param max_jobs: so many are begun, and no more; None is without bound.
    :param max_bytes: when a job has ended, the process may be so large; None is without bound.
    :param on_used_up: called once, with the reason, by the thread that has found out: it sees to
        it that nothing is claimed any more.
    :ivar jobs: how many have begun.
    """

    def __init__(
        self,
        max_jobs: int | None,
        max_bytes: int | None,
        on_used_up: Callable[[str], None],
        resident: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.jobs = 0
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._on_used_up = on_used_up
        self._resident = resident or resident_bytes
        self._monotonic = monotonic
        self._looked = -float("inf")
        self._has_to_look = False
        self._is_used_up = False
        self._lock = threading.Lock()

    def begin(self, count: int) -> bool:
        """Say whether so many jobs, which share a commit if there are several, may begin."""
        with self._lock:
            if not self._is_done():
                self.jobs += count
                return True
        self._use_up(f"has run {self.jobs:,} jobs")
        return False

    def end(self) -> None:
        """Take note that jobs have ended."""
        if self._is_done():
            self._use_up(f"has run {self.jobs:,} jobs")
        elif self._max_bytes is not None:
            self._has_to_look = True
            if self._monotonic() - self._looked >= LOOK_SECONDS:
                self.look()

    def _is_done(self) -> bool:
        return self._is_used_up or (self._max_jobs is not None and self.jobs >= self._max_jobs)

    def look(self) -> None:
        """Look at the memory, if a job has ended since the last look."""
        if self._max_bytes is None or not self._has_to_look:
            return
        self._has_to_look = False
        self._looked = self._monotonic()
        size = self._resident()
        if size > self._max_bytes:
            self._use_up(f"has grown to {size >> 20:,} MB")

    def _use_up(self, why: str) -> None:
        with self._lock:
            if self._is_used_up:
                return
            self._is_used_up = True
        self._on_used_up(why)


def resident_bytes() -> int:
    """Return how much memory this process has; where that is not told, the most it has had."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
