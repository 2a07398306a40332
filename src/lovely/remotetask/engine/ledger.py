# SPDX-License-Identifier: ZPL-2.1
"""Which thread of a loop answers for which claims.

A thread that hangs in a job is given up, and goes on all the same; so handing over what it had in
hand is one step, and from then on it finds nothing to do.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from lovely.remotetask.engine.protocol import Claim, Claims, Deadline, Execution


class Ledger:
    """The claims of the threads of one loop."""

    def __init__(self, claims: Claims, execution: Execution) -> None:
        self._claims = claims
        self._execution = execution
        # Guards what follows.  A thread that has nothing to carry has nothing to run.
        self._lock = threading.Lock()
        self._carried: dict[threading.Thread, list[Claim]] = {}
        self._running: dict[threading.Thread, list[Claim]] = {}  # those of them that run now
        self._left: list[Claim] = []  # those that their threads have not brought to an end
        self._abandoned: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    @contextmanager
    def carrying(self, claims: list[Claim]) -> Iterator[None]:
        """Answer for claims in this thread; what is left of them is given back by the loop."""
        thread = threading.current_thread()
        with self._lock:
            self._carried[thread] = list(claims)
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(thread, None)
                left = self._carried.pop(thread, ())
                self._left.extend(filter(self._claims.has_to_run, left))

    def is_carrying(self) -> bool:
        """Say whether this thread answers for claims: it does not once it was abandoned."""
        return threading.current_thread() in self._carried

    def carry(self, claims: list[Claim]) -> None:
        """Answer for some more, in a thread that does for others."""
        with self._lock:
            self._carried.get(threading.current_thread(), []).extend(claims)

    def pick_up(self, claims: list[Claim]) -> bool:
        """Say whether this thread is to run claims: only it does so, from here on."""
        thread = threading.current_thread()
        with self._lock:
            if thread not in self._carried or not all(map(self._claims.has, claims)):
                return False
            self._running[thread] = claims
            return True

    @contextmanager
    def running(self, claims: list[Claim]) -> Iterator[None]:
        """Run claims in this thread that is none of the loop's."""
        thread = threading.current_thread()
        with self._lock:
            self._running[thread] = claims
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(thread, None)

    def abandon(self, deadline: Deadline) -> bool:
        """Let a thread be that hangs in a job whose time is up; say no if the job has just ended.

        In the same step the rest of what the thread had in hand is taken over.
        """
        thread = deadline.thread
        with self._lock:
            try:
                self._execution.deadlines.remove(deadline)
            except ValueError:
                return False
            carried = self._carried.pop(thread, None)
            if carried is not None:  # else a single step, or one that was abandoned before
                self._abandoned.add(thread)
                self._running.pop(thread, None)
                self._left.extend(claim for claim in carried if claim is not deadline.claim)
            return True

    def is_abandoned(self, thread: threading.Thread | None = None) -> bool:
        """Say whether a thread, by default this one, was given up."""
        return (thread or threading.current_thread()) in self._abandoned

    def left(self) -> list[Claim]:
        """Return the claims of threads that have ended by a fault, or hang in a job."""
        with self._lock:
            return list(self._left)

    def settle(self, count: int) -> None:
        """Take the first of what is left for given back."""
        with self._lock:
            del self._left[:count]

    def close(self) -> list[Claim]:
        """Let nobody find anything more to do; return what is being run."""
        with self._lock:
            self._carried.clear()
            return [claim for claims in self._running.values() for claim in claims]
