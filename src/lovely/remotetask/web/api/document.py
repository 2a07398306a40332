# SPDX-License-Identifier: ZPL-2.1
"""The description of the API in the form of OpenAPI, made of the calls themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

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


class Of(NamedTuple):
    """What the document tells of, beside the calls.

    :ivar server: the address that `PREFIX` follows.
    :ivar tasks: the names that jobs can be added for.
    :ivar is_remote: the service is a remote processor, which takes less.
    """

    server: str
    tasks: list[str]
    is_remote: bool


#: What the jobs and the schedules of a remote processor do not have.
_NOT_REMOTE = {
    "addJob": tuple(schemas.NEW_JOB["properties"].keys() - {"task", "input"}),
    "addManyJobs": ("priority",),
    "retryJob": ("input",),
    **dict.fromkeys(("addSchedule", "editSchedule", "previewTimes"), ("timezone", "cron")),
}


def document_of(calls: Iterable[Call], of: Of) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, Any] = {}
    for call in calls:
        paths.setdefault(PREFIX + call.path, {})[call.method.lower()] = _operation(call, of)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1"},
        "servers": [{"url": of.server}],
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


def _operation(call: Call, of: Of) -> dict[str, Any]:
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
            "content": {"application/json": {"schema": _body(call, of)}},
        }
    return told


def _body(call: Call, of: Of) -> dict[str, Any]:
    """Return the form of a body, as the service takes it."""
    body = dict(call.body or {})
    properties = dict(body["properties"])
    if of.tasks and "task" in body["required"]:
        properties["task"] = {"type": "string", "enum": of.tasks}
    for name in _NOT_REMOTE.get(call.name, ()) if of.is_remote else ():
        del properties[name]
    return {**body, "properties": properties}


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
