# SPDX-License-Identifier: ZPL-2.1
"""How long jobs that have ended are kept, and their end.  Nothing here commits."""

from __future__ import annotations

from typing import Any, NamedTuple

from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR
from lovely.remotetask.setting import bounds_of
from lovely.remotetask.store.notes import notes_of, take_note
from lovely.remotetask.store.quarantine import load, why_unusable
from lovely.remotetask.store.schedulekeys import let_go

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
            let_go(service.queue, job)
            remove_job(service, jobid)
        removed += 1
    return removed


def clean(service: Any, statuses: list[str]) -> dict[str, int]:
    """Remove all jobs with some final statuses; return how many there were of each."""
    removed = dict.fromkeys(statuses, 0)
    for worker in service.workers.values():
        for jobid in worker.held:
            job = load(service.jobs, jobid)
            if job is None or job.status not in statuses:
                continue
            if service.queue.is_filed(job) or job.is_unwanted:
                continue
            if why_unusable(job, jobid) is None:
                # The worker is about to file it: so that neither is disturbed, it removes
                # the job instead, or if that is too late, the next who cleans.
                job.is_unwanted = True
                removed[job.status] += 1
    for status in removed:
        removed[status] += remove_oldest(service, status, None, None)
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
