# SPDX-License-Identifier: ZPL-2.1
"""For programs, by JSON."""

from __future__ import annotations

import json
from typing import Any

from webob import Request, Response

from lovely.remotetask.web import operations
from lovely.remotetask.web.routing import Context, Face, Route
from lovely.remotetask.web.security import ADD, MANAGE, VIEW, Refusal, check_program


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    response = Response(
        json.dumps(value).encode(), status=status, content_type="application/json", charset=None
    )
    response.headers.update(headers or {})
    return response


def _list_jobs(context: Context) -> Response:
    given = context.request.GET
    return answer(operations.list_told(context.service, status=given.get("status")))


def _job(context: Context) -> Response:
    return answer(operations.all_of(context.service, context.values["job"]))


def _add(context: Context) -> Response:
    given = json.loads(context.request.body)
    jobid = operations.add(context.service, given["task"], given.get("input"))
    address = context.url(f"/api/v1/jobs/{jobid}")
    return answer({"id": jobid, "status_url": address}, 202, {"Location": address})


def _tell(context: Context) -> Response:
    verb = operations.VERBS[context.request.path.rpartition("/")[2]]
    return answer({"outcome": verb(context.service, context.values["job"])})


routes = [
    Route("GET", "/api/v1/jobs", VIEW, _list_jobs),
    Route("POST", "/api/v1/jobs", ADD, _add),
    Route("GET", "/api/v1/jobs/{job}", VIEW, _job),
    *(
        Route("POST", f"/api/v1/jobs/{{job}}/{verb}", MANAGE, _tell)
        for verb in ("cancel", "retry", "run-now")
    ),
]


def _check(context: Context) -> None:
    check_program(context.request, context.settings.origins)


def _show(request: Request, refusal: Refusal) -> Response:
    problem = {"title": refusal.title, "status": refusal.status, "detail": refusal.detail}
    response = answer(problem, refusal.status)
    response.content_type = "application/problem+json"
    return response


FACE = Face("api", routes, [], _check, _show)
