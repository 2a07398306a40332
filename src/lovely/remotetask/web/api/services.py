# SPDX-License-Identifier: ZPL-2.1
"""The calls about services, workers and health."""

from __future__ import annotations

from typing import Any

from webob import Response

from lovely.remotetask.hosts.prometheus import CONTENT_TYPE, metrics_text
from lovely.remotetask.web import operations, overview
from lovely.remotetask.web.api import schemas
from lovely.remotetask.web.api.call import PREFIX, Answer, Call, answer
from lovely.remotetask.web.facts import pattern_of
from lovely.remotetask.web.routing import Context
from lovely.remotetask.web.security import MANAGE, VIEW


def _services(context: Context, given: dict[str, Any]) -> Response:
    told = [
        {"name": pattern_of(match), "url": context.service_url(match, f"{PREFIX}/service")}
        for match in context.services
    ]
    return answer({"services": told})


def _service(context: Context, given: dict[str, Any]) -> Response:
    assert context.match is not None
    return answer(overview.service_told(context.match))


def _tasks(context: Context, given: dict[str, Any]) -> Response:
    return answer({"tasks": operations.task_names(context.service)})


def _start(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, overview.start_processing(context.service))


def _stop(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, overview.stop_processing(context.service))


def _pause(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, overview.pause(context.service, **given))


def _resume(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, overview.resume(context.service, **given))


def _told(context: Context, outcome: str) -> Response:
    return answer({"id": context.name, "outcome": outcome})


def _workers(context: Context, given: dict[str, Any]) -> Response:
    return answer({"workers": overview.workers_told(context.service)})


def _health(context: Context, given: dict[str, Any]) -> Response:
    told = overview.health_told(context.service)
    return answer(told, 200 if told["healthy"] else 503)


def _metrics(context: Context, given: dict[str, Any]) -> Response:
    matches = [context.match] if context.match else context.services
    text = metrics_text(*(match.service for match in matches))
    return Response(text.encode(), content_type=CONTENT_TYPE, charset=None)


OUTCOME = {200: Answer("What has come of it.", schemas.OUTCOME)}
METRICS = {200: Answer("The text.", schemas.STRING, "text/plain")}

CALLS = [
    Call(
        "listServices",
        "GET",
        "/services",
        VIEW,
        "List the services that there are.",
        _services,
        {200: Answer("Their names and addresses.", schemas.SERVICES)},
        is_top=True,
    ),
    Call(
        "getService",
        "GET",
        "/service",
        VIEW,
        "Tell how many jobs a service has, what is paused, and who works.",
        _service,
        {200: Answer("The service.", schemas.SERVICE)},
    ),
    Call(
        "startService",
        "POST",
        "/service/start",
        MANAGE,
        "Let threads of the process that answers work on the service.",
        _start,
        OUTCOME,
        errors=(409,),
    ),
    Call(
        "stopService",
        "POST",
        "/service/stop",
        MANAGE,
        "Let the threads end that work on the service in the process that answers.",
        _stop,
        OUTCOME,
    ),
    Call(
        "pauseService",
        "POST",
        "/service/pause",
        MANAGE,
        "Let no job be claimed, or none of a task, in any process.",
        _pause,
        OUTCOME,
        body=schemas.OF_TASK,
        is_body_needed=False,
    ),
    Call(
        "resumeService",
        "POST",
        "/service/resume",
        MANAGE,
        "Let jobs be claimed again.",
        _resume,
        OUTCOME,
        body=schemas.OF_TASK,
        is_body_needed=False,
    ),
    Call(
        "listTasks",
        "GET",
        "/tasks",
        VIEW,
        "Tell the names that jobs can be added for.",
        _tasks,
        {200: Answer("The names.", schemas.TASKS)},
    ),
    Call(
        "listWorkers",
        "GET",
        "/workers",
        VIEW,
        "Tell who holds jobs.",
        _workers,
        {200: Answer("The workers.", schemas.WORKERS)},
    ),
    Call(
        "getHealth",
        "GET",
        "/health",
        VIEW,
        "Say whether all is well.",
        _health,
        {
            200: Answer("All is well.", schemas.HEALTH),
            503: Answer("Something is not; or the storage does not work.", schemas.HEALTH),
        },
    ),
    Call(
        "getMetrics",
        "GET",
        "/metrics",
        VIEW,
        "Tell counts in the text format of Prometheus.",
        _metrics,
        METRICS,
    ),
]
