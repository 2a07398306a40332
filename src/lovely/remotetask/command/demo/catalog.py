# SPDX-License-Identifier: ZPL-2.1
"""The demo's catalog: an inverted index of files, in the database of their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent


class Document(NamedTuple):
    """A file in the catalog: the id of the job that indexed it, its version, its word count."""

    id: int
    version: str
    words: int


class Shelf(Persistent):
    """The inverted index of a few documents.

    Stored: ``postings`` dict of word -> dict of document id -> how often it stands there.
    """

    def __init__(self) -> None:
        self.postings: dict[str, dict[int, int]] = {}


class Catalog(Persistent):
    """An inverted index of files.

    One tree of word -> documents would cost some 300 records for each file (measured: 50 ms
    and 300 KB).  Here a file writes one record, its shelf, and a search looks into all
    shelves.  Files that come one after the other stand on different shelves, so that two
    workers seldom write the same one.

    Stored: ``documents`` OOBTree of path -> `Document`; ``shelves`` IOBTree of number ->
    `Shelf`; ``reports`` OOBTree of seconds since the epoch -> dict, by the cron job.
    """

    shelf_size = 4
    shelves_in_turn = 32

    def __init__(self) -> None:
        self.documents = OOBTree()
        self.shelves = IOBTree()
        self.reports = OOBTree()

    def index(self, id: int, path: str, version: str, counts: Mapping[str, int]) -> int | None:
        """Put a file in; return the id of the document it takes the place of.

        Transaction: caller commits.
        """
        replaced: Document | None = self.documents.get(path)
        if replaced is not None:
            self._remove(replaced.id)
        shelf = self._shelf(id)
        for word, count in counts.items():
            shelf.postings.setdefault(word, {})[id] = count
        shelf._p_changed = True
        self.documents[path] = Document(id, version, sum(counts.values()))
        return None if replaced is None else replaced.id

    def _remove(self, id: int) -> None:
        shelf = self._shelf(id)
        for counts in shelf.postings.values():
            counts.pop(id, None)
        shelf.postings = {word: counts for word, counts in shelf.postings.items() if counts}

    def _shelf(self, id: int) -> Shelf:
        turn, place = divmod(id, self.shelf_size * self.shelves_in_turn)
        number = turn * self.shelves_in_turn + place % self.shelves_in_turn
        shelf: Shelf | None = self.shelves.get(number)
        if shelf is None:
            shelf = self.shelves[number] = Shelf()
        return shelf

    def search(self, word: str) -> dict[int, int]:
        """Return the documents with a word: id -> how often it stands there.

        Transaction: reads only.
        """
        shelves = self.shelves.values()
        return {id: n for shelf in shelves for id, n in shelf.postings.get(word, {}).items()}

    def postings(self) -> Iterator[tuple[str, int, int]]:
        """Yield the whole index: (word, document id, how often it stands there).

        Transaction: reads only.
        """
        for shelf in self.shelves.values():
            for word, counts in shelf.postings.items():
                for id, count in counts.items():
                    yield word, id, count
            shelf._p_deactivate()  # they are many, and each is looked at once
