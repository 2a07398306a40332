# SPDX-License-Identifier: ZPL-2.1
"""Writes the ends of runs, several in one commit.

A run whose transaction has joined nothing, as its task has written nothing to a database, leaves
only the end of its own job to be written.  That can be done in any transaction, and for several
jobs in one.  So it is *handed over*, and whoever gets the lock under which a worker claims writes
all that was handed over by then.  Who has nothing else to do waits for it.  A thread that has
claimed further jobs goes on with them: that is the *pipe*, which holds few jobs, and quick ones.

Each end is behind its own fence.  If the commit fails, the ends are written one by one; no task is
run again for that, but for one whose result alone the storage has no room for: so it does not keep
others waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ZODB.utils import z64

from lovely.remotetask.base.loglines import LogLines
from lovely.remotetask.base.ownership import has_written_only, wrote
from lovely.remotetask.base.site import entered
from lovely.remotetask.base.storable import is_alone
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.fence import CHANGED, Fenced, no_fence
from lovely.remotetask.engine.outcome import finish
from lovely.remotetask.engine.protocol import Claim, Stopping
from lovely.remotetask.engine.session import Session, hooks_of, is_closed
from lovely.remotetask.engine.transactions import attempt
from lovely.remotetask.errors import ServiceGone, TransactionMeddled, is_refused
from lovely.remotetask.events import JobCompleted, JobFailed, is_heard
from lovely.remotetask.job import Job, job_log
from lovely.remotetask.setting import read
from lovely.remotetask.store.quarantine import load_many

#: The pipe takes what has run within so many seconds, and no more jobs than that: these may run
#: again if the process is killed.
PIPE_SECONDS = 0.01
MAX_PIPED = 16

#: Results with more bytes than this are not handed over, so that they do not pile up.
MAX_RESULT_BYTES = 65_536

#: The thread that looks after the pipe ends when it had nothing to do for so many seconds.
IDLE_SECONDS = 1.0

#: Characters of a task's name that stand in the note of a transaction; a FileStorage takes no note
#: with more than 65,535 bytes.
MAX_NOTE = 200


@dataclass(eq=False)
class Finish:
    """The end of a run that has come to a result.

    :ivar lines: what the run has logged.
    :ivar conflicts: how many runs of this attempt have met a conflict before.
    :ivar begun: when the run began, by the monotonic clock.
    :ivar ended: when it ended, in seconds since the epoch.
    :ivar tries: how many transactions with it have not come to pass, or not for all one knows.
    :ivar status: the job's status, once it is written; None if the job was lost.
    """

    claim: Claim
    output: Any
    lines: LogLines | None
    conflicts: int
    begun: float
    ended: float
    tries: int = 0
    is_written: bool = False
    status: str | None = None

    def is_end_of(self, job: Job) -> bool:
        """Say whether this is what a job has come to: a commit may come to pass and fail."""
        is_mine = job.attempt == self.claim.attempt and job.completed_at == self.ended
        return is_mine and self.tries > 0


def keep(session: Session, service: Any, held: list[tuple[Job, Finish]]) -> None:
    """Write down the ends of runs of jobs that are held, in the current transaction."""
    note = f"remotetask {len(held)} jobs"
    with entered(session.site(service)):
        for job, end in held:
            finish(service, job, end.output, end.ended, end.lines)
            if end.conflicts or end.tries:
                job.conflicts += end.conflicts + end.tries
            if len(held) == 1:
                note = f"remotetask {job.task[:MAX_NOTE]} {job.__name__}"
    session.manager.get().note(note)


def commit_written(session: Session, jobs: list[Any]) -> None:
    """Commit the ends of jobs, and check that they were committed with the rest.

    :raises TransactionMeddled: hooks or data managers of a task have changed or dropped them.
    """
    statuses = [job.status for job in jobs]
    serials = [job._p_serial for job in jobs]  # in another store there are none
    with no_fence():
        session.call_hooks()
        if [job.status for job in jobs] != statuses:
            raise TransactionMeddled(CHANGED)
        session.commit()
    if any(job._p_serial == old != z64 for job, old in zip(jobs, serials, strict=True)):
        raise TransactionMeddled("a task must not drop its own job from the transaction")


class Finishing:
    """The ends of one worker's runs that are to be written.

    :param fail: called with a session, a claim, an error and the lines of the run: keeps that its
        end could not be written, and returns the job's status.
    """

    def __init__(
        self,
        claims: Claims,
        fail: Callable[[Session, Claim, BaseException, LogLines | None], str],
    ) -> None:
        self._claims = claims
        self._fail = fail
        self._news = threading.Condition()  # guards what follows
        self._waiting: list[Finish] = []
        self._written = 0  # how many are just being written
        self._watch: threading.Thread | None = None
        self._is_asleep = False
        claims.write_ended = self.write_all

    # -- handing over -------------------------------------------------------------------

    def takes(
        self,
        session: Session,
        service: Any,
        task: Any,
        job: Job | None,
        finish: Finish,
        has_next: Callable[[], bool],
    ) -> bool:
        """Say whether to hand over a run: it has left only the end of its job, and others wait.

        What others wait for is not: a slot of a lock or limit, a follow-up, or to hear of it.
        Neither is the end of a job that may kill its process: none of those behind it is to be
        taken for that one.

        :param job: None if it was not loaded.
        """
        if not finish.claim.ends_alone or finish.claim.is_suspect:
            return False
        if not (self._claims.desk or self._waiting or self._written or has_next()):
            return False
        if not has_written_only(session.connection, job):
            return False
        if not (getattr(task, "piped", True) and read(service, "piped")):
            return False
        if is_heard(JobCompleted) or is_heard(JobFailed):
            return False
        txn = session.manager.get()
        return not (
            txn.user
            or txn.description
            or txn.extension
            or hooks_of(txn)
            or [*txn.getBeforeAbortHooks(), *txn.getAfterAbortHooks()]
            or any(each._readCurrent for each in session.connection.connections.values())
            or not is_alone(finish.output, MAX_RESULT_BYTES)
        )

    def hand_over(self, session: Session, finish: Finish, has_next: Callable[[], bool]) -> int:
        """Have the end of a run written; return when it is, or when the thread may go on before.

        :param has_next: says whether the thread goes on with another job.
        :returns: how many were written by this thread.
        :raises Stopping: the processor stops while the storage cannot write.
        """
        with self._news:
            self._waiting.append(finish)
            self._claims.ended.add(id(finish.claim))
            if self._has_room() and has_next() and self._is_watched():
                return 0
        return self.write(session)

    def _has_room(self) -> bool:
        end = self._claims.monotonic()
        if self._claims.desk is None:
            # For what runs as long as the last one did: it is dear if another thread has to write.
            end += end - self._waiting[-1].begun
        return (
            len(self._waiting) + self._written < MAX_PIPED
            and end - self._waiting[0].begun < PIPE_SECONDS
        )

    # -- writing ------------------------------------------------------------------------

    def write(self, session: Session) -> int:
        """Write what waits, and return how many that were; wait for who just does it.

        :raises Stopping: the processor stops while the storage cannot write.
        """
        if not (self._waiting or self._written):
            return 0
        with self._claims.lock:
            return self.write_all(session)

    def write_all(self, session: Session) -> int:
        """Do as `write`, for who has the lock of the claims."""
        with self._news:
            finishes, self._waiting = self._waiting, []
            self._written = len(finishes)
        if not finishes:
            return 0
        try:
            self._write(self._claims.desk or session, finishes)
        finally:
            with self._news:
                self._written = 0
                self._waiting[:0] = [each for each in finishes if not each.is_written]
        return len(finishes)

    def _write(self, session: Session, finishes: list[Finish]) -> None:
        if len(finishes) > 1:
            kept, error, _ = attempt(session, partial(self._keep, session, finishes))
            if error is None:
                for each, status in zip(finishes, kept, strict=True):
                    self._settle(each, status)
                return
        for each in finishes:
            self._settle(each, self._write_one(session, each))

    def _write_one(self, session: Session, finish: Finish) -> str | None:
        try:
            change = partial(self._keep, session, [finish])
            return self._claims.transact(session, change, partial(self._is_too_large, session))[0]
        except (Stopping, ServiceGone):
            raise
        except Exception as error:  # of what it has returned
            return self._keep_failure(session, finish, error)

    def _is_too_large(self, session: Session, error: Exception) -> bool:
        """Say whether a storage has no room for an end, though it has for others."""
        if not is_refused(error):
            return False
        waits = self._claims.transact.waits
        self._claims.beat_alone(session)
        return self._claims.transact.waits == waits

    def _keep_failure(self, session: Session, finish: Finish, error: Exception) -> str | None:
        try:
            if session.is_closed:
                raise error
            return self._fail(session, finish.claim, error, finish.lines)
        except Fenced:
            return None
        except (Stopping, ServiceGone):
            raise
        except Exception as fault:
            if session.is_closed:
                raise
            # Nothing can be written of it.  The next claim finds it, and all others go on.
            self._claims.transact.log(fault)
            return None

    def _keep(self, session: Session, finishes: list[Finish], service: Any) -> list[str | None]:
        """Write what is behind its fence; return the statuses, None for jobs that were lost."""
        held = []
        kept: list[Job | None] = []
        jobs = load_many(service.jobs, [each.claim.jobid for each in finishes])
        for job, each in zip(jobs, finishes, strict=True):
            if job is not None and job.is_held_by(each.claim.owner, each.claim.attempt):
                wrote(service, job)
                held.append((job, each))
                kept.append(job)
            else:
                kept.append(job if job is not None and each.is_end_of(job) else None)
        keep(session, service, held)
        for each in finishes:
            each.tries += 1
        return [None if job is None else job.status for job in kept]

    def _settle(self, finish: Finish, status: str | None) -> None:
        claim = finish.claim
        finish.status = status
        finish.is_written = True
        self._claims.let_go(claim)
        if status is None:
            job_log.warning("job %s: no longer held, its run is not kept", claim.name)

    # -- the thread that looks after the pipe -----------------------------------------------

    def _is_watched(self) -> bool:
        """See to it that what waits is written, however long the next job runs."""
        if self._watch is None or not self._watch.is_alive():
            name = f"remotetask-pipe.{'.'.join(self._claims.path)}"
            watch = threading.Thread(target=self._look_after, name=name, daemon=True)
            try:
                watch.start()
            except RuntimeError:  # Python starts no more threads
                return False
            self._watch = watch
        elif self._is_asleep:
            self._is_asleep = False
            self._news.notify()
        return True

    def _look_after(self) -> None:
        faults = 0
        while self._awaits_overdue():
            try:
                with self._claims.open_beside() as session:
                    self.write(session)
                faults = 0
            except (Stopping, ServiceGone):  # the loop finds that out by itself
                return
            except Exception as error:
                if is_closed(self._claims.db):
                    return
                faults += 1
                try:
                    self._claims.transact.wait_for_storage(error, faults)
                except Stopping:
                    return

    def _awaits_overdue(self) -> bool:
        """Return when something has waited too long; say no if nothing came for a while."""
        with self._news:
            while True:
                if self._waiting:
                    seconds = self._waiting[0].begun + PIPE_SECONDS - self._claims.monotonic()
                    if seconds <= 0:
                        return True
                    self._news.wait(seconds)
                    continue
                self._is_asleep = True
                is_woken = self._news.wait(IDLE_SECONDS)
                self._is_asleep = False
                if not (is_woken or self._waiting):
                    self._watch = None
                    return False
