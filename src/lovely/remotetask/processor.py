# SPDX-License-Identifier: ZPL-2.1
"""Processors: the threads that work on a service in this process.

A processor owns one `lovely.remotetask.execution.Engine`, a loop that claims jobs, and a
*keeper* thread beside it that gives signs of life while jobs run, frees the jobs of dead
workers, and gives up jobs that run too long.  Both wait on events, never in a sleep.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from zope.interface import implementer

from lovely.remotetask import running
from lovely.remotetask.aside import load
from lovely.remotetask.errors import OldRecord, ServiceGone, seconds_of, whole_of
from lovely.remotetask.execution import Deadline, Engine
from lovely.remotetask.interfaces import PROCESSING, IProcessor
from lovely.remotetask.invalidation import listener_of
from lovely.remotetask.keeper import Keeper, free_orphans
from lovely.remotetask.seat import Seat, check_no_transaction, is_closed
from lovely.remotetask.setting import check_max_threads
from lovely.remotetask.step import Claim, claim_of
from lovely.remotetask.transact import Stopping
from lovely.remotetask.worker import is_exclusive, local_ids

log = logging.getLogger("lovely.remotetask")

#: Jobs that take together about this many seconds are claimed in one commit.
BATCH_SECONDS = 0.1

#: No more jobs than this are claimed in one commit.
MAX_BATCH = 200

#: A loop without work looks again after this many seconds at the least.
MIN_WAIT_SECONDS = 0.005

#: Where other processes can add jobs, and the storage does not tell: seconds between two
#: looks, and the part of a core that looking may take.
PROBE_SECONDS = 0.005
PROBE_SHARE = 0.004

#: Seconds between two looks whether a thread that is waited for was abandoned.
JOIN_SECONDS = 0.05


@implementer(IProcessor)
class SimpleProcessor:
    """Works on one job at a time, in the order they were added.  See `IProcessor`.

    :param db: the `ZODB.DB` with the service.
    :param servicePath: the names that lead from the root object to the service.
    :param waitTime: seconds after which a loop without work looks again; it is woken when
        work comes, so this is only a safety net.
    :raises InvalidArgument: ``waitTime`` is not within 0 to a hundred years.
    """

    def __init__(self, db: Any, servicePath: list[str], waitTime: float = 1.0) -> None:
        self.db = db
        self.servicePath = servicePath
        self.waitTime = seconds_of(waitTime, "waitTime")
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._batch = 1.0
        self._is_looping = False
        self._is_leaving = False
        # Guards what follows.  A thread that has nothing to carry has nothing to run.
        self._carried: dict[threading.Thread, list[Claim]] = {}  # claims of threads that run jobs
        self._running: dict[threading.Thread, list[Claim]] = {}  # those of them that run now
        self._failed: list[Claim] = []  # those that their threads have not brought to an end
        self._abandoned: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._is_exclusive = is_exclusive(db.storage)
        self._engine = Engine(db, servicePath, self._stop.wait)
        self._listener = None if self._is_exclusive else listener_of(db)
        self._engine.is_probing = not self._is_exclusive and self._listener is None
        self.signals: frozenset[bytes] = frozenset()
        self._keeper = Keeper(
            self._engine, self._needs_keeper, self.wake, self._replace, self._abandon
        )
        self._engine.on_deadline = self._keeper.notify  # type: ignore[method-assign]
        self._engine.transact.on_missed = self._call_keeper  # type: ignore[method-assign]
        self.keeper_thread: threading.Thread | None = None
        self.loop_thread: threading.Thread | None = None
        running.attend(self)

    # -- the loop -------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """See `IProcessor`."""
        return not self._stop.is_set()

    def __call__(self) -> None:
        """See `IProcessor`."""
        self._is_looping = True
        # Although this one may have nothing to do: others may die, jobs grow old, and what was
        # undone or restored is found by the check at the start.
        self._start_keeper()
        self._run_loop()

    def _run_loop(self) -> None:
        self.loop_thread = threading.current_thread()
        try:
            self._rim(self._loop)()
        finally:
            if not self._is_abandoned():
                self._end()

    def _end(self) -> None:
        """Do the last steps of the loop, whatever has ended it."""
        self.stop()
        if self._listener is not None:
            self._listener.forget(self)
        self._hand_back()
        self._is_looping = False
        self._keeper.notify()

    def _hand_back(self) -> None:
        """Give back all that is in hand; who still runs it finds nothing more to do."""
        with self._lock:
            running = [claim for claims in self._running.values() for claim in claims]
            self._carried.clear()
        try:
            if self._engine.holds:
                with self._engine.short_seat() as seat:
                    self._engine.leave(seat, running)
        except Exception as error:  # of any storage, that was closed, say, or does not work
            log.debug("service %s could give back nothing", self.name, exc_info=error)
        finally:
            # What could not be given back is free for whoever comes next.
            self._engine.identity.retire()

    def leave(self) -> None:
        """Let the keeper give back what is left, as its last act: the process is to end."""
        if not (self._is_looping or self._engine.holds):
            return
        self._is_leaving = True
        try:
            self._start_keeper()
        except RuntimeError:  # Python starts no more threads
            self._hand_back()
        self._keeper.notify()

    def _keep(self) -> None:
        self._rim(self._keeper)()
        if self._is_leaving:
            self._hand_back()

    def _start_keeper(self) -> None:
        if self.keeper_thread is None or not self.keeper_thread.is_alive():
            self.keeper_thread = threading.Thread(
                target=self._keep,
                name=f"remotetask-keeper.{self.name}",
                daemon=True,
            )
            self.keeper_thread.start()

    def _call_keeper(self) -> None:
        # It may not have been started yet, where no other process can die.
        if self._is_looping and not self._is_leaving:
            with suppress(RuntimeError):  # Python starts no more threads
                self._start_keeper()

    def _needs_keeper(self) -> bool:
        if self._is_leaving:
            return False
        if self.running and self._is_looping:
            return True
        # Also while a loop stops: a job that still runs has a timeout, and shows signs of life.
        return bool(self._engine.in_hand) and (self.running or self._is_looping)

    @property
    def name(self) -> str:
        """The path as one word."""
        return ".".join(self.servicePath)

    def stop(self) -> None:
        """See `IProcessor`."""
        self._stop.set()
        self._wake.set()
        self._keeper.notify()

    def hear(self, oids: list[bytes]) -> None:
        """See `lovely.remotetask.invalidation.Watcher`."""
        self._engine.news = oids
        self.wake()

    def wake(self) -> None:
        """Let the loop look for jobs."""
        self._wake.set()

    def _rim(self, body: Callable[[], None]) -> Callable[[], None]:
        """Make the outermost frame of a thread: nothing but Ctrl-C leaves it.

        A thread goes on after a fault, with a new connection, until it is to stop, the
        database is closed or the service is removed.
        """

        def run() -> None:
            faults = 0
            while self.running and not self._is_abandoned():
                begun = time.monotonic()
                try:
                    body()
                    break
                except Stopping:
                    break
                except ServiceGone as error:
                    self._say_gone(error)
                    self.stop()
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # not even what would end a thread does so
                    if is_closed(self.db):
                        self.stop()
                        break
                    faults = faults + 1 if time.monotonic() - begun < 60 else 1
                    with suppress(Stopping):
                        self._engine.transact.wait_for_storage(error, faults)

        return run

    def _say_gone(self, error: ServiceGone) -> None:
        with self._lock:
            if self.running and isinstance(error.__cause__, OldRecord):
                log.error("service %s is of no use, its thread ends: %s", self.name, error)
            elif self.running:
                log.warning("service %s is gone, its thread ends", self.name)
            self._stop.set()

    def _is_abandoned(self) -> bool:
        return threading.current_thread() in self._abandoned

    def _seat(self) -> Seat:
        return Seat(self.db, self.servicePath)

    def _loop(self) -> None:
        with self._seat() as seat:
            if self._is_exclusive:
                free_orphans(self._engine, seat)
            self._listen(seat)
            self._give_back_left(seat)
            while self.running and not self._is_abandoned():
                if not threading.main_thread().is_alive():
                    self.stop()  # the interpreter ends: pools and the like take no more work
                    break
                self._wake.clear()
                if not self._work(seat):
                    self._rest(seat)
            self._leave(seat)

    def _listen(self, seat: Seat) -> None:
        if self._listener is not None:
            signals = seat.begin().queue.signals
            self.signals = frozenset(signal._p_oid for signal in signals)
            seat.abort()
            self._listener.watch(self)

    def _work(self, seat: Seat) -> bool:
        """Claim a batch and run it; say whether there was one."""
        claims = self._engine.claim(seat, max(1, int(self._batch)), may_reserve=True)
        if claims:
            self._start_keeper()
        with self._carrying(claims):
            for group in _groups(claims, len(claims)):
                self._run(seat, group)
        return bool(claims)

    @contextmanager
    def _carrying(self, claims: list[Claim]) -> Iterator[None]:
        """Answer for claims in this thread; what is left of them is given back by the loop."""
        thread = threading.current_thread()
        with self._lock:
            self._carried[thread] = list(claims)
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(thread, None)
                left = self._carried.pop(thread, ())
                self._failed.extend(claim for claim in left if self._engine.has(claim))

    def _pick_up(self, claims: list[Claim]) -> bool:
        """Say whether this thread is to run claims: only it does so, from here on."""
        thread = threading.current_thread()
        with self._lock:
            if not (
                self.running and thread in self._carried and all(map(self._engine.has, claims))
            ):
                return False
            self._running[thread] = claims
            return True

    def _abandon(self, deadline: Deadline) -> bool:
        """Let a thread be that hangs in a job whose time is up; say no if the job has just ended.

        In the same step the rest of what the thread had in hand is taken over.
        """
        thread = deadline.thread
        with self._lock:
            try:
                self._engine.deadlines.remove(deadline)
            except ValueError:
                return False
            carried = self._carried.pop(thread, None)
            if carried is not None:  # else a single step, or one that was abandoned before
                self._abandoned.add(thread)
                self._running.pop(thread, None)
                self._failed.extend(claim for claim in carried if claim is not deadline.claim)
            return True

    def _run(self, seat: Seat, claims: list[Claim]) -> None:
        """Run claimed jobs: together where they may, and that goes well; else one by one."""
        if claims[0].is_reserved:
            if not self._pick_up(claims):
                return
            outcomes = self._engine.run_together(seat, claims)
            if outcomes is not None:
                self._learn(outcomes[0].seconds)
                return
            self._batch = max(1.0, self._batch / 2)
            claims = self._engine.claim_reserved(seat, claims)
            with self._lock:
                self._carried.get(threading.current_thread(), []).extend(claims)
        for claim in claims:
            if not self._pick_up([claim]):
                return
            self._learn(self._engine.run(seat, claim).seconds)

    def _learn(self, seconds: float) -> None:
        # As many as fit into the bound, growing by half: a slow job after many quick ones
        # must not find a hundred others claimed behind it.
        if threading.current_thread() not in self._carried:
            return  # it was abandoned: what hangs says nothing about others
        fitting = BATCH_SECONDS / max(seconds, 1e-4)
        self._batch = max(1.0, min(MAX_BATCH, fitting, self._batch * 1.5))

    def _leave(self, seat: Seat) -> None:
        if self._engine.holds and not self._is_abandoned():
            self._engine.give_back(seat, list(self._engine.in_hand.values()))

    def _give_back_left(self, seat: Seat) -> None:
        """Give back the claims of threads that have ended by a fault, or hang in a job."""
        count = len(self._failed)
        left = [claim for claim in self._failed[:count] if self._engine.has(claim)]
        if left:
            self._engine.give_back(seat, left)
        with self._lock:
            del self._failed[:count]

    def _rest(self, seat: Seat) -> None:
        """Wait until there may be work."""
        due = self._engine.next_due(seat)
        seconds = self.waitTime
        if due is not None:
            seconds = min(seconds, due - self._engine.clock())
        seconds = min(max(seconds, MIN_WAIT_SECONDS), threading.TIMEOUT_MAX)
        if not self._engine.is_probing:
            self._wake.wait(seconds)
            return
        end = time.monotonic() + seconds
        step = PROBE_SECONDS
        while (remaining := end - time.monotonic()) > 0:
            if self._wake.wait(min(step, remaining)):
                return
            before = time.monotonic()
            if self._engine.has_signal(seat):
                return
            step = max(PROBE_SECONDS, (time.monotonic() - before) / PROBE_SHARE)

    def _replace(self, thread: threading.Thread) -> None:
        """Start another thread in the place of one that was abandoned."""
        if thread is self.loop_thread:
            successor = threading.Thread(
                target=self._run_loop, name=f"remotetasks.{self.name}", daemon=True
            )
            successor.start()
            self.loop_thread = successor

    # -- single steps -------------------------------------------------------------------

    def processNext(self, jobid: int | None = None) -> bool:
        """See `IProcessor`."""
        check_no_transaction()
        claims: list[Claim] = []
        with self._seat() as seat:
            try:
                claims = self._next_claims(seat, jobid)
                if not claims:
                    return False
                self._start_keeper()
                with self._lock:
                    self._running[threading.current_thread()] = claims
                self._engine.run(seat, claims[0])
                self._release(seat, claims)
                if not self._engine.in_hand:
                    self._engine.give_back(seat, [])
                return True
            except BaseException:  # Ctrl-C, say: nobody is at the job any more
                with suppress(Exception):
                    self._engine.give_back(seat, claims, waits=False)
                    self._release(seat, claims)
                raise
            finally:
                with self._lock:
                    self._running.pop(threading.current_thread(), None)
                self._keeper.notify()

    def _next_claims(self, seat: Seat, jobid: int | None) -> list[Claim]:
        if jobid is None:
            return self._engine.claim(seat, 1)
        claim = self._claimed(seat, jobid)
        return [] if claim is None else [claim]

    def _release(self, seat: Seat, claims: list[Claim]) -> None:
        for claim in claims:
            if claim.owner != self._engine.identity.id:
                self._engine.release(seat, claim)

    def _claimed(self, seat: Seat, jobid: int) -> Claim | None:
        number = whole_of(jobid)
        if number is None:
            return None
        claim = self._engine.in_hand.get(number)
        if claim is not None:
            return claim
        service = seat.begin()
        job = load(service.jobs, number)
        if job is not None and job.status == PROCESSING and job.owner in local_ids(service):
            return claim_of(job)
        return None

    def claimNextJob(self) -> int | None:
        """Claim the next job for `processNext`; return its id, or None.

        Transaction: must not run in one; commits.
        """
        check_no_transaction()
        with self._seat() as seat:
            claims = self._engine.claim(seat, 1)
            if claims:
                self._start_keeper()
            return claims[0].jobid if claims else None

    def hasJobsWaiting(self) -> bool:
        """Say whether a job is ready to be claimed.

        Transaction: must not run in one; reads only.
        """
        check_no_transaction()
        with self._seat() as seat:
            return bool(seat.begin().hasJobsWaiting())


@implementer(IProcessor)
class MultiProcessor(SimpleProcessor):
    """Works on several jobs at a time, each in a thread of its own.  See `IProcessor`.

    :param maxThreads: how many jobs run at the same time at the most.
    :raises InvalidArgument: ``maxThreads`` is not within 1 to 1,000.
    """

    def __init__(
        self, db: Any, servicePath: list[str], waitTime: float = 1.0, maxThreads: int = 5
    ) -> None:
        # First, since from the other one's `running.attend` on it can be told to stop.
        self.maxThreads = check_max_threads(maxThreads)
        self._hands: list[threading.Thread] = []
        self._claims: queue.SimpleQueue[list[Claim] | None] = queue.SimpleQueue()
        super().__init__(db, servicePath, waitTime)

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that run jobs."""
        with self._lock:
            self._hands = [
                hand for hand in self._hands if hand.is_alive() and hand not in self._abandoned
            ]
            return self._hands

    def _work(self, seat: Seat) -> bool:
        self._give_back_left(seat)
        # A claim for each job that ends would be a commit for each: claim when half of what
        # may be held has been done, or a thread has nothing to do.
        batch = max(1, int(self._batch))
        most = batch * self.maxThreads
        held = len(self._engine.in_hand)
        self._start_hands(held)  # one that was abandoned, or has ended by a fault, is missing
        if held >= max(self.maxThreads, most // 2):
            self._wake.wait(min(max(self.waitTime, MIN_WAIT_SECONDS), threading.TIMEOUT_MAX))
            return True
        claims = self._engine.claim(seat, most - held, may_reserve=True)
        if claims:
            self._start_keeper()
        for group in _groups(claims, batch):
            self._claims.put(group)
        self._start_hands(len(self._engine.in_hand))
        return bool(claims)

    def _start_hands(self, held: int) -> None:
        for _ in range(min(self.maxThreads, held) - len(self.threads)):
            hand = threading.Thread(
                target=self._rim(self._handle), name=f"remotetask-job.{self.name}", daemon=True
            )
            with self._lock:  # who looks for threads that are alive must not find it before
                hand.start()
                self._hands.append(hand)

    def _handle(self) -> None:
        while not self._is_abandoned():
            claims = self._claims.get()
            if claims is None or not self.running:
                return
            try:
                with self._carrying(claims), self._seat() as seat:
                    self._run(seat, claims)
            finally:
                self._wake.set()

    def stop(self) -> None:
        """See `IProcessor`."""
        super().stop()
        for _ in self.threads:
            self._claims.put(None)  # wakes one that waits for work

    def _leave(self, seat: Seat) -> None:
        while hands := self.threads:  # but for those that have been abandoned meanwhile
            hands[0].join(JOIN_SECONDS)
        super()._leave(seat)

    def _replace(self, thread: threading.Thread) -> None:
        """See `SimpleProcessor`: the loop starts another thread."""
        self.wake()


def _groups(claims: list[Claim], size: int) -> Iterator[list[Claim]]:
    """Split claims into those that share a commit, next to each other, and single ones."""
    for is_reserved, group in itertools.groupby(claims, lambda claim: claim.is_reserved):
        together = list(group)
        step = size if is_reserved else 1
        for start in range(0, len(together), step):
            yield together[start : start + step]
