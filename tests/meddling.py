# SPDX-License-Identifier: ZPL-2.1
"""What a task could do to the transaction that it runs in, by the thread's own manager."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import transaction


def commit() -> None:
    transaction.commit()


def abort() -> None:
    transaction.abort()


def begin() -> None:
    transaction.begin()


def doom() -> None:
    transaction.doom()


def abort_and_commit() -> None:
    transaction.abort()
    transaction.commit()


def commit_twice() -> None:
    with suppress(Exception):
        transaction.commit()
    transaction.commit()


def commit_and_abort() -> None:
    with suppress(Exception):
        transaction.commit()
    transaction.abort()


def commit_in_a_block() -> None:
    with transaction.manager:
        pass


def commit_by_attempts() -> None:
    for attempt in transaction.attempts(3):
        with attempt:
            pass


def commit_through_the_transaction() -> None:
    transaction.get().commit()


def run_another() -> None:
    transaction.manager.run(lambda: None)


MEDDLING: list[Callable[[], None]] = [
    commit,
    abort,
    begin,
    doom,
    abort_and_commit,
    commit_twice,
    commit_and_abort,
    commit_in_a_block,
    commit_by_attempts,
    commit_through_the_transaction,
    run_another,
]
