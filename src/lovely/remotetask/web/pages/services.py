# SPDX-License-Identifier: ZPL-2.1
"""The pages Services and Workers: what there is, and who works on it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from webob import Response

from lovely.remotetask.errors import RemoteTaskError, text_of
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.web import facts, operations, overview
from lovely.remotetask.web.pages import rendering, wording
from lovely.remotetask.web.pages.state import state_of
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.security import MANAGE, VIEW

#: What stands for all tasks of a service in a form.
ALL_TASKS = ""

#: So many of the jobs that a worker holds are named.
MAX_HELD = 50


# -- services ----------------------------------------------------------------------------------


def show(context: Context, refusals: tuple[str, ...] = ()) -> Response:
    """Show the services, or at the top of several, where they are."""
    context.require(VIEW)
    return rendering.live_page(
        context,
        "services",
        title="Services",
        state="-".join(_state(match) for match in context.services),
        names=lambda: {"services": [_service(context, match) for match in context.services]},
        address=context.url("/services") if context.match else context.top_url("/"),
        refusals=refusals,
    )


def _state(match: Match) -> str:
    return state_of(match.service, overview.is_processing(match.service))


def _service(context: Context, match: Match) -> dict[str, Any]:
    service = match.service
    told = overview.service_told(match)
    health = overview.health_told(service)
    # Of several services each has an address of its own, also when it is one of them that is asked.
    is_only = len(context.services) == 1 and not context.site_is_prefix
    address = context.url if is_only else lambda path: context.service_url(match, path)
    return {
        "key": told["name"].replace("@", "-at-").strip("-"),
        "title": facts.title_of(match),
        "door": told["door"],
        "counts": [(status, number) for status, number in told["jobs"].items() if number],
        "paused": told["paused"],
        "workers": told["workers"],
        "is_processing": told["processing"],
        "problems": [wording.sentence(text) for text in health["problems"]],
        "tasks": operations.task_names(service),
        "address": address("/"),
        "jobs_address": address("/jobs"),
        "do_address": address("/services"),
    }


def act(context: Context) -> Response:
    """Do what a button of a service says."""
    context.require(MANAGE)
    assert context.match is not None
    name = facts.title_of(context.match)
    posted = context.request.POST
    task = posted.get("task") or None
    told = name if task is None else task
    address = context.url("/services")
    try:
        match posted.get("do"):
            case "start":
                overview.start_processing(context.service)
                return rendering.redirect(context, address, "started", name)
            case "stop":
                overview.stop_processing(context.service)
                return rendering.redirect(context, address, "stopped", name)
            case "pause":
                overview.pause(context.service, task)
                return rendering.redirect(context, address, "paused", told)
            case "resume":
                overview.resume(context.service, task)
                return rendering.redirect(context, address, "resumed", told)
    except RemoteTaskError as error:
        return show(context, (wording.sentence(text_of(error)),))
    return show(context, ("This button is not known here: load the page again.",))


# -- workers -----------------------------------------------------------------------------------


def show_workers(context: Context) -> Response:
    """Show who works, and on what."""
    service = context.service
    return rendering.live_page(
        context,
        "workers",
        title="Workers",
        state=state_of(service, overview.is_processing(service)),
        names=lambda: _workers(context),
        address=context.url("/workers"),
    )


def _workers(context: Context) -> dict[str, Any]:
    service, now = context.service, time.time()
    rows = []
    for worker in overview.workers_told(service, now):
        sign = worker["last_sign"]
        held = worker["held"]
        rows.append(
            {
                **worker,
                "moment": sign and wording.moment_of(datetime.fromisoformat(sign), now),
                "jobs": [_held(context, number) for number in held[:MAX_HELD]],
                "others": max(0, len(held) - MAX_HELD),
            }
        )
    return {"rows": rows, "is_processing": overview.is_processing(service)}


def _held(context: Context, number: int) -> dict[str, str]:
    try:
        job = operations.find_job(context.service, number)
    except RemoteTaskError:  # it is gone, or cannot be read here
        return {"id": str(number), "text": ""}
    return {"id": job.__name__, "text": f"{job.task} · {job.status}"}


routes = [
    Route("GET", "/services", VIEW, show),
    Route("POST", "/services", MANAGE, act),
    Route("GET", "/workers", VIEW, show_workers),
]
