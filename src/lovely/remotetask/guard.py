# SPDX-License-Identifier: ZPL-2.1
"""The guard of a transaction: a task must neither end nor replace the one it runs in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lovely.remotetask.errors import TransactionMeddled, describe


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

    def refuse(end: Callable[[], None]) -> None:
        if threading.get_ident() != thread:
            return end()
        refusals.append(TransactionMeddled())
        raise refusals[-1]

    attributes = vars(txn)
    methods["commit"] = partial(refuse, txn.commit)
    methods["abort"] = partial(refuse, txn.abort)
    methods["doom"] = partial(refuse, txn.doom)
    hidden = [name for name in methods if name in attributes]  # by a guard around this one
    before = [attributes[name] for name in hidden]
    attributes.update(methods)
    try:
        yield
    except Exception as error:
        if refusals and not isinstance(error, TransactionMeddled):
            raise TransactionMeddled(f"{refusals[0]} ({describe(error)})") from error
        raise
    finally:
        for name in methods:
            del attributes[name]
        attributes.update(zip(hidden, before, strict=True))
    if refusals:
        raise refusals[0]
    if manager.get() is not txn:  # by `manager.free`
        raise TransactionMeddled
