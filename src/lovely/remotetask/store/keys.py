# SPDX-License-Identifier: ZPL-2.1
"""Which job has a unique key.

A table of keys that is only an index of the jobs: whoever has ended has no key any more, even if
the table still says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lovely.remotetask.errors import UniqueKeyTaken, shown
from lovely.remotetask.job import Job
from lovely.remotetask.store.names import MANY, NameTable
from lovely.remotetask.store.quarantine import MISSING, why_unreadable


def job_with(queue: Any, jobs: Mapping[int, Job], key: str) -> Job | None:
    """Return the job that waits or runs with a key; it may be one that cannot be read here."""
    if queue.keys is None:
        return None
    for jobid in queue.keys.get(key):
        job = jobs.get(jobid)
        if job is None:
            continue
        reason = why_unreadable(job, jobid)
        if reason is not None:
            return None if reason == MISSING else job
        if job.unique_key == key and not job.is_final:
            return job
    return None


def hold_key(queue: Any, job: Job) -> None:
    """Note that a job has its key."""
    if queue.keys is None:
        queue.keys = NameTable(MANY)
    queue.keys.put(job.unique_key, (job.id,))


def take_key(queue: Any, jobs: Mapping[int, Job], job: Job) -> None:
    """Give a job that had ended its key once more.

    :raises UniqueKeyTaken: another one has it by now.
    """
    if job.unique_key is None:
        return
    other = job_with(queue, jobs, job.unique_key)
    if other is not None and other is not job:
        raise UniqueKeyTaken(
            f"job {other.__name__} has the unique key {shown(job.unique_key)} of job"
            f" {job.__name__} by now"
        )
    hold_key(queue, job)


def free_key(queue: Any, job: Job) -> None:
    """Free the key of a job that has ended, if it still is that job's."""
    key = job.unique_key
    if key is not None and queue.keys is not None and queue.keys.get(key) == (job.id,):
        queue.keys.drop(key)


def revive_key(queue: Any, jobs: Mapping[int, Job], job: Job) -> None:
    """Give a job that goes on although it had ended its key once more, if nobody else has it."""
    try:
        take_key(queue, jobs, job)
    except UniqueKeyTaken:
        del job.unique_key
