# SPDX-License-Identifier: ZPL-2.1
"""All jobs of a service, by id."""

from __future__ import annotations

import random
import time
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from typing import Any

from persistent import Persistent
from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import check_sound, removed, wrote
from lovely.remotetask.base.shelf import Shelf, grow, way
from lovely.remotetask.job import Job

#: Job ids lie in 1..MAX_JOB_ID.
MAX_JOB_ID = 2**31 - 1

#: Into so many parts job ids are divided, by their highest bits.
LANES = 16
_LANE_SHIFT = 27

#: How the ids are divided further in the `JobTree`, by how many of their bits are left.  Each
#: new job writes the page of its 16 ids, and each page the node above.
_SHIFTS = (22, 16, 10, 4)
_PAGE_SHIFT = _SHIFTS[-1]

#: The last page of a run of ids stays, even if it is empty, for so long after the last job.
FRESH_SECONDS = 5.0


def lane_of(jobid: int) -> int:
    """Return the lane of a job, of `LANES`: who adds jobs in different ones shares nothing."""
    return jobid >> _LANE_SHIFT


class JobKeys(KeysView[int]):
    """The ids of a `JobTree`.  Classes of their own, for the declarations in configure.zcml."""


class JobValues(ValuesView["Job"]):
    """The jobs of a `JobTree`."""


class JobItems(ItemsView[int, "Job"]):
    """The (id, job) pairs of a `JobTree`."""


