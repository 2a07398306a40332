# SPDX-License-Identifier: ZPL-2.1
"""What becomes of a run: its result, its failure, another attempt.  Nothing here commits."""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from lovely.remotetask.around import around_of, call_within
from lovely.remotetask.base.isolation import call_isolated
from lovely.remotetask.base.loglines import LogLines, keeping_lines
from lovely.remotetask.base.ownership import wrote
from lovely.remotetask.base.reference import resolved
from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.context import awaited
from lovely.remotetask.engine.following import follow_up
from lovely.remotetask.engine.protocol import NOT_COPIED, Claim
from lovely.remotetask.engine.telling import note_completed, note_failed
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    JobCancelled,
    RetryLater,
    attribute_of,
    check_honest,
    describe,
    is_kind,
    name_of,
    seconds_of,
)
from lovely.remotetask.job import Failure, Job
from lovely.remotetask.retry import (
    DEFAULT_POLICY,
    MAX_COLLISIONS,
    RetryPolicy,
    collision_wait_seconds,
)
from lovely.remotetask.store.joblog import add_lines
from lovely.remotetask.task import TaskContext, check_output, running_in

#: Characters that are kept of a message, and of a traceback (its end).
MAX_MESSAGE = 2_000
MAX_TRACEBACK = 8_000

#: How the names of this package's modules begin.
PACKAGE = "lovely.remotetask."


def failure_of(
    error: BaseException,
    attempt: int,
    now: float,
    message: str | None = None,
    text: str | None = None,
) -> Failure:
    """Describe an exception in text: the exception itself is never stored.

    :param message: None is what the exception says.
    :param text: its traceback, if that was told before.
    """
    return Failure(
        attempt,
        now,
        name_of(error),
        (describe(error) if message is None else message)[:MAX_MESSAGE],
        _traceback_of(error) if text is None else text,
    )


def tell_and_let_go(error: BaseException) -> str:
    """Return the traceback of an exception as text, and let go of what its frames hold.

    That may be what fills the disk, the file of a blob say, while there is room for nothing else.
    """
    text = _traceback_of(error)
    left: list[Any] = [error]
    seen = set()
    while left:
        each = left.pop()
        if id(each) in seen or not is_kind(each, BaseException):
            continue
        seen.add(id(each))
        # Not what a class of somebody's makes of these.
        links = [attribute_of(BaseException, name, each) for name in ("__cause__", "__context__")]
        left += [*links, *_members_of(each)]
        with suppress(Exception):  # of what has to end with its frame
            traceback.clear_frames(attribute_of(BaseException, "__traceback__", each))
    return text


def _members_of(error: BaseException) -> tuple[Any, ...]:
    kind: Any = getattr(builtins, "BaseExceptionGroup", None)  # since Python 3.11
    if kind is None or not is_kind(error, kind):
        return ()
    members: tuple[Any, ...] = attribute_of(kind, "exceptions", error)
    return members


def _traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, _from_task_on(error)))
    except BaseException:  # see `describe`
        text = "(the traceback cannot be printed)"
    return text[-MAX_TRACEBACK:]


def _from_task_on(error: BaseException) -> TracebackType | None:
    """Return the traceback without the calls by which this package has come to the task."""
    place = error.__traceback__
    while place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith(PACKAGE):
        place = place.tb_next
    return error.__traceback__ if place is None else place


class Verdict(NamedTuple):
    """What is made of a failure, before anything of it is written.

    :ivar failure: the failure, in text.
    :ivar wait: seconds until another attempt; None: it is the end of the job.
    :ivar is_error: it counts as an error of the job: it is no wish of the task.
    :ivar is_cancelled: the task has heeded that its job is cancelled.
    :ivar text: what the exception says, for the log.
    """

    failure: Failure
    wait: float | None
    is_error: bool
    is_cancelled: bool
    text: str

    def as_end(self, fault: BaseException) -> Verdict:
        """Return the verdict that it is the end of the job, as this one could not be kept.

        :param fault: what was raised instead; its code is called, as with `judge`.
        """
        remark = f"what follows cannot be kept: {describe(fault)}"
        return self._replace(failure=_with_remark(self.failure, remark), wait=None)


def judge(
    job: Job, task: Any, error: BaseException, now: float, told: str | None = None
) -> Verdict:
    """Ask what is to follow a failure: the exception, the retry policy, and who words messages.

    It calls their code, so it is to be called by way of `asked`, and nothing that they do to the
    transaction must be kept.

    :param told: the traceback, see `failure_of`.
    """
    text = describe(error)
    try:
        message = job.message_of(error)
    except BaseException:  # the code of an adapter
        message = None
    failure = failure_of(error, job.attempt, now, text if message is None else message, told)
    is_cancelled = is_kind(error, JobCancelled)
    is_error = not is_kind(error, RetryLater)
    wait = None
    if not is_cancelled:
        try:
            wait = _wait_seconds(job, task, job.errors + is_error, error)
        except BaseException as fault:  # the code of a policy, or of a `RetryLater`
            failure = _with_remark(failure, f"when to try again cannot be told: {describe(fault)}")
    return Verdict(failure, wait, is_error, is_cancelled, text)


