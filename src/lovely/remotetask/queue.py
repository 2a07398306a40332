# SPDX-License-Identifier: ZPL-2.1
"""Where jobs wait: the ready line, and the indexes by time.

All of it is only an index of the jobs: the record of a job decides.  An entry that its
job no longer stands by (``job.place`` names another place, or the job is gone) is stale;
it is passed over, and dropped at the next opportunity.

The ready line is made of small ``zc.queue`` buckets of job ids, its *segments*, because a
``zc.queue.Queue`` is written whole by each put, and a ``CompositeQueue`` can lose a put
that meets the removal of an emptied bucket.  Five rules keep it fast and safe:

- Only the last segment is put into; whoever finds it full opens a new one.
- A job enters the line once in its life; when it comes back it waits in a time index.
- Claiming a job writes no segment, so that it collides with nobody's put: the job's
  record makes the entry stale.  A process remembers which entries it has seen stale.
- A segment is closed when it is not the last and all its entries are stale.  That writes
  the segment, with a mark that conflict resolution refuses: of a put into a segment and
  its closing only one can commit.
- Closed segments are taken out of the tree many at a time, because that collides with
  whoever opens a segment: taking the first key out of a BTree's bucket cannot be merged
  with anything else that happens in the bucket.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from BTrees.Length import Length
from BTrees.LLBTree import LLTreeSet
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent
from zc.queue import PersistentQueue as BucketQueue
from ZODB.POSException import StateLoadError

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

job_log = logging.getLogger("remotetask.job")

#: How many ids a segment of the ready line holds.
SEGMENT_SIZE = 32

#: Workers in several processes choose among this many segments at the head.
HEAD_SEGMENTS = 8

#: No more segments than this are closed in one transaction.
MAX_CLOSED = 50

#: So many closed segments are taken out of the tree together.
SWEEP_SIZE = 32

#: How long a process remembers which entries of the ready line it has seen stale.
MEMORY_SECONDS = 60.0

#: How many due or parked jobs are looked at in one transaction.
PULL_SIZE = 200

#: How many waiting jobs are looked at when the clock seems to have been put back.
RECOUNT_LIMIT = 1000

#: Statuses whose jobs can wait for a time.
TIMED_STATUSES = (DELAYED, CRONJOB, QUEUED)

_INDEXED_STATUSES = (*TIMED_STATUSES, STARTLATER, COMPLETED, ERROR, CANCELLED)

Entry = TypeVar("Entry")

_NEW = b"\0" * 8  # the serial of an object that was never committed


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
        if self._entries.insert((when, jobid)):
            self._size.change(1)

    def remove(self, when: float, jobid: int) -> None:
        """Take a job out; nothing happens if it is not there."""
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


class ReadyLine(Persistent):
    """The ids of the jobs that are ready, in the order they were added.

    Stored: ``_segments`` LOBTree, key -> ``zc.queue`` bucket of job ids, where keys grow;
    ``_closed`` LLTreeSet of the keys of segments that are used up, but still there;
    ``_added`` `BTrees.Length`: how many jobs ever came, and the signal for waiting
    workers; ``_left`` `BTrees.Length`: how many of them no longer wait.
    """

    def __init__(self) -> None:
        # Never empty: two who begin to fill an empty BTree collide.
        self._segments = LOBTree({0: BucketQueue()})
        self._closed = LLTreeSet()
        self._added = Length()
        self._left = Length()

    def __len__(self) -> int:
        return max(0, self._count)

    @property
    def _count(self) -> int:
        return int(self._added.value - self._left.value)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (segment key, job id), stale entries too."""
        for key, segment in self._segments.items():
            for jobid in segment:
                yield key, jobid

    @property
    def signal(self) -> Persistent:
        """The object whose change tells that a job came."""
        return self._added

    def put(self, jobid: int) -> int:
        """Append a job; return the key of its segment."""
        key, segment = self._open_segment()
        segment.put(jobid)
        self._v_put = (key, jobid)
        self._added.change(1)
        return key

    def note_left(self, count: int = 1) -> None:
        """Count jobs that no longer wait in the line."""
        if count:
            self._left.change(count)

    def __contains__(self, entry: tuple[int, int]) -> bool:
        key, jobid = entry
        return key in self._segments and jobid in tuple(self._segments[key])

    def miscounted(self, jobs: Mapping[int, Job]) -> int:
        """Return by how much the size is too large; it takes a walk over all entries."""
        waiting = sum(
            (job := load(jobs, jobid)) is not None and job.place == key for key, jobid in self
        )
        return self._count - waiting

    def correct(self, difference: int) -> None:
        """Make the size smaller."""
        self._left.change(difference)

    def _open_segment(self) -> tuple[int, Any]:
        key = self._segments.maxKey()
        segment = self._segments[key]
        if len(segment) >= SEGMENT_SIZE or self._has_lost_a_put():
            return self._new_segment(key)
        return key, segment

    def _has_lost_a_put(self) -> bool:
        # The puts of two producers into one segment merge, but only where the storage can
        # resolve conflicts of zc.queue.  Where it cannot, repeating the transaction comes
        # here again: a segment of one's own, *behind* the others, keeps the order and
        # needs no resolution but that of a BTree.
        entry: tuple[int, int] | None = getattr(self, "_v_put", None)
        if entry is None or entry in self:
            return False
        return entry[0] in self._segments and entry[0] not in self._closed

    def _new_segment(self, last: int) -> tuple[int, Any]:
        # Keys grow with time; the low bits are chance, so that two producers that open a
        # segment at the same moment open two.
        key = max(last + 1, int(time.time() * 1e6) << 10) + random.getrandbits(10)
        segment = self._segments[key] = BucketQueue()
        return key, segment

    def pull(self, jobs: Mapping[int, Job], start: float | None = None) -> Iterator[Job]:
        """Yield the waiting jobs, and close the segments that hold none any more.

        :param jobs: all jobs by id.
        :param start: where to begin among the first segments, 0 to 1; None goes strictly in
            order.
        """
        known = self._stale_entries()
        closed = 0
        self._v_more = False
        for key, offset in self._keys(start):
            segment = self._segments[key]
            stale = known.setdefault(key, set())
            is_used_up = True
            jobids = _turned([jobid for jobid in segment if jobid not in stale], offset)
            self._prefetch(jobs, jobids)
            for jobid in jobids:
                job = load(jobs, jobid)
                if job is None and jobid in jobs:  # it may be read again one day
                    is_used_up = False
                elif job is not None and job.place == key:
                    is_used_up = False
                    yield job
                elif job is None or _is_committed(job):
                    stale.add(jobid)
            if is_used_up and key != self._segments.maxKey():
                known.pop(key, None)
                self._close(key, segment)
                closed += 1
                if closed == MAX_CLOSED:
                    self._v_more = True
                    return

    def _prefetch(self, jobs: Mapping[int, Job], jobids: list[int]) -> None:
        # A server can send many records at once; asked for one by one, each is a round trip.
        # Storages without a server do not even look at what they are given.
        if len(jobids) > 1 and self._p_jar is not None:
            found = (jobs.get(jobid) for jobid in jobids)
            self._p_jar.prefetch(j for j in found if j is not None and j._p_changed is None)

    def _close(self, key: int, segment: Any) -> None:
        segment.closed = True
        segment._data = ()
        self._closed.insert(key)
        if len(self._closed) >= SWEEP_SIZE:
            for closed in self._closed:
                del self._segments[closed]
            self._closed.clear()

    def _stale_entries(self) -> dict[int, set[int]]:
        """The entries that this connection has seen stale: segment key -> job ids.

        Forgotten from time to time: undoing a transaction may bring one back.
        """
        now = time.monotonic()
        if now - getattr(self, "_v_stale_since", -MEMORY_SECONDS) >= MEMORY_SECONDS:
            self._v_stale_since = now
            self._v_stale: dict[int, set[int]] = {}
        return self._v_stale

    def note_stale(self, entries: Iterable[tuple[int, int]]) -> None:
        """Remember stale entries, (segment key, job id), that are committed.

        It spares `pull` to load each of these jobs once more.
        """
        known = self._stale_entries()
        for key, jobid in entries:
            known.setdefault(key, set()).add(jobid)

    def _keys(self, start: float | None) -> Iterator[tuple[int, float]]:
        """Yield the segments, and where to begin in each, 0 to 1."""
        keys = self._open_keys()
        if start is not None:
            first = list(islice(keys, HEAD_SEGMENTS))
            if not first:
                return
            begin, offset = divmod(start * len(first), 1.0)
            chosen = first[int(begin)]
            if getattr(self, "_v_chosen", None) in first:  # go on where there is more
                chosen = self._v_chosen or chosen
            self._v_chosen: int | None = chosen
            yield chosen, offset
            yield from ((key, 0.0) for key in _turned(first, start) if key != chosen)
        yield from ((key, 0.0) for key in keys)

    def _open_keys(self) -> Iterator[int]:
        key = 0
        while True:  # the tree changes under way: step by key, never by iterator
            try:
                key = self._segments.minKey(key)
            except ValueError:  # there are no more
                return
            if key not in self._closed:
                yield key
            key += 1

    @property
    def has_more(self) -> bool:
        """Whether the last `pull` ended although it had not looked at all segments."""
        return bool(getattr(self, "_v_more", False))

    def choose_anew(self) -> None:
        """Start the next pull at another segment: somebody else works on this one."""
        self._v_chosen = None


