# SPDX-License-Identifier: ZPL-2.1
"""What loops and the maintenance know of an engine: the same for each store.

A *session* is a thread's place at the store, which an engine opens and its methods are given.
Nobody but the engine looks into it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = [
    "Claim",
    "Claims",
    "Deadline",
    "Engine",
    "Execution",
    "JobLogs",
    "News",
    "Outcome",
    "Session",
    "Stopping",
    "Upkeep",
]

Session = Any


class Stopping(Exception):
    """The processor is to stop, and what was waited for has not come."""


#: The input of a claim, where the job's record has to be asked.
NOT_COPIED: Any = object()


class Claim(NamedTuple):
    """The right to run one attempt of one job.

    One that ``is_reserved`` stands in the worker's record alone, and the job's still says
    that it waits: `Execution.run_together` writes it once, when it has run.  ``name`` is what
    the job is called in the log.  One that ``has_gate`` keeps others from being claimed.
    ``input`` is that of the job, if its record need not be asked for anything.  One that
    ``ends_alone`` has an end that no other job waits for in the same commit, or for a slot.
    """

    jobid: int
    attempt: int
    task: str
    owner: str
    is_suspect: bool = False
    is_reserved: bool = False
    name: str = ""
    has_gate: bool = False
    input: Any = NOT_COPIED
    ends_alone: bool = False


class Outcome(NamedTuple):
    """What became of one attempt.

    ``status`` is the job's status after it: `PROCESSING` if it is kept a moment later, None when
    the worker had lost the job and nothing was kept.  ``seconds`` is the time the attempt took.
    """

    jobid: int
    status: str | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Deadline:
    """When a running job is to be given up.

    ``end`` is a time of the monotonic clock of `Claims`; ``seconds`` is the timeout of the task.
    """

    claim: Claim
    end: float
    seconds: float
    thread: threading.Thread


class Claims(Protocol):
    """What one worker has in hand.

    :ivar clock: seconds since the epoch.
    :ivar monotonic: seconds of a clock that only goes forward.
    :ivar pause: called with seconds; waits, and says whether the processor is to stop.
    :ivar last_sign: when the worker last gave a sign of life, by `monotonic`.
    :ivar holds: whether the store may know of claims of this worker.
    :ivar runs_in_turn: whether one thread runs all that is claimed, one after the other.
    :ivar lock: held by who claims and gives back.
    :ivar desk: a session where several threads claim and write by turns, having the lock; or None.
    :ivar threads: how many jobs the worker runs at the same time, for people.
    """

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    pause: Callable[[float], bool]
    last_sign: float
    holds: bool
    runs_in_turn: bool
    lock: threading.Lock
    desk: Session | None
    threads: int

    def leave_desk(self) -> None:
        """Let the thread whose session is the desk end; return when nobody works there."""

    @property
    def in_hand(self) -> Mapping[int, Claim]:
        """The claims, by the ids of their jobs."""

    def open(self) -> AbstractContextManager[Session]:
        """Open a session whose transactions are the thread's own: what tasks find there."""

    def open_beside(self) -> AbstractContextManager[Session]:
        """Open a session with transactions of its own."""

    def claim(self, session: Session, limit: int, may_reserve: bool = False) -> list[Claim]:
        """Claim up to `limit` jobs; those of tasks that share commits may only be reserved."""

    def claim_reserved(self, session: Session, claims: list[Claim]) -> list[Claim]:
        """Claim reserved jobs, to be run one by one."""

    def find(self, session: Session, jobid: int) -> Claim | None:
        """Return the claim that this process has on a job."""

    def has(self, claim: Claim) -> bool:
        """Say whether this claim is in hand."""

    def has_to_run(self, claim: Claim) -> bool:
        """Say whether this claim is in hand, and its run has not ended."""

    def give_back(self, session: Session, claims: list[Claim], waits: bool = True) -> None:
        """Give back claims that are not run."""

    def leave(self, session: Session, running: list[Claim]) -> None:
        """Give back all, for good."""

    def retire(self) -> None:
        """Count as dead: what could not be given back may be taken."""

    def release(self, session: Session, claim: Claim) -> None:
        """File a job that was claimed by another worker of this process, and has ended."""

    def beat(self, session: Session) -> None:
        """Give a sign of life."""


