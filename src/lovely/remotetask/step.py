# SPDX-License-Identifier: ZPL-2.1
"""What each step of a job's way writes.  Nothing here begins, commits or aborts."""

from __future__ import annotations

import logging
import traceback
from typing import Any, NamedTuple

from lovely.remotetask.errors import (
    InvalidResult,
    JobCancelled,
    RetryLater,
    WorkerDied,
    describe,
)
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING
from lovely.remotetask.job import SCHEDULE_ERRORS, Failure, Job
from lovely.remotetask.retry import DEATH_WAITS_SECONDS, DEFAULT_POLICY, MAX_DEATHS
from lovely.remotetask.storable import check_storable
from lovely.remotetask.task import TaskContext, check_output, running_in
from lovely.remotetask.worker import Worker, local_ids

#: Records about single jobs: beside the package's logger, not below it.
job_log = logging.getLogger("remotetask.job")

#: Characters that are kept of a message, and of a traceback (its end).
MAX_MESSAGE = 2_000
MAX_TRACEBACK = 8_000


#: No more jobs than this are removed in one transaction of the retention.
PRUNE_SIZE = 500

DAY_SECONDS = 86_400.0


class Retention(NamedTuple):
    """How long jobs with a final status are kept.

    :ivar max_age_seconds: seconds since they ended; None is for ever.
    :ivar max_count: how many of them; None is any number.
    """

    max_age_seconds: float | None = None
    max_count: int | None = None


DEFAULT_RETENTION = {
    COMPLETED: Retention(30 * DAY_SECONDS, 1_000_000),
    CANCELLED: Retention(30 * DAY_SECONDS, 1_000_000),
    ERROR: Retention(90 * DAY_SECONDS, 1_000_000),
}


class Claim(NamedTuple):
    """The right to run one attempt of one job.

    One that ``is_reserved`` stands in the worker's record alone, and the job's still says
    that it waits: `Engine.run_together` writes it once, when it has run.
    """

    jobid: int
    attempt: int
    task: str
    owner: str
    is_suspect: bool = False
    is_reserved: bool = False


def claim_of(job: Job) -> Claim:
    """Return the claim that stands in the record of a processing job."""
    return Claim(job.id, job.attempt, job.task, job.owner or "", bool(job.deaths))


def can_share(job: Job, task: Any) -> bool:
    """Say whether a waiting job may be reserved, to share a commit with others.

    One that has failed before, or whose process has died, has left the line for good.
    """
    return (
        job.is_in_line
        and getattr(task, "shared_commit", False)
        and getattr(task, "timeout_seconds", None) is None
    )


def reserve(job: Job, owner: str) -> Claim:
    """Return the claim of a waiting job whose record is not written before it has run."""
    return Claim(job.id, job.attempt + 1, job.task, owner, is_reserved=True)


