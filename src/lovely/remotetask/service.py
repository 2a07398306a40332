# SPDX-License-Identifier: ZPL-2.1
"""The service: what applications keep in their database and call."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import isnan
from typing import Any

from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask import setting
from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import check_parts
from lovely.remotetask.engine import control, later, registry
from lovely.remotetask.engine.adding import add_job, add_ready, check_given, new_ids
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.engine.inline import (
    claim_for_caller,
    process_claimed,
    process_due,
    process_next,
)
from lovely.remotetask.engine.retention import clean, remove_oldest
from lovely.remotetask.engine.service import Service
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    TaskNotFound,
    each_of,
    is_kind,
    is_true,
    moment_of,
    number_of,
    plain,
    shown,
)
from lovely.remotetask.hosts.autostart import bootStrapSubscriber, getAutostartServiceNames
from lovely.remotetask.interfaces import FINAL_STATUSES, STARTLATER, ITaskService
from lovely.remotetask.job import CronJob, Job, Progress
from lovely.remotetask.processor import SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.predecessor import check_not_old
from lovely.remotetask.store.tree import MAX_JOB_ID
from lovely.remotetask.task import available, check_name

__all__ = ["TaskService", "bootStrapSubscriber", "getAutostartServiceNames"]


@implementer(ITaskService)
class TaskService(Service, Location):
    """A service that is kept in ZODB.  See `ITaskService`; what is stored tells `Service`."""

    processorFactory: Any = SimpleProcessor

    # -- adding ---------------------------------------------------------------------

    def getAvailableTasks(self) -> dict[str, Any]:
        """See `ITaskService`."""
        return available(self.taskInterface)

    def add(
        self,
        task: str,
        input: Any = None,
        startLater: bool = False,
        retry: RetryPolicy | None = None,
    ) -> int:
        """See `ITaskService`."""
        check_parts(self)
        input = self._checked(task, input, retry)
        is_later = is_true(startLater, "startLater")
        job = Job(self._generateIds(1)[0], task, input, retry)
        if is_later:
            job.status = STARTLATER
        add_job(self, job)
        return job.id

    def add_many(
        self, task: str, inputs: Iterable[Any], retry: RetryPolicy | None = None
    ) -> list[int]:
        """See `ITaskService`."""
        check_parts(self)
        inputs = [
            self._checked(task, input, retry) for input in each_of(inputs, "inputs", InvalidInput)
        ]
        jobids = self._generateIds(len(inputs))
        add_ready(
            self,
            [Job(jobid, task, input, retry) for jobid, input in zip(jobids, inputs, strict=True)],
        )
        return jobids

    def addCronJob(
        self,
        task: str,
        input: Any = None,
        minute: Iterable[int] = (),
        hour: Iterable[int] = (),
        dayOfMonth: Iterable[int] = (),
        month: Iterable[int] = (),
        dayOfWeek: Iterable[int] = (),
        delay: float | None = None,
        timezone: str | None = None,
        cron: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> int:
        """See `ITaskService`."""
        check_parts(self)
        input = self._checked(task, input, retry)
        job = CronJob(
            self._generateIds(1)[0],
            task,
            input,
            minute,
            hour,
            dayOfMonth,
            month,
            dayOfWeek,
            delay,
            timezone,
            cron,
            retry,
        )
        job.edits = self.edits
        job.wait(job.count_from(job.created_at))
        add_job(self, job)
        return job.id

    def _checked(self, name: str, input: Any, retry: RetryPolicy | None) -> Any:
        """Check what is given for a job; return the input as it is now."""
        task = self.find_task(plain(name)) if is_kind(name, str) else None
        if task is None:
            raise TaskNotFound(f"no task is registered under the name {shown(name)}")
        check_name(name)
        return check_given(self, task, input, retry)

    def _generateIds(self, count: int) -> list[int]:
        return new_ids(self, count)

    def addNamed(self, name: str, input: Any = None) -> int:
        """See `IService`."""
        return self.add(name, input)

    # -- one job ----------------------------------------------------------------------

    def startJob(self, jobid: int) -> bool:
        """See `ITaskService`."""
        return control.start_job(self, jobid)

    def reschedule(self, jobid: int) -> None:
        """See `ITaskService`."""
        control.reschedule(self, jobid)

    def cancel(self, jobid: int) -> None:
        """See `ITaskService`."""
        control.cancel(self, jobid)

    def getStatus(self, jobid: int) -> str:
        """See `ITaskService`."""
        return find_job(self, jobid).status

    def getResult(self, jobid: int) -> Any:
        """See `ITaskService`."""
        return find_job(self, jobid).output

    def getError(self, jobid: int) -> str:
        """See `ITaskService`."""
        return str(find_job(self, jobid).error)

    def getProgress(self, jobid: int) -> Progress | None:
        """See `ITaskService`."""
        progress: Progress | None = self.progress.get(find_job(self, jobid).id)
        return progress

    # -- all jobs -----------------------------------------------------------------------

    def clean(self, status: Iterable[str] = FINAL_STATUSES) -> None:
        """See `ITaskService`."""
        check_begun(self)
        check_parts(self)
        clean(self, setting.check_finals(status))

    def remove_oldest(
        self, status: str, limit: int | None = None, before: float | None = None
    ) -> int:
        """See `ITaskService`."""
        check_begun(self)
        status = setting.check_final(status)
        limit = setting.bound_of(limit, "limit")
        if limit is not None:
            limit = min(limit, MAX_JOB_ID)
        end = None if before is None else number_of(before)
        if end is not None and isnan(end):
            raise InvalidArgument(f"before must be seconds since the epoch, not {shown(before)}")
        return remove_oldest(self, status, limit, end)

    def countJobs(self) -> dict[str, int]:
        """See `ITaskService`."""
        return count_jobs(self)

    # -- running jobs, in the caller's transaction -----------------------------------------

    def hasJobsWaiting(self, now: float | None = None) -> bool:
        """See `ITaskService`."""
        return self.queue.has_waiting(
            self.jobs, _time(now), lambda name: self.find_task(name) is not None
        )

    def claimNextJob(self, now: float | None = None) -> int | None:
        """See `ITaskService`."""
        check_begun(self)
        return claim_for_caller(self, _time(now))

    def processNext(self, now: float | None = None, jobid: int | None = None) -> bool:
        """See `ITaskService`."""
        check_begun(self)
        now = _time(now)
        if jobid is None:
            return process_next(self, lambda: now) is not None
        return process_claimed(self, find_job(self, jobid), lambda: now) is not None

    def process(self, now: float | None = None) -> None:
        """See `ITaskService`."""
        check_begun(self)
        process_due(self, lambda: _time(now))

    # -- the thread -------------------------------------------------------------------------

    def startProcessing(self) -> None:
        """See `ITaskService`."""
        check_not_old(self)
        later.start_now_or_later(self)

    def stopProcessing(self, timeout_seconds: float | None = None) -> None:
        """See `ITaskService`."""
        later.stop(self, timeout_seconds)

    def startAll(self) -> bool:
        """See `IService`."""
        if self.isProcessing():
            return False
        self.startProcessing()
        return True

    def isProcessing(self) -> bool:
        """See `ITaskService`."""
        return registry.find(self) is not None


def _time(now: float | None) -> float:
    return time.time() if now is None else moment_of(now, "now")
