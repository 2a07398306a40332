# SPDX-License-Identifier: ZPL-2.1
"""An add-on for the tests in a real Plone: tasks, and views that add jobs and show them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import transaction
from plone import api
from plone.protect.interfaces import IDisableCSRFProtection
from Products.Five.browser import BrowserView
from zope.component import getUtility
from zope.component.hooks import getSite
from zope.globalrequest import getRequest
from zope.interface import alsoProvides, directlyProvidedBy

from lovely.remotetask.hosts import content, zope
from lovely.remotetask.interfaces import ITaskService
from lovely.remotetask.task import task


@task("look")
def look(path: str) -> dict[str, Any]:
    """Return what a job sees."""
    request = getRequest()
    user = api.user.get_current()
    return {
        "url": api.portal.get().unrestrictedTraverse(path).absolute_url(),
        "portal": getSite().absolute_url(),
        "user": user.getId(),
        "roles": sorted(api.user.get_roles()),
        "form": dict(request.form),
        "layers": [layer.__name__ for layer in directlyProvidedBy(request)],
        "mark": request.get("mark"),
        "translated": api.portal.translate("Edit", "plone"),
    }


@task("mark")
def mark(input: Any) -> None:
    """Leave something behind in the request."""
    getRequest().set("mark", "left behind")


@task("make")
def make(title: str) -> str:
    """Make a page, as a request would."""
    return "/".join(api.content.create(api.portal.get(), "Document", title=title).getPhysicalPath())


@task("show")
def show(given: Any) -> str:
    """Return the title of an object, or of what a reference refers to."""
    title: str = (given.resolve() if isinstance(given, content.Content) else given).Title()
    return title


@task("length")
def length(file: Any) -> int:
    """Return the length of a file."""
    return len(bytes(file.data))


@task("visit")
def visit(places: list[Any]) -> list[Any]:
    """Return what objects are that were given themselves."""
    return [[place.Title(), place.absolute_url(), place.getPhysicalPath()[1]] for place in places]


@task("count", context=True)
def count(context: Any, number: int) -> int:
    """Say in the log what was counted."""
    context.log.info("counted %s", number)
    return number


@task("slow", context=True)
def slow(context: Any, path: str) -> str:
    """Wait until a file is there."""
    context.progress(1, 4, "waiting")
    Path(path).with_suffix(".begun").touch()
    while not Path(path).exists():
        time.sleep(0.05)
    return "done"


def rename(page: Any, title: str, *, exclaim: bool = False) -> str:
    """Give a page another title."""
    page.title = title + "!" * exclaim
    page.reindexObject()
    return str(page.absolute_url())


class TitleView(BrowserView):
    """Returns a title, and a parameter."""

    def __call__(self) -> str:
        """Return them."""
        return f"{self.context.Title()} {self.request.form.get('with')}"


class AddByGetView(BrowserView):
    """Adds a job, which a GET must not."""

    def __call__(self) -> str:
        """Return the id that the job would have."""
        jobid = getUtility(ITaskService, name="tasks").add("mark")
        if self.request.form.get("fail"):
            raise ValueError("as asked for")
        self.request.response.setHeader("Content-Type", "text/plain")
        return str(jobid)


class RunView(BrowserView):
    """Runs Python, as the user of the request: for tests alone."""

    def __call__(self) -> str:
        """Return what the code has put into ``result``, as JSON."""
        alsoProvides(self.request, IDisableCSRFProtection)
        names: dict[str, Any] = {
            "api": api,
            "service": getUtility(ITaskService, name="tasks"),
            "portal": getSite(),
            "content": content,
            "zope": zope,
            "rename": rename,
            "transaction": transaction,
        }
        exec(self.request.form["code"], names)
        return json.dumps(names.get("result"), default=str)
