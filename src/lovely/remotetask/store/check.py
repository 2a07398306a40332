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

from persistent import Persistent
from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import check_parts, removed, wrote
from lovely.remotetask.base.shelf import Shelf
from lovely.remotetask.errors import OldRecord
from lovely.remotetask.interfaces import FINAL_STATUSES, PROCESSING, STARTLATER, STATUSES
from lovely.remotetask.job import SCHEDULE_ERRORS, Job
from lovely.remotetask.store.awaiting import check_links, take_lost_links, why_missed
from lovely.remotetask.store.index import EntryPage
from lovely.remotetask.store.lots import drop_lot
from lovely.remotetask.store.notes import notes_of, take_note
from lovely.remotetask.store.problem import LeftAlone, Problem
from lovely.remotetask.store.quarantine import MISSING, load, why_unreadable, why_unusable

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
        elif not job.is_final and job.awaits:
            missed = why_missed(service, job)
            if missed is not None:
                problems.append(Problem(jobid, missed))
                if repair:  # who claims next looks once more, and has the last word
                    service.queue.release(job, now)
        elif not job.is_final and _is_ahead(job, now):
            problems.append(Problem(jobid, "a clock far ahead has set when it is due"))
            if repair:
                service.queue.count_anew(job, now)
    return problems, jobids[-1] + 1 if len(jobids) == size else 0


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


def check_records(service: Any, repair: bool, with_jobs: bool = True) -> list[Problem]:
    """Check that the records are there of which the indexes, and the tree of jobs, consist.

    One that is missing is taken out, for each transaction that comes to it fails.  What stood in
    a part of an index is filed anew by `check_jobs`; jobs that stood in a part of their tree are
    lost.  It takes a time that grows with the number of parts.

    :param with_jobs: mend the tree of jobs too.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    queue = service.queue
    lost = {
        "tree of jobs": sum(
            _take_lost(lane, Shelf, repair and with_jobs) for lane in service.jobs.lanes
        ),
        "ready queue": sum(_take_lost_segments(lane, repair) for lane in queue.ready.lanes),
        "index of parked jobs": _take_lost_lots(queue.parked, repair),
        "list of workers": _take_lost_values(service.workers, _is_lost, repair),
    }
    for status, index in queue.indexes.items():
        take = _take_lost_pages if status in FINAL_STATUSES else _take_lost_times
        lost[f"index of {status} jobs"] = take(index, repair)
    lost["list of links"] = take_lost_links(queue, _is_lost, repair)
    for name, notes in notes_of(service).items():
        lost[f"list of {name}"] = _take_lost_values(notes, lambda note: False, repair)
    return [
        (Problem if with_jobs or name != "tree of jobs" else LeftAlone)(
            None, f"the {name} lacks {count} of its records"
        )
        for name, count in lost.items()
        if count
    ]


def _is_lost(part: Any) -> bool:
    try:
        part._p_activate()
    except POSKeyError:
        return True
    return False


def _take_lost(shelf: Any, kind: type, repair: bool) -> int:
    """Take the lost parts of a kind out of a shelf, and out of the shelves in it."""
    lost = 0
    for key, part in list(shelf.entries.items()):
        if not isinstance(part, kind):
            continue
        if _is_lost(part):
            lost += 1
            if repair:
                shelf.take(key)
                wrote(shelf, shelf)
        elif isinstance(part, Shelf):
            lost += _take_lost(part, kind, repair)
    return lost


def _take_lost_segments(lane: Any, repair: bool) -> int:
    shelf = lane.generations
    lost = _take_lost(shelf, Persistent, repair)
    if lost and repair:
        for first, generation in list(shelf.entries.items()):
            if not generation.entries:  # nobody could put anything into it
                generation.close()
                shelf.take(first)
                wrote(shelf, shelf)
                removed(shelf, generation)
    return lost


def _take_lost_times(index: Any, repair: bool) -> int:
    return _take_lost(index.pages, Persistent, repair)


def _take_lost_lots(parked: Any, repair: bool) -> int:
    def is_lost(lot: Any) -> bool:
        return _is_lost(lot) or _is_lost(lot.pages) or _is_lost(lot.size)

    lost = _take_lost_values(parked, is_lost, repair)
    if lost and not repair:
        return lost
    return lost + sum(_take_lost_times(lot, repair) for lot in parked.values())


def _take_lost_pages(index: Any, repair: bool) -> int:
    lost = 0
    for lane in index.lanes:
        lost += _take_lost_values(lane, _is_lost, repair)
        if repair and 0 not in lane:  # what is older than the other pages needs one
            lane[0] = EntryPage()
    return lost


def _take_lost_values(tree: Any, is_lost: Callable[[Any], bool], repair: bool) -> int:
    """Take the lost values out of a BTree, and all of them if a part of the tree itself is lost."""
    try:
        keys = list(tree)
        lost = [key for key in keys if hasattr(tree, "values") and is_lost(tree[key])]
        if repair:
            for key in lost:
                del tree[key]
        return len(lost)
    except POSKeyError:
        if repair:
            tree.clear()
        return 1


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
    problems = check_records(service, repair)
    commit()
    if problems and not repair:
        return problems  # what else is wrong can be seen when these are mended
    first = 0
    while True:
        found, first = check_jobs(service, now, repair, first)
        for problem in found:
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


def _is_ahead(job: Job, now: float) -> bool:
    # Who asks with an earlier time than this machine's has no clock that was put back.
    try:
        return job.is_ahead_of(max(now, time.time()))
    except SCHEDULE_ERRORS:  # it cannot be counted here
        return False


def _refile(service: Any, job: Job, now: float) -> None:
    if job.is_ready:
        service.queue.ready.note_left(job.place)
    if job.place is not None:  # else it may have ended with a result that cannot be written here
        job.place = None
    if not job.is_final and job.status != STARTLATER:
        # Not into the ready queue: a job enters that once.
        job.wait(job.due if job.due is not None else min(job.created_at, now))
    service.queue.file(job)


def _check_entries(service: Any, repair: bool) -> Iterator[Problem]:
    for status, index in service.queue.indexes.items():
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
    for name, lot in list(service.queue.parked.items()):
        for when, jobid in list(lot):
            job = load(service.jobs, jobid)
            if jobid not in service.jobs if job is None else job.place != name:
                yield Problem(jobid, f"an entry of the jobs parked for {name!r} is stale")
                if repair:
                    lot.remove(when, jobid)
    for name, notes in notes_of(service).items():
        for jobid in list(notes):
            job = load(service.jobs, jobid)
            if _is_held(service, jobid):
                continue
            if jobid not in service.jobs if job is None else job.status != PROCESSING:
                yield Problem(jobid, f"an entry of {name} belongs to no running job")
                if repair:
                    take_note(notes, jobid)


def _is_held(service: Any, jobid: int) -> bool:
    return any(jobid in worker.held for worker in service.workers.values())


def _check_counts(service: Any, repair: bool) -> Iterator[Problem]:
    queue = service.queue
    lots = [("parked", lot) for lot in queue.parked.values()]
    for name, place in (*queue.indexes.items(), *lots, ("ready", queue.ready)):
        difference = place.miscounted(service.jobs)
        if difference:
            yield Problem(None, f"the count of {name} jobs is wrong by {difference}")
            if repair:
                place.correct(difference)
    for name, lot in list(queue.parked.items()) if repair else ():
        if lot.first() is None:
            drop_lot(queue, queue.parked, name)
