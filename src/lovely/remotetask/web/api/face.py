# SPDX-License-Identifier: ZPL-2.1
"""All calls of the JSON API."""

from __future__ import annotations

from typing import Any

from webob import Request, Response

from lovely.remotetask.web.api import jobs, scheduling, services
from lovely.remotetask.web.api.call import Answer, Call, answer, show_problem
from lovely.remotetask.web.api.document import Of, document_of
from lovely.remotetask.web.operations import is_remote, task_names
from lovely.remotetask.web.routing import Context, Face
from lovely.remotetask.web.security import VIEW, Refusal, check_program


def _document(context: Context, given: dict[str, Any]) -> Response:
    server = context.url("/").rstrip("/") or "/"
    service = context.service
    return answer(document_of(CALLS, Of(server, task_names(service), is_remote(service))))


CALLS = [
    *jobs.CALLS,
    *scheduling.CALLS,
    *services.CALLS,
    Call(
        "getDocument",
        "GET",
        "/openapi.json",
        VIEW,
        "Tell all calls, in the form of OpenAPI.",
        _document,
        {200: Answer("The document.", {"type": "object"})},
    ),
]


def _check(context: Context) -> None:
    check_program(context.request, context.settings.origins)


def _show(request: Request, refusal: Refusal) -> Response:
    return show_problem(refusal)


FACE = Face(
    "api",
    [call.route() for call in CALLS if not call.is_top],
    [call.route() for call in CALLS if call.is_top or call.name == "getMetrics"],
    _check,
    _show,
)
