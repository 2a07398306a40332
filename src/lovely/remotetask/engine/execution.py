# SPDX-License-Identifier: ZPL-2.1
"""A job's way through a worker: claim -> run -> finish, or record.

The steps of one job:

- `Claims.claim`: the job record names this worker and counts the attempt.  Commit.
- `Execution.run`: check that the job is still held (the fence), call the task, store result
  and status.  Commit, together with whatever the task wrote.
  If it wrote nothing the end is handed over, to be written with others: `finishing`.
- `Execution.record`, after a failure only: ask what is to follow, and abort; then another attempt
  later, or the error.  Commit.

Jobs that were only reserved run by `Execution.run_together`, in one transaction.

A conflict repeats the transaction, not the attempt; a job that meets one after the other is
put back for a while.  So is one for whose run a storage has no room, though it has for others.
A storage that cannot write at all is waited for.  Any other failure is the job's own, and its
retry policy says what follows.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from ZODB.POSException import ConflictError

from lovely.remotetask.around import has_around
from lovely.remotetask.base.guard import guarded
from lovely.remotetask.base.loglines import LogLines
from lovely.remotetask.base.ownership import is_id_again, wrote
from lovely.remotetask.base.site import entered
from lovely.remotetask.engine.aside import put_aside
from lovely.remotetask.engine.claim import can_share, take
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.fence import CHANGED, Fenced, check_held, held_job, no_fence, own_job
from lovely.remotetask.engine.finishing import Finish, Finishing, commit_written, keep
from lovely.remotetask.engine.joblogs import JobLogs
from lovely.remotetask.engine.outcome import call_task, finish, tell_and_let_go
from lovely.remotetask.engine.progress import context_of
from lovely.remotetask.engine.protocol import NOT_COPIED, Claim, Deadline, Outcome, Stopping
from lovely.remotetask.engine.session import Session, is_transient
from lovely.remotetask.engine.settling import Settling
from lovely.remotetask.engine.telling import note, tell_started
from lovely.remotetask.engine.transactions import ID_BUDGET
from lovely.remotetask.errors import (
    JobCancelled,
    JobInterrupted,
    JobTimeout,
    RetryLater,
    ServiceGone,
    TransactionMeddled,
    describe,
    is_from_zodb,
    is_kind,
    is_read_fault,
    is_refused,
    is_storage_fault,
)
from lovely.remotetask.events import JobStarted, is_heard
from lovely.remotetask.interfaces import ERROR, PROCESSING
from lovely.remotetask.job import Job, job_log
from lovely.remotetask.store.joblog import new_lines
from lovely.remotetask.store.quarantine import load_many
from lovely.remotetask.task import Tasks

#: A run that meets a conflict is repeated at once so often, and no longer than so many
#: seconds after its begin; then it is the turn of others.
MAX_REPEATS = 5
REPEAT_SECONDS = 0.5

#: For so many times as long as the repeats of a job took that were in vain, others have only so
#: many seconds for theirs: a dozen such jobs one after the other would keep the rest waiting.
VAIN_FACTOR = 2.0
SHORT_REPEAT_SECONDS = 0.02


def _is_interrupt(error: BaseException) -> bool:
    """Say whether an error is a user's Ctrl-C; in other threads it can only be a task's own."""
    return (
        is_kind(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
    )


class Execution:
    """Runs the jobs that a worker has claimed.  See `protocol.Execution`.

    :ivar finishing: what takes ends of runs that need no transaction of their own; or None.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self.finishing: Finishing | None = None
        self.on_deadline: Callable[[], None] = lambda: None
        self.deadlines: list[Deadline] = []
        self._hurries_until = -math.inf
        self._settling = Settling(claims.transact, claims.clock)
        self.logs = JobLogs(claims.transact, claims.monotonic)

    # -- run ------------------------------------------------------------------------

    def run(
        self, session: Session, claim: Claim, has_next: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Run one attempt, and keep what became of it.

        :param has_next: see `protocol.Execution`.
        :raises Stopping: the processor stops while the storage cannot write or the job
            cannot go on, or the database was closed; nothing is kept.
        :raises KeyboardInterrupt: Ctrl-C, in the main thread; nothing is kept.
        """
        monotonic = self._claims.monotonic
        begun = monotonic()
        tell_started(session.place, claim, self._claims.clock)
        kept: Any
        try:
            kept = self._run_until_kept(session, claim, has_next)
        except Fenced:
            session.abort()
            kept = None
            job_log.warning("job %s: no longer held, its run is not kept", claim.name)
        finally:
            self.logs.end(claim)
        if isinstance(kept, Finish) and self.finishing is not None:
            ended = monotonic()
            written = self.finishing.hand_over(session, kept, has_next)
            # What it takes to write several is the cost of all of them.
            seconds = ended - begun + (monotonic() - ended) / max(1, written)
            status = kept.status if kept.is_written else PROCESSING
        else:
            status = kept
            self._claims.let_go(claim)
            if claim.has_gate and self._claims.in_hand:  # else the next claim follows at once
                self._claims.pass_on(session, claim)
            seconds = monotonic() - begun
        job_log.debug(
            "job %s: task %s, attempt %s: %s after %.3f s",
            claim.name,
            claim.task,
            claim.attempt,
            status,
            seconds,
        )
        return Outcome(claim.jobid, status, seconds)

    def settle(self, session: Session) -> None:
        """See `protocol.Execution`."""
        if self.finishing is not None:
            self.finishing.write(session)

    def _run_until_kept(
        self, session: Session, claim: Claim, has_next: Callable[[], bool]
    ) -> str | Finish:
        conflicts = faults = ids = 0
        begun = self._claims.monotonic()
        hurries = begun < self._hurries_until
        end = begun + (SHORT_REPEAT_SECONDS if hurries else REPEAT_SECONDS)
        while True:
            try:
                return self._run_once(session, claim, conflicts + ids, has_next)
            except Fenced:
                raise
            except BaseException as error:  # whatever a task, its result or its commit raises
                if (is_kind(error, ServiceGone) and session.in_begin) or _is_interrupt(error):
                    raise
                transient = is_transient(session, error)
                is_outside = session.in_commit or session.in_begin
                no_room = session.in_commit and not transient and is_refused(error)
                session.abort(error)
                if session.is_closed or self._is_stopped(error):
                    raise Stopping from error
                if transient and is_id_again(error) and ids < ID_BUDGET:
                    ids += 1
                    continue
                conflicts += transient
                if transient and conflicts <= MAX_REPEATS and self._claims.monotonic() < end:
                    self._claims.transact.back_off(conflicts)
                    continue
                is_fault = is_storage_fault(error) if is_outside else is_read_fault(error)
                told = session.ask(tell_and_let_go, error)  # before anything waits
                if transient or is_fault:
                    # The storage's fault or the task's own?  The storage's, if it takes
                    # no heartbeat either; then it was no attempt of the job.  The first
                    # time it has the benefit of the doubt: it may work again by now.
                    # A heartbeat is small, and tells nothing of other databases: one who has
                    # no room for the run alone is not said to be away.
                    waits = self._claims.transact.waits
                    if is_fault and not transient and not no_room and is_from_zodb(error):
                        self._claims.transact.log(error)
                    self._claims.beat(session)
                    faults += 1
                    if self._claims.transact.waits > waits or (faults == 1 and not transient):
                        continue
                if transient:
                    now = self._claims.monotonic()
                    until = now + VAIN_FACTOR * (now - begun)
                    self._hurries_until = max(self._hurries_until, until)
                    status, vain = self._settling.put_back(session, claim, conflicts, error)
                    return status if vain is None else self.record(session, claim, vain)
                if no_room:
                    return put_aside(self._claims, session, claim, error)
                return self.record(session, claim, error, told=told)

    def _is_stopped(self, error: BaseException) -> bool:
        """Say whether a run failed as its process comes to an end: no attempt of the job."""
        if is_kind(error, JobInterrupted):
            return self._claims.pause(0)
        # From the end of the main thread on Python starts no threads, and its pools no work.
        return (
            is_kind(error, RuntimeError)
            and not threading.main_thread().is_alive()
            and "shutdown" in describe(error)
        )

    def _run_once(
        self, session: Session, claim: Claim, conflicts: int, has_next: Callable[[], bool]
    ) -> str | Finish:
        """Run it, and commit; return the status, or what is left to be written of it."""
        begun = self._claims.monotonic()
        service = session.begin()
        is_sparing = (
            self.finishing is not None
            and self._claims.desk is not None
            and claim.input is not NOT_COPIED
            and not has_around(service)
        )
        job: Job | None = None
        if is_sparing:
            check_held(service, claim)
            wrote(service)
        else:
            job = held_job(service, claim)
            wrote(service, job)  # before the task runs, for it may take long
        lines = self.logs.begin(service, claim)
        tasks = Tasks(service.find_task)
        with guarded(session.manager), entered(session.site(service)):
            output = self._call(session, service, job, claim, tasks, lines)
        end = Finish(claim, output, lines, conflicts, begun, self._claims.clock())
        task = tasks.get(claim.task)
        if self.finishing and self.finishing.takes(session, service, task, job, end, has_next):
            return end
        with no_fence():
            session.call_hooks()  # which are the task's too
        job = own_job(service, claim, job, self._claims.has(claim))
        keep(session, service, [(job, end)])
        status = job.status
        commit_written(session, [job])
        return status

    def _call(
        self,
        session: Session,
        service: Any,
        job: Job | None,
        claim: Claim,
        tasks: Any,
        lines: LogLines | None,
    ) -> Any:
        """Call the task of a job, in the service's site, and return the result.

        :param job: None: it is not needed, see `call_task`.
        """
        if claim.jobid in service.requests:
            raise JobCancelled
        task = tasks.get(claim.task)
        if task is None:
            raise RetryLater(1.0, f"task {claim.task!r} is not registered here")
        with self._deadline(claim, task), no_fence():
            context = partial(context_of, self._claims, service, claim, task)
            output = call_task(service, job, task, context, lines, claim)
        if not session.is_open:
            raise TransactionMeddled("a task must not close the connection it runs in")
        return output

    def run_together(self, session: Session, claims: list[Claim]) -> list[Outcome] | None:
        """Run reserved jobs, whose tasks declare ``shared_commit``, in one transaction.

        It is a wager that none of them fails: there are no savepoints, which would cost as
        much as the jobs.  If one does, nothing of any is kept, and they are to be claimed
        and run one by one, which their declaration allows.

        :returns: None when that has come to pass.
        """
        begun = self._claims.monotonic()
        try:
            service = session.begin()
            tasks = Tasks(service.find_task)
            statuses = []
            left = []
            clock = self._claims.clock
            tells_start = is_heard(JobStarted)
            jobs = load_many(service.jobs, [claim.jobid for claim in claims])
            with guarded(session.manager), entered(session.site(service)):
                for claim, job in zip(claims, jobs, strict=True):
                    # The task may have another timeout by now, which cannot be kept for a part
                    # of a commit.
                    if job is None or not can_share(service.queue, job, tasks.get(job.task)):
                        raise Fenced
                    left.append((job.priority, job.place, job.id))
                    take(service, job, claim.owner, now := clock())
                    if tells_start:
                        note(service, job, JobStarted, now=now)
                    lines = new_lines(service, claim.name, job.attempt, LogLines)
                    attempt = job.attempt
                    output = self._call(session, service, job, claim, tasks, lines)
                    if not job.is_held_by(claim.owner, attempt):
                        raise TransactionMeddled(CHANGED)
                    finish(service, job, output, clock(), lines)
                    statuses.append(job.status)
            session.manager.get().note(f"remotetask {len(claims)} jobs")
            commit_written(session, jobs)
        except BaseException as error:  # one by one it will be seen what that means
            if _is_interrupt(error):
                raise
            if session.in_commit and not is_kind(error, ConflictError):
                self._claims.uncertain.update(claim.jobid for claim in claims)
            session.abort(error)
            if session.is_closed:
                raise Stopping from error
            return None
        self._claims.memory.note_stale(left)
        for claim in claims:
            self._claims.let_go(claim)
        seconds = (self._claims.monotonic() - begun) / len(claims)
        return [
            Outcome(claim.jobid, status, seconds)
            for claim, status in zip(claims, statuses, strict=True)
        ]

    def _deadline(self, claim: Claim, task: Any) -> AbstractContextManager[None]:
        seconds = getattr(task, "timeout_seconds", None)
        if seconds is None or getattr(task, "executor", None) is not None:
            return nullcontext()  # another process is killed by its own clock
        # What can be cancelled has a moment to come to its end.
        return self._watched(claim, seconds, getattr(task, "grace_seconds", 0.0))

    @contextmanager
    def _watched(self, claim: Claim, seconds: float, grace_seconds: float) -> Iterator[None]:
        end = self._claims.monotonic() + seconds + grace_seconds
        deadline = Deadline(claim, end, seconds, threading.current_thread())
        self.deadlines.append(deadline)
        self.on_deadline()
        try:
            yield
        finally:
            with suppress(ValueError):  # it has passed
                self.deadlines.remove(deadline)

    # -- record ---------------------------------------------------------------------

    def record(
        self,
        session: Session,
        claim: Claim,
        error: BaseException,
        lines: LogLines | None = None,
        told: str | None = None,
    ) -> str:
        """Keep a failure; return the job's status.

        :param lines: what the run has logged; None are those of the last run that goes on.
        :param told: the traceback, if it was told before.
        :raises Fenced: the job is no longer held.
        """
        if told is None:
            told = session.ask(tell_and_let_go, error)
        kept = self.logs.of(claim) if lines is None else lines
        verdict, status = self._settling.keep(session, claim, error, kept, told)
        traceback = verdict.failure.traceback
        text = "job %s: task %s, attempt %s failed: %s"
        facts = (claim.name, claim.task, claim.attempt, verdict.text)
        if status == ERROR and traceback:
            # As text: what an exception does when it is printed is no matter for a handler.
            job_log.error(text + "\n%s", *facts, traceback.rstrip())
        else:
            job_log.log(logging.ERROR if status == ERROR else logging.INFO, text, *facts)
        return status

    def fail(
        self, session: Session, claim: Claim, error: BaseException, lines: LogLines | None
    ) -> str:
        """Keep that the end of a run could not be written; see `record`."""
        if is_refused(error):
            return put_aside(self._claims, session, claim, error)
        return self.record(session, claim, error, lines)

    def expire(self, session: Session, claim: Claim, timeout_seconds: float) -> bool:
        """Give up a job that runs too long: its worker no longer holds it.

        :returns: False when it has just ended.
        """
        try:
            self.settle(session)
            self.record(session, claim, JobTimeout(f"the job ran longer than {timeout_seconds} s"))
        except Fenced:
            session.abort()
            return False
        self._claims.let_go(claim)
        return True
