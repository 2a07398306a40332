# SPDX-License-Identifier: ZPL-2.1
"""What a claim writes.  Nothing here begins, commits or aborts."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from typing import Any

from lovely.remotetask.base.storable import PLAIN_TYPES
from lovely.remotetask.engine.filing import retire
from lovely.remotetask.engine.following import follow_up, is_free
from lovely.remotetask.engine.outcome import failure_of
from lovely.remotetask.engine.protocol import NOT_COPIED, Claim
from lovely.remotetask.engine.telling import note, note_failed
from lovely.remotetask.errors import JobExpired, JobInterrupted, UnknownZone, describe
from lovely.remotetask.events import JobCancelled
from lovely.remotetask.job import SCHEDULE_ERRORS, CronJob, Failure, Job, job_log, time_at
from lovely.remotetask.store.expiry import has_expired, take_expired
from lovely.remotetask.store.gates import Turns

#: Inputs of up to so many characters are copied to the claim.
MAX_COPIED = 1_000


def claim_of(job: Job, limits: Collection[str] = ()) -> Claim:
    """Return the claim that stands in the record of a processing job.

    :param limits: the names of the tasks that are limited.
    """
    has_gate = job.lock is not None or job.task in limits
    ends_alone = not has_gate and job.on_success is None and job.on_error is None
    return Claim(
        job.id,
        job.attempt,
        job.task,
        job.owner or "",
        bool(job.deaths_in_a_row),
        name=job.__name__,
        has_gate=has_gate,
        input=_copied(job) if ends_alone else NOT_COPIED,
        ends_alone=ends_alone,
    )


def _copied(job: Job) -> Any:
    input = job.input
    is_short = type(input) not in (str, bytes) or len(input) <= MAX_COPIED
    is_all = is_short and job.carried is None
    return input if is_all and type(input) in PLAIN_TYPES else NOT_COPIED


def can_share(queue: Any, job: Job, task: Any) -> bool:
    """Say whether a waiting job may be reserved, to share a commit with others.

    One that has failed before, or whose process has died, has left the ready queue for good.
    Who comes to a gate has to be seen there, and who expires is not to be looked at late.
    """
    return (
        job.is_ready
        and getattr(task, "shared_commit", False)
        and job.expires_at is None
        and job.lock is None
        and job.task not in queue.limits
        and getattr(task, "timeout_seconds", None) is None
    )


def reserve(job: Job, owner: str) -> Claim:
    """Return the claim of a waiting job whose record is not written before it has run."""
    return Claim(job.id, job.attempt + 1, job.task, owner, is_reserved=True, name=job.__name__)


def take(service: Any, job: Job, owner: str, now: float, in_turn: Turns | None = None) -> bool:
    """Claim one waiting job; say whether it can be run.

    A job whose stored schedule is broken is set aside as an error, it alone.  One whose time
    zone is not known here waits until it comes to where it is, and one that waits for other jobs
    until they are completed.  One whose lock is held, or whose task has reached its limit, waits
    until that is free.

    :param in_turn: see `Gates.enter`.
    """
    queue = service.queue
    if job.awaits and not is_free(service, job, now):
        return False
    if job.expires_at is not None and has_expired(job, now):
        expire(service, job, now)
        return False
    try:
        # It ended where nobody could count.  (One that was given a delay since runs its once.)
        if isinstance(job, CronJob) and job.due is None and job.delay is None:
            queue.remove(job)
            job.go_on(now)
            queue.file(job)
            return False
        if (job.lock is not None or job.task in queue.limits) and not queue.enter(
            service.jobs, job, in_turn
        ):
            return False
        queue.remove(job)
        job.start(owner, now)
    except UnknownZone as error:
        service.queue.park_for_zone(job)
        job_log.warning("job %s: %s; it waits for a machine that knows it", job.__name__, error)
        return False
    except SCHEDULE_ERRORS as error:
        Job.fail(job, failure_of(error, job.attempt, now), now)
        note_failed(service, job, now)
        follow_up(service, job)
        retire(service, job.id, now)
        job_log.error("job %s: the stored schedule is broken: %s", job.__name__, describe(error))
        return False
    return True


def expire(service: Any, job: Job, now: float) -> None:
    """Cancel a job that was not started in time."""
    service.queue.remove(job)
    text = f"the job had not started by {time_at(job.expires_at):%Y-%m-%d %H:%M:%S} UTC"
    job.note_failure(Failure(job.attempt, now, JobExpired.__name__, text, ""))
    job.cancel(now)
    note(service, job, JobCancelled, now=now)
    retire(service, job.id, now)
    job_log.info("job %s: %s", job.__name__, text)


def expire_waiting(service: Any, now: float, size: int) -> int:
    """Cancel jobs that were not started in time; return how many entries were looked at."""
    looked = 0
    for job in take_expired(service.queue, service.jobs, now, size):
        looked += 1
        if job is not None:
            expire(service, job, now)
    return looked


def give_back(service: Any, job: Job, claim: Claim, is_running: bool, now: float) -> None:
    """Undo a claim, which then counts as no attempt, if the job is still held by it.

    :param is_running: it is being run, and stopped with its process: the job tells so, and what
        the run comes to collides.
    """
    is_held = job.is_held_by(claim.owner, claim.attempt)
    if is_running and (is_held or (claim.is_reserved and job.is_ready)):
        message = f"the process {os.getpid()} on {socket.gethostname()} was stopped while it ran"
        message += " the job; it runs again"
        note = Failure(claim.attempt, now, JobInterrupted.__name__, message, "")
        if note not in job.failures:  # it is, if a commit came to pass although it has failed
            job.note_failure(note)
            job_log.info("job %s: %s", job.__name__, message)
    if is_held:
        job.give_back(now)
        service.queue.file(job)
