# SPDX-License-Identifier: ZPL-2.1
"""Where XML-RPC is answered."""

from __future__ import annotations

from typing import Any
from xmlrpc.client import Fault

from transaction.interfaces import TransientError
from webob import Request, Response

from lovely.remotetask.errors import RemoteTaskError, describe, shown
from lovely.remotetask.web.operations import status_of
from lovely.remotetask.web.routing import BY_CALL, Context, Face, Route
from lovely.remotetask.web.security import NOTHING, Refusal, check_program
from lovely.remotetask.web.xmlrpc.methods import check_arguments, method_named
from lovely.remotetask.web.xmlrpc.wire import (
    CANNOT_BE_SENT,
    Unsendable,
    read_call,
    write_answer,
    write_fault,
)

MEDIA_TYPES = ("text/xml", "application/xml")


def _call(context: Context) -> Response:
    request = context.request
    if request.content_type not in MEDIA_TYPES or request.headers.get("Content-Encoding"):
        raise Refusal(415, "a call of XML-RPC is text/xml, and not compressed")
    try:
        name, arguments = read_call(request.body)
        method = method_named(name)
        context.require(method.permission)
        check_arguments(name, method, arguments)
        body = _ran(context, name, method.run, arguments)
    except Fault as fault:
        context.granted = NOTHING  # what it may have begun is not kept
        body = write_fault(fault)
    return Response(body, content_type="text/xml", charset="utf-8")


def _ran(context: Context, name: str, run: Any, arguments: tuple[Any, ...]) -> bytes:
    try:
        return write_answer(run(context.service, *arguments))
    except TransientError:
        raise
    except Unsendable as error:
        told = ", ".join(map(shown, arguments))
        text = f"what {name}({told}) returns cannot be sent: {describe(error)}"
        raise Fault(CANNOT_BE_SENT, text) from None
    except RemoteTaskError as error:
        raise Fault(status_of(error), f"{name}: {describe(error)}") from None


def _check(context: Context) -> None:
    check_program(context.request, context.settings.origins)


def _show(request: Request, refusal: Refusal) -> Response:
    return Response(
        f"{refusal.detail}\n", status=refusal.status, content_type="text/plain", charset="utf-8"
    )


FACE = Face(
    "xmlrpc",
    [Route("POST", "/xmlrpc", BY_CALL, _call), Route("POST", "/", BY_CALL, _call)],
    [],
    _check,
    _show,
)
