# SPDX-License-Identifier: ZPL-2.1
"""Waking up by what a storage tells of the commits of other processes.

A client of a ZEO server is told which objects each commit has changed, as its caches must
forget them.  A `Listener` takes its place between the storage and the database, passes all
that on, and wakes whoever watches one of the objects: without a look at the storage, and as
soon as the commit can be seen.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

from ZODB.interfaces import IMVCCStorage

from lovely.remotetask.base.layers import layers_of
from lovely.remotetask.base.leftovers import clear_leftovers


class Watcher(Protocol):
    """Who is woken.

    :ivar signals: the ids of the objects whose changes are waited for.
    """

    signals: frozenset[bytes]

    def hear(self, oids: list[bytes]) -> None:
        """Called in a thread of the storage, which must not wait.

        :param oids: all that was changed together with a signal; empty if nobody knows.
        """


class Watchers:
    """Those who are woken by one storage.

    :ivar watchers: all of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.watchers: weakref.WeakSet[Any] = weakref.WeakSet()

    #: Whether the storage tells, as it seems.
    is_told = True

    def watch(self, watcher: Watcher) -> None:
        """Wake somebody from now on, also by signals that he has only now."""
        with self._lock:
            self.watchers.add(watcher)

    def forget(self, watcher: Watcher) -> None:
        """Wake somebody no longer."""
        with self._lock:
            self.watchers.discard(watcher)

    def doubt(self) -> None:
        """Somebody has found a change that he was not told of."""

    def all(self) -> list[Any]:
        """Return those who are woken."""
        with self._lock:
            return list(self.watchers)

    def tell(self, changed: Collection[bytes], oids: list[bytes]) -> None:
        """Wake those who wait for one of the objects that were changed.

        :param oids: see `Watcher.hear`.
        """
        for watcher in self.all():
            if not watcher.signals.isdisjoint(changed):
                watcher.hear(oids)

    def tell_all(self) -> None:
        """Wake all: anything may have changed."""
        for watcher in self.all():
            watcher.hear([])


class Listener(Watchers):
    """Hears what one storage tells its database.  It provides `ZODB.interfaces.IStorageWrapper`.

    :param storage: whom to hear.
    :param adapter: what the storage has told it to so far.
    """

    def __init__(self, storage: Any, adapter: Any) -> None:
        super().__init__()
        self._storage = storage
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def invalidate(self, transaction_id: bytes, oids: Iterable[bytes]) -> None:
        """Called by the storage: another process has changed these objects."""
        oids = list(oids)
        self._adapter.invalidate(transaction_id, oids)
        self.tell(oids, oids)

    def invalidateCache(self) -> None:
        """Called by the storage: anything may have changed while it was not connected."""
        drop_ids(self._storage)
        self._adapter.invalidateCache()
        self.tell_all()


class CommitListener:
    """Tells who waits, in a ``with`` block, of commits that have changed some objects.

    It takes part in the invalidation of a database's connections as one of them, so it hears of
    the commits of this process as of those of others.

    :param wake: called in the thread that commits, or in one of the storage: it must not wait.
    :ivar hears: whether the storage tells of commits at all.
    :ivar oids: the ids of the objects.
    """

    def __init__(self, db: Any, wake: Callable[[], None]) -> None:
        self.oids: Collection[bytes] = ()
        self._wake = wake
        self.hears = not IMVCCStorage.providedBy(db.storage)
        self._adapter = db._mvcc_storage if self.hears else None

    def __enter__(self) -> CommitListener:
        if self._adapter is not None:
            self._instance = self._adapter.new_instance()
            # What a connection's own would keep for it.
            self._instance._invalidate = self._hear
            self._instance._invalidateCache = self._wake
        return self

    def __exit__(self, *exception: object) -> None:
        if self._adapter is not None and not self._adapter.closed:
            self._instance.release()

    def _hear(self, transaction_id: bytes, oids: Iterable[bytes]) -> None:
        if not self.oids or not set(self.oids).isdisjoint(oids):
            self._wake()


_lock = threading.Lock()
_guarded: weakref.WeakSet[Any] = weakref.WeakSet()  # databases
_listeners: weakref.WeakKeyDictionary[Any, Listener] = weakref.WeakKeyDictionary()


def listener_of(db: Any) -> Listener | None:
    """Return the listener of a database.

    :returns: None where the storage tells nothing by itself, as RelStorage.
    """
    storage = db.storage
    if IMVCCStorage.providedBy(storage) or not hasattr(storage, "registerDB"):
        return None
    with _lock:
        listener = _listeners.get(db)
        if listener is None:
            # The adapter has no public name; ZODB knows it as the one that was registered.
            listener = _listeners[db] = Listener(storage, db._mvcc_storage)
            storage.registerDB(listener)
        return listener


def drop_ids(storage: Any) -> None:
    """Let a ZEO client forget the object ids that its server has handed it in advance.

    A server that was killed hands them out once more, to others.  There is no public means.
    Where this one is missing, ids are met that are in use; see `ownership`.
    """
    for ids in _ids_in_advance(storage):
        ids.clear()


def guard(db: Any) -> None:
    """See to it that ids are dropped whenever the server was lost, and to `clear_leftovers`."""
    if db not in _guarded:
        _guarded.add(db)
        clear_leftovers(db)
        if any(True for _ in _ids_in_advance(db.storage)):
            listener_of(db)


def _ids_in_advance(storage: Any) -> Iterator[list[bytes]]:
    for layer in layers_of(storage):
        ids = getattr(layer, "_oids", None)
        if isinstance(ids, list):
            yield ids
