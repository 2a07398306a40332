# SPDX-License-Identifier: ZPL-2.1
"""The page of one job: all that is known of it, and what it can be told."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from webob import Response

from lovely.remotetask.errors import InvalidArgument, JobIsLive, text_of
from lovely.remotetask.interfaces import (
    CANCELLED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.job import CronJob
from lovely.remotetask.web import operations
from lovely.remotetask.web.detail import detail_of
from lovely.remotetask.web.facts import input_of
from lovely.remotetask.web.pages import details, jobfacts, rendering, scheduleform, wording
from lovely.remotetask.web.pages.state import state_of
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.schedules import fields_of
from lovely.remotetask.web.security import MANAGE, VIEW

#: So many of the last lines of its log are shown.
MAX_LINES = 500


def show(context: Context, refusals: tuple[str, ...] = ()) -> Response:
    """Show the page, or its part that changes."""
    service = context.service
    job = operations.find_job(service, context.values["job"])
    return rendering.live_page(
        context,
        "job",
        title=f"Job {job.__name__}",
        state=state_of(service, job),
        names=lambda: _facts(context, job),
        address=context.url(f"/jobs/{job.__name__}"),
        refusals=refusals,
        jobid=job.__name__,
    )


def _facts(context: Context, job: Any) -> dict[str, Any]:
    service, now = context.service, time.time()
    progress = service.progress.get(job.id)
    has_bar = progress is not None and progress.total
    failures = [_failure(failure, now) for failure in job.failures]
    return {
        "job": job,
        "jobid": job.__name__,
        "status": job.status,
        "detail": detail_of(job, context.request),
        "schedule": scheduleform.told(fields_of(job)) if isinstance(job, CronJob) else None,
        "edit": _edit_address(context, job),
        "rows": jobfacts.rows(context, job, now),
        "progress": None if progress is None else details.progress_text(progress),
        "bar": (f"{progress.done:g}", f"{progress.total:g}") if has_bar else None,
        "input_text": _text(input_of(job)),
        "output_text": _text(job.output),
        "failures": failures[::-1],
        "timeline": _timeline(job, now),
        "lines": _lines(operations.log_of(service, job)[-MAX_LINES:]),
        "buttons": _buttons(job) if context.may(MANAGE) else [],
        "is_cancel_requested": job.is_cancel_requested,
    }


def _edit_address(context: Context, job: Any) -> str | None:
    """Return where the times of a job can be changed, by who may do that."""
    can_be = isinstance(job, CronJob) and not job.is_final and context.may(MANAGE)
    return context.url(f"/schedules/{job.__name__}") if can_be else None


def _text(value: Any) -> str | None:
    return None if value is None else wording.value_text(value)


def _failure(failure: Any, now: float) -> dict[str, Any]:
    at = datetime.fromtimestamp(failure.time, timezone.utc)
    return {
        "attempt": failure.attempt,
        "moment": wording.moment_of(at, now),
        "title": wording.shortened(f"{failure.type}: {failure.message}"),
        "traceback": failure.traceback.rstrip() or f"{failure.type}: {failure.message}",
    }


def _lines(log: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a job's log as texts; they name the attempts if there are several."""
    has_several = len({line["attempt"] for line in log}) > 1
    told = []
    for line in log:
        at = datetime.fromtimestamp(line["time"], timezone.utc)
        attempt = f" attempt {line['attempt']}:" if has_several else ""
        told.append(f"{at:%Y-%m-%d %H:%M:%S} {line['level']}{attempt} {line['text']}")
    return told


def _timeline(job: Any, now: float) -> list[dict[str, Any]]:
    """Return what has happened to a job, the first first, and what is to come."""
    events: list[tuple[datetime, str, str]] = [(job.created, "created", "added")]
    if job.started is not None:
        events.append((job.started, "processing", f"attempt {job.attempt} was claimed"))
    for failure in job.failures:
        at = datetime.fromtimestamp(failure.time, timezone.utc)
        events.append((at, "error", f"attempt {failure.attempt} failed: {failure.type}"))
    if job.completed is not None:
        kind = job.status if job.is_final else "completed"
        text = {"completed": "completed", "error": "given up", "cancelled": "cancelled"}[kind]
        events.append((job.completed, kind, text))
    if job.scheduledFor is not None and not job.is_final:
        events.append((job.scheduledFor, "due", "due"))
    # Of those at the same time the earlier step comes first, as they stand here.
    events.sort(key=lambda event: event[0])
    return [
        {
            "kind": kind,
            "text": text,
            "moment": (wording.due_of if kind == "due" else wording.moment_of)(at, now),
        }
        for at, kind, text in events
    ]


def _buttons(job: Any) -> list[tuple[str, str]]:
    """Return what can be done with a job: a verb, and what its button says."""
    status = job.status
    buttons = []
    if status in (ERROR, CANCELLED):
        buttons.append(("retry", "Retry"))
    if status == STARTLATER:
        buttons.append(("start", "Start"))
    waits_for_time = status in (DELAYED, CRONJOB) or (status == QUEUED and not job.is_ready)
    if waits_for_time and job.scheduledFor is not None:
        buttons.append(("run-now", "Run now"))
    if not job.is_final and not (status == PROCESSING and job.is_cancel_requested):
        buttons.append(("cancel", "Cancel"))
    if job.is_final:
        buttons.append(("remove", "Remove"))
    return buttons


#: What each button does; returns what has come of it.
VERBS = {**operations.VERBS, "remove": operations.remove}

#: What is told of it, where that is not what the operation says.
_TOLD = {"retry": "is queued again"}


def act(context: Context) -> Response:
    """Do what a button of the page says."""
    context.require(MANAGE)
    jobid, name = context.values["job"], context.request.POST.get("do", "")
    verb = VERBS.get(name)
    if verb is None:
        return show(context, ("This button is not known here: load the page again.",))
    try:
        outcome = verb(context.service, jobid)
    except (InvalidArgument, JobIsLive) as error:  # it has moved on meanwhile
        return show(context, (wording.sentence(text_of(error)),))
    address = context.url("/jobs") if name == "remove" else context.url(f"/jobs/{jobid}")
    return rendering.redirect(context, address, "job", jobid, _TOLD.get(name, outcome))


routes = [
    Route("GET", "/jobs/{job}", VIEW, show),
    Route("POST", "/jobs/{job}", MANAGE, act),
]
