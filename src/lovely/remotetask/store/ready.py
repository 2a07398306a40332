# SPDX-License-Identifier: ZPL-2.1
"""The ready queue: the ids of the jobs that may run at once, in the order they were added.

The ready queue is made of small ``zc.queue`` buckets of job ids, its *segments*, because a
``zc.queue.Queue`` is written whole by each put, and a ``CompositeQueue`` can lose a put
that meets the removal of an emptied bucket.  Six rules keep it fast and safe:

- It has *lanes*, which share nothing.  The id of a job says its lane, and ids come in runs, so
  that who adds jobs stays in a lane of its own; see `TaskService`.
- Only the last segment of a lane is put into; whoever finds it full opens a new one.
- A job enters the ready queue once in its life; when it comes back it waits in a time index.
- Claiming a job writes no segment, so that it collides with nobody's put: the job's
  record makes the entry stale.  A worker remembers which entries it has seen stale.
- A segment is closed when it is not the last and all its entries are stale.  That writes
  the segment, with a mark that conflict resolution refuses: of a put into a segment and
  its closing only one can commit.
- Segments stand in *generations*.  Closing writes no generation; one that is not the last is
  closed, and taken out, when all its segments are closed.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar

from BTrees.Length import Length
from persistent import Persistent
from zc.queue import PersistentQueue as BucketQueue
from ZODB.utils import z64

from lovely.remotetask.base.ownership import check_sound, removed, wrote
from lovely.remotetask.base.shelf import Shelf
from lovely.remotetask.job import Job
from lovely.remotetask.store.memory import Memory
from lovely.remotetask.store.quarantine import load_many, why_unreadable, why_unusable
from lovely.remotetask.store.tree import LANES, JobTree, fetch, lane_of

#: How many ids a segment of the ready queue holds, and one that many ids are put into at once.
SEGMENT_SIZE = 32
BULK_SIZE = 128

#: How many segments a generation holds.
GENERATION_SIZE = 64

#: Workers in several processes choose among this many segments at the head.
HEAD_SEGMENTS = 8


#: So many records are asked for together.
PREFETCH_SIZE = 32


Entry = TypeVar("Entry")


class Place(NamedTuple):
    """A segment that is not closed, and where it is."""

    key: int
    segment: Any
    is_last: bool


class Lane(Persistent):
    """One part of the ready queue.

    Stored: ``number`` int; ``generations`` `Shelf`: its first key -> `Shelf` of key -> segment, a
    ``zc.queue`` bucket of job ids; keys grow with time, and end with the number of the lane;
    ``added`` `BTrees.Length`: how many jobs ever came, and the signal for waiting workers;
    ``left`` `BTrees.Length`: how many of them no longer wait.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.generations = Shelf()
        self.added = Length()
        self.left = Length()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield all segments by key, closed ones too."""
        for first in sorted(self.generations.entries):
            yield from sorted(self.generations.entries[first].entries.items())

    def get(self, key: int) -> Any:
        """Return a segment, or None."""
        generations = self.generations.entries
        # Not always in the last generation that begins before it: of two that put at the same
        # moment one may have opened a generation, and the other one a segment.
        for first in sorted((first for first in generations if first <= key), reverse=True):
            if key in generations[first].entries:
                return generations[first].entries[key]
        return None

    def _last(self) -> tuple[Shelf | None, int]:
        """Return the last generation, and the key of its last segment."""
        generations = self.generations
        entries = generations.entries
        if not entries:
            return None, 0
        generation = entries[max(entries)]
        if generation._p_jar is None or generations._p_jar is None:
            check_sound(self, generations, generation)
        return generation, max(generation.entries)

    def put(self, jobids: list[int]) -> list[int]:
        """Append jobs; return the keys of their segments."""
        generation, key = self._last()
        segment = None if generation is None else generation.entries[key]
        if segment is not None and segment._p_jar is None:
            check_sound(self, segment)
        if segment is not None and (
            len(segment) + len(jobids) > SEGMENT_SIZE
            or is_closed(segment)  # the last one again, since who opened the next one was undone
        ):
            segment = None
        keys: list[int] = []
        # Many jobs get segments of their own, which nobody else writes.
        size = SEGMENT_SIZE if len(jobids) <= SEGMENT_SIZE else BULK_SIZE
        for first in range(0, len(jobids), size):
            if segment is None:
                generation, key, segment = self._open_segment(generation, key)
            chunk = jobids[first : first + size]
            for jobid in chunk:
                segment.put(jobid)
            wrote(self, segment)
            keys += [key] * len(chunk)
            segment = None
        added = self.added
        if added._p_jar is None:
            check_sound(self, added)
        added.change(len(jobids))
        return keys

    def _open_segment(self, generation: Shelf | None, last: int) -> tuple[Shelf, int, Any]:
        # Keys grow with time; behind it is chance, so that two that open a segment at the same
        # moment open two.  What is opened after another is later by more than a whole microsecond,
        # whatever the chance: lists of jobs tell no shorter times apart.
        tick = max(last // 1024 + 2, int(time.time() * 1e6))
        key = tick * 1024 + random.getrandbits(10) // LANES * LANES + self.number
        if generation is None or len(generation.entries) >= GENERATION_SIZE:
            generation = Shelf()
            self.generations.put(key, generation)
            wrote(self, self.generations)
        segment = BucketQueue()
        generation.put(key, segment)
        wrote(self, generation)
        return generation, key, segment

    def places(self, memory: Memory) -> Iterator[Place]:
        """Yield the segments in which somebody may wait, and drop generations that are used up."""
        check_sound(self, self.added)
        self.added._p_activate()
        if memory.idle.get(self.number) == self.added._p_serial:
            return
        check_sound(self, self.generations, *self.generations.entries.values())
        is_idle = True
        _, last = self._last()
        for first in sorted(self.generations.entries):
            is_used_up = True
            generation = self.generations.entries[first].entries
            for key in sorted(generation):
                if key in memory.closed:
                    continue
                segment = generation[key]
                if segment._p_jar is None:
                    check_sound(self, segment)
                if is_closed(segment):
                    if _is_committed(segment):
                        memory.closed.add(key)
                    else:
                        is_idle = False
                    continue
                if key != last or len(memory.stale.get(key, ())) < len(segment):
                    is_idle = False
                    yield Place(key, segment, key == last)
                is_used_up &= is_closed(segment)  # now
            if is_used_up and last not in generation:
                self._drop(first, memory)
        if is_idle and _is_committed(self.added):
            memory.idle[self.number] = self.added._p_serial

    def _drop(self, first: int, memory: Memory) -> None:
        generation = self.generations.entries[first]
        memory.forget(generation.entries)
        gone = generation.entries.values()
        generation.close()
        self.generations.take(first)
        wrote(self, self.generations)
        removed(self, generation, *gone)

    def waiting(self, place: Place, offset: float, jobs: JobTree, memory: Memory) -> Iterator[Job]:
        """Yield the waiting jobs of a segment, and close it if there are none any more."""
        key, segment, is_last = place
        stale = memory.stale.setdefault(key, set())
        is_used_up = key not in memory.quarantined
        passed = memory.passed
        jobids = turned([j for j in segment if j not in stale and j not in passed], offset)
        for jobid, job in self._fetched(jobs, jobids):
            if job is None:
                stale.add(jobid)
            elif why_unusable(job, jobid):  # it may be used again one day
                is_used_up = False
                stale.add(jobid)
                memory.quarantined.add(key)
            elif job.place == key:
                is_used_up = False
                yield job
            elif _is_committed(job):
                stale.add(jobid)
        if is_used_up and not is_last and not self._has_waiting(place, set(jobids), jobs, stale):
            segment.closed = True
            segment._data = ()
            wrote(self, segment)
            memory.room -= 1

    def _has_waiting(self, place: Place, seen: set[int], jobs: JobTree, stale: set[int]) -> bool:
        """Say whether a job waits here that was not looked at: it was passed over, or was stale.

        What is stale becomes valid by an undo; nobody would find it in a closed segment.
        """
        others = [jobid for jobid in place.segment if jobid not in seen]
        for jobid, job in self._fetched(jobs, others):
            if job is not None and not why_unreadable(job, jobid) and job.place == place.key:
                stale.discard(jobid)
                return True
        return False

    def _fetched(self, jobs: JobTree, jobids: list[int]) -> Iterator[tuple[int, Job | None]]:
        """Yield jobs with their ids, or None in the place of those that are gone."""
        for first in range(0, len(jobids), PREFETCH_SIZE):
            some = jobids[first : first + PREFETCH_SIZE]
            found = jobs.get_many(some)
            fetch(self._p_jar, found)
            yield from zip(some, found, strict=True)


class ReadyQueue(Persistent):
    """The ids of the jobs that are ready, in the order they were added.

    Stored: ``lanes`` tuple of `Lane`, by number.
    """

    def __init__(self) -> None:
        self.lanes = tuple(Lane(number) for number in range(LANES))

    def __len__(self) -> int:
        return max(0, self._count)

    @property
    def _count(self) -> int:
        return int(sum(lane.added.value - lane.left.value for lane in self.lanes))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (segment key, job id), stale entries too."""
        for key, segment in heapq.merge(*self.lanes, key=itemgetter(0)):
            for jobid in segment:
                yield key, jobid

    @property
    def signals(self) -> list[Persistent]:
        """The objects of which one changes when a job comes."""
        return [lane.added for lane in self.lanes]

    def put(self, jobids: list[int], lane_number: int | None = None) -> list[int]:
        """Append jobs; return the keys of their segments.

        :param lane_number: the lane for all of them; None leaves it to their ids.
        """
        if lane_number is None and len(jobids) == 1:
            lane_number = lane_of(jobids[0])
        if lane_number is not None:
            return self._sound_lane(lane_number).put(jobids)
        keys: list[int] = []
        for number, run in groupby(jobids, lane_of):
            keys += self._sound_lane(number).put(list(run))
        return keys

    def _sound_lane(self, number: int) -> Lane:
        lane = self.lanes[number]
        if lane._p_jar is None:
            check_sound(self, lane)
        return lane

    def note_left(self, key: int) -> None:
        """Count a job that no longer waits in a segment."""
        lane = self._sound_lane(key % LANES)
        if lane.left._p_jar is None:
            check_sound(lane, lane.left)
        lane.left.change(1)

    def __contains__(self, entry: tuple[int, int]) -> bool:
        key, jobid = entry
        segment = self.lanes[key % LANES].get(key)
        return segment is not None and not is_closed(segment) and jobid in tuple(segment)

    def miscounted(self, jobs: JobTree) -> int:
        """Return by how much the size is too large; it takes a walk over all entries."""
        waiting = unknown = 0
        for lane in self.lanes:
            for key, segment in lane:
                jobids = tuple(segment)
                for jobid, job in zip(jobids, load_many(jobs, jobids), strict=True):
                    if job is not None:
                        waiting += job.place == key
                    elif jobid in jobs:  # nobody can say here where it waits
                        unknown += 1
        too_many = self._count - waiting
        return max(0, too_many - unknown) if too_many > 0 else too_many

    def correct(self, difference: int) -> None:
        """Make the size smaller."""
        self.lanes[0].left.change(difference)

    def pull(
        self,
        jobs: JobTree,
        start: float | None = None,
        memory: Memory | None = None,
        lane_by_lane: bool = False,
    ) -> Iterator[Job]:
        """Yield the waiting jobs, and close the segments that hold none any more.

        :param jobs: all jobs by id.
        :param start: where to begin among the first segments, 0 to 1; None goes strictly in
            order, which between lanes is that of the time.
        :param memory: what was seen before, by this worker.
        :param lane_by_lane: begin among the lanes instead, and go strictly in order in each.
        """
        memory = Memory(math.inf) if memory is None else memory
        memory.room = memory.max_closed
        memory.has_more = False
        check_sound(self, *self.lanes)
        if start is None:
            lanes = (
                self._waiting(((place, 0.0) for place in lane.places(memory)), jobs, memory)
                for lane in self.lanes
            )
            yield from heapq.merge(*lanes, key=attrgetter("created_at"))
        elif lane_by_lane:
            for lane in turned(list(self.lanes), start):
                places = ((place, 0.0) for place in lane.places(memory))
                yield from self._waiting(places, jobs, memory)
        else:
            yield from self._waiting(self._places(start, memory), jobs, memory)

    def _waiting(
        self, places: Iterable[tuple[Place, float]], jobs: JobTree, memory: Memory
    ) -> Iterator[Job]:
        for place, offset in places:
            if memory.room <= 0:
                memory.has_more = True
                return
            yield from self.lanes[place.key % LANES].waiting(place, offset, jobs, memory)

    def _places(self, start: float, memory: Memory) -> Iterator[tuple[Place, float]]:
        """Yield the segments of all lanes, and where to begin in each, 0 to 1."""
        places = heapq.merge(*(lane.places(memory) for lane in self.lanes))
        first = list(islice(places, HEAD_SEGMENTS))
        if first:
            begin, offset = divmod(start * len(first), 1.0)
            chosen = first[int(begin)]
            for place in first:
                if place.key == memory.chosen:  # go on where there is more
                    chosen = place
            memory.chosen = chosen.key
            yield chosen, offset
            yield from ((place, 0.0) for place in turned(first, start) if place is not chosen)
        yield from ((place, 0.0) for place in places)


def is_closed(segment: Any) -> bool:
    """Say whether a segment is used up, and nothing can be put into it any more."""
    return getattr(segment, "closed", False)


def turned(entries: list[Entry], start: float) -> list[Entry]:
    """Return a list that begins elsewhere, and goes on around its end."""
    first = int(start * len(entries))
    return [*entries[first:], *entries[:first]]


def by_turns(streams: list[Iterator[Entry]]) -> Iterator[Entry]:
    """Yield from one after the other, again and again, until all are at their end."""
    while streams:
        for stream in list(streams):
            job = next(stream, None)
            if job is None:
                streams.remove(stream)
            else:
                yield job


def _is_committed(stored: Persistent) -> bool:
    # What an uncommitted change made stale may come back when it is aborted.
    return stored._p_changed is False and stored._p_serial != z64
