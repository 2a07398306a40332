# SPDX-License-Identifier: ZPL-2.1
"""The loop that claims jobs and has them run, with the thread beside it.

It knows an engine by `protocol.Engine` alone.  It and its *maintenance* thread wait on events,
never in a sleep.  Who runs what was claimed is its *crew*: its own thread, or several.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lovely.remotetask.engine.crew import Crew, Runner
from lovely.remotetask.engine.ledger import Ledger
from lovely.remotetask.engine.maintenance import Maintenance
from lovely.remotetask.engine.protocol import Engine, Session, Stopping
from lovely.remotetask.errors import OldRecord, ServiceGone

log = logging.getLogger("lovely.remotetask")

#: A loop without work looks again after this many seconds at the least.
MIN_WAIT_SECONDS = 0.005

#: Where other processes can add jobs, and the storage does not tell: seconds between two
#: looks, the part of a core that looking may take, and the longer nothing has come the rarer.
PROBE_SECONDS = 0.005
PROBE_SHARE = 0.004
IDLE_SHARE = 0.05
MAX_PROBE_SECONDS = 1.0

#: Where such looks are made, a claim is tried without a signal only after so many waits.
WAITS = 10

#: A thread that has gone on for so many seconds since its last fault has put it behind itself.
FAULT_SECONDS = 60.0


def bounded(seconds: float) -> float:
    """Return how long a loop without work waits: neither so short that it is busy, nor too long."""
    return min(max(seconds, MIN_WAIT_SECONDS), threading.TIMEOUT_MAX)


def between_looks(cost: float, idle: float) -> float:
    """Return the seconds between two looks at the signals of a storage that has to be asked.

    :param cost: the seconds that the last look took.
    :param idle: for how many seconds there was no work.
    """
    seconds = max(PROBE_SECONDS, cost / PROBE_SHARE, idle * IDLE_SHARE)
    return min(seconds, MAX_PROBE_SECONDS)


class Loop:
    """Works on one service until it is stopped.

    :param name: the service, for threads and log.
    :param stop: set when it is to stop; what the engine pauses on.
    :param wait_seconds: after this a loop without work looks again; it is woken when work
        comes, so this is only a safety net.
    :param make_crew: makes the crew.
    :param thread_name: the name of the loop's thread; None makes one of the service's.
    :ivar thread: the thread of the loop; another one when the first hangs in a job.
    :ivar maintenance_thread: the thread beside it.
    :ivar signals: see `wakeup.Watcher`.
    :ivar owner: who drives it; lives as long as its threads do.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        stop: threading.Event,
        wait_seconds: float,
        make_crew: Callable[[Loop, Runner], Crew],
        thread_name: str | None = None,
    ) -> None:
        self.engine = engine
        self.name = name
        self._thread_name = thread_name or f"remotetasks.{name}"
        self.wait_seconds = bounded(wait_seconds)
        self.is_looping = False
        self.signals: frozenset[bytes] = frozenset()
        self.owner: object = None
        self.ledger = Ledger(engine.claims, engine.execution)
        self.crew = make_crew(self, Runner(engine, self.ledger, stop))
        self.maintenance = Maintenance(
            engine, self._needs_maintenance, self.wake, self._replace, self.ledger.abandon
        )
        engine.execution.on_deadline = self.maintenance.notify
        engine.execution.logs.on_news = self.maintenance.notify
        engine.upkeep.on_missed = self.maintenance.hurry
        self.maintenance_thread: threading.Thread | None = None
        self.thread: threading.Thread | None = None
        self.woken = threading.Event()
        self._stop = stop
        self._is_leaving = False
        self._worked = time.monotonic()  # when there was work, by the monotonic clock
        self._lock = threading.Lock()

    # -- from outside -------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether nobody has told it to stop."""
        return not self._stop.is_set()

    def __call__(self) -> None:
        """Work until it is stopped."""
        self.is_looping = True
        # Although this one may have nothing to do: others may die, jobs grow old, and what was
        # undone or restored is found by the check at the start.
        self.start_maintenance()
        self._run()

    def stop(self) -> None:
        """End when the running job has ended."""
        self._stop.set()
        self.woken.set()
        self.maintenance.notify()
        self.crew.stop()

    def wake(self) -> None:
        """Look for jobs."""
        self.woken.set()

    def hear(self, oids: list[bytes]) -> None:
        """See `wakeup.Watcher`."""
        self.engine.news.hear(oids)
        self.wake()

    def leave(self) -> None:
        """Let the maintenance give back what is left, as its last act: the process is to end."""
        if not (self.is_looping or self.engine.claims.holds):
            return
        self._is_leaving = True
        try:
            self.start_maintenance()
        except RuntimeError:  # Python starts no more threads
            self._hand_back()
        self.maintenance.notify()

    def start_maintenance(self) -> None:
        """Start the thread beside the loop, if it does not run."""
        if self.maintenance_thread is None or not self.maintenance_thread.is_alive():
            self.maintenance_thread = threading.Thread(
                target=self._maintain, name=f"remotetask-maintenance.{self.name}", daemon=True
            )
            self.maintenance_thread.start()

    # -- its threads --------------------------------------------------------------------

    def _run(self) -> None:
        self.thread = threading.current_thread()
        try:
            self.kept_going(self._loop)()
        finally:
            if not self.ledger.is_abandoned():
                self._end()

    def _end(self) -> None:
        """Do the last steps of the loop, whatever has ended it."""
        self.stop()
        self.engine.news.forget(self)
        self._hand_back()
        self.is_looping = False
        self.maintenance.notify()

    def _hand_back(self) -> None:
        """Give back all that is in hand; who still runs it finds nothing more to do."""
        claims = self.engine.claims
        running = self.ledger.close()
        try:
            if claims.holds:
                with claims.open_beside() as session:
                    claims.leave(session, running)
        except Exception as error:  # of any storage, that was closed, say, or does not work
            log.debug("service %s could give back nothing", self.name, exc_info=error)
        finally:
            claims.retire()

    def _maintain(self) -> None:
        self.kept_going(self.maintenance)()
        if self._is_leaving:
            self._hand_back()

    def _needs_maintenance(self) -> bool:
        if self._is_leaving:
            return False
        if self.running and self.is_looping:
            return True
        # Also while a loop stops: a job that still runs has a timeout, and shows signs of life.
        return bool(self.engine.claims.in_hand) and (self.running or self.is_looping)

    def _replace(self, thread: threading.Thread) -> None:
        """Start another thread in the place of one that was abandoned."""
        if thread is self.thread:
            successor = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
            successor.start()
            self.thread = successor
        else:
            self.wake()  # the crew starts another one

    def kept_going(self, body: Callable[[], None]) -> Callable[[], None]:
        """Make the outermost frame of a thread: nothing but Ctrl-C leaves it.

        A thread goes on after a fault, with a new session, until it is to stop, the
        store is closed or the service is removed.
        """

        def run() -> None:
            faults = 0
            while self.running and not self.ledger.is_abandoned():
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
                    if self.engine.is_closed:
                        self.stop()
                        break
                    faults = faults + 1 if time.monotonic() - begun < FAULT_SECONDS else 1
                    with suppress(Stopping):
                        self.engine.wait_for_storage(error, faults)

        return run

    def _say_gone(self, error: ServiceGone) -> None:
        with self._lock:
            if self.running and isinstance(error.__cause__, OldRecord):
                log.error("service %s is of no use, its thread ends: %s", self.name, error)
            elif self.running:
                log.warning("service %s is gone, its thread ends", self.name)
            self._stop.set()

    # -- work ---------------------------------------------------------------------------

    def _loop(self) -> None:
        engine = self.engine
        with engine.claims.open() as session:
            try:
                self._work(session)
            finally:
                engine.claims.leave_desk()

    def _work(self, session: Session) -> None:
        engine = self.engine
        engine.upkeep.free_orphans(session)
        engine.upkeep.ensure_declared(session)
        engine.news.listen(session, self)
        self.give_back_left(session)
        while self.running and not self.ledger.is_abandoned():
            if not threading.main_thread().is_alive():
                self.stop()  # the interpreter ends: pools and the like take no more work
                break
            self.woken.clear()
            if self.crew.work(session):
                self._worked = time.monotonic()
            else:
                self._rest(session)
        self.crew.end()
        if engine.claims.holds and not self.ledger.is_abandoned():
            engine.claims.give_back(session, list(engine.claims.in_hand.values()))

    def give_back_left(self, session: Session) -> None:
        """Give back the claims of threads that have ended by a fault, or hang in a job."""
        failed = self.ledger.left()
        left = [claim for claim in failed if self.engine.claims.has(claim)]
        if left:
            self.engine.claims.give_back(session, left)
        self.ledger.settle(len(failed))

    def _rest(self, session: Session) -> None:
        """Wait until there may be work."""
        with self.engine.claims.lock:  # the session may be the desk
            due = self.engine.news.next_due(session)
        news = self.engine.news
        seconds = WAITS * self.wait_seconds if news.is_asked else self.wait_seconds
        if due is not None:
            seconds = min(seconds, due - self.engine.claims.clock())
        seconds = bounded(seconds)
        if not news.is_asked:
            self.woken.wait(seconds)
            return
        end = time.monotonic() + seconds
        cost = 0.0
        while (remaining := end - time.monotonic()) > 0:
            if self.woken.wait(min(self._until_next_look(cost), remaining)):
                return
            before = time.monotonic()
            with self.engine.claims.lock:
                has_signal = news.has_signal(session)
            if has_signal:
                return
            cost = time.monotonic() - before

    def _until_next_look(self, cost: float) -> float:
        """Return the seconds until the signals are looked at, which took `cost` seconds."""
        if self.engine.news.is_told:
            return self.wait_seconds  # a safety net
        return between_looks(cost, time.monotonic() - self._worked)
