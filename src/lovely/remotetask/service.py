# SPDX-License-Identifier: ZPL-2.1
"""The service: what applications keep in their database and call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask import setting
from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.loglines import LogLine
from lovely.remotetask.base.ownership import check_parts
from lovely.remotetask.base.storable import copy_of
from lovely.remotetask.engine import control, later, registry, schedules
from lovely.remotetask.engine.adding import (
    NO_OPTIONS,
    add_job,
    add_ready,
    check_given,
    id_with_key,
    name_of_task,
    new_ids,
    seconds_until,
)
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.engine.finding import list_page, task_name
from lovely.remotetask.engine.following import follow_up_of, place_of
from lovely.remotetask.engine.grouping import add_group, find_group
from lovely.remotetask.engine.inline import (
    claim_for_caller,
    process_claimed,
    process_due,
    process_next,
)
from lovely.remotetask.engine.options import check_note, check_options, check_unique_key
from lovely.remotetask.engine.retention import clean, remove_oldest
from lovely.remotetask.engine.service import Service
from lovely.remotetask.engine.undoing import undo
from lovely.remotetask.engine.waiting import result_of, wait_for
from lovely.remotetask.errors import (
    InvalidArgument,
    TaskNotFound,
    inputs_of,
    is_kind,
    is_true,
    moment_of,
    plain,
    shown,
)
from lovely.remotetask.hosts.autostart import bootStrapSubscriber, getAutostartServiceNames
from lovely.remotetask.interfaces import ERROR, FINAL_STATUSES, STARTLATER, ITaskService
from lovely.remotetask.job import CronJob, Job, Progress
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.group import GroupState
from lovely.remotetask.store.joblog import log_of
from lovely.remotetask.store.keys import job_with
from lovely.remotetask.store.listing import Page
from lovely.remotetask.store.pauses import paused_tasks
from lovely.remotetask.store.predecessor import check_not_old
from lovely.remotetask.store.tree import MAX_JOB_ID
from lovely.remotetask.store.worker import WorkerState, list_workers
from lovely.remotetask.task import check_name

__all__ = ["TaskService", "bootStrapSubscriber", "getAutostartServiceNames"]

#: The name of a task, or the function that was registered.
Task = str | Callable[..., Any]

#: What follows: a task, or a task and its input.
FollowUp = Task | tuple[Task, Any]

# In the class `list` is a method.
Ids = list[int]
Checked = list[tuple[str, Any]]
Workers = list[WorkerState]
Names = list[str | None]
LogLines = list[LogLine]
States = list[schedules.ScheduleState]


@implementer(ITaskService)
class TaskService(Service, Location):
    """A service that is kept in ZODB.  See `ITaskService`; what is stored tells `Service`."""

    processorFactory: Any = SimpleProcessor
    many_factory: Any = MultiProcessor

    # -- adding ---------------------------------------------------------------------

    def getAvailableTasks(self) -> dict[str, Any]:
        """See `ITaskService`."""
        return dict(self.registered_tasks())

    def add(
        self,
        task: Task,
        input: Any = None,
        startLater: bool = False,
        retry: RetryPolicy | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        note: str | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        lock: str | None = None,
        expires: float | datetime | None = None,
        after: int | Iterable[int] = (),
        on_success: FollowUp | None = None,
        on_error: FollowUp | None = None,
    ) -> int:
        """See `ITaskService`."""
        check_parts(self)
        name, input = self._checked(task, input, retry)
        find = partial(find_job, self)
        place = place_of(find, self._checked, after, on_success, on_error)
        is_later = is_true(startLater, "startLater")
        now = time.time()
        wait = seconds_until(delay, at, is_later, now)
        note = check_note(note)
        options = check_options(priority, unique_key, lock, expires, now, wait)
        if place.predecessors and (wait is not None or is_later):
            raise InvalidArgument("a job has one of after, delay, at and startLater")
        if "unique_key" in options:
            found = id_with_key(self, options["unique_key"])
            if found is not None:
                return found
        [jobid] = self._generateIds(1)
        job: Job
        if wait is None:
            job = Job(jobid, name, input, retry)
        else:
            job = self._timed(CronJob(jobid, name, input, delay=wait, retry=retry))
        if is_later:
            job.status = STARTLATER
        if note is not None:
            job.note = note
        place.apply(self, job)
        add_job(self, job, options)
        return job.id

    def add_many(
        self,
        task: Task,
        inputs: Iterable[Any],
        retry: RetryPolicy | None = None,
        priority: int = 0,
    ) -> Ids:
        """See `ITaskService`."""
        check_parts(self)
        options = check_options(priority=priority)
        checked = self._all_checked(task, inputs, retry)
        jobids = self._generateIds(len(checked))
        jobs = [
            Job(jobid, name, input, retry)
            for jobid, (name, input) in zip(jobids, checked, strict=True)
        ]
        add_ready(self, jobs, options)
        return jobids

    def add_group(
        self,
        task: Task,
        inputs: Iterable[Any],
        then: FollowUp,
        retry: RetryPolicy | None = None,
        priority: int = 0,
        lock: str | None = None,
    ) -> int:
        """See `ITaskService`."""
        check_parts(self)
        options = check_options(priority=priority, lock=lock)
        last = follow_up_of(then, self._checked)
        checked = self._all_checked(task, inputs, retry)
        return add_group(self, self._generateIds, checked, last, retry, options)

    def group(self, groupid: int) -> GroupState:
        """See `ITaskService`."""
        return find_group(self, groupid)

    def addCronJob(
        self,
        task: Task,
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
        priority: int = 0,
        lock: str | None = None,
    ) -> int:
        """See `ITaskService`."""
        check_parts(self)
        name, input = self._checked(task, input, retry)
        options = check_options(priority=priority, lock=lock)
        sets = minute, hour, dayOfMonth, month, dayOfWeek
        job = CronJob(0, name, input, *sets, delay, timezone, cron, retry)
        return self._add_timed(job, options)

    def ensure(
        self,
        key: str,
        task: Task,
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
        key = schedules.check_key(key)
        sets = minute, hour, dayOfMonth, month, dayOfWeek
        name, input = self._checked(task, input, retry)
        job = CronJob(0, name, input, *sets, delay, timezone, cron, retry)
        job.key = key
        return schedules.ensure(self, job, self._add_timed)

    def ensure_declared(self) -> dict[str, int]:
        """See `ITaskService`."""
        check_begun(self)
        check_parts(self)
        return schedules.ensure_declared(self, self._add_timed)

    def remove_schedule(self, key: str) -> bool:
        """See `ITaskService`."""
        return schedules.remove(self, schedules.check_key(key))

    def schedules(self) -> States:
        """See `ITaskService`."""
        check_parts(self)
        return schedules.states(self)

    def _add_timed(self, job: CronJob, options: Mapping[str, Any] = NO_OPTIONS) -> int:
        [job.id] = self._generateIds(1)
        add_job(self, self._timed(job), options)
        return job.id

    def _timed(self, job: CronJob) -> CronJob:
        job.edits = self.edits
        job.wait(job.count_from(job.created_at))
        return job

    def _checked(self, name: Any, input: Any, retry: RetryPolicy | None = None) -> tuple[str, Any]:
        """Check what is given for a job; return its task's name, and the input as it is now."""
        name = name_of_task(self, name)
        task = self.find_task(plain(name)) if is_kind(name, str) else None
        if task is None:
            raise TaskNotFound(f"no task is registered under the name {shown(name)}")
        check_name(name)
        return name, check_given(self, task, input, retry)

    def _all_checked(self, task: Any, inputs: Iterable[Any], retry: RetryPolicy | None) -> Checked:
        given = inputs_of(inputs)
        task = name_of_task(self, task)
        return [self._checked(task, input, retry) for input in given]

    def _generateIds(self, count: int) -> Ids:
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

    def retry(self, jobid: int, input: Any = control.NOT_GIVEN) -> None:
        """See `ITaskService`."""
        if input is not control.NOT_GIVEN:
            _, input = self._checked(find_job(self, jobid).task, input, None)
        control.retry(self, jobid, input)

    def undo(self, jobid: int, by: str | None = None) -> None:
        """See `ITaskService`."""
        undo(self, jobid, by)

    def run_now(self, jobid: int) -> None:
        """See `ITaskService`."""
        control.run_now(self, jobid)

    def cancel(self, jobid: int) -> None:
        """See `ITaskService`."""
        control.cancel(self, jobid)

    def getStatus(self, jobid: int) -> str:
        """See `ITaskService`."""
        return find_job(self, jobid).status

    def getResult(self, jobid: int) -> Any:
        """See `ITaskService`."""
        return copy_of(find_job(self, jobid).output)

    def getError(self, jobid: int) -> str:
        """See `ITaskService`."""
        return str(find_job(self, jobid).error)

    def getProgress(self, jobid: int) -> Progress | None:
        """See `ITaskService`."""
        progress: Progress | None = self.progress.get(find_job(self, jobid).id)
        return progress

    def getLog(self, jobid: int) -> LogLines:
        """See `ITaskService`."""
        return log_of(self, find_job(self, jobid))

    def job(self, jobid: int) -> Job:
        """See `ITaskService`."""
        return find_job(self, jobid)

    def find(self, unique_key: str) -> int | None:
        """See `ITaskService`."""
        check_parts(self)
        job = job_with(self.queue, self.jobs, check_unique_key(unique_key))
        return None if job is None else job.id

    def wait(self, jobid: int, timeout_seconds: float | None = None) -> str:
        """See `ITaskService`."""
        [status] = wait_for(self, [jobid], timeout_seconds).values()
        return status

    def wait_all(
        self, jobids: Iterable[int], timeout_seconds: float | None = None
    ) -> dict[int, str]:
        """See `ITaskService`."""
        return wait_for(self, jobids, timeout_seconds)

    def wait_result(self, jobid: int, timeout_seconds: float | None = None) -> Any:
        """See `ITaskService`."""
        return result_of(self, jobid, timeout_seconds)

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
        return remove_oldest(self, status, limit, setting.end_of(before))

    def retry_all(
        self, task: str | None = None, before: float | None = None, limit: int = 500
    ) -> int:
        """See `ITaskService`."""
        check_begun(self)
        check_parts(self)
        number = setting.bound_of(limit, "limit")
        if not number:
            raise InvalidArgument(f"limit must be an int of 1 or more, not {shown(limit)}")
        return control.retry_all(self, task_name(task), setting.end_of(before), number)

    def pause(self, task: str | None = None) -> None:
        """See `ITaskService`."""
        control.pause(self, task_name(task))

    def resume(self, task: str | None = None) -> None:
        """See `ITaskService`."""
        control.resume(self, task_name(task))

    def list_paused(self) -> Names:
        """See `ITaskService`."""
        check_parts(self)
        return paused_tasks(self.queue)

    def countJobs(self) -> dict[str, int]:
        """See `ITaskService`."""
        return count_jobs(self)

    def list_workers(self) -> Workers:
        """See `ITaskService`."""
        check_parts(self)
        return list_workers(self)

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

    # -- pages of jobs ------------------------------------------------------------------------

    def list(
        self,
        status: str | None = None,
        task: str | None = None,
        order: str = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """See `ITaskService`."""
        return list_page(self, status, task, order, after, limit)

    def errors(
        self,
        task: str | None = None,
        order: str = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """See `ITaskService`."""
        return list_page(self, ERROR, task, order, after, limit)


def _time(now: float | None) -> float:
    return time.time() if now is None else moment_of(now, "now")
