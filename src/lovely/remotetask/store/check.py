# SPDX-License-Identifier: ZPL-2.1
"""Find, and mend, what disagrees between the jobs and their indexes.

The protocol keeps them in agreement.  What does not: jobs that were deleted by hand, an
undone transaction, a restored or partly copied database.  The job's record is what counts;
the indexes are made to follow it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import check_parts, wrote
from lovely.remotetask.errors import OldRecord
from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING, STARTLATER, STATUSES
from lovely.remotetask.job import SCHEDULE_ERRORS, CronJob, Job
from lovely.remotetask.store import schedulekeys
from lovely.remotetask.store.awaiting import check_links, why_missed
from lovely.remotetask.store.expiry import is_watched, watch_expiry
from lovely.remotetask.store.gates import is_aside
from lovely.remotetask.store.joblog import LOST, drop_log, find_log
from lovely.remotetask.store.keys import hold_key, job_with
from lovely.remotetask.store.lost import check_records
from lovely.remotetask.store.lots import AWAITING, drop_lot
from lovely.remotetask.store.notes import notes_of, take_note, why_edit_waits
from lovely.remotetask.store.problem import LeftAlone, Problem
from lovely.remotetask.store.quarantine import (
    MISSING,
    load,
    load_many,
    why_unreadable,
    why_unusable,
)
from lovely.remotetask.store.tree import fetch
from lovely.remotetask.store.words import has_word

#: How many jobs one step looks at.
STEP_SIZE = 1000


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
    fetch(service._p_jar, service.jobs.get_many(jobids))
    problems: list[Problem] = []
    for jobid in jobids:
        job = service.jobs[jobid]
        reason = why_unreadable(job, jobid)
        if reason is None and not job.is_final:
            reason = why_unusable(job, jobid)
        if reason is not None:
            problems.append(LeftAlone(jobid, reason))
            continue
        trouble = _trouble(service, job)
        if trouble is not None:
            problems.append(Problem(jobid, trouble))
            if repair:
                _refile(service, job, now)
            continue
        if isinstance(job, CronJob) and job.status != PROCESSING and _is_apart(service, job):
            problems.append(Problem(jobid, "what it is to be is looked for in another place"))
            if repair:
                wrote(service, job)
                job.edits = service.edits
        if (why := why_edit_waits(service, job)) is not None:
            problems.append(LeftAlone(jobid, why))
        for problem in _loose_ends(service, job, repair):
            problems.append(problem)
        if not job.is_final and job.awaits:
            missed = why_missed(service, job)
            if missed is not None and not has_word(service.queue, jobid):
                problems.append(Problem(jobid, missed))
                if repair:  # who claims next looks once more, and has the last word
                    service.queue.release(job, now)
        elif not job.is_final and _is_ahead(job, now):
            problems.append(Problem(jobid, "a clock far ahead has set when it is due"))
            if repair:
                service.queue.count_anew(job, now)
        if (key_trouble := schedulekeys.trouble_of(service, job)) is not None:
            text, is_mendable = key_trouble
            problems.append((Problem if is_mendable else LeftAlone)(jobid, text))
            if repair and is_mendable:
                schedulekeys.hold(service.queue, job)
    return problems, jobids[-1] + 1 if len(jobids) == size else 0


def check_logs(service: Any, repair: bool, first: int) -> list[Problem]:
    """Check that the logs of a step's worth of jobs are there; see `check_jobs`.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    jobids = list(islice(service.jobs.ids_from(first), STEP_SIZE))
    fetch(service._p_jar, service.jobs.get_many(jobids))
    jobs = [
        job for job in load_many(service.jobs, jobids) if job is not None and job.log is not None
    ]
    fetch(service._p_jar, [job.log for job in jobs])
    problems: list[Problem] = []
    for job in jobs:
        if find_log(job) is not None:
            continue
        # A run that goes on puts a new one there by itself, and must not collide with this.
        is_mendable = job.status != PROCESSING and why_unusable(job, job.id) is None
        problems.append((Problem if is_mendable else LeftAlone)(job.id, LOST))
        if repair and is_mendable:
            drop_log(service, job)
    return problems


def check_indexes(service: Any, repair: bool) -> list[Problem]:
    """Check all entries of the indexes and their counters.

    It takes a time that grows with the number of entries.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    return [
        *_check_entries(service, repair),
        *check_links(service, repair),
        *_check_counts(service, repair),
    ]


def check_all(
    service: Any, now: float, repair: bool, commit: Callable[[], None] = lambda: None
) -> list[Problem]:
    """Check everything.

    Of a job whose record is missing nothing is left to run: it is taken out, which is left to
    a person's word, in case that the record comes back.

    :param commit: called after each step.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    try:
        check_parts(service)
    except OldRecord as error:
        return [LeftAlone(None, str(error))]
    except POSKeyError:
        pass  # of what, the next step tells
    problems = check_records(service, repair)
    commit()
    if not all(repair and problem.is_mendable for problem in problems):
        return problems  # what else is wrong can be seen when these are mended
    first = 0
    while True:
        logs = check_logs(service, repair, first)
        found, first = check_jobs(service, now, repair, first)
        for problem in (*found, *logs):
            if problem.text == MISSING:
                problem = Problem(*problem)
                if repair:
                    del service.jobs[problem.jobid]
            problems.append(problem)
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
    if queue.has_to_be_filed(job) and _is_held(service, job.id):
        return None  # its worker will
    if job.is_final:
        return None if queue.is_filed(job) else f"it is {job.status}, but not filed"
    return None if queue.stands_by(job) else f"it is {job.status}, but waits nowhere"


