# SPDX-License-Identifier: ZPL-2.1
"""The ready line: the ids of the jobs that may run at once, in the order they were added.

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
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from BTrees.Length import Length
from BTrees.LLBTree import LLTreeSet
from BTrees.LOBTree import LOBTree
from persistent import Persistent
from zc.queue import PersistentQueue as BucketQueue
from ZODB.POSException import StateLoadError

from lovely.remotetask.job import Job
from lovely.remotetask.witness import check_path, check_sound, removed, wrote

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

Entry = TypeVar("Entry")

_NEW = b"\0" * 8  # the serial of an object that was never committed


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
        check_sound(self, self._segments, self._added, segment)
        if getattr(segment, "closed", False):  # only a stray leaf of the tree still leads there
            check_path(self._segments, key)
        segment.put(jobid)
        wrote(self, segment)
        self._v_put = (key, jobid)
        self._added.change(1)
        return key

    def note_left(self, count: int = 1) -> None:
        """Count jobs that no longer wait in the line."""
        if count:
            check_sound(self, self._left)
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
        check_sound(self, self._segments)
        check_path(self._segments, key)
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
            check_sound(self, self._segments, self._closed, segment)
            stale = known.setdefault(key, set())
            is_used_up = True
            jobids = turned([jobid for jobid in segment if jobid not in stale], offset)
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
        check_path(self._closed, key)
        self._closed.insert(key)
        wrote(self, segment)
        if len(self._closed) >= SWEEP_SIZE:
            for closed in self._closed:
                check_path(self._segments, closed)
                removed(self, self._segments[closed])
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
            yield from ((key, 0.0) for key in turned(first, start) if key != chosen)
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


def turned(entries: list[Entry], start: float) -> list[Entry]:
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
