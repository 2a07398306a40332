# SPDX-License-Identifier: ZPL-2.1
"""Where jobs wait: the ready line, and the indexes by time.

All of it is only an index of the jobs: the record of a job decides.  An entry that its
job no longer stands by (``job.place`` names another place, or the job is gone) is stale;
it is passed over, and dropped at the next opportunity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from BTrees.Length import Length
from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent

from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.line import ReadyLine, load, turned
from lovely.remotetask.witness import check_path, check_sound, wrote

#: How many due or parked jobs are looked at in one transaction.
PULL_SIZE = 200

#: How many waiting jobs are looked at when the clock seems to have been put back.
RECOUNT_LIMIT = 1000

#: Statuses whose jobs can wait for a time.
TIMED_STATUSES = (DELAYED, CRONJOB, QUEUED)

_INDEXED_STATUSES = (*TIMED_STATUSES, STARTLATER, COMPLETED, ERROR, CANCELLED)


class TimeIndex(Persistent):
    """Job ids in the order of a time.

    Stored: ``_entries`` OOTreeSet of (seconds since the epoch, job id); ``_size``
    `BTrees.Length`, whose change tells waiting workers that there is something new.
    """

    def __init__(self) -> None:
        self._entries = OOTreeSet()
        self._size = Length()

    def __len__(self) -> int:
        return max(0, int(self._size.value))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return iter(self._entries)

    def __contains__(self, entry: tuple[float, int]) -> bool:
        return bool(entry in self._entries)

    def insert(self, when: float, jobid: int) -> None:
        """File a job; nothing happens if it is there already."""
        check_sound(self, self._entries, self._size)
        check_path(self._entries, (when, jobid))
        if self._entries.insert((when, jobid)):
            self._size.change(1)

    def remove(self, when: float, jobid: int) -> None:
        """Take a job out; nothing happens if it is not there."""
        check_sound(self, self._entries, self._size)
        check_path(self._entries, (when, jobid))
        if (when, jobid) in self._entries:
            self._entries.remove((when, jobid))
            self._size.change(-1)

    def until(self, now: float, count: int) -> list[tuple[float, int]]:
        """Return the first `count` entries up to a time."""
        return list(islice(self._entries.keys(max=(now, 2**31)), count))

    def oldest(self, count: int | None) -> list[tuple[float, int]]:
        """Return the first `count` entries; None is all."""
        return list(islice(self._entries, count))

    def first(self) -> tuple[float, int] | None:
        """Return the first entry."""
        return next(iter(self._entries), None)

    def latest(self, count: int, before: tuple[float, int] | None = None) -> Iterator[Any]:
        """Yield entries from the last one backwards, or from below `before`."""
        for _ in range(count):
            try:
                if before is None:
                    entry = self._entries.maxKey()
                else:
                    entry = self._entries.maxKey((before[0], before[1] - 1))
            except ValueError:  # there is none
                return
            yield entry
            before = entry

    @property
    def signal(self) -> Persistent:
        """The object whose change tells that jobs came or went."""
        return self._size

    def miscounted(self, jobs: Mapping[int, Job]) -> int:
        """Return by how much the size is too large; it takes a walk over all entries."""
        return int(self._size.value) - len(self._entries)

    def correct(self, difference: int) -> None:
        """Make the size smaller."""
        self._size.change(-difference)


class JobQueue(Persistent):
    """All places where jobs wait or rest, by status.

    Stored: ``line`` `ReadyLine`; ``indexes`` dict of status -> `TimeIndex`, keyed by the
    time a waiting job is due, a job to be started later was created, a final job ended;
    ``parked`` OOBTree of task name -> `TimeIndex`, keyed by creation: queued jobs whose
    task was not registered where they were to be claimed.

    ``job.place`` says where a waiting job is filed: an int is the key of its segment in
    the line, a float its time in the index of its status, a str the task it is parked
    under.
    """

    def __init__(self) -> None:
        self.line = ReadyLine()
        self.indexes = {status: TimeIndex() for status in _INDEXED_STATUSES}
        self.parked = OOBTree()

    @property
    def signals(self) -> list[Persistent]:
        """The objects whose change tells a waiting worker that there may be work."""
        return [self.line.signal, *(self.indexes[status].signal for status in TIMED_STATUSES)]

    def file(self, job: Job) -> None:
        """Put a job where its status and its due time say."""
        wrote(self, job)
        if job.status == QUEUED and job.due is None:
            job.place = self.line.put(job.id)
        else:
            when = self._time_of(job)
            self._index(job.status).insert(when, job.id)
            if not job.is_final:
                job.place = when

    def remove(self, job: Job) -> None:
        """Take a job out of its place, before its status changes."""
        wrote(self, job)
        place = job.place
        if job.is_in_line:
            self.line.note_left()
        elif isinstance(place, str):
            self._unpark(job)
        elif place is not None:
            self._index(job.status).remove(place, job.id)
        elif job.is_final:
            self._index(job.status).remove(self._time_of(job), job.id)
        if place is not None:
            job.place = None

    def _index(self, status: str) -> TimeIndex:
        index = self.indexes[status]
        check_sound(self, index)
        return index

    def park(self, job: Job) -> None:
        """Set a job aside until its task is registered."""
        self.remove(job)
        check_sound(self, self.parked)
        check_path(self.parked, job.task)
        lot = self.parked.get(job.task)
        if lot is None:
            lot = self.parked[job.task] = TimeIndex()
        lot.insert(job.created_at, job.id)
        job.place = job.task

    def _unpark(self, job: Job) -> None:
        lot = self.parked.get(job.task)
        if lot is not None:
            check_sound(self, self.parked, lot)
            lot.remove(job.created_at, job.id)
            if not len(lot):
                check_path(self.parked, job.task)
                del self.parked[job.task]

    @staticmethod
    def _time_of(job: Job) -> float:
        # Always a float: an int as a place is a segment of the line.
        if job.is_final:
            return float(job.completed_at or job.created_at)
        return float(job.created_at if job.due is None else job.due)

    def __len__(self) -> int:
        """The number of jobs that wait to be run now."""
        return len(self.line) + len(self.indexes[QUEUED]) + sum(map(len, self.parked.values()))

    def __bool__(self) -> bool:
        return True

    def pull(
        self,
        jobs: Mapping[int, Job],
        now: float,
        start: float | None = None,
        knows: Callable[[str], bool] = lambda name: True,
        more: int = 0,
    ) -> Iterator[Job]:
        """Yield the jobs that may run now: parked ones, due ones, then the line.

        The caller takes a job by starting it, parks it, or leaves it.

        :param start: where to begin among the first that are ready, 0 to 1, so that workers
            beside each other keep apart; None keeps the order strictly.
        :param knows: whether a task is registered here.
        :param more: look at so many due jobs more than usual: the caller will leave those.
        """
        check_sound(self, self.line, self.parked, *self.indexes.values())
        size = PULL_SIZE + more
        for name in list(self.parked.keys()):
            if knows(name):
                lot = self.parked[name]
                yield from _standing(jobs, lot, lot.oldest(size), name)
        self._recount(jobs, now)
        for status in TIMED_STATUSES:
            index = self.indexes[status]
            entries = index.until(now, size)
            yield from _standing(jobs, index, turned(entries, start or 0.0))
        yield from self.line.pull(jobs, start)

    def _recount(self, jobs: Mapping[int, Job], now: float) -> None:
        """Count schedules anew that a clock far ahead of `now` has set.

        Looked for only where that can be: at the first pull of a connection, and when
        the clock has gone back.
        """
        seen = getattr(self, "_v_clock", None)
        self._v_clock = now
        if seen is not None and now >= seen:
            return
        for status in (DELAYED, CRONJOB):
            for when, jobid in list(islice(self.indexes[status], RECOUNT_LIMIT)):
                job = load(jobs, jobid)
                if isinstance(job, CronJob) and job.place == when and job.is_ahead_of(now):
                    self.reschedule(job, now)

    def reschedule(self, job: CronJob, now: float) -> None:
        """Count a waiting job's schedule from `now`."""
        due = job.count_from(now)
        self._v_clock = max(now, getattr(self, "_v_clock", now))
        self.remove(job)
        job.wait(due)
        self.file(job)

    def has_waiting(
        self, jobs: Mapping[int, Job], now: float, knows: Callable[[str], bool]
    ) -> bool:
        """Say whether a job is ready; nothing is changed.  See `pull`."""
        for name, lot in self.parked.items():
            if len(lot) and knows(name):
                return True
        for status in TIMED_STATUSES:
            for when, jobid in self.indexes[status].until(now, PULL_SIZE):
                job = load(jobs, jobid)
                if job is not None and job.place == when:
                    return True
        return any(
            (job := load(jobs, jobid)) is not None and job.place == key for key, jobid in self.line
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
        return place is not None and (place, job.id) in self.line

    def next_due(self) -> float | None:
        """Return when the next waiting job is due, in seconds since the epoch."""
        firsts = (self.indexes[status].first() for status in TIMED_STATUSES)
        return min((entry[0] for entry in firsts if entry is not None), default=None)


def _standing(
    jobs: Mapping[int, Job],
    index: TimeIndex,
    entries: list[tuple[float, int]],
    place: str | None = None,
) -> Iterator[Job]:
    """Yield the jobs that stand by their entries, and drop the other entries."""
    for when, jobid in entries:
        job = load(jobs, jobid)
        if job is not None and job.place == (when if place is None else place):
            yield job
        else:
            index.remove(when, jobid)
