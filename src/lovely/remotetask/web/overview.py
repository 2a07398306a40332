# SPDX-License-Identifier: ZPL-2.1
"""How services are: what they have to do, who works, and whether all is well.  Nothing commits."""

from __future__ import annotations

from datetime import datetime
from time import time
from typing import Any, NamedTuple

from lovely.remotetask.engine import control
from lovely.remotetask.engine.finding import list_page, task_name
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.interfaces import COMPLETED, ERROR, QUEUED
from lovely.remotetask.setting import read
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.pauses import paused_tasks
from lovely.remotetask.store.worker import list_workers
from lovely.remotetask.web.facts import names_of, pattern_of, time_text
from lovely.remotetask.web.operations import is_remote

#: So many pages of an index are read to count what has ended lately: some 10,000 jobs.
MAX_PAGES = 160

HOUR_SECONDS = 3_600.0


def paused_names(service: Any) -> list[str]:
    """Return what is paused, for people and programs."""
    return ["all tasks" if name is None else name for name in paused_tasks(service.queue)]


# -- services ------------------------------------------------------------------------------


def service_told(match: Match) -> dict[str, Any]:
    """Return what programs are told of a service."""
    service = match.service
    return {
        **names_of(match),
        "name": pattern_of(match),
        "door": "remote processor" if is_remote(service) else "task service",
        "jobs": count_jobs(service),
        "paused": paused_names(service),
        "workers": len(list_workers(service)),
        "processing": is_processing(service),
        "oldest_waiting": time_text(oldest_waiting(service)),
    }


def is_processing(service: Any) -> bool:
    """Say whether threads of this process work on the jobs of a service, and on its schedules."""
    if is_remote(service):
        return bool(service.isProcessing and service.isScheduling)
    return bool(service.isProcessing())


def start_processing(service: Any) -> str:
    """Let threads of this process work on a service; return what has come of it."""
    return "is started" if service.startAll() else "is at work already"


def stop_processing(service: Any) -> str:
    """Let the threads of this process end that work on a service; return what comes of it."""
    if is_remote(service):
        service.stopProcessor()
        service.stopScheduler()
    else:
        service.stopProcessing()
    return "stops when its running jobs are done"


def pause(service: Any, task: str | None = None) -> str:
    """Let no job, or none of a task, be claimed in any process; return what has come of it."""
    control.pause(service, task_name(task))
    return f"{'all tasks' if task is None else task}: paused"


def resume(service: Any, task: str | None = None) -> str:
    """Let jobs be claimed again; None takes back each pause.  Return what has come of it."""
    control.resume(service, task_name(task))
    return f"{'all tasks' if task is None else task}: not paused"


def oldest_waiting(service: Any) -> datetime | None:
    """Return when the job was added that has waited longest in the ready queue; None: no job."""
    [*jobs] = list_page(service, QUEUED, None, "oldest", None, 1).jobs
    moment: datetime | None = jobs[0].created if jobs else None
    return moment


# -- workers and health --------------------------------------------------------------------


def workers_told(service: Any, now: float | None = None) -> list[dict[str, Any]]:
    """Return what programs are told of the workers that hold jobs."""
    now = time() if now is None else now
    lease = read(service, "lease_seconds")
    told = []
    for worker in list_workers(service):
        silent = None if worker.last_sign is None else max(0.0, now - worker.last_sign.timestamp())
        told.append(
            {
                **worker._asdict(),
                "held": list(worker.held),
                "last_sign": time_text(worker.last_sign),
                "silent_seconds": silent,
                "alive": worker.is_inline or (silent is not None and silent <= lease),
            }
        )
    return told


def health_told(service: Any, now: float | None = None) -> dict[str, Any]:
    """Return whether all is well with a service, and what is not."""
    now = time() if now is None else now
    workers = workers_told(service, now)
    lease = read(service, "lease_seconds")
    paused = paused_names(service)
    oldest = oldest_waiting(service)
    waited = None if oldest is None else max(0.0, now - oldest.timestamp())
    problems = [
        f"worker {worker['id']} (process {worker['pid']} on {worker['host']}) is silent"
        for worker in workers
        if not worker["alive"]
    ]
    if "all tasks" in paused:
        problems.append("all tasks are paused")
    elif waited is not None and waited > lease and not workers and not is_processing(service):
        problems.append("jobs wait, and nobody works")
    return {
        "healthy": not problems,
        "problems": problems,
        "oldest_waiting_seconds": waited,
        "workers_alive": sum(worker["alive"] for worker in workers),
        "processing": is_processing(service),
        "paused": paused,
    }


# -- what has ended lately -----------------------------------------------------------------


class Lately(NamedTuple):
    """How many jobs have ended with one status, in equal parts of a time.

    :ivar status: the status.
    :ivar counts: those of each part, the earliest one first.
    :ivar is_exact: whether all were counted; of very many, some stand for all.
    """

    status: str
    counts: list[int]
    is_exact: bool


def ended_lately(
    service: Any, parts: int = 12, seconds: float = HOUR_SECONDS, now: float | None = None
) -> list[Lately]:
    """Return how many jobs were completed, and have failed, lately, as far as they are kept.

    Those of the last moments, which their worker has yet to file, are not among them.

    :param parts: into so many parts the time is divided.
    :param seconds: how long it is.
    """
    now = time() if now is None else now
    edges = [now - seconds + seconds * part / parts for part in range(parts + 1)]
    return [
        Lately(status, *service.queue.indexes[status].counts(edges, MAX_PAGES))
        for status in (COMPLETED, ERROR)
    ]
