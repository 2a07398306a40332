# SPDX-License-Identifier: ZPL-2.1
"""The guard of transactions: nobody ends or replaces one that is in use, or writes without one."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from transaction._transaction import Status
from transaction.interfaces import AlreadyInTransaction, NoTransaction
from ZODB.Connection import Connection

from lovely.remotetask.base.isolation import call_isolated
from lovely.remotetask.errors import TransactionMeddled, describe, is_kind

Result = TypeVar("Result")
Kept = TypeVar("Kept")

#: Synchronizers of these classes are connections to databases, which go by what they need.
_connections: list[type] = [Connection]


def stay_registered(kind: type[Kept]) -> type[Kept]:
    """Take note that synchronizers of a class are to outlive what has registered them."""
    _connections.append(kind)
    return kind


def check_begun(written: Any) -> None:
    """Refuse to write where no transaction has begun, which only an explicit manager asks for.

    Who writes without one finds that out too late: a BTree is changed by then, and stays so in
    this connection, though nothing of it will be stored.

    :param written: something persistent, of the connection that is to be written through.
    :raises NoTransaction: it is so.
    """
    if written._p_jar is not None:
        written._p_jar.transaction_manager.get()


class guarded:
    """Let what runs in a ``with`` block, in its thread, not end the current transaction.

    The transaction itself refuses, so it does not matter which way a call comes; who begins
    another one aborts the current one first.  A call that is refused has changed nothing.
    Hooks and synchronizers are asked too late for that: a commit has dropped the savepoints
    by then, and an abort cannot be refused at all.

    From other threads an abort goes through: closing the database aborts the transactions of
    all threads, and that is not the task's doing.

    The synchronizers of the manager, which are called in all transactions to come, are given back
    as they were.

    :param methods: further methods that take the place of the transaction's own.
    :raises TransactionMeddled: a call was refused, whatever was made of that in the block.
    """

    def __init__(self, manager: Any, **methods: Callable[..., Any]) -> None:
        self._manager = manager
        self._methods = methods

    def __enter__(self) -> None:
        self._txn = self._manager.get()
        self._thread = threading.get_ident()
        self._synchs = _synchs_of(self._manager)
        self._refusal: TransactionMeddled | None = None
        attributes = vars(self._txn)
        self._methods.update(commit=self._commit, abort=self._abort, doom=self._doom)
        # What is there already is that of a guard around this one.
        self._before = {name: attributes[name] for name in self._methods if name in attributes}
        attributes.update(self._methods)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        attributes = vars(self._txn)
        for name in self._methods:
            del attributes[name]
        attributes.update(self._before)
        _give_back(self._manager, self._synchs)
        self._synchs = []
        self._methods.clear()  # which refer to this guard: nobody is to look for such circles
        if self._is_freed():
            # By `manager.free`: whoever is around still goes by the transaction.
            self._manager._txn = self._txn
            self._refusal = TransactionMeddled()
        elif self._refusal is None and is_kind(error, AlreadyInTransaction):
            self._refusal = TransactionMeddled()  # by `begin`, of a manager in explicit mode
        if self._refusal is None:
            return
        if error is None:
            raise self._refusal
        if is_kind(error, Exception) and not is_kind(error, TransactionMeddled):
            raise TransactionMeddled(f"{self._refusal} ({describe(error)})") from error

    def _is_freed(self) -> bool:
        try:
            return self._manager.get() is not self._txn
        except NoTransaction:  # a manager in explicit mode
            return True

    def _commit(self) -> None:
        self._refuse()

    def _doom(self) -> None:
        self._refuse()

    def _abort(self) -> None:
        if threading.get_ident() == self._thread:
            self._refuse()
        own = type(self._txn).abort.__get__(self._txn)
        self._before.get("abort", own)()

    def _refuse(self) -> NoReturn:
        self._refusal = TransactionMeddled()
        raise self._refusal


def commit_whole(txn: Any) -> None:
    """Commit a transaction, which nobody ends before it has come to pass.

    A data manager could, or what is pickled.  The storage would stay locked: what holds the lock
    would be forgotten.  After the commit it may be ended, and from other threads: see `guarded`.

    :raises TransactionMeddled: a call was refused, and that has ended the commit.
    """
    attributes = vars(txn)
    thread = threading.get_ident()
    own = {"commit": txn.commit, "abort": txn.abort}
    before = {name: attributes[name] for name in own if name in attributes}

    def refusing(end: Callable[[], None]) -> Callable[[], None]:
        def refuse() -> None:
            is_mine = threading.get_ident() == thread
            if is_mine and txn.status in (Status.ACTIVE, Status.COMMITTING):
                raise TransactionMeddled
            end()

        return refuse

    attributes.update({name: refusing(end) for name, end in own.items()})
    try:
        own["commit"]()
    finally:
        for name in own:
            del attributes[name]
        attributes.update(before)
        own.clear()  # see `guarded`


def _synchs_of(manager: Any) -> list[Any]:
    """Return the synchronizers of a manager, which it keeps to itself."""
    synchs = getattr(manager, "_synchs", None)
    if synchs is None:
        return []
    found = (reference() for reference in synchs.as_weakref_list())
    return [synch for synch in found if synch is not None]


def _give_back(manager: Any, before: list[Any]) -> None:
    """Let a manager have the synchronizers that it had before; those of connections stay."""
    now = _synchs_of(manager)
    if len(now) == len(before) and all(map(operator.is_, now, before)):
        return
    kept = {*map(id, before)}
    there = {*map(id, now)}
    for synch in now:
        if id(synch) not in kept and not is_kind(synch, tuple(_connections)):
            manager.unregisterSynch(synch)
    for synch in before:
        # A connection that was closed meanwhile has left.
        if id(synch) not in there and getattr(synch, "transaction_manager", manager) is manager:
            manager._synchs.add(synch)


def asked(manager: Any, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call what asks somebody's code, and return its answer.

    The thread is given back as it was, and the transaction cannot be ended.  Whatever else is done
    to that is the caller's to take back.
    """
    answers: list[Result] = []
    try:
        with guarded(manager):
            answers.append(call_isolated(function, *arguments))
    except TransactionMeddled:
        if not answers:  # else it was refused to who has an answer all the same
            raise
    return answers[0]