class JobTree(Persistent, MutableMapping[int, "Job"]):
    """Job id -> job.

    Stored: ``lanes`` tuple of `Shelf`, by `lane_of`: the upper nodes of trees that branch by the
    bits of the id, in steps of `_SHIFTS`.  The lowest nodes, the *pages*, have the ids as keys.

    No BTree, of which each leaf that is split or emptied collides with all who add elsewhere
    below the same node.  Here nodes are only put in and taken out.
    """

    def __init__(self) -> None:
        self.lanes = tuple(Shelf() for _ in range(LANES))

    def __getitem__(self, jobid: int) -> Job:
        job = self.get(jobid)
        if job is None:
            raise KeyError(jobid)
        found: Job = job
        return found

    def get(self, jobid: int, default: Any = None) -> Any:
        """Return a job, or the default.

        :raises StrayObject: it no longer belongs to the database.
        """
        lanes = self.lanes
        try:
            lane = lanes[jobid >> _LANE_SHIFT]
        except Exception:  # no id at all, and whatever its `>>` raises
            return default
        page = self._page(lane, jobid)
        job = None if page is None else page.entries.get(jobid)
        if job is None:
            return default
        if job._p_jar is None:
            check_sound(self, job)
        return job

    def get_many(self, jobids: Iterable[int]) -> list[Job | None]:
        """Return jobs, or None in the place of those that are not there.

        :raises StrayObject: one no longer belongs to the database.
        """
        jobs: list[Job | None] = []
        last = -1
        entries: dict[int, Job] = {}
        for jobid in jobids:
            if jobid >> _PAGE_SHIFT != last:  # jobs that came together lie together
                last = jobid >> _PAGE_SHIFT
                page = self._page(self.lanes[lane_of(jobid)], jobid)
                entries = {} if page is None else page.entries
            job = entries.get(jobid)
            if job is not None and job._p_jar is None:
                check_sound(self, job)
            jobs.append(job)
        return jobs

    def _page(self, lane: Shelf, jobid: int) -> Shelf | None:
        """Return the page for an id of a lane; None if there is none, or a record is missing."""
        node: Any = lane
        try:
            for shift in _SHIFTS:
                if node._p_jar is None:
                    check_sound(self, node)
                node = node.entries.get(jobid >> shift)
                if node is None:
                    return None
            if node._p_jar is None:
                check_sound(self, node)
            node._p_activate()
        except POSKeyError:  # its jobs must not stop others
            return None
        page: Shelf = node
        return page

    def free_ids(self, count: int, first: int | None) -> list[int]:
        """Return ids for new jobs, in runs, so that they fall into the same page and lane.

        :param first: where to begin; None is anywhere.
        """
        if count == 1 and first is not None and first <= MAX_JOB_ID and self.get(first) is None:
            return [first]  # as it is nearly always
        jobids: list[int] = []
        while len(jobids) < count:
            if first is None or first > MAX_JOB_ID:
                first = random.randrange(1, MAX_JOB_ID + 1)
            run = range(first, min(first + count - len(jobids), MAX_JOB_ID + 1))
            there = self.get_many(run)
            free = next((n for n, job in enumerate(there) if job is not None), len(run))
            jobids += run[:free]
            first = run.stop if free == len(run) else None
        return jobids

    def __setitem__(self, jobid: int, job: Job) -> None:
        page = self._page_to_write(jobid)
        page.put(jobid, job)
        wrote(self, job, page)

    def add(self, jobs: Mapping[int, Job]) -> None:
        """Put jobs in, by id."""
        last = -1
        written: list[Any] = [*jobs.values()]
        page: Any = None
        for jobid, job in jobs.items():
            if jobid >> _PAGE_SHIFT != last:
                last = jobid >> _PAGE_SHIFT
                page = self._page_to_write(jobid)
                written.append(page)
            page.put(jobid, job)
        wrote(self, *written)

    def _page_to_write(self, jobid: int) -> Any:
        lane = self.lanes[lane_of(jobid)]
        page = self._page(lane, jobid)
        return grow(lane, jobid, _SHIFTS, Shelf) if page is None else page

    def _lane(self, jobid: int) -> Shelf:
        lane = self.lanes[lane_of(jobid)]
        check_sound(self, lane)
        return lane

    def __delitem__(self, jobid: int) -> None:
        nodes = way(self._lane(jobid), jobid, _SHIFTS)
        if len(nodes) <= len(_SHIFTS):
            raise KeyError(jobid)
        job = nodes[-1].entries[jobid]
        nodes[-1].take(jobid)
        wrote(self, nodes[-1])
        removed(self, job)
        # Somebody may be adding just behind a new job.  (A record that is not loaded may be
        # lost, or unreadable; it can be taken out all the same.)
        is_passed = (jobid >> _PAGE_SHIFT) + 1 in nodes[-2].entries
        is_new = job._p_changed is not None and time.time() - job.created_at < FRESH_SECONDS
        if is_new and not is_passed:
            return
        for node, parent, shift in zip(nodes[:0:-1], nodes[-2::-1], _SHIFTS[::-1], strict=True):
            if node.entries:
                return
            node.close()
            parent.take(jobid >> shift)
            wrote(self, parent)
            removed(self, node)

    def __contains__(self, jobid: object) -> bool:
        return self.get(jobid) is not None  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        return self.ids_from(0)

    def _pages(self, first: int = 0) -> Iterator[Shelf]:
        """Yield the pages that can hold ids from one on, in order, but for missing ones."""
        nodes: Iterable[Shelf] = self.lanes[lane_of(first) :]
        for shift in _SHIFTS:
            nodes = _children(nodes, first >> shift)
        return iter(nodes)

    def __len__(self) -> int:
        """The number of jobs; it takes a walk over all pages."""
        return sum(len(page.entries) for page in self._pages())

    def __bool__(self) -> bool:
        return any(page.entries for page in self._pages())

    def keys(self) -> JobKeys:
        """Return the ids, in order."""
        return JobKeys(self)

    def values(self) -> JobValues:
        """Return the jobs, by id."""
        return JobValues(self)

    def items(self) -> JobItems:
        """Return the (id, job) pairs, by id."""
        return JobItems(self)

    def ids_from(self, first: int) -> Iterator[int]:
        """Yield the ids from one on, in order."""
        for page in self._pages(first):
            yield from sorted(jobid for jobid in page.entries if jobid >= first)


def _children(nodes: Iterable[Shelf], first: int) -> Iterator[Shelf]:
    for node in nodes:
        for key, child in sorted(node.entries.items()):
            if key < first:
                continue
            try:
                child._p_activate()
            except POSKeyError:
                continue
            yield child


def fetch(jar: Any, jobs: Sequence[Job | None]) -> None:
    """Ask for the records of jobs that are not in memory, all at once.

    A server can send many records together; asked for one by one, each is a round trip.  Storages
    without a server do not even look at what they are given.

    :param jar: the connection; None if there is none.
    """
    if jar is not None and len(jobs) > 1:
        jar.prefetch(job for job in jobs if job is not None and job._p_changed is None)


def holds_new(tree: Any, job: Job) -> bool:
    """Say whether a tree holds a job that was put in by the current transaction.

    Nothing is loaded: what leads to such a job was written, and so it is there.

    :param tree: a `JobTree`, which may be a ghost, or None.
    """
    node: Any = tree
    entries: Any = getattr(node, "__dict__", {}).get("lanes")
    try:
        for key in (lane_of(job.id), *(job.id >> shift for shift in _SHIFTS), job.id):
            node = entries[key]
            entries = node.__dict__.get("entries")
    except (LookupError, TypeError):
        return False
    return node is job
