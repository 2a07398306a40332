# SPDX-License-Identifier: ZPL-2.1
"""Cancel requests and progress of a running job, through a connection of their own.

The job's own connection sees nothing new while the job runs, and what is written there is
kept or dropped with the job.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from lovely.remotetask.base.ownership import check_path
from lovely.remotetask.context import TaskContext
from lovely.remotetask.engine.outcome import MAX_MESSAGE
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.transactions import Transactor
from lovely.remotetask.errors import InvalidArgument, number_of, shown, text_of
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.job import Progress
from lovely.remotetask.store.quarantine import load

#: Seconds between two looks at cancel requests, and between two progress notes.
LOOK_SECONDS = 0.1
PROGRESS_SECONDS = 0.5

#: Larger ints are kept as floats.
MAX_INT = 2**63


class ProgressMonitor:
    """What one running job tells of itself, and is told.

    :param open_beside: opens another connection for a moment.
    """

    def __init__(
        self,
        jobid: int,
        open_beside: Callable[[], AbstractContextManager[Session]],
        transact: Transactor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobid = jobid
        self._open_beside = open_beside
        self._transact = transact
        self._monotonic = monotonic
        self._is_cancelled = False
        self._looked = self._reported = float("-inf")

    def is_cancelled(self) -> bool:
        """Say whether the job's cancelling was asked for; it may be news of a moment ago."""
        now = self._monotonic()
        if not self._is_cancelled and now - self._looked >= LOOK_SECONDS:
            with self._open_beside() as session:
                self._is_cancelled = self._jobid in session.begin().requests
            self._looked = now
        return self._is_cancelled

    def report(self, done: float, total: float | None, message: str) -> None:
        """Note how far the job is; see `TaskContext.progress`."""
        now = self._monotonic()
        # Of exact types: it is stored beside the notes of others, who may lack any class.
        done = _number(done, "done")
        total = None if total is None else _number(total, "total")
        if now - self._reported < PROGRESS_SECONDS and (total is None or done < total):
            return
        self._reported = now
        note = Progress(done, total, text_of(message)[:MAX_MESSAGE])

        def change(service: Any) -> None:
            job = load(service.jobs, self._jobid)
            if job is not None and job.status == PROCESSING:
                check_path(service.progress, self._jobid)
                service.progress[self._jobid] = note

        with self._open_beside() as session:
            self._transact(session, change)


def _number(value: Any, name: str) -> float:
    if type(value) is int and abs(value) <= MAX_INT:
        return value
    number = number_of(value)
    if not math.isfinite(number):
        raise InvalidArgument(f"{name} must be a number, not {shown(value)}")
    return number


def context_of(claims: Any, service: Any, claim: Claim, task: Any) -> TaskContext:
    """Return what a task is given that runs a claim.

    :param claims: what the worker has in hand.
    """
    monitor = ProgressMonitor(claim.jobid, claims.open_beside, claims.transact, claims.monotonic)
    return TaskContext(
        service,
        claim.jobid,
        claim.attempt,
        getattr(task, "timeout_seconds", None),
        should_stop=lambda: claims.pause(0),
        is_cancelled=monitor.is_cancelled,
        progress=monitor.report,
        monotonic=claims.monotonic,
        is_given_up=lambda: not claims.has(claim),
    )
