# SPDX-License-Identifier: ZPL-2.1
"""What an application can tell a job: to start, to wait anew, to be cancelled.

Nothing here commits.
"""

from __future__ import annotations

import time
from typing import Any

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import check_parts, check_path
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.retention import remove_job
from lovely.remotetask.errors import (
    InvalidArgument,
    JobNotFound,
    JobUnusable,
    shown,
    whole_of,
)
from lovely.remotetask.interfaces import CRONJOB, DELAYED, PROCESSING, STARTLATER
from lovely.remotetask.job import CronJob, Job, keep_edit
from lovely.remotetask.store.quarantine import MISSING, why_unreadable, why_unusable


def find_job(service: Any, jobid: Any) -> Job:
    """Return a job.

    :raises JobNotFound: there is none.
    :raises JobUnusable: its record cannot be read here.
    """
    check_parts(service)
    number = whole_of(jobid)
    job: Job | None = None if number is None else service.jobs.get(number)
    if job is None:
        raise JobNotFound(f"there is no job {shown(jobid)}")
    _check_usable(jobid, why_unreadable(job, jobid))
    return job


def _check_usable(jobid: int, reason: str | None) -> None:
    if reason == MISSING:
        raise JobNotFound(f"there is no job {jobid}: {reason}")
    if reason is not None:
        raise JobUnusable(f"job {jobid}: {reason}")


def start_job(service: Any, jobid: int) -> bool:
    """Put a job that is to be started later into the ready queue; say whether it was one."""
    check_begun(service)
    job = find_job(service, jobid)
    if job.status != STARTLATER:
        return False
    _check_usable(jobid, why_unusable(job, jobid))
    service.queue.remove(job)
    job.wait(None)
    service.queue.file(job)
    registry.wake_after_commit(service)
    return True


def reschedule(service: Any, jobid: int) -> None:
    """Count the schedule of a waiting job from now; a running one does when its run has ended."""
    check_begun(service)
    job = find_job(service, jobid)
    if isinstance(job, CronJob) and job.status == PROCESSING:
        return
    if not isinstance(job, CronJob) or job.status not in (CRONJOB, DELAYED):
        raise InvalidArgument(f"job {jobid} waits for no time, it is {job.status}")
    _check_usable(jobid, why_unusable(job, jobid))
    service.queue.reschedule(job, time.time())
    registry.wake_after_commit(service)


def set_due(service: Any, job: Job, due: float | None) -> None:
    """Set when a waiting job may run; of a running one, when it may after that run.

    :param due: seconds since the epoch; None is at once.
    :raises InvalidArgument: the job has ended.
    """
    check_begun(service)
    check_parts(service)
    if job.is_final:
        raise InvalidArgument(f"job {job.__name__} has ended, it is {job.status}")
    if job.status == PROCESSING:
        keep_edit(service.edits, job, due)
        return
    _check_usable(job.id, why_unusable(job, job.id))
    if due is None:  # not in the ready queue once more: workers remember what is stale there
        due = min(job.created_at, time.time())
    service.queue.refile(job, due)
    registry.wake_after_commit(service)


def cancel(service: Any, jobid: int) -> None:
    """Cancel a job that waits, and ask for it where one runs; what is gone or over stays so."""
    check_begun(service)
    try:
        job = find_job(service, jobid)
    except JobNotFound:
        return
    jobid = job.id
    if job.is_final:
        return
    if job.status == PROCESSING:
        # Not in the job's record: that would collide with the end of the job.
        check_path(service.requests, jobid)
        service.requests.insert(jobid)
        return
    _check_usable(jobid, why_unusable(job, jobid))
    service.queue.remove(job)
    job.cancel(time.time())
    service.queue.file(job)


def discard(service: Any, jobid: int) -> None:
    """Cancel a job that waits, and remove it."""
    job = find_job(service, jobid)
    cancel(service, jobid)
    if job.is_final:
        service.queue.remove(job)
        remove_job(service, jobid)
