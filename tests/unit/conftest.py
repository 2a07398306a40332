# SPDX-License-Identifier: ZPL-2.1
"""What the unit tests share: a service in memory, and an engine whose clocks stand still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import transaction
import ZODB
from zope.component import getGlobalSiteManager

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine.claim import Claim
from lovely.remotetask.engine.protocol import Outcome
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask

Register = Callable[..., SimpleTask]


@pytest.fixture
def register() -> Register:
    """Return ``register(name, function, **options)``, which makes a task of a function."""

    def register(name: str, function: Callable[..., Any], **options: Any) -> SimpleTask:
        task = SimpleTask(function, **options)
        getGlobalSiteManager().registerUtility(task, ITask, name=name)
        return task

    return register


@pytest.fixture
def service(register: Register) -> TaskService:
    """A service in no database, that knows the task *echo*."""
    register("echo", lambda input: input)
    return TaskService()


class Workshop:
    """A service in a database, and one worker, whose clocks move only when it pauses.

    - ``now``: seconds; both clocks of the engine.
    - ``pauses``: how long the engine has paused, each time.
    - ``is_stopping``: what a pause says.
    - ``while_pausing``: called in each pause.
    """

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.now = time.time() + 10.0  # later than what `add` writes down
        self.pauses: list[float] = []
        self.is_stopping = False
        self.while_pausing: Callable[[], object] = lambda: None
        with self.transaction() as root:
            root["tasks"] = TaskService()
        with self.transaction() as root:
            self.path = path_to(root["tasks"])
        self.engine = self.new_engine()
        self.session = Session(db, self.path)

    def new_engine(self) -> Engine:
        """Return one more worker."""
        return Engine(self.db, self.path, self._pause, lambda: self.now, lambda: self.now)

    def _pause(self, seconds: float) -> bool:
        if seconds:
            self.pauses.append(seconds)
            self.now += seconds
            self.while_pausing()
        return self.is_stopping

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give the root, through a connection of its own, and commit at the end."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            yield connection.root()
            manager.commit()
        finally:
            with suppress(Exception):
                manager.abort()
            connection.close()

    @contextmanager
    def service(self) -> Iterator[TaskService]:
        """Give the service, through a connection of its own, and commit at the end."""
        with self.transaction() as root:
            yield root["tasks"]

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

    def last_transaction(self) -> bytes:
        """Return the id of the last transaction that was committed."""
        return bytes(self.db.storage.lastTransaction())

    def count_transactions(self) -> int:
        """Return how many transactions were committed to a FileStorage."""
        return sum(1 for _ in self.db.storage.iterator())


@pytest.fixture
def workshop(db: ZODB.DB, register: Register) -> Iterator[Workshop]:
    """A workshop in memory, that knows the task *echo*."""
    register("echo", lambda input: input)
    workshop = Workshop(db)
    yield workshop
    workshop.session.close()


@pytest.fixture
def file_workshop(file_db: ZODB.DB, register: Register) -> Iterator[Workshop]:
    """A workshop in a file, that knows the task *echo*."""
    register("echo", lambda input: input)
    workshop = Workshop(file_db)
    yield workshop
    workshop.session.close()


@pytest.fixture
def fail_commits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[BaseException]]:
    """Return ``fail_commits(*errors)``: the next commits of all sessions raise these."""

    def fail_commits(*errors: BaseException) -> list[BaseException]:
        waiting = list(errors)
        commit = Session.commit

        def failing(session: Session) -> None:
            if not waiting:
                return commit(session)
            session.in_commit = True
            raise waiting.pop(0)

        monkeypatch.setattr(Session, "commit", failing)
        return waiting

    return fail_commits


@pytest.fixture
def lose_the_reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that lets the next commit come to pass, and fail.

    So it seems when the server dies in its last word.
    """
    commit = Session.commit
    replies: list[Exception] = []

    def commit_and_lose(session: Session) -> None:
        commit(session)
        if replies:
            raise replies.pop()

    monkeypatch.setattr(Session, "commit", commit_and_lose)
    return lambda: replies.append(ConnectionResetError("the server has gone"))
