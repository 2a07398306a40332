# SPDX-License-Identifier: ZPL-2.1
"""The description of the API in the form of OpenAPI, made of the calls themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lovely.remotetask.web.api import schemas
from lovely.remotetask.web.api.call import PREFIX, Call

TITLE = "lovely.remotetask"

#: What any call can answer.
ERRORS = {
    400: "The request is malformed.",
    401: "Nobody knows who asks.",
    403: "Who asks may not; or nothing can be changed here; or another site has sent it.",
    413: "The body is too large.",
    422: "A value makes no sense.",
    503: "The storage does not work, or others are changing the same.",
}
OF_BODY = {415: "The body is not in JSON."}
OF_SOME = {404: "There is no such thing.", 409: "Its state does not allow that."}


def document_of(calls: Iterable[Call], server: str, tasks: list[str]) -> dict[str, Any]:
    """Return the document.

    :param server: the address that `PREFIX` follows.
    :param tasks: the names that jobs can be added for.
    """
    paths: dict[str, Any] = {}
    for call in calls:
        paths.setdefault(PREFIX + call.path, {})[call.method.lower()] = _operation(call, tasks)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1"},
        "servers": [{"url": server}],
        "security": [{"bearer": []}, {"basic": []}, {}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
            "schemas": {"Problem": schemas.PROBLEM},
        },
        "paths": paths,
    }


def _operation(call: Call, tasks: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        "description": f"It takes the permission `{call.permission}`.",
        "responses": _responses(call),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schemas.NAME}
        for name in re.findall(r"\{(\w+)\}", call.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": s} for name, s in call.query.items()]
    if parameters:
        told["parameters"] = parameters
    if call.body is not None:
        told["requestBody"] = {
            "required": call.is_body_needed,
            "content": {"application/json": {"schema": _with_tasks(call, tasks)}},
        }
    return told


def _with_tasks(call: Call, tasks: list[str]) -> dict[str, Any]:
    """Return the form of a body; where it must name a task, with the names that there are."""
    body = dict(call.body or {})
    if tasks and "task" in body.get("required", ()):
        body["properties"] = {**body["properties"], "task": {"type": "string", "enum": tasks}}
    return body


def _responses(call: Call) -> dict[str, Any]:
    errors = {**ERRORS, **(OF_BODY if call.body is not None else {})}
    errors.update({status: OF_SOME[status] for status in call.errors})
    problem: dict[str, Any] = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    told: dict[str, Any] = {}
    for status, text in errors.items():
        told[str(status)] = {"description": text, "content": problem}
    for status, answer in call.answers.items():
        content: dict[str, Any] = {}
        if answer.schema is not None:
            content = {answer.media_type: {"schema": answer.schema}}
        if status in errors:
            content = {**problem, **content}
        told[str(status)] = {"description": answer.text, "content": content}
    return dict(sorted(told.items()))
