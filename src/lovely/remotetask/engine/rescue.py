# SPDX-License-Identifier: ZPL-2.1
"""What dead workers held is freed.  Nothing here commits."""

from __future__ import annotations

from typing import Any, Protocol

from lovely.remotetask.engine.claim import claim_of, give_back, take
from lovely.remotetask.engine.filing import retire
from lovely.remotetask.engine.following import follow_up
from lovely.remotetask.engine.identity import local_ids
from lovely.remotetask.engine.telling import note, note_failed
from lovely.remotetask.errors import JobInterrupted, WorkerDied
from lovely.remotetask.events import JobRescued
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.job import Failure, Job, job_log
from lovely.remotetask.retry import DEATH_WAITS_SECONDS
from lovely.remotetask.setting import read
from lovely.remotetask.store.notes import why_edit_waits
from lovely.remotetask.store.quarantine import MISSING, load, why_unreadable, why_unusable
from lovely.remotetask.store.worker import find_worker, remove_worker


def orphans(service: Any) -> list[str]:
    """Return the ids of the workers of other processes."""
    local = local_ids(service)
    return [worker_id for worker_id in service.workers if worker_id not in local]


def told_dead(service: Any) -> list[str]:
    """Return the ids of the workers whose processes are dead, as their supervisor has told."""
    return [worker_id for worker_id, record in service.workers.items() if record.has_ended]


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
        if job is not None and job.is_ready:  # it was reserved
            take(service, job, worker_id, now)
        if job is not None and job.status == PROCESSING and job.owner == worker_id:
            freed += 1
            free_job(service, job, record, now)
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
    if is_written and why_unusable(job, jobid) is not None:
        return True
    return why_edit_waits(service, job) is not None


class Holder(Protocol):
    """Who has claimed a job."""

    @property
    def host(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def is_inline(self) -> bool: ...


def free_job(service: Any, job: Job, record: Holder, now: float) -> None:
    """Free a job that a dead worker holds.

    :param record: that of the worker.
    """
    if record.is_inline:  # no death: nobody knows whether it was being run, or the process lives
        message = f"the process {record.pid} on {record.host} claimed the job, and has not run it"
        job.note_failure(Failure(job.attempt, now, JobInterrupted.__name__, message, ""))
        job_log.warning("job %s: %s; it waits again", job.__name__, message)
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
        job.note_failure(failure)
        job.cancel(now)
    elif is_last:
        Job.fail(job, failure, now)  # of a cron job too: it goes on with no further slot
        follow_up(service, job)
    else:
        job.note_failure(failure)
        job.wait(now + DEATH_WAITS_SECONDS[min(deaths, len(DEATH_WAITS_SECONDS)) - 1])
        service.queue.file(job)
    job_log.warning("job %s: %s", job.__name__, message)
    note(service, job, JobRescued, failure=failure, now=now)
    if job.is_final:
        note_failed(service, job, now)
