# SPDX-License-Identifier: ZPL-2.1
"""What a task could do to the transaction that it runs in, or to its own job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import transaction

from lovely.remotetask.engine.fence import Fenced
from lovely.remotetask.task import TaskContext


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


def manager_of(context: TaskContext) -> Any:
    return context.service._p_jar.transaction_manager


def hook(context: TaskContext, function: Callable[[], object]) -> None:
    manager_of(context).get().addBeforeCommitHook(function)


def hook_aborts(context: TaskContext) -> None:
    hook(context, manager_of(context).abort)


def hook_begins(context: TaskContext) -> None:
    hook(context, manager_of(context).begin)


def hook_commits(context: TaskContext) -> None:
    hook(context, manager_of(context).commit)


def hook_swallows(context: TaskContext) -> None:
    def swallow() -> None:
        with suppress(Exception):
            manager_of(context).abort()

    hook(context, swallow)


def hook_of_a_hook_aborts(context: TaskContext) -> None:
    hook(context, lambda: hook_aborts(context))


def hook_changes_status(context: TaskContext) -> None:
    job = context.service.jobs[context.jobid]
    hook(context, lambda: setattr(job, "status", "queued"))


def hook_raises_fenced(context: TaskContext) -> None:
    hook(context, lambda: raise_fenced(context))


class Ender:
    """A data manager that ends the transaction as its commit begins, before all others."""

    def __init__(self, transaction_manager: Any, end: Callable[[], object]) -> None:
        self.transaction_manager = transaction_manager
        self._end = end

    def sortKey(self) -> str:
        return ""

    def tpc_begin(self, txn: Any) -> None:
        self._end()

    def abort(self, txn: Any) -> None:
        pass

    commit = tpc_vote = tpc_finish = tpc_abort = abort


def _join(context: TaskContext, end: Callable[[], object]) -> None:
    manager = manager_of(context)
    manager.get().join(Ender(manager, end))


def data_manager_aborts(context: TaskContext) -> None:
    _join(context, manager_of(context).abort)


def data_manager_commits(context: TaskContext) -> None:
    _join(context, manager_of(context).commit)


def data_manager_drops_all(context: TaskContext) -> None:
    connection: Any = context.service._p_jar
    _join(context, lambda: connection.abort(manager_of(context).get()))


def raise_fenced(context: TaskContext) -> None:
    raise Fenced


def change_status(context: TaskContext) -> None:
    context.service.jobs[context.jobid].status = "queued"


def change_owner(context: TaskContext) -> None:
    context.service.jobs[context.jobid].owner = "somebody"


#: What ends the transaction when the task has come to its end.
ENDING: list[Callable[[TaskContext], None]] = [
    hook_aborts,
    hook_begins,
    hook_commits,
    hook_swallows,
    hook_of_a_hook_aborts,
    data_manager_aborts,
    data_manager_commits,
]

#: What makes it look as if the job were no longer held.
HIDING: list[Callable[[TaskContext], None]] = [
    hook_changes_status,
    hook_raises_fenced,
    data_manager_drops_all,
    raise_fenced,
    change_status,
    change_owner,
]
