# SPDX-License-Identifier: ZPL-2.1
"""A table of names that many write at once, each the rows of its own names.

The names are divided by their hash among pages that merge row by row: who writes the same row as
somebody else collides, and nobody else does.  Pages stay once they are made, and there is a bound
to their number, so that neither making nor removing them is in anybody's way for long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from persistent import Persistent
from ZODB.POSException import ConflictError

from lovely.remotetask.base.ownership import check_sound, wrote
from lovely.remotetask.base.shelf import Shelf, grow, way

#: How the pages are divided in the tree, by how many bits of the hash are left: for many names,
#: and for those of which only few are in use at a time.
MANY = (6, 0)
FEW = (0,)

#: How many bits of the hash tell the page, at each level of the tree.
_LEVEL_BITS = 6


class NamePage(Persistent):
    """The rows of some names.

    Stored: ``rows`` dict of str -> tuple of int: the first one is chance, so that a row that is
    written is another one than before, whatever it says; ``turns`` int: how often a row was
    dropped that may have been written in the same transaction, of which the rows show nothing.
    The state is (turns, rows).
    """

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, ...]] = {}
        self.turns = 0

    def __getstate__(self) -> tuple[int, dict[str, tuple[int, ...]]]:
        return self.turns, self.rows

    def __setstate__(self, state: tuple[int, dict[str, tuple[int, ...]]]) -> None:
        self.__dict__["turns"], self.__dict__["rows"] = state

    def put(self, name: str, numbers: tuple[int, ...]) -> None:
        """Write a row."""
        self.rows[name] = (random.getrandbits(30), *numbers)
        self._p_changed = True

    def drop(self, name: str) -> None:
        """Take a row out."""
        if self._p_changed:
            self.turns += 1
        del self.rows[name]
        self._p_changed = True

    def _p_resolveConflict(self, old: Any, committed: Any, new: Any) -> tuple[int, Any]:
        (turns, before), (their_turns, theirs), (our_turns, ours) = old, committed, new
        if not turns == their_turns == our_turns:
            raise ConflictError
        rows = dict(theirs)
        for name in before.keys() | ours.keys():
            row = before.get(name)
            if ours.get(name) == row:
                continue
            if theirs.get(name) != row:
                raise ConflictError
            if name in ours:
                rows[name] = ours[name]
            else:
                del rows[name]
        return turns, rows


class NameTable(Persistent):
    """Name -> some numbers.

    Stored: ``pages`` `Shelf`: the root of a tree that branches by the bits of the hashes, the
    leaves of which are `NamePage`; ``shifts`` tuple of int: how.

    :param shifts: `MANY` or `FEW`.
    """

    def __init__(self, shifts: tuple[int, ...]) -> None:
        self.shifts = shifts
        self.pages = Shelf()

    def get(self, name: str) -> tuple[int, ...]:
        """Return the numbers of a name; it has none if it is not there."""
        nodes = self._nodes(name)
        if len(nodes) <= len(self.shifts):
            return ()
        row: tuple[int, ...] = nodes[-1].rows.get(name, ())
        return row[1:]

    def put(self, name: str, numbers: tuple[int, ...]) -> None:
        """Write the numbers of a name; who does so at the same time collides."""
        check_sound(self, self.pages)
        page = grow(self.pages, self._key(name), self.shifts, NamePage)
        page.put(name, numbers)
        wrote(self, page)

    def drop(self, name: str) -> None:
        """Take a name out; nothing happens if it is not there."""
        nodes = self._nodes(name)
        if len(nodes) > len(self.shifts) and name in nodes[-1].rows:
            nodes[-1].drop(name)
            wrote(self, nodes[-1])

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names, with their numbers, in no order; they may be dropped under way."""
        nodes: list[Any] = [self.pages]
        for _ in self.shifts:
            nodes = [child for node in nodes for child in node.entries.values()]
        for page in nodes:
            yield from [(name, row[1:]) for name, row in page.rows.items()]

    def _nodes(self, name: str) -> list[Any]:
        check_sound(self, self.pages)
        return way(self.pages, self._key(name), self.shifts)

    def _key(self, name: str) -> int:
        return hash_of(name) % (1 << _LEVEL_BITS * len(self.shifts))


def hash_of(name: str) -> int:
    """Return a number that is the same for a name everywhere."""
    return crc32(name.encode("utf-8", "surrogatepass"))
