# SPDX-License-Identifier: ZPL-2.1
"""The front page of a service: whether all is well, at a glance."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from webob import Response

from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.web import operations, overview, schedules
from lovely.remotetask.web.pages import details, rendering, wording
from lovely.remotetask.web.pages.chart import chart
from lovely.remotetask.web.pages.state import state_of
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.security import VIEW

#: The last hour is shown in so many parts.
PARTS = 60

#: So many schedules, errors and running jobs are shown.
FEW = 5

#: The tiles: a status, and what its jobs do.
TILES = (
    (QUEUED, "waiting for a worker"),
    (PROCESSING, "running now"),
    (DELAYED, "for a later time"),
    (STARTLATER, "until somebody starts them"),
    (COMPLETED, "done"),
    (ERROR, "given up"),
    (CANCELLED, "taken back"),
)


def show(context: Context) -> Response:
    """Show the page, or its part that changes."""
    service = context.service
    return rendering.live_page(
        context,
        "front",
        title="Overview",
        state=state_of(service, overview.is_processing(service)),
        names=lambda: _facts(context),
        address=context.url("/"),
    )


def _facts(context: Context) -> dict[str, Any]:
    service, now = context.service, time.time()
    assert context.match is not None
    counts = overview.service_told(context.match)["jobs"]
    health = overview.health_told(service, now)
    done, failed = overview.ended_lately(service, PARTS, now=now)
    waited = health["oldest_waiting_seconds"]
    return {
        "verdict": _verdict(health, sum(failed.counts)),
        "tiles": [
            {
                "status": status,
                "count": f"{counts[status]:,}",
                "text": text,
                "is_none": not counts[status],
                "address": context.url("/jobs", status=status),
            }
            for status, text in TILES
            if counts[status] or status not in (DELAYED, STARTLATER)
        ],
        "chart": chart(done.counts, failed.counts),
        "done": _told(done),
        "failed": _told(failed),
        "depth": counts[QUEUED],
        "waited": None if waited is None else wording.span(waited),
        "workers_alive": health["workers_alive"],
        "is_processing": health["processing"],
        "paused": health["paused"],
        "schedules": _schedules(service, now),
        "schedule_count": counts[CRONJOB],
        "errors": _errors(context, now),
    }


def _told(lately: overview.Lately) -> str:
    number = f"{sum(lately.counts):,}"
    return number if lately.is_exact else f"about {number}"


def _verdict(health: dict[str, Any], failed: int) -> dict[str, Any]:
    """Return what is said first: whether all is well, and if not, why."""
    reasons = [wording.sentence(text) for text in health["problems"]]
    if reasons:
        return {"kind": "ill", "title": "Something is wrong", "reasons": reasons}
    paused = ", ".join(health["paused"])
    if paused:
        reasons.append(f"Paused: {paused}.")
    if failed:
        reasons.append(f"{wording.count(failed, 'job has', 'jobs have')} failed in the last hour.")
    if reasons:
        return {"kind": "look", "title": "Needs a look", "reasons": reasons}
    return {"kind": "well", "title": "All is well", "reasons": []}


def _schedules(service: Any, now: float) -> list[dict[str, Any]]:
    found = []
    for schedule in schedules.list_schedules(service, limit=FEW).schedules[:FEW]:
        told = schedules.schedule_told(schedule)
        due = told["next"] and datetime.fromisoformat(told["next"])
        found.append(
            {
                "id": str(told["id"]),
                "task": told["task"],
                "moment": wording.due_of(due or None, now),
                "text": "paused" if told["paused"] else told["status"],
            }
        )
    return found


def _errors(context: Context, now: float) -> list[dict[str, Any]]:
    page = operations.list_jobs(context.service, ERROR, limit=FEW)
    return [
        {
            "id": job.__name__,
            "task": job.task,
            "moment": wording.moment_of(job.completed, now),
            "text": details.line_of(context.service, job, context.request),
        }
        for job in page.jobs
    ]


routes = [Route("GET", "/", VIEW, show)]
