# SPDX-License-Identifier: ZPL-2.1
"""The remote processor in ZODB."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import check_parts, check_sound
from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine import control, later
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.inline import Ran, claim_for_caller, process_claimed, process_next
from lovely.remotetask.engine.retention import clean
from lovely.remotetask.engine.service import Service
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.errors import ServiceNotStored
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.remote.base import RUN_JOB, ProcessorBase
from lovely.remotetask.remote.interfaces import IRemoteProcessor
from lovely.remotetask.remote.items import JobFactories, Jobs, Scheduler
from lovely.remotetask.remote.query import make_filter
from lovely.remotetask.remote.scheduler import time_of_call
from lovely.remotetask.store.quarantine import why_unusable

__all__ = ["RemoteProcessor"]


@implementer(IRemoteProcessor)
class RemoteProcessor(ProcessorBase, Service, Location):
    """A remote processor that is kept in ZODB.  See `IRemoteProcessor`.

    Stored beyond a `Service`: ``factories`` `JobFactories`; ``scheduler`` `Scheduler`.  Set by the
    application, if at all: ``jobWorkerFactory``, ``jobWorkerArguments``,
    ``schedulerWorkerFactory``, ``schedulerWorkerArguments``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factories = JobFactories(self)
        self.scheduler = Scheduler(self)

    @property
    def root(self) -> Any:
        """The root object of the database, in the transaction of whoever asks.

        :raises ServiceNotStored: the processor is in no database.
        """
        if self._p_jar is None:
            raise ServiceNotStored("the processor is in no database")
        return self._p_jar.root()

    @property
    def _jobFactories(self) -> JobFactories:
        check_sound(self, self.factories)
        return self.factories

    @property
    def _scheduler(self) -> Scheduler:
        check_sound(self, self.scheduler)
        return self.scheduler

    @property
    def _jobs(self) -> Jobs:
        return Jobs(self)

    def find_task(self, name: str) -> Any:
        """See `Service`: all jobs are run by the same task, which calls them."""
        return RUN_JOB

    def make_engine(self, pause: Callable[[float], bool], jobQuery: Any) -> Any:
        """See `ProcessorBase`."""
        accepts = make_filter(jobQuery)
        db = self._p_jar.db()
        return Engine(Claims(db, path_to(self), pause, accepts=lambda job: accepts(job.input)))

    def remove_with(self, status: str) -> int:
        """See `ProcessorBase`."""
        check_begun(self)
        check_parts(self)
        if status in FINAL_STATUSES:
            return clean(self, [status])[status]
        count = 0
        for record in list(self._jobs.records()):
            if record.shown_status == status and why_unusable(record, record.id) is None:
                control.discard(self, record.id)
                count += 1
        return count

    def pullNextJob(self, jobQuery: Any = None, callTime: datetime | None = None) -> Any:
        """See `IRemoteProcessor`."""
        check_begun(self)
        accepts = make_filter(jobQuery)
        until = time_of_call(callTime).timestamp()
        jobid = claim_for_caller(self, time.time(), lambda job: accepts(job.input), until)
        return None if jobid is None else self.jobs[jobid].input

    def run_next(self, jobQuery: Any, until: float) -> Ran | None:
        """See `ProcessorBase`."""
        check_begun(self)
        accepts = make_filter(jobQuery)
        return process_next(self, time.time, -1.0, lambda job: accepts(job.input), until)

    def run_claimed(self, jobid: str) -> Ran | None:
        """See `ProcessorBase`."""
        check_begun(self)
        return process_claimed(self, self._jobs.record(jobid), time.time, -1.0)

    def forget_untold(self, job: Any) -> None:
        """See `ProcessorBase`."""
        job._p_deactivate()  # it is loaded anew; what has changed, or is new, stays

    def next_call(self) -> float | None:
        """See `ProcessorBase`."""
        due: float | None = self._scheduler.next_call()
        return due

    def choose_anew(self) -> None:
        """See `ProcessorBase`."""
        self._scheduler.choose_anew()

    def start_role(self, role: str, start: Any) -> None:
        """See `ProcessorBase`."""
        later.start_now_or_later(self, role, start)

    def stop_role(self, role: str) -> bool:
        """See `ProcessorBase`."""
        return later.stop(self, None, role)
