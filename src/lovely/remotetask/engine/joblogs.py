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
from lovely.remotetask.store.joblog import new_lines, note_lines
from lovely.remotetask.store.quarantine import load

#: What a run has logged is noted when it has taken so many seconds, and not more often than that.
NOTE_SECONDS = 1.0


class _RunLines(LogLines):
    """The lines of one run.

    :ivar logs: who is told of them.
    :ivar due: when they are to be noted, by the monotonic clock.
    :ivar noted: how many there were when they were.
    """

    __slots__ = ("claim", "due", "logs", "noted")

    logs: JobLogs
    claim: Claim
    due: float
    noted: int

    def on_line(self) -> None:
        """See `LogLines`."""
        self.logs.hear(self)


class JobLogs:
    """See `protocol.JobLogs`."""

    def __init__(
        self, transact: Transactor, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._transact = transact
        self._monotonic = monotonic
        self._runs: dict[int, _RunLines] = {}
        self.has_news = False
        self.on_news: Callable[[], None] = lambda: None

    def begin(self, service: Any, claim: Claim) -> LogLines | None:
        """Return what is to keep the lines of a run, which may be the repeat of another one."""
        lines = new_lines(service, claim.name, claim.attempt, _RunLines)
        if lines is not None:
            before = self._runs.get(claim.jobid)
            lines.logs = self
            lines.claim = claim
            lines.due = self._monotonic() + NOTE_SECONDS if before is None else before.due
            lines.noted = 0
            self._runs[claim.jobid] = lines
        return lines

    def of(self, claim: Claim) -> LogLines | None:
        """Return what has kept the lines of the last run of a claim."""
        lines = self._runs.get(claim.jobid)
        return None if lines is None or lines.claim != claim else lines

    def end(self, claim: Claim) -> None:
        """Forget the runs of a claim: they are over."""
        lines = self._runs.get(claim.jobid)
        if lines is not None and lines.claim is claim:
            del self._runs[claim.jobid]

    def hear(self, lines: _RunLines) -> None:
        """Take note that a run has logged something."""
        if not self.has_news and self._monotonic() >= lines.due:
            self.has_news = True
            self.on_news()

    def note(self, session: Any) -> None:
        """See `protocol.JobLogs`.

        Transaction: commits.
        """
        self.has_news = False
        now = self._monotonic()
        runs = []
        for lines in list(self._runs.values()):
            if now >= lines.due and lines.count > lines.noted:
                kept, lines.noted = lines.kept()
                runs.append((lines.claim, kept, lines.noted))
                lines.due = now + NOTE_SECONDS
        if not runs:
            return

        def change(service: Any) -> None:
            for claim, kept, count in runs:
                job = load(service.jobs, claim.jobid)
                if job is not None and job.is_held_by(claim.owner, claim.attempt):
                    note_lines(service, job, kept, count)

        self._transact.once(session, change)
