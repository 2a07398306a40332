# SPDX-License-Identifier: ZPL-2.1
"""The pages for people."""

from __future__ import annotations

from webob import Request, Response

from lovely.remotetask.web.routing import Context, Face, Route
from lovely.remotetask.web.security import Refusal, check_form

#: Below the prefix of each service.
routes: list[Route] = []

#: Of no service: the list of services, and what all pages need.
top_routes: list[Route] = []


def _check(context: Context) -> None:
    check_form(context.request, context.settings.origins, context.settings.secret)


def _show(request: Request, refusal: Refusal) -> Response:
    return Response(
        f"{refusal.status} {refusal.title}\n\n{refusal.detail}\n",
        status=refusal.status,
        content_type="text/plain",
        charset="utf-8",
    )


FACE = Face("pages", routes, top_routes, _check, _show)
