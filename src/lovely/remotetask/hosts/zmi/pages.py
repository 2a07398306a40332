# SPDX-License-Identifier: ZPL-2.1
"""The page: services with their jobs and workers, and a job; and what its buttons do."""

from __future__ import annotations

from pprint import pformat
from typing import Any
from urllib.parse import urlencode

from OFS.Application import Application
from Products.Five.browser import BrowserView
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile
from zExceptions import BadRequest, NotFound

from lovely.remotetask.base.site import entered
from lovely.remotetask.errors import JobNotFound, RemoteTaskError
from lovely.remotetask.hosts.autostart import Match, find_services, match_site
from lovely.remotetask.hosts.jobs import MANAGE, find_job, may, moment, user_of
from lovely.remotetask.hosts.zmi import token
from lovely.remotetask.interfaces import CRONJOB, DELAYED, FINAL_STATUSES, STATUSES, ITaskService

#: Jobs on a page.
PAGE_SIZE = 50

#: Characters of a value that are shown.
MAX_SHOWN = 20_000

#: The page is a tab of the root in the ZMI.
TAB = {"label": "Remote tasks", "action": "@@remotetasks"}


def database_opened(event: Any) -> None:
    """Give the root its tab: for `IDatabaseOpenedWithRoot`.

    Transaction: none.
    """
    if TAB not in Application.manage_options:
        Application.manage_options = (*Application.manage_options, TAB)


def services_of(place: Any) -> dict[str, Match]:
    """Return the services of a site by their patterns; those of all sites for the root of Zope.

    Transaction: reads only.
    """
    path = "/".join(place.getPhysicalPath()).strip("/")
    root = place.getPhysicalRoot()._p_jar.root()
    found = {}
    for match in find_services(root, [f"{path}@*" if path else "*@*"]):
        if ITaskService.providedBy(match.service):
            site = "" if isinstance(match.site, Application) else match.site_name
            found[f"{site}@{match.service_name}"] = match
    return found


class Remotetasks(BrowserView):
    """Shows a service with its jobs, a page at a time; or, with ``job`` in the form, a job."""

    statuses = STATUSES
    list_template = ViewPageTemplateFile("jobs.pt")
    job_template = ViewPageTemplateFile("job.pt")
    user_of = staticmethod(user_of)
    moment = staticmethod(moment)

    def __call__(self) -> str:
        """Return the page.

        :raises NotFound: there is no such service or job.
        """
        self.request.response.setHeader("Cache-Control", "no-store, private")
        self.url = f"{self.context.absolute_url()}/@@remotetasks"
        self.services = services_of(self.context)
        self.name, match = choose(self.services, self.request.form.get("service"))
        self.service: Any = None if match is None else match.service
        self.may_manage = may(MANAGE, self.context)
        self.token = token.make(self.context) if self.may_manage else None
        self.status = self._asked("status") if self._asked("status") in STATUSES else None
        self.task = self._asked("task")
        self.problem: str | None = None
        jobid = self._asked("job")
        if self.service is not None and jobid is not None:
            try:
                self.job = find_job(self.service, jobid)
            except JobNotFound as error:
                raise NotFound(str(error)) from error
            return str(self.job_template())
        return str(self.list_template())

    def _asked(self, name: str) -> str | None:
        value = self.request.form.get(name)
        return value.strip() or None if isinstance(value, str) else None

    def page(self) -> Any:
        """Return the page of jobs, or None, and then ``problem`` says why."""
        try:
            return self.service.list(
                self.status, self.task, after=self._asked("after"), limit=PAGE_SIZE
            )
        except RemoteTaskError as error:  # a cursor that is none, a service of 0.5
            self.problem = str(error)
            return None

    def address(self, **asked: Any) -> str:
        """Return the address of a page of this service."""
        asked = {"service": self.name, **asked}
        return f"{self.url}?{urlencode({name: value for name, value in asked.items() if value})}"

    def progress(self, job: Any) -> str:
        """Return how far a job is."""
        found = self.service.progress.get(job.id)
        if found is None:
            return ""
        of = f" of {found.total:g}" if found.total else ""
        return f"{found.done:g}{of} {found.message or ''}".strip()

    def verbs(self) -> list[tuple[str, str]]:
        """Return what the job can be told: (verb, what its button says)."""
        status = self.job.status
        if status in FINAL_STATUSES:
            return [] if status == "completed" else [("retry", "Retry")]
        verbs = [] if self.job.is_cancel_requested else [("cancel", "Cancel")]
        if status in (CRONJOB, DELAYED) or (status == "queued" and self.job.scheduledFor):
            verbs.append(("run_now", "Run now"))
        return verbs

    def shown(self, value: Any) -> str:
        """Return a value as it is shown."""
        return pformat(value, width=100)[:MAX_SHOWN]


class Act(BrowserView):
    """Does what a button says: retry, cancel, run_now, pause, resume."""

    def __call__(self) -> None:
        """Do it, and go back to the page.

        :raises Forbidden: the request is no form of ours, sent by the current user.
        :raises NotFound: there is no such service.
        """
        token.check(self.context, self.request)
        form = self.request.form
        name, match = choose(services_of(self.context), form.get("service"))
        if match is None:
            raise NotFound("there is no service")
        back = {"service": name, "job": form.get("job") or "", "manage_tabs_type": "success"}
        try:
            with entered(match_site(match)):
                back["manage_tabs_message"] = self._do(match.service)
        except RemoteTaskError as error:
            back |= {"manage_tabs_type": "danger", "manage_tabs_message": str(error)}
            if isinstance(error, JobNotFound):
                del back["job"]
        address = f"{self.context.absolute_url()}/@@remotetasks?{urlencode(back)}"
        self.request.response.redirect(address, status=303)

    def _do(self, service: Any) -> str:
        form = self.request.form
        verb = form.get("verb")
        if verb in ("pause", "resume"):
            task = form.get("task") or None
            getattr(service, verb)(task)
            return f"{task or 'All tasks'}: {verb}d"
        if verb not in ("retry", "cancel", "run_now"):
            raise BadRequest(f"there is no verb {verb!r}")
        job = find_job(service, form.get("job"))
        getattr(service, verb)(job.id)
        if verb == "cancel" and job.is_cancel_requested:
            return f"Job {job.id} is asked to stop"
        return f"Job {job.id} is {job.status}"


def choose(services: dict[str, Match], name: Any) -> tuple[str, Match | None]:
    """Return the service of a name with its name; the first one where no name is given.

    :raises NotFound: there is no such service.
    """
    if name:
        if name not in services:
            raise NotFound(f"there is no service {name}")
        return name, services[name]
    return next(iter(services.items()), ("", None))
