# SPDX-License-Identifier: ZPL-2.1
"""Processors: the threads that work on a service in this process.

A processor is an engine for services in ZODB, and a loop that drives it; see
`lovely.remotetask.engine.loop`.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import Any

from zope.interface import implementer

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.crew import OwnThread, Threads
from lovely.remotetask.engine.loop import Loop
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.engine.session import Session, check_no_transaction
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.errors import seconds_of, whole_of
from lovely.remotetask.interfaces import IProcessor
from lovely.remotetask.setting import check_max_threads


class Processor:
    """An engine, and the loop that drives it.

    :param engine: see `lovely.remotetask.engine.protocol.Engine`.
    :param name: the service, for threads and log.
    :param stop: what the engine pauses on.
    :param waitTime: see `SimpleProcessor`.
    :param make_crew: makes who runs what is claimed; see `Loop`.
    :param thread_name: the name of the loop's thread; None makes one of the service's.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        stop: threading.Event,
        waitTime: float,
        make_crew: Any,
        thread_name: str | None = None,
    ) -> None:
        self.waitTime = seconds_of(waitTime, "waitTime")
        self.engine = engine
        self.db = engine.claims.db
        self.name = name
        self.loop = Loop(engine, name, stop, self.waitTime, make_crew, thread_name)
        self.loop.owner = self
        registry.attend(self)

    # -- the loop -------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """See `IProcessor`."""
        return self.loop.running

    @property
    def loop_thread(self) -> threading.Thread | None:
        """The thread that runs the loop; another one when the first hangs in a job."""
        return self.loop.thread

    @property
    def maintenance_thread(self) -> threading.Thread | None:
        """The thread beside the loop."""
        return self.loop.maintenance_thread

    def __call__(self) -> None:
        """See `IProcessor`."""
        self.loop()

    def stop(self) -> None:
        """See `IProcessor`."""
        self.loop.stop()

    def wake(self) -> None:
        """Let the loop look for jobs."""
        self.loop.wake()

    def leave(self) -> None:
        """Give back what is left, in a thread beside: the process is to end."""
        self.loop.leave()

    # -- single steps ---------------------------------------------------------------

    def processNext(self, jobid: int | None = None) -> bool:
        """See `IProcessor`."""
        check_no_transaction()
        held = self.engine.claims
        claims: list[Claim] = []
        with held.open() as session:
            try:
                claims = self._next_claims(session, jobid)
                if not claims:
                    return False
                self.loop.start_maintenance()
                with self.loop.ledger.running(claims):
                    self.engine.execution.run(session, claims[0])
                    self._release(session, claims)
                    if not held.in_hand:
                        held.give_back(session, [])
                return True
            except BaseException:  # Ctrl-C, say: nobody is at the job any more
                with suppress(Exception):
                    held.give_back(session, claims, waits=False)
                    self._release(session, claims)
                raise
            finally:
                self.loop.maintenance.notify()

    def _next_claims(self, session: Session, jobid: int | None) -> list[Claim]:
        if jobid is None:
            return self.engine.claims.claim(session, 1)
        number = whole_of(jobid)
        claim = None if number is None else self.engine.claims.find(session, number)
        return [] if claim is None else [claim]

    def _release(self, session: Session, claims: list[Claim]) -> None:
        for claim in claims:
            if claim.owner != self.engine.claims.identity.id:
                self.engine.claims.release(session, claim)

    def claimNextJob(self) -> int | None:
        """Claim the next job for `processNext`; return its id, or None.

        Transaction: must not run in one; commits.
        """
        check_no_transaction()
        with self.engine.claims.open() as session:
            claims = self.engine.claims.claim(session, 1)
            if claims:
                self.loop.start_maintenance()
            return claims[0].jobid if claims else None

    def hasJobsWaiting(self) -> bool:
        """Say whether a job is ready to be claimed.

        Transaction: must not run in one; reads only.
        """
        check_no_transaction()
        with self.engine.claims.open() as session:
            return self.engine.news.has_waiting(session)


class _ServiceProcessor(Processor):
    """What both processors of services are; see them for their parameters."""

    def __init__(self, db: Any, servicePath: list[str], waitTime: float, make_crew: Any) -> None:
        self.servicePath = servicePath
        stop = threading.Event()
        engine = Engine(Claims(db, servicePath, stop.wait))
        super().__init__(engine, ".".join(servicePath), stop, waitTime, make_crew)


@implementer(IProcessor)
class SimpleProcessor(_ServiceProcessor):
    """Works on one job at a time, in the order they were added.  See `IProcessor`.

    :param db: the `ZODB.DB` with the service.
    :param servicePath: the names that lead from the root object to the service.
    :param waitTime: seconds after which a loop without work looks again; it is woken when
        work comes, so this is only a safety net.
    :raises InvalidArgument: ``waitTime`` is not within 0 to a hundred years.
    """

    def __init__(self, db: Any, servicePath: list[str], waitTime: float = 1.0) -> None:
        super().__init__(db, servicePath, waitTime, OwnThread)


@implementer(IProcessor)
class MultiProcessor(_ServiceProcessor):
    """Works on several jobs at a time, each in a thread of its own.  See `IProcessor`.

    :param maxThreads: how many jobs run at the same time at the most.
    :raises InvalidArgument: ``maxThreads`` is not within 1 to 1,000.
    """

    def __init__(
        self, db: Any, servicePath: list[str], waitTime: float = 1.0, maxThreads: int = 5
    ) -> None:
        self.maxThreads = check_max_threads(maxThreads)
        make_crew = partial(Threads, max_threads=self.maxThreads)
        super().__init__(db, servicePath, waitTime, make_crew)

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that run jobs."""
        crew: Any = self.loop.crew
        threads: list[threading.Thread] = crew.threads
        return threads
