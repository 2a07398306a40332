# SPDX-License-Identifier: ZPL-2.1
"""A job's way through a worker: claim -> run -> finish, or record.

This is the one place of the core that commits.  The steps of one job:

- `Engine.claim`: the job record names this worker and counts the attempt.  Commit.
- `Engine.run`: check that the job is still held (the fence), call the task, store result
  and status.  Commit, together with whatever the task wrote.
- `Engine.record`, after a failure only: another attempt later, or the error.  Commit.

Jobs whose tasks declare ``shared_commit`` change nothing outside of ZODB.  So it does no harm
if one of them is run by two workers, as long as only one commits; they are only *reserved*:
their ids stand in the worker's record, for the case that it dies, and their own records are
written once, by `Engine.run_together`.  Of two workers that have run such a job, or of one
and somebody who cancels it, one commits: the job's record is the lock here too.

A conflict repeats the transaction, not the attempt.  A storage that cannot write is waited
for.  Any other failure is the job's own, and its retry policy says what follows.

Indexes of ended jobs and the worker's list of what it holds are brought up to date by the
next claim, so that the commit that ends a job writes the job's record alone.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import transaction
from ZODB.POSException import POSError

from lovely.remotetask.errors import (
    JobCancelled,
    JobTimeout,
    RetryLater,
    ServiceGone,
    TransactionMeddled,
    describe,
)
from lovely.remotetask.interfaces import ERROR
from lovely.remotetask.job import Job
from lovely.remotetask.notes import Notes
from lovely.remotetask.seat import Seat, is_transient
from lovely.remotetask.site import ServicePath, entered
from lovely.remotetask.step import (
    Claim,
    call_task,
    can_share,
    claim_of,
    finish,
    job_log,
    release,
    remove_worker,
    reserve,
    retire,
    settle,
    take,
)
from lovely.remotetask.task import TaskContext, look_up
from lovely.remotetask.transact import CONFLICT_BUDGET, Stopping, Transactor
from lovely.remotetask.worker import Identity, Worker

#: After a rival was seen, the strict order is left for so many seconds.
RIVAL_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    ``status`` is the job's status after it; None when the worker had lost the job and
    nothing was kept.  ``seconds`` is the time the attempt took.
    """

    jobid: int
    status: str | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Deadline:
    """When a running job is to be given up.

    ``end`` is a time of the engine's monotonic clock; ``seconds`` is the timeout of the task.
    """

    claim: Claim
    end: float
    seconds: float
    thread: threading.Thread


class Fenced(Exception):
    """The job is no longer held by this worker."""


class Tasks:
    """The tasks that are registered here, looked up once for a claim."""

    def __init__(self, interface: Any) -> None:
        self._interface = interface
        self._found: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """Return the task with this name, or None."""
        if name not in self._found:
            self._found[name] = look_up(self._interface, name)
        return self._found[name]

    def knows(self, name: str) -> bool:
        """Say whether there is a task with this name."""
        return self.get(name) is not None


