# SPDX-License-Identifier: ZPL-2.1
"""The remote processor on MongoDB."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import transaction
from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.identity import Identity
from lovely.remotetask.engine.inline import Ran, run_inline
from lovely.remotetask.errors import InvalidArgument, is_kind, shown
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.remote.base import RUN_JOB, ProcessorBase
from lovely.remotetask.remote.interfaces import IJob, IRemoteProcessor
from lovely.remotetask.remote.job import check_class
from lovely.remotetask.remote.mongo.claiming import Worker, check_query, claim_next, extend
from lovely.remotetask.remote.mongo.connection import Connection
from lovely.remotetask.remote.mongo.database import FACTORIES, ITEMS, JOBS, Database
from lovely.remotetask.remote.mongo.documents import id_of
from lovely.remotetask.remote.mongo.engine import Claims, Engine
from lovely.remotetask.remote.mongo.items import (
    JobFactories,
    Jobs,
    Notes,
    Queue,
    Records,
    Scheduler,
    open_connection,
    remove_with,
)
from lovely.remotetask.remote.scheduler import Cron, Delay, time_of_call
from lovely.remotetask.retry import MAX_DEATHS
from lovely.remotetask.store.worker import LEASE_SECONDS

__all__ = ["MongoRemoteProcessor"]


@implementer(IRemoteProcessor)
class MongoRemoteProcessor(ProcessorBase, Location):
    """A remote processor whose factories, jobs and scheduler items are in MongoDB.

    One can be used by all threads: each sees what its own transaction has written.  Nothing of
    the processor itself is stored.

    :param database: a `pymongo.database.Database`.
    :param job_classes: the classes of the jobs in it; those of factories that are added in this
        process are known as well.
    :raises InvalidArgument: one of them is none, or hides what the processor tells of its jobs.
    :ivar lease_seconds: so long a claim holds without a sign of life, in float seconds.
    :ivar max_deaths: deaths of its process after which a job is an error.
    """

    lease_seconds: float = LEASE_SECONDS
    max_deaths: int = MAX_DEATHS
    _p_jar = None
    _p_serial = b"\0" * 8
    _p_changed = False

    def __init__(self, database: Any, job_classes: Iterable[type] = ()) -> None:
        classes = list(job_classes)
        for known in classes:
            if not (is_kind(known, type) and IJob.implementedBy(known)):
                raise InvalidArgument(f"{shown(known)} is no class of jobs")
            check_class(known)
        self.database = Database(database, [Delay, Cron, *classes])
        self.place = self.database, b""
        self._caller = Identity(self.database)
        self._connections = threading.local()
        self._connection: Connection | None = None

    # -- as one transaction sees it -----------------------------------------------------

    def seen_by(self, manager: Any) -> MongoRemoteProcessor:
        """Return the same processor, as it is seen in the transactions of a manager."""
        seen = copy.copy(self)
        seen._connection = open_connection(self.database, seen, manager)
        return seen

    @property
    def connection(self) -> Connection:
        """What the current transaction has loaded and changed."""
        if self._connection is not None:
            return self._connection
        of_thread = vars(self._connections)
        if "connection" not in of_thread:
            manager = transaction.manager.manager
            of_thread["connection"] = open_connection(self.database, self, manager)
        connection: Connection = of_thread["connection"]
        return connection

    @property
    def _jobFactories(self) -> JobFactories:
        factories: JobFactories = self.connection.parents[FACTORIES]
        return factories

    @property
    def _jobs(self) -> Jobs:
        jobs: Jobs = self.connection.parents[JOBS]
        return jobs

    @property
    def _scheduler(self) -> Scheduler:
        scheduler: Scheduler = self.connection.parents[ITEMS]
        return scheduler

    # -- for the engine -----------------------------------------------------------------

    def parts(self) -> tuple[Any, ...]:
        """See `lovely.remotetask.engine.service.Service`: nothing of it is in ZODB."""
        return ()

    @property
    def jobs(self) -> Records:
        """See `lovely.remotetask.engine.service.Service`."""
        return Records(self._jobs)

    @property
    def queue(self) -> Queue:
        """See `lovely.remotetask.engine.service.Service`."""
        return Queue(self.connection)

    @property
    def requests(self) -> Notes:
        """See `lovely.remotetask.engine.service.Service`."""
        return Notes(self.connection, "_cancel")

    @property
    def edits(self) -> Notes:
        """See `lovely.remotetask.engine.service.Service`."""
        return Notes(self.connection, "_due")

    @property
    def progress(self) -> dict[str, Any]:
        """See `lovely.remotetask.engine.service.Service`: it is not kept here."""
        return {}

    def find_task(self, name: str) -> Any:
        """See `lovely.remotetask.engine.service.Service`."""
        return RUN_JOB

    def make_engine(self, pause: Callable[[float], bool], jobQuery: Any) -> Engine:
        """See `ProcessorBase`."""
        return Engine(Claims(self, pause, check_query(jobQuery)))

    # -- jobs ---------------------------------------------------------------------------

    def remove_with(self, status: str) -> int:
        """See `ProcessorBase`."""
        return remove_with(self.connection, status, status in FINAL_STATUSES)

    def pullNextJob(self, jobQuery: Any = None, callTime: datetime | None = None) -> Any:
        """See `IRemoteProcessor`.  Others see it at once; an abort gives the job back."""
        record = self._claim(jobQuery, time_of_call(callTime).timestamp())
        return None if record is None else record.input

    def _claim(self, jobQuery: Any, until: float) -> Any:
        worker = Worker.here(self._caller.id, is_inline=True)
        records = claim_next(self, worker, check_query(jobQuery), time.time(), until)
        return records[0] if records else None

    def run_next(self, jobQuery: Any, until: float) -> Ran | None:
        """See `ProcessorBase`."""
        record = self._claim(jobQuery, until)
        return None if record is None else self._run(record)

    def run_claimed(self, jobid: str) -> Ran | None:
        """See `ProcessorBase`."""
        record = self._jobs.record(jobid)
        if record.owner != self._caller.id:
            return None
        extend(self, [id_of(jobid)], self._caller.id)
        return self._run(record)

    def _run(self, record: Any) -> Ran:
        self.connection.join()  # before a savepoint is made, whose rollback would forget the record
        return run_inline(self, record, time.time, -1.0)

    def forget_untold(self, job: Any) -> None:
        """See `ProcessorBase`."""
        entry = self.connection.entries.get(job._p_oid)
        if entry is not None and entry.found is job:
            entry.forget_untold()

    # -- threads ------------------------------------------------------------------------

    def next_call(self) -> float | None:
        """See `ProcessorBase`."""
        return self._scheduler.next_call()

    def start_role(self, role: str, start: Any) -> None:
        """See `ProcessorBase`."""
        start(self)

    def stop_role(self, role: str) -> bool:
        """See `ProcessorBase`."""
        return registry.stop(self, None, role)
