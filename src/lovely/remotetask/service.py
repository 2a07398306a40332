# SPDX-License-Identifier: ZPL-2.1
"""The service: what applications keep in their database and call."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import isnan
from typing import Any

from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask import setting
from lovely.remotetask.base.ownership import check_parts, check_path
from lovely.remotetask.base.site import note_service
from lovely.remotetask.base.storable import check_limits, check_storable
from lovely.remotetask.engine import later, registry
from lovely.remotetask.engine.inline import (
    can_go_on,
    claim_for_caller,
    process_claimed,
    process_one,
)
from lovely.remotetask.engine.retention import DEFAULT_RETENTION, Retention, remove_oldest
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    JobUnusable,
    ServiceNotStored,
    TaskNotFound,
    each_of,
    is_kind,
    is_true,
    list_of,
    moment_of,
    number_of,
    plain,
    shown,
    whole_of,
)
from lovely.remotetask.hosts.autostart import bootStrapSubscriber, getAutostartServiceNames
from lovely.remotetask.interfaces import (
    CRONJOB,
    DELAYED,
    FINAL_STATUSES,
    PROCESSING,
    STARTLATER,
    STATUSES,
    ITask,
    ITaskService,
)
from lovely.remotetask.job import CronJob, Job, Progress
from lovely.remotetask.processor import SimpleProcessor
from lovely.remotetask.retry import MAX_DEATHS, RetryPolicy
from lovely.remotetask.store.predecessor import Part, check_not_old
from lovely.remotetask.store.quarantine import MISSING, load, why_unreadable, why_unusable
from lovely.remotetask.store.queue import JobQueue
from lovely.remotetask.store.tree import MAX_JOB_ID, JobTree, holds_new
from lovely.remotetask.store.worker import LEASE_SECONDS
from lovely.remotetask.task import available, check_input, check_name, look_up

__all__ = ["TaskService", "bootStrapSubscriber", "getAutostartServiceNames"]


#: How names begin that even a service of 0.5 may get: those of ZODB, what is not stored, and
#: where it stands, so that it can be taken out of a container.
_NOT_OURS = ("_p_", "_v_", "__")

#: So many statuses are taken at once, some of them more than once.
MAX_STATUSES = 1_000

#: What bounds inputs.
_LIMITS = ("max_input_bytes", "max_input_depth")

#: Settings that name code: what has no name of its own cannot be stored.
_REFERENCES = ("processorFactory", "taskInterface")


def _part() -> Any:
    return Part()


@implementer(ITaskService)
class TaskService(Persistent, Location):
    """A service that is kept in ZODB.  See `ITaskService`.

    Stored: ``jobs`` `JobTree`: id -> `Job`.  ``queue`` `JobQueue`.  ``workers`` OOBTree:
    worker id -> `Worker`.  ``requests`` IITreeSet: ids of running jobs whose cancelling
    was asked for.  ``progress`` IOBTree: id of a running job -> `Progress`.  ``edits`` IOBTree:
    id of a running job -> `Edit`, see `CronJob.update`.  Set by the application, if at all:
    ``taskInterface``, ``processorFactory``, ``processorArguments``, ``lease_seconds`` float
    seconds, ``max_deaths`` int: deaths of its process after which a job is an error,
    ``retention`` dict of final status -> `Retention`, ``max_input_bytes`` and
    ``max_input_depth`` int or None: see `check_limits`.  The service's own record is written
    by nothing else.
    """

    jobs: Any = None  # each service has its own; security declarations want a default
    queue: JobQueue = _part()
    workers: Any = _part()
    requests: Any = _part()
    progress: Any = _part()
    edits: Any = _part()
    taskInterface: Any = ITask
    processorFactory: Any = SimpleProcessor
    processorArguments: dict[str, Any] = {"waitTime": 1.0}  # noqa: RUF012 (never changed in place)
    lease_seconds: float = LEASE_SECONDS
    max_deaths: int = MAX_DEATHS
    retention: dict[str, Retention] = DEFAULT_RETENTION
    max_input_bytes: int | None = None
    max_input_depth: int | None = None

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        service = super().__new__(cls)
        note_service(service)
        return service

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        note_service(self)

    def holds_new(self, job: Any) -> bool:
        """Say whether the service has got a job in the current transaction; see `service_of`."""
        return holds_new(vars(self).get("jobs"), job)

    def __init__(self) -> None:
        self.jobs = JobTree()
        self.queue = JobQueue()
        self.workers = OOBTree()
        self.requests = IITreeSet()
        self.progress = IOBTree()
        self.edits = IOBTree()

    def __setattr__(self, name: str, value: Any) -> None:
        # Not a property: by the time its setter refuses, Persistent would have noted a change.
        if not name.startswith(_NOT_OURS):
            check_not_old(self)
            if name in setting.CHECKS:
                value = _checked_setting(name, value, self._p_jar is not None)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not name.startswith(_NOT_OURS):
            check_not_old(self)
        super().__delattr__(name)

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
        job = Job(self._generateId(), task, input, retry)
        if is_later:
            job.status = STARTLATER
        return self._store(job)

    def add_many(
        self, task: str, inputs: Iterable[Any], retry: RetryPolicy | None = None
    ) -> list[int]:
        """See `ITaskService`."""
        check_parts(self)
        inputs = [
            self._checked(task, input, retry) for input in each_of(inputs, "inputs", InvalidInput)
        ]
        jobids = self._generateIds(len(inputs))
        jobs = {
            jobid: Job(jobid, task, input, retry)
            for jobid, input in zip(jobids, inputs, strict=True)
        }
        if jobs:
            self._v_last = jobs[jobids[-1]]
            self.jobs.add(jobs)
            self.queue.file_ready(list(jobs.values()))
            registry.wake_after_commit(self)
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
            self._generateId(),
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
        return self._store(job)

    def _checked(self, name: str, input: Any, retry: RetryPolicy | None) -> Any:
        """Check what is given for a job; return the input as it is now."""
        self._check_begun()
        task = look_up(self.taskInterface, plain(name)) if is_kind(name, str) else None
        if task is None:
            raise TaskNotFound(f"no task is registered under the name {shown(name)}")
        check_name(name)
        if retry is not None and not is_kind(retry, RetryPolicy):
            raise InvalidArgument(f"retry takes a RetryPolicy, not {shown(retry)}")
        if retry is not None:
            check_storable(retry, InvalidArgument, "the retry policy")
        check_input(task, input)
        if self.max_input_bytes is not None or self.max_input_depth is not None:
            max_bytes, max_depth = (setting.read(self, limit) for limit in _LIMITS)
            check_limits(input, max_bytes, max_depth)
        return check_storable(input, InvalidInput, "the input", True, self._p_jar)

    def _check_begun(self) -> None:
        # Who writes without a transaction finds that out too late: a BTree is changed by then,
        # and stays so in this connection, though nothing of it will be stored.
        if self._p_jar is not None:
            self._p_jar.transaction_manager.get()

    def _store(self, job: Job) -> int:
        self._v_last = self.jobs[job.id] = job
        self.queue.file(job)
        registry.wake_after_commit(self)
        return job.id

    def _generateId(self) -> int:
        return self._generateIds(1)[0]

    def _generateIds(self, count: int) -> list[int]:
        # From a random start in each connection, and after a job that was not stored: somebody
        # else may be adding in the same lane.  A number that outlives an abort does no harm.
        first: int | None = getattr(self, "_v_next_id", None)
        if first is not None and self._has_lost_a_job():
            first = None
        jobids: list[int] = self.jobs.free_ids(count, first)
        self._v_next_id = jobids[-1] + 1 if jobids else first
        return jobids

    def _has_lost_a_job(self) -> bool:
        last: Job | None = getattr(self, "_v_last", None)
        if last is None or last._p_jar is not None:  # it was committed
            return False
        return self.jobs.get(last.id) is not last

    # -- one job ----------------------------------------------------------------------

    def _job(self, jobid: int) -> Job:
        check_parts(self)
        number = whole_of(jobid)
        job: Job | None = None if number is None else self.jobs.get(number)
        if job is None:
            raise JobNotFound(f"there is no job {shown(jobid)}")
        _check_usable(jobid, why_unreadable(job, jobid))
        return job

    def startJob(self, jobid: int) -> bool:
        """See `ITaskService`."""
        self._check_begun()
        job = self._job(jobid)
        if job.status != STARTLATER:
            return False
        _check_usable(jobid, why_unusable(job, jobid))
        self.queue.remove(job)
        job.wait(None)
        self.queue.file(job)
        registry.wake_after_commit(self)
        return True

    def reschedule(self, jobid: int) -> None:
        """See `ITaskService`."""
        self._check_begun()
        job = self._job(jobid)
        if isinstance(job, CronJob) and job.status == PROCESSING:
            return  # it counts anew when its run has ended
        if not isinstance(job, CronJob) or job.status not in (CRONJOB, DELAYED):
            raise InvalidArgument(f"job {jobid} waits for no time, it is {job.status}")
        _check_usable(jobid, why_unusable(job, jobid))
        self.queue.reschedule(job, time.time())
        registry.wake_after_commit(self)

    def cancel(self, jobid: int) -> None:
        """See `ITaskService`."""
        self._check_begun()
        try:
            job = self._job(jobid)
        except JobNotFound:
            return
        jobid = job.id
        if job.is_final:
            return
        if job.status == PROCESSING:
            # Not in the job's record: that would collide with the end of the job.
            check_path(self.requests, jobid)
            self.requests.insert(jobid)
            return
        _check_usable(jobid, why_unusable(job, jobid))
        self.queue.remove(job)
        job.cancel(time.time())
        self.queue.file(job)

    def getStatus(self, jobid: int) -> str:
        """See `ITaskService`."""
        return self._job(jobid).status

    def getResult(self, jobid: int) -> Any:
        """See `ITaskService`."""
        return self._job(jobid).output

    def getError(self, jobid: int) -> str:
        """See `ITaskService`."""
        return str(self._job(jobid).error)

    def getProgress(self, jobid: int) -> Progress | None:
        """See `ITaskService`."""
        progress: Progress | None = self.progress.get(self._job(jobid).id)
        return progress

    # -- all jobs -----------------------------------------------------------------------

    def clean(self, status: Iterable[str] = FINAL_STATUSES) -> None:
        """See `ITaskService`."""
        self._check_begun()
        check_parts(self)
        given: Any = (status,) if is_kind(status, str) else status
        names = list_of(given, "status", InvalidArgument, MAX_STATUSES)
        for name in names:
            if not is_kind(name, str) or plain(name) not in STATUSES:
                raise InvalidArgument(f"there is no status {shown(name)}")
        statuses = [setting.check_final(name) for name in names]
        for worker in self.workers.values():
            for jobid in worker.held:
                job = load(self.jobs, jobid)
                if job is None or job.status not in statuses:
                    continue
                if not self.queue.is_filed(job) and why_unusable(job, jobid) is None:
                    # The worker is about to file it: so that neither is disturbed, it removes
                    # the job instead, or if that is too late, the next who cleans.
                    job.is_unwanted = True
        for name in statuses:
            self.remove_oldest(name)

    def remove_oldest(
        self, status: str, limit: int | None = None, before: float | None = None
    ) -> int:
        """See `ITaskService`."""
        self._check_begun()
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
        counts = {status: self.queue.count(status) for status in self.queue.indexes}
        counts[PROCESSING] = 0
        for worker in self.workers.values():
            for jobid in worker.held:
                job = load(self.jobs, jobid)
                if job is None:
                    continue
                if job.status == PROCESSING:
                    counts[PROCESSING] += 1
                elif not job.is_unwanted and self.queue.has_to_be_filed(job):
                    counts[job.status] += 1
        return {status: counts[status] for status in STATUSES}

    # -- running jobs, in the caller's transaction -----------------------------------------

    def hasJobsWaiting(self, now: float | None = None) -> bool:
        """See `ITaskService`."""
        return self.queue.has_waiting(
            self.jobs, _time(now), lambda name: look_up(self.taskInterface, name) is not None
        )

    def claimNextJob(self, now: float | None = None) -> int | None:
        """See `ITaskService`."""
        self._check_begun()
        return claim_for_caller(self, _time(now), self._next_turn())

    def processNext(self, now: float | None = None, jobid: int | None = None) -> bool:
        """See `ITaskService`."""
        self._check_begun()
        now = _time(now)
        if jobid is None:
            return process_one(self, now, self._next_turn(), set())
        return process_claimed(self, self._job(jobid), now)

    def process(self, now: float | None = None) -> None:
        """See `ITaskService`."""
        self._check_begun()
        # One that asks to be run again at once has to wait for the next call.
        done: set[int] = set()
        while process_one(self, _time(now), len(done), done) and can_go_on(self):
            pass

    def _next_turn(self) -> int:
        # A hint that harms nobody, whatever becomes of the transaction.
        turn: int = getattr(self, "_v_turn", 0)
        self._v_turn = turn + 1
        return turn

    # -- the thread -------------------------------------------------------------------------

    def startProcessing(self) -> None:
        """See `ITaskService`."""
        check_not_old(self)
        try:
            registry.start(self)
        except ServiceNotStored:
            later.start_later(self)

    def stopProcessing(self, timeout_seconds: float | None = None) -> None:
        """See `ITaskService`."""
        seconds = None if timeout_seconds is None else number_of(timeout_seconds)
        if seconds is not None and not seconds >= 0:
            raise InvalidArgument(
                f"timeout_seconds must be 0 or more seconds, not {shown(timeout_seconds)}"
            )
        later.forget(self)
        registry.stop(self, seconds)

    def isProcessing(self) -> bool:
        """See `ITaskService`."""
        return registry.find(self) is not None


def _time(now: float | None) -> float:
    return time.time() if now is None else moment_of(now, "now")


def _check_usable(jobid: int, reason: str | None) -> None:
    if reason == MISSING:
        raise JobNotFound(f"there is no job {jobid}: {reason}")
    if reason is not None:
        raise JobUnusable(f"job {jobid}: {reason}")


def _checked_setting(name: str, value: Any, is_stored: bool) -> Any:
    value = setting.CHECKS[name](value)
    if name == "retention":
        return {status: Retention(*bounds) for status, bounds in value.items()}
    if name == "processorArguments" or (is_stored and name in _REFERENCES):
        return check_storable(value, InvalidArgument, name)
    return value
