# SPDX-License-Identifier: ZPL-2.1
"""Zope 5 and 6, and with it Plone: jobs see what a request sees.

A job runs with a request, in its site, both wrapped as traversal wraps them, and as the user who
has added it.  ``configure.zcml`` sets this up where Zope is; `set_up` does it elsewhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from AccessControl.SecurityManagement import getSecurityManager, newSecurityManager
from Acquisition import aq_base, aq_inner, aq_parent
from App.config import getConfiguration
from OFS.Application import Application
from OFS.interfaces import ITraversable
from Products.Five.component import enableSite
from Products.Five.component.interfaces import IObjectManagerSite
from zope.component import getGlobalSiteManager, provideAdapter, provideHandler
from zope.component.hooks import getSite, setHooks, setSite
from zope.component.interfaces import ISite
from zope.component.persistentregistry import PersistentComponents
from zope.event import notify
from zope.globalrequest import getRequest, setRequest
from zope.publisher.browser import setDefaultSkin
from zope.security.management import newInteraction, queryInteraction
from zope.traversing.interfaces import BeforeTraverseEvent
from ZPublisher.BaseRequest import RequestContainer
from ZPublisher.HTTPRequest import HTTPRequest
from ZPublisher.HTTPResponse import HTTPResponse
from ZPublisher.interfaces import IPubStart

from lovely.remotetask.around import register_around, register_context
from lovely.remotetask.base.site import ROOT_NAME
from lovely.remotetask.engine.registry import take_endings
from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.hosts import servers
from lovely.remotetask.hosts.autostart import (
    PRODUCT_NAME,
    getAutostartServiceNames,
    look_out,
    names,
    start_services,
    use_configured_threads,
)
from lovely.remotetask.hosts.content import reference_if_stored
from lovely.remotetask.hosts.dropped import note_added
from lovely.remotetask.hosts.users import UserGone, named_user, run_as
from lovely.remotetask.interfaces import IReference, ITaskService
from lovely.remotetask.service import TaskService

__all__ = ["UserGone", "install", "run_as", "set_up", "uninstall"]

log = logging.getLogger("lovely.remotetask")

#: What this module registers around jobs, and what travels with them, is called so.
NAME = "lovely.remotetask.zope"

#: Of folders below the root, a site is looked for in so many.
MAX_FOLDERS = 10_000

_come: ContextVar[dict[str, Any] | None] = ContextVar("come", default=None)

#: Database and object id of a site -> its path, which is checked before it is used.
_paths: dict[tuple[str, bytes], tuple[str, ...]] = {}


# -- where a job is added ------------------------------------------------------------------------


def capture() -> dict[str, Any] | None:
    """Return what travels with a job that is added now: the user, and how URLs are made."""
    found: dict[str, Any] = {}
    named = named_user()
    user = getSecurityManager().getUser()
    user_id = named or (None if user is None else user.getId())
    if user_id is not None:
        found["user"] = str(user_id)
        folder = None if named else aq_parent(aq_inner(user))
        if folder is not None and hasattr(folder, "getPhysicalPath"):
            found["users"] = "/".join(folder.getPhysicalPath())
    elif context := _come.get():  # added by a job that has no user either
        found = {name: value for name, value in context.items() if name != "user"}
    request = getRequest()
    if request is not None and hasattr(request, "physicalPathToURL"):
        note_added(request)
        found["server"] = str(request.get("SERVER_URL") or "")
        found["root"] = "/".join(request.get("VirtualRootPhysicalPath") or ("",))
        found["prefix"] = request.getVirtualRoot()
        if language := request.get("LANGUAGE"):
            found["language"] = str(language)
    return found or None


# -- where it runs -------------------------------------------------------------------------------


@contextmanager
def in_zope(job: Any, context: Any) -> Iterator[None]:
    """Give a job a request, its site as traversal gives it, and its user.

    What is current in the thread is given back behind each job anyway.

    :raises UserGone: the user is not there any more.
    """
    app = context.connection.root().get(ROOT_NAME)
    if not isinstance(app, Application):
        yield
        return
    come = _come.get() or {}
    request = _make_request(come)
    app = app.__of__(RequestContainer(REQUEST=request))
    setHooks()
    setRequest(request)
    if queryInteraction() is None:
        newInteraction()
    try:
        site = _enter(app, getSite(), request, come)
        _log_in(app, site, request, come, context)
        yield
        # What waits for the commit (indexing, in Plone) is to see all this, as in a request.
        context.connection.transaction_manager.get()._callBeforeCommitHooks()
    finally:
        setRequest(None)
        request.close()


def _restore(value: dict[str, Any]) -> None:
    _come.set(value)  # the context of the job's run, which is a copy


def _make_request(come: dict[str, Any]) -> Any:
    server = urlsplit(come.get("server") or _configured("server-url", "http://localhost"))
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": server.hostname or "localhost",
        "SERVER_PORT": str(server.port or (443 if server.scheme == "https" else 80)),
        "wsgi.url_scheme": server.scheme or "http",
        "HTTPS": "on" if server.scheme == "https" else "off",
    }
    if language := come.get("language"):
        environ["HTTP_ACCEPT_LANGUAGE"] = language
    request = HTTPRequest(BytesIO(), environ, HTTPResponse(stdout=BytesIO()))
    request.setServerURL(server.scheme, server.hostname, server.port)
    setDefaultSkin(request)
    return request


def _enter(app: Any, site: Any, request: Any, come: dict[str, Any]) -> Any:
    """Do what traversal does on its way to a site, and return it; None is the root."""
    path = () if site is None else _path_to(app, site)
    parents = [app]
    for name in path:
        parents.append(parents[-1]._getOb(name))
    root = come.get("root") or _configured("virtual-root", "")
    request["PARENTS"] = [app.unrestrictedTraverse(root.lstrip("/")) if root.strip("/") else app]
    request.setVirtualRoot(come.get("prefix", _configured("virtual-prefix", "")))
    request["PARENTS"] = parents[::-1]
    request["TraversalRequestNameStack"] = []
    for step in parents:
        notify(BeforeTraverseEvent(step, request))
        hook = getattr(aq_base(step), "__before_publishing_traverse__", None)
        if hook is not None and step is not app:  # those of the root take paths apart
            step.__before_publishing_traverse__(step, request)
    if language := come.get("language"):
        request.set("LANGUAGE", language)
    if site is None:
        return None
    setSite(parents[-1])
    return parents[-1]


def _path_to(app: Any, site: Any) -> tuple[str, ...]:
    """Return the names that lead from the root to a site."""
    site = aq_base(site)
    key = (site._p_jar.db().database_name, site._p_oid)
    path = _paths.get(key)
    if path is None or not _leads(app, path, site):
        path = _paths[key] = _find(app, site)
    return path


def _leads(app: Any, path: tuple[str, ...], site: Any) -> bool:
    found = aq_base(app)
    for name in path:
        found = found._getOb(name, None) if hasattr(found, "_getOb") else None
        if found is None:
            return False
        found = aq_base(found)
    return found is site


def _find(app: Any, site: Any) -> tuple[str, ...]:
    """Look for a site, level by level; the root may be one."""
    if aq_base(app) is site:
        return ()
    level: list[tuple[tuple[str, ...], Any]] = [((), aq_base(app))]
    looked = 0
    while level and looked < MAX_FOLDERS:
        below = []
        for path, folder in level:
            looked += 1
            for name in folder.objectIds():
                child = aq_base(folder._getOb(name))
                if child is site:
                    return (*path, name)
                # Sites hold no sites of their own; nor is a site searched.
                if hasattr(child, "objectIds") and not ISite.providedBy(child):
                    below.append(((*path, name), child))
        level = below
    raise TaskError("the site of the service cannot be found from the root of Zope")


def _log_in(app: Any, site: Any, request: Any, come: dict[str, Any], context: Any) -> None:
    user_id = come.get("user")
    if user_id is None:
        return
    path = come.get("users")
    folders = [] if path is None else [app.unrestrictedTraverse(path.lstrip("/"), None)]
    folders += [getattr(place, "acl_users", None) for place in (site, app) if place is not None]
    for folder in folders:
        user = None if folder is None else folder.getUserById(user_id)
        if user is None:
            continue
        if aq_parent(user) is None:
            user = user.__of__(folder)
        newSecurityManager(request, user)
        request["AUTHENTICATED_USER"] = user
        where = "/".join(folder.getPhysicalPath()[:-1]) or "/"
        context.connection.transaction_manager.get().setUser(user_id, where)
        return
    raise UserGone.of(user_id)


# -- configuration ---------------------------------------------------------------------------------


def _configured(name: str, default: str) -> str:
    settings = getattr(getConfiguration(), "product_config", None) or {}
    return str(settings.get(PRODUCT_NAME, {}).get(name, default))


def set_up() -> None:
    """Let jobs in this process see what a request sees; called again it changes nothing.

    Transaction: none.
    """
    register_around(NAME, in_zope)
    register_context(NAME, capture, _restore)
    provideAdapter(reference_if_stored, (ITraversable,), IReference)


def database_opened(event: Any) -> None:
    """Set up jobs before the first of them can run: for `IDatabaseOpenedWithRoot`.

    Transaction: none.
    """
    set_up()


def process_starting(event: Any) -> None:
    """Start the services that the configuration names, in servers: for `IProcessStarting`.

    Consoles notify of it, too, so what this process is shows in how it was started.

    Transaction: reads only, through a connection of its own.
    """
    patterns = getAutostartServiceNames()
    if not patterns:
        return
    if not servers.starts_here():
        log.info("no services are started here: this process is no server that is known")
        return
    if servers.forks():
        begun: list[int] = []

        def request_comes(event: Any) -> None:
            if os.getpid() not in begun:  # a fork has no threads
                begun.append(os.getpid())
                _start(patterns)

        provideHandler(request_comes, (IPubStart,))
    else:
        _start(patterns)


def _start(patterns: list[str]) -> None:
    import Zope2

    take_endings()
    known: set[Any] = set()
    use_configured_threads()
    try:
        start_services(Zope2.DB, patterns, known)
    except Exception:
        log.exception("services could not be started")
    look_out(Zope2.DB, patterns, known)


def install(place: Any, name: str = "tasks") -> Any:
    """Make a service in the root of Zope or in a site, and return it; one that is there stays.

    In a server whose autostart patterns name it, it starts with the commit.

    :param place: the root, or a site; the root becomes a site if it is none.
    :param name: its name, as autostart patterns have it: ``@name`` in the root.
    :raises InvalidArgument: the place is neither, or the name is none.

    Transaction: writes, but does not commit.
    """
    if not isinstance(name, str) or not name or "@" in name:
        raise InvalidArgument(f"{name!r} is no name of a service")
    if not ISite.providedBy(place):
        if not isinstance(aq_base(place), Application):
            raise InvalidArgument(f"{place!r} is neither the root of Zope nor a site")
        _make_site(place)
    registry = place.getSiteManager()
    service = registry.queryUtility(ITaskService, name=name)
    if service is None:
        service = TaskService()
        service.__name__ = name
        service.__parent__ = aq_base(place)
        registry.registerUtility(service, ITaskService, name=name)
        _start_new(place, service)
    return service


def _start_new(place: Any, service: Any) -> None:
    """Let a new service start with the commit where it would have been at the start."""
    if servers.starts_here():
        path = "/".join(place.getPhysicalPath())
        if any(names(pattern, path, service.__name__) for pattern in getAutostartServiceNames()):
            service.startProcessing()


def _make_site(place: Any) -> None:
    """Do what the form of the ZMI does; five.localsitemanager is no part of Zope."""
    enableSite(place, iface=IObjectManagerSite)
    place.setSiteManager(PersistentComponents(bases=(getGlobalSiteManager(),)))


def uninstall(place: Any, name: str = "tasks") -> bool:
    """Take a service and what waits in it out of the root or a site; say whether it was there.

    Transaction: writes, but does not commit.
    """
    if not ISite.providedBy(place):
        return False
    registry = place.getSiteManager()
    service = registry.queryUtility(ITaskService, name=name)
    if service is None or aq_base(service.__parent__) is not aq_base(place):
        return False
    service.stopProcessing(0)
    return bool(registry.unregisterUtility(service, ITaskService, name=name))
