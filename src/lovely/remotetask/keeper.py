# SPDX-License-Identifier: ZPL-2.1
"""What a worker does beside its jobs: signs of life, rescue, timeouts, retention, checks."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

from lovely.remotetask.check import check_jobs
from lovely.remotetask.execution import Deadline, Engine
from lovely.remotetask.seat import Seat
from lovely.remotetask.step import PRUNE_SIZE, job_log, orphans, prune, rescue
from lovely.remotetask.worker import Observer, local_ids

#: Jobs and indexes are checked against each other at the start and then each hour, so many
#: steps of `check.STEP_SIZE` jobs.
CHECK_SECONDS = 3600.0
FIRST_CHECK_STEPS = 2
CHECK_STEPS = 20


def free(engine: Engine, seat: Seat, worker_ids: list[str]) -> int:
    """Free what dead workers hold; return the number of freed jobs.

    Transaction: commits.
    """
    now = engine.clock()
    return sum(
        engine.transact(seat, functools.partial(rescue, worker_id=worker_id, now=now))
        for worker_id in worker_ids
    )


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
    :param on_overdue: called when a job's time is up, before that is written down; takes the
        deadline away, or says no if the job has just ended.
    :param on_expired: called with the thread that hangs in a job that was given up.
    """

    def __init__(
        self,
        engine: Engine,
        is_needed: Callable[[], bool],
        on_freed: Callable[[], None],
        on_overdue: Callable[[Deadline], bool],
        on_expired: Callable[[threading.Thread], None],
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
            if engine.monotonic() >= ticked + lease / 3:
                ticked = engine.monotonic()
                # A connection only while it looks: a database has few in its pool.
                with engine.short_seat() as seat:
                    lease = self.tick(seat)
            self._expire()
            ends = [deadline.end for deadline in list(engine.deadlines)]
            self._news.wait(max(0.0, min([ticked + lease / 3, *ends]) - engine.monotonic()))
            self._news.clear()

    def tick(self, seat: Seat) -> float:
        """Do what is due, and return the lease in seconds.

        Transaction: commits.
        """
        engine = self._engine
        service = seat.begin()
        seat.check_reachable(service)
        lease = float(service.lease_seconds)
        if engine.in_hand and engine.monotonic() - engine.last_sign >= lease / 3:
            engine.beat(seat)
        if free(engine, seat, self._dead(seat.begin(), lease)):
            self._on_freed()
        self._prune(seat)
        self._check(seat)
        return lease

    def _dead(self, service: Any, lease: float) -> list[str]:
        local = local_ids()
        others = {
            worker_id: worker
            for worker_id, worker in service.workers.items()
            if worker_id not in local
        }
        return self._observer.dead(others, lease, self._engine.monotonic())

    def _prune(self, seat: Seat) -> None:
        engine = self._engine
        while engine.transact(seat, functools.partial(prune, now=engine.clock())) == PRUNE_SIZE:
            if engine.pause(0.01):
                return

    def _check(self, seat: Seat) -> None:
        engine = self._engine
        now = engine.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        steps = FIRST_CHECK_STEPS if self._checked == -math.inf else CHECK_STEPS
        self._checked = now
        for _ in range(steps):
            look = functools.partial(check_jobs, now=engine.clock(), first=self._first)
            problems, following = look(seat.begin(), repair=False)
            seat.abort()
            if problems:
                for problem in problems:
                    job_log.error("job %s: %s; mended", problem.jobid, problem.text)
                engine.transact(seat, functools.partial(look, repair=True))
            self._first = following
            if not following:
                break
        seat.connection.cacheMinimize()

    def _expire(self) -> None:
        engine = self._engine
        for deadline in list(engine.deadlines):
            if engine.monotonic() < deadline.end:
                continue
            if not self._on_overdue(deadline):
                continue
            try:
                with engine.short_seat() as seat:
                    engine.expire(seat, deadline.claim, deadline.seconds)
            finally:
                self._on_expired(deadline.thread)
