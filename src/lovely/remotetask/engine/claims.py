# SPDX-License-Identifier: ZPL-2.1
"""What one worker has in hand: it claims jobs, gives signs of life, and gives back.

A claim writes the record of each job, which names the worker and counts the attempt, and the
worker's own record, which names the jobs.  The commit that ends a job writes the job's record
alone; the index of its status and the worker's record are brought up to date by the worker's
next claim.

Jobs whose tasks declare ``shared_commit`` change nothing outside of ZODB.  So it does no harm
if one of them is run by two workers, as long as only one commits; they are only *reserved*:
their ids stand in the worker's record, for the case that it dies, and their own records are
written once, when they have run.  Of two workers that have run such a job, or of one and
somebody who cancels it, one commits: the job's record is the lock here too.
"""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import transaction

from lovely.remotetask.base.site import ServicePath, entered
from lovely.remotetask.engine.claim import can_share, claim_of, give_back, reserve, take
from lovely.remotetask.engine.filing import release, retire_jobs
from lovely.remotetask.engine.following import tell_late
from lovely.remotetask.engine.hand import Hand
from lovely.remotetask.engine.identity import Identity, claimed_by_callers, local_ids
from lovely.remotetask.engine.news import News
from lovely.remotetask.engine.protocol import Claim, Stopping
from lovely.remotetask.engine.rivals import Rivals
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.transactions import Transactor
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.job import Job, job_log
from lovely.remotetask.store.gates import Turns
from lovely.remotetask.store.memory import Memory
from lovely.remotetask.store.quarantine import load, load_many
from lovely.remotetask.store.worker import find_worker, hold, worker_record
from lovely.remotetask.task import MAIN, Tasks

#: No more jobs than this are set aside, or found to have expired, in one claim.
MAX_SET_ASIDE = 500

#: Objects that a connection keeps loaded for each job that it claims: with those filed before.
OBJECTS_A_JOB = 4