def _loose_ends(service: Any, job: Job, repair: bool) -> Iterator[Problem]:
    """Check that a job is found by its key and its expiry, and is not forgotten at a gate."""
    if job.is_final:
        return
    queue = service.queue
    if job.unique_key is not None:
        other = job_with(queue, service.jobs, job.unique_key)
        if other is None:
            yield Problem(job.id, "it is not found by its unique key")
            if repair:
                hold_key(queue, job)
        elif other is not job:
            yield LeftAlone(job.id, f"job {other.__name__} has the same unique key")
    if not is_watched(queue, job):
        yield Problem(job.id, "nobody will see that it expires")
        if repair:
            watch_expiry(queue, job)
    if is_aside(str(job.place)) and queue.gates.is_stuck(queue, job):
        yield Problem(job.id, "it waits for a lock or a limit that nobody holds")
        if repair:
            queue.gates.go_on(queue, job)


def _is_ahead(job: Job, now: float) -> bool:
    # Who asks with an earlier time than this machine's has no clock that was put back.
    try:
        return job.is_ahead_of(max(now, time.time()))
    except SCHEDULE_ERRORS:  # it cannot be counted here
        return False


def _refile(service: Any, job: Job, now: float) -> None:
    ready = service.queue.level(job.priority).queue_of(job) if job.is_ready else None
    if ready is not None:
        ready.note_left(job.place)
    if job.place is not None:  # else it may have ended with a result that cannot be written here
        job.place = None
    if not job.is_final and job.status != STARTLATER:
        # Not into the ready queue: a job enters that once.
        job.wait(job.due if job.due is not None else min(job.created_at, now))
    service.queue.file(job)


def _check_entries(service: Any, repair: bool) -> Iterator[Problem]:
    for status, index in service.queue.all_indexes():
        for when, jobid in list(index):
            job = load(service.jobs, jobid)
            if job is None:  # of what cannot be read nothing can be said
                stands = jobid in service.jobs
            elif status in FINAL_STATUSES:
                stands = job.status == status and (when, jobid) == service.queue.entry_of(job)
            else:
                stands = job.place == when
            if not stands:
                yield Problem(jobid, f"an entry of the index of {status} jobs is stale")
                if repair:
                    index.remove(when, jobid)
    for name, lot in list(_lots(service.queue)):
        for when, jobid in list(lot):
            job = load(service.jobs, jobid)
            if jobid not in service.jobs if job is None else job.place != name:
                yield Problem(jobid, f"an entry of the jobs parked for {name!r} is stale")
                if repair:
                    lot.remove(when, jobid)
    for key, jobid in list(service.queue.schedules.items()):
        if schedulekeys.is_stale(service, key, jobid):
            yield Problem(jobid, f"the key {key!r} of a schedule stands for none")
            if repair:
                schedulekeys.drop(service.queue, key, jobid)
    yield from _check_tables(service, repair)
    for name, notes in notes_of(service).items():
        for jobid in list(notes):
            job = load(service.jobs, jobid)
            if _is_held(service, jobid):
                continue
            if jobid not in service.jobs if job is None else job.status != PROCESSING:
                yield Problem(jobid, f"an entry of {name} belongs to no running job")
                if repair:
                    take_note(notes, jobid)


def _is_apart(service: Any, job: CronJob) -> bool:
    """Say whether the edits of a job are kept where nobody heeds them."""
    return job.edits is not None and not job.is_final and job.edits is not service.edits


def _is_held(service: Any, jobid: int) -> bool:
    return any(jobid in worker.held for worker in service.workers.values())


def _lots(queue: Any) -> Iterator[tuple[str, Any]]:
    """Yield the lots of all levels and gates, by name."""
    for level in queue.all_levels():
        yield from level.parked.items()
    if queue.gates is not None:
        yield from queue.gates.lots.items()


def _check_tables(service: Any, repair: bool) -> Iterator[Problem]:
    """Check what stands in the index of jobs at gates, and in the table of unique keys."""
    queue = service.queue
    aside = {} if queue.gates is None else queue.gates.aside
    for status, index in aside.items():
        for when, jobid in list(index):
            job = load(service.jobs, jobid)
            is_there = job is not None and job.status == status and is_aside(str(job.place))
            if not is_there and (job is not None or jobid not in service.jobs):
                yield Problem(jobid, f"an entry of the {status} jobs at locks and limits is stale")
                if repair:
                    index.remove(when, jobid)
    for key, jobids in () if queue.keys is None else queue.keys:
        if job_with(queue, service.jobs, key) is None and not _is_held(service, jobids[0]):
            yield Problem(jobids[0], f"the unique key {key!r} is that of no live job")
            if repair:
                queue.keys.drop(key)


def _check_counts(service: Any, repair: bool) -> Iterator[Problem]:
    queue = service.queue
    lots = [("parked", lot) for _, lot in _lots(queue)]
    ready = [("ready", ready) for level in queue.all_levels() for ready in level.queues]
    aside = () if queue.gates is None else queue.gates.aside.items()
    for name, place in (*queue.all_indexes(), *lots, *aside, *ready):
        difference = place.miscounted(service.jobs)
        if difference:
            yield Problem(None, f"the count of {name} jobs is wrong by {difference}")
            if repair:
                place.correct(difference)
    for level in queue.all_levels() if repair else ():
        for name, lot in list(level.parked.items()):
            if name != AWAITING and lot.first() is None:
                drop_lot(level, level.parked, name)
