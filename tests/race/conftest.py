# SPDX-License-Identifier: ZPL-2.1
"""What the races share: a service whose jobs leave traces, and threads with connections."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import transaction
import ZODB
from BTrees.IOBTree import IOBTree
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.interfaces import FINAL_STATUSES, ITask
from lovely.remotetask.processor import SimpleProcessor
from workplace import PATIENCE_SECONDS, Place, wait_until


class Arena(Place):
    """A database with a service at ``root["tasks"]`` and the traces of its jobs.

    - ``root["effects"]``: job input -> how often its effect was committed
    - ``executed``: job input -> how often its task was called, committed or not
    - ``most_at_once``: how many tasks were running at the same time
    """

    def __init__(self, db: ZODB.DB, register: Callable[..., object]) -> None:
        super().__init__(db)
        self.executed: Counter[Any] = Counter()
        self.most_at_once = 0
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._now = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._processors: list[tuple[Any, threading.Thread]] = []
        register("count", self._count, context=True)
        register("linger", self._linger, context=True)
        register("hang", self._hang, context=True)
        with self.transaction() as root:
            root["effects"] = IOBTree()

    # -- tasks ------------------------------------------------------------------------

    def _count(self, context: Any, input: int) -> int:
        with self._lock:
            self.executed[input] += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            effects = context.service._p_jar.root()["effects"]
            effects[input] = effects.get(input, 0) + 1
        finally:
            with self._lock:
                self._now -= 1
        return input

    def _linger(self, context: Any, input: int) -> int:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(0.002)  # a task that takes some time; nobody waits for it by this
        with self._lock:
            self._now -= 1
        return self._count(context, input)

    def _hang(self, context: Any, input: int) -> int:
        self.entered.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        return self._count(context, input)

    @staticmethod
    def task(name: str) -> Any:
        """Return the task with a name."""
        return getGlobalSiteManager().getUtility(ITask, name)

    # -- transactions -----------------------------------------------------------------

    def retried(self, change: Callable[[Any], Any]) -> Any:
        """Call ``change(root)`` and commit, again after conflicts."""
        while True:
            try:
                with self.transaction() as root:
                    result = change(root)
            except ConflictError:
                continue
            return result

    def add(self, count: int, task: str = "count", start: int = 0) -> list[int]:
        """Add jobs with the inputs ``start`` and following; return the ids."""
        with self.transaction() as root:
            return [root["tasks"].add(task, number) for number in range(start, start + count)]

    # -- threads ----------------------------------------------------------------------

    def spawn(self, body: Callable[..., None], *args: Any) -> threading.Thread:
        """Run a function in a thread; `join` raises what it raises."""

        def run() -> None:
            try:
                body(*args)
            except BaseException as error:
                self._failures.append(error)

        thread = threading.Thread(target=run, name="racer", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        """Wait for the threads that were spawned."""
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a racer hangs"
        self._threads.clear()
        if self._failures:
            raise self._failures[0]

    def work(self, factory: Any = SimpleProcessor, **arguments: Any) -> Any:
        """Start one more processor; several of them are rivals, as in several processes."""
        processor = factory(self.db, self.path, waitTime=0.02, **arguments)
        thread = threading.Thread(target=processor, name="remotetasks.race", daemon=True)
        self._processors.append((processor, thread))
        thread.start()
        return processor

    def rest(self) -> None:
        """Stop the processors, and wait for them."""
        for processor, _ in self._processors:
            processor.stop()
        for processor, thread in self._processors:
            maintenance = getattr(processor, "maintenance", None)
            for ending in (thread, maintenance):
                if ending is not None:
                    ending.join(PATIENCE_SECONDS)
                    assert not ending.is_alive(), f"{ending.name} hangs"
        self._processors.clear()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session with a transaction manager of its own."""
        session = Session(self.db, self.path, transaction.TransactionManager())
        try:
            yield session
        finally:
            session.close()

    def engine(self) -> Engine:
        """Return a new worker."""
        stop = threading.Event()
        return Engine(Claims(self.db, self.path, stop.wait))

    @staticmethod
    def give_up(engine: Engine, session: Session) -> None:
        """Let a worker give back what it holds, and leave."""
        engine.claims.give_back(session, list(engine.claims.in_hand.values()))

    @staticmethod
    def rescue(rescuer: Engine, session: Session, dead: Engine) -> int:
        """Let one worker free what another holds, as if it were dead; return how much."""
        change = functools.partial(rescue, worker_id=dead.claims.identity.id, now=time.time())
        return rescuer.claims.transact(session, change)

    # -- what there is ----------------------------------------------------------------

    def effects(self) -> dict[int, int]:
        """Return input -> how often the effect is there."""
        with self.connected() as (_, root):
            return dict(root["effects"])

    def statuses(self) -> dict[int, str]:
        """Return job id -> status."""
        with self.connected() as (_, root):
            return {jobid: job.status for jobid, job in root["tasks"].jobs.items()}

    def wait_until_done(self) -> None:
        """Wait until all jobs have ended."""
        wait_until(
            lambda: all(status in FINAL_STATUSES for status in self.statuses().values()),
            "all jobs to end",
        )

    def wait_until_drained(self) -> None:
        """Wait until no job waits or runs; those that have ended may be removed already."""

        def is_drained() -> bool:
            with self.connected() as (_, root):
                counts = root["tasks"].countJobs()
                return not any(n for status, n in counts.items() if status not in FINAL_STATUSES)

        wait_until(is_drained, "no job to wait")

    def check_books(self) -> None:
        """Check what holds when no worker runs: each job is in its place, and there once."""

        def check(root: Any) -> None:
            service = root["tasks"]
            in_records = Counter(job.status for job in service.jobs.values())
            counted = {status: n for status, n in service.countJobs().items() if n}
            assert counted == dict(in_records), (counted, dict(in_records))
            held = {jobid for worker in service.workers.values() for jobid in worker.held}
            for jobid, job in service.jobs.items():
                assert not (job.status == "processing" and jobid not in held), (
                    f"nobody holds job {jobid}, which is processing"
                )

        with self.connected() as (_, root):
            check(root)

    def check_clean(self) -> None:
        """Check that `clean` removes all ended jobs, and leaves nothing behind."""
        self.retried(lambda root: root["tasks"].clean())
        with self.connected() as (_, root):
            service = root["tasks"]
            assert not [job for job in service.jobs.values() if job.is_final]
            assert all(not len(list(index)) for index in service.queue.indexes.values())
            assert not len(service.queue)


@contextmanager
def working(arena: Arena) -> Iterator[Arena]:
    """Stop the processors at the end."""
    try:
        yield arena
    finally:
        arena.gate.set()
        arena.rest()


@pytest.fixture
def memory_arena(db: ZODB.DB, register: Callable[..., object]) -> Iterator[Arena]:
    """An arena in memory, for what does not depend on the storage."""
    with working(Arena(db, register)) as arena:
        yield arena


@pytest.fixture
def file_arena(file_db: ZODB.DB, register: Callable[..., object]) -> Iterator[Arena]:
    """An arena in a file."""
    with working(Arena(file_db, register)) as arena:
        yield arena


@pytest.fixture(params=["memory_arena", "file_arena"], ids=["db", "file_db"])
def arena(request: pytest.FixtureRequest) -> Arena:
    """An arena in memory, and one in a file."""
    arena: Arena = request.getfixturevalue(request.param)
    return arena
