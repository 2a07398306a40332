# SPDX-License-Identifier: ZPL-2.1
"""What a claim writes.  Nothing here begins, commits or aborts."""

from __future__ import annotations

import os
import socket
from typing import Any

from lovely.remotetask.base.storable import PLAIN_TYPES
from lovely.remotetask.engine.filing import retire
from lovely.remotetask.engine.outcome import failure_of
from lovely.remotetask.engine.protocol import NOT_COPIED, Claim
from lovely.remotetask.errors import JobInterrupted, UnknownZone, describe
from lovely.remotetask.job import SCHEDULE_ERRORS, CronJob, Failure, Job, job_log

#: Inputs of up to so many characters are copied to the claim.
MAX_COPIED = 1_000


def claim_of(job: Job) -> Claim:
    """Return the claim that stands in the record of a processing job."""
    return Claim(
        job.id,
        job.attempt,
        job.task,
        job.owner or "",
        bool(job.deaths_in_a_row),
        name=job.__name__,
        input=_copied(job.input),
    )


def _copied(input: Any) -> Any:
    is_short = type(input) not in (str, bytes) or len(input) <= MAX_COPIED
    return input if type(input) in PLAIN_TYPES and is_short else NOT_COPIED


def can_share(job: Job, task: Any) -> bool:
    """Say whether a waiting job may be reserved, to share a commit with others.

    One that has failed before, or whose process has died, has left the ready queue for good.
    """
    return (
        job.is_ready
        and getattr(task, "shared_commit", False)
        and getattr(task, "timeout_seconds", None) is None
    )


def reserve(job: Job, owner: str) -> Claim:
    """Return the claim of a waiting job whose record is not written before it has run."""
    return Claim(job.id, job.attempt + 1, job.task, owner, is_reserved=True, name=job.__name__)


def take(service: Any, job: Job, owner: str, now: float) -> bool:
    """Claim one waiting job; say whether it can be run.

    A job whose stored schedule is broken is set aside as an error, it alone.  One whose time
    zone is not known here waits until it comes to where it is.
    """
    service.queue.remove(job)
    try:
        # It ended where nobody could count.  (One that was given a delay since runs its once.)
        if isinstance(job, CronJob) and job.due is None and job.delay is None:
            job.go_on(now)
            service.queue.file(job)
            return False
        job.start(owner, now)
    except UnknownZone as error:
        service.queue.park_for_zone(job)
        job_log.warning("job %s: %s; it waits for a machine that knows it", job.__name__, error)
        return False
    except SCHEDULE_ERRORS as error:
        Job.fail(job, failure_of(error, job.attempt, now), now)
        retire(service, job.id, now)
        job_log.error("job %s: the stored schedule is broken: %s", job.__name__, describe(error))
        return False
    return True


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
