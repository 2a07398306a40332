# SPDX-License-Identifier: ZPL-2.1
"""What follows when a job has ended.  Nothing here commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lovely.remotetask.engine.adding import add_job, new_ids
from lovely.remotetask.errors import is_kind
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.job import Job

#: A task and its input, as a job keeps them for one that follows it.
FollowUp = tuple[str, Any]


class FollowUps(NamedTuple):
    """The jobs that are to be added when a job ends, by how it does."""

    on_success: FollowUp | None
    on_error: FollowUp | None

    def apply(self, job: Job) -> None:
        """Let a new job keep them."""
        for name, follow_up in self._asdict().items():
            if follow_up is not None:
                setattr(job, name, follow_up)


def follow_up_of(given: Any, check: Callable[[Any, Any], FollowUp]) -> FollowUp | None:
    """Return the follow-up that is given as a task, or as a task and its input, as it is stored.

    :param check: called with both; returns them as they are stored, or raises what `add` does.
    """
    if given is None:
        return None
    if is_kind(given, tuple) and len(given) == 2:
        return check(*given)
    return check(given, None)


def follow_up(service: Any, job: Job) -> None:
    """Add the job that is to follow one that has just ended, in the commit that ends it."""
    wanted = {COMPLETED: job.on_success, ERROR: job.on_error}.get(job.status)
    if wanted is None:
        return
    task, input = wanted
    [jobid] = new_ids(service, 1)
    following = Job(jobid, task, input)
    following.cause = job.id
    add_job(service, following)
