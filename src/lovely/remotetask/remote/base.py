# SPDX-License-Identifier: ZPL-2.1
"""What remote processors do, wherever their jobs are stored."""

from __future__ import annotations

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from transaction.interfaces import TransientError

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.storable import copy_of
from lovely.remotetask.context import awaited
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.control import cancel_job
from lovely.remotetask.engine.service import made_by, with_threads
from lovely.remotetask.errors import (
    InvalidArgument,
    JobIsLive,
    JobNotFound,
    TaskNotFound,
    describe,
    is_kind,
    is_storage_fault,
    shown,
)
from lovely.remotetask.remote.interfaces import (
    CANCELLED,
    COMPLETED,
    ERROR,
    JOB_STATUS_NAMES,
    PROCESSING,
    IJob,
)
from lovely.remotetask.remote.job import check_class, record_of
from lovely.remotetask.remote.scheduler import time_of_call
from lovely.remotetask.remote.worker import (
    SCHEDULER,
    WORKER,
    MultiJobWorker,
    SchedulerWorker,
    SimpleJobWorker,
)
from lovely.remotetask.setting import check_statuses

log = logging.getLogger("lovely.remotetask.remote")

#: What `removeJobs` removes if nobody says otherwise.
REMOVABLE = [CANCELLED, COMPLETED, ERROR]


class RunJob:
    """The task of all job objects: calls them.  See `lovely.remotetask.interfaces.ITask`."""

    def __call__(self, service: Any, jobid: Any, job: Any) -> Any:
        """See `lovely.remotetask.interfaces.ITask`."""
        record = record_of(job)
        if record is not None:
            record.begun_at = time.time()  # kept with what the run comes to
        try:
            return awaited(service, jobid, job(service))
        finally:
            service.forget_untold(job)


RUN_JOB = RunJob()


