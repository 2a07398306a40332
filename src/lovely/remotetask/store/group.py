# SPDX-License-Identifier: ZPL-2.1
"""Groups of jobs: which of their members have ended, and how.

A group belongs to the job that runs when all have ended.  Nobody writes a record that all members
share: who files members that have ended marks them in their page, and who marks the last one of a
page marks the page.  Marks of several merge, but not when nothing is left then: of two that mark
the last two at once one has to look again, and sees that it is the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple

from persistent import Persistent
from ZODB.POSException import ConflictError

from lovely.remotetask.base.ownership import check_sound, wrote
from lovely.remotetask.base.storable import copy_of
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR
from lovely.remotetask.job import Job
from lovely.remotetask.store.quarantine import is_known, load, load_many
from lovely.remotetask.store.tree import fetch

#: So many members in a row are marked in one page.
PAGE_SIZE = 256

#: So many jobs are loaded together.
CHUNK_SIZE = 100

#: Where in a tally the bits of a status stand.  These places cannot change.
STATUS_BITS = {COMPLETED: 0, ERROR: 1, CANCELLED: 2}


class Tally(Persistent):
    """Which of some things have ended, and how.

    The state is (how many there are, *for each status of `STATUS_BITS` an int whose bits tell which
    have ended so).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.bits = [0] * len(STATUS_BITS)

    def __getstate__(self) -> tuple[int, ...]:
        return (self.size, *self.bits)

    def __setstate__(self, state: tuple[int, ...]) -> None:
        self.__dict__["size"] = state[0]
        self.__dict__["bits"] = list(state[1:])

    @property
    def is_complete(self) -> bool:
        """Whether all have ended."""
        return _is_complete(self.size, self.bits)

    def count(self, status: str) -> int:
        """Return how many have ended so."""
        return self.bits[STATUS_BITS[status]].bit_count()

    def status_of(self, number: int) -> str | None:
        """Return how one has ended; None if it has not."""
        bits = ((status, self.bits[place]) for status, place in STATUS_BITS.items())
        return next((status for status, marked in bits if marked >> number & 1), None)

    def left(self) -> Iterator[int]:
        """Yield the numbers of those that have not ended."""
        ended = _all_of(self.bits)
        return (number for number in range(self.size) if not ended >> number & 1)

    def mark(self, number: int, status: str | None) -> bool:
        """Write down how one has ended; None: it has not.  Say whether that is new."""
        if self.status_of(number) == status:
            return False
        self.bits = [marked & ~(1 << number) for marked in self.bits]
        if status is not None:
            self.bits[STATUS_BITS[status]] |= 1 << number
        self._p_changed = True
        return True

    def _p_resolveConflict(self, old: Any, committed: Any, new: Any) -> tuple[int, ...]:
        size, before = old[0], old[1:]
        theirs, ours = _marks(before, committed[1:]), _marks(before, new[1:])
        both = [one | other for one, other in zip(committed[1:], new[1:], strict=True)]
        if theirs & ours or _is_complete(size, both):
            raise ConflictError
        return (size, *both)


def _all_of(bits: Iterable[int]) -> int:
    marked = 0
    for of_status in bits:
        marked |= of_status
    return marked


def _is_complete(size: int, bits: Iterable[int]) -> bool:
    return _all_of(bits) == (1 << size) - 1


def _marks(before: Sequence[int], after: Sequence[int]) -> int:
    """Return what one side has marked.

    :raises ConflictError: it has taken back a mark, on which others may have counted.
    """
    if any(old & ~new for old, new in zip(before, after, strict=True)):
        raise ConflictError
    return _all_of(after) & ~_all_of(before)


