# SPDX-License-Identifier: ZPL-2.1
"""What the engine knows of jobs that are objects."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from ZODB.broken import Broken
from zope.component import queryMultiAdapter

from lovely.remotetask.base.ownership import check_sound
from lovely.remotetask.engine.control import set_due
from lovely.remotetask.errors import MAX_WAIT_SECONDS, InvalidArgument, text_of
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
        self.status = self.resting_status

    @property
    def input(self) -> Any:
        """The job object.

        :raises StrayObject: it no longer belongs to the database.
        """
        job = self.__dict__["input"]
        if job._p_jar is None:
            check_sound(self, job)
        return job

    @input.setter
    def input(self, job: Any) -> None:
        self.__dict__["input"] = job

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

    def finish(self, output: Any, now: float) -> None:
        """See `Job`.  How many runs have failed before is still told."""
        errors = self.errors
        super().finish(output, now)
        if errors:
            self.errors = errors

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

    def written_values(self) -> Collection[Any]:
        """See `Job`.  What its object holds is part of it."""
        job = self.input
        if isinstance(job, Broken):
            return [job]
        job._p_activate()
        values = {**self.__dict__, **vars(job), "input": vars(job).get("input")}
        del values["_record"]
        return [value for name, value in values.items() if not name.startswith("_v_")]

    # -- for the job object ---------------------------------------------------------------

    @property
    def shown_status(self) -> str:
        """The status that users of job objects know."""
        return QUEUED if self.status == STARTLATER else self.status

    @property
    def retry_time(self) -> datetime | None:
        """When a job that waits may run; None if it may since it was added."""
        return None if self.due == self.created_at else self.scheduledFor

    @property
    def runs(self) -> int:
        """How many runs have begun, but for those that ended with their process."""
        return self.attempt - self.deaths

    def run_at(self, due: float | None) -> None:
        """Set when a waiting job may run again; of one that runs, after the run.

        :param due: seconds since the epoch; None is at once.
        :raises InvalidArgument: the job has ended, or is not stored any more.
        """
        service = self.__parent__
        if service is None:
            raise InvalidArgument(f"job {self.__name__} is in no processor")
        set_due(service, self, due)

    def rest(self) -> None:
        """Let a waiting job rest, or wait again: its object is active no more, or again."""
        if self.status not in (QUEUED, STARTLATER) or self.status == self.resting_status:
            return
        if self.__parent__ is not None:
            self.run_at(self.due)