class Engine:
    """Does the work of one worker on one service.  Threads bring their own `Seat`.

    :param pause: called with seconds; waits, and says whether the processor is to stop.
    """

    def __init__(
        self,
        db: Any,
        path: ServicePath | list[str],
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.db = db
        self.path = path
        self.pause = pause
        self.clock = clock
        self.monotonic = monotonic
        self.identity = Identity()
        self.transact = Transactor(".".join(path), pause, monotonic)
        self.in_hand: dict[int, Claim] = {}
        self.last_sign = monotonic()
        self._lock = threading.Lock()
        self.deadlines: list[Deadline] = []
        self.is_probing = False  # whether `has_signal` will be asked
        self.signals: list[Any] = []
        self.signals_seen: list[int] = []
        self.holds = False  # whether the worker's record holds something
        self._has_more = False
        self._rivals: dict[str, float] = {}  # worker id -> when it was seen
        self._saw_rivals = -math.inf
        self._missing_tasks: set[str] = set()

    # -- claim ----------------------------------------------------------------------

    def claim(self, seat: Seat, limit: int, may_reserve: bool = False) -> list[Claim]:
        """Claim up to `limit` jobs, in one commit, and file the jobs that have ended.

        :param may_reserve: only reserve jobs whose tasks declare ``shared_commit``, for
            `run_together`.
        """
        with self._lock:
            # Before the transaction begins: a job that leaves the hand from here on may
            # still be running in what the transaction sees, and must stay in the record.
            held = list(self.in_hand)
            while True:
                claim_once = functools.partial(
                    self._claim, seat, limit, may_reserve, held, itertools.count()
                )
                claims = self.transact(seat, claim_once)
                if claims or not self._has_more:
                    break
            for claim in claims:
                self.in_hand[claim.jobid] = claim
            if claims:
                self.last_sign = self.monotonic()
            self.holds = bool(held or claims)
            return claims

    def _claim(
        self,
        seat: Seat,
        limit: int,
        may_reserve: bool,
        held: list[int],
        tries: Iterator[int],
        service: Any,
    ) -> list[Claim]:
        is_repeated = bool(next(tries))
        claims = self._unnoticed(service, held)
        if limit and not claims:
            start, limit = self._share(service, limit, is_repeated)
            with entered(seat.site(service)):
                claims = self._take(service, limit, start, may_reserve, held, self.clock())
        self._hold(service, [*held, *(claim.jobid for claim in claims)])
        self._has_more = service.queue.line.has_more
        if self.is_probing:
            self.signals = service.queue.signals
            self.signals_seen = [signal.value for signal in self.signals]
        return claims

    def _unnoticed(self, service: Any, held: list[int]) -> list[Claim]:
        """Return claims of this worker whose commit came to pass although it has failed.

        So it seems to a client that loses its server at the end of a commit.
        """
        record = service.workers.get(self.identity.id)
        stored = () if record is None else record.held
        jobs = [service.jobs.get(jobid) for jobid in stored if jobid not in held]
        return [
            claim_of(job)
            for job in jobs
            if job is not None and job.is_held_by(self.identity.id, job.attempt)
        ]

    def has_signal(self, seat: Seat) -> bool:
        """Say whether jobs have come since the last claim, from any process.

        For an engine that `is_probing`.  An object that no invalidation has reached since is
        compared at no cost.
        """
        seat.manager.begin()
        return [signal.value for signal in self.signals] != self.signals_seen

    def next_due(self, seat: Seat) -> float | None:
        """Return when the next waiting job is due, in seconds since the epoch."""
        service = seat.begin()
        seat.check_reachable(service)
        due: float | None = service.queue.next_due()
        return due

    def _share(self, service: Any, limit: int, is_repeated: bool) -> tuple[float | None, int]:
        """Return where this worker begins among the jobs that are ready, and how many it takes.

        Workers that know of each other begin at equal distances.  Of the last jobs nobody
        takes a batch while others have nothing to do.
        """
        now = self.monotonic()
        others = [worker_id for worker_id in service.workers if worker_id != self.identity.id]
        # Rivals that hold nothing at the moment have no record: those seen lately count.
        self._rivals.update(dict.fromkeys(others, now))
        for worker_id, seen in list(self._rivals.items()):
            if now - seen > RIVAL_SECONDS:
                del self._rivals[worker_id]
        if is_repeated:  # somebody works at the same ones
            self._saw_rivals = now
            service.queue.line.choose_anew()
        if not self._rivals and now - self._saw_rivals > RIVAL_SECONDS:
            return None, limit
        workers = sorted([self.identity.id, *self._rivals])
        start = workers.index(self.identity.id) / len(workers)
        if is_repeated or not self._rivals:
            start = random.random()
        return start, max(1, min(limit, len(service.queue) // max(2, len(workers))))

    def _take(
        self,
        service: Any,
        limit: int,
        start: float | None,
        may_reserve: bool,
        held: list[int],
        now: float,
    ) -> list[Claim]:
        claims: list[Claim] = []
        reserved: set[int] | None = None
        has_suspect = any(claim.is_suspect for claim in list(self.in_hand.values()))
        tasks = Tasks(service.taskInterface)

        for job in service.queue.pull(service.jobs, now, start, tasks.knows):
            task = tasks.get(job.task)
            if task is None:
                self._log_missing_task(job)
                service.queue.park(job)
                continue
            # Of the jobs that a dying process held nobody knows which one killed it.  One
            # at a time, so that the next death tells.
            if job.deaths and (has_suspect or claims):
                if claims:
                    break
                continue
            if may_reserve and can_share(job, task):
                if reserved is None:  # not earlier: it loads the records of all workers
                    reserved = self._reserved(service, held)
                if job.id not in reserved:
                    claims.append(reserve(job, self.identity.id))
            elif take(service, job, self.identity.id, now):
                claims.append(claim_of(job))
            if job.deaths or len(claims) >= limit:
                break
        return claims

    def _reserved(self, service: Any, held: list[int]) -> set[int]:
        # What is in the hand of this worker counts, and not its record: a commit may have
        # come to pass although it has failed, see `_unnoticed`.
        others = (w.held for key, w in service.workers.items() if key != self.identity.id)
        return set(held).union(*others)

    def _log_missing_task(self, job: Job) -> None:
        if job.task not in self._missing_tasks:
            self._missing_tasks.add(job.task)
            job_log.warning(
                "job %s: task %r is not registered here; its jobs wait until it is",
                job.id,
                job.task,
            )

    def _hold(self, service: Any, held: list[int]) -> None:
        # A record exists as long as something is held.
        record = service.workers.get(self.identity.id)
        before = () if record is None else record.held
        for jobid in set(before).difference(held):
            retire(service, jobid, self.clock())
        if not held:
            if record is not None:
                remove_worker(service, self.identity.id)
        elif tuple(held) != before:
            if record is None:
                record = service.workers[self.identity.id] = Worker()
            record.held = tuple(held)

    # -- run ------------------------------------------------------------------------

    def run(self, seat: Seat, claim: Claim) -> Outcome:
        """Run one attempt, and keep what became of it.

        :raises Stopping: the processor stops while the storage cannot write, or the
            database was closed; nothing is kept.
        """
        begun = self.monotonic()
        status: str | None
        try:
            status = self._run_until_kept(seat, claim)
        except Fenced:
            seat.abort()
            status = None
            job_log.warning("job %s: no longer held, its run is not kept", claim.jobid)
        self._let_go(claim)
        seconds = self.monotonic() - begun
        job_log.debug(
            "job %s: task %s, attempt %s: %s after %.3f s",
            claim.jobid,
            claim.task,
            claim.attempt,
            status,
            seconds,
        )
        return Outcome(claim.jobid, status, seconds)

    def _run_until_kept(self, seat: Seat, claim: Claim) -> str:
        conflicts = faults = 0
        while True:
            try:
                return self._run_once(seat, claim, conflicts)
            except Fenced:
                raise
            except BaseException as error:  # whatever a task, its result or its commit raises
                if isinstance(error, ServiceGone) and seat.in_begin:
                    raise
                is_meddled = seat.guard.is_broken
                transient = is_transient(seat, error) and not is_meddled
                in_commit = seat.in_commit
                seat.abort()
                if seat.is_closed:
                    raise Stopping from error
                if transient and conflicts < CONFLICT_BUDGET:
                    conflicts += 1
                    self.transact.back_off(conflicts)
                    continue
                if transient or (in_commit and isinstance(error, (POSError, OSError))):
                    # The storage's fault or the task's own?  The storage's, if it takes
                    # no heartbeat either; then it was no attempt of the job.  The first
                    # time it has the benefit of the doubt: it may work again by now.
                    waits = self.transact.waits
                    self.beat(seat)
                    faults += 1
                    if self.transact.waits > waits or (faults == 1 and not transient):
                        continue
                if is_meddled and not isinstance(error, TransactionMeddled):
                    error = TransactionMeddled(f"{TransactionMeddled()} ({describe(error)})")
                return self.record(seat, claim, error)

    def _run_once(self, seat: Seat, claim: Claim, conflicts: int) -> str:
        service = seat.begin()
        job = self._held_job(service, claim)
        self._call(seat, service, job, claim, Tasks(service.taskInterface))
        if conflicts:
            job.conflicts += conflicts
        status = job.status
        seat.manager.get().note(f"remotetask {job.task} {job.id}")
        seat.commit()
        return status

    def _call(self, seat: Seat, service: Any, job: Job, claim: Claim, tasks: Tasks) -> None:
        """Call the task of a job, and write down the result."""
        if claim.jobid in service.requests:
            raise JobCancelled
        with entered(seat.site(service)):
            task = tasks.get(job.task)
            if task is None:
                raise RetryLater(1.0, f"task {job.task!r} is not registered here")
            context = self._context(service, claim, task)
            txn = seat.manager.get()
            with self._deadline(claim, task), seat.guard.armed(txn):
                output = call_task(service, job, task, context)
            if seat.guard.is_broken or seat.manager.get() is not txn or txn.isDoomed():
                seat.guard.is_broken = True
                raise TransactionMeddled
        finish(service, job, output, self.clock())

    def run_together(self, seat: Seat, claims: list[Claim]) -> list[Outcome] | None:
        """Run reserved jobs, whose tasks declare ``shared_commit``, in one transaction.

        It is a wager that none of them fails: there are no savepoints, which would cost as
        much as the jobs.  If one does, nothing of any is kept, and they are to be claimed
        and run one by one, which their declaration allows.

        :returns: None when that has come to pass.
        """
        begun = self.monotonic()
        try:
            service = seat.begin()
            tasks = Tasks(service.taskInterface)
            statuses = []
            left = []
            for claim in claims:
                job = self._reserved_job(service, claim)
                left.append((job.place, job.id))
                take(service, job, claim.owner, self.clock())
                self._call(seat, service, job, claim, tasks)
                statuses.append(job.status)
            seat.manager.get().note(f"remotetask {len(claims)} jobs")
            seat.commit()
        except BaseException as error:  # one by one it will be seen what that means
            seat.abort()
            if seat.is_closed:
                raise Stopping from error
            return None
        service.queue.line.note_stale(left)
        for claim in claims:
            self._let_go(claim)
        seconds = (self.monotonic() - begun) / len(claims)
        return [
            Outcome(claim.jobid, status, seconds)
            for claim, status in zip(claims, statuses, strict=True)
        ]

    def _reserved_job(self, service: Any, claim: Claim) -> Job:
        job: Job | None = service.jobs.get(claim.jobid)
        if job is None or not job.is_in_line:
            raise Fenced
        return job

    def claim_reserved(self, seat: Seat, claims: list[Claim]) -> list[Claim]:
        """Claim reserved jobs; return the claims of those that still wait."""
        jobids = {claim.jobid for claim in claims}

        def change(service: Any) -> list[Claim]:
            now = self.clock()
            jobs = [service.jobs.get(claim.jobid) for claim in claims]
            taken = [
                claim_of(job)
                for job in jobs
                if job is not None and job.is_in_line and take(service, job, self.identity.id, now)
            ]
            self._hold(service, [*held, *(claim.jobid for claim in taken)])
            return taken

        with self._lock:
            held = [jobid for jobid in list(self.in_hand) if jobid not in jobids]  # see `claim`
            taken = self.transact(seat, change)
            for claim in claims:
                self._let_go(claim)
            for claim in taken:
                self.in_hand[claim.jobid] = claim
            self.last_sign = self.monotonic()
            self.holds = bool(held or taken)
            return taken

    def _deadline(self, claim: Claim, task: Any) -> AbstractContextManager[None]:
        seconds = getattr(task, "timeout_seconds", None)
        if seconds is None or getattr(task, "executor", None) is not None:
            return nullcontext()  # another process is killed by its own clock
        return self._watched(claim, seconds)

    @contextmanager
    def _watched(self, claim: Claim, seconds: float) -> Iterator[None]:
        deadline = Deadline(claim, self.monotonic() + seconds, seconds, threading.current_thread())
        self.deadlines.append(deadline)
        self.on_deadline()
        try:
            yield
        finally:
            with suppress(ValueError):  # it has passed
                self.deadlines.remove(deadline)

    def on_deadline(self) -> None:
        """Called when a job with a timeout starts; whoever watches sets it."""

    def _held_job(self, service: Any, claim: Claim) -> Job:
        job: Job | None = service.jobs.get(claim.jobid)
        if job is None or not job.is_held_by(claim.owner, claim.attempt):
            raise Fenced
        return job

    # -- record ---------------------------------------------------------------------

    def record(self, seat: Seat, claim: Claim, error: BaseException) -> str:
        """Keep a failure; return the job's status.

        :raises Fenced: the job is no longer held.
        """

        def change(service: Any) -> str:
            job = self._held_job(service, claim)
            with entered(seat.site(service)):
                task = look_up(service.taskInterface, job.task)
            settle(service, job, task, error, self.clock())
            return job.status

        status = self.transact(seat, change)
        level = logging.ERROR if status == ERROR else logging.INFO
        job_log.log(
            level,
            "job %s: task %s, attempt %s failed: %s",
            claim.jobid,
            claim.task,
            claim.attempt,
            describe(error),
        )
        return status

    def expire(self, seat: Seat, claim: Claim, timeout_seconds: float) -> bool:
        """Give up a job that runs too long: its worker no longer holds it.

        :returns: False when it has just ended.
        """
        try:
            self.record(seat, claim, JobTimeout(f"the job ran longer than {timeout_seconds} s"))
        except Fenced:
            seat.abort()
            return False
        self._let_go(claim)
        return True

    def _let_go(self, claim: Claim) -> None:
        # Only of this claim: the job may have been claimed again since.
        if self.in_hand.get(claim.jobid) is claim:
            del self.in_hand[claim.jobid]

    # -- signs of life, rescue, the end ------------------------------------------------

    def beat(self, seat: Seat) -> None:
        """Write a sign of life."""

        def change(service: Any) -> None:
            record = service.workers.get(self.identity.id)
            if record is None:
                record = service.workers[self.identity.id] = Worker()
            record.beat()

        with self._lock:
            self.transact(seat, change)
            self.last_sign = self.monotonic()

    def give_back(self, seat: Seat, claims: list[Claim]) -> None:
        """Give back claims that were not started; they count as no attempt.

        Once nothing is held any more the worker's record is gone.
        """

        given = {claim.jobid for claim in claims}

        def change(service: Any) -> None:
            now = self.clock()
            for claim in claims:
                job = service.jobs.get(claim.jobid)
                if job is not None and job.is_held_by(claim.owner, claim.attempt):
                    job.give_back(now)
                    service.queue.file(job)
            self._hold(service, held)

        with self._lock:
            held = [jobid for jobid in list(self.in_hand) if jobid not in given]  # see `claim`
            self.transact(seat, change)
            for claim in claims:
                self._let_go(claim)
            self.holds = bool(held)

    def release(self, seat: Seat, claim: Claim) -> None:
        """File a job that was claimed by another worker of this process, and has ended."""
        with self._lock:
            self.transact(
                seat,
                functools.partial(
                    release, worker_id=claim.owner, jobid=claim.jobid, now=self.clock()
                ),
            )

    # -- what a running task is given ----------------------------------------------------

    def _context(self, service: Any, claim: Claim, task: Any) -> TaskContext:
        notes = Notes(claim.jobid, self.short_seat, self.transact, self.monotonic)
        return TaskContext(
            service,
            claim.jobid,
            claim.attempt,
            getattr(task, "timeout_seconds", None),
            should_stop=lambda: self.pause(0),
            is_cancelled=notes.is_cancelled,
            progress=notes.tell,
            monotonic=self.monotonic,
        )

    @contextmanager
    def short_seat(self) -> Iterator[Seat]:
        """Open a connection of its own, with a transaction manager of its own."""
        seat = Seat(self.db, self.path, transaction.TransactionManager())
        try:
            yield seat
        finally:
            seat.close()
