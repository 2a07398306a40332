# SPDX-License-Identifier: ZPL-2.1
"""For programs, by XML-RPC."""

from __future__ import annotations

from webob import Request, Response

from lovely.remotetask.web.routing import BY_CALL, Context, Face, Route
from lovely.remotetask.web.security import VIEW, Refusal, check_program


def _call(context: Context) -> Response:
    context.require(VIEW)
    raise Refusal(501, "soon")


def _check(context: Context) -> None:
    check_program(context.request, context.settings.origins)


def _show(request: Request, refusal: Refusal) -> Response:
    return Response(refusal.detail, status=refusal.status, content_type="text/plain")


FACE = Face("xmlrpc", [Route("POST", "/xmlrpc", BY_CALL, _call)], [], _check, _show)
