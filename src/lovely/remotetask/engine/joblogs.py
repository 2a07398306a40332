# SPDX-License-Identifier: ZPL-2.1
"""What the running jobs of one worker log, noted now and then.

A run that ends writes its lines down with what becomes of it, so quick ones cost no transaction.
Who logs in a job's thread only says that there is something: the maintenance's thread writes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lovely.remotetask.base.loglines import LogLines
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.engine.transactions import Transactor
from lovely.remotetask.job import Job
from lovely.remotetask.store.joblog import new_lines, note_lines
from lovely.remotetask.store.quarantine import load

#: What a run has logged is noted when it has taken so many seconds, and not more often than that.
NOTE_SECONDS = 1.0


class _Run:
    """One run that keeps its lines.

    :ivar due: when its lines are to be noted, by the monotonic clock.
    :ivar noted: how many lines it had when they were.
    """

    def __init__(self, claim: Claim, lines: LogLines, due: float) -> None:
        self.claim = claim
        self.lines = lines
        self.due = due
        self.noted = 0


class JobLogs:
    """See `protocol.JobLogs`."""

    def __init__(
        self, transact: Transactor, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._transact = transact
        self._monotonic = monotonic
        self._runs: dict[int, _Run] = {}
        self.has_news = False
        self.on_news: Callable[[], None] = lambda: None

    def begin(self, service: Any, job: Job, claim: Claim) -> LogLines | None:
        """Return what is to keep the lines of a run, which may be the repeat of another one."""
        lines = new_lines(service, job)
        if lines is None:
            return None
        before = self._runs.get(claim.jobid)
        due = self._monotonic() + NOTE_SECONDS if before is None else before.due
        run = self._runs[claim.jobid] = _Run(claim, lines, due)
        lines.on_line = lambda: self._hear(run)
        return lines

    def of(self, claim: Claim) -> LogLines | None:
        """Return what has kept the lines of the last run of a claim."""
        run = self._runs.get(claim.jobid)
        return None if run is None or run.claim != claim else run.lines

    def end(self, claim: Claim) -> None:
        """Forget the runs of a claim: they are over."""
        if self.of(claim) is not None:
            self._runs.pop(claim.jobid, None)

    def _hear(self, run: _Run) -> None:
        if not self.has_news and self._monotonic() >= run.due:
            self.has_news = True
            self.on_news()

    def note(self, session: Any) -> None:
        """See `protocol.JobLogs`.

        Transaction: commits.
        """
        self.has_news = False
        now = self._monotonic()
        runs = []
        for run in list(self._runs.values()):
            if now >= run.due and run.lines.count > run.noted:
                runs.append((run.claim, *run.lines.kept()))
                run.noted = run.lines.count
                run.due = now + NOTE_SECONDS
        if not runs:
            return

        def change(service: Any) -> None:
            for claim, lines, count in runs:
                job = load(service.jobs, claim.jobid)
                if job is not None and job.is_held_by(claim.owner, claim.attempt):
                    note_lines(service, job, lines, count)

        self._transact.once(session, change)
