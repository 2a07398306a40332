# SPDX-License-Identifier: ZPL-2.1
"""What a worker does beside its jobs: signs of life, rescue, timeouts, retention, checks."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from lovely.remotetask.engine.protocol import Deadline, Engine, Session

#: Jobs and indexes are checked against each other at the start and then each hour, so many jobs.
CHECK_SECONDS = 3600.0
FIRST_CHECK_SIZE = 2_000
CHECK_SIZE = 20_000

#: What can wait, pruning and checking, is done in steps of about this many seconds, beginning
#: with few jobs; so long it goes on before the maintenance looks again what is due.
CHORE_SECONDS = 0.1
FIRST_CHORE_SIZE = 50
MAX_CHORE_SIZE = 500

#: Between two steps workers can commit.
CHORE_PAUSE_SECONDS = 0.01


class Maintenance:
    """The loop of the maintenance's thread.

    :param is_needed: the loop ends when it says no.
    :param on_freed: called when jobs of a dead worker were freed, or such as waited in vain.
    :param on_expired: called with the thread that hangs in a job that was given up.
    :param on_overdue: called when a job's time is up, before that is written down; takes the
        deadline away, or says no if the job has just ended.
    """

    def __init__(
        self,
        engine: Engine,
        is_needed: Callable[[], bool],
        on_freed: Callable[[], None],
        on_expired: Callable[[threading.Thread], None],
        on_overdue: Callable[[Deadline], bool] = lambda deadline: True,
    ) -> None:
        self._claims = engine.claims
        self._execution = engine.execution
        self._upkeep = engine.upkeep
        self._is_needed = is_needed
        self._on_freed = on_freed
        self._on_overdue = on_overdue
        self._on_expired = on_expired
        self._news = threading.Event()
        self._first = 0
        self._checked = -math.inf
        self._to_check = FIRST_CHECK_SIZE
        self._chore_size = FIRST_CHORE_SIZE
        self._has_chores = False
        self._is_hurried = False

    def hurry(self) -> None:
        """Let the loop look at once."""
        self._is_hurried = True
        self._news.set()

    def notify(self) -> None:
        """Let the loop look whether it is needed, and whose time is up."""
        self._news.set()

    def __call__(self) -> None:
        """Run until the maintenance is not needed any more.

        Transaction: must not run in one; commits.
        """
        monotonic = self._claims.monotonic
        lease = 0.0
        ticked = -math.inf
        while self._is_needed():
            self._expire()  # first, so that no fault of the rest keeps it back
            is_hurried = self._is_hurried or self._has_chores
            if is_hurried or monotonic() >= ticked + lease / 3:
                self._is_hurried = False  # before it looks: what comes now may be seen no more
                ticked = monotonic()
                # A connection only while it looks: a database has few in its pool.
                with self._claims.open_beside() as session:
                    lease = self.tick(session)
            elif self._execution.logs.has_news:
                with self._claims.open_beside() as session:
                    self._execution.logs.note(session)
            elif monotonic() < (due := self._next_due(ticked + lease / 3)):
                self._news.wait(min(due - monotonic(), threading.TIMEOUT_MAX))
                self._news.clear()

    def _next_due(self, tick: float) -> float:
        return min([tick, *(deadline.end for deadline in list(self._execution.deadlines))])

    def tick(self, session: Session) -> float:
        """Do what is due, then for a moment what can wait; return the lease in seconds.

        Transaction: commits.
        """
        claims = self._claims
        lease = self._upkeep.lease_seconds(session)
        if self._upkeep.mend(session):  # first, as it may keep back all that follows
            self._first, self._to_check = 0, sys.maxsize
        if claims.in_hand and claims.monotonic() - claims.last_sign >= lease / 3:
            claims.beat(session)
        self._execution.logs.note(session)
        if self._upkeep.free_dead(session, lease):
            self._on_freed()
        if self._upkeep.look_after(session):
            self._on_freed()
        end = claims.monotonic() + CHORE_SECONDS
        self._has_chores = True
        while self._has_chores and claims.monotonic() < end:
            self._has_chores = self._do_chore(session) and not claims.pause(CHORE_PAUSE_SECONDS)
        return lease

    # -- what can wait ---------------------------------------------------------------------

    def _do_chore(self, session: Session) -> bool:
        """Do a step of what can wait, and say whether there is more of it.

        A step that fails is left to the next tick.
        """
        size = self._chore_size
        begun = self._claims.monotonic()
        upkeep = self._upkeep
        has_more = upkeep.expire(session, size) or upkeep.prune(session, size)
        has_more = has_more or self._check(session, size)
        # As many jobs as fit: records may be large, and a server far away.
        if self._claims.monotonic() - begun > CHORE_SECONDS:
            self._chore_size = max(1, size // 2)
        else:
            self._chore_size = min(MAX_CHORE_SIZE, size * 2)
        return has_more

    def _check(self, session: Session, size: int) -> bool:
        now = self._claims.monotonic()
        if not self._to_check:
            if now - self._checked < CHECK_SECONDS:
                return False
            self._to_check = CHECK_SIZE
        self._checked = now
        size = min(size, self._to_check)
        following = self._upkeep.check(session, self._first, size)
        if following is None:
            return False
        self._first = following
        self._to_check = self._to_check - size if following else 0
        if not self._to_check:
            self._upkeep.rest(session)
        return bool(self._to_check)

    def _expire(self) -> None:
        deadlines = self._execution.deadlines
        for deadline in list(deadlines):
            if self._claims.monotonic() < deadline.end:
                continue
            if not self._on_overdue(deadline):
                continue
            with suppress(ValueError):
                deadlines.remove(deadline)
            try:
                with self._claims.open_beside() as session:
                    self._execution.expire(session, deadline.claim, deadline.seconds)
            finally:
                self._on_expired(deadline.thread)
