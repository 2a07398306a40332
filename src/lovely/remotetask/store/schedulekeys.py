# SPDX-License-Identifier: ZPL-2.1
"""Which job is the schedule with a key.

An index, like the others: the record of the job decides (`CronJob.key`).  Who makes a schedule
writes its key, so of two who do that at once one commits.
"""

from __future__ import annotations

from typing import Any

from BTrees.OOBTree import OOBTree

from lovely.remotetask.base.ownership import check_path, check_sound
from lovely.remotetask.interfaces import ERROR
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.store.quarantine import load


def key_of(job: Job | None) -> str | None:
    """Return the key of a schedule; None if it has none, or is none."""
    return job.key if isinstance(job, CronJob) else None


def holder_id(queue: Any, key: str) -> int | None:
    """Return the id of the job that stands for a key in the index, or None."""
    check_sound(queue, queue.schedules)
    check_path(queue.schedules, key)
    jobid: int | None = queue.schedules.get(key)
    return jobid


def hold(queue: Any, job: CronJob) -> None:
    """Let a job be the schedule with its key."""
    queue._p_activate()
    if "schedules" not in vars(queue):  # nobody has used a key so far
        queue.schedules = OOBTree()
    check_sound(queue, queue.schedules)
    check_path(queue.schedules, job.key)
    queue.schedules[job.key] = job.id


def let_go(queue: Any, job: Job | None) -> None:
    """Free the key of a job that has ended or is removed, if it still holds it."""
    key = key_of(job)
    if job is not None and key is not None:
        drop(queue, key, job.id)


def drop(queue: Any, key: str, jobid: int) -> None:
    """Free a key, if this job holds it."""
    if holder_id(queue, key) == jobid:
        del queue.schedules[key]


def is_going(service: Any, job: Job) -> bool:
    """Say whether a schedule goes on: it has not ended, and nobody has asked for that."""
    return not job.is_final and job.id not in service.requests


def rival_of(service: Any, job: Job) -> int | None:
    """Return the id of another job that goes on with the key of this one, or None."""
    key = key_of(job)
    jobid = None if key is None else holder_id(service.queue, key)
    if jobid is None or jobid == job.id:
        return None
    rival = load(service.jobs, jobid)
    return jobid if key_of(rival) == key and rival and is_going(service, rival) else None


def trouble_of(service: Any, job: Job) -> tuple[str, bool] | None:
    """Return what is wrong with the key of a job, and whether `hold` mends it; None: nothing is."""
    key = key_of(job)
    if key is None or not is_going(service, job) or holder_id(service.queue, key) == job.id:
        return None
    rival = rival_of(service, job)
    if rival is None:
        return f"it is the schedule {key!r}, which is not found by this key", True
    return f"it is the schedule {key!r}, as job {rival} is: one of them is to be cancelled", False


def is_stale(service: Any, key: str, jobid: int) -> bool:
    """Say whether a key of the index stands for no schedule; of one that failed for good it does.

    Of a record that cannot be read here nothing can be said.
    """
    job = load(service.jobs, jobid)
    if job is None:
        return jobid not in service.jobs
    return key_of(job) != key or (job.is_final and job.status != ERROR)
