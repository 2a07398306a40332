# SPDX-License-Identifier: ZPL-2.1
"""Say which jobs were added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lovely.remotetask.base.reference import referring
from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.engine.adding import name_of_task
from lovely.remotetask.errors import InvalidInput, RemoteTaskError, shown
from lovely.remotetask.job import Job

#: In the place of an input: it may be any.
ANYTHING: Any = object()

#: Of many jobs a message shows so many.
MAX_SHOWN = 10


def assert_added(
    service: Any,
    task: str | Callable[..., Any],
    input: Any = ANYTHING,
    times: int | None = None,
) -> Job | None:
    """Check that a job was added; return it, of several the last one.

    :param task: the name of the task, or its function.
    :param input: what the job has to have as its input; by default it may be anything.
    :param times: how many such jobs there have to be, whatever has become of them; 0 is none,
        and by default any number but that.
    :raises AssertionError: there are others, which it names.

    Transaction: reads only.
    """
    __tracebackhide__ = True
    name = name_of_task(service, task)
    stored = _as_stored(input)
    jobs = sorted(service.jobs.values(), key=lambda job: (job.created_at, job.id))
    found = [
        job
        for job in jobs
        if job.task == name
        and (input is ANYTHING or bool(job.input == input) or bool(job.input == stored))
    ]
    if len(found) == times or (found and times is None):
        return found[-1] if found else None
    wanted = "a job" if times is None else f"{times} job{'' if times == 1 else 's'}"
    of = f"of task {name!r}" + ("" if input is ANYTHING else f" with the input {shown(input)}")
    raise AssertionError(
        f"{wanted} {of} should have been added, and {len(found) or 'none'} was;"
        f" there {'are' if jobs else 'is no job at all'}{_listed(jobs)}"
    )


def _as_stored(input: Any) -> Any:
    """Return an input with what stands for objects in it, as content of Zope."""
    try:
        return check_storable(input, InvalidInput, "the input", exchange=referring)
    except RemoteTaskError:  # it is compared in a way of its own
        return input


def _listed(jobs: list[Job]) -> str:
    lines = [f"\n  {job!r} with the input {shown(job.input)}" for job in jobs[:MAX_SHOWN]]
    if len(jobs) > MAX_SHOWN:
        lines.append(f"\n  and {len(jobs) - MAX_SHOWN} more")
    return ":" + "".join(lines) if lines else ""
