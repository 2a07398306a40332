# SPDX-License-Identifier: ZPL-2.1
"""The index of the jobs that have ended in one way, by the time of their end.

Workers file here many jobs at a time, and others remove old ones.  So that none of them is in
another one's way, there are *lanes*, and in them *pages* of plain numbers, which merge.  The id
says the lane: of jobs that were added one after the other, which one worker claims together, some
go into the same lane; and two who file the same job meet.  Who removes jobs writes pages only;
the tree of the pages is written by who opens one, and by the pruning of the workers, which drop
empty pages.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

from BTrees.OOBTree import OOBTree

from lovely.remotetask.base.ownership import check_path, check_sound, removed, wrote
from lovely.remotetask.store.index import EntryIndex, EntryPage, entry_of, parts_of

#: So many lanes there are, and so many ids in a row share one.
ENDED_LANES = 4
ENDED_RUN = 64

#: A page with so many jobs is full: those that end later begin another one.  (Those of a clock
#: that was put back are earlier; a page with twice as many is cut in two.)
ENDED_PAGE_SIZE = 64

#: So many empty pages are dropped together.
SWEEP_SIZE = 32


class EndedIndex(EntryIndex):
    """Job ids in the order of the time at which the jobs ended.

    Stored: ``lanes`` tuple of OOBTree of the first entry that a page can have -> `EntryPage`.
    """

    def __init__(self) -> None:
        super().__init__()
        # Never empty: two who begin to fill an empty BTree collide.
        self.lanes = tuple(OOBTree({0: EntryPage()}) for _ in range(ENDED_LANES))

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return self.earliest()

    def _place(self, when: float, jobid: int) -> tuple[EntryPage, int]:
        """Return the page for an entry, and the entry."""
        entry = entry_of(when, jobid)
        lane = self.lanes[_lane_number(jobid)]
        page = lane[_key(lane, entry)]
        check_sound(self, self.size, lane, page)
        return page, entry

    def __contains__(self, when_and_id: tuple[float, int]) -> bool:
        page, entry = self._place(*when_and_id)
        return entry in page

    def insert(self, when: float, jobid: int) -> None:
        """File a job; nothing happens if it is there already."""
        self.insert_many([(when, jobid)])

    def insert_many(self, ended: Iterable[tuple[float, int]]) -> None:
        """File jobs, (time, id); nothing happens for those that are there already."""
        runs: dict[int, list[int]] = {}
        for when, jobid in ended:
            runs.setdefault(_lane_number(jobid), []).append(entry_of(when, jobid))
        added = 0
        for number, run in runs.items():
            check_sound(self, self.lanes[number])
            added += _put(self.lanes[number], sorted(run))
        if added:
            check_sound(self, self.size)
            self.size.change(added)

    def remove(self, when: float, jobid: int) -> None:
        """Take a job out; nothing happens if it is not there."""
        page, entry = self._place(when, jobid)
        if entry in page:
            page.take(entry)
            wrote(self, page)
            self.size.change(-1)

    def oldest(self, count: int | None) -> list[tuple[float, int]]:
        """Return the first `count` entries; None is all."""
        return list(islice(self, count))

    def earliest(self, after: tuple[float, int] | None = None) -> Iterator[tuple[float, int]]:
        """Yield entries from the first one on, or from above `after`."""
        begin = -1 if after is None else entry_of(*after)
        runs = (_upwards(lane, begin) for lane in self.lanes)
        return map(parts_of, heapq.merge(*runs))

    def latest(
        self, count: int | None, before: tuple[float, int] | None = None
    ) -> Iterator[tuple[float, int]]:
        """Yield entries from the last one backwards, or from below `before`.

        :param count: how many; None is all.
        """
        end = None if before is None else entry_of(*before)
        runs = (_downwards(lane, end) for lane in self.lanes)
        return map(parts_of, islice(heapq.merge(*runs, reverse=True), count))

    def counts(self, edges: Sequence[float], most_pages: int) -> tuple[list[int], bool]:
        """Return how many jobs have ended between each two of some times, and if that is exact.

        :param edges: seconds since the epoch, in order.
        :param most_pages: so many pages are read at the most; of more, some stand for all.
        """
        bounds = [entry_of(edge, 0) for edge in edges]
        pages = [
            (lane, key)
            for lane in self.lanes
            for key in lane.keys(_key(lane, bounds[0]), bounds[-1], excludemax=True)
        ]
        weight = max(1, -(-len(pages) // most_pages))
        counted = [0] * (len(edges) - 1)
        for lane, key in pages[::weight]:
            entries = lane[key].entries
            places = [bisect_left(entries, bound) for bound in bounds]
            for number, (first, last) in enumerate(pairwise(places)):
                counted[number] += (last - first) * weight
        return counted, weight == 1

    def sweep(self) -> None:
        """Drop empty pages at the old end, if there are many."""
        for lane in self.lanes:
            _sweep(lane)


def _lane_number(jobid: int) -> int:
    return jobid // ENDED_RUN % ENDED_LANES


def _put(lane: Any, entries: list[int]) -> int:
    """Put entries, in order, into their pages; return how many are new."""
    added = 0
    page: EntryPage | None = None
    end: float = -math.inf  # where the next page begins
    for entry in entries:
        if page is None or entry >= end or len(page.entries) >= ENDED_PAGE_SIZE:
            page = lane[_key(lane, entry)]
            check_sound(lane, page)
            if entry in page:
                continue
            if len(page.entries) >= ENDED_PAGE_SIZE:
                page = _page_with_room(lane, page, entry)
            end = next(iter(lane.keys(entry, excludemin=True)), math.inf)
            if not page._p_changed:  # else it has been said
                wrote(lane, page)
        added += page.put(entry)
    return added


def _key(lane: Any, entry: int) -> int:
    """Return the key of the page in which an entry is, if it is in this lane."""
    key: int = lane.maxKey(entry)
    return key


def _page_with_room(lane: Any, page: EntryPage, entry: int) -> EntryPage:
    """Return the page for a new entry, which is not a full one."""
    is_latest = entry > page.entries[-1]
    # Where it was cut before, the next page begins just behind it.
    if len(page.entries) < 2 * ENDED_PAGE_SIZE and (page.cuts or not is_latest):
        return page
    key = entry if is_latest else page.entries[ENDED_PAGE_SIZE]
    _sweep(lane)  # before there is an empty one
    check_path(lane, key)
    later = lane[key] = page.cut(key)
    wrote(lane, page, later)
    return page if entry < key else later


def _upwards(lane: Any, begin: int) -> Iterator[int]:
    for page in lane.values(_key(lane, max(begin, 0))):
        yield from page.entries[bisect_right(page.entries, begin) :]


def _downwards(lane: Any, end: int | None) -> Iterator[int]:
    key = lane.maxKey() if end is None else _key(lane, end)
    while True:
        entries = lane[key].entries
        yield from reversed(entries if end is None else entries[: bisect_left(entries, end)])
        try:
            key = lane.maxKey(key - 1)
        except ValueError:  # that was the first page
            return


def _sweep(lane: Any) -> None:
    # The first page stays, for what is older than the others; so does the last one.
    first = list(islice(lane.items(1), SWEEP_SIZE + 1))
    if len(first) > SWEEP_SIZE and not any(page.entries for _, page in first[:-1]):
        for key, page in first[:-1]:
            page.close()
            wrote(lane, page)
            check_path(lane, key)
            del lane[key]
            removed(lane, page)
