# SPDX-License-Identifier: ZPL-2.1
"""What a remote processor in ZODB consists of: its factories, its jobs, its scheduler."""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from os import urandom
from typing import Any

from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent
from ZODB.utils import z64
from zope.interface import implementer

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import check_path, check_sound, check_tree, removed, wrote
from lovely.remotetask.base.reference import refusing
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.adding import add_job, checked_input, new_ids
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.errors import InvalidArgument, JobNotFound, is_kind, shown
from lovely.remotetask.remote.interfaces import IJobFactories, IJobs
from lovely.remotetask.remote.job import Job, UnusableJob, attach, record_of
from lovely.remotetask.remote.record import ID_DIGITS, JobRecord
from lovely.remotetask.remote.scheduler import SchedulerBase
from lovely.remotetask.store.quarantine import is_known, why_unreadable

log = logging.getLogger("lovely.remotetask.remote")

#: Who has met another scheduler at an item takes one of so many that are due.
CHOICE = 64


def _found(parent: Any, tree: Any, name: Any, default: Any) -> Any:
    """Return what a BTree has under a name, or the default.

    :raises StrayObject: something no longer belongs to the database.
    """
    if not is_kind(name, str):
        return default
    check_sound(parent, tree)
    check_path(tree, name)
    if (found := tree.get(name)) is None:
        return default
    check_sound(parent, found)
    return found


@implementer(IJobFactories)
class JobFactories(Persistent, Mapping[str, Any]):
    """Name -> factory.  See `IJobFactories`.

    Stored: ``factories`` OOBTree; ``__parent__`` the processor.
    """

    __name__ = "factories"

    def __init__(self, parent: Any) -> None:
        self.__parent__ = parent
        self.factories = OOBTree()

    def put(self, name: str, job: Any) -> None:
        """Put a factory in."""
        check_begun(self)
        check_sound(self, self.factories)
        check_path(self.factories, name)
        job.__name__ = name
        job.__parent__ = self
        self.factories[name] = job
        wrote(self, job)

    def __getitem__(self, name: str) -> Any:
        if (job := self.get(name)) is None:
            raise KeyError(name)
        return job

    def get(self, name: Any, default: Any = None) -> Any:
        """Return a factory, or the default."""
        return _found(self, self.factories, name, default)

    def __iter__(self) -> Iterator[str]:
        check_sound(self, self.factories)
        check_tree(self.factories)
        return iter(self.factories)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return True


@implementer(IJobs)
class Jobs(Mapping[str, Any]):
    """Id -> job.  See `IJobs`; nothing of it is stored.

    :param parent: the processor.
    """

    __name__ = "jobs"

    def __init__(self, parent: Any) -> None:
        self.__parent__ = parent

    def add(self, job: Job) -> str:
        """See `IJobs`."""
        service = self.__parent__
        check_begun(service)
        record = record_of(job) if is_kind(job, Job) else None
        if not is_kind(job, Job) or (record is not None and record.__parent__ is not None):
            raise InvalidArgument(f"{shown(job)} is no new job")
        checked_input(service, job.input, refusing)
        record = JobRecord(new_ids(service, 1)[0], job)
        attach(job, record)
        add_job(service, record)
        return record.__name__

    def record(self, jobid: Any) -> JobRecord:
        """Return the record of a job.

        :raises JobNotFound: there is none.
        """
        try:
            number = int(jobid[ID_DIGITS:], 16)
        except (TypeError, ValueError):
            raise JobNotFound(f"there is no job {shown(jobid)}") from None
        record: JobRecord = find_job(self.__parent__, number)
        if record.is_unwanted or record.__name__ != jobid:
            raise JobNotFound(f"there is no job {shown(jobid)}")
        return record

    def records(self) -> Iterator[JobRecord]:
        """Yield the records that can be read here."""
        for number, record in self.__parent__.jobs.items():
            if why_unreadable(record, number) is None and not record.is_unwanted:
                yield record

    def __getitem__(self, jobid: str) -> Any:
        record = self.record(jobid)
        return record.input if is_known(record.input) else UnusableJob(record)

    def __iter__(self) -> Iterator[str]:
        return (record.__name__ for record in self.records())

    def __len__(self) -> int:
        return sum(1 for _ in self.records())


