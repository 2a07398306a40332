# SPDX-License-Identifier: ZPL-2.1
"""Jobs that run when they are added, as if the task was called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest import mock

from lovely.remotetask.service import TaskService
from lovely.remotetask.testing.running import runs

_depth = threading.local()


@contextmanager
def eager() -> Iterator[None]:
    """Let each job that is added in the ``with`` block run at once, before ``add`` returns.

    It runs in the transaction of who adds it, and what its task raises, ``add`` raises; nothing is
    repeated.  So do the jobs that it adds, and with a group its members and the job that ends it.
    Jobs that wait for a time, or to be started, wait.

    Transaction: caller commits.
    """
    with (
        mock.patch.object(TaskService, "add", _running(TaskService.add, _alone)),
        mock.patch.object(TaskService, "add_many", _running(TaskService.add_many, _all)),
        mock.patch.object(TaskService, "add_group", _running(TaskService.add_group, _group)),
    ):
        yield


def _alone(service: TaskService, jobid: int) -> list[int]:
    return [jobid]


def _all(service: TaskService, jobids: list[int]) -> list[int]:
    return jobids


def _group(service: TaskService, groupid: int) -> list[int]:
    return [*(member.jobid for member in service.group(groupid)), groupid]


def _running(
    add: Callable[..., Any], ids: Callable[[TaskService, Any], list[int]]
) -> Callable[..., Any]:
    """Return a method that adds jobs, and runs them.

    :param ids: called with the service and what `add` has returned; returns the ids of the jobs.
    """

    @wraps(add)
    def add_and_run(service: TaskService, *arguments: Any, **keywords: Any) -> Any:
        begun = time.time()
        added = add(service, *arguments, **keywords)
        jobids = ids(service, added)
        _run(service, lambda job: job.id in jobids)
        if not getattr(_depth, "value", 0):  # what follows on their ends
            _run(service, lambda job: job.created_at >= begun)
        return added

    return add_and_run


def _run(service: TaskService, accepts: Callable[[Any], bool]) -> None:
    _depth.value = getattr(_depth, "value", 0) + 1
    try:
        for run in runs(service, accepts, at_once_seconds=-1.0):
            if run.error is not None:
                raise run.error
    finally:
        _depth.value -= 1
