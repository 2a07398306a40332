# SPDX-License-Identifier: ZPL-2.1
"""What the threads of remote processors do."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import transaction
from zope.interface import implementer

from lovely.remotetask.base.site import entered
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.crew import OwnThread, Runner, Threads
from lovely.remotetask.engine.loop import bounded
from lovely.remotetask.engine.protocol import Claim, Session, Stopping
from lovely.remotetask.errors import ServiceGone, seconds_of
from lovely.remotetask.processor import Processor
from lovely.remotetask.remote.interfaces import IMultiJobWorker, ISchedulerWorker, ISimpleJobWorker
from lovely.remotetask.setting import check_max_threads

__all__ = ["MultiJobWorker", "SchedulerWorker", "SimpleJobWorker"]

log = logging.getLogger("lovely.remotetask.remote")

#: The roles of a remote processor's threads.
WORKER = "worker"
SCHEDULER = "scheduler"


class _JobWorker(Processor):
    """What the workers for jobs share; see them for their parameters.

    One of a processor that is not stored cannot be called.
    """

    def __init__(
        self, remoteProcessor: Any, jobQuery: Any, waitTime: float, make_crew: Any
    ) -> None:
        self.remoteProcessor = remoteProcessor
        self.jobQuery = jobQuery
        if getattr(remoteProcessor, "place", None) is None:
            self.waitTime = seconds_of(waitTime, "waitTime")
            return
        stop = threading.Event()
        engine = remoteProcessor.make_engine(stop.wait, jobQuery)
        name = remoteProcessor.thread_name(WORKER)
        super().__init__(engine, f"{name} ({WORKER})", stop, waitTime, make_crew, name)

    @property
    def running(self) -> bool:
        """See `IWorker`."""
        loop = vars(self).get("loop")
        return loop is not None and loop.running


@implementer(ISimpleJobWorker)
class SimpleJobWorker(_JobWorker):
    """Runs one job at a time.  See `ISimpleJobWorker`.

    :param remoteProcessor: the `IRemoteProcessor`.
    :param jobQuery: limits the jobs; None are all.
    :param waitTime: seconds between looks when idle; it is woken when work comes.
    """

    def __init__(
        self, remoteProcessor: Any, jobQuery: Any = None, waitTime: float = 1.0, **ignored: Any
    ) -> None:
        super().__init__(remoteProcessor, jobQuery, waitTime, OwnThread)

    def doProcessNextJob(self) -> bool:
        """See `ISimpleJobWorker`."""
        try:
            found: bool = self.remoteProcessor.processNextJob(self.jobQuery)
            return found
        except Exception:
            log.exception("SimpleJobWorker: a job has failed")
            return True


@implementer(IMultiJobWorker)
class MultiJobWorker(_JobWorker):
    """Runs several jobs at a time, each in a thread of its own.  See `IMultiJobWorker`.

    :param maxThreads: how many jobs run at the same time, and are claimed, at the most.
    """

    def __init__(
        self,
        remoteProcessor: Any,
        jobQuery: Any = None,
        waitTime: float = 1.0,
        maxThreads: int = 5,
        **ignored: Any,
    ) -> None:
        self.maxThreads = check_max_threads(maxThreads)
        super().__init__(remoteProcessor, jobQuery, waitTime, self._make_crew)

    def _make_crew(self, loop: Any, runner: Runner) -> Threads:
        runner.max_batch = 1
        runner.on_run = self._say_run
        return Threads(loop, runner, self.maxThreads)

    def _say_run(self, claim: Claim) -> None:
        log.info("MultiJobWorker: processing job %s", claim.name)

    @property
    def threads(self) -> list[threading.Thread]:
        """See `IMultiJobWorker`."""
        loop = vars(self).get("loop")
        return [] if loop is None else loop.crew.threads

    def doPullNextJob(self) -> Any:
        """See `IMultiJobWorker`."""
        return self.remoteProcessor.pullNextJob(self.jobQuery)

    def doProcessJob(self, jobid: str) -> None:
        """See `IMultiJobWorker`."""
        try:
            self.remoteProcessor.processJob(jobid)
        except Exception:
            log.exception("MultiJobWorker: job %s has failed", jobid)
        transaction.commit()


@implementer(ISchedulerWorker)
class SchedulerWorker:
    """Adds the jobs of items that are due.  See `ISchedulerWorker`.

    :param remoteProcessor: the `IRemoteProcessor`.
    :param waitTime: seconds between looks; it is woken when this process changes an item.
    """

    def __init__(self, remoteProcessor: Any, waitTime: float = 1.0, **ignored: Any) -> None:
        self.remoteProcessor = remoteProcessor
        self.waitTime = seconds_of(waitTime, "waitTime")
        self._stop = threading.Event()
        self._woken = threading.Event()
        self.loop_thread: threading.Thread | None = None
        if getattr(remoteProcessor, "place", None) is not None:
            self.engine = remoteProcessor.make_engine(self._stop.wait, None)
            self.db = self.engine.claims.db
            registry.attend(self)

    @property
    def running(self) -> bool:
        """See `IWorker`."""
        return "engine" in vars(self) and not self._stop.is_set()

    def stop(self) -> None:
        """See `IWorker`."""
        self._stop.set()
        self._woken.set()

    def wake(self) -> None:
        """Let it look at the items."""
        self._woken.set()

    def doScheduleNextJob(self) -> Any:
        """See `ISchedulerWorker`."""
        try:
            return self.remoteProcessor.scheduleNextJob()
        except Exception:
            log.exception("SchedulerWorker: an item could not be scheduled")
            return True

    def __call__(self) -> None:
        """See `IWorker`."""
        self.loop_thread = threading.current_thread()
        faults = 0
        while not self._is_over():
            try:
                with self.engine.claims.open() as session:
                    while not self._is_over():
                        self._woken.clear()
                        change = partial(_schedule, session, itertools.count())
                        if not self.engine.claims.transact(session, change):
                            faults = 0
                            self._rest(session)
            except Stopping:
                return
            except ServiceGone:
                log.warning("%s is gone, its scheduler ends", self.loop_thread.name)
                return
            except Exception as error:
                if self.engine.is_closed:
                    return
                faults += 1
                with suppress(Stopping):
                    self.engine.wait_for_storage(error, faults)

    def _is_over(self) -> bool:
        return self._stop.is_set() or not threading.main_thread().is_alive()

    def _rest(self, session: Session) -> None:
        seconds = self.waitTime
        due = session.begin().next_call()
        session.abort()
        if due is not None:
            seconds = min(seconds, due - self.engine.claims.clock())
        self._woken.wait(bounded(seconds))


def _schedule(session: Session, tries: Iterator[int], processor: Any) -> Any:
    if next(tries):
        processor.choose_anew()
    with entered(session.site(processor)):
        return processor.scheduleNextJob()
