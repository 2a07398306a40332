# SPDX-License-Identifier: ZPL-2.1
"""Which jobs expire if they have not started by a time.

An index by that time, which claims do not write: an entry stays when its job starts, and goes
when its time has come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from lovely.remotetask.base.ownership import check_sound
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.job import Job
from lovely.remotetask.store.index import tick
from lovely.remotetask.store.quarantine import load_usable
from lovely.remotetask.store.timeindex import TimeIndex


def watch_expiry(queue: Any, job: Job) -> None:
    """Note that a job expires."""
    if queue.expiring is None:
        queue.expiring = TimeIndex()
    check_sound(queue, queue.expiring)
    queue.expiring.insert(job.expires_at, job.id)


def is_watched(queue: Any, job: Job) -> bool:
    """Say whether it was noted that a job expires, or need not be any more."""
    if job.expires_at is None or not is_unstarted(job):
        return True
    return queue.expiring is not None and (tick(job.expires_at), job.id) in queue.expiring


def is_unstarted(job: Job) -> bool:
    """Say whether a job waits for its first start."""
    return not job.attempt and not job.is_final and job.status != PROCESSING


def has_expired(job: Job, now: float) -> bool:
    """Say whether a job that waits is not to be started any more."""
    return job.expires_at is not None and job.expires_at <= now and is_unstarted(job)


def take_expired(queue: Any, jobs: Any, now: float, size: int) -> Iterator[Job | None]:
    """Take the entries out whose time has come, yield for each the job that has expired, or None.

    :param size: no more than so many.
    """
    if queue.expiring is None:
        return
    check_sound(queue, queue.expiring)
    for when, jobid in list(islice(queue.expiring.between(-math.inf, now), size)):
        job = load_usable(jobs, jobid)
        if job is None and jobid in jobs:
            continue  # somebody who can write its record will
        queue.expiring.remove(when, jobid)
        has_come = job is not None and has_expired(job, now) and tick(job.expires_at or 0.0) == when
        yield job if has_come else None
