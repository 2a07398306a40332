# SPDX-License-Identifier: ZPL-2.1
"""Find, and mend, what disagrees between the jobs and their indexes.

The protocol keeps them in agreement.  What does not: jobs that were deleted by hand, an
undone transaction, a restored or partly copied database.  The job's record is what counts;
the indexes are made to follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING, STARTLATER, STATUSES
from lovely.remotetask.job import Job
from lovely.remotetask.line import load

#: How many jobs one step looks at.
STEP_SIZE = 1000


class Problem(NamedTuple):
    """One thing that disagrees.

    :ivar jobid: the job it is about, or None.
    :ivar text: what it is, for people.
    """

    jobid: int | None
    text: str


def check_jobs(
    service: Any, now: float, repair: bool, first: int = 0, size: int | None = None
) -> tuple[list[Problem], int]:
    """Check a step's worth of jobs.

    :param first: the id to begin with.
    :param size: how many jobs; None is `STEP_SIZE`.
    :returns: the problems, and the id to go on with, 0 at the end.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    size = STEP_SIZE if size is None else size
    jobids = list(islice(service.jobs.ids_from(first), size))
    problems = []
    for jobid in jobids:
        job = load(service.jobs, jobid)
        if job is None:
            continue  # nothing can be said of a record that cannot be read, nor mended
        trouble = _trouble(service, job)
        if trouble is not None:
            problems.append(Problem(jobid, trouble))
            if repair:
                _refile(service, job, now)
    return problems, jobids[-1] + 1 if len(jobids) == size else 0


def check_indexes(service: Any, repair: bool) -> list[Problem]:
    """Check all entries of the indexes and their counters.

    It takes a time that grows with the number of entries.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    return [*_check_entries(service, repair), *_check_counts(service, repair)]


def check_all(
    service: Any, now: float, repair: bool, commit: Callable[[], None] = lambda: None
) -> list[Problem]:
    """Check everything.

    :param commit: called after each step.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    problems: list[Problem] = []
    first = 0
    while True:
        found, first = check_jobs(service, now, repair, first)
        problems.extend(found)
        commit()
        if not first:
            break
    problems.extend(check_indexes(service, repair))
    commit()
    return problems


def _trouble(service: Any, job: Job) -> str | None:
    queue = service.queue
    if job.status not in STATUSES:
        return f"it has the unknown status {job.status!r}"
    if job.status == PROCESSING:
        worker = service.workers.get(job.owner)
        if worker is None or job.id not in worker.held:
            return "it is processing, but no worker holds it"
        return None
    if job.is_final:
        held = any(job.id in worker.held for worker in service.workers.values())
        return None if held or queue.is_filed(job) else f"it is {job.status}, but not filed"
    return None if queue.stands_by(job) else f"it is {job.status}, but waits nowhere"


def _refile(service: Any, job: Job, now: float) -> None:
    job.place = None
    if not job.is_final and job.status != STARTLATER:
        # Not into the ready line: a job enters that once.
        job.wait(job.due if job.due is not None else min(job.created_at, now))
    service.queue.file(job)


def _check_entries(service: Any, repair: bool) -> Iterator[Problem]:
    for status, index in service.queue.indexes.items():
        for when, jobid in list(index):
            job = load(service.jobs, jobid)
            stands = job is not None and (
                (job.status == status and (when, jobid) == service.queue.entry_of(job))
                if status in FINAL_STATUSES
                else job.place == when
            )
            if not stands:
                yield Problem(jobid, f"an entry of the index of {status} jobs is stale")
                if repair:
                    index.remove(when, jobid)
    for name, lot in list(service.queue.parked.items()):
        for when, jobid in list(lot):
            job = load(service.jobs, jobid)
            if job is None or job.place != name:
                yield Problem(jobid, f"an entry of the jobs parked for task {name!r} is stale")
                if repair:
                    lot.remove(when, jobid)
        if repair and not len(lot):
            del service.queue.parked[name]
    for name in ("requests", "progress"):
        notes = getattr(service, name)
        for jobid in list(notes):
            job = load(service.jobs, jobid)
            if job is None or (job.status != PROCESSING and not _is_held(service, jobid)):
                yield Problem(jobid, f"an entry of {name} belongs to no running job")
                if repair:
                    notes.remove(jobid) if name == "requests" else notes.pop(jobid)


def _is_held(service: Any, jobid: int) -> bool:
    return any(jobid in worker.held for worker in service.workers.values())


def _check_counts(service: Any, repair: bool) -> Iterator[Problem]:
    for name, place in (*service.queue.indexes.items(), ("ready", service.queue.line)):
        difference = place.miscounted(service.jobs)
        if difference:
            yield Problem(None, f"the count of {name} jobs is wrong by {difference}")
            if repair:
                place.correct(difference)
