# SPDX-License-Identifier: ZPL-2.1
"""Adding groups of jobs, and asking for them.  Nothing here commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lovely.remotetask.engine.adding import add_job, add_ready
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.errors import InvalidArgument, JobUnusable
from lovely.remotetask.job import Job
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.group import Group, GroupState, is_whole


def add_group(
    service: Any,
    new_ids: Callable[[int], list[int]],
    checked: list[tuple[str, Any]],
    then: tuple[str, Any] | None,
    retry: RetryPolicy | None,
    options: Mapping[str, Any],
) -> int:
    """Add a job for each task and input, and one that waits for their end; return its id.

    :param new_ids: called with a number; returns so many ids.
    :param options: of the members, see `check_options`; the last job has their priority.
    :raises InvalidArgument: there is no task for that one.
    """
    if then is None:
        raise InvalidArgument("then must be a task, or a task and its input")
    groupid, *jobids = new_ids(len(checked) + 1)
    last = Job(groupid, *then)
    last.members = Group(jobids)
    if jobids:
        last.awaits = (groupid,)
    add_job(service, last, {n: value for n, value in options.items() if n == "priority"})
    jobs = []
    for number, (jobid, (task, input)) in enumerate(zip(jobids, checked, strict=True)):
        job = Job(jobid, task, input, retry)
        job.membership = (groupid, number)
        jobs.append(job)
    add_ready(service, jobs, options)
    return groupid


def find_group(service: Any, groupid: int) -> GroupState:
    """Return how far a group is.

    :raises JobNotFound: there is none, or no more.
    :raises InvalidArgument: the job with this id ends no group.
    :raises JobUnusable: one of its records is missing, or cannot be read here.
    """
    job = find_job(service, groupid)
    if job.members is None:
        raise InvalidArgument(f"job {job.__name__} ends no group")
    if not is_whole(job.members):
        raise JobUnusable(f"job {job.__name__}: a part of its group is missing")
    return GroupState(service, job)
