# SPDX-License-Identifier: ZPL-2.1
"""The fence: whether a worker still holds what it has claimed."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.base.ownership import taken_out
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.errors import is_kind
from lovely.remotetask.job import Job
from lovely.remotetask.store.quarantine import load
from lovely.remotetask.store.worker import find_worker


class Fenced(Exception):
    """The job is no longer held by this worker."""


def held_job(service: Any, claim: Claim) -> Job:
    """Return the job of a claim, by its own record.

    :raises Fenced: it is no longer held.
    """
    job = load(service.jobs, claim.jobid)
    if job is None or not job.is_held_by(claim.owner, claim.attempt):
        raise Fenced
    return job


def ended_job(service: Any, claim: Claim) -> Job:
    """Return what `held_job` does, for who has run the job and not looked at it before.

    A job that has deleted itself is still held.
    """
    if claim.jobid in service.jobs:
        return held_job(service, claim)
    for gone in taken_out(service):
        if is_kind(gone, Job) and gone.id == claim.jobid:
            job: Job = gone
            return job
    raise Fenced


def check_held(service: Any, claim: Claim) -> None:
    """Check, for who is to run the job of a claim, that it is held; the job need not be loaded.

    The record of the worker tells, one for all that it holds: who takes a job away writes that too.
    Who comes to write the job has to look at its own.

    :raises Fenced: it is no longer held.
    """
    record = find_worker(service, claim.owner)
    if record is None or claim.jobid not in record.held:
        raise Fenced
