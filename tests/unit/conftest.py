# SPDX-License-Identifier: ZPL-2.1
"""What the unit tests share: a service in memory, and an engine whose clocks stand still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ZODB

from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.protocol import Claim, Outcome
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.service import TaskService
from storages import storing_in
from workplace import Place


@pytest.fixture
def service(register: Any) -> TaskService:
    """A service in no database, that knows the task *echo*."""
    register("echo", lambda input: input)
    return TaskService()


class Workshop(Place):
    """A service in a database, and one worker, whose clocks move only when it pauses.

    - ``now``: seconds; both clocks of the engine.
    - ``pauses``: how long the engine has paused, each time.
    - ``is_stopping``: what a pause says.
    - ``while_pausing``: called in each pause.
    """

    def __init__(self, db: ZODB.DB) -> None:
        super().__init__(db)
        self.now = time.time() + 10.0  # later than what `add` writes down
        self.pauses: list[float] = []
        self.is_stopping = False
        self.while_pausing: Callable[[], object] = lambda: None
        self.engine = self.new_engine()
        self.session = Session(db, self.path)

    def new_engine(self) -> Engine:
        """Return one more worker."""
        return Engine(Claims(self.db, self.path, self._pause, lambda: self.now, lambda: self.now))

    def _pause(self, seconds: float) -> bool:
        if seconds:
            self.pauses.append(seconds)
            self.now += seconds
            self.while_pausing()
        return self.is_stopping

    def add(self, task: str, input: Any = None, **options: Any) -> int:
        """Add a job."""
        with self.service() as service:
            return service.add(task, input, **options)

    def add_cron_job(self, task: str, input: Any = None, **options: Any) -> int:
        """Add a cron job, whose schedule is counted from the time of the workshop."""
        with self.service() as service:
            jobid = service.addCronJob(task, input, **options)
            service.queue.reschedule(service.jobs[jobid], self.now)  # type: ignore[arg-type]
            return jobid

    def get(self, jobid: int, *names: str) -> Any:
        """Return attributes of a job's committed record."""
        with self.service() as service:
            values = [getattr(service.jobs[jobid], name) for name in names]
        return values[0] if len(values) == 1 else tuple(values)

    def claim(self, limit: int = 1) -> list[Claim]:
        """Claim jobs."""
        return self.engine.claims.claim(self.session, limit)

    def reserve(self, limit: int = 10) -> list[Claim]:
        """Claim jobs, or reserve those that may share a commit."""
        return self.engine.claims.claim(self.session, limit, may_reserve=True)

    def run_together(self, claims: list[Claim]) -> list[Outcome] | None:
        """Run reserved jobs in one transaction."""
        return self.engine.execution.run_together(self.session, claims)

    def claim_reserved(self, claims: list[Claim]) -> list[Claim]:
        """Claim what is still to be had of reserved jobs."""
        return self.engine.claims.claim_reserved(self.session, claims)

    def run(self, claim: Claim) -> Outcome:
        """Run one claimed job."""
        return self.engine.execution.run(self.session, claim)

    def step(self) -> Outcome | None:
        """Claim one job and run it."""
        claims = self.claim()
        return self.run(claims[0]) if claims else None

    def work(self) -> list[int]:
        """Run all jobs that are due; return their ids in the order they ran."""
        ran = []
        while (outcome := self.step()) is not None:
            ran.append(outcome.jobid)
        return ran

    def count_transactions(self) -> int:
        """Return how many transactions were committed to a FileStorage."""
        return sum(1 for _ in self.db.storage.iterator())


@pytest.fixture
def workshop(db: ZODB.DB, register: Any) -> Iterator[Workshop]:
    """A workshop in memory, that knows the task *echo*."""
    register("echo", lambda input: input)
    workshop = Workshop(db)
    yield workshop
    workshop.session.close()


@pytest.fixture
def little_room(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the storage have no room for a record of more than so many bytes; empty there is room.

    Others than the worker find room for all.
    """
    room = [10_000]
    storage: Any = workshop.session.connection._storage
    monkeypatch.setattr(storage, "store", storing_in(room, storage.store))
    return room


@pytest.fixture
def file_workshop(file_db: ZODB.DB, register: Any) -> Iterator[Workshop]:
    """A workshop in a file, that knows the task *echo*."""
    register("echo", lambda input: input)
    workshop = Workshop(file_db)
    yield workshop
    workshop.session.close()
