# SPDX-License-Identifier: ZPL-2.1
"""The inline form: jobs that run in the caller's transaction, without a processor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple

import transaction
from transaction import Savepoint
from transaction.interfaces import NoTransaction, TransientError

from lovely.remotetask.base.guard import asked, guarded
from lovely.remotetask.base.isolation import call_isolated
from lovely.remotetask.base.loglines import LogLines
from lovely.remotetask.base.ownership import check_parts, wrote
from lovely.remotetask.base.site import entered, site_of
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.claim import take
from lovely.remotetask.engine.fence import CHANGED
from lovely.remotetask.engine.filing import release
from lovely.remotetask.engine.following import tell_late
from lovely.remotetask.engine.identity import (
    caller_of,
    is_caller,
    is_exclusive,
    leave_claimed,
    note_claimed,
)
from lovely.remotetask.engine.outcome import Verdict, call_task, finish, judge, settle
from lovely.remotetask.engine.rescue import orphans, rescue
from lovely.remotetask.engine.telling import note
from lovely.remotetask.errors import (
    CannotTakeBack,
    JobCancelled,
    LoopIsRunning,
    RetryLater,
    TransactionMeddled,
    describe,
    is_kind,
    is_read_fault,
)
from lovely.remotetask.events import JobStarted
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.job import Job
from lovely.remotetask.store.joblog import new_lines
from lovely.remotetask.store.memory import Memory
from lovely.remotetask.store.worker import worker_record
from lovely.remotetask.task import TaskContext

Clock = Callable[[], float]

#: Repeats that are due within this many seconds follow at once: nobody is there to wait.
AT_ONCE_SECONDS = 1.0

#: Where a transaction keeps the hooks that a job may have added.
HOOKS = ("_before_commit", "_after_commit", "_before_abort", "_after_abort")

#: Where it keeps what is told of it.
TOLD = ("_user", "_description")


class Ran(NamedTuple):
    """A job was run.

    :ivar error: what it has raised.
    :ivar is_over: it has ended for good.
    :ivar text: what the error says.
    """

    error: BaseException | None
    is_over: bool
    text: str


def claim_inline(
    service: Any,
    owner: str,
    now: float,
    turn: int = 0,
    but: frozenset[int] | set[int] = frozenset(),
    accepts: Callable[[Job], bool] = lambda job: True,
    until: float | None = None,
) -> Job | None:
    """Claim the next job in the caller's transaction.

    :param turn: counts the calls, see `JobQueue.pull`.
    :param but: ids of jobs that are left alone.
    :param accepts: says whether the caller takes a job.
    :param until: jobs are taken that are due by then; None is `now`.
    """
    check_parts(service)
    if not but:
        service.queue.recount(service.jobs, now)
    # Nothing is remembered: the caller's transaction can be aborted, or rolled back to a savepoint.
    until = now if until is None else until
    memory = Memory(math.inf, but, until)
    tell_late(service, now)
    for job in service.queue.pull(service.jobs, until, turn=turn, memory=memory):
        if job.id in but or not accepts(job):
            continue
        if service.queue.is_held_back(job.task) or service.find_task(job.task) is None:
            service.queue.park(job)
        elif take(service, job, owner, now):
            note_claimed(service, job.id)
            found: Job = job
            return found
    return None


def claim_for_caller(
    service: Any,
    now: float,
    accepts: Callable[[Job], bool] = lambda job: True,
    until: float | None = None,
) -> int | None:
    """Claim the next job, to be run by `process_claimed`; return its id, or None."""
    caller = caller_of(service).id
    job = claim_inline(service, caller, now, _next_turn(service), accepts=accepts, until=until)
    if job is None:
        return None
    record = worker_record(service, caller)
    record.held = (*record.held, job.id)
    record.is_inline = True
    return job.id


def process_claimed(
    service: Any, job: Job, clock: Clock, at_once_seconds: float = AT_ONCE_SECONDS
) -> Ran | None:
    """Run a job that was claimed in a caller's transaction; None if it was not."""
    if job.status != PROCESSING or not is_caller(job.owner, service):
        return None
    return _run_and_release(service, job, clock, at_once_seconds)


def process_next(
    service: Any,
    clock: Clock,
    at_once_seconds: float = AT_ONCE_SECONDS,
    accepts: Callable[[Job], bool] = lambda job: True,
    until: float | None = None,
) -> Ran | None:
    """Claim and run the next job; None if there was none.

    :param at_once_seconds: repeats that are due within so many seconds follow in the same call.
    :param accepts: says whether the caller takes a job.
    :param until: see `claim_inline`.
    """
    turn = _next_turn(service)
    return process_one(service, clock, turn, set(), at_once_seconds, accepts, until)


