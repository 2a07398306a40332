# SPDX-License-Identifier: ZPL-2.1
"""What each step of a job's way writes.  Nothing here begins, commits or aborts."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from BTrees.IIBTree import IITreeSet

from lovely.remotetask.aside import MISSING, load, why_unreadable, why_unusable
from lovely.remotetask.errors import (
    InvalidInput,
    InvalidResult,
    JobCancelled,
    JobInterrupted,
    RetryLater,
    UnknownZone,
    WorkerDied,
    WriteConflicts,
    check_honest,
    describe,
    name_of,
    seconds_of,
)
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING
from lovely.remotetask.job import SCHEDULE_ERRORS, CronJob, Failure, Job
from lovely.remotetask.retry import (
    DEATH_WAITS_SECONDS,
    DEFAULT_POLICY,
    MAX_COLLISIONS,
    collision_wait_seconds,
)
from lovely.remotetask.setting import bounds_of, read
from lovely.remotetask.storable import check_storable
from lovely.remotetask.surroundings import call_apart
from lovely.remotetask.task import TaskContext, check_output, running_in
from lovely.remotetask.witness import check_path, check_sound, removed, wrote
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
    return Claim(job.id, job.attempt, job.task, job.owner or "", bool(job.deaths_in_a_row))


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
    except BaseException:  # see `describe`
        text = "(the traceback cannot be printed)"
    return Failure(
        attempt,
        now,
        name_of(error),
        describe(error)[:MAX_MESSAGE],
        text[-MAX_TRACEBACK:],
    )


def settle(service: Any, job: Job, task: Any, error: BaseException, now: float) -> None:
    """Write down that an attempt failed: another one later, or the end of the job.

    Nothing that the exception or the retry policy does keeps this from its end.
    """
    wrote(service, job)
    failure = failure_of(error, job.attempt, now)
    # Not `isinstance`, which asks the exception too what it is.
    if issubclass(type(error), JobCancelled) or job.id in service.requests:
        job.note(failure)
        job.cancel(now)
        return
    if not issubclass(type(error), RetryLater):
        job.errors += 1
    try:
        wait = _wait_seconds(job, task, error)
    except BaseException as fault:  # the code of a policy, or of a `RetryLater`
        message = f"{failure.message} (when to try again cannot be told: {describe(fault)})"
        failure = failure._replace(message=message[:MAX_MESSAGE])
        wait = None
    if wait is None:
        job.fail(failure, now)
    else:
        job.note(failure)
        job.wait(now + wait)
    _rest(service, job)


def _rest(service: Any, job: Job) -> None:
    # Not filed here: the indexes are written by claims too, and a run that collides with
    # one would be repeated for nothing.  `retire` files the job.
    if not job.is_final:
        service.queue.assign(job)


def _wait_seconds(job: Job, task: Any, error: BaseException) -> float | None:
    policy = job.retry
    if policy is None:
        policy = getattr(task, "retry", None)
    if policy is None:
        policy = DEFAULT_POLICY
    wait = policy.wait_seconds(job.errors, error)
    return None if wait is None else seconds_of(wait, "the wait")


def call_task(service: Any, job: Job, task: Any, context: Callable[[], TaskContext]) -> Any:
    """Call the task of a job, and check what it returns.

    The task gets a copy of the input, and what is returned here is a copy of its result: what
    the task changes in them must not be stored with the record, now or by a later attempt.

    :raises InvalidInput: the input cannot be copied.
    :raises InvalidResult: the result cannot be stored or breaks the task's schema.
    """
    input = check_storable(job.input, InvalidInput, "the input")
    with running_in(job.id, context):
        try:
            output = call_apart(task, service, job.id, input)
            check_output(task, output)
            return check_storable(output, InvalidResult, "the result")
        except BaseException as error:
            check_honest(error)
            raise


def finish(service: Any, job: Job, output: Any, now: float) -> None:
    """Keep the result, of a job that `wrote` knows; a cron job waits for its next time."""
    job.finish(output, now)
    _rest(service, job)


def postpone(service: Any, job: Job, conflicts: int, error: BaseException, now: float) -> None:
    """Put back a job that has met write conflicts; one that meets nothing else has failed.

    :param conflicts: how many runs of this attempt have met one.
    """
    wrote(service, job)
    job.conflicts += conflicts
    job.collisions += conflicts
    if job.collisions >= MAX_COLLISIONS or job.id in service.requests:
        settle(service, job, None, WriteConflicts.after(job.collisions, error), now)
    else:
        job.postpone(now, collision_wait_seconds(job.collisions))
        _rest(service, job)


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
        job_log.warning("job %s: %s; it waits for a machine that knows it", job.id, error)
        return False
    except SCHEDULE_ERRORS as error:
        Job.fail(job, failure_of(error, job.attempt, now), now)
        retire(service, job.id, now)
        job_log.error("job %s: the stored schedule is broken: %s", job.id, describe(error))
        return False
    return True


def give_back(service: Any, job: Job, claim: Claim, is_running: bool, now: float) -> None:
    """Undo a claim, which then counts as no attempt, if the job is still held by it.

    :param is_running: it is being run, and stopped with its process: the job tells so, and what
        the run comes to collides.
    """
    is_held = job.is_held_by(claim.owner, claim.attempt)
    if is_running and (is_held or (claim.is_reserved and job.is_in_line)):
        message = f"the process {os.getpid()} on {socket.gethostname()} was stopped while it ran"
        message += " the job; it runs again"
        note = Failure(claim.attempt, now, JobInterrupted.__name__, message, "")
        if note not in job.failures:  # it is, if a commit came to pass although it has failed
            job.note(note)
            job_log.info("job %s: %s", job.id, message)
    if is_held:
        job.give_back(now)
        service.queue.file(job)


def retire(service: Any, jobid: int, now: float) -> None:
    """File a job whose run has ended, and heed the notes that were made while it ran.

    A cancel request that the run did not see holds for what would follow it: a further
    attempt, or the next run of a cron job.  A schedule that was edited counts from now on.
    """
    retire_jobs(service, [(jobid, load(service.jobs, jobid))], now)


def retire_jobs(service: Any, ended: Iterable[tuple[int, Job | None]], now: float) -> None:
    """Do as `retire`, with jobs that are loaded; None if one is gone or cannot be read."""
    service.queue.file_ended(
        [job for jobid, job in ended if _heed_notes(service, jobid, job, now) and job is not None]
    )


def _heed_notes(service: Any, jobid: int, job: Job | None, now: float) -> bool:
    """Heed the notes about a job whose run has ended; say whether it is to be filed."""
    if job is not None and job.status == PROCESSING:
        return False  # another worker has it by now, and the notes are about that run
    if take_note(service.requests, jobid) and job is not None and not job.is_final:
        service.queue.remove(job)
        job.cancel(now)
    take_note(service.progress, jobid)
    edit = take_note(service.edits, jobid)
    if edit is not None and isinstance(job, CronJob) and job.take_over(edit):
        try:
            service.queue.reschedule(job, now)
        except SCHEDULE_ERRORS:  # others, who have no part in the edit, have to go on
            service.queue.count_later(job, now)
    if job is None:
        return False
    if job.is_final and job.is_unwanted:
        remove_job(service, jobid)
        return False
    return job.is_final or isinstance(job.place, float)


def notes_of(service: Any) -> dict[str, Any]:
    """Return what holds the notes about running jobs, by name."""
    return {name: getattr(service, name) for name in ("requests", "progress", "edits")}


def take_note(notes: Any, jobid: int) -> Any:
    """Take the note about a job out, and return it (or True); None if there is none."""
    if jobid not in notes:
        return None
    check_path(notes, jobid)
    if isinstance(notes, IITreeSet):
        notes.remove(jobid)
        return True
    return notes.pop(jobid)


def find_worker(service: Any, worker_id: str) -> Worker | None:
    """Return the record of a worker, or None."""
    record: Worker | None = service.workers.get(worker_id)
    if record is not None:
        check_sound(service.workers, record)
    return record


def worker_record(service: Any, worker_id: str) -> Worker:
    """Return the record of a worker, to be written, made if there is none."""
    record = find_worker(service, worker_id)
    if record is None:
        check_path(service.workers, worker_id)
        record = service.workers[worker_id] = Worker()
    wrote(service, record)
    return record


def remove_worker(service: Any, worker_id: str) -> None:
    """Remove the record of a worker."""
    # Written although it is removed: what the worker itself still writes must collide.
    record = worker_record(service, worker_id)
    record.beat()
    check_path(service.workers, worker_id)
    del service.workers[worker_id]
    removed(service, record)


def release(service: Any, worker_id: str, jobid: int, now: float) -> None:
    """Take one job that has ended out of the record of a worker, and file it."""
    job = load(service.jobs, jobid)
    if job is not None and job.status == PROCESSING and job.owner == worker_id:
        return  # that worker has claimed it again
    record = find_worker(service, worker_id)
    if record is not None and jobid in record.held:
        wrote(service, record)
        record.held = tuple(held for held in record.held if held != jobid)
        if not record.held:
            remove_worker(service, worker_id)
    retire(service, jobid, now)


def orphans(service: Any) -> list[str]:
    """Return the ids of the workers of other processes."""
    local = local_ids(service)
    return [worker_id for worker_id in service.workers if worker_id not in local]


def rescue(service: Any, worker_id: str, now: float, serial: bytes | None = None) -> int:
    """Free the jobs that a dead worker holds; return their number.

    :param serial: the serial of the record by which the worker was found dead: with another
        one it has given a sign of life meanwhile.  None: it is dead in any case.

    Transaction: caller commits.
    """
    record = find_worker(service, worker_id)
    if record is None:
        return 0
    record._p_activate()  # a ghost has no serial
    if serial is not None and record._p_serial != serial:
        return 0
    freed = 0
    left = tuple(jobid for jobid in record.held if _is_beyond_help(service, jobid))
    for jobid in record.held:
        if jobid in left:
            continue
        job = load(service.jobs, jobid)
        if job is not None and job.is_in_line:  # it was reserved
            take(service, job, worker_id, now)
        if job is not None and job.status == PROCESSING and job.owner == worker_id:
            freed += 1
            _free(service, job, record, now)
        retire(service, jobid, now)
    if not left:
        remove_worker(service, worker_id)
    elif left != record.held:
        record.held = left
    return freed


def _is_beyond_help(service: Any, jobid: int) -> bool:
    """Say whether a job of a dead worker has to wait for somebody who can write its record."""
    job = service.jobs.get(jobid)
    if job is None:
        return False
    reason = why_unreadable(job, jobid)
    if reason is not None:
        return reason != MISSING
    is_written = not job.is_final or jobid in service.edits
    return is_written and why_unusable(job, jobid) is not None


def _free(service: Any, job: Job, record: Worker, now: float) -> None:
    if record.is_inline:  # no death: nobody knows whether it was being run, or the process lives
        message = f"the process {record.pid} on {record.host} claimed the job, and has not run it"
        job.note(Failure(job.attempt, now, JobInterrupted.__name__, message, ""))
        job_log.warning("job %s: %s; it waits again", job.id, message)
        give_back(service, job, claim_of(job), False, now)
        return
    job.deaths += 1
    deaths = job.deaths_in_a_row
    message = f"the process {record.pid} on {record.host} died while it held the job"
    is_last = deaths >= read(service, "max_deaths")
    if is_last:
        message = f"{deaths} processes died while they held the job; at last {message}"
    failure = Failure(job.attempt, now, WorkerDied.__name__, message, "")
    if job.id in service.requests:
        job.note(failure)
        job.cancel(now)
    elif is_last:
        Job.fail(job, failure, now)  # of a cron job too: it goes on with no further slot
    else:
        job.note(failure)
        job.wait(now + DEATH_WAITS_SECONDS[min(deaths, len(DEATH_WAITS_SECONDS)) - 1])
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
        job = load(service.jobs, jobid)
        # What cannot be read was filed here when it had ended.
        if jobid in service.jobs and (job is None or job.is_final):
            remove_job(service, jobid)
        removed += 1
    return removed


def remove_job(service: Any, jobid: int) -> None:
    """Remove a final job, and the notes about it: the id may be given again."""
    del service.jobs[jobid]
    for notes in notes_of(service).values():
        take_note(notes, jobid)


def prune(service: Any, now: float, size: int = PRUNE_SIZE) -> int:
    """Remove the jobs that the service's retention does not keep; return their number.

    Few at a time, at the old end of the indexes, where nobody adds.

    :param size: no more than this.
    """
    removed = 0
    for status, (max_age_seconds, max_count) in bounds_of(service):
        room = size - removed
        if max_count is not None:
            too_many = len(service.queue.indexes[status]) - max_count
            if too_many > 0:
                removed += remove_oldest(service, status, min(room, too_many), None)
        if max_age_seconds is not None and removed < size:
            before = now - max_age_seconds
            removed += remove_oldest(service, status, size - removed, before)
        service.queue.indexes[status].sweep()
    return removed
