# SPDX-License-Identifier: ZPL-2.1
"""Where jobs wait: the ready queue, and the indexes by time.

All of it is only an index of the jobs: the record of a job decides.  An entry that its
job no longer stands by (``job.place`` names another place, or the job is gone) is stale;
it is passed over, and dropped at the next opportunity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any

from BTrees.OOBTree import OOBTree, OOSet
from persistent import Persistent

from lovely.remotetask.base.ownership import check_sound, wrote
from lovely.remotetask.interfaces import (
    CRONJOB,
    FINAL_STATUSES,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.job import CLOCK_TOLERANCE_SECONDS, SCHEDULE_ERRORS, CronJob, Job
from lovely.remotetask.schedule import is_zone_known
from lovely.remotetask.store.ended import EndedIndex
from lovely.remotetask.store.gates import Gates, Turns, is_aside
from lovely.remotetask.store.index import tick
from lovely.remotetask.store.keys import free_key
from lovely.remotetask.store.level import TIMED_STATUSES, Levels
from lovely.remotetask.store.links import Links
from lovely.remotetask.store.lots import (
    AWAITING,
    drop_lot,
    lot_of_task,
    lot_of_zone,
    put_in_lot,
    take_from_lot,
    task_of,
    zone_of,
)
from lovely.remotetask.store.memory import Memory
from lovely.remotetask.store.pauses import ALL
from lovely.remotetask.store.quarantine import load_usable
from lovely.remotetask.store.reason import reason_of
from lovely.remotetask.store.timeindex import TimeIndex
from lovely.remotetask.store.tree import JobTree
from lovely.remotetask.store.words import free_by_word

#: How many waiting jobs are looked at when the clock seems to have been put back.
RECOUNT_LIMIT = 1000


class JobQueue(Levels):
    """All places where jobs wait or rest, by status.

    Stored beyond `Levels`: in ``indexes``, by status, a `TimeIndex` of jobs to be started later,
    keyed by creation, and an `EndedIndex` for each final status, keyed by the time the job ended;
    ``paused`` OOSet of str: the names of paused tasks, whose jobs are parked too when they come to
    be claimed, or `ALL`.  When first used: ``schedules`` OOBTree of key -> id of the schedule with
    it; ``keys`` `NameTable` of unique key -> id; ``gates`` `Gates`, for locks and limited tasks;
    ``limits`` dict of task -> int; ``expiring`` `TimeIndex`, keyed by the time they expire, of the
    jobs that do, dropped at that time; ``links`` `Links`: who waits for whom; ``words``
    `TimeIndex`: what could not be told to those that wait, see `leave_word`.

    ``job.place`` says where a waiting job is filed: an int is the key of its segment in a ready
    queue, a float its time in the index of its status, a str the lot it is parked in, or in which
    it waits at a gate.  One that waits again after a run has it before it is filed there.
    """

    paused: Any = OOSet()  # of a queue that was stored without; never changed
    schedules: Any = OOBTree()  # likewise
    keys: Any = None
    gates: Any = None
    limits: dict[str, int] = {}  # noqa: RUF012 (never changed in place)
    expiring: Any = None
    links: Links | None = None
    words: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.paused = OOSet()
        self.indexes[STARTLATER] = TimeIndex()
        self.indexes.update((status, EndedIndex()) for status in FINAL_STATUSES)

    @property
    def is_paused(self) -> bool:
        """Whether no job is to be claimed."""
        return ALL in self.paused

    def is_held_back(self, task: str) -> bool:
        """Say whether no job of a task is to be claimed."""
        return task in self.paused

    @property
    def signals(self) -> list[Persistent]:
        """See `Levels`."""
        # The gates are written when a slot is left free.
        others = [self.gates, None if self.words is None else self.words.signal]
        return [*super().signals, self.paused, *(part for part in others if part is not None)]

    # -- filing ---------------------------------------------------------------------------

    def file(self, job: Job) -> None:
        """Put a job where its status and its due time say."""
        status = job.status
        is_new = job._p_jar is None  # of which `JobTree.add` tells
        if status in FINAL_STATUSES:
            self.index_of(job).insert(self._time_of(job), job.id)
            free_key(self, job)
        else:
            if not is_new:
                wrote(self, job)
            if job.awaits:
                level = self.level(job.priority)
                put_in_lot(level, level.parked, AWAITING, job)
                job.place = AWAITING
            elif status == QUEUED and job.due is None:
                self.file_ready([job])
            elif status == CRONJOB and job.due is None and job.timezone is not None:
                self.park_for_zone(job)
            else:
                self.file_waiting(job)
        if not is_new and self.gates is not None:
            self.gates.leave(self, [job])

    def file_waiting(self, job: Job) -> None:
        """Put a job that waits for a time into the index of its status."""
        self.index_of(job).insert(self._time_of(job), job.id)
        self.assign(job)

    def file_ended(self, jobs: list[Job]) -> None:
        """Put jobs whose runs have ended where they rest or wait."""
        finals: dict[str, list[tuple[float, int]]] = {}
        for job in jobs:
            if job.is_final:
                finals.setdefault(job.status, []).append(self.entry_of(job))
            else:
                self.file(job)
        for status, entries in finals.items():
            index = self.indexes[status]
            check_sound(self, index)
            index.insert_many(entries)
        self.free(jobs)

    def free(self, jobs: list[Job]) -> None:
        """Free what jobs that have ended have held: their keys, and their slots at gates."""
        for job in jobs if self.keys is not None else ():
            if job.is_final:
                free_key(self, job)
        if self.gates is not None and jobs:
            self.gates.leave(self, jobs)

    def assign(self, job: Job) -> None:
        """Write down where a job that waits for a time will be filed."""
        place = self._time_of(job)
        if job.place != place:
            job.place = place

    def file_ready(self, jobs: list[Job]) -> None:
        """Put jobs, all of which have the same priority and lock, into a ready queue."""
        self.level(jobs[0].priority).put(jobs)

    def remove(self, job: Job) -> None:
        """Take a job out of its place, before its status changes."""
        wrote(self, job)
        place = job.place
        if isinstance(place, int):
            queue = self.level(job.priority).queue_of(job)
            if queue is not None:
                queue.note_left(place)
            job.place = None
            return
        if isinstance(place, str):
            self._take_out(job, place)
        elif place is not None:
            self.index_of(job).remove(place, job.id)
        elif job.is_final:
            self.index_of(job).remove(self._time_of(job), job.id)
        if place is not None:
            job.place = None

    def enter(self, jobs: JobTree, job: Job, in_turn: Turns | None = None) -> bool:
        """Let a job that is to be claimed through its gates, or set it aside; say which.

        :param in_turn: see `Gates.enter`.
        """
        if not self.has_gate(job):
            return True
        return bool(self.need_gates(jobs).enter(self, job, in_turn))

    def need_gates(self, jobs: JobTree) -> Gates:
        """Return the gates, which are made when they are first needed."""
        if self.gates is None:
            self.gates = Gates(jobs)
        gates: Gates = self.gates
        return gates

    def has_gate(self, job: Job) -> bool:
        """Say whether a job has a lock or a limited task."""
        return job.lock is not None or job.task in self.limits

    def park(self, job: Job) -> None:
        """Set a job aside until its task is registered, and not paused."""
        self._park(job, lot_of_task(job))

    def park_for_zone(self, job: Any) -> None:
        """Set a cron job aside until it comes to where its time zone is known."""
        self._park(job, lot_of_zone(job.timezone))

    def _park(self, job: Job, name: str) -> None:
        self.remove(job)
        level = self.level(job.priority)
        put_in_lot(level, level.parked, name, job)
        job.place = name
        if self.gates is not None:
            self.gates.leave(self, [job])

    def _take_out(self, job: Job, name: str) -> None:
        if is_aside(name):
            if self.gates is not None:
                self.gates.take_out(job, name)
            return
        level = self.level(job.priority)
        if take_from_lot(level, level.parked, name, job):
            drop_lot(level, level.parked, name)

    @staticmethod
    def _time_of(job: Job) -> float:
        # Always a float: an int as a place is a segment of the ready queue.
        if job.is_final:
            return tick(job.completed_at or job.created_at)
        return tick(job.created_at if job.due is None else job.due)

    def __len__(self) -> int:
        """The number of jobs that wait to be run now, but for those that wait at gates."""
        return self.count_to_run(QUEUED)

    def count(self, status: str) -> int:
        """Return the number of jobs that wait, or rest, with a status."""
        count = self.count_to_run(status)
        if self.gates is not None and status in TIMED_STATUSES:
            count += len(self.gates.aside[status])
        return count

    def __bool__(self) -> bool:
        return True

    def pull(
        self,
        jobs: JobTree,
        now: float,
        start: float | None = None,
        knows: Callable[[str], bool] = lambda name: True,
        limit: int = 1,
        turn: int = 0,
        memory: Memory | None = None,
    ) -> Iterator[Job]:
        """Yield the jobs that may run now, those of the highest priority first.

        Within one those that have waited for something (their time, their task) come first.  But
        they are no more than half of what is taken as long as there are others, and of one kind
        no more than of another, so that none can keep others from starting.  Jobs that were
        given back go before the ready queue: they have stood in it.

        The caller takes a job by starting it, parks it, or leaves it.  What is held back with its
        task is for the caller to park.

        :param start: where to begin among the first that are ready, 0 to 1, so that workers
            beside each other keep apart; None keeps the order strictly.
        :param knows: whether a task is registered here.
        :param limit: how many jobs the caller means to take.
        :param turn: counts the calls of one caller: who takes one job at a time takes one
            that has waited and one of the ready queue by turns.
        :param memory: what this worker has seen before.  Without one each job is looked at, and
            schedules are counted anew, see `recount`, by who wants it.
        """
        self.check_sound()
        check_sound(self, self.paused)
        if self.is_paused:
            return
        if memory is not None and memory.is_clock_back(now):
            self.recount(jobs, now)
        if self.gates is not None:
            self.gates.go_on_idle(self)
        for priority in self.priorities:
            level = self.level(priority)
            part = memory if memory is None or not priority else memory.part(priority)
            others: Iterator[Job] = iter(())
            if priority:
                level.check_sound()
            elif self.gates is not None:
                others = self.gates.free_waiting(self)
            yield from level.pull_here(
                jobs,
                now,
                lambda lot: self._is_open(lot, knows),
                start,
                limit,
                turn,
                part,
                others,
            )

    def _is_open(self, lot: str, knows: Callable[[str], bool]) -> bool:
        """Say whether the jobs that are parked in a lot can run here, and now."""
        if lot == AWAITING:
            return False
        zone = zone_of(lot)
        if zone is not None:
            return is_zone_known(zone)
        task = task_of(lot)
        return knows(task) and not self.is_held_back(task)

    def recount(self, jobs: JobTree, now: float) -> None:
        """Count schedules anew that a clock far ahead of `now` has set.

        Looked for only where that can be: by a worker that has just begun, and when the clock
        has gone back.
        """
        indexes = [level.indexes for level in self.all_levels()]
        for index in [index[status] for index in indexes for status in TIMED_STATUSES]:
            ahead = index.between(now + CLOCK_TOLERANCE_SECONDS, math.inf)
            for when, jobid in list(islice(ahead, RECOUNT_LIMIT)):
                job = load_usable(jobs, jobid)
                if job is not None and job.place == when:
                    self.count_anew(job, now)

    def count_anew(self, job: Job, now: float) -> None:
        """Count anew when a job is due, if a clock far ahead of `now` has set that."""
        with suppress(*SCHEDULE_ERRORS):  # it cannot be counted here
            if job.is_ahead_of(now):
                self.refile(job, job.count_anew(now))

    def reschedule(self, job: Any, now: float) -> None:
        """Count a waiting job's schedule from `now`."""
        self.refile(job, job.count_from(now))

    def count_later(self, job: CronJob, now: float) -> None:
        """Let who claims a job count its schedule from `now`: here that cannot be done."""
        job.slot = now
        self.refile(job, None)

    def refile(self, job: Job, due: float | None) -> None:
        """Let a waiting job wait for another time; None is now."""
        self.remove(job)
        job.wait(due)
        self.file(job)

    def release(self, job: Job, now: float) -> None:
        """Let a job that has waited for others be looked at by who claims next."""
        self.remove(job)
        job.wait(now)
        self.file_waiting(job)

    def has_waiting(self, jobs: JobTree, now: float, knows: Callable[[str], bool]) -> bool:
        """Say whether a job is ready; nothing is changed.  See `pull`."""
        if self.is_paused:
            return False
        waiting = chain.from_iterable(
            level.waiting_here(jobs, now, lambda lot: self._is_open(lot, knows))
            for level in self.all_levels()
        )
        if self.gates is not None:
            waiting = chain(self.gates.free_waiting(self), self.gates.idle_waiting(self), waiting)
        waiting = chain(free_by_word(self, jobs), waiting)
        return any(not self.is_held_back(job.task) and not self.is_blocked(job) for job in waiting)

    def is_blocked(self, job: Job) -> bool:
        """Say whether a lock or a limit keeps a job that could run."""
        has_gate = self.gates is not None and self.has_gate(job)
        return has_gate and self.gates.blockers(self, job) is not None

    def reason_of(self, job: Job) -> str | None:
        """Return what a waiting job waits for beside its time and its turn, or None."""
        return reason_of(self, job)

    def entry_of(self, job: Job) -> tuple[float, int]:
        """Return the entry of a final job in the index of its status."""
        return self._time_of(job), job.id

    def is_filed(self, job: Job) -> bool:
        """Say whether a final job is in the index of its status."""
        return self.entry_of(job) in self.indexes[job.status]

    def stands_by(self, job: Job) -> bool:
        """Say whether a waiting job is where its record says."""
        place = job.place
        if isinstance(place, str) and is_aside(place):
            return self.gates is not None and bool(self.gates.stands_by(job, place))
        if place is None or (job.priority and job.priority not in self.levels):
            return False
        level = self.level(job.priority)
        if isinstance(place, str):
            return place in level.parked and (job.created_at, job.id) in level.parked[place]
        if isinstance(place, float):
            return (place, job.id) in self.index_of(job)
        queue = level.queue_of(job)
        return queue is not None and (place, job.id) in queue

    def has_to_be_filed(self, job: Job) -> bool:
        """Say whether a job has ended a run, and `file` has not been called since."""
        if job.is_final:
            return not self.is_filed(job)
        return isinstance(job.place, float) and not self.stands_by(job)
