# SPDX-License-Identifier: ZPL-2.1
"""Where jobs wait for a time.

The entries lie in pages that merge.  In a BTree of times, of somebody who adds a job and a
worker that takes the first one out of the same leaf only one could commit; so a task that adds
a delayed job would be run again because of others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain, islice

from BTrees.Length import Length
from BTrees.LOBTree import LOBTree
from persistent import Persistent

from lovely.remotetask.ended import EndedPage, entry_of, parts_of
from lovely.remotetask.witness import check_path, check_sound, removed, wrote

#: How long a time the entries of a page span, in seconds.
PAGE_SECONDS = 16

#: Many jobs may be due in the same span: they are divided among so many pages, by their ids.
PAGE_COUNT = 16

#: So many empty pages are taken out of the tree together.
SWEEP_SIZE = 64


class TimeIndex(Persistent):
    """Ids of waiting jobs in the order of a time.

    Stored: ``pages`` LOBTree: the number of a span and of a part of the ids -> `EndedPage`;
    ``size`` `BTrees.Length`, whose change tells waiting workers that there is something new.
    """

    def __init__(self) -> None:
        # Never empty: two who begin to fill an empty BTree collide.
        self.pages = LOBTree({0: EndedPage()})
        self.size = Length()

    def __len__(self) -> int:
        return max(0, int(self.size.value))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return self.between(-math.inf, math.inf)

    def __contains__(self, entry: tuple[float, int]) -> bool:
        page = self.pages.get(_key(*entry))
        return page is not None and entry_of(*entry) in page

    def insert(self, when: float, jobid: int) -> None:
        """File a job; nothing happens if it is there already."""
        key, entry = _key(when, jobid), entry_of(when, jobid)
        page = self._page(key)
        if page is None:
            check_path(self.pages, key)
            page = self.pages[key] = EndedPage()
        if entry not in page:
            page.put(entry)
            wrote(self, page)
            self.size.change(1)

    def _page(self, key: int) -> EndedPage | None:
        check_sound(self, self.pages, self.size)
        page: EndedPage | None = self.pages.get(key)
        if page is not None:
            check_sound(self, page)
        return page

    def remove(self, when: float, jobid: int) -> None:
        """Take a job out; nothing happens if it is not there."""
        key, entry = _key(when, jobid), entry_of(when, jobid)
        page = self._page(key)
        if page is not None and entry in page:
            page.take(entry)
            wrote(self, page)
            self.size.change(-1)
            if not page.entries:
                self._sweep(key)

    def _sweep(self, last: int) -> None:
        # Some of the first pages may stay for long: those of jobs that nobody can run.
        first = islice(self.pages.items(1, last), 2 * SWEEP_SIZE)
        empty = [(key, page) for key, page in first if not page.entries]
        if len(empty) >= SWEEP_SIZE:
            for key, page in empty:
                page.drop()
                wrote(self, page)
                check_path(self.pages, key)
                del self.pages[key]
                removed(self, page)

    def between(self, after: float, until: float) -> Iterator[tuple[float, int]]:
        """Yield the entries that are later than a time, and not later than another.

        They may be taken out under way.
        """
        check_sound(self, self.pages)
        key = self._next_key(_key(after, 0))
        while key is not None and key <= _key(until, PAGE_COUNT - 1):
            end = key - key % PAGE_COUNT + PAGE_COUNT
            check_path(self.pages, key)
            pages = list(self.pages.values(key, end, excludemax=True))
            check_sound(self, *pages)
            entries = sorted(chain.from_iterable(page.entries for page in pages))
            yield from (
                (when, jobid) for when, jobid in map(parts_of, entries) if after < when <= until
            )
            key = self._next_key(end)

    def _next_key(self, key: int) -> int | None:
        try:
            found: int = self.pages.minKey(key)
        except ValueError:  # there are no more
            return None
        return found

    def first(self, after: float = -math.inf) -> tuple[float, int] | None:
        """Return the first entry that is later than a time."""
        return next(self.between(after, math.inf), None)

    @property
    def signal(self) -> Persistent:
        """The object whose change tells that jobs came or went."""
        return self.size

    def miscounted(self, jobs: Mapping[int, object]) -> int:
        """Return by how much the size is too large; it takes a walk over all entries."""
        return int(self.size.value) - sum(1 for _ in self)

    def correct(self, difference: int) -> None:
        """Make the size smaller."""
        self.size.change(-difference)


def _key(when: float, jobid: int) -> int:
    """Return the key of the page of an entry; the pages of one span follow each other."""
    span = int(max(0.0, min(when, 1e15)) // PAGE_SECONDS)
    return span * PAGE_COUNT + jobid % PAGE_COUNT