class JobLogs(Protocol):
    """What the running jobs of one worker log.

    :ivar has_news: whether some of it is to be noted.
    :ivar on_news: called when that comes to be so, in the thread of a job.
    """

    has_news: bool
    on_news: Callable[[], None]

    def note(self, session: Session) -> None:
        """Note what has been logged up to now by jobs that run for some time."""


class Execution(Protocol):
    """The runs of what one worker has claimed.

    :ivar deadlines: of what runs; who gives a job up takes its deadline out.
    :ivar on_deadline: called when a job with a timeout starts.
    """

    deadlines: list[Deadline]
    on_deadline: Callable[[], None]

    @property
    def logs(self) -> JobLogs:
        """What its runs log."""

    def run(
        self, session: Session, claim: Claim, has_next: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Run one attempt, and keep what became of it.

        :param has_next: asked when it has run: the thread goes on with another job at once, and
            what became of this one may be kept a moment later.
        """

    def settle(self, session: Session) -> None:
        """Keep what became of all that has run."""

    def run_together(self, session: Session, claims: list[Claim]) -> list[Outcome] | None:
        """Run reserved jobs in one commit; None if they are to be run one by one."""

    def expire(self, session: Session, claim: Claim, timeout_seconds: float) -> bool:
        """Give up a job that runs too long; say no when it has just ended."""


class News(Protocol):
    """Whether there may be work."""

    is_asked: bool  # the store tells nothing by itself, or not for sure

    @property
    def is_told(self) -> bool:
        """Whether the store wakes who listens, as far as is known."""

    def listen(self, session: Session, watcher: Any) -> None:
        """Let the store wake a watcher, if it can; see `wakeup.Watcher`."""

    def hear(self, oids: list[bytes]) -> None:
        """Take note of what the store has told a watcher."""

    def forget(self, watcher: Any) -> None:
        """Let the store wake it no more."""

    def has_signal(self, session: Session) -> bool:
        """Say whether jobs have come since the last claim, where that has to be asked."""

    def has_waiting(self, session: Session) -> bool:
        """Say whether a job can be claimed now."""

    def next_due(self, session: Session) -> float | None:
        """Return when the next waiting job is due, in seconds since the epoch."""


class Upkeep(Protocol):
    """What is done for all workers, by any of them, in steps.

    :ivar on_missed: called when a record was missing.
    """

    on_missed: Callable[[], None]

    def lease_seconds(self, session: Session) -> float:
        """Begin a look, and return how long a worker may give no sign of life.

        The steps that follow see what it sees, until one of them writes.
        """

    def free_orphans(self, session: Session) -> int:
        """Free what those held who are known to be dead before anybody has watched them."""

    def ensure_declared(self, session: Session) -> None:
        """Let there be the schedules that are declared in this process."""

    def free_dead(self, session: Session, lease_seconds: float) -> int:
        """Free what those held who are dead, as far as is seen; return the number of jobs."""

    def mend(self, session: Session) -> bool:
        """Take out of the indexes what was missed; say whether all jobs are to be checked."""

    def expire(self, session: Session, size: int) -> bool:
        """Cancel up to `size` jobs that have not started in time; say whether there may be more."""

    def look_after(self, session: Session) -> bool:
        """Look whether jobs wait in vain for others; say whether one does not any more."""

    def prune(self, session: Session, size: int) -> bool:
        """Remove up to `size` old jobs; say whether there may be more."""

    def check(self, session: Session, first: int, size: int) -> int | None:
        """Compare `size` jobs with the indexes, and mend; return where to go on, 0 at the end.

        :returns: None if it failed, and is to be tried again.
        """

    def rest(self, session: Session) -> None:
        """Forget what was loaded for it."""


class Engine(Protocol):
    """One worker on one service."""

    @property
    def claims(self) -> Claims:
        """What it has in hand."""

    @property
    def execution(self) -> Execution:
        """Its runs."""

    @property
    def news(self) -> News:
        """Whether there may be work."""

    @property
    def upkeep(self) -> Upkeep:
        """What it does for all workers."""

    @property
    def is_closed(self) -> bool:
        """Whether the store was closed."""

    def wait_for_storage(self, error: BaseException, faults: int) -> None:
        """Log a fault, and wait, the longer the more came in a row.

        :raises Stopping: the processor is to stop.
        """
