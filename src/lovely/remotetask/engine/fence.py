# SPDX-License-Identifier: ZPL-2.1
"""The fence: whether a worker still holds what it has claimed."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.base.ownership import taken_out, wrote
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.errors import TransactionMeddled, is_kind
from lovely.remotetask.job import Job
from lovely.remotetask.store.quarantine import load
from lovely.remotetask.store.worker import find_worker

#: What a task is told that has done so.
CHANGED = "a task must not change the record of its own job"


class Fenced(Exception):
    """The job is no longer held by this worker."""


class no_fence:
    """Let nothing that a task raises in a ``with`` block pass for the fence.

    :raises TransactionMeddled: it has raised `Fenced`.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        if kind is not None and issubclass(kind, Fenced):
            raise TransactionMeddled("a task must not raise Fenced") from error


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


def own_job(service: Any, claim: Claim, job: Job | None, is_in_hand: bool) -> Job:
    """Return the job of a claim whose task has run, to be written.

    One that the task has changed is stored as it was: the next claim would find it held, as if it
    had not run.  So it is to be a failure; and who keeps that sees whether it is held in truth.

    :param job: None if it was not loaded.
    :param is_in_hand: whether the worker itself knows of the claim.
    :raises TransactionMeddled: it is not held, though it is in hand.
    :raises Fenced: it is no longer held.
    """
    try:
        if job is None:
            job = ended_job(service, claim)
            wrote(service, job)
        elif not job.is_held_by(claim.owner, claim.attempt):
            raise Fenced
    except Fenced:
        if is_in_hand:
            raise TransactionMeddled(CHANGED) from None
        raise
    return job


def check_held(service: Any, claim: Claim) -> None:
    """Check, for who is to run the job of a claim, that it is held; the job need not be loaded.

    The record of the worker tells, one for all that it holds: who takes a job away writes that too.
    Who comes to write the job has to look at its own.

    :raises Fenced: it is no longer held.
    """
    record = find_worker(service, claim.owner)
    if record is None or claim.jobid not in record.held:
        raise Fenced
