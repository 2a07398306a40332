# SPDX-License-Identifier: ZPL-2.1
"""Sees to it that what is written is stored.

An object that ZODB has *disowned* looks like any other, but nothing that is written to it is
stored, and no change of others reaches it.  It comes to that when a storage hands out an object
id that is in use: a ZEO client keeps ids in advance, which a server that was killed hands out
once more.  The commit that gives such an id to a new object fails, and takes whatever lies in
the connection's cache under that id for the new object, which is no longer to belong to the
database.  The objects that refer to it go on referring to it.

So objects are checked where they are reached, and a `Ownership` in each transaction that writes
has the last word: all that was written is stored with it, or it does not commit.  The error is
transient, and the connection's cache is emptied behind it: what is loaded then is as stored.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import transaction
from persistent import Persistent
from transaction.interfaces import TransactionError
from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError
from ZODB.utils import z64

from lovely.remotetask.errors import StrayObject, attribute_of, is_kind

#: A transaction that has taken longer than this many seconds looks whether the record is still
#: there of what it has written first, which is the job that it runs; one that has taken longer than
#: this for each of the objects that it writes, or than the second number, looks for all of them.
#: That takes another connection, which quick ones need not pay.
LOOK_SECONDS = 0.02
MAX_LOOK_SECONDS = 1.0

#: The name by which a connection has its `Ownership`.
_NAME = "_remotetask_ownership"


def check_sound(*objects: Any) -> None:
    """Check that objects, each reached from the one before, belong to their database.

    Objects that were never stored do not belong to one, and are sound.

    :raises StrayObject: one was disowned.
    """
    for found in objects:
        if found._p_jar is None and is_stray(found):
            owners = (other._p_jar for other in objects if other._p_jar is not None)
            if (connection := next(owners, None)) is not None:
                _ownership_of(connection).has_seen_stray = True
            raise StrayObject(f"{type(found).__name__}: {StrayObject()}")


def check_parts(service: Any) -> None:
    """Check that a service and what it consists of belong to one database.

    :raises StrayObject: something was disowned.
    """
    check_sound(*service.parts())


def is_stray(found: Any) -> bool:
    """Say whether an object was in a database once, and does not belong to it any more."""
    return found._p_jar is None and (found._p_serial != z64 or found._p_changed is None)


def check_path(tree: Any, key: Any) -> None:
    """Check what a look or a change at this key of a BTree goes through, and what a change stores.

    That is the nodes on the way, and all that the leaf refers to: what is disowned would be stored
    with it once more, as it was.  The tree itself is its parent's to check.
    What is no BTree, of another store, has nothing to be checked.

    :raises StrayObject: one was disowned.
    """
    if not isinstance(tree, Persistent):
        return
    node = tree
    while type(node) is type(tree):
        # A node's state is its children with keys between them, and the first leaf; where
        # all fits into one leaf, the state of that leaf alone.
        state: tuple[Any, ...] = node.__getstate__() or ()
        if len(state) < 2:
            break
        child = state[0][::2][bisect_right(state[0][1::2], key)]
        check_sound(node, child)
        node = child
    _check_leaf(tree, node)


def check_tree(tree: Any) -> None:
    """Check all that a BTree refers to, for who reads it from end to end.

    :raises StrayObject: something was disowned.
    """
    state: tuple[Any, ...] = tree.__getstate__() or ()
    if len(state) < 2:
        _check_leaf(tree, tree)
        return
    for child in state[0][::2]:
        check_sound(tree, child)
        if type(child) is type(tree):
            check_tree(child)
        else:
            _check_leaf(tree, child)


def _check_leaf(tree: Any, leaf: Any) -> None:
    """Check what a leaf refers to: what it holds, and the leaf that follows."""
    state: tuple[Any, ...] | None = leaf.__getstate__()
    if type(leaf) is type(tree) and state is not None:
        state = state[0][0]
    if state is not None:
        check_sound(tree, *(held for held in state[0] if isinstance(held, Persistent)), *state[1:])


def wrote(parent: Any, *objects: Any) -> None:
    """Let the current transaction commit only if all changes of these objects are stored.

    Without one it takes note of the time: see `LOOK_SECONDS`.

    :param parent: an object that is in the database, if they are or come to be.
    """
    connection = parent._p_jar
    if connection is not None:
        noted = _ownership_of(connection).written
        for written in objects:
            noted[id(written)] = written


def stay_current(found: Any) -> None:
    """Let the current transaction commit only if an object is still as it is seen now."""
    if found._p_jar is not None and not found._p_changed:
        found._p_jar.readCurrent(found)


def taken_out(parent: Any) -> list[Any]:
    """Return what the current transaction has taken out, see `removed`.

    What came back by the rollback to a savepoint is among it.
    """
    return [] if parent._p_jar is None else _ownership_of(parent._p_jar).gone


def has_written_only(connection: Any, written: Any) -> bool:
    """Say whether only what `wrote` did for one object has joined the current transaction.

    :param written: that object, which was not changed yet; None: it was told of none.
    """
    joined = connection.transaction_manager.get()._resources
    ownership: Ownership | None = getattr(connection, _NAME, None)
    if ownership is None or joined != [ownership]:
        return not joined
    noted = () if written is None else (id(written),)
    return ownership.written.keys() == {*noted} and not ownership.has_seen_stray


def removed(parent: Any, *objects: Any) -> None:
    """Take back `wrote` for what was new, and nothing refers to any more: it is not stored."""
    if parent._p_jar is not None:
        _ownership_of(parent._p_jar).forget(objects)


def is_id_again(error: BaseException) -> bool:
    """Say whether a new object was given an id that is in use.

    A client keeps a hundred ids in advance, so this may come to pass many times in a row,
    and is nobody's fault.
    """
    # Not `isinstance`, which asks the exception too what it is: it may be any task's.
    if is_kind(error, ConflictError):
        serials = vars(error).get("serials")
        return bool(serials and serials[1] == z64)
    # `transaction` tells it once more, as text, to who goes on after a savepoint has failed.
    return is_kind(error, (ValueError, TransactionError)) and any(
        type(text) is str and "already has the same oid" in text
        for text in attribute_of(BaseException, "args", error)
    )


def _ownership_of(connection: Any) -> Ownership:
    """Return what looks after a connection, joined to the current transaction."""
    # It is an attribute, but not set by way of `vars`: an object that was once asked for its dict
    # is slower ever after, and a commit asks its connection for a hundred attributes.
    txn = connection.transaction_manager.get()
    ownership: Ownership | None = getattr(connection, _NAME, None)
    if ownership is not None and ownership.is_joined and ownership.transaction is txn:
        return ownership
    if ownership is None or ownership.is_joined:  # to one that was left without its end
        ownership = Ownership(connection)
        setattr(connection, _NAME, ownership)
    ownership.join(txn)
    return ownership


class Ownership:
    """The data manager that has the last word; see the module's text.

    It belongs to one connection, and joins each transaction that writes anew.

    :ivar transaction: the one that it has joined last.
    :ivar written: what is written, by Python's id.
    :ivar gone: what was taken out; see `taken_out`.
    :ivar has_seen_stray: the transaction must not commit.
    :ivar empties_cache: disowned objects may be referred to, although none was seen.
    :ivar is_joined: it belongs to a transaction that goes on.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.transaction: Any = None
        self.written: dict[int, Any] = {}
        self.gone: list[Any] = []
        self.is_joined = False
        # After the databases, before those that cannot go back.
        self._sort_key = f"~remotetask:{id(self)}"

    def join(self, txn: Any) -> None:
        """Begin anew, in a transaction."""
        txn.join(self)
        # One that has joined after a savepoint leaves with its rollback.
        self.empties_cache = txn is self.transaction
        self.transaction = txn
        self.transaction_manager = self.connection.transaction_manager
        self.is_joined = True
        self.has_seen_stray = self._has_savepoint = False
        self._begun = time.monotonic()

    def forget(self, objects: tuple[Any, ...]) -> None:
        """Forget new objects that were removed; those that are stored are still looked at."""
        self.gone += objects
        for gone in objects:
            if gone._p_serial == z64:
                self.written.pop(id(gone), None)

    def sortKey(self) -> str:
        """See `IDataManager`."""
        return self._sort_key

    def tpc_begin(self, txn: Any) -> None:
        """See `IDataManager`."""

    def commit(self, txn: Any) -> None:
        """See `IDataManager`."""

    def tpc_vote(self, txn: Any) -> None:
        """See `IDataManager`.  The connection has stored everything by now, and has voted."""
        connection = self.connection
        if self.has_seen_stray:
            raise StrayObject
        stored = connection._cache.get  # what was stored lies there
        for written in self.written.values():
            if written._p_jar is not connection or stored(written._p_oid) is not written:
                self.has_seen_stray = True
                raise StrayObject(f"{type(written).__name__}: {StrayObject()}")
        seconds = time.monotonic() - self._begun
        if seconds > LOOK_SECONDS:
            changed = [w._p_oid for w in self.written.values() if w._p_serial != z64]
            limit = min(LOOK_SECONDS * len(self.written), MAX_LOOK_SECONDS)
            self._look(changed if seconds > limit else changed[:1])

    def _look(self, changed: list[bytes]) -> None:
        # A record that was removed and packed away is none that a change could collide with.
        # Who votes has the lock of the storage: what is there now will be there in the end.
        manager = transaction.TransactionManager()
        other = self.connection.db().open(manager)
        try:
            other.prefetch(changed)
            for oid in changed:
                found = other.get(oid)
                found._p_invalidate()  # it may lie in the cache
                found._p_activate()
        except (POSKeyError, ReadConflictError) as error:
            raise StrayObject("what was changed has been removed meanwhile") from error
        finally:
            manager.abort()
            other.close()

    def abort(self, txn: Any) -> None:
        """See `IDataManager`."""
        self.written.clear()
        self.gone.clear()
        self.is_joined = False
        if self.has_seen_stray or self.empties_cache:
            self._empty_cache()

    tpc_finish = abort

    def tpc_abort(self, txn: Any) -> None:
        """See `IDataManager`."""
        error = sys.exc_info()[1]  # which has brought it to that
        self.empties_cache |= self._has_savepoint or (error is not None and is_id_again(error))
        self.abort(txn)

    def _empty_cache(self) -> None:
        # Unless the connection was closed, and somebody else works with it by now.
        if self.connection.transaction_manager in (None, self.transaction_manager):
            # Of ghosts nobody knows what they refer to: it is looked up anew.
            self.connection.cacheMinimize()

    def should_retry(self, error: Exception) -> bool:
        """Say whether the transaction may succeed when it is repeated."""
        return is_id_again(error)

    def savepoint(self) -> Savepoint:
        """See `ISavepointDataManager`."""
        self._has_savepoint = True
        return Savepoint(self._restore, dict(self.written))

    def _restore(self, written: dict[int, Any]) -> None:
        # What was loaded since may refer to an object that this rollback disowns.
        self.empties_cache = True
        self.written = dict(written)  # one can go back to a savepoint several times


class Savepoint:
    """See `transaction.interfaces.IDataManagerSavepoint`."""

    def __init__(self, restore: Callable[[Any], None], written: Any) -> None:
        self._restore = restore
        self.written = written

    def rollback(self) -> None:
        """See `IDataManagerSavepoint`."""
        self._restore(self.written)