class Scheduler(Persistent, SchedulerBase):
    """The items in ZODB.  See `IScheduler`.

    Stored: ``items_by_id`` OOBTree: id -> item.  ``due`` OOTreeSet of (seconds since the epoch,
    id): when items can be pulled.  ``__parent__`` the processor.
    """

    def __init__(self, parent: Any) -> None:
        self.__parent__ = parent
        self.items_by_id = OOBTree()
        self.due = OOTreeSet()

    def __getitem__(self, itemid: str) -> Any:
        if (item := self.get(itemid)) is None:
            raise KeyError(itemid)
        return item

    def get(self, itemid: Any, default: Any = None) -> Any:
        """Return an item, or the default."""
        return _found(self, self.items_by_id, itemid, default)

    def __iter__(self) -> Iterator[str]:
        check_sound(self, self.items_by_id)
        check_tree(self.items_by_id)
        return (itemid for itemid, item in self.items_by_id.items() if self._is_known(item))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _is_known(self, item: Any) -> bool:
        """Say whether an item can be used here; tell it once of one that cannot."""
        if is_known(item):
            return True
        told: frozenset[bytes] = getattr(self, "_v_told", frozenset())
        if item._p_oid not in told:
            self._v_told = told | {item._p_oid}
            log.error("scheduler item %r cannot be used here; it is passed over", item)
        return False

    def __bool__(self) -> bool:
        return True

    def add(self, item: Any) -> str:
        """See `IScheduler`."""
        check_begun(self)
        self.prepare(item)
        # In the order in which they are added, whoever adds them.
        itemid = f"{time.time_ns():016x}{urandom(4).hex()}"
        check_sound(self, self.items_by_id)
        check_path(self.items_by_id, itemid)
        item.__name__ = itemid
        item.__parent__ = self
        self.items_by_id[itemid] = item
        wrote(self, item)
        self._file(item)
        self._note_added(item)
        registry.wake_after_commit(self.__parent__)
        return itemid

    def remove(self, item: Any) -> None:
        """See `IScheduler`."""
        check_begun(self)
        itemid = item.__name__
        if self.get(itemid) is not item:
            raise KeyError(itemid)
        self._unfile(item)
        check_path(self.items_by_id, itemid)
        del self.items_by_id[itemid]
        item.__parent__ = None
        removed(self, item)

    def note_change(self, item: Any) -> None:
        """See `SchedulerBase`."""
        check_begun(self)
        wrote(self, item)
        self._unfile(item)
        self._file(item)
        registry.wake_after_commit(self.__parent__)

    # -- when they are due --------------------------------------------------------------

    def _file(self, item: Any) -> None:
        times = [at.timestamp() for at in (item.nextCallTime, item.retryTime) if at is not None]
        item._place = max(times) if item.active and item.nextCallTime is not None else None
        if item._place is not None:
            entry = (item._place, item.__name__)
            check_sound(self, self.due)
            check_path(self.due, entry)
            self.due.insert(entry)

    def _unfile(self, item: Any) -> None:
        if item._place is not None:
            self._take_out((item._place, item.__name__))

    def _take_out(self, entry: tuple[float, str]) -> None:
        check_sound(self, self.due)
        check_path(self.due, entry)
        if entry in self.due:
            self.due.remove(entry)

    def _note_added(self, item: Any) -> None:
        added: list[Any] = getattr(self, "_v_added", [])
        self._v_added = [*added, item]

    def added(self) -> list[Any]:
        """See `SchedulerBase`."""
        # What an abort or a rollback has taken out is no longer in the tree.
        found = [
            item
            for item in getattr(self, "_v_added", [])
            if item._p_serial == z64 and self.get(item.__name__) is item
        ]
        if hasattr(self, "_v_added"):
            self._v_added = found
        return found

    def _due_until(self, until: float) -> Iterator[tuple[float, str]]:
        """Yield what is due up to a time; what was yielded can be taken out meanwhile."""
        after = (-math.inf, "")
        while True:
            check_sound(self, self.due)
            check_path(self.due, after)
            try:
                entry: tuple[float, str] = self.due.minKey(after)
            except ValueError:
                return
            if entry[0] > until:
                return
            yield entry
            after = (entry[0], entry[1] + "\0")

    def next_call(self) -> float | None:
        """Return when the next item can be pulled, in seconds since the epoch."""
        for when, itemid in self._due_until(math.inf):
            if (item := self.get(itemid)) is not None and is_known(item):
                due: float = when
                return due
        return None

    def choose_anew(self) -> None:
        """Let the next pull take any of the items that are due: rivals take the first."""
        self._v_has_rival = True

    def _to_pull(self, until: float) -> Iterator[tuple[float, str]]:
        due = self._due_until(until)
        if not getattr(self, "_v_has_rival", False):
            return due
        self._v_has_rival = False
        first = list(itertools.islice(due, CHOICE))
        random.shuffle(first)
        return itertools.chain(first, due)

    def pull_stored(self, callTime: datetime) -> Any:
        """See `SchedulerBase`."""
        until = callTime.timestamp()
        new = set(map(id, self.added()))
        for when, itemid in self._to_pull(until):
            item = self.get(itemid)
            if item is not None and not self._is_known(item):
                continue
            if item is None or item._place != when:
                self._take_out((when, itemid))
            elif id(item) not in new and self.advance(item, callTime):
                return item
        return None
