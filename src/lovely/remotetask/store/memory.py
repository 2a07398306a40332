# SPDX-License-Identifier: ZPL-2.1
"""What a worker remembers of the ready queue."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

#: No more segments than this are closed in one transaction of a worker.
MAX_CLOSED = 50

#: How long a worker remembers what it has seen of the ready queue.
MEMORY_SECONDS = 60.0


class Memory:
    """What one worker has learned of a line, which spares it to look again.

    Not kept in the queue's own volatile attributes: they outlive an abort, and the rollback to
    a savepoint, of a transaction that has learned what then never came to pass.  So it is for
    transactions without savepoints, and holds only what was committed before they began.

    :param max_closed: no more segments than this are closed in one pull.
    :param passed: ids of jobs that the caller does not want.
    :param clock: `now` of the last pull.
    :ivar has_more: the last pull ended although it had not looked at all segments.
    :ivar chosen: the segment where a worker beside others goes on.
    """

    _parts: dict[object, Memory] | None = None

    def __init__(
        self,
        max_closed: float | None = None,
        passed: frozenset[int] | set[int] = frozenset(),
        clock: float | None = None,
    ) -> None:
        self.passed = passed
        self.chosen: int | None = None
        self.room = self.max_closed = MAX_CLOSED if max_closed is None else max_closed
        self._clock = clock
        self._since = -math.inf
        self.renew()

    def renew(self) -> None:
        """Get ready for a transaction.

        From time to time all is forgotten: what is stale can become valid by an undo.
        """
        self.has_more = False
        for part in (self._parts or {}).values():
            part.renew()
        self._clock_seen = self._clock
        now = time.monotonic()
        if now - self._since >= MEMORY_SECONDS:
            self._since = now
            self._forget()

    def part(self, name: object) -> Memory:
        """Return what is remembered of another ready queue."""
        if self._parts is None:
            self._parts = {}
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = Memory(self.max_closed, self.passed)
        return part

    @property
    def was_cut_short(self) -> bool:
        """Whether a pull ended although there was more to be looked at."""
        return self.has_more or any(part.was_cut_short for part in (self._parts or {}).values())

    def keep(self) -> None:
        """After a commit: keep what the transaction has seen of the clock."""
        self._clock = self._clock_seen

    def is_clock_back(self, now: float) -> bool:
        """Say whether it is earlier than at the last pull, or this is the first one."""
        self._clock_seen = now
        return self._clock is None or now < self._clock

    def _forget(self) -> None:
        self.stale: dict[int, set[int]] = {}  # key of a segment -> job ids
        self.closed: set[int] = set()  # keys of segments
        self.quarantined: set[int] = set()  # keys of segments with jobs that cannot be used here
        self.idle: dict[int, bytes] = {}  # lane -> serial of its signal, when nobody waited

    def note_stale(self, entries: Iterable[tuple[int, Any, int]]) -> None:
        """Remember stale entries, (priority, segment key, job id), that are committed."""
        for priority, key, jobid in entries:
            part = self.part(priority) if priority else self
            part.stale.setdefault(key, set()).add(jobid)

    def choose_anew(self) -> None:
        """Start the next pull at another segment: somebody else works on this one."""
        self.chosen = None
        for part in (self._parts or {}).values():
            part.choose_anew()

    def forget(self, keys: Iterable[int]) -> None:
        """Forget segments that are gone."""
        for key in keys:
            self.stale.pop(key, None)
            self.closed.discard(key)
