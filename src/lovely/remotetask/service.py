# SPDX-License-Identifier: ZPL-2.1
"""The service: what applications keep in their database and call."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask import running
from lovely.remotetask.aside import MISSING, load, why_unreadable, why_unusable
from lovely.remotetask.autostart import bootStrapSubscriber, getAutostartServiceNames
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    JobIsLive,
    JobNotFound,
    JobUnusable,
    TaskNotFound,
)
from lovely.remotetask.inline import can_go_on, claim_inline, run_inline
from lovely.remotetask.interfaces import (
    CRONJOB,
    DELAYED,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
    STARTLATER,
    STATUSES,
    ITask,
    ITaskService,
)
from lovely.remotetask.job import CronJob, Job, JobTree, Progress
from lovely.remotetask.processor import SimpleProcessor
from lovely.remotetask.queue import JobQueue
from lovely.remotetask.retry import MAX_DEATHS, RetryPolicy
from lovely.remotetask.step import (
    DEFAULT_RETENTION,
    Retention,
    orphans,
    release,
    remove_oldest,
    rescue,
    worker_record,
)
from lovely.remotetask.storable import check_limits, check_storable
from lovely.remotetask.task import available, check_input, look_up
from lovely.remotetask.witness import check_parts, check_path
from lovely.remotetask.worker import LEASE_SECONDS, Identity, is_exclusive

__all__ = ["TaskService", "bootStrapSubscriber", "getAutostartServiceNames"]

#: Job ids lie in 1..MAX_JOB_ID.
MAX_JOB_ID = 2**31 - 1

_caller = Identity()


class _Cancelled(int):
    """What `TaskService.cancel` returns for a job that is cancelled: true, equal to True.

    It shows nothing in a console or a doctest, where the first lovely.remotetask, whose
    ``cancel`` returned nothing, showed nothing.
    """

    def __repr__(self) -> str:
        return ""


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
    taskInterface: Any = ITask
    processorFactory: Any = SimpleProcessor
    processorArguments: dict[str, Any] = {"waitTime": 1.0}  # noqa: RUF012 (never changed in place)
    lease_seconds: float = LEASE_SECONDS
    max_deaths: int = MAX_DEATHS
    retention: dict[str, Retention] = DEFAULT_RETENTION
    max_input_bytes: int | None = None
    max_input_depth: int | None = None

    def __init__(self) -> None:
        self.jobs = JobTree()
        self.queue = JobQueue()
        self.workers = OOBTree()
        self.requests = IITreeSet()
        self.progress = IOBTree()
        self.edits = IOBTree()

    def __setattr__(self, name: str, value: Any) -> None:
        # Not a property: by the time its setter refuses, Persistent would have noted a change.
        if name == "retention":
            _check_retention(value)
        super().__setattr__(name, value)

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
        input = self._checked(task, input, retry)
        job = Job(self._generateId(), task, input, retry)
        if startLater:
            job.status = STARTLATER
        return self._store(job)

    def add_many(
        self, task: str, inputs: Iterable[Any], retry: RetryPolicy | None = None
    ) -> list[int]:
        """See `ITaskService`."""
        inputs = [self._checked(task, input, retry) for input in inputs]
        check_parts(self)
        jobids = self._generateIds(len(inputs))
        jobs = {
            jobid: Job(jobid, task, input, retry)
            for jobid, input in zip(jobids, inputs, strict=True)
        }
        if jobs:
            self._v_last = jobs[jobids[-1]]
            self.jobs.add(jobs)
            self.queue.file_ready(list(jobs.values()))
            running.wake_after_commit(self)
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
        task = look_up(self.taskInterface, name) if isinstance(name, str) else None
        if task is None:
            raise TaskNotFound(f"no task is registered under the name {name!r}")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise InvalidArgument(f"retry takes a RetryPolicy, not {retry!r}")
        if retry is not None:
            check_storable(retry, InvalidArgument, "the retry policy")
        check_input(task, input)
        check_limits(input, self.max_input_bytes, self.max_input_depth)
        return check_storable(input, InvalidInput, "the input")

    def _store(self, job: Job) -> int:
        check_parts(self)
        self._v_last = self.jobs[job.id] = job
        self.queue.file(job)
        running.wake_after_commit(self)
        return job.id

    def _generateId(self) -> int:
        return self._generateIds(1)[0]

    def _generateIds(self, count: int) -> list[int]:
        # In runs, so that new jobs fall into the same page and the same lane of the line; from
        # a random start in each connection, and after a job that was not stored: somebody else
        # may be adding in the same lane.  A number that outlives an abort does no harm.
        jobids: list[int] = []
        first: int | None = getattr(self, "_v_next_id", None)
        if first is not None and self._has_lost_a_job():
            first = None
        while len(jobids) < count:
            if first is None or first > MAX_JOB_ID:
                first = random.randrange(1, MAX_JOB_ID + 1)
            run = range(first, min(first + count - len(jobids), MAX_JOB_ID + 1))
            there = zip(run, self.jobs.get_many(run), strict=True)
            free = [jobid for jobid, job in takewhile(lambda found: found[1] is None, there)]
            jobids += free
            first = run.stop if len(free) == len(run) else None
        self._v_next_id: int | None = first
        return jobids

    def _has_lost_a_job(self) -> bool:
        last: Job | None = getattr(self, "_v_last", None)
        if last is None or last._p_jar is not None:  # it was committed
            return False
        return self.jobs.get(last.id) is not last

    # -- one job ----------------------------------------------------------------------

    def _job(self, jobid: int) -> Job:
        check_parts(self)
        try:
            job: Job = self.jobs[jobid]
        except (KeyError, TypeError):
            raise JobNotFound(f"there is no job {jobid!r}") from None
        _check_usable(jobid, why_unreadable(job, jobid))
        return job

    def startJob(self, jobid: int) -> bool:
        """See `ITaskService`."""
        job = self._job(jobid)
        if job.status != STARTLATER:
            return False
        _check_usable(jobid, why_unusable(job, jobid))
        self.queue.remove(job)
        job.wait(None)
        self.queue.file(job)
        running.wake_after_commit(self)
        return True

    def reschedule(self, jobid: int) -> None:
        """See `ITaskService`."""
        job = self._job(jobid)
        if isinstance(job, CronJob) and job.status == PROCESSING:
            return  # it counts anew when its run has ended
        if not isinstance(job, CronJob) or job.status not in (CRONJOB, DELAYED):
            raise InvalidArgument(f"job {jobid} waits for no time, it is {job.status}")
        _check_usable(jobid, why_unusable(job, jobid))
        self.queue.reschedule(job, time.time())
        running.wake_after_commit(self)

    def cancel(self, jobid: int) -> int | None:
        """See `ITaskService`."""
        try:
            job = self._job(jobid)
        except JobNotFound:
            return False
        if job.is_final:
            return False
        if job.status == PROCESSING:
            # Not in the job's record: that would collide with the end of the job.
            check_path(self.requests, jobid)
            self.requests.insert(jobid)
            return None
        _check_usable(jobid, why_unusable(job, jobid))
        self.queue.remove(job)
        job.cancel(time.time())
        self.queue.file(job)
        return _Cancelled(True)

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
        self._job(jobid)
        progress: Progress | None = self.progress.get(jobid)
        return progress

    # -- all jobs -----------------------------------------------------------------------

    def clean(self, status: Iterable[str] = FINAL_STATUSES) -> None:
        """See `ITaskService`."""
        check_parts(self)
        statuses = [status] if isinstance(status, str) else list(status)
        for name in statuses:
            if name not in STATUSES:
                raise InvalidArgument(f"there is no status {name!r}")
            _check_final(name)
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
        _check_final(status)
        return remove_oldest(self, status, limit, before)

    def countJobs(self) -> dict[str, int]:
        """See `ITaskService`."""
        counts = {status: len(index) for status, index in self.queue.indexes.items()}
        counts[QUEUED] = len(self.queue)
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
        job = claim_inline(self, _caller.id, _time(now), self._next_turn())
        if job is None:
            return None
        record = worker_record(self, _caller.id)
        record.held = (*record.held, job.id)
        record.is_inline = True
        return job.id

    def processNext(self, now: float | None = None, jobid: int | None = None) -> bool:
        """See `ITaskService`."""
        now = _time(now)
        if jobid is None:
            return self._process_one(now, self._next_turn(), set())
        job = self._job(jobid)
        if job.status != PROCESSING or job.owner != _caller.id:
            return False
        self._run(job, now)
        return True

    def process(self, now: float | None = None) -> None:
        """See `ITaskService`."""
        # One that asks to be run again at once has to wait for the next call.
        done: set[int] = set()
        while self._process_one(_time(now), len(done), done) and can_go_on(self):
            pass

    def _next_turn(self) -> int:
        # A hint that harms nobody, whatever becomes of the transaction.
        turn: int = getattr(self, "_v_turn", 0)
        self._v_turn = turn + 1
        return turn

    def _process_one(self, now: float, turn: int, done: set[int]) -> bool:
        if self._p_jar is not None and is_exclusive(self._p_jar.db().storage):
            for worker_id in orphans(self):
                rescue(self, worker_id, now)
        job = claim_inline(self, _caller.id, now, turn, done)
        if job is None:
            return False
        done.add(job.id)
        self._run(job, now)
        return True

    def _run(self, job: Job, now: float) -> None:
        jobid = job.id
        run_inline(self, job, now)
        release(self, _caller.id, jobid, now)

    # -- the thread -------------------------------------------------------------------------

    def startProcessing(self) -> None:
        """See `ITaskService`."""
        running.start(self)

    def stopProcessing(self, timeout_seconds: float | None = None) -> None:
        """See `ITaskService`."""
        running.stop(self, timeout_seconds)

    def isProcessing(self) -> bool:
        """See `ITaskService`."""
        return running.find(self) is not None


def _time(now: float | None) -> float:
    if now is None:
        return time.time()
    if isinstance(now, bool) or not isinstance(now, (int, float)) or not math.isfinite(now):
        raise InvalidArgument(f"now must be seconds since the epoch, not {now!r}")
    return now


def _check_usable(jobid: int, reason: str | None) -> None:
    if reason == MISSING:
        raise JobNotFound(f"there is no job {jobid}: {reason}")
    if reason is not None:
        raise JobUnusable(f"job {jobid}: {reason}")


def _check_retention(retention: Any) -> None:
    if not isinstance(retention, Mapping):
        raise InvalidArgument("retention must be a dict: final status -> Retention")
    for status in retention:
        _check_final(status)


def _check_final(status: str) -> None:
    if status not in FINAL_STATUSES:
        raise JobIsLive(f"jobs that are {status!r} are still needed; cancel them instead")
