# SPDX-License-Identifier: ZPL-2.1
"""The jobs of the user of a request: a viewlet, and what its script asks for."""

from __future__ import annotations

import json
from typing import Any

from plone.app.layout.viewlets.common import ViewletBase
from Products.Five.browser import BrowserView
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile

from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.hosts.plone.jobs import current_user, find_job, find_service, is_own
from lovely.remotetask.interfaces import PROCESSING, QUEUED

#: Of the jobs that run, and of those that wait, so many are looked through.
MAX_LOOKED_AT = 30

#: So many jobs that have ended can be asked for.
MAX_ASKED = 20


def own_jobs(asked: list[str]) -> list[dict[str, Any]]:
    """Return the user's jobs that run or are ready, and those that are asked for by their ids.

    Transaction: reads only.
    """
    service = find_service()
    if service is None or current_user() is None:
        return []
    found = {}
    for status in (PROCESSING, QUEUED):
        for job in service.list(status=status, limit=MAX_LOOKED_AT).jobs:
            if is_own(job):
                found[job.id] = job
    for jobid in asked[:MAX_ASKED]:
        try:
            job = find_job(service, jobid)
        except RemoteTaskError:
            continue
        if is_own(job):
            found.setdefault(job.id, job)
    return [_told(service, found[jobid]) for jobid in sorted(found)]


def _told(service: Any, job: Any) -> dict[str, Any]:
    progress = service.progress.get(job.id)
    return {
        "id": job.id,
        "title": job.note or job.task,
        "status": job.status,
        "is_final": job.is_final,
        "text": job.error or (progress.message if progress else "") or "",
        "done": progress.done if progress else None,
        "total": progress.total if progress else None,
    }


class OwnJobsViewlet(ViewletBase):
    """Shows how far the user's jobs are, while there are any."""

    index = ViewPageTemplateFile("templates/own.pt")

    def update(self) -> None:
        """Look for the jobs."""
        super().update()
        try:
            self.jobs = own_jobs([])
        except RemoteTaskError:  # such as `OldRecord`: a page is no place to say so
            self.jobs = []

    def render(self) -> str:
        """Return the bars, or nothing."""
        text: str = self.index() if self.jobs else ""
        return text


class OwnJobsView(BrowserView):
    """Tells the script of the viewlet how far the jobs are."""

    def __call__(self) -> str:
        """Return the jobs as JSON."""
        self.request.response.setHeader("Content-Type", "application/json")
        self.request.response.setHeader("Cache-Control", "no-store, private")
        asked = str(self.request.form.get("ids", "")).split(",")
        return json.dumps({"jobs": own_jobs([jobid for jobid in asked if jobid])})
