# SPDX-License-Identifier: ZPL-2.1
"""The guard of a transaction: a task must neither end nor replace the one it runs in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lovely.remotetask.errors import TransactionMeddled, describe

#: What ends a transaction, or sees to it that it cannot be committed.
ENDS = ("commit", "abort", "doom")


@contextmanager
def guarded(manager: Any, **methods: Callable[..., Any]) -> Iterator[None]:
    """Let what runs in this block, in this thread, not end the current transaction.

    The transaction itself refuses, so it does not matter which way a call comes; who begins
    another one aborts the current one first.  A call that is refused has changed nothing.
    Hooks and synchronizers are asked too late for that: a commit has dropped the savepoints
    by then, and an abort cannot be refused at all.

    From other threads the calls go through: closing the database aborts the transactions of
    all threads, and that is not the task's doing.

    :param methods: further methods that take the place of the transaction's own.
    :raises TransactionMeddled: a call was refused, whatever was made of that in the block.
    """
    txn = manager.get()
    thread = threading.get_ident()
    refusals: list[TransactionMeddled] = []

    def refusing(end: Callable[[], None]) -> Callable[[], None]:
        def refuse() -> None:
            if threading.get_ident() != thread:
                return end()
            refusals.append(TransactionMeddled())
            raise refusals[-1]

        return refuse

    replaced = {**{name: refusing(getattr(txn, name)) for name in ENDS}, **methods}
    attributes = vars(txn)
    before = {name: attributes[name] for name in replaced if name in attributes}
    attributes.update(replaced)
    try:
        yield
    except Exception as error:
        if refusals and not isinstance(error, TransactionMeddled):
            raise TransactionMeddled(f"{refusals[0]} ({describe(error)})") from error
        raise
    finally:
        for name in replaced:
            attributes.pop(name, None)
        attributes.update(before)  # those of the guard around this one
    if refusals:
        raise refusals[0]
    if manager.get() is not txn:  # by `manager.free`
        raise TransactionMeddled
