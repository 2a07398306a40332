# SPDX-License-Identifier: ZPL-2.1
"""What the engine knows of jobs that are objects."""

from __future__ import annotations

from typing import Any

from zope.component import queryMultiAdapter

from lovely.remotetask.engine.control import set_due
from lovely.remotetask.errors import MAX_WAIT_SECONDS, text_of
from lovely.remotetask.interfaces import QUEUED, STARTLATER
from lovely.remotetask.job import Job
from lovely.remotetask.remote.interfaces import IJobErrorMessage
from lovely.remotetask.remote.values import MAX_RUNS
from lovely.remotetask.retry import RetryPolicy

#: The digits of an id before those of the number that the engine knows.
ID_DIGITS = 14


class JobRecord(Job):
    """The record of one job object; ``input`` is that object.

    Stored beyond a `Job`: ``begun_at`` float seconds since the epoch: when the run began, written
    when it has ended.
    """

    max_failures = MAX_RUNS
    begun_at: float | None = None

    def __init__(self, id: int, job: Any) -> None:
        super().__init__(id, job.jobName or "", job)

    @property
    def resting_status(self) -> str:
        """See `Job`.  Where one rests that is not active, nobody takes it."""
        return QUEUED if self.input.active else STARTLATER

    @property
    def retry(self) -> RetryPolicy:  # type: ignore[override]
        """See `Job`."""
        return RetryPolicy(self.input.maxRetries, self.input.retryDelay, 1.0, MAX_WAIT_SECONDS, 0.0)

    def message_of(self, error: BaseException) -> str | None:
        """See `Job`."""
        message = queryMultiAdapter((self.input, error), IJobErrorMessage)
        return None if message is None else text_of(message)

    def take_over(self, edit: Any) -> bool:
        """See `Job`: the time of its next run was set while it ran."""
        if self.is_final:
            return False
        self.due = edit
        return True

    def count_from(self, now: float) -> float | None:
        """See `lovely.remotetask.job.CronJob`."""
        return self.due

    @property
    def __name__(self) -> str:
        """See `Job`.  In the order of their creation, as texts."""
        return f"{int(self.created_at * 1e6):014x}{self.id:010x}"

    # -- for the job object ---------------------------------------------------------------

    @property
    def shown_status(self) -> str:
        """The status that users of job objects know."""
        return QUEUED if self.status == STARTLATER else self.status

    @property
    def runs(self) -> int:
        """How many runs have begun, but for those that ended with their process."""
        return self.attempt - self.deaths

    def run_at(self, due: float | None) -> None:
        """Set when a waiting job may run again; of one that runs, after the run.

        :param due: seconds since the epoch; None is at once.
        :raises InvalidArgument: the job has ended.
        """
        set_due(self.__parent__, self, due)

    def rest(self) -> None:
        """Let a waiting job rest, or wait again: its object is active no more, or again."""
        if self.status in (QUEUED, STARTLATER) and self.status != self.resting_status:
            self.run_at(self.due)
