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
    DELAYED,
    FINAL_STATUSES,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.job import CLOCK_TOLERANCE_SECONDS, SCHEDULE_ERRORS, CronJob, Job
from lovely.remotetask.schedule import is_zone_known
from lovely.remotetask.store.ended import EndedIndex
from lovely.remotetask.store.index import tick
from lovely.remotetask.store.links import Links
from lovely.remotetask.store.lots import (
    AWAITING,
    drop_lot,
    is_lot_of,
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
from lovely.remotetask.store.ready import ReadyQueue, by_turns, turned
from lovely.remotetask.store.timeindex import TimeIndex
from lovely.remotetask.store.tree import JobTree

#: Workers beside each other begin at different ones of so many due jobs.
START_SIZE = 200

#: How many waiting jobs are looked at when the clock seems to have been put back.
RECOUNT_LIMIT = 1000

#: Statuses whose jobs can wait for a time.
TIMED_STATUSES = (DELAYED, CRONJOB, QUEUED)


class JobQueue(Persistent):
    """All places where jobs wait or rest, by status.

    Stored: ``ready`` `ReadyQueue`; ``indexes`` dict of status -> `TimeIndex`, keyed by the
    time a waiting job is due, or a job to be started later was created, or of final status ->
    `EndedIndex`, keyed by the time the job ended;
    ``parked`` OOBTree of lot -> `TimeIndex`, keyed by creation: jobs whose task was not
    registered where they were to be claimed, in lots by status and task name, jobs whose
    time zone was not known there, by zone, and all that wait for other jobs, in one lot;
    ``links`` `Links` or None: who waits for whom; made when it is first needed; ``paused`` OOSet
    of str: the names of paused tasks, whose jobs are parked too when they come to be claimed, or
    `ALL`.

    ``job.place`` says where a waiting job is filed: an int is the key of its segment in
    the ready queue, a float its time in the index of its status, a str the lot it is parked in.
    A job that waits again after a run has its place before it is filed there.
    """

    paused: Any = OOSet()  # of a queue that was stored without; never changed
    links: Links | None = None

    def __init__(self) -> None:
        self.ready = ReadyQueue()
        self.paused = OOSet()
        self.indexes: dict[str, Any] = {
            **{status: TimeIndex() for status in (*TIMED_STATUSES, STARTLATER)},
            **{status: EndedIndex() for status in FINAL_STATUSES},
        }
        self.parked = OOBTree()

    @property
    def signals(self) -> list[Persistent]:
        """The objects whose change tells a waiting worker that there may be work."""
        timed = (self.indexes[status].signal for status in TIMED_STATUSES)
        return [*self.ready.signals, *timed, self.paused]

    @property
    def is_paused(self) -> bool:
        """Whether no job is to be claimed."""
        return ALL in self.paused

    def is_held_back(self, task: str) -> bool:
        """Say whether no job of a task is to be claimed."""
        return task in self.paused

    def file(self, job: Job) -> None:
        """Put a job where its status and its due time say."""
        if not job.is_final and job._p_jar is not None:  # of a new one `JobTree.add` tells
            wrote(self, job)
        if job.awaits and not job.is_final:
            put_in_lot(self, self.parked, AWAITING, job)
            job.place = AWAITING
        elif job.status == QUEUED and job.due is None:
            self.file_ready([job])
        elif job.status == CRONJOB and job.due is None and job.timezone is not None:
            self.park_for_zone(job)
        elif job.is_final:
            self._index(job.status).insert(self._time_of(job), job.id)
        else:
            self.file_waiting(job)

    def file_waiting(self, job: Job) -> None:
        """Put a job that waits for a time into the index of its status."""
        self._index(job.status).insert(self._time_of(job), job.id)
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
            self._index(status).insert_many(entries)

    def assign(self, job: Job) -> None:
        """Write down where a job that waits for a time will be filed."""
        place = self._time_of(job)
        if job.place != place:
            job.place = place

    def file_ready(self, jobs: list[Job]) -> None:
        """Put jobs into the ready queue."""
        for job, key in zip(jobs, self.ready.put([job.id for job in jobs]), strict=True):
            job.place = key

    def remove(self, job: Job) -> None:
        """Take a job out of its place, before its status changes."""
        wrote(self, job)
        place = job.place
        if isinstance(place, int):
            self.ready.note_left(place)
            job.place = None
            return
        if isinstance(place, str):
            if take_from_lot(self, self.parked, place, job):
                drop_lot(self, self.parked, place)
        elif place is not None:
            self._index(job.status).remove(place, job.id)
        elif job.is_final:
            self._index(job.status).remove(self._time_of(job), job.id)
        if place is not None:
            job.place = None

    def _index(self, status: str) -> Any:
        index = self.indexes[status]
        check_sound(self, index)
        return index

    def park(self, job: Job) -> None:
        """Set a job aside until its task is registered, and not paused."""
        self._park(job, lot_of_task(job))

    def park_for_zone(self, job: Any) -> None:
        """Set a cron job aside until it comes to where its time zone is known."""
        self._park(job, lot_of_zone(job.timezone))

    def _park(self, job: Job, name: str) -> None:
        self.remove(job)
        put_in_lot(self, self.parked, name, job)
        job.place = name

    @staticmethod
    def _time_of(job: Job) -> float:
        # Always a float: an int as a place is a segment of the ready queue.
        if job.is_final:
            return tick(job.completed_at or job.created_at)
        return tick(job.created_at if job.due is None else job.due)

    def __len__(self) -> int:
        """The number of jobs that wait to be run now."""
        return self.count(QUEUED)

    def count(self, status: str) -> int:
        """Return the number of jobs that wait, or rest, with a status."""
        count = len(self.indexes[status])
        if status == QUEUED:
            count += len(self.ready)
        return count + sum(len(lot) for name, lot in self.parked.items() if is_lot_of(name, status))

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
        """Yield the jobs that may run now.

        Those that have waited for something (their time, their task) come first.  But they
        are no more than half of what is taken as long as there are others, and of one kind
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
        check_sound(self, self.ready, self.parked, self.paused, *self.indexes.values())
        if self.is_paused:
            return
        if memory is not None and memory.is_clock_back(now):
            self.recount(jobs, now)
        kinds = [
            self._parked_jobs(jobs, knows),
            *(self._due_jobs(jobs, status, now, start) for status in TIMED_STATUSES),
        ]
        waited = by_turns(turned(kinds, turn // 2 % len(kinds) / len(kinds)))
        ready = chain(self._given_back_jobs(jobs, now), self.ready.pull(jobs, start, memory))
        if limit == 1 and turn % 2:
            yield from islice(ready, 1)
        yield from islice(waited, (limit + 1) // 2)
        yield from islice(ready, limit)
        yield from chain(waited, ready)

    def _parked_jobs(self, jobs: JobTree, knows: Callable[[str], bool]) -> Iterator[Job]:
        for name in list(self.parked.keys()):
            if self._is_open(name, knows):
                yield from _standing(jobs, self.parked[name], math.inf, name)

    def _due_jobs(
        self, jobs: JobTree, status: str, now: float, start: float | None
    ) -> Iterator[Job]:
        return _standing(jobs, self.indexes[status], now, start=start or 0.0)

    def _given_back_jobs(self, jobs: JobTree, now: float) -> Iterator[Job]:
        for job in self._due_jobs(jobs, QUEUED, now, None):
            if job.due != job.created_at:
                return  # it waits for its next attempt
            yield job

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
        for status in TIMED_STATUSES:
            ahead = self.indexes[status].between(now + CLOCK_TOLERANCE_SECONDS, math.inf)
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
        for name, lot in self.parked.items():
            if self._is_open(name, knows) and any(load_usable(jobs, jobid) for _, jobid in lot):
                return True
        due = chain.from_iterable(_due(self.indexes[status], now) for status in TIMED_STATUSES)
        return any(
            (job := load_usable(jobs, jobid)) is not None
            and job.place == place
            and not self.is_held_back(job.task)
            for place, jobid in chain(due, self.ready)
        )

    def entry_of(self, job: Job) -> tuple[float, int]:
        """Return the entry of a final job in the index of its status."""
        return self._time_of(job), job.id

    def is_filed(self, job: Job) -> bool:
        """Say whether a final job is in the index of its status."""
        return self.entry_of(job) in self.indexes[job.status]

    def stands_by(self, job: Job) -> bool:
        """Say whether a waiting job is where its record says."""
        place = job.place
        if isinstance(place, str):
            return place in self.parked and (job.created_at, job.id) in self.parked[place]
        if isinstance(place, float):
            return (place, job.id) in self.indexes[job.status]
        return place is not None and (place, job.id) in self.ready

    def has_to_be_filed(self, job: Job) -> bool:
        """Say whether a job has ended a run, and `file` has not been called since."""
        if job.is_final:
            return not self.is_filed(job)
        return isinstance(job.place, float) and not self.stands_by(job)

    def next_due(self, after: float = -math.inf) -> float | None:
        """Return when the next waiting job is due, in seconds since the epoch.

        :param after: pass over what is due by then: who has looked for jobs at that time has
            found none of those to be had.
        """
        firsts = (self.indexes[status].first(after) for status in TIMED_STATUSES)
        return min((entry[0] for entry in firsts if entry is not None), default=None)


def _due(index: TimeIndex, now: float, start: float = 0.0) -> Iterator[tuple[float, int]]:
    """Yield the entries up to a time; they may be taken out under way.

    :param start: where to begin among the first `START_SIZE`, 0 to 1.
    """
    entries = index.between(-math.inf, now)
    if start:
        yield from turned(list(islice(entries, START_SIZE)), start)
    yield from entries


def _standing(
    jobs: JobTree,
    index: TimeIndex,
    now: float,
    place: str | None = None,
    start: float = 0.0,
) -> Iterator[Job]:
    """Yield the jobs that stand by their entries up to a time, and drop the other entries.

    Those of jobs that wait aside are left: they stand for jobs that wait.
    """
    for when, jobid in _due(index, now, start):
        job = load_usable(jobs, jobid)
        if job is not None and job.place == (when if place is None else place):
            yield job
        elif job is not None or jobid not in jobs:
            index.remove(when, jobid)
