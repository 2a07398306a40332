# SPDX-License-Identifier: ZPL-2.1
"""What indexes by time are made of: pages of entries, each a time and the id of a job in one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

from BTrees.Length import Length
from persistent import Persistent
from ZODB.POSException import ConflictError

from lovely.remotetask.base.shelf import merged

#: Floats from 2004 to 2038 are whole multiples of this part of a second.
_TICKS = 2.0**22

_ID_BITS = 31


def entry_of(when: float, jobid: int) -> int:
    """Return a time and an id as one number, which is in their order."""
    return int(when * _TICKS) << _ID_BITS | jobid


def parts_of(entry: int) -> tuple[float, int]:
    return (entry >> _ID_BITS) / _TICKS, entry & 2**_ID_BITS - 1


def tick(when: float) -> float:
    """Return a time as the indexes keep it."""
    return int(when * _TICKS) / _TICKS


class EntryPage(Persistent):
    """Some jobs that ended one after the other.

    Stored: ``entries`` list of int, in order: the time and the id in one; ``cuts`` int: how often
    another page was begun for what is later than those that stay.  The state is (cuts, first
    entry, *distances from it), which takes fewer bytes; or None for a page that was dropped.
    """

    def __init__(self, entries: Iterable[int] = ()) -> None:
        self.entries: list[int] = list(entries)
        self.cuts = 0

    def __getstate__(self) -> tuple[Any, ...] | None:
        return None if self.entries is None else _state(self.cuts, self.entries)

    def __setstate__(self, state: tuple[Any, ...] | None) -> None:
        self.__dict__["cuts"] = 0 if state is None else state[0]
        self.__dict__["entries"] = None if state is None else _entries(state)

    def __contains__(self, entry: int) -> bool:
        place = bisect_left(self.entries, entry)
        return place < len(self.entries) and self.entries[place] == entry

    def put(self, entry: int) -> bool:
        """Put an entry in; say whether it is new."""
        entries = self.entries
        if not entries or entry > entries[-1]:
            entries.append(entry)
        else:
            place = bisect_left(entries, entry)
            if entries[place] == entry:
                return False
            entries.insert(place, entry)
        self._p_changed = True
        return True

    def take(self, entry: int) -> None:
        """Take an entry out."""
        del self.entries[bisect_left(self.entries, entry)]
        self._p_changed = True

    def cut(self, entry: int) -> EntryPage:
        """Return another page for this entry and what is later."""
        place = bisect_left(self.entries, entry)
        later = EntryPage(self.entries[place:])
        del self.entries[place:]
        self.cuts += 1
        return later

    def close(self) -> None:
        """Let nothing be put in any more: the page is going to be dropped."""
        self.entries = None  # type: ignore[assignment]

    def _p_resolveConflict(self, old: Any, committed: Any, new: Any) -> tuple[Any, ...]:
        if committed is None or new is None:
            raise ConflictError
        before, theirs, ours = map(_entries, (old, committed, new))
        # What one side has put in, here or into another page, may belong into the page that the
        # other one has begun.
        have_cut = committed[0] > old[0], new[0] > old[0]
        have_put = set(theirs).difference(before), set(ours).difference(before)
        if all(have_cut) or (have_cut[0] and have_put[1]) or (have_cut[1] and have_put[0]):
            raise ConflictError
        return _state(max(committed[0], new[0]), sorted(merged(before, theirs, ours)))


def _state(cuts: int, entries: list[int]) -> tuple[Any, ...]:
    first = entries[0] if entries else 0
    return (cuts, first, *(entry - first for entry in entries))


def _entries(state: tuple[Any, ...]) -> list[int]:
    return [state[1] + distance for distance in state[2:]]


class EntryIndex(Persistent):
    """Job ids in the order of a time; what is in an index is up to its subclass.

    Stored: ``size`` `BTrees.Length`.
    """

    def __init__(self) -> None:
        self.size = Length()

    def __len__(self) -> int:
        return max(0, int(self.size.value))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[float, int]]:
        raise NotImplementedError

    def miscounted(self, jobs: object) -> int:
        """Return by how much the size is too large; it takes a walk over all entries."""
        return int(self.size.value) - sum(1 for _ in self)

    def correct(self, difference: int) -> None:
        """Make the size smaller."""
        self.size.change(-difference)
