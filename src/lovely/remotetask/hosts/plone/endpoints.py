# SPDX-License-Identifier: ZPL-2.1
"""``@remotetasks``, by plone.restapi.

Who may add jobs sees, cancels and repeats those that run as him; for those of others, and for the
list, it takes a permission.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plone.protect.interfaces import IDisableCSRFProtection
from plone.restapi.deserializer import json_body
from plone.restapi.services import Service
from zExceptions import BadRequest, NotFound, Unauthorized
from zope.interface import alsoProvides, implementer
from zope.publisher.interfaces import IPublishTraverse

from lovely.remotetask.errors import JobNotFound, RemoteTaskError
from lovely.remotetask.hosts.plone.jobs import (
    ADD,
    MANAGE,
    VIEW,
    all_of,
    find_job,
    find_service,
    is_own,
    may,
    told_of,
)
from lovely.remotetask.hosts.plone.settings import setting

#: The task that calls any function of any module is for code alone.
NEVER_OFFERED = ("lovely.remotetask.function",)

#: What a POST may have.
FIELDS = ("task", "input", "note", "delay")

VERBS: dict[str, Callable[[Any, int], None]] = {
    "retry": lambda service, jobid: service.retry(jobid),
    "cancel": lambda service, jobid: service.cancel(jobid),
}


@implementer(IPublishTraverse)
class Endpoint(Service):
    """What the requests have in common: the names behind ``@remotetasks``, and errors."""

    def __init__(self, context: Any, request: Any) -> None:
        super().__init__(context, request)
        self.names: list[str] = []

    def publishTraverse(self, request: Any, name: str) -> Endpoint:
        """See `IPublishTraverse`."""
        self.names.append(name)
        return self

    def reply(self) -> Any:
        """Return the answer."""
        self.service = find_service()
        if self.service is None:
            raise NotFound("there is no service in this site")
        try:
            return self.answer()
        except JobNotFound as error:
            raise NotFound(str(error)) from error
        except RemoteTaskError as error:
            raise BadRequest(str(error)) from error

    def answer(self) -> Any:
        """Return the answer, or raise an error of the package."""
        raise NotImplementedError

    def found(self) -> Any:
        """Return the job that the address names, if the user may know of it."""
        job = find_job(self.service, self.names[0])
        if not (may(VIEW) or is_own(job)):
            raise Unauthorized(f"no permission {VIEW!r}")
        return job

    def with_address(self, told: dict[str, Any]) -> dict[str, Any]:
        """Return what is told of a job with its address."""
        return {"@id": f"{self.context.absolute_url()}/@remotetasks/{told['id']}", **told}


class Get(Endpoint):
    """Tells of a job, or lists jobs: ``?status=`` ``&task=`` ``&after=`` ``&limit=``."""

    def answer(self) -> Any:
        """Return the job, or a page of jobs."""
        if len(self.names) > 1:
            raise NotFound("/".join(self.names))
        if self.names:
            return self.with_address(all_of(self.service, self.found()))
        if not may(VIEW):
            raise Unauthorized(f"no permission {VIEW!r}")
        form = self.request.form
        limit = str(form.get("limit", "50"))
        page = self.service.list(
            status=form.get("status") or None,
            task=form.get("task") or None,
            after=form.get("after") or None,
            limit=int(limit) if limit.isascii() and limit.isdigit() else limit,
        )
        return {
            "@id": f"{self.context.absolute_url()}/@remotetasks",
            "items": [self.with_address(told_of(self.service, job)) for job in page.jobs],
            "next": page.next,
        }


class Post(Endpoint):
    """Adds a job, or tells one to run again or to stop."""

    def answer(self) -> Any:
        """Add a job, or do to one what the address says."""
        # A form of another site cannot make such a request: it has to ask for JSON.
        alsoProvides(self.request, IDisableCSRFProtection)
        if not self.names:
            return self._add()
        if len(self.names) != 2 or self.names[1] not in VERBS:
            raise NotFound("/".join(self.names))
        job = self.found()
        if not (may(MANAGE) or (is_own(job) and may(ADD))):
            raise Unauthorized(f"no permission {MANAGE!r}")
        VERBS[self.names[1]](self.service, job.id)
        return self.with_address(told_of(self.service, job))

    def _add(self) -> Any:
        given = json_body(self.request)
        if unknown := sorted(set(given) - set(FIELDS)):
            raise BadRequest(f"there is no {', '.join(unknown)}: a job has {', '.join(FIELDS)}")
        task = given.get("task")
        if not isinstance(task, str):
            raise BadRequest("task must be the name of a task")
        self._check_offered(task)
        jobid = self.service.add(
            task, given.get("input"), note=given.get("note"), delay=given.get("delay")
        )
        told = self.with_address(told_of(self.service, self.service.job(jobid)))
        self.request.response.setStatus(202)
        self.request.response.setHeader("Location", told["@id"])
        return told

    def _check_offered(self, task: str) -> None:
        """Raise unless the user may add jobs for a task."""
        if not may(MANAGE):
            if not may(ADD):
                raise Unauthorized(f"no permission {ADD!r}")
            if task not in (setting("offered_tasks") or ()):
                raise Unauthorized(f"the task {task!r} is not offered over HTTP")
        if task in NEVER_OFFERED:
            raise Unauthorized(f"the task {task!r} is not offered over HTTP")
