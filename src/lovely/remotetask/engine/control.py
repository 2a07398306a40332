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
from lovely.remotetask.engine.filing import release
from lovely.remotetask.engine.finding import list_page
from lovely.remotetask.engine.following import await_others, reopen, tell_others, why_never
from lovely.remotetask.engine.retention import remove_job
from lovely.remotetask.engine.telling import note
from lovely.remotetask.errors import (
    InvalidArgument,
    JobIsLive,
    JobNotFound,
    JobUnusable,
    shown,
    whole_of,
)
from lovely.remotetask.events import JobCancelled
from lovely.remotetask.interfaces import (
    CANCELLED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.job import CronJob, Job, keep_edit
from lovely.remotetask.store import pauses, schedulekeys
from lovely.remotetask.store.keys import job_with, take_key
from lovely.remotetask.store.notes import why_edit_waits
from lovely.remotetask.store.quarantine import MISSING, why_unreadable, why_unusable

#: In the place of an input that stays what it is.
NOT_GIVEN: Any = object()


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
    check_usable(jobid, why_unreadable(job, jobid))
    return job


def check_usable(jobid: int, reason: str | None) -> None:
    """Raise why a job is of no use here, if it is not."""
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
    check_usable(jobid, why_unusable(job, jobid))
    service.queue.remove(job)
    job.wait(None)
    service.queue.file(job)
    registry.wake_after_commit(service)
    return True


def reschedule(service: Any, jobid: int) -> None:
    """Count the schedule of a waiting job from now; a running one does when its run has ended."""
    check_begun(service)
    job = find_job(service, jobid)
    if isinstance(job, CronJob) and (job.status == PROCESSING or job.is_set_later):
        return
    if not isinstance(job, CronJob) or job.status not in (CRONJOB, DELAYED):
        raise InvalidArgument(f"job {jobid} waits for no time, it is {job.status}")
    check_usable(jobid, why_unusable(job, jobid))
    service.queue.reschedule(job, time.time())
    registry.wake_after_commit(service)


def rest(service: Any, jobid: int) -> None:
    """Let a schedule rest: it runs no more, until `go_on`.

    :raises InvalidArgument: it is none, or it runs just now.
    """
    check_begun(service)
    job = find_job(service, jobid)
    if not isinstance(job, CronJob) or job.status != CRONJOB:
        raise InvalidArgument(f"job {jobid} is no schedule that waits, it is {job.status}")
    check_usable(jobid, why_unusable(job, jobid) or why_edit_waits(service, job))
    service.queue.remove(job)
    job.rest()
    service.queue.file(job)


def go_on(service: Any, jobid: int) -> None:
    """Let a schedule that rests wait for its next time.

    :raises InvalidArgument: it is none, or does not rest.
    """
    check_begun(service)
    job = find_job(service, jobid)
    if not isinstance(job, CronJob) or job.status != STARTLATER:
        raise InvalidArgument(f"job {jobid} is no schedule that rests, it is {job.status}")
    check_usable(jobid, why_unusable(job, jobid))
    service.queue.reschedule(job, time.time())
    registry.wake_after_commit(service)


def retry(service: Any, jobid: int, given: Any = NOT_GIVEN) -> None:
    """Let a job that has ended in vain run again; see `ITaskService.retry`.

    :param given: its new input, which has been checked.
    :raises InvalidArgument: it is no error, and was not cancelled.
    :raises UniqueKeyTaken: another job has its unique key by now.
    """
    check_begun(service)
    job = find_filed(service, jobid)
    if job.status not in (ERROR, CANCELLED):
        raise InvalidArgument(f"job {job.__name__} is {job.status}: there is nothing to repeat")
    check_usable(jobid, why_unusable(job, jobid))
    if (rival := schedulekeys.rival_of(service, job)) is not None:
        raise InvalidArgument(f"job {job.__name__}: job {rival} is the schedule with its key now")
    why = why_never(service, job) if job.awaits else None
    if why is not None:
        raise InvalidArgument(f"job {job.__name__} cannot run: {why}")
    take_key(service.queue, service.jobs, job)
    service.queue.remove(job)
    job.renew(time.time())
    if isinstance(job, CronJob) and job.key is not None:
        schedulekeys.hold(service.queue, job)
    if given is not NOT_GIVEN:
        job.input = given
    if job.awaits:
        await_others(service, job)
    if job.membership is not None:
        reopen(service, job)
    service.queue.file(job)
    registry.wake_after_commit(service)


def find_filed(service: Any, jobid: int) -> Job:
    """Return a job that is where its record says, filed if need be.

    Otherwise its worker has yet to do that, and would do it by what it has seen: of the two one
    commits, as both write the worker's record.
    """
    job = find_job(service, jobid)
    if job.is_unwanted:
        raise JobNotFound(f"there is no job {jobid}: it is about to be removed")
    if job.status != PROCESSING and service.queue.has_to_be_filed(job):
        check_usable(jobid, why_edit_waits(service, job))
        for worker_id, worker in list(service.workers.items()):
            if job.id in worker.held:
                release(service, worker_id, job.id, time.time())
    return job


def retry_all(service: Any, task: str | None, before: float | None, limit: int) -> int:
    """Let errors run again, those that ended first; see `ITaskService.retry_all`."""
    retried = 0
    after: str | None = None
    while True:
        page = list_page(service, ERROR, task, "oldest", after)
        for job in page.jobs:
            if before is not None and (job.completed_at or 0.0) >= before:
                return retried
            if why_unusable(job, job.id) is None and not _is_to_stay(service, job):
                retry(service, job.id)
                retried += 1
            if retried == limit:
                return retried
        after = page.next
        if after is None:
            return retried


def _is_to_stay(service: Any, job: Job) -> bool:
    """Say whether a job that has ended cannot be repeated.

    Another one has its key by now, of a schedule or a unique one, or it waits for one in vain.
    """
    if schedulekeys.rival_of(service, job) is not None:
        return True
    if job.awaits and why_never(service, job) is not None:
        return True
    key = job.unique_key
    return key is not None and job_with(service.queue, service.jobs, key) is not None


def run_now(service: Any, jobid: int) -> None:
    """Let a job that waits for a time be due at once; see `ITaskService.run_now`."""
    check_begun(service)
    job = find_filed(service, jobid)
    if job.status not in (QUEUED, DELAYED, CRONJOB):
        raise InvalidArgument(f"job {job.__name__} waits for no time, it is {job.status}")
    if job.awaits:
        others = ", ".join(map(str, job.awaits))
        raise InvalidArgument(f"job {job.__name__} waits for other jobs: {others}")
    if job.is_ready:
        return
    check_usable(jobid, why_unusable(job, jobid))
    service.queue.refile(job, time.time())
    registry.wake_after_commit(service)


def pause(service: Any, task: str | None) -> None:
    """Let no job, or none of a task, be claimed; see `ITaskService.pause`."""
    check_begun(service)
    check_parts(service)
    pauses.pause(service.queue, task)


def resume(service: Any, task: str | None) -> None:
    """Let jobs be claimed again; see `ITaskService.resume`."""
    check_begun(service)
    check_parts(service)
    pauses.resume(service.queue, task)
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
    check_usable(job.id, why_unusable(job, job.id))
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
    cancel_job(service, job)


def cancel_job(service: Any, job: Job) -> None:
    """Cancel a job that waits, and ask for it where one runs; what is over stays so."""
    if job.is_final:
        return
    if job.status == PROCESSING:
        # Not in the job's record: that would collide with the end of the job.
        check_path(service.requests, job.id)
        service.requests.insert(job.id)
        return
    check_usable(job.id, why_unusable(job, job.id))
    now = time.time()
    service.queue.remove(job)
    job.cancel(now)
    service.queue.file(job)
    schedulekeys.let_go(service.queue, job)
    note(service, job, JobCancelled)
    tell_others(service, job.id, job, now, is_at_once=True)
    if service.queue.gates is not None:  # it may have been this one's turn
        registry.wake_after_commit(service)


def remove(service: Any, jobid: int) -> None:
    """Remove a job that has ended.

    :raises JobIsLive: it waits or runs.
    """
    check_begun(service)
    job = find_filed(service, jobid)
    if not job.is_final:
        raise JobIsLive(f"job {job.__name__} is {job.status}: cancel it first")
    service.queue.remove(job)
    remove_job(service, jobid)


def discard(service: Any, jobid: int) -> None:
    """Cancel a job that waits, and remove it."""
    job = find_job(service, jobid)
    cancel_job(service, job)
    if job.is_final:
        service.queue.remove(job)
        remove_job(service, jobid)
