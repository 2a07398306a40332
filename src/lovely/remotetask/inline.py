# SPDX-License-Identifier: ZPL-2.1
"""The inline form: jobs that run in the caller's transaction, without a processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transaction.interfaces import TransientError

from lovely.remotetask.errors import JobCancelled, RetryLater, TransactionMeddled
from lovely.remotetask.job import Job
from lovely.remotetask.seat import Guard
from lovely.remotetask.site import entered, site_of
from lovely.remotetask.step import call_task, finish, settle, take
from lovely.remotetask.task import TaskContext, look_up
from lovely.remotetask.witness import check_parts, wrote

#: Repeats that are due within this many seconds follow at once: nobody is there to wait.
AT_ONCE_SECONDS = 1.0


def claim_inline(
    service: Any, owner: str, now: float, but: frozenset[int] | set[int] = frozenset()
) -> Job | None:
    """Claim the next job in the caller's transaction.

    :param but: ids of jobs that are left alone.
    """
    check_parts(service)
    for job in service.queue.pull(service.jobs, now, more=len(but)):
        if job.id in but:
            continue
        if look_up(service.taskInterface, job.task) is None:
            service.queue.park(job)
        elif take(service, job, owner, now):
            found: Job = job
            return found
    return None


def run_inline(service: Any, job: Job, now: float) -> None:
    """Run a claimed job in the caller's transaction; see `ITaskService.processNext`.

    :raises TransientError: the caller's transaction is to be repeated.
    :raises TransactionMeddled: the task has aborted the transaction in which the job, or the
        service, was added.
    """
    with entered(site_of(service)):
        task = look_up(service.taskInterface, job.task)
        while not _run_once(service, job, task, now):
            pass


def _run_once(service: Any, job: Job, task: Any, now: float) -> bool:
    """Run the job, and say whether that was all for now."""
    wrote(service, job)  # before the task runs, for it may take long
    jar = service._p_jar
    manager = None if jar is None else jar.transaction_manager
    point = None if manager is None else manager.savepoint(optimistic=True)
    owner = job.owner or ""
    try:
        if job.id in service.requests:
            raise JobCancelled
        if task is None:
            raise RetryLater(1.0, f"task {job.task!r} is not registered here")
        with _guarded(manager):
            output = call_task(service, job, task, TaskContext(service, job.id, job.attempt))
    except TransientError:
        raise
    except TransactionAborted as error:
        _fail_anew(service, job, owner, error, now)
        return True
    except Exception as error:
        if point is not None:
            point.rollback()
        settle(service, job, task, error, now)
        if not job.errors or job.due is None or job.due > now + AT_ONCE_SECONDS:
            return True
        return not take(service, job, owner, job.due)
    finish(service, job, output, now)
    return True


class TransactionAborted(TransactionMeddled):
    """A task must not abort the transaction it runs in."""


@contextmanager
def _guarded(manager: Any) -> Iterator[None]:
    """Let the task neither commit nor abort nor doom the caller's transaction."""
    if manager is None:
        yield
        return
    guard = Guard()
    txn = manager.get()
    manager.registerSynch(guard)
    try:
        with guard.armed(txn):
            yield
    finally:
        manager.unregisterSynch(guard)
        if manager.get() is not txn:
            raise TransactionAborted
    if guard.is_broken or txn.isDoomed():
        raise TransactionMeddled


def _fail_anew(service: Any, job: Job, owner: str, error: BaseException, now: float) -> None:
    # With the transaction the claim has gone: in the one that followed the job waits as
    # before, if it was committed at all.
    if service._p_jar is None or service.jobs.get(job.id) is not job:
        raise error
    take(service, job, owner, now)
    settle(service, job, None, error, now)
