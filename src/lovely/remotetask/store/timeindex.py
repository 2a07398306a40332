# SPDX-License-Identifier: ZPL-2.1
"""Where jobs wait for a time.

The entries lie in pages that merge, and those in nodes that do.  In a BTree of times, of somebody
who adds a job and a worker that takes the first one out of the same leaf only one could commit,
and one who splits a leaf collides with all who add beside it; so a task that adds a delayed job
would be run again because of others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, groupby
from typing import Any

from persistent import Persistent

from lovely.remotetask.base.ownership import check_sound, removed, wrote
from lovely.remotetask.base.shelf import Shelf, grow, way
from lovely.remotetask.store.index import EntryIndex, EntryPage, entry_of, parts_of

#: How long a time the entries of a page span, in seconds.
PAGE_SECONDS = 16

#: Many jobs may be due in the same span: they are divided among pages, by so many of the highest
#: bits of their ids, so that each who adds has pages of its own, and of the lowest.
HIGH_BITS = LOW_BITS = 4
PAGE_COUNT = 1 << HIGH_BITS + LOW_BITS

#: How the keys of the pages are divided in the tree, by how many of their bits are left.
_SHIFTS = (22, 16, 10, 0)


class TimeIndex(EntryIndex):
    """Ids of waiting jobs in the order of a time.

    Stored: ``pages`` `Shelf`: the root of a tree that branches by the bits of the pages' keys, in
    steps of `_SHIFTS`; its leaves are `EntryPage`.  The change of the ``size`` tells waiting
    workers that there is something new.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pages = Shelf()

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return self.between(-math.inf, math.inf)

    def __contains__(self, entry: tuple[float, int]) -> bool:
        nodes = self._nodes(_key(*entry))
        return len(nodes) > len(_SHIFTS) and entry_of(*entry) in nodes[-1]

    def insert(self, when: float, jobid: int) -> None:
        """File a job; nothing happens if it is there already."""
        check_sound(self, self.pages, self.size)
        page = grow(self.pages, _key(when, jobid), _SHIFTS, EntryPage)
        if page.put(entry_of(when, jobid)):
            wrote(self, page)
            self.size.change(1)

    def _nodes(self, key: int) -> list[Any]:
        """Return the nodes on the way to a page, as far as they are there, and the page."""
        check_sound(self, self.pages, self.size)
        return way(self.pages, key, _SHIFTS)

    def remove(self, when: float, jobid: int) -> None:
        """Take a job out; nothing happens if it is not there."""
        key, entry = _key(when, jobid), entry_of(when, jobid)
        nodes = self._nodes(key)
        page = nodes[-1]
        if len(nodes) > len(_SHIFTS) and entry in page:
            page.take(entry)
            wrote(self, page)
            self.size.change(-1)
            if not page.entries:
                self._sweep(nodes, key)

    def _sweep(self, nodes: list[Any], key: int) -> None:
        """Take out what is empty and earlier than a page, but for the pages beside it."""
        for node, shift in zip(nodes, _SHIFTS[:-1], strict=False):
            for number, child in list(node.entries.items()):
                if number < key >> shift and _is_empty(child):
                    node.take(number)
                    wrote(self, node)
                    self._close(child)

    def _close(self, node: Any) -> None:
        for child in node.entries.values() if isinstance(node, Shelf) else ():
            self._close(child)
        node.close()
        wrote(self, node)
        removed(self, node)

    def close(self) -> None:
        """Let nothing be put in any more: the index, which is empty, is going to be dropped."""
        check_sound(self, self.pages)
        self._close(self.pages)

    def between(
        self, after: float, until: float, backwards: bool = False
    ) -> Iterator[tuple[float, int]]:
        """Yield the entries that are later than a time, and not later than another.

        They may be taken out under way.

        :param backwards: from the last one on.
        """
        check_sound(self, self.pages)
        first, last = _key(after, 0), _key(until, -1)
        for pages in _spans(self.pages, _SHIFTS, first, last, backwards):
            check_sound(self, *pages)
            together = chain.from_iterable(page.entries for page in pages)
            entries = sorted(together, reverse=backwards)
            yield from (
                (when, jobid) for when, jobid in map(parts_of, entries) if after < when <= until
            )

    def first(self, after: float = -math.inf) -> tuple[float, int] | None:
        """Return the first entry that is later than a time."""
        return next(self.between(after, math.inf), None)

    @property
    def signal(self) -> Persistent:
        """The object whose change tells that jobs came or went."""
        return self.size


def _key(when: float, jobid: int) -> int:
    """Return the key of the page of an entry; the pages of one span follow each other."""
    span = int(max(0.0, min(when, 1e15)) // PAGE_SECONDS)
    high = (jobid >> 31 - HIGH_BITS) % (1 << HIGH_BITS)
    return span * PAGE_COUNT + (high << LOW_BITS) + jobid % (1 << LOW_BITS)


def _is_empty(node: Any) -> bool:
    if isinstance(node, EntryPage):
        return not node.entries
    check_sound(node, *node.entries.values())
    return all(map(_is_empty, node.entries.values()))


def _spans(
    node: Shelf, shifts: tuple[int, ...], first: int, last: int, backwards: bool = False
) -> Iterator[list[EntryPage]]:
    """Yield the pages with keys from one to another, those of a span together."""
    shift, *rest = shifts
    count = 1 if shift else PAGE_COUNT
    within = (key for key in node.entries if first >> shift <= key <= last >> shift)
    keys = sorted(within, reverse=backwards)
    for _, together in groupby(keys, lambda key: key // count):
        if node.entries is None:  # taken out under way
            return
        children = [node.entries[key] for key in together if key in node.entries]
        if not rest:
            yield children
            continue
        check_sound(node, *children)
        for child in children:
            yield from _spans(child, tuple(rest), first, last, backwards)