class Claims(Hand):
    """One worker on one service, and the claims that it has in hand.

    Threads bring their own `Session`.

    :param pause: called with seconds; waits, and says whether the processor is to stop.
    :param accepts: says whether this worker takes a job.
    """

    def __init__(
        self,
        db: Any,
        path: ServicePath | list[str],
        pause: Callable[[float], bool],
        clock: Callable[[], float] = lambda: time.time(),  # which a test may have replaced
        monotonic: Callable[[], float] = time.monotonic,
        accepts: Callable[[Job], bool] = lambda job: True,
    ) -> None:
        identity = Identity(db, getattr(path, "oid", None))
        transact = Transactor(".".join(path), pause, monotonic)
        super().__init__(identity, transact, pause, clock, monotonic)
        self._accepts = accepts
        self.db = db
        self.path = path
        self.memory = Memory()
        self.news = News(db)
        self.uncertain: set[int] = set()  # reserved jobs that may have ended by a failed commit
        #: Called by who has the lock: writes the ends of runs that wait, see `finishing`.
        self.write_ended: Callable[[Session], object] = lambda session: None
        self._turn = 0  # see `JobQueue.pull`
        self.rivals = Rivals(identity, monotonic)
        self._missing_tasks: set[str] = set()

    def _hold(self, service: Any, held: list[int]) -> None:
        hold(service, self.identity.id, held, self.threads)

    # -- claims -------------------------------------------------------------------

    def claim(self, session: Session, limit: int, may_reserve: bool = False) -> list[Claim]:
        """Claim up to `limit` jobs, in one commit, and file the jobs that have ended.

        :param may_reserve: only reserve jobs whose tasks declare ``shared_commit``, for
            `run_together`.
        :raises Stopping: all was given back, for good.
        """
        with self.lock:
            self.check_stays()
            self.write_ended(session)
            session.make_room(OBJECTS_A_JOB * limit)
            # Before the transaction begins: a job that leaves the hand from here on may
            # still be running in what the transaction sees, and must stay in the record.
            held = list(self.in_hand)
            self.holds = True  # until it is known better: a commit may come to pass and fail
            while True:
                claim_once = functools.partial(
                    self._claim, session, limit, may_reserve, held, itertools.count()
                )
                claims = self.transact(session, claim_once)
                self.memory.keep()
                if claims or not self.memory.was_cut_short:
                    break
            self.in_hand.update((claim.jobid, claim) for claim in claims)
            if claims:
                self.last_sign = self.monotonic()
                self._turn += 1
            self.holds = bool(held or claims)
            return claims

    def _claim(
        self,
        session: Session,
        limit: int,
        may_reserve: bool,
        held: list[int],
        tries: Iterator[int],
        service: Any,
    ) -> list[Claim]:
        is_repeated = bool(next(tries))
        self.identity.oid = service._p_oid  # a path of names alone has not told it
        self.news.fetch(session)
        self.memory.renew()
        claims = self._retire(service, held)  # first, as some of them may be due again
        # Asked in the transaction: who stops a worker, and then adds a job, does not find it taken.
        if limit and not claims and not self.pause(0):
            start, limit = self.rivals.share(service, limit)
            if is_repeated and start is not None:  # somebody works at the same ones
                self.memory.choose_anew()
                start = random.random()
            now = self.news.looked = self.clock()
            with entered(session.site(service)):
                claims = self._take(service, limit, start, may_reserve, held, now)
        self._hold(service, [*held, *(claim.jobid for claim in claims)])
        self.news.note(service)
        return claims

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
        mine = self.identity.id
        reserved: set[int] | None = None
        has_suspect = any(claim.is_suspect for claim in list(self.in_hand.values()))
        tasks = Tasks(service.find_task)
        callers = claimed_by_callers(service)
        queue, memory = service.queue, self.memory
        limits = queue.limits
        in_turn: Turns | None = {} if self.runs_in_turn else None
        followers: list[Job] = []
        set_aside = 0
        tell_late(service, now)
        pulled = queue.pull(
            service.jobs, now, start, tasks.knows, limit=limit, turn=self._turn, memory=memory
        )
        for job in chain(pulled, _followers(queue, followers)):
            if job.id in callers or not self._accepts(job):
                continue
            task = tasks.get(job.task)
            if task is None or queue.is_held_back(job.task):
                self._log_missing_task(job, task)
                queue.park(job)
                continue
            # Of the jobs that a dying process held nobody knows which one killed it.  One
            # at a time, so that the next death tells.
            if job.deaths_in_a_row and (has_suspect or claims):
                if claims:
                    break
                continue
            if may_reserve and can_share(queue, job, task):
                if reserved is None:  # not earlier: it loads the records of all workers
                    reserved = self._reserved(service, held)
                if job.id not in reserved:
                    claims.append(reserve(job, mine))
            elif take(service, job, mine, now, in_turn):
                claims.append(claim_of(job, limits))
                if self.runs_in_turn and claims[-1].has_gate:
                    followers.append(job)
            else:
                set_aside += 1
                if set_aside < MAX_SET_ASIDE:
                    continue
                memory.has_more = True
                break
            if job.deaths_in_a_row or len(claims) >= limit:
                break
        return claims

    def _reserved(self, service: Any, held: list[int]) -> set[int]:
        # What is in the hand of this worker counts, and not its record: a commit may have
        # come to pass although it has failed, see `_retire`.
        others = (w.held for key, w in service.workers.items() if key != self.identity.id)
        return set(held).union(*others)

    def _log_missing_task(self, job: Job, task: Any) -> None:
        if task is None and job.task not in self._missing_tasks:
            self._missing_tasks.add(job.task)
            text = "job %s: task %r is not registered here; its jobs wait until it is"
            if job.task.startswith(f"{MAIN}."):
                text += "; a script has registered it under its own name, see @task"
            job_log.warning(text, job.__name__, job.task)

    def _retire(self, service: Any, held: list[int]) -> list[Claim]:
        """File the jobs whose runs have ended, but for those that are `held`.

        :returns: claims of this worker whose commit came to pass although it has failed.  So it
            seems to a client that loses its server at the end of a commit.
        """
        mine = self.identity.id
        record = find_worker(service, mine)
        if record is None:
            return []
        now = self.clock()
        kept = set(held)
        left = [jobid for jobid in record.held if jobid not in kept]
        unnoticed = []
        ended = []  # in the order in which they have
        for jobid, job in zip(left, load_many(service.jobs, left), strict=True):
            if job is not None and job.is_held_by(mine, job.attempt):
                unnoticed.append(claim_of(job, service.queue.limits))
            else:
                ended.append((jobid, job))
        retire_jobs(service, ended, now)
        return unnoticed

    def claim_reserved(self, session: Session, claims: list[Claim]) -> list[Claim]:
        """Claim reserved jobs; return the claims of those that still wait.

        :raises Stopping: all was given back, for good.
        """

        def change(service: Any) -> list[Claim]:
            now = self.clock()
            taken = []
            for claim in claims:
                job = load(service.jobs, claim.jobid)
                if job is None:
                    continue
                # It is ours if a commit came to pass although it has failed.
                if job.is_held_by(claim.owner, claim.attempt) or (
                    job.is_ready and take(service, job, claim.owner, now)
                ):
                    taken.append(claim_of(job, service.queue.limits))
            self._retire(service, [*held, *self._never_run(claims)])
            self._hold(service, [*held, *(claim.jobid for claim in taken)])
            return taken

        with self.lock:
            self.check_stays()
            claims = [claim for claim in claims if self.has(claim)]
            held = self._held_but(claims)
            taken = self.transact(session, change)
            for claim in claims:
                self.let_go(claim)
                self.uncertain.discard(claim.jobid)
            self.in_hand.update((claim.jobid, claim) for claim in taken)
            self.last_sign = self.monotonic()
            self.holds = bool(held or taken)
            return taken

    def _never_run(self, claims: list[Claim]) -> list[int]:
        """Return those jobs of claims that this worker has not brought to an end.

        If they have ended, it is for somebody else to file them.  Two who file the same job
        collide, but not if it is removed in between: then its entry would stay.
        """
        return [c.jobid for c in claims if c.is_reserved and c.jobid not in self.uncertain]

    def _held_but(self, claims: list[Claim]) -> list[int]:
        """Return the jobs in hand without those of some claims; ask before the transaction."""
        but = set(map(id, claims))
        return [jobid for jobid, claim in dict(self.in_hand).items() if id(claim) not in but]

    # -- signs of life, the end ---------------------------------------------------

    def beat(self, session: Session) -> None:
        """Write a sign of life."""
        with self.lock:
            self.write_ended(session)
            self.beat_alone(session)

    def beat_alone(self, session: Session) -> None:
        """Do as `beat`, for who has the lock and just writes the ends of runs."""

        def change(service: Any) -> None:
            worker_record(service, self.identity.id).beat()

        self.transact(session, change)
        self.last_sign = self.monotonic()

    def give_back(self, session: Session, claims: list[Claim], waits: bool = True) -> None:
        """Give back claims that are not run; they count as no attempt.

        Once nothing is held any more the worker's record is gone.

        :param waits: wait for a storage that does not work.
        """
        transact = self.transact if waits else Transactor(".".join(self.path), lambda seconds: True)
        with self.lock:
            if waits:
                self.write_ended(session)
            self._give_back(session, claims, [], transact)

    def leave(self, session: Session, running: list[Claim]) -> None:
        """Give back all that is in hand, for good: the process ends, or the loop has.

        :param running: what is still being run; its jobs tell that it was stopped, and what
            it comes to is not kept.
        """
        with self.lock:
            self.has_left = True
            self.write_ended(session)
            self._give_back(session, list(self.in_hand.values()), running, self.transact)

    def _give_back(
        self, session: Session, claims: list[Claim], running: list[Claim], transact: Transactor
    ) -> None:
        # Of its own claims only those in hand: others were given back before, and their jobs
        # may have been claimed again.
        mine = self.identity.id
        claims = [claim for claim in claims if claim.owner != mine or self.has(claim)]
        held = self._held_but(claims)
        now = self.clock()

        def change(service: Any) -> None:
            known = [*held, *(claim.jobid for claim in claims)]
            for claim in (*claims, *self._retire(service, known)):
                job = load(service.jobs, claim.jobid)
                if job is not None:
                    give_back(service, job, claim, claim in running, now)
            self._retire(service, [*held, *self._never_run(claims)])
            self._hold(service, held)

        transact(session, change)
        for claim in claims:
            self.let_go(claim)
        self.holds = bool(held)

    def release(self, session: Session, claim: Claim) -> None:
        """File a job that was claimed by another worker of this process, and has ended."""
        with self.lock:
            self.transact(
                session,
                functools.partial(
                    release, worker_id=claim.owner, jobid=claim.jobid, now=self.clock()
                ),
            )

    def pass_on(self, session: Session, claim: Claim) -> None:
        """File a job with a gate whose run has ended, if another one waits for its slot.

        Otherwise that is left to the next claim.
        """

        def change(service: Any) -> None:
            queue = service.queue
            job = load(service.jobs, claim.jobid)
            if job is not None and queue.gates is not None and queue.gates.has_next(queue, job):
                release(service, claim.owner, claim.jobid, self.clock())

        with self.lock, suppress(Stopping):
            self.transact(session, change)

    def find(self, session: Session, jobid: int) -> Claim | None:
        """Return the claim that this process has on a job; another worker of it may hold it."""
        claim = self.in_hand.get(jobid)
        if claim is not None:
            return claim
        service = session.begin()
        job = load(service.jobs, jobid)
        if job is not None and job.status == PROCESSING and job.owner in local_ids(service):
            return claim_of(job, service.queue.limits)
        return None

    # -- sessions -----------------------------------------------------------------

    def open(self) -> Session:
        """Open a session in the thread's own transactions."""
        return Session(self.db, self.path)

    def open_beside(self) -> Session:
        """Open a session with a transaction manager of its own."""
        return Session(self.db, self.path, transaction.TransactionManager())


def _followers(queue: Any, jobs: list[Job]) -> Iterator[Job]:
    """Yield those that wait at the gates of jobs, which come up to the end.

    One that is claimed with the job before it shares its slot.
    """
    if jobs:
        yield from queue.gates.waiting_behind(queue, jobs)