def _with_remark(failure: Failure, remark: str) -> Failure:
    return failure._replace(message=f"{failure.message} ({remark})"[:MAX_MESSAGE])


def settle(
    service: Any, job: Job, verdict: Verdict, now: float, lines: LogLines | None = None
) -> None:
    """Write down that an attempt failed: another one later, or the end of the job.

    No code of the exception or of the retry policy is called, which could keep it from its end.

    :param lines: what the attempt has logged.
    """
    wrote(service, job)
    add_lines(service, job, lines)
    if verdict.is_cancelled or job.id in service.requests:
        job.note_failure(verdict.failure)
        job.cancel(now)
        note_failed(service, job, now)
        return
    _keep_failure(service, job, verdict, now)
    follow_up(service, job)


def settle_plainly(service: Any, job: Job, verdict: Verdict, now: float) -> None:
    """Write down no more than that a job has failed, as `settle` could not be committed."""
    wrote(service, job)
    _keep_failure(service, job, verdict, now)


def _keep_failure(service: Any, job: Job, verdict: Verdict, now: float) -> None:
    if verdict.is_error:
        job.errors += 1
    if verdict.wait is None:
        job.fail(verdict.failure, now)
    else:
        job.note_failure(verdict.failure)
        job.wait(now + verdict.wait)
    rest(service, job)
    note_failed(service, job, now)


def rest(service: Any, job: Job) -> None:
    """Let the queue know when a job is due again that has not ended."""
    # Not filed here: the indexes are written by claims too, and a run that collides with
    # one would be repeated for nothing.  `retire` files the job.
    if not job.is_final:
        service.queue.assign(job)


def _wait_seconds(job: Job, task: Any, errors: int, error: BaseException) -> float | None:
    policy: Any = job.retry
    if policy is None:
        policy = getattr(task, "retry", None)
    elif type(policy) is not RetryPolicy:
        # A copy: what it does to itself must not be stored with the job.
        policy = check_storable(policy, InvalidArgument, "the retry policy")
    if policy is None:
        policy = DEFAULT_POLICY
    wait = policy.wait_seconds(errors, error)
    return None if wait is None else seconds_of(wait, "the wait")


def call_task(
    service: Any,
    job: Job | None,
    task: Any,
    context: Callable[[], TaskContext],
    lines: LogLines | None = None,
    claim: Claim | None = None,
) -> Any:
    """Call the task of a job, and check what it returns.

    The task gets a copy of the input, and what is returned here is a copy of its result: what
    the task changes in them must not be stored with the record, now or by a later attempt.

    :param job: None: it is not needed, as the claim has its input, and nothing is around it.
    :param lines: keep what is logged meanwhile.
    :param claim: it may spare the job to be loaded.
    :raises InvalidInput: the input cannot be copied.
    :raises InvalidResult: the result cannot be stored or breaks the task's schema.
    """
    record: Any = job  # it is there where it is needed
    if claim is None:
        jobid, name, attempt = record.id, record.task, record.attempt
    else:
        jobid, name, attempt = claim.jobid, claim.task, claim.attempt
    if claim is not None and claim.input is not NOT_COPIED:
        input, carried, call = claim.input, None, partial(_result_of, task)
    else:
        input, carried, call = record.input, record.carried, partial(_result_of_copy, task)
    with running_in(jobid, context, name, attempt), keeping_lines(lines):
        try:
            arounds = around_of(service, job, carried)
            if arounds:
                output = call_isolated(call_within, arounds, job, call, service, input)
            else:
                output = call_isolated(call, service, jobid, input)
            check_output(task, output)
            connection = service._p_jar
            return check_storable(output, InvalidResult, "the result", connection=connection)
        except BaseException as error:
            if job is not None and service._p_jar is not None:
                job._p_deactivate()  # what the run has changed in it in place is not to be stored
            check_honest(error)
            raise


def _result_of_copy(task: Any, service: Any, jobid: int, input: Any) -> Any:
    # Within what is around the job: what its input refers to is found by the job's own user.
    input = check_storable(input, InvalidInput, "the input", exchange=resolved)
    return _result_of(task, service, jobid, input)


def _result_of(task: Any, service: Any, jobid: int, input: Any) -> Any:
    return awaited(service, jobid, task(service, jobid, input))


def finish(service: Any, job: Job, output: Any, now: float, lines: LogLines | None = None) -> None:
    """Keep the result, of a job that `wrote` knows; a cron job waits for its next time.

    :param lines: what the run has logged.
    """
    job.finish(output, now)
    add_lines(service, job, lines)
    rest(service, job)
    note_completed(service, job, now)
    if job.on_success is not None:
        follow_up(service, job)


def postpone(service: Any, job: Job, conflicts: int, now: float) -> bool:
    """Put back a job that has met write conflicts; say no of one that meets nothing else.

    :param conflicts: how many runs of this attempt have met one.
    """
    wrote(service, job)
    job.conflicts += conflicts
    job.collisions += conflicts
    if job.collisions >= MAX_COLLISIONS or job.id in service.requests:
        return False
    job.postpone(now, collision_wait_seconds(job.collisions))
    rest(service, job)
    return True