def process_due(service: Any, clock: Clock) -> None:
    """Run the jobs that are due; one that asks to be run again at once waits for the next call.

    :param clock: asked before each job, and after it.
    """
    done: set[int] = set()
    while process_one(service, clock, len(done), done) and can_go_on(service):
        pass


def _next_turn(service: Any) -> int:
    # A hint that harms nobody, whatever becomes of the transaction.
    turn: int = getattr(service, "_v_turn", 0)
    service._v_turn = turn + 1
    return turn


def process_one(
    service: Any,
    clock: Clock,
    turn: int,
    done: set[int],
    at_once_seconds: float = AT_ONCE_SECONDS,
    accepts: Callable[[Job], bool] = lambda job: True,
    until: float | None = None,
) -> Ran | None:
    """Claim and run the next job that is not in `done`, and note it there; see `process_next`."""
    now = clock()
    if service._p_jar is not None and is_exclusive(service._p_jar.db().storage):
        for worker_id in orphans(service):
            rescue(service, worker_id, now)
    job = claim_inline(service, caller_of(service).id, now, turn, done, accepts, until)
    if job is None:
        return None
    done.add(job.id)
    return _run_and_release(service, job, clock, at_once_seconds)


def _run_and_release(service: Any, job: Job, clock: Clock, at_once_seconds: float) -> Ran:
    jobid, owner = job.id, job.owner or ""
    ran = run_inline(service, job, clock, at_once_seconds)
    release(service, owner, jobid, clock())
    if service.queue.gates is not None:  # somebody may have waited for what is free now
        registry.wake_after_commit(service)
    return ran


def run_inline(
    service: Any, job: Job, clock: Clock, at_once_seconds: float = AT_ONCE_SECONDS
) -> Ran:
    """Run a claimed job in the caller's transaction; see `ITaskService.processNext`.

    :returns: what has come of it the last time.
    :raises TransientError: the caller's transaction is to be repeated.  So it is where a storage
        that is away raises an error of its own.
    :raises CannotTakeBack: the caller's transaction is to be aborted.
    """
    owner = job.owner or ""
    with entered(site_of(service)):
        task = service.find_task(job.task)
        ran = _run_once(service, job, task, clock)
        while ran.error is not None and _is_taken_again(
            service, job, owner, clock(), at_once_seconds
        ):
            ran = _run_once(service, job, task, clock)
        return ran


def _run_once(service: Any, job: Job, task: Any, clock: Clock) -> Ran:
    """Run the job, and return what has come of it."""
    wrote(service, job)  # before the task runs, for it may take long
    note(service, job, JobStarted, now=clock())
    lines = new_lines(service, job.__name__, job.attempt, LogLines)
    error: BaseException | None
    if job.id in service.requests:
        error = JobCancelled()
    elif task is None:
        error = RetryLater(1.0, f"task {job.task!r} is not registered here")
    else:
        error = _attempt(service, job, task, clock, lines)
    if error is None:
        return Ran(None, job.is_final, "")
    verdict = _judged(service, job, task, error, clock())
    settle(service, job, verdict, clock(), lines)
    return Ran(error, job.is_final, verdict.text)


class _Answered(Exception):
    """Who was asked has answered: what they have done to the transaction is taken back."""


def _judged(service: Any, job: Job, task: Any, error: BaseException, now: float) -> Verdict:
    """Ask what is to follow a failure, and keep nothing else of that.

    :raises CannotTakeBack: that is not possible.
    """
    manager = _manager(service)
    if manager is None:
        return call_isolated(judge, job, task, error, now)
    if _without_savepoints(manager.get()):
        return asked(manager, judge, job, task, error, now)
    verdicts: list[Verdict] = []
    with suppress(_Answered), _taken_back(manager, job):
        verdicts.append(asked(manager, judge, job, task, error, now))
        raise _Answered
    return verdicts[0]


def _is_taken_again(service: Any, job: Job, owner: str, now: float, at_once_seconds: float) -> bool:
    """Take a job that has failed again if its repeat is due at once; say whether it was."""
    if not job.errors or job.due is None or job.due > now + at_once_seconds:
        return False
    return take(service, job, owner, job.due)


