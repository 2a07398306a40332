# SPDX-License-Identifier: ZPL-2.1
"""Where the jobs of one priority wait, and in which order they are had."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import chain, islice
from operator import attrgetter
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

from lovely.remotetask.base.ownership import check_sound
from lovely.remotetask.interfaces import CRONJOB, DELAYED, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.lots import is_lot_of
from lovely.remotetask.store.memory import Memory
from lovely.remotetask.store.names import hash_of
from lovely.remotetask.store.quarantine import load_usable
from lovely.remotetask.store.ready import ReadyQueue, by_turns, turned
from lovely.remotetask.store.timeindex import TimeIndex
from lovely.remotetask.store.tree import LANES, JobTree

#: Workers beside each other begin at different ones of so many due jobs.
START_SIZE = 200

#: Statuses whose jobs can wait for a time.
TIMED_STATUSES = (DELAYED, CRONJOB, QUEUED)


class Level(Persistent):
    """All places where jobs of one priority wait, but for those that wait aside at a gate.

    Stored: ``ready`` `ReadyQueue`; ``in_order`` None or a `ReadyQueue` for the jobs with locks,
    whose locks tell their lanes; ``indexes`` dict of status -> `TimeIndex`, keyed by the time a
    waiting job is due; ``parked`` OOBTree of lot -> `TimeIndex`, keyed by creation: jobs whose
    task was not registered where they were to be claimed, in lots by status and task name, and
    jobs whose time zone was not known there, by zone.
    """

    in_order: Any = None

    def __init__(self) -> None:
        self.ready = ReadyQueue()
        self.indexes: dict[str, Any] = {status: TimeIndex() for status in TIMED_STATUSES}
        self.parked = OOBTree()

    @property
    def queues(self) -> list[ReadyQueue]:
        """The ready queues."""
        return [self.ready] if self.in_order is None else [self.ready, self.in_order]

    @property
    def signals(self) -> list[Persistent]:
        """The objects whose change tells a waiting worker that there may be work."""
        timed = (self.indexes[status].signal for status in TIMED_STATUSES)
        return [*chain.from_iterable(queue.signals for queue in self.queues), *timed]

    def queue_of(self, job: Job) -> ReadyQueue | None:
        """Return the ready queue in which a job may stand, if it is there."""
        return self.ready if job.lock is None else self.in_order

    def put(self, jobs: list[Job]) -> None:
        """Put jobs, all of which have the same lock or none, into a ready queue."""
        jobids = [job.id for job in jobs]
        lock = jobs[0].lock
        if lock is None:
            keys = self.ready.put(jobids)
        else:
            if self.in_order is None:
                self.in_order = ReadyQueue()
            keys = self.in_order.put(jobids, hash_of(lock) % LANES)
        for job, key in zip(jobs, keys, strict=True):
            job.place = key

    def check_sound(self) -> None:
        """Check that the places belong to their database.

        :raises StrayObject: one was disowned.
        """
        check_sound(self, *self.queues, self.parked, *self.indexes.values())

    def pull_here(
        self,
        jobs: JobTree,
        now: float,
        is_open: Callable[[str], bool],
        start: float | None,
        limit: int,
        turn: int,
        memory: Memory | None,
        others: Iterator[Job],
    ) -> Iterator[Job]:
        """Yield the jobs of this priority that may run now; see `JobQueue.pull`.

        :param is_open: says whether what is parked in a lot can run.
        :param others: more jobs that have waited.
        """
        kinds = [
            chain(self._parked_jobs(jobs, is_open), others),
            *(self._due_jobs(jobs, status, now, start) for status in TIMED_STATUSES),
        ]
        waited = by_turns(turned(kinds, turn // 2 % len(kinds) / len(kinds)))
        ready = chain(self._given_back_jobs(jobs, now), self._ready_jobs(jobs, start, memory))
        if limit == 1 and turn % 2:
            yield from islice(ready, 1)
        yield from islice(waited, (limit + 1) // 2)
        yield from islice(ready, limit)
        yield from chain(waited, ready)

    def _ready_jobs(
        self, jobs: JobTree, start: float | None, memory: Memory | None
    ) -> Iterator[Job]:
        ready = self.ready.pull(jobs, start, memory)
        if self.in_order is None:
            return ready
        beside = None if memory is None else memory.part("in order")
        in_order = self.in_order.pull(jobs, start, beside, lane_by_lane=True)
        if start is None:
            return heapq.merge(ready, in_order, key=attrgetter("created_at"))
        return by_turns([in_order, ready])

    def _parked_jobs(self, jobs: JobTree, is_open: Callable[[str], bool]) -> Iterator[Job]:
        for name in list(self.parked.keys()):
            if is_open(name):
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

    def waiting_here(
        self, jobs: JobTree, now: float, is_open: Callable[[str], bool]
    ) -> Iterator[Job]:
        """Yield jobs that are ready or due, and those that are parked where it is open.

        Nothing is changed.
        """
        for name, lot in self.parked.items():
            if is_open(name):
                yield from (job for _, jobid in lot if (job := load_usable(jobs, jobid)))
        due = chain.from_iterable(_due(self.indexes[status], now) for status in TIMED_STATUSES)
        for place, jobid in chain(due, *self.queues):
            job = load_usable(jobs, jobid)
            if job is not None and job.place == place:
                yield job

    def next_due_here(self, after: float) -> float:
        """Return when the next job of this priority is due; inf if none waits for a time."""
        firsts = (self.indexes[status].first(after) for status in TIMED_STATUSES)
        return min((entry[0] for entry in firsts if entry is not None), default=math.inf)


class Levels(Level):
    """The level of the jobs without a priority, which has those of the priorities.

    Stored beyond `Level`: ``levels`` dict of priority -> `Level`, when one is first used.
    """

    levels: dict[int, Level] = {}  # noqa: RUF012 (never changed in place)

    @property
    def signals(self) -> list[Persistent]:
        """The objects whose change tells a waiting worker that there may be work.

        The levels are among them: they are written when there is another place to wait.
        """
        levels = self.levels.values()
        of_levels = chain.from_iterable((level, *level.signals) for level in levels)
        return [*super().signals, self, *of_levels]

    @property
    def serials(self) -> tuple[bytes, ...]:
        """What changes when `signals` do."""
        return self._p_serial, *(level._p_serial for level in self.levels.values())

    @property
    def priorities(self) -> list[int]:
        """The priorities that were ever used, the highest first."""
        return sorted((*self.levels, 0), reverse=True) if self.levels else [0]

    def level(self, priority: int) -> Level:
        """Return the level of a priority; it is made when it is first used."""
        if not priority:
            return self
        level = self.levels.get(priority)
        if level is None:
            level = Level()
            self.levels = {**self.levels, priority: level}
        elif level._p_jar is None:
            check_sound(self, level)
        return level

    def all_levels(self) -> list[Level]:
        """Return the levels, the highest first."""
        return [self.level(priority) for priority in self.priorities]

    def index_of(self, job: Job) -> Any:
        """Return the index for the status of a job."""
        is_of_level = job.priority and job.status in TIMED_STATUSES
        owner = self.level(job.priority) if is_of_level else self
        index = owner.indexes[job.status]
        check_sound(owner, index)
        return index

    def all_indexes(self) -> Iterator[tuple[str, Any]]:
        """Yield the indexes of all levels, with the statuses that they are of."""
        for level in self.all_levels():
            yield from level.indexes.items()

    def next_due(self, after: float = -math.inf) -> float | None:
        """Return when the next waiting job is due, in seconds since the epoch.

        :param after: pass over what is due by then: who has looked for jobs at that time has
            found none of those to be had.
        """
        due = min(level.next_due_here(after) for level in self.all_levels())
        return None if due == math.inf else due

    def awaits_attempt(self, now: float) -> bool:
        """Say whether a job that has begun waits for another attempt, later than `now`."""
        return any(level.indexes[QUEUED].first(now) for level in self.all_levels())

    def count_to_run(self, status: str) -> int:
        """Return the number of jobs with a status that wait or rest, but for those aside."""
        if status not in TIMED_STATUSES:
            return len(self.indexes[status])
        count = 0
        for level in self.all_levels():
            count += len(level.indexes[status])
            count += sum(len(lot) for name, lot in level.parked.items() if is_lot_of(name, status))
            if status == QUEUED:
                count += sum(map(len, level.queues))
        return count


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
