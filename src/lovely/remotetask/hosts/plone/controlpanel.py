# SPDX-License-Identifier: ZPL-2.1
"""The pages of the control panel: jobs, schedules and workers.

They only show; each button posts to `Act`, with plone.protect's authenticator.
"""

from __future__ import annotations

from datetime import datetime
from pprint import pformat
from typing import Any
from urllib.parse import urlencode

from plone.app.registry.browser.controlpanel import ControlPanelFormWrapper, RegistryEditForm
from plone.protect import authenticator, postonly
from Products.Five.browser import BrowserView
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile
from Products.statusmessages.interfaces import IStatusMessage
from zExceptions import BadRequest, NotFound

from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.hosts import jobs
from lovely.remotetask.hosts.plone.jobs import MANAGE, find_job, find_service, may, user_of
from lovely.remotetask.hosts.plone.settings import PREFIX, IRemoteTaskSettings
from lovely.remotetask.interfaces import CRONJOB, DELAYED, FINAL_STATUSES, STATUSES

#: Jobs on a page.
PAGE_SIZE = 50

#: The pages that a button may come back to.
PAGES = {"jobs": "remotetask-controlpanel", "schedules": "remotetask-schedules"}


class Page(BrowserView):
    """What the pages have in common."""

    navigation = ViewPageTemplateFile("templates/navigation.pt")
    button = ViewPageTemplateFile("templates/button.pt")
    user_of = staticmethod(user_of)

    def __call__(self) -> str:
        """Return the page."""
        self.service = find_service()
        if self.service is None:
            raise NotFound("there is no service in this site")
        self.url = self.context.absolute_url()
        self.may_manage = may(MANAGE)
        text: str = self.index()
        return text

    def moment(self, value: datetime | float | None) -> str:
        """Return a time as it is shown."""
        return jobs.moment(value)


class JobsPage(Page):
    """Shows the jobs, a page at a time."""

    statuses = STATUSES

    @property
    def status(self) -> str | None:
        """The status that is asked for."""
        status = self.request.form.get("status")
        return status if status in STATUSES else None

    @property
    def task(self) -> str | None:
        """The name of the task that is asked for."""
        return str(self.request.form.get("task") or "") or None

    def tasks(self) -> list[str]:
        """Return the names of the tasks that can be asked for."""
        return sorted({*self.service.getAvailableTasks(), *filter(None, [self.task])})

    def page(self) -> Any:
        """Return the page of jobs, or the first one if there is none of that address."""
        after = self.request.form.get("after") or None
        try:
            return self.service.list(self.status, self.task, after=after, limit=PAGE_SIZE)
        except RemoteTaskError:
            return self.service.list(self.status, limit=PAGE_SIZE)

    def address_of(self, after: str) -> str:
        """Return the address of the next page."""
        asked = {"status": self.status, "task": self.task, "after": after}
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{self.url}/@@remotetask-controlpanel?{query}"


class JobPage(Page):
    """Shows a job, with all that is known of it."""

    def __call__(self) -> str:
        """Return the page.

        :raises NotFound: there is no such job, or it cannot be read here.
        """
        service = find_service()
        try:
            self.job = None if service is None else find_job(service, self.request.form.get("id"))
        except RemoteTaskError as error:
            raise NotFound(str(error)) from error
        return super().__call__()

    def verbs(self) -> list[tuple[str, str]]:
        """Return what the job can be told: (verb, what its button says)."""
        assert self.job is not None
        status = self.job.status
        if status in FINAL_STATUSES:
            return [] if status == "completed" else [("retry", "Retry")]
        verbs = [] if self.job.is_cancel_requested else [("cancel", "Cancel")]
        if status in (CRONJOB, DELAYED) or (status == "queued" and self.job.scheduledFor):
            verbs.append(("run_now", "Run now"))
        return verbs

    def shown(self, value: Any) -> str:
        """Return a value as it is shown."""
        return pformat(value, width=100)[:20_000]


class SchedulesPage(Page):
    """Shows the schedules."""


class WorkersPage(Page):
    """Shows who holds jobs."""


class Act(BrowserView):
    """Does what a button says: retry, cancel, run_now, pause, resume."""

    def __call__(self) -> None:
        """Do it, and go back to the page.

        :raises Forbidden: the request is no POST, or lacks the authenticator.
        """
        postonly.check(self.request)
        authenticator.check(self.request)
        service = find_service()
        if service is None:
            raise NotFound("there is no service in this site")
        messages = IStatusMessage(self.request)
        try:
            messages.addStatusMessage(self._do(service), "info")
        except RemoteTaskError as error:
            messages.addStatusMessage(str(error), "error")
        form = self.request.form
        url = f"{self.context.absolute_url()}/@@{PAGES.get(form.get('back'), PAGES['jobs'])}"
        if form.get("id") and not form.get("back"):
            url = f"{self.context.absolute_url()}/@@remotetask-job?{urlencode({'id': form['id']})}"
        self.request.response.redirect(url)

    def _do(self, service: Any) -> str:
        form = self.request.form
        verb = form.get("verb")
        if verb in ("pause", "resume"):
            task = form.get("task") or None
            getattr(service, verb)(task)
            return f"{task or 'All tasks'}: {verb}d"
        if verb not in ("retry", "cancel", "run_now"):
            raise BadRequest(f"there is no verb {verb!r}")
        job = find_job(service, form.get("id"))
        getattr(service, verb)(job.id)
        if verb == "cancel" and job.is_cancel_requested:
            return f"Job {job.id} is asked to stop"
        return f"Job {job.id} is {job.status}"


class SettingsForm(RegistryEditForm):
    """Shows the settings, and changes them."""

    schema = IRemoteTaskSettings
    schema_prefix = PREFIX
    label = "Settings of remote tasks"


class SettingsPage(ControlPanelFormWrapper):
    """The form in the layout of control panels."""

    form = SettingsForm
