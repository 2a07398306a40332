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


class Segment(Persistent):
    """The inverted index of a few documents.

    Stored: ``postings`` dict of word -> dict of document id -> how often it stands there.
    """

    def __init__(self) -> None:
        self.postings: dict[str, dict[int, int]] = {}


class Catalog(Persistent):
    """An inverted index of files.

    One tree of word -> documents would cost some 300 records for each file (measured: 50 ms
    and 300 KB).  Here a file writes one record, its segment, and a search looks into all
    segments.  Files that come one after the other stand in different segments, so that two
    workers seldom write the same one.

    Stored: ``documents`` OOBTree of path -> `Document`; ``segments`` IOBTree of number ->
    `Segment`; ``reports`` OOBTree of seconds since the epoch -> dict, by the cron job.
    """

    segment_size = 4
    segments_in_turn = 32

    def __init__(self) -> None:
        self.documents = OOBTree()
        self.segments = IOBTree()
        self.reports = OOBTree()

    def index(self, id: int, path: str, version: str, counts: Mapping[str, int]) -> int | None:
        """Put a file in; return the id of the document it takes the place of.

        Transaction: caller commits.
        """
        replaced: Document | None = self.documents.get(path)
        if replaced is not None:
            self._remove(replaced.id)
        segment = self._segment(id)
        for word, count in counts.items():
            segment.postings.setdefault(word, {})[id] = count
        segment._p_changed = True
        self.documents[path] = Document(id, version, sum(counts.values()))
        return None if replaced is None else replaced.id

    def _remove(self, id: int) -> None:
        segment = self._segment(id)
        for counts in segment.postings.values():
            counts.pop(id, None)
        segment.postings = {word: counts for word, counts in segment.postings.items() if counts}

    def _segment(self, id: int) -> Segment:
        turn, place = divmod(id, self.segment_size * self.segments_in_turn)
        number = turn * self.segments_in_turn + place % self.segments_in_turn
        segment: Segment | None = self.segments.get(number)
        if segment is None:
            segment = self.segments[number] = Segment()
        return segment

    def search(self, word: str) -> dict[int, int]:
        """Return the documents with a word: id -> how often it stands there.

        Transaction: reads only.
        """
        segments = self.segments.values()
        return {id: n for segment in segments for id, n in segment.postings.get(word, {}).items()}

    def postings(self) -> Iterator[tuple[str, int, int]]:
        """Yield the whole index: (word, document id, how often it stands there).

        Transaction: reads only.
        """
        for segment in self.segments.values():
            for word, counts in segment.postings.items():
                for id, count in counts.items():
                    yield word, id, count
            segment._p_deactivate()  # they are many, and each is looked at once
