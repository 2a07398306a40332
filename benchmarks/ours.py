# SPDX-License-Identifier: ZPL-2.1
"""Our own contenders: a tiny commit as the measure of all, adding, and draining."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import payload
import report
import transaction
from BTrees.IOBTree import IOBTree
from interleave import Contender, repeat
from persistent import Persistent
from persistent.mapping import PersistentMapping
from places import NOOP, Place
from zc.queue import CompositeQueue

FSYNC = "fsync each commit"
EXACTLY_ONCE = "exactly once in ZODB"

#: How long jobs run before each slice, until batches have their size.
WARM_SECONDS = 0.15


class Tiny(Persistent):
    """One number."""

    number = 0


class TinyCommit(Contender):
    """Commit a change of one small object: what nothing on ZODB can be faster than."""

    durability = FSYNC
    guarantee = "-"

    def __init__(
        self, name: str = "one tiny ZODB commit", make_place: Callable[[], Place] = Place
    ) -> None:
        self.name = name
        self._make_place = make_place

    def open(self) -> None:
        self._place = self._make_place()
        self._tiny = self._place.root["tiny"] = Tiny()
        transaction.commit()

    def work(self, seconds: float) -> float:
        return repeat(self._commit, seconds)

    def _commit(self) -> int:
        self._tiny.number += 1
        transaction.commit()
        return 1

    def close(self) -> None:
        self._place.close()


class Rewrite(Contender):
    """Read and write small objects, many in a commit: the floor of a shared drain."""

    name = "ZODB alone, 200 objects read and written a commit"
    durability = "fsync each 200"
    guarantee = "-"

    def open(self) -> None:
        self._place = Place()
        objects = self._place.root["objects"] = IOBTree({n: Tiny() for n in range(4000)})
        transaction.commit()
        self._objects = itertools.cycle(list(objects.values()))

    def work(self, seconds: float) -> float:
        return repeat(self._commit, seconds)

    def _commit(self) -> int:
        chosen = list(itertools.islice(self._objects, 200))
        for tiny in chosen:
            tiny.number += 1
        transaction.commit()
        for tiny in chosen:
            tiny._p_deactivate()  # to be read again
        return len(chosen)

    def close(self) -> None:
        self._place.close()


class Enlist(Contender):
    """Store new objects in a BTree, and their numbers in a zc.queue: the floor of adding.

    :param count: how many in a commit.
    """

    guarantee = "-"

    def __init__(self, count: int) -> None:
        self.name = report.floor_row(count)
        self.durability = FSYNC if count == 1 else f"fsync each {count}"
        self._count = count

    def open(self) -> None:
        self._place = Place()

    def prepare(self, seconds: float) -> None:
        self._place.root["floor"] = PersistentMapping(objects=IOBTree(), line=CompositeQueue())
        self._numbers = itertools.count()
        transaction.commit()

    def work(self, seconds: float) -> float:
        return repeat(self._store, seconds)

    def _store(self) -> int:
        floor = self._place.root["floor"]
        for number in itertools.islice(self._numbers, self._count):
            new = Tiny()
            new.number = number
            floor["objects"][number] = new
            floor["line"].put(number)
        transaction.commit()
        return self._count

    def close(self) -> None:
        self._place.close()


class Add(Contender):
    """Add jobs, each in a commit of its own, to about so many that wait."""

    durability = FSYNC
    guarantee = EXACTLY_ONCE

    def __init__(
        self,
        name: str,
        depth: int = 1000,
        place: Place | None = None,
        make_place: Callable[[], Place] = Place,
    ) -> None:
        self.name = name
        self._depth = depth
        self._place = place
        self._is_own = place is None
        self._make_place = make_place

    def open(self) -> None:
        if self._is_own:
            self._place = self._make_place()

    def prepare(self, seconds: float) -> None:
        assert self._place is not None
        if self._is_own:  # of small ones, a new one each time: they would not stay small
            self._place.renew()
            self._place.fill(self._depth)

    def work(self, seconds: float) -> float:
        return repeat(self._add, seconds)

    def _add(self) -> int:
        assert self._place is not None
        self._place.add()
        transaction.commit()
        return 1

    def close(self) -> None:
        if self._is_own and self._place is not None:
            self._place.close()


class AddMany(Add):
    """Add jobs, a hundred in a commit."""

    durability = "fsync each 100"

    def _add(self) -> int:
        assert self._place is not None
        self._place.add_many(100)
        transaction.commit()
        return 100


class Drain(Contender):
    """Run jobs in the threads of the service, with about so many that wait.

    :param is_shared: the task declares ``shared_commit``.
    :param is_piped: several ends of jobs may share a commit.
    :param rate: more jobs a second than it will be, at first.
    """

    durability = "fsync each 16 or 10 ms"
    guarantee = EXACTLY_ONCE

    def __init__(
        self,
        name: str,
        place: Place,
        is_shared: bool = False,
        depth: int = 1000,
        *,
        is_piped: bool = True,
        rate: float = 4_000.0,
    ) -> None:
        self.name = name
        self._place = place
        self._is_shared = is_shared
        self._is_piped = is_piped
        self._depth = depth
        self._rate = 10_000.0 if is_shared else rate
        if is_shared:
            self.durability = "fsync each batch"
        elif not is_piped:
            self.durability = FSYNC

    def prepare(self, seconds: float) -> None:
        NOOP.shared_commit = self._is_shared
        NOOP.piped = self._is_piped
        wanted = self._depth + int(self._rate * (seconds + WARM_SECONDS) * 1.3)
        self._place.fill(wanted - self._place.waiting())
        # The size of the batches is learned anew.
        self._place.start()
        payload.measured(WARM_SECONDS)

    def work(self, seconds: float) -> float:
        rate = payload.measured(seconds)
        self._rate = max(self._rate, rate)
        self._place.rest()
        return rate