def _attempt(
    service: Any, job: Job, task: Any, clock: Clock, lines: LogLines | None
) -> BaseException | None:
    """Call the task and keep its result; return its error, when nothing of it is kept."""
    manager = _manager(service)
    place = nullcontext() if manager is None else _taken_back(manager, job)
    owner, attempt = job.owner or "", job.attempt
    try:
        with place:
            context = partial(TaskContext, service, job.id, job.attempt)
            output = call_task(service, job, task, context, lines)
            if not job.is_held_by(owner, attempt):
                raise TransactionMeddled(CHANGED)
            finish(service, job, output, clock(), lines)
    except (TransientError, CannotTakeBack):
        raise
    except LoopIsRunning:  # the caller's fault, and no attempt of the job
        job.give_back(clock())
        service.queue.file(job)
        raise
    except (Exception, SystemExit) as error:
        if is_read_fault(error):
            raise
        return error
    except (
        BaseException
    ):  # Ctrl-C, say, or the end of the caller's coroutine: no attempt of the job
        job.give_back(clock())
        service.queue.file(job)
        raise
    return None


def _manager(service: Any) -> Any:
    """Return the manager of the caller's transaction, or None if there is none."""
    jar = service._p_jar
    manager = transaction.manager.manager if jar is None else jar.transaction_manager
    try:
        manager.get()
    except NoTransaction:  # an explicit manager, and a service in no database
        return None
    return manager


@contextmanager
def _taken_back(manager: Any, job: Job) -> Iterator[None]:
    """Take back what is done in this block if it fails, and leave the transaction sound.

    :raises CannotTakeBack: that is not possible.
    """
    txn = manager.get()
    stuck = _without_savepoints(txn)
    point = txn.savepoint(optimistic=True)
    hooks = [(vars(txn)[name], len(vars(txn)[name])) for name in HOOKS]
    told = {name: vars(txn).get(name) for name in TOLD}
    extension = dict(txn.extension)
    failures: list[BaseException] = []

    def savepoint(optimistic: bool = False) -> Any:
        try:
            _try_savepoint(txn, optimistic)
        except BaseException as error:
            failures.append(error)
            raise
        return type(txn).savepoint(txn, optimistic)

    try:
        with guarded(manager, savepoint=savepoint):
            yield
        if failures:
            raise failures[0]
        _try_savepoint(txn, optimistic=True)
        _guard_hooks(manager, *hooks[0])  # after the commit nothing can be ended
    except BaseException as error:
        if is_kind(error, TransientError) or is_read_fault(error):
            with suppress(ValueError):  # it has failed already
                type(txn).doom(txn)  # what was done up to there is not to be kept by anybody
            raise
        for added, length in hooks:
            added[length:] = [hook for hook in added[length:] if hook[0] is leave_claimed]
        vars(txn).update((name, value) for name, value in told.items() if value is not None)
        txn.extension = extension
        if stuck:
            type(txn).doom(txn)  # a guard around this one would refuse its own
            if not isinstance(error, (Exception, SystemExit)):
                raise
            raise CannotTakeBack(
                f"job {job.__name__} failed ({describe(error)}), and what it may have written by"
                f" way of {type(stuck[0]).__qualname__}, which has no savepoints, cannot be taken"
                " back: abort the transaction"
            ) from error
        try:
            point.rollback()
        except Exception as fault:  # of a data manager that has joined since
            raise CannotTakeBack(
                f"job {job.__name__} failed ({describe(error)}), and what it has written cannot be"
                f" taken back ({describe(fault)}): abort the transaction"
            ) from error
        raise


def _guard_hooks(manager: Any, hooks: list[Any], length: int) -> None:
    """Let the hooks that a job has added not end the transaction that its caller commits."""
    hooks[length:] = [(_call_hook, (manager, *hook), {}) for hook in hooks[length:]]


def _call_hook(manager: Any, hook: Any, arguments: Any, keywords: Any) -> None:
    hooks = vars(manager.get())[HOOKS[0]]
    length = len(hooks)
    with guarded(manager):
        hook(*arguments, **keywords)
    _guard_hooks(manager, hooks, length)  # those that it has added are called next


def _try_savepoint(txn: Any, optimistic: bool) -> None:
    """Try to make a savepoint, which pickles what was written.

    Not by `txn.savepoint`: one that fails aborts all that has joined the transaction.
    """
    Savepoint(txn, optimistic, *txn._resources)


def _without_savepoints(txn: Any) -> list[Any]:
    return [joined for joined in txn._resources if not hasattr(joined, "savepoint")]


def can_go_on(service: Any) -> bool:
    """Say whether one more job can be run in the caller's transaction, even if it fails."""
    manager = _manager(service)
    return manager is None or not _without_savepoints(manager.get())
