# SPDX-License-Identifier: ZPL-2.1
"""What a worker does beside its jobs: signs of life, rescue, timeouts, retention, checks."""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from lovely.remotetask.check import check_jobs, check_records
from lovely.remotetask.execution import Deadline, Engine
from lovely.remotetask.seat import Seat
from lovely.remotetask.setting import read
from lovely.remotetask.step import PRUNE_SIZE, job_log, orphans, prune, rescue
from lovely.remotetask.worker import Observer, local_ids

#: Jobs and indexes are checked against each other at the start and then each hour, so many jobs.
CHECK_SECONDS = 3600.0
FIRST_CHECK_SIZE = 2_000
CHECK_SIZE = 20_000

#: What can wait, pruning and checking, is done in steps of about this many seconds, beginning
#: with few jobs; so long it goes on before the keeper looks again what is due.
CHORE_SECONDS = 0.1
FIRST_CHORE_SIZE = 50

#: Between two steps workers can commit.
CHORE_PAUSE_SECONDS = 0.01


def free(
    engine: Engine,
    seat: Seat,
    worker_ids: Iterable[str],
    serials: Mapping[str, bytes] | None = None,
) -> int:
    """Free what dead workers hold; return the number of freed jobs.

    :param serials: those of their records by which they were found dead; see `rescue`.  Who is
        found so can be freed later too, and must not keep the next sign of life waiting.  None:
        they are dead in any case.

    Transaction: commits.
    """
    now = engine.clock()
    transact = engine.transact if serials is None else engine.transact.once
    freed = 0
    for worker_id in worker_ids:
        serial = None if serials is None else serials[worker_id]
        change = functools.partial(rescue, worker_id=worker_id, now=now, serial=serial)
        freed += transact(seat, change) or 0
    return freed


def free_orphans(engine: Engine, seat: Seat) -> None:
    """Free what the workers of other processes hold, where no other process can be alive.

    Transaction: commits.
    """
    found = orphans(seat.begin())
    seat.abort()
    free(engine, seat, found)


class Keeper:
    """The loop of the keeper's thread.

    :param is_needed: the loop ends when it says no.
    :param on_freed: called when jobs of a dead worker were freed.
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
        self._engine = engine
        self._is_needed = is_needed
        self._on_freed = on_freed
        self._on_overdue = on_overdue
        self._on_expired = on_expired
        self._news = threading.Event()
        self._observer = Observer()
        self._first = 0
        self._checked = -math.inf
        self._to_check = FIRST_CHECK_SIZE
        self._chore_size = FIRST_CHORE_SIZE
        self._has_chores = False

    def notify(self) -> None:
        """Let the loop look whether it is needed, and whose time is up."""
        self._news.set()

    def __call__(self) -> None:
        """Run until the keeper is not needed any more.

        Transaction: must not run in one; commits.
        """
        engine = self._engine
        lease = 0.0
        ticked = -math.inf
        while self._is_needed():
            self._expire()  # first, so that no fault of the rest keeps it back
            if self._has_chores or engine.monotonic() >= ticked + lease / 3:
                ticked = engine.monotonic()
                # A connection only while it looks: a database has few in its pool.
                with engine.short_seat() as seat:
                    lease = self.tick(seat)
            elif engine.monotonic() < (due := self._next_due(ticked + lease / 3)):
                self._news.wait(min(due - engine.monotonic(), threading.TIMEOUT_MAX))
                self._news.clear()

    def _next_due(self, tick: float) -> float:
        return min([tick, *(deadline.end for deadline in list(self._engine.deadlines))])

    def tick(self, seat: Seat) -> float:
        """Do what is due, then for a moment what can wait; return the lease in seconds.

        Transaction: commits.
        """
        engine = self._engine
        service = seat.begin()
        seat.check_reachable(service)
        lease: float = read(service, "lease_seconds")
        if engine.transact.has_missed:  # first, as it may keep back all that follows
            self._mend_parts(seat)
        if engine.in_hand and engine.monotonic() - engine.last_sign >= lease / 3:
            engine.beat(seat)
        dead = dict(self._dead(seat.begin(), lease))
        if free(engine, seat, dead, dead):
            self._on_freed()
        end = engine.monotonic() + CHORE_SECONDS
        self._has_chores = True
        while self._has_chores and engine.monotonic() < end:
            self._has_chores = self._do_chore(seat) and not engine.pause(CHORE_PAUSE_SECONDS)
        return lease

    def _mend_parts(self, seat: Seat) -> None:
        """Take out of the indexes what is missing of them, and let all jobs be checked."""
        engine = self._engine
        engine.transact.has_missed = False
        look = functools.partial(check_records, repair=True, with_jobs=False)
        for problem in engine.transact.once(seat, look) or ():
            if problem.is_mendable:
                job_log.error("%s; taken out, all jobs are checked", problem.text)
                self._first, self._to_check = 0, sys.maxsize
            else:
                job_log.error("%s", problem.text)

    def _dead(self, service: Any, lease: float) -> list[tuple[str, bytes]]:
        local = local_ids(service)
        others = {
            worker_id: worker
            for worker_id, worker in service.workers.items()
            if worker_id not in local
        }
        return self._observer.dead(others, lease, self._engine.monotonic())

    # -- what can wait ---------------------------------------------------------------------

    def _do_chore(self, seat: Seat) -> bool:
        """Do a step of what can wait, and say whether there is more of it.

        A step that fails is left to the next tick.
        """
        engine = self._engine
        size = self._chore_size
        begun = engine.monotonic()
        has_more = self._prune(seat, size) or self._check(seat, size)
        # As many jobs as fit: records may be large, and a server far away.
        if engine.monotonic() - begun > CHORE_SECONDS:
            self._chore_size = max(1, size // 2)
        else:
            self._chore_size = min(PRUNE_SIZE, size * 2)
        return has_more

    def _prune(self, seat: Seat, size: int) -> bool:
        engine = self._engine
        change = functools.partial(prune, now=engine.clock(), size=size)
        return engine.transact.once(seat, change) == size

    def _check(self, seat: Seat, size: int) -> bool:
        engine = self._engine
        now = engine.monotonic()
        if not self._to_check:
            if now - self._checked < CHECK_SECONDS:
                return False
            self._to_check = CHECK_SIZE
        self._checked = now
        size = min(size, self._to_check)
        look = functools.partial(check_jobs, now=engine.clock(), first=self._first, size=size)
        found = engine.transact.once(seat, functools.partial(look, repair=False))
        if found is None:
            return False
        problems, self._first = found
        problems = [problem for problem in problems if problem.is_mendable]
        if problems:
            for problem in problems:
                job_log.error("job %s: %s; mended", problem.jobid, problem.text)
            engine.transact.once(seat, functools.partial(look, repair=True))
        self._to_check = self._to_check - size if self._first else 0
        if not self._to_check:
            seat.connection.cacheMinimize()
        return bool(self._to_check)

    def _expire(self) -> None:
        engine = self._engine
        for deadline in list(engine.deadlines):
            if engine.monotonic() < deadline.end:
                continue
            if not self._on_overdue(deadline):
                continue
            with suppress(ValueError):
                engine.deadlines.remove(deadline)
            try:
                with engine.short_seat() as seat:
                    engine.expire(seat, deadline.claim, deadline.seconds)
            finally:
                self._on_expired(deadline.thread)