def _turned(entries: list[Entry], start: float) -> list[Entry]:
    """Return a list that begins elsewhere, and goes on around its end."""
    first = int(start * len(entries))
    return [*entries[first:], *entries[:first]]


def load(jobs: Mapping[int, Job], jobid: int) -> Job | None:
    """Return a job, or None when it is gone or its record cannot be read.

    A record that cannot be read, because code it needs has changed, must not keep others
    from being run.  It is tried again from time to time.
    """
    job = jobs.get(jobid)
    if job is None or job._p_changed is not None:
        return job
    key = (id(job._p_jar.db()), job._p_oid)
    if _unreadable.get(key, 0.0) > time.monotonic():
        return None
    try:
        job._p_activate()
    except StateLoadError:  # what other people's __setstate__ raises
        _unreadable[key] = time.monotonic() + MEMORY_SECONDS
        job_log.exception("job %s: its record cannot be read, it is passed over", jobid)
        return None
    return job


#: Records that could not be read: (id of the database, oid) -> when to try again.
_unreadable: dict[tuple[int, bytes], float] = {}


def _is_committed(job: Job) -> bool:
    # What an uncommitted change made stale may come back when it is aborted.
    return job._p_changed is False and job._p_serial != _NEW


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
        if job.status == QUEUED and job.due is None:
            job.place = self.line.put(job.id)
        else:
            when = self._time_of(job)
            self.indexes[job.status].insert(when, job.id)
            if not job.is_final:
                job.place = when

    def remove(self, job: Job) -> None:
        """Take a job out of its place, before its status changes."""
        place = job.place
        if job.is_in_line:
            self.line.note_left()
        elif isinstance(place, str):
            self._unpark(job)
        elif place is not None:
            self.indexes[job.status].remove(place, job.id)
        elif job.is_final:
            self.indexes[job.status].remove(self._time_of(job), job.id)
        if place is not None:
            job.place = None

    def park(self, job: Job) -> None:
        """Set a job aside until its task is registered."""
        self.remove(job)
        lot = self.parked.get(job.task)
        if lot is None:
            lot = self.parked[job.task] = TimeIndex()
        lot.insert(job.created_at, job.id)
        job.place = job.task

    def _unpark(self, job: Job) -> None:
        lot = self.parked.get(job.task)
        if lot is not None:
            lot.remove(job.created_at, job.id)
            if not len(lot):
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
        size = PULL_SIZE + more
        for name in list(self.parked.keys()):
            if knows(name):
                lot = self.parked[name]
                yield from _standing(jobs, lot, lot.oldest(size), name)
        self._recount(jobs, now)
        for status in TIMED_STATUSES:
            index = self.indexes[status]
            entries = index.until(now, size)
            yield from _standing(jobs, index, _turned(entries, start or 0.0))
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