class Group(Persistent):
    """The members of a group; it is never written again.

    Stored: ``runs`` tuple of (id, count): ids of the members in their order, each run of such that
    follow each other by the first one; ``pages`` tuple of `Tally` of members; ``ended`` `Tally` of
    pages, which are ``completed`` when all of their members have ended.
    """

    def __init__(self, jobids: Sequence[int]) -> None:
        runs = groupby(enumerate(jobids), lambda pair: pair[1] - pair[0])
        lists = [[jobid for _, jobid in run] for _, run in runs]
        self.runs = tuple((run[0], len(run)) for run in lists)
        sizes = [min(PAGE_SIZE, len(jobids) - n) for n in range(0, len(jobids), PAGE_SIZE)]
        self.pages = tuple(map(Tally, sizes))
        self.ended = Tally(len(sizes))

    @property
    def total(self) -> int:
        """How many members there are."""
        return sum(count for _, count in self.runs)

    @property
    def has_ended(self) -> bool:
        """Whether all members have ended."""
        check_sound(self, self.ended)
        return self.ended.is_complete

    def ids(self) -> Iterator[int]:
        """Yield the ids of the members, in their order."""
        for first, count in self.runs:
            yield from range(first, first + count)

    def mark(self, number: int, status: str | None) -> None:
        """Write down how a member has ended; None: it has not, it runs again."""
        page, place = self._page_of(number)
        was_complete = page.is_complete
        if page.mark(place, status):
            wrote(self, page)
        if page.is_complete != was_complete:
            check_sound(self, self.ended)
            self.ended.mark(number // PAGE_SIZE, COMPLETED if page.is_complete else None)
            wrote(self, self.ended)

    def status_of(self, number: int) -> str | None:
        """Return how a member has ended; None if it has not."""
        page, place = self._page_of(number)
        return page.status_of(place)

    def _page_of(self, number: int) -> tuple[Tally, int]:
        page = self.pages[number // PAGE_SIZE]
        check_sound(self, page)
        return page, number % PAGE_SIZE

    def count(self, status: str) -> int:
        """Return how many members have ended so."""
        check_sound(self, *self.pages)
        return sum(page.count(status) for page in self.pages)

    def left(self) -> Iterator[tuple[int, int]]:
        """Yield (number, id) of the members that have not ended."""
        numbered = enumerate(self.ids())
        for page in self.pages:
            jobids = list(islice(numbered, page.size))
            yield from (jobids[place] for place in page.left())


def is_whole(group: Any) -> bool:
    """Say whether all records of a group are there."""
    return is_known(group) and all(map(is_known, (group.ended, *group.pages)))


def mark_missed(service: Any, group: Group, limit: int | None, repair: bool) -> int:
    """Mark members whose end nobody has marked: they were removed by hand; return their number.

    :param limit: look at no more members than this; None is all.
    :param repair: otherwise they are only counted.
    """
    missed = 0
    for number, jobid in list(islice(group.left(), limit)):
        job = load(service.jobs, jobid)
        if job is None:
            is_missed, status = jobid not in service.jobs, CANCELLED
        else:
            is_missed, status = job.is_final and service.queue.is_filed(job), job.status
        if is_missed:
            missed += 1
            if repair:
                group.mark(number, status)
    return missed


class Member(NamedTuple):
    """One job of a group.

    :ivar jobid: its id.
    :ivar status: its status; of one that was removed, how it ended, or None if it has not.
    :ivar result: what its task returned; None of one that is not completed, or was removed.
    """

    jobid: int
    status: str | None
    result: Any


class GroupState:
    """How far a group is, and what its members have come to, in order, when it is iterated over.

    A member counts as ended as soon as that is filed, a moment after its end.

    :ivar id: the id of the group, which is that of the job that runs at its end.
    """

    def __init__(self, service: Any, job: Job) -> None:
        self._service = service
        self._group: Group = job.members
        self.id = job.id

    @property
    def total(self) -> int:
        """How many members there are."""
        return self._group.total

    @property
    def completed(self) -> int:
        """How many of them are completed."""
        return self._group.count(COMPLETED)

    @property
    def errors(self) -> int:
        """How many of them are errors."""
        return self._group.count(ERROR)

    @property
    def cancelled(self) -> int:
        """How many of them were cancelled, or removed by hand."""
        return self._group.count(CANCELLED)

    @property
    def done(self) -> int:
        """How many of them have ended."""
        return self.completed + self.errors + self.cancelled

    @property
    def is_ended(self) -> bool:
        """Whether all of them have."""
        return self._group.has_ended

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.done} of {self.total}>"

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Member]:
        """Yield the members, in the order of their inputs; they are loaded when asked for."""
        numbered = enumerate(self._group.ids())
        while chunk := list(islice(numbered, CHUNK_SIZE)):
            yield from self._members(chunk)

    def _members(self, chunk: list[tuple[int, int]]) -> list[Member]:
        jobs = self._service.jobs
        jobids = [jobid for _, jobid in chunk]
        ghosts = [
            job for job in jobs.get_many(jobids) if job is not None and job._p_changed is None
        ]
        fetch(self._service._p_jar, ghosts)
        members = []
        for (number, jobid), job in zip(chunk, load_many(jobs, jobids), strict=True):
            if job is None:
                members.append(Member(jobid, self._group.status_of(number), None))
            else:
                members.append(Member(jobid, job.status, copy_of(job.output)))
        for job in ghosts:  # ten thousand of them need not lie in memory
            job._p_deactivate()
        return members