def failure_of(error: BaseException, attempt: int, now: float) -> Failure:
    """Describe an exception in text: the exception itself is never stored."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:
        text = "(the traceback cannot be printed)"
    return Failure(
        attempt,
        now,
        type(error).__name__,
        describe(error)[:MAX_MESSAGE],
        text[-MAX_TRACEBACK:],
    )


def settle(service: Any, job: Job, task: Any, error: BaseException, now: float) -> None:
    """Write down that an attempt failed: another one later, or the end of the job."""
    failure = failure_of(error, job.attempt, now)
    if isinstance(error, JobCancelled) or job.id in service.requests:
        job.note(failure)
        job.cancel(now)
        return
    policy = job.retry or getattr(task, "retry", None) or DEFAULT_POLICY
    if not isinstance(error, RetryLater):
        job.errors += 1
    wait = policy.wait_seconds(job.errors, error)
    if wait is None:
        job.fail(failure, now)
    else:
        job.note(failure)
        job.wait(now + wait)
    if not job.is_final:
        service.queue.file(job)


def call_task(service: Any, job: Job, task: Any, context: TaskContext) -> Any:
    """Call the task of a job, and check what it returns.

    :raises InvalidResult: the result cannot be stored or breaks the task's schema.
    """
    with running_in(context):
        output = task(service, job.id, job.input)
    check_output(task, output)
    check_storable(output, InvalidResult, "the result")
    return output


def finish(service: Any, job: Job, output: Any, now: float) -> None:
    """Keep the result; a cron job waits for its next time."""
    job.finish(output, now)
    if not job.is_final:
        service.queue.file(job)


def take(service: Any, job: Job, owner: str, now: float) -> bool:
    """Claim one waiting job; say whether it can be run.

    A job whose stored schedule is broken is set aside as an error, it alone.
    """
    service.queue.remove(job)
    try:
        job.start(owner, now)
    except SCHEDULE_ERRORS as error:
        Job.fail(job, failure_of(error, job.attempt, now), now)
        retire(service, job.id, now)
        job_log.error("job %s: the stored schedule is broken: %s", job.id, describe(error))
        return False
    return True


def retire(service: Any, jobid: int, now: float) -> None:
    """File a job that has ended, and drop the notes that were made while it ran.

    A cancel request that the run did not see holds for what would follow it: a further
    attempt, or the next run of a cron job.
    """
    job = service.jobs.get(jobid)
    if job is not None and job.status == PROCESSING:
        return  # another worker has it by now, and the notes are about that run
    if jobid in service.requests:
        service.requests.remove(jobid)
        if job is not None and not job.is_final:
            service.queue.remove(job)
            job.cancel(now)
    if jobid in service.progress:
        del service.progress[jobid]
    if job is not None and job.is_unwanted:
        remove_job(service, jobid)
    elif job is not None and job.is_final:
        service.queue.file(job)


def worker_record(service: Any, worker_id: str) -> Worker:
    """Return the record of a worker, made if there is none."""
    record: Worker | None = service.workers.get(worker_id)
    if record is None:
        record = service.workers[worker_id] = Worker()
    return record


def remove_worker(service: Any, worker_id: str) -> None:
    """Remove the record of a worker."""
    # Written although it is removed: what the worker itself still writes must collide.
    service.workers[worker_id].beat()
    del service.workers[worker_id]


def release(service: Any, worker_id: str, jobid: int, now: float) -> None:
    """Take one job that has ended out of the record of a worker, and file it."""
    record = service.workers.get(worker_id)
    if record is not None and jobid in record.held:
        record.held = tuple(held for held in record.held if held != jobid)
        if not record.held:
            remove_worker(service, worker_id)
    retire(service, jobid, now)


def orphans(service: Any) -> list[str]:
    """Return the ids of the workers of other processes."""
    local = local_ids()
    return [worker_id for worker_id in service.workers if worker_id not in local]


def rescue(service: Any, worker_id: str, now: float) -> int:
    """Free the jobs that a dead worker holds; return their number.

    Transaction: caller commits.
    """
    record = service.workers.get(worker_id)
    if record is None:
        return 0
    freed = 0
    for jobid in record.held:
        job = service.jobs.get(jobid)
        if job is not None and job.is_in_line:  # it was reserved
            take(service, job, worker_id, now)
        if job is not None and job.status == PROCESSING and job.owner == worker_id:
            freed += 1
            _free(service, job, record, now)
        retire(service, jobid, now)
    remove_worker(service, worker_id)
    return freed


def _free(service: Any, job: Job, record: Worker, now: float) -> None:
    job.deaths += 1
    message = f"the process {record.pid} on {record.host} died while it held the job"
    if job.deaths >= MAX_DEATHS:
        message = f"{job.deaths} processes died while they held the job; at last {message}"
    failure = Failure(job.attempt, now, WorkerDied.__name__, message, "")
    if job.id in service.requests:
        job.note(failure)
        job.cancel(now)
    elif job.deaths >= MAX_DEATHS:
        Job.fail(job, failure, now)  # of a cron job too: it goes on with no further slot
    else:
        job.note(failure)
        job.wait(now + DEATH_WAITS_SECONDS[job.deaths - 1])
        service.queue.file(job)
    job_log.warning("job %s: %s", job.id, message)


def remove_oldest(service: Any, status: str, limit: int | None, before: float | None) -> int:
    """Remove final jobs, those that ended first; see `TaskService.remove_oldest`."""
    index = service.queue.indexes[status]
    removed = 0
    for when, jobid in index.oldest(limit):
        if before is not None and when >= before:
            break
        index.remove(when, jobid)
        job = service.jobs.get(jobid)
        if job is not None and job.is_final:
            remove_job(service, jobid)
        removed += 1
    return removed


def remove_job(service: Any, jobid: int) -> None:
    """Remove a final job, and the notes about it: the id may be given again."""
    del service.jobs[jobid]
    if jobid in service.requests:
        service.requests.remove(jobid)
    if jobid in service.progress:
        del service.progress[jobid]


def prune(service: Any, now: float) -> int:
    """Remove the jobs that the service's retention does not keep; return their number.

    Few at a time, at the old end of the indexes, where nobody adds.
    """
    removed = 0
    for status, (max_age_seconds, max_count) in service.retention.items():
        room = PRUNE_SIZE - removed
        if max_count is not None:
            too_many = len(service.queue.indexes[status]) - max_count
            if too_many > 0:
                removed += remove_oldest(service, status, min(room, too_many), None)
        if max_age_seconds is not None and removed < PRUNE_SIZE:
            before = now - max_age_seconds
            removed += remove_oldest(service, status, PRUNE_SIZE - removed, before)
        service.queue.indexes[status].sweep()
    return removed
