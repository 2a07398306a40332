# SPDX-License-Identifier: ZPL-2.1
"""Who runs what a loop has claimed: its own thread, or several."""

from __future__ import annotations

import collections
import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from lovely.remotetask.engine.ledger import Ledger
from lovely.remotetask.engine.protocol import Claim, Engine, Outcome, Session

#: Jobs that take together about this many seconds are claimed in one commit.
BATCH_SECONDS = 0.1

#: No more jobs than this are claimed in one commit.
MAX_BATCH = 200

#: A thread without work keeps its connection, and what it has loaded, for so many seconds.
KEEP_SECONDS = 1.0

#: Seconds between two looks whether a thread that is waited for was abandoned.
JOIN_SECONDS = 0.05


class Lead(Protocol):
    """What a crew knows of its loop."""

    name: str
    wait_seconds: float
    woken: threading.Event

    @property
    def running(self) -> bool:
        """Whether nobody has told it to stop."""

    def start_maintenance(self) -> None:
        """Start the thread beside the loop, if it does not run."""

    def kept_going(self, body: Callable[[], None]) -> Callable[[], None]:
        """Make the outermost frame of a thread."""

    def give_back_left(self, session: Session) -> None:
        """Give back the claims of threads that have ended by a fault, or hang in a job."""


class Allowance(Protocol):
    """How much the process may do."""

    def begin(self, count: int) -> bool:
        """Say whether so many jobs may begin; if not, the loop has been told to stop."""

    def end(self) -> None:
        """Take note that jobs have ended."""


class Crew(Protocol):
    """Who runs what a loop has claimed."""

    def work(self, session: Session) -> bool:
        """Claim what is to be run next, and have it run; say whether there was something."""

    def stop(self) -> None:
        """Let those who wait for work end."""

    def end(self) -> None:
        """Wait for those who still run something."""


