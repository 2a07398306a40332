# SPDX-License-Identifier: ZPL-2.1
"""Why a job that could run waits all the same, in words for people."""

from __future__ import annotations

import time
from typing import Any

from lovely.remotetask.job import Job
from lovely.remotetask.store.gates import LIMIT, LOCK, is_aside
from lovely.remotetask.store.level import TIMED_STATUSES
from lovely.remotetask.store.lots import AWAITING, zone_of

#: So many jobs are named.
MAX_NAMED = 5


def reason_of(queue: Any, job: Job) -> str | None:
    """Return what a job waits for beside its time and its turn, or None."""
    place = job.place
    is_parked = isinstance(place, str) and not is_aside(place)
    if job.status not in TIMED_STATUSES or (
        not isinstance(place, str) and job.due is not None and job.due > time.time()
    ):
        return None
    if queue.is_paused:
        return "the end of a pause of all tasks"
    if queue.is_held_back(job.task):
        return f"the end of a pause of the task {job.task!r}"
    if place == AWAITING:
        return _others_of(job)
    if is_parked:
        zone = zone_of(str(place))
        if zone is not None:
            return f"a worker that knows the time zone {zone!r}"
        return f"a worker that has the task {job.task!r}"
    blockers = queue.gates.blockers(queue, job) if queue.is_blocked(job) else None
    return None if blockers is None else _told(*blockers)


def _others_of(job: Job) -> str:
    if job.id in job.awaits:
        return "the end of its group"
    return f"{_named(list(job.awaits))} to be completed"


def _told(gate: str, jobids: list[int]) -> str:
    jobs = _named(jobids)
    if gate.startswith(LOCK):
        return f"the lock {gate.removeprefix(LOCK)!r}, after {jobs}"
    return f"the limit of the task {gate.removeprefix(LIMIT)!r}, after {jobs}"


def _named(jobids: list[int]) -> str:
    named = ", ".join(map(str, jobids[:MAX_NAMED])) + (", ..." if jobids[MAX_NAMED:] else "")
    return f"job{'s' if jobids[1:] else ''} {named}"
