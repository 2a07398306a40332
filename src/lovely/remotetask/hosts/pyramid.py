# SPDX-License-Identifier: ZPL-2.1
"""Pyramid: ``config.include("lovely.remotetask.hosts.pyramid")``, beside ``pyramid_zodbconn``.

Settings, all of them optional:

``remotetask.service``
    the name of the service in the root object (``tasks``); it is made if it is not there
``remotetask.database``
    the name of the database, where ``zodbconn.uri.NAME`` configures several
``remotetask.work``
    whether this process works on jobs.  ``auto``, the default, is in servers: `starts_here`;
    ``true`` is anywhere, ``false`` nowhere

Views find the service at ``request.tasks``, in the request's own transaction.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing
from typing import Any

import transaction
from pyramid.events import ApplicationCreated, NewRequest
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPNotFound
from pyramid.interfaces import IRequestFactory
from pyramid.request import Request, apply_request_extensions
from pyramid.settings import asbool
from pyramid_zodbconn import get_connection

from lovely.remotetask.engine.registry import is_switched_off
from lovely.remotetask.errors import JobNotFound
from lovely.remotetask.hosts.autostart import SWITCH, start_services
from lovely.remotetask.hosts.servers import forks, starts_here
from lovely.remotetask.interfaces import ITaskService
from lovely.remotetask.service import TaskService

log = logging.getLogger("lovely.remotetask")

#: Who makes the service at the same moment as others tries so often.
TRIES = 10

#: Under this key of its registry an application has its `Tasks`.
KEY = "lovely.remotetask"


class Tasks:
    """What one application has to do with its service.

    :param registry: that of the application.
    """

    def __init__(self, registry: Any) -> None:
        settings = registry.settings
        self._registry = registry
        self.name = settings.get("remotetask.service", "tasks").strip()
        self._database_name = settings.get("remotetask.database") or None
        work = str(settings.get("remotetask.work", "auto")).strip().lower()
        if not self.name or "@" in self.name:
            raise ConfigurationError(f"remotetask.service = {self.name!r} is no name of a service")
        self.works = starts_here() if work == "auto" else asbool(work)
        self._lock = threading.Lock()
        self._begun_in: int | None = None  # a process id: a fork has no threads

    def of(self, request: Any) -> Any:
        """Return the service, in the transaction of a request."""
        service = get_connection(request, self._database_name).root().get(self.name)
        if service is None:
            raise LookupError(f"there is no service {self.name!r} in the root object")
        return service

    def database(self) -> Any:
        """Return the database that ``pyramid_zodbconn`` has opened."""
        make = self._registry.queryUtility(IRequestFactory, default=Request)
        request = make.blank("/")
        request.registry = self._registry
        apply_request_extensions(request)
        connection = get_connection(request)
        try:
            named = connection.db()
            if self._database_name is not None:
                named = connection.get_connection(self._database_name).db()
            return named
        finally:
            connection.close()

    def make(self) -> None:
        """Make the service, if it is not there.

        Transaction: commits, through a connection of its own.
        """
        manager = transaction.TransactionManager()
        with closing(self.database().open(manager)) as connection:
            for attempt in manager.attempts(TRIES):
                with attempt:
                    found = connection.root().get(self.name)
                    if found is None:
                        connection.root()[self.name] = TaskService()
                        manager.get().note(f"remotetask: make the service {self.name}")
            if not (found is None or ITaskService.providedBy(found)):
                raise ConfigurationError(
                    f"{self.name!r} in the root object is no task service: remotetask.service is "
                    f"to name another one"
                )

    def start(self) -> None:
        """Begin to work on jobs, once in each process.

        Transaction: reads only, through a connection of its own.
        """
        if self._begun_in == os.getpid():
            return
        with self._lock:
            if self._begun_in == os.getpid():
                return
            self._begun_in = os.getpid()
            if self.works and not is_switched_off(SWITCH):
                start_services(self.database(), [f"@{self.name}"])


def tasks_of(registry: Any) -> Tasks:
    """Return what the application of a registry has to do with its service."""
    found: Tasks = registry[KEY]
    return found


def start(app: Any) -> None:
    """Begin to work on jobs in this process: for the hook of a server that has forked.

    :param app: the application, or anything else with its ``registry``.

    Transaction: reads only, through a connection of its own.
    """
    tasks_of(app.registry).start()


def includeme(config: Any) -> None:
    """Set up an application.  See the module.

    Transaction: none; when the application has been made, its service is.
    """
    tasks = config.registry[KEY] = Tasks(config.registry)
    config.add_request_method(tasks.of, "tasks", reify=True)
    config.add_exception_view(_not_found, context=JobNotFound)
    config.add_subscriber(_application_is_made, ApplicationCreated)
    config.add_subscriber(_request_comes, NewRequest)


def _not_found(error: JobNotFound, request: Any) -> Any:
    return HTTPNotFound(str(error))


def _application_is_made(event: Any) -> None:
    tasks = tasks_of(event.app.registry)
    tasks.make()
    if tasks.works and not forks():
        tasks.start()


def _request_comes(event: Any) -> None:
    tasks_of(event.request.registry).start()
