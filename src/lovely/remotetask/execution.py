# SPDX-License-Identifier: ZPL-2.1
"""A job's way through a worker: claim -> run -> finish, or record.

The steps of one job:

- `Claimant.claim`: the job record names this worker and counts the attempt.  Commit.
- `Engine.run`: check that the job is still held (the fence), call the task, store result
  and status.  Commit, together with whatever the task wrote.
- `Engine.record`, after a failure only: another attempt later, or the error.  Commit.

Jobs that were only reserved run by `Engine.run_together`, in one transaction.

A conflict repeats the transaction, not the attempt; a job that meets one after the other is
put back for a while.  A storage that cannot write is waited for.  Any other failure is the
job's own, and its retry policy says what follows.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ZODB.POSException import ConflictError

from lovely.remotetask.aside import load, load_many
from lovely.remotetask.claimant import Claimant, Tasks
from lovely.remotetask.errors import (
    JobCancelled,
    JobInterrupted,
    JobTimeout,
    RetryLater,
    ServiceGone,
    TransactionMeddled,
    describe,
    is_from_zodb,
    is_read_fault,
    is_storage_fault,
)
from lovely.remotetask.guard import guarded
from lovely.remotetask.interfaces import ERROR
from lovely.remotetask.job import Job
from lovely.remotetask.notes import Notes
from lovely.remotetask.seat import Seat, is_transient
from lovely.remotetask.site import entered
from lovely.remotetask.step import (
    Claim,
    call_task,
    can_share,
    finish,
    job_log,
    postpone,
    settle,
    take,
)
from lovely.remotetask.task import TaskContext, look_up
from lovely.remotetask.transact import ID_BUDGET, Stopping
from lovely.remotetask.witness import is_id_again, wrote

#: A run that meets a conflict is repeated at once so often, and no longer than so many
#: seconds after its begin; then it is the turn of others.
MAX_REPEATS = 5
REPEAT_SECONDS = 0.5

#: For so many times as long as the repeats of a job took that were in vain, others have only so
#: many seconds for theirs: a dozen such jobs one after the other would keep the rest waiting.
VAIN_FACTOR = 2.0
SHORT_REPEAT_SECONDS = 0.02


#: Characters of a task's name that stand in the note of a transaction; a FileStorage takes no note
#: with more than 65,535 bytes.
MAX_NOTE = 200


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


def _is_interrupt(error: BaseException) -> bool:
    """Say whether an error is a user's Ctrl-C; in other threads it can only be a task's own."""
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
    )


class Fenced(Exception):
    """The job is no longer held by this worker."""


class Engine(Claimant):
    """Runs the jobs that a worker has claimed.  See `Claimant` for its parameters."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.deadlines: list[Deadline] = []
        self._hurries_until = -math.inf

    # -- run ------------------------------------------------------------------------

    def run(self, seat: Seat, claim: Claim) -> Outcome:
        """Run one attempt, and keep what became of it.

        :raises Stopping: the processor stops while the storage cannot write or the job
            cannot go on, or the database was closed; nothing is kept.
        :raises KeyboardInterrupt: Ctrl-C, in the main thread; nothing is kept.
        """
        begun = self.monotonic()
        status: str | None
        try:
            status = self._run_until_kept(seat, claim)
        except Fenced:
            seat.abort()
            status = None
            job_log.warning("job %s: no longer held, its run is not kept", claim.jobid)
        self.let_go(claim)
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
        conflicts = faults = ids = 0
        begun = self.monotonic()
        hurries = begun < self._hurries_until
        end = begun + (SHORT_REPEAT_SECONDS if hurries else REPEAT_SECONDS)
        while True:
            try:
                return self._run_once(seat, claim, conflicts + ids)
            except Fenced:
                raise
            except BaseException as error:  # whatever a task, its result or its commit raises
                if (isinstance(error, ServiceGone) and seat.in_begin) or _is_interrupt(error):
                    raise
                transient = is_transient(seat, error)
                is_outside = seat.in_commit or seat.in_begin
                seat.abort(error)
                if seat.is_closed or self._is_stopped(error):
                    raise Stopping from error
                if transient and is_id_again(error) and ids < ID_BUDGET:
                    ids += 1
                    continue
                conflicts += transient
                if transient and conflicts <= MAX_REPEATS and self.monotonic() < end:
                    self.transact.back_off(conflicts)
                    continue
                is_fault = is_storage_fault(error) if is_outside else is_read_fault(error)
                if transient or is_fault:
                    # The storage's fault or the task's own?  The storage's, if it takes
                    # no heartbeat either; then it was no attempt of the job.  The first
                    # time it has the benefit of the doubt: it may work again by now.
                    waits = self.transact.waits
                    if is_fault and not transient and is_from_zodb(error):
                        self.transact.log(error)
                    self.beat(seat)
                    faults += 1
                    if self.transact.waits > waits or (faults == 1 and not transient):
                        continue
                if transient:
                    now = self.monotonic()
                    until = now + VAIN_FACTOR * (now - begun)
                    self._hurries_until = max(self._hurries_until, until)
                    return self._postpone(seat, claim, conflicts, error)
                return self.record(seat, claim, error)

    def _is_stopped(self, error: BaseException) -> bool:
        """Say whether a run failed as its process comes to an end: no attempt of the job."""
        if isinstance(error, JobInterrupted):
            return self.pause(0)
        # From the end of the main thread on Python starts no threads, and its pools no work.
        return (
            isinstance(error, RuntimeError)
            and not threading.main_thread().is_alive()
            and "shutdown" in describe(error)
        )

    def _run_once(self, seat: Seat, claim: Claim, conflicts: int) -> str:
        service = seat.begin()
        job = self._held_job(service, claim)
        wrote(service, job)  # before the task runs, for it may take long
        with guarded(seat.manager), entered(seat.site(service)):
            self._call(seat, service, job, claim, Tasks(service.taskInterface))
        if conflicts:
            job.conflicts += conflicts
        status = job.status
        seat.manager.get().note(f"remotetask {job.task[:MAX_NOTE]} {job.id}")
        seat.commit()
        return status

    def _call(self, seat: Seat, service: Any, job: Job, claim: Claim, tasks: Tasks) -> None:
        """Call the task of a job, in the service's site, and write down the result."""
        if claim.jobid in service.requests:
            raise JobCancelled
        task = tasks.get(job.task)
        if task is None:
            raise RetryLater(1.0, f"task {job.task!r} is not registered here")
        with self._deadline(claim, task):
            output = call_task(service, job, task, partial(self._context, service, claim, task))
        if not seat.is_open:
            raise TransactionMeddled("a task must not close the connection it runs in")
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
            jobs = load_many(service.jobs, [claim.jobid for claim in claims])
            with guarded(seat.manager), entered(seat.site(service)):
                for claim, job in zip(claims, jobs, strict=True):
                    # The task may have another timeout by now, which cannot be kept for a part
                    # of a commit.
                    if job is None or not can_share(job, tasks.get(job.task)):
                        raise Fenced
                    left.append((job.place, job.id))
                    take(service, job, claim.owner, self.clock())
                    self._call(seat, service, job, claim, tasks)
                    statuses.append(job.status)
            seat.manager.get().note(f"remotetask {len(claims)} jobs")
            seat.commit()
        except BaseException as error:  # one by one it will be seen what that means
            if _is_interrupt(error):
                raise
            if seat.in_commit and not isinstance(error, ConflictError):
                self.uncertain.update(claim.jobid for claim in claims)
            seat.abort(error)
            if seat.is_closed:
                raise Stopping from error
            return None
        self.memory.note_stale(left)
        for claim in claims:
            self.let_go(claim)
        seconds = (self.monotonic() - begun) / len(claims)
        return [
            Outcome(claim.jobid, status, seconds)
            for claim, status in zip(claims, statuses, strict=True)
        ]

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
        job = load(service.jobs, claim.jobid)
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

    def _postpone(self, seat: Seat, claim: Claim, conflicts: int, error: BaseException) -> str:
        """Put back a job that has met conflicts, so that others run; return its status.

        :raises Fenced: the job is no longer held.
        """

        def change(service: Any) -> str:
            job = self._held_job(service, claim)
            postpone(service, job, conflicts, error, self.clock())
            return job.status

        status = self.transact(seat, change)
        job_log.log(
            logging.ERROR if status == ERROR else logging.INFO,
            "job %s: task %s, attempt %s met %s write conflicts, the last: %s",
            claim.jobid,
            claim.task,
            claim.attempt,
            conflicts,
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
        self.let_go(claim)
        return True

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
