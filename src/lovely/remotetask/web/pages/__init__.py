# SPDX-License-Identifier: ZPL-2.1
"""The pages for people.

They work without scripts; htmx keeps what is shown up to date, see `rendering.live_page`.  From top
to bottom:

``front``         whether all is well
``jobs``          the list of jobs, and what can be done with many
``job``           one job
``adding``        the form of a new job
``schedules``     the list of schedules, and their form
``services``      services, and workers
``joblist``       which jobs a page of the list has
``jobfacts``      what a job waits for, whom it follows, its keys
``details``       what stands in the column Detail
``inputform``     forms made of the schema of a task's input
``scheduleform``  the times of a schedule, as people type them
``chart``         what was done and has failed, as bars
``rendering``     templates, messages, and what keeps itself up to date
``state``         whether something has changed
``wording``       times, numbers and values in words
"""

from __future__ import annotations

from webob import Request, Response

from lovely.remotetask.web.pages import adding, front, job, jobs, rendering, schedules, services
from lovely.remotetask.web.routing import BY_CALL, Context, Face, Route
from lovely.remotetask.web.security import VIEW, Refusal, check_form

#: Below the prefix of each service.
routes: list[Route] = [
    *front.routes,
    *jobs.routes,
    *job.routes,
    *adding.routes,
    *schedules.routes,
    *services.routes,
]


def _file(context: Context) -> Response:
    """Return a file that pages need."""
    context.require_any()
    context.granted = VIEW
    content, _ = rendering.FILES.get(context.values["name"], (None, None))
    if content is None:
        raise Refusal(404, "there is nothing at this address")
    return rendering.file_response(context.values["name"])


#: Of no service: the list of services, and what all pages need.
top_routes: list[Route] = [
    Route("GET", "/", BY_CALL, services.show),
    Route("GET", "/static/{name}", BY_CALL, _file),
]


def _check(context: Context) -> None:
    check_form(context.request, context.settings.origins, context.settings.secret)


def _show(request: Request, refusal: Refusal) -> Response:
    return rendering.refusal_page(request, refusal)


#: Called once, before the first request.
prepare = rendering.prepare

FACE = Face("pages", routes, top_routes, _check, _show)