class Runner:
    """Runs claims in the current thread, and learns how many to claim at once.

    :ivar batch: how many jobs to claim in one commit.
    :ivar max_batch: no more than this.
    :ivar on_run: called with a claim that is run by itself, before it is.
    :ivar allowance: is asked before jobs are run, and told when they have ended; or None.
    """

    def __init__(self, engine: Engine, ledger: Ledger, stop: threading.Event) -> None:
        self.engine = engine
        self.ledger = ledger
        self._stop = stop
        self.batch = 1.0
        self.max_batch = MAX_BATCH
        self.on_run: Callable[[Claim], None] = lambda claim: None
        self.allowance: Allowance | None = None

    def run(
        self,
        session: Session,
        claims: list[Claim],
        has_next: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run claimed jobs: together where they may, and that goes well; else one by one.

        :param has_next: says whether the thread goes on with others that are claimed.
        """
        if claims[0].is_reserved:
            if not self.pick_up(claims):
                return
            outcomes = self.engine.execution.run_together(session, claims)
            if outcomes is not None:
                self._learn(outcomes[0])
                self._note_end()
                return
            self.batch = max(1.0, self.batch / 2)
            claims = self.engine.claims.claim_reserved(session, claims)
            self.ledger.carry(claims)
        for claim in claims:
            if not self.pick_up([claim]):
                return
            self.on_run(claim)
            self._learn(self.engine.execution.run(session, claim, has_next))
            self._note_end()

    def pick_up(self, claims: list[Claim]) -> bool:
        if self._stop.is_set() or (self.allowance and not self.allowance.begin(len(claims))):
            return False
        return self.ledger.pick_up(claims)

    def _note_end(self) -> None:
        if self.allowance is not None:
            self.allowance.end()

    def _learn(self, outcome: Outcome) -> None:
        # As many as fit into the bound, growing by half: a slow job after many quick ones
        # must not find a hundred others claimed behind it.
        if not self.ledger.is_carrying():
            return  # it was abandoned: what hangs says nothing about others
        fitting = BATCH_SECONDS / max(outcome.seconds, 1e-4)
        self.batch = max(1.0, min(self.max_batch, fitting, self.batch * 1.5))


class OwnThread:
    """The loop's own thread, one job after the other."""

    def __init__(self, loop: Lead, runner: Runner) -> None:
        self._loop = loop
        self.runner = runner
        runner.engine.claims.runs_in_turn = True

    def work(self, session: Session) -> bool:
        """See `Crew`."""
        runner = self.runner
        claims = runner.engine.claims.claim(session, max(1, int(runner.batch)), may_reserve=True)
        if claims:
            self._loop.start_maintenance()
        with runner.ledger.carrying(claims):
            left = collections.deque(_groups(claims, len(claims)))
            while left:
                runner.run(session, left.popleft(), has_next=lambda: bool(left))
            runner.engine.execution.settle(session)
        return bool(claims)

    def stop(self) -> None:
        """See `Crew`."""

    def end(self) -> None:
        """See `Crew`."""


class Threads:
    """Threads of their own for jobs, up to so many."""

    def __init__(self, loop: Lead, runner: Runner, max_threads: int) -> None:
        self._loop = loop
        self.runner = runner
        self.max_threads = max_threads
        runner.engine.claims.threads = max_threads
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[list[Claim] | None] = queue.SimpleQueue()

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that run jobs."""
        is_abandoned = self.runner.ledger.is_abandoned
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive() and not is_abandoned(t)]
            return self._threads

    def work(self, session: Session) -> bool:
        """See `Crew`."""
        self._loop.give_back_left(session)
        claims = self.runner.engine.claims
        claims.desk = session
        # A claim for each job that ends would be a commit for each: claim when half of what
        # may be held has been done, or a thread has nothing to do.
        batch = max(1, int(self.runner.batch))
        most = batch * self.max_threads
        held = len(claims.in_hand)
        self._start(held)  # one that was abandoned, or has ended by a fault, is missing
        if held >= max(self.max_threads, most // 2):
            self._loop.woken.wait(self._loop.wait_seconds)
            return True
        claimed = claims.claim(session, most - held, may_reserve=True)
        if claimed:
            self._loop.start_maintenance()
        for group in _groups(claimed, batch):
            self._todo.put(group)
        self._start(len(claims.in_hand))
        return bool(claimed)

    def _start(self, held: int) -> None:
        for _ in range(min(self.max_threads, held) - len(self.threads)):
            thread = threading.Thread(
                target=self._loop.kept_going(self._run),
                name=f"remotetask-job.{self._loop.name}",
                daemon=True,
            )
            with self._lock:  # who looks for threads that are alive must not find it before
                thread.start()
                self._threads.append(thread)

    def _run(self) -> None:
        while self._may_go_on() and (claims := self._todo.get()) is not None:
            with self.runner.engine.claims.open() as session:
                self._run_all(session, claims)

    def _run_all(self, session: Session, claims: list[Claim] | None) -> None:
        """Run claims, and what follows them soon."""
        while claims is not None and self._loop.running:
            try:
                with self.runner.ledger.carrying(claims):
                    self.runner.run(session, claims, self._has_next)
            finally:
                self._loop.woken.set()
            claims = self._next(session) if self._may_go_on() else None
        self.runner.engine.execution.settle(session)

    def _next(self, session: Session) -> list[Claim] | None:
        """Return what is to be run next; keep the connection for it for a while."""
        with suppress(queue.Empty):
            return self._todo.get_nowait()
        self.runner.engine.execution.settle(session)
        session.abort()  # nothing is to stand still at what this thread has seen
        try:
            return self._todo.get(timeout=KEEP_SECONDS)
        except queue.Empty:
            return None

    def _has_next(self) -> bool:
        return not self._todo.empty()

    def _may_go_on(self) -> bool:
        return self._loop.running and not self.runner.ledger.is_abandoned()

    def stop(self) -> None:
        """See `Crew`."""
        for _ in self.threads:
            self._todo.put(None)  # wakes one that waits for work

    def end(self) -> None:
        """See `Crew`."""
        while threads := self.threads:  # but for those that have been abandoned meanwhile
            threads[0].join(JOIN_SECONDS)


def _groups(claims: list[Claim], size: int) -> Iterator[list[Claim]]:
    """Split claims into those that share a commit, next to each other, and single ones."""
    for is_reserved, group in itertools.groupby(claims, lambda claim: claim.is_reserved):
        together = list(group)
        step = size if is_reserved else 1
        for start in range(0, len(together), step):
            yield together[start : start + step]
