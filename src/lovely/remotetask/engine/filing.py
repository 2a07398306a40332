# SPDX-License-Identifier: ZPL-2.1
"""Filing the jobs whose runs have ended.  Nothing here commits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lovely.remotetask.base.ownership import wrote
from lovely.remotetask.engine.following import tell_others
from lovely.remotetask.engine.retention import remove_job
from lovely.remotetask.engine.telling import note
from lovely.remotetask.events import JobCancelled
from lovely.remotetask.interfaces import ERROR, PROCESSING
from lovely.remotetask.job import SCHEDULE_ERRORS, Job, job_log
from lovely.remotetask.store.joblog import take_lines
from lovely.remotetask.store.keys import revive_key
from lovely.remotetask.store.notes import notes_of, take_note, why_edit_waits
from lovely.remotetask.store.quarantine import load, why_unusable
from lovely.remotetask.store.schedulekeys import let_go
from lovely.remotetask.store.worker import LEFT, find_worker, remove_worker, worker_record


def retire(service: Any, jobid: int, now: float) -> None:
    """File a job whose run has ended, and heed the notes that were made while it ran.

    A cancel request that the run did not see holds for what would follow it: a further
    attempt, or the next run of a cron job.  A schedule that was edited counts from now on; if that
    cannot be written here, the job is left to somebody who can.
    """
    retire_jobs(service, [(jobid, load(service.jobs, jobid))], now, is_at_once=True)


def retire_jobs(
    service: Any, ended: Iterable[tuple[int, Job | None]], now: float, is_at_once: bool = False
) -> None:
    """Do as `retire`, with jobs that are loaded; None if one is gone or cannot be read.

    :param is_at_once: they may have ended in the current transaction.
    """
    to_file, removed, left = [], [], []
    has_notes = any(notes_of(service).values())  # hardly ever
    for jobid, job in ended:
        if job is not None and job.status == PROCESSING:
            continue  # another worker has it by now, and the notes are about that run
        if has_notes and job is not None and (why := why_edit_waits(service, job)) is not None:
            job_log.error("job %s: %s; it waits for who can write it", job.__name__, why)
            left.append(job)
            continue
        is_cancelled = has_notes and _heed_notes(service, jobid, job, now)
        if _is_to_file(service, jobid, job, now, is_at_once or is_cancelled) and job is not None:
            to_file.append(job)
        elif job is not None and job.is_unwanted:
            removed.append(job)
    service.queue.file_ended(to_file)
    if removed:
        service.queue.free(removed)
    if left:
        _leave(service, left)


def _heed_notes(service: Any, jobid: int, job: Job | None, now: float) -> bool:
    """Heed the notes about a job whose run has ended; say whether it is cancelled by them."""
    is_cancelled = False
    if take_note(service.requests, jobid) and job is not None and not job.is_final:
        service.queue.remove(job)
        job.cancel(now)
        note(service, job, JobCancelled, now=now)
        is_cancelled = True
    take_note(service.progress, jobid)
    take_lines(service, jobid, job)
    edit = take_note(service.edits, jobid)
    if edit is not None and job is not None and _is_usable(edit, job):
        _heed_edit(service, job, edit, now)
    return is_cancelled


def _leave(service: Any, jobs: list[Job]) -> None:
    """Leave jobs to somebody who can write what they are to be; nobody waits for them."""
    service.queue.free(jobs)
    record = worker_record(service, LEFT)
    record.held = tuple(dict.fromkeys((*record.held, *(job.id for job in jobs))))


def _is_to_file(service: Any, jobid: int, job: Job | None, now: float, is_at_once: bool) -> bool:
    """Tell those who wait for a job that it has ended; say whether it is to be filed."""
    if job is None:
        if jobid not in service.jobs:
            tell_others(service, jobid, None, now)
        return False
    if not job.is_final:
        return isinstance(job.place, float)
    if job.status != ERROR or job.is_unwanted:
        let_go(service.queue, job)
    tell_others(service, jobid, job, now, is_at_once)
    if job.is_unwanted:
        remove_job(service, jobid)
        return False
    return True


def _heed_edit(service: Any, job: Job, edit: Any, now: float) -> None:
    was_final = job.is_final
    if not job.take_over(edit):
        return
    if was_final:
        revive_key(service.queue, service.jobs, job)
    try:
        service.queue.reschedule(job, now)
    except SCHEDULE_ERRORS:  # others, who have no part in the edit, have to go on
        service.queue.count_later(job, now)


def _is_usable(edit: Any, job: Job) -> bool:
    """Say whether what a job is to be can be stored at all; else others would have to wait."""
    reason = why_unusable(edit, job.id) if isinstance(edit, Job) else None
    if reason is not None:
        text = "job %s: what it was to be from now on is of no use here, it stays what it is: %s"
        job_log.error(text, job.__name__, reason)
    return reason is None


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
