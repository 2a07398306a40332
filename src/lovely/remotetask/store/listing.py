# SPDX-License-Identifier: ZPL-2.1
"""Pages of jobs, in the order of a time, by the indexes that there are.

Each place where jobs wait or rest is a stream of entries, in order, which begins anywhere; a page
is the next part of what they are together.  A job's time is the one by which its place is ordered,
see `ITaskService.list`.  Entries that no job stands by are passed over, as elsewhere.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import attrgetter
from typing import Any, NamedTuple

from lovely.remotetask.errors import LAST_MOMENT
from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.gates import is_aside
from lovely.remotetask.store.index import entry_of, parts_of, tick
from lovely.remotetask.store.level import TIMED_STATUSES
from lovely.remotetask.store.lots import is_lot_of
from lovely.remotetask.store.quarantine import load_many
from lovely.remotetask.store.ready import PREFETCH_SIZE, is_closed
from lovely.remotetask.store.tree import MAX_JOB_ID, fetch

#: A page looks at no more entries than this, whatever they are of.
LOOK_SIZE = 1000

#: The bytes beyond which the record of a job is kept in memory no longer than it is looked at.
LARGE = 20_000

#: The keys of the ready queue's segments count so many in a second.
_KEYS_PER_SECOND = 1024 * 1e6

#: The next segment is opened later than this many seconds after what is before it.
_TICK_SECONDS = 2.0**-22

#: Characters of a cursor: more than the last moment takes.
MAX_CURSOR = 32

#: What stands in the place of a place for jobs that are held by a worker, and of a lot for those
#: that wait at a gate.
_HELD = object()
_ASIDE = object()


class Page(NamedTuple):
    """Some jobs of a list.

    :ivar jobs: the jobs, in order.
    :ivar next: where the next page begins, for `ITaskService.list`; None: this is the last one.
    """

    jobs: list[Job]
    next: str | None


class _Entry(NamedTuple):
    """What stands for a job in a list.

    :ivar order: its time and its id in one number.
    :ivar status: what the job's status is, if the entry is not stale.
    :ivar place: and where it is.
    """

    order: int
    status: str
    place: Any


class _Way(NamedTuple):
    """How a list is walked.

    :ivar begin: the order of the last entry that was seen; None begins at the end.
    :ivar backwards: from the latest to the earliest.
    """

    begin: int | None
    backwards: bool

    def is_ahead(self, order: int) -> bool:
        """Say whether an entry was not seen yet."""
        if self.begin is None:
            return True
        return order < self.begin if self.backwards else order > self.begin


def list_jobs(
    service: Any,
    statuses: Iterable[str],
    accepts: Callable[[Job], bool],
    backwards: bool,
    after: int | None,
    limit: int,
    end: int | None = None,
) -> Page:
    """Return the next jobs with some statuses; see `ITaskService.list`.

    :param accepts: says of a job whether it is wanted.
    :param after: what `cursor_of` has read; None begins at the end.
    :param end: the order at which the list ends, see `entry_of`; None lists all.
    """
    way = _Way(after, backwards)
    streams = _streams(service, set(statuses), way)
    entries = heapq.merge(*streams, key=attrgetter("order"), reverse=backwards)
    found: list[tuple[int, Job]] = []
    for looked, (order, job) in enumerate(_looked_at(service, entries, accepts, limit + 1), 1):
        if end is not None and (order < end if backwards else order > end):
            break
        if job is not None:
            if len(found) == limit:  # it begins the next page
                return _page(found, found[-1][0])
            found.append((order, job))
        if looked == LOOK_SIZE:
            return _page(found, order)
    return _page(found, None)


def _page(found: list[tuple[int, Job]], last: int | None) -> Page:
    return Page([job for _, job in found], None if last is None else f"{last:x}")


def _looked_at(
    service: Any, entries: Iterator[_Entry], accepts: Callable[[Job], bool], expected: int
) -> Iterator[tuple[int, Job | None]]:
    """Yield the order of each entry with its job, or None if it is not wanted.

    :param expected: how many are needed if all are wanted: no more are loaded at first.
    """
    size = min(expected, PREFETCH_SIZE)
    while chunk := list(islice(entries, size)):
        size = min(2 * size, PREFETCH_SIZE)
        jobs = _load(service, [parts_of(entry.order)[1] for entry in chunk])
        try:
            for entry, job in zip(chunk, jobs, strict=True):
                is_wanted = job is not None and _stands_by(service, job, entry) and accepts(job)
                yield entry.order, job if is_wanted else None
        finally:  # also when nobody wants more
            let_go(jobs)


def let_go(jobs: Iterable[Job | None]) -> None:
    """Forget what large records hold that were not changed; who asks for it loads them again.

    A list looks at many jobs, of which each may have an input of a megabyte.
    """
    for job in jobs:
        if job is not None and job._p_estimated_size > LARGE:
            job._p_deactivate()


def cursor_of(text: str) -> int | None:
    """Return what `Page.next` says; None if it is no such text."""
    try:
        order = int(text, 16)
    except ValueError:
        return None
    is_whole = order >= 0 and len(text) <= MAX_CURSOR and text == f"{order:x}"
    return order if is_whole else None


def _stands_by(service: Any, job: Any, entry: _Entry) -> bool:
    if job.status != entry.status or job.is_unwanted:
        return False
    if entry.place is _HELD:
        return True
    if entry.place is _ASIDE:
        return isinstance(job.place, str) and is_aside(job.place)
    return bool(entry.place == (service.queue.entry_of(job)[0] if job.is_final else job.place))


def _load(service: Any, jobids: list[int]) -> list[Job | None]:
    """Return jobs, or None for those that are gone or cannot be read here."""
    if len(jobids) > 1:
        fetch(service._p_jar, service.jobs.get_many(jobids))
    return load_many(service.jobs, jobids)


# -- the streams -----------------------------------------------------------------------------


def _streams(service: Any, statuses: set[str], way: _Way) -> Iterator[Iterator[_Entry]]:
    queue = service.queue
    for status in statuses - {PROCESSING}:
        levels = queue.all_levels() if status in TIMED_STATUSES else [queue]
        in_order = _ended if status in FINAL_STATUSES else _timed
        for level in levels:
            yield _entries(in_order(level.indexes[status], way), status, way)
            for name, lot in level.parked.items():
                if is_lot_of(name, status):
                    yield _entries(_timed(lot, way), status, way, name)
        if queue.gates is not None and status in TIMED_STATUSES:
            yield _entries(_timed(queue.gates.aside[status], way), status, way, _ASIDE)
    if QUEUED in statuses:
        lines = chain.from_iterable(level.queues for level in queue.all_levels())
        yield from (_ready(service, lane, way) for line in lines for lane in line.lanes)
    yield iter(_held(service, statuses, way))


def _entries(
    found: Iterator[tuple[float, int]], status: str, way: _Way, lot: Any = None
) -> Iterator[_Entry]:
    for when, jobid in found:
        order = entry_of(when, jobid)
        if way.is_ahead(order):
            yield _Entry(order, status, when if lot is None else lot)


def _ended(index: Any, way: _Way) -> Iterator[tuple[float, int]]:
    begin = None if way.begin is None else parts_of(way.begin)
    found: Iterator[tuple[float, int]]
    found = index.latest(None, begin) if way.backwards else index.earliest(begin)
    return found


def _timed(index: Any, way: _Way) -> Iterator[tuple[float, int]]:
    after, until = -math.inf, math.inf
    if way.begin is not None:
        when, _ = parts_of(way.begin)
        if way.backwards:
            until = when
        else:
            after = math.nextafter(when, -math.inf)
    found: Iterator[tuple[float, int]] = index.between(after, until, way.backwards)
    return found


def _held(service: Any, statuses: set[str], way: _Way) -> list[_Entry]:
    """Return entries of jobs that run, or whose runs have ended and which nobody has filed yet."""
    entries = []
    held = dict.fromkeys(jobid for worker in service.workers.values() for jobid in worker.held)
    for job in _load(service, list(held)):
        if job is None or job.status not in statuses:
            continue
        if job.status == PROCESSING:
            when = tick(job.started_at or job.created_at)
        elif service.queue.has_to_be_filed(job):
            when = service.queue.entry_of(job)[0]
        else:
            continue
        order = entry_of(when, job.id)
        if way.is_ahead(order):
            entries.append(_Entry(order, job.status, _HELD))
    return sorted(entries, key=attrgetter("order"), reverse=way.backwards)


def _ready(service: Any, lane: Any, way: _Way) -> Iterator[_Entry]:
    """Yield the entries of one lane of the ready queue.

    A segment holds jobs that came after it was opened and before the next one was.  A job counts
    with the time when it was added as far as that lies between.
    """
    for key, segment, opened, ended in _segments(lane, way):
        outermost = entry_of(opened, 0) if way.backwards else entry_of(ended, MAX_JOB_ID)
        if is_closed(segment) or not way.is_ahead(outermost):
            continue
        jobids = list(segment)
        found = []
        jobs = _load(service, jobids)
        for jobid, job in zip(jobids, jobs, strict=True):
            when = opened if job is None else min(max(job.created_at, opened), ended)
            order = entry_of(tick(when), jobid)
            if way.is_ahead(order):
                found.append(_Entry(order, QUEUED, key))
        let_go(jobs)
        yield from sorted(found, key=attrgetter("order"), reverse=way.backwards)


def _segments(lane: Any, way: _Way) -> Iterator[tuple[int, Any, float, float]]:
    """Yield segments of a lane: the key, the segment, when it and when the next one was opened."""
    following = LAST_MOMENT
    before: tuple[int, Any] | None = None
    for key, segment in _by_key(lane, way):
        opened = key / _KEYS_PER_SECOND
        if way.backwards:
            yield key, segment, opened, max(opened, following - _TICK_SECONDS)
            following = opened
        else:
            if before is not None:
                begun = before[0] / _KEYS_PER_SECOND
                yield *before, begun, max(begun, opened - _TICK_SECONDS)
            before = key, segment
    if before is not None:
        yield *before, before[0] / _KEYS_PER_SECOND, LAST_MOMENT


def _by_key(lane: Any, way: _Way) -> Iterator[tuple[int, Any]]:
    """Yield the segments of a lane by key, but for generations that were seen as a whole.

    The last segments of a generation may be later than the first ones of the next, see `Lane.get`.
    """
    generations = lane.generations.entries
    firsts = sorted(generations, reverse=way.backwards)
    if way.begin is not None:
        begin = parts_of(way.begin)[0] * _KEYS_PER_SECOND
        if way.backwards:
            firsts = [first for first in firsts if first <= begin + _KEYS_PER_SECOND]
        else:
            seen = sum(first < begin for first in firsts)
            firsts = firsts[max(0, seen - 2) :]
    pending: dict[int, Any] = {}
    for number, first in enumerate(firsts):
        following = firsts[number + 1] if number + 1 < len(firsts) else None
        if number == 0 or not way.backwards:
            pending.update(generations[first].entries)
        if way.backwards and following is not None:
            pending.update(generations[following].entries)
        for key in sorted(pending, reverse=way.backwards):
            if following is None or (key >= first if way.backwards else key < following):
                yield key, pending.pop(key)