class ProcessorBase:
    """What remote processors of all stores do.  See `IRemoteProcessor`.

    ``_jobFactories``, ``_jobs`` and ``_scheduler`` are the store's.
    """

    _jobFactories: Any
    _jobs: Any
    _scheduler: Any
    jobWorkerFactory: Any = SimpleJobWorker
    jobWorkerArguments: Any = {  # noqa: RUF012 (never changed in place)
        "jobQuery": None,
        "waitTime": 1.0,
        "maxThreads": os.cpu_count() or 1,
    }
    schedulerWorkerFactory: Any = SchedulerWorker
    schedulerWorkerArguments: Any = {"waitTime": 1.0}  # noqa: RUF012

    # -- of the store -------------------------------------------------------------------

    @abstractmethod
    def make_engine(self, pause: Any, jobQuery: Any) -> Any:
        """Return an engine for one worker; see `lovely.remotetask.engine.protocol.Engine`.

        :param pause: called with seconds; waits, and says whether the worker is to stop.
        """

    @abstractmethod
    def remove_with(self, status: str) -> int:
        """Remove the jobs with a status; return their number."""

    @abstractmethod
    def pullNextJob(self, jobQuery: Any = None, callTime: datetime | None = None) -> Any:
        """See `IRemoteProcessor`."""

    @abstractmethod
    def run_next(self, jobQuery: Any, until: float) -> Any:
        """Claim and run the next job in the caller's transaction; see `inline.process_next`.

        :param until: jobs are taken that are due by then, in seconds since the epoch.
        """

    @abstractmethod
    def run_claimed(self, jobid: str) -> Any:
        """Run a job that was pulled; see `inline.process_claimed`."""

    @abstractmethod
    def forget_untold(self, job: Any) -> None:
        """Let a job object be as it is stored again, unless it was told that it has changed.

        What a run changes in place, a list among its attributes say, is not told by itself: it
        is neither to be stored because of that nor to be seen by the next run.
        """

    @abstractmethod
    def next_call(self) -> float | None:
        """Return when the next scheduler item is due, in seconds since the epoch."""

    def choose_anew(self) -> None:
        """Take another item at the next look than the first that is due: a rival had the same."""

    # -- jobs ---------------------------------------------------------------------------

    def addJobFactory(self, name: str, job: Any) -> None:
        """See `IRemoteProcessor`."""
        if not is_kind(name, str) or not name:
            raise InvalidArgument(f"a job factory needs a name, not {shown(name)}")
        is_job: bool = IJob.providedBy(job)
        if not is_job or record_of(job) is not None:
            raise InvalidArgument(f"{shown(job)} is no job factory")
        check_class(type(job))
        before = self.getJobFactory(name)
        if before is not job and _is_there(job):
            raise InvalidArgument(f"{job!r} is a job factory already")
        if before is not None and type(before) is not type(job):
            raise InvalidArgument(f"the job factory {name!r} is a {type(before).__name__}")
        self._jobFactories.put(name, job)

    def getJobFactory(self, name: str) -> Any:
        """See `IRemoteProcessor`."""
        return self._jobFactories.get(name)

    def addJob(self, name: str, input: Any = None) -> str:
        """See `IRemoteProcessor`."""
        factory = self.getJobFactory(name)
        if factory is None:
            raise TaskNotFound(f"there is no job factory {shown(name)}")
        is_job: bool = IJob.providedBy(factory)
        if not is_job:
            raise TaskNotFound(f"the job factory {shown(name)} cannot be used here: {factory!r}")
        jobid: str = self._jobs.add(factory.getJob(input))
        return jobid

    def addNamed(self, name: str, input: Any = None) -> str:
        """See `lovely.remotetask.interfaces.IService`."""
        return self.addJob(name, input)

    def getJobStatus(self, jobid: str) -> str:
        """See `IRemoteProcessor`."""
        status: str = self._jobs[jobid].status
        return status

    def getJobResult(self, jobid: str) -> Any:
        """See `IRemoteProcessor`."""
        return copy_of(self._jobs[jobid].output)

    def getJobErrors(self, jobid: str) -> list[Any]:
        """See `IRemoteProcessor`."""
        errors: list[Any] = self._jobs[jobid].errors
        return errors

    def cancelJob(self, jobid: str) -> None:
        """See `IRemoteProcessor`."""
        check_begun(self)
        try:
            record = self._jobs.record(jobid)
        except JobNotFound:
            return
        cancel_job(self, record)

    def removeJobs(
        self, stati: Iterable[str] | str | None = None, allowed: Iterable[str] | str | None = None
    ) -> dict[str, int]:
        """See `IRemoteProcessor`."""
        may = REMOVABLE if allowed is None else check_statuses(allowed, "stati", JOB_STATUS_NAMES)
        wanted = may if stati is None else check_statuses(stati, "stati", JOB_STATUS_NAMES)
        for status in wanted:
            if status not in may or status == PROCESSING:
                raise JobIsLive(f"jobs that are {status} are not to be removed")
        return {status: self.remove_with(status) for status in sorted(set(wanted))}

    # -- running them -------------------------------------------------------------------

    def processNextJob(self, jobQuery: Any = None, callTime: datetime | None = None) -> bool:
        """See `IRemoteProcessor`."""
        return self._kept(self.run_next(jobQuery, time_of_call(callTime).timestamp()))

    def processJobs(self, jobQuery: Any = None, callTime: datetime | None = None) -> bool:
        """See `IRemoteProcessor`."""
        count = 0
        while self.processNextJob(jobQuery, callTime):
            count += 1
        return bool(count)

    def processJob(self, jobid: str) -> bool:
        """See `IRemoteProcessor`."""
        status = self._jobs[jobid].status
        if status != PROCESSING:
            raise TypeError(f"job {jobid} is not being processed, it is {status}")
        ran = self.run_claimed(jobid)
        if ran is None:
            raise TypeError(f"job {jobid} is being processed by another worker")
        return self._kept(ran)

    def _kept(self, ran: Any) -> bool:
        """Say whether a job was run, and raise what it has raised if it is to be repeated."""
        if ran is None:
            return False
        if ran.error is not None:
            log.error("a job has failed: %s", ran.text)
            if not ran.is_over:
                raise ran.error
        return True

    # -- scheduling ---------------------------------------------------------------------

    def addScheduler(self, item: Any) -> str:
        """See `IRemoteProcessor`."""
        itemid: str = self._scheduler.add(item)
        return itemid

    def scheduleNextJob(self, callTime: datetime | None = None) -> str | None:
        """See `IRemoteProcessor`.  An item whose job cannot be added is logged and passed over."""
        callTime = time_of_call(callTime)
        while (item := self._scheduler.pullNextSchedulerItem(callTime)) is not None:
            try:
                return self.addJob(item.jobName, item.input)
            except TransientError:
                raise
            except Exception as error:
                if is_storage_fault(error):
                    raise
                log.error("%r: its job cannot be added: %s", item, describe(error))
        return None

    def reScheduleItem(self, item: Any, callTime: datetime | None = None) -> None:
        """See `IRemoteProcessor`."""
        self._scheduler.reScheduleItem(item, callTime)

    def reScheduleItems(self, callTime: datetime | None = None) -> None:
        """See `IRemoteProcessor`."""
        self._scheduler.reScheduleItems(callTime)

    # -- threads ------------------------------------------------------------------------

    def thread_name(self, role: str) -> str:
        """Return the name of the thread that has a role."""
        return f"{getattr(self, '__name__', None) or 'root'}-{role}"

    def make_processor(self, role: str) -> tuple[Any, str]:
        """See `lovely.remotetask.engine.service.Service`."""
        if role == SCHEDULER:
            factory, arguments = self.schedulerWorkerFactory, self.schedulerWorkerArguments
        else:
            factory, arguments = with_threads(
                self.jobWorkerFactory, self.jobWorkerArguments, MultiJobWorker
            )
        return made_by(factory, arguments, self), self.thread_name(role)

    @abstractmethod
    def start_role(self, role: str, start: Any) -> None:
        """Call ``start(processor)``, or let the commit do it that stores the processor."""

    @abstractmethod
    def stop_role(self, role: str) -> bool:
        """Stop a thread; say whether there was one."""

    def _start(self, role: str, kind: str) -> None:
        name = self.thread_name(role)

        def start(processor: Any) -> None:
            said = f"{kind} {name!r} started"
            if not registry.start(processor, role, lambda: log.info(said)):
                log.info("%s %r already running", kind, name)

        self.start_role(role, start)

    def _stop(self, role: str, kind: str) -> None:
        if self.stop_role(role):
            log.info("%s %r stopped", kind, self.thread_name(role))

    def startProcessor(self) -> None:
        """See `IRemoteProcessor`."""
        self._start(WORKER, "Processor")

    def stopProcessor(self) -> None:
        """See `IRemoteProcessor`."""
        self._stop(WORKER, "Processor")

    @property
    def isProcessing(self) -> bool:
        """See `IRemoteProcessor`."""
        return registry.find(self, WORKER) is not None

    @property
    def processorStartTime(self) -> float | None:
        """See `IRemoteProcessor`."""
        return registry.begun(self, WORKER)

    def startScheduler(self) -> None:
        """See `IRemoteProcessor`."""
        self._start(SCHEDULER, "Scheduler")

    def stopScheduler(self) -> None:
        """See `IRemoteProcessor`."""
        self._stop(SCHEDULER, "Scheduler")

    def startAll(self) -> bool:
        """See `lovely.remotetask.interfaces.IService`."""
        if self.isProcessing and self.isScheduling:
            return False
        self.startProcessor()
        self.startScheduler()
        return True

    @property
    def isScheduling(self) -> bool:
        """See `IRemoteProcessor`."""
        return registry.find(self, SCHEDULER) is not None

    @property
    def schedulerStartTime(self) -> float | None:
        """See `IRemoteProcessor`."""
        return registry.begun(self, SCHEDULER)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, '__name__', None)!r}>"


def _is_there(factory: Any) -> bool:
    """Say whether a factory has been added somewhere: an abort can have taken it out again."""
    place = factory.__parent__
    return place is not None and place.get(factory.__name__) is factory
