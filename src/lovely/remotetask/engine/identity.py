# SPDX-License-Identifier: ZPL-2.1
"""Who a worker is, and whether others are still alive.

A worker is one process's right to hold claims of one service.  Its record is written in
each claim, and as a heartbeat while something runs and nothing else is written.  It is
dead when the serial of the record has not moved for one lease, measured by each
observer's own monotonic clock; so no two clocks are compared, and there is no leader.
"""

from __future__ import annotations

import math
import os
import threading
import uuid
import weakref
from typing import Any

from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IMVCCStorage
from ZODB.MappingStorage import MappingStorage

from lovely.remotetask.base.layers import layers_of
from lovely.remotetask.engine import registry


class Identity:
    """A worker as its own process knows it.

    The id is new for each one, and in a forked child: a host and a process id come again
    after a restart.

    :param db: the database of its service.  None: the worker is of any service.
    :param oid: the object id of its service, or None as long as nobody has looked.
    """

    def __init__(self, db: Any = None, oid: bytes | None = None) -> None:
        self._db = None if db is None else weakref.ref(db)
        self.oid = oid
        self._pid = 0
        self._id = ""

    @property
    def id(self) -> str:
        """The key of the worker's record."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._id = uuid.uuid4().hex[:16]
            _local.add(self)
        return self._id

    def is_of(self, service: Any) -> bool:
        """Say whether it is a worker of this service.

        A service that was exported and imported has the records of the workers of the one that it
        is a copy of, and these know nothing of it.
        """
        if self._db is None:
            return True
        jar = service._p_jar
        return jar is not None and jar.db() is self._db() and self.oid in (None, service._p_oid)

    def retire(self) -> None:
        """Count as dead: what this worker still holds may be taken from it."""
        _local.discard(self)


_local: weakref.WeakSet[Identity] = weakref.WeakSet()


#: Who claims jobs in the transactions of applications, by database and service.
_callers: weakref.WeakKeyDictionary[Any, dict[bytes, Identity]] = weakref.WeakKeyDictionary()


_caller_nowhere = Identity()  # the same of services that are in no database yet


def local_ids(service: Any) -> set[str]:
    """Return the ids of the workers that a service has in this process."""
    return {identity.id for identity in list(_local) if identity.is_of(service)}


def caller_of(service: Any) -> Identity:
    """Return the worker that claims jobs of a service in the transactions of applications."""
    jar = service._p_jar
    if jar is None:
        return _caller_nowhere
    callers = _callers.setdefault(jar.db(), {})
    return callers.setdefault(service._p_oid, Identity(jar.db(), service._p_oid))


def is_caller(owner: str | None, service: Any) -> bool:
    """Say whether a job was claimed in a transaction of an application, in this process."""
    return owner in (caller_of(service).id, _caller_nowhere.id)


_KEY = object()  # of what a transaction has claimed, in its data


class _Claimed(set[int]):
    """The ids of the jobs that a transaction of a caller has claimed, of one service.

    :ivar thread: the one that has begun to claim.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.current_thread()


#: Those of transactions that go on, by database, service and Python's id.  A thread can end and
#: leave its transaction as it is, with no end that anybody would be told of.
_claimed: weakref.WeakKeyDictionary[
    Any, dict[bytes, weakref.WeakValueDictionary[int, _Claimed]]
] = weakref.WeakKeyDictionary()


def note_claimed(service: Any, jobid: int) -> None:
    """Let the workers of this process leave a job alone until the caller's transaction ends.

    It is claimed there and nobody can see it yet: of two who claim it one could not commit, and
    that might be the caller.
    """
    jar = service._p_jar
    if jar is None or service._p_oid is None:
        return
    db, oid = jar.db(), service._p_oid
    txn = jar.transaction_manager.get()
    try:
        claimed: dict[Any, _Claimed] = txn.data(_KEY)
    except KeyError:
        claimed = {}
        txn.set_data(_KEY, claimed)
    jobids = claimed.get((db, oid))
    if jobids is None:
        jobids = claimed[db, oid] = _Claimed()
        sets = _claimed.setdefault(db, {}).setdefault(oid, weakref.WeakValueDictionary())
        sets[id(jobids)] = jobids
        txn.addAfterCommitHook(leave_claimed, kws={"db": db, "oid": oid, "key": id(jobids)})
        txn.addAfterAbortHook(leave_claimed, kws={"db": db, "oid": oid, "key": id(jobids)})
    jobids.add(jobid)


def leave_claimed(*result: bool, db: Any, oid: bytes, key: int) -> None:
    """Let the workers have what a transaction of a caller has claimed, or not: it has ended."""
    _claimed[db][oid].pop(key, None)
    registry.wake(db, oid)


def claimed_by_callers(service: Any) -> set[int]:
    """Return the jobs that are claimed in transactions of callers in this process, which go on."""
    jar = service._p_jar
    sets = None if jar is None else _claimed.get(jar.db(), {}).get(service._p_oid)
    jobids: set[int] = set()
    for reference in sets.valuerefs() if sets else ():  # a list, whatever other threads do
        claimed = reference()
        if claimed is not None and claimed.thread.is_alive():
            jobids |= claimed
    return jobids


if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(after_in_child=_local.clear)
    os.register_at_fork(after_in_child=_claimed.clear)


def is_exclusive(storage: Any) -> bool:
    """Say whether no other process can write to a storage while this one has it open.

    Then workers of other processes are dead, and a commit of this process is all that can
    bring new jobs.
    """
    if IMVCCStorage.providedBy(storage):
        return False
    *_, innermost = layers_of(getattr(storage, "changes", None) or storage)  # of a DemoStorage
    return isinstance(innermost, (FileStorage, MappingStorage))


class Observer:
    """Watches the records of other workers; see the module's text.

    It lives in memory, one for each processor.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._looked = -math.inf

    def dead(self, workers: Any, lease_seconds: float, monotonic: float) -> list[tuple[str, bytes]]:
        """Return the workers that have shown no sign of life for a lease: (id, serial).

        It is for whoever looks about each third of the lease.  Who has not looked for half a
        lease, as the process was stopped, has seen nothing in that time, and at first may still
        see what was there before: all that is known of the others counts from now on.

        :param workers: mapping of id -> `Worker`.
        :param monotonic: the observer's own clock, in seconds.
        """
        if monotonic - self._looked > lease_seconds / 2:
            self._seen.clear()
        self._looked = monotonic
        seen: dict[str, tuple[bytes, float]] = {}
        dead = []
        for worker_id, worker in workers.items():
            worker._p_activate()  # a ghost has no serial
            serial = worker._p_serial
            before = self._seen.get(worker_id)
            since = before[1] if before is not None and before[0] == serial else monotonic
            seen[worker_id] = (serial, since)
            if monotonic - since >= lease_seconds:
                dead.append((worker_id, serial))
        self._seen = seen
        return dead
