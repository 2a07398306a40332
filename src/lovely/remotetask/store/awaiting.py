# SPDX-License-Identifier: ZPL-2.1
"""Finds jobs that wait in vain for others.

The protocol tells them.  It cannot where a job was removed by hand, or where a record is missing.
What is found so is put where who claims next looks once more, and has the last word.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from lovely.remotetask.job import Job
from lovely.remotetask.store.group import is_whole, mark_missed
from lovely.remotetask.store.links import LinkLane, is_linked
from lovely.remotetask.store.lots import AWAITING
from lovely.remotetask.store.problem import Problem
from lovely.remotetask.store.quarantine import load, load_usable

#: How many jobs that wait for others one step looks at, and how many members of each group.
AWAITING_SIZE = 100

#: Where they begin.
BEGIN = (-math.inf, 0)


def check_awaiting(
    service: Any, now: float, repair: bool, after: tuple[float, int] = BEGIN
) -> tuple[list[Problem], tuple[float, int]]:
    """Check some of the jobs that wait for others, which a removal by hand lets wait in vain.

    :param after: those that come after this one: when it was added, in seconds since the epoch,
        and its id.
    :returns: the problems, and where to go on.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    lots = [level.parked.get(AWAITING) for level in service.queue.all_levels()]
    begin = math.nextafter(after[0], -math.inf)
    found = heapq.merge(*(lot.between(begin, math.inf) for lot in lots if lot is not None))
    entries = list(islice((entry for entry in found if entry > after), AWAITING_SIZE))
    problems = []
    for _, jobid in entries:
        job = load_usable(service.jobs, jobid)
        missed = None if job is None else why_missed(service, job, AWAITING_SIZE)
        if job is not None and missed is not None:
            problems.append(Problem(jobid, missed))
            if repair:
                service.queue.release(job, now)
    return problems, entries[-1] if len(entries) == AWAITING_SIZE else BEGIN


def why_missed(service: Any, job: Job, limit: int | None = None) -> str | None:
    """Return why a job that waits for others may wait in vain, or None.

    :param limit: look at no more members of a group than this.
    """
    if job.place != AWAITING:
        return None
    for jobid in job.awaits:
        if jobid == job.id:
            if not is_whole(job.members):
                return "it waits for its group, of which a part is missing"
            if job.members.has_ended or mark_missed(service, job.members, limit, repair=False):
                return "it waits for members of its group that have ended, or are gone"
            continue
        before = load(service.jobs, jobid)
        if before is None:
            if jobid not in service.jobs:
                return f"it waits for job {jobid}, which is gone"
        elif before.is_final:
            if service.queue.is_filed(before):  # else it is still to be told
                return f"it waits for job {jobid}, which is {before.status}"
        elif not is_linked(service.queue, before, job.id):
            return f"it waits for job {jobid}, which will not tell it"
    return None


def take_lost_links(queue: Any, is_lost: Callable[[Any], bool], repair: bool) -> int:
    """Take out lost parts of the links; return their number.

    Those that wait are found by `why_missed`.
    """
    links = queue.links
    if links is None:
        return 0
    if is_lost(links):
        if repair:
            queue.links = None
        return 1
    lanes = [None if is_lost(lane) else lane for lane in links.lanes]
    if None in lanes and repair:
        links.lanes = tuple(LinkLane() if lane is None else lane for lane in lanes)
    return lanes.count(None)


def check_links(service: Any, repair: bool) -> Iterator[Problem]:
    """Check that those who are waited for by links are there."""
    links = service.queue.links
    for lane in () if links is None else links.lanes:
        for jobid in list(lane.entries):
            if jobid not in service.jobs:
                yield Problem(jobid, "a link to it is stale")
                if repair:
                    lane.take(jobid)
