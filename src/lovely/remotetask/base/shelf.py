# SPDX-License-Identifier: ZPL-2.1
"""Containers that two transactions may write at once, each putting in and taking out its own.

A BTree cannot be that: its buckets do not merge when one side takes out the first key, and
whoever adds to a leaf collides with whoever splits, or empties, another leaf of the node above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from persistent import Persistent
from ZODB.POSException import ConflictError

from lovely.remotetask.base.ownership import check_sound, wrote


def merged(old: Iterable[int], committed: Iterable[int], new: Iterable[int]) -> set[int]:
    """Return what is there once both transactions have put in and taken out theirs.

    :raises ConflictError: both have put in the same, or taken out the same.
    """
    old, committed, new = set(old), set(committed), set(new)
    if (committed - old) & (new - old) or (old - committed) & (old - new):
        raise ConflictError
    return (committed | (new - old)) - (old - new)


class Shelf(Persistent):
    """Int -> persistent object.

    Stored: ``entries`` dict, read by anybody and changed by `put`, `take` and `close` alone;
    or None, for a shelf that is closed.  Closing cannot be merged with anything, so that
    nothing is put into a shelf that has just been taken away.
    """

    def __init__(self) -> None:
        self.entries: dict[int, Any] = {}

    def __getstate__(self) -> dict[int, Any] | None:
        return self.entries

    def __setstate__(self, state: dict[int, Any] | None) -> None:
        self.__dict__["entries"] = state

    def put(self, key: int, value: Any) -> None:
        """Put something in, under a new key.

        :raises StrayObject: something in it was disowned: with the shelf it would be stored once
            more, as it was.
        """
        # A new one, or one that has been changed, has been asked for.
        if self._p_jar is not None and not self._p_changed:  # type: ignore[has-type]
            check_sound(self, *self.entries.values())
        self.entries[key] = value
        self._p_changed = True

    def take(self, key: int) -> None:
        """Take something out.

        :raises StrayObject: see `put`.
        """
        if not self._p_changed:
            check_sound(self, *self.entries.values())
        del self.entries[key]
        self._p_changed = True

    def close(self) -> None:
        """Let nothing be put in any more."""
        self.entries = None  # type: ignore[assignment]

    def _p_resolveConflict(self, old: Any, committed: Any, new: Any) -> dict[int, Any]:
        if committed is None or new is None:
            raise ConflictError
        both = {**committed, **new}
        for key in old.keys() & committed.keys() & new.keys():
            # What was taken out may have got a successor under the same key, in one transaction.
            if _id_of(new[key]) == _id_of(old[key]):
                both[key] = committed[key]
            elif _id_of(committed[key]) != _id_of(old[key]):
                raise ConflictError
        return {key: both[key] for key in merged(old, committed, new)}


def _id_of(reference: Any) -> Any:
    # While conflicts are resolved, references stand in the place of objects.
    return getattr(reference, "oid", reference)


# Shelves in shelves are trees, which branch by the bits of their keys.  ``shifts`` are how many of
# the bits are left at each level.


def way(root: Shelf, key: int, shifts: Sequence[int]) -> list[Any]:
    """Return the nodes on the way to a leaf, as far as they are there, and the leaf.

    :raises StrayObject: one no longer belongs to the database.
    """
    nodes: list[Any] = [root]
    for shift in shifts:
        node = nodes[-1].entries.get(key >> shift)
        if node is None:
            break
        nodes.append(node)
    check_sound(*nodes)
    return nodes


def grow(root: Shelf, key: int, shifts: Sequence[int], make_leaf: Callable[[], Any]) -> Any:
    """Return the leaf for a key; it is made, with the nodes on the way, if it is not there.

    :raises StrayObject: see `way`.
    """
    nodes = way(root, key, shifts)
    for shift in shifts[len(nodes) - 1 :]:
        node = make_leaf() if shift == shifts[-1] else Shelf()
        nodes[-1].put(key >> shift, node)
        wrote(root, nodes[-1])
        nodes.append(node)
    return nodes[-1]
