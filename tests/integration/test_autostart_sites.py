# SPDX-License-Identifier: ZPL-2.1
"""Services that are registered in sites as Zope and Plone do it: without a parent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ZODB
from persistent import Persistent
from zope.component import getGlobalSiteManager
from zope.component.hooks import getSite, setHooks, setSite
from zope.component.interfaces import ISite
from zope.component.persistentregistry import PersistentComponents
from zope.interface import implementer

from lovely.remotetask.hosts.autostart import find_services, start_services
from lovely.remotetask.interfaces import COMPLETED, ITask, ITaskService
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask


@implementer(ISite)
class Site(Persistent):
    """A site whose registry knows nothing of places."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._components = PersistentComponents(bases=(getGlobalSiteManager(),))

    def getSiteManager(self) -> Any:
        """See `ISite`."""
        return self._components

    def setSiteManager(self, components: Any) -> None:
        """See `ISite`."""
        self._components = components


def name_of_site(input: Any) -> str | None:
    site = getSite()
    return None if site is None else str(site.name)


def local(input: Any) -> str:
    return f"{name_of_site(input)} has its own"


class Town:
    """A database with two sites, *shop* and *bank*, and services in both."""

    def __init__(self, workplace: Any) -> None:
        self.workplace = workplace
        with workplace.transaction() as root:
            for name, services in (("shop", ("mail", "print")), ("bank", ("mail",))):
                site = root[name] = Site(name)
                registry = site.getSiteManager()
                for service in services:
                    registry.registerUtility(TaskService(), ITaskService, name=service)
                registry.registerUtility(SimpleTask(local), ITask, name="local")

    def service_in(self, root: Any, site: str, name: str) -> TaskService:
        service: TaskService = root[site].getSiteManager().getUtility(ITaskService, name=name)
        return service

    def add(self, site: str, service: str, task: str) -> int:
        """Add a job, as a request in the site would."""
        with self.workplace.transaction() as root:
            setHooks()
            setSite(root[site])
            try:
                return self.service_in(root, site, service).add(task)
            finally:
                setSite(None)

    def result(self, site: str, service: str, jobid: int) -> tuple[str, Any]:
        with self.workplace.transaction() as root:
            found = self.service_in(root, site, service)
            return found.getStatus(jobid), found.getResult(jobid)

    def running(self) -> set[tuple[str, str]]:
        """Return (site, service) of all services that run."""
        with self.workplace.transaction() as root:
            return {
                (match.site_name, match.service_name)
                for match in find_services(root, ["shop@*", "bank@*"])
                if match.service.isProcessing()
            }

    def find(self, *patterns: str) -> list[tuple[str, str]]:
        """Return (site, service) of what patterns name."""
        with self.workplace.transaction() as root:
            return [
                (match.site_name, match.service_name) for match in find_services(root, patterns)
            ]


@pytest.fixture
def town(workplace: Any, register: Any) -> Iterator[Town]:
    register("name of site", name_of_site)
    yield Town(workplace)
    setSite(None)


@pytest.fixture
def db(file_db: ZODB.DB) -> ZODB.DB:
    return file_db


def test_a_service_in_a_registry_has_no_parent(town: Town) -> None:
    with town.workplace.transaction() as root:
        service = town.service_in(root, "shop", "mail")
        assert (service.__parent__, service.__name__) == (None, None)


def test_the_named_service_alone_is_started(town: Town) -> None:
    assert start_services(town.workplace.db, ["shop@mail"]) == 1
    assert town.running() == {("shop", "mail")}


def test_tasks_run_in_the_site_that_the_pattern_named(town: Town, until: Any) -> None:
    start_services(town.workplace.db, ["shop@mail", "bank@mail"])
    assert getSite() is None
    for site in ("shop", "bank"):
        jobid = town.add(site, "mail", "name of site")
        until(lambda site=site, jobid=jobid: town.result(site, "mail", jobid) == (COMPLETED, site))


def test_tasks_that_only_the_site_knows_are_run(town: Town, until: Any) -> None:
    start_services(town.workplace.db, ["shop@mail"])
    jobid = town.add("shop", "mail", "local")
    until(
        lambda: town.result("shop", "mail", jobid) == (COMPLETED, "shop has its own"),
        "the job of the local task",
    )


def test_jobs_that_waited_for_the_start_run_in_the_site_too(town: Town, until: Any) -> None:
    jobids = [town.add("shop", "print", task) for task in ("name of site", "local")]
    start_services(town.workplace.db, ["*@*"])
    until(
        lambda: (
            [town.result("shop", "print", jobid) for jobid in jobids]
            == [(COMPLETED, "shop"), (COMPLETED, "shop has its own")]
        )
    )


def test_overlapping_patterns_start_each_service_once(town: Town) -> None:
    assert start_services(town.workplace.db, ["shop@mail", "shop@*", "*@mail"]) == 3
    assert start_services(town.workplace.db, ["*@*", "@tasks"]) == 1
    assert town.running() == {("shop", "mail"), ("shop", "print"), ("bank", "mail")}


def test_overlapping_patterns_find_each_service_once(town: Town) -> None:
    assert town.find("shop@mail", "shop@*", "*@mail", "*@*", "@tasks", "shop@mail") == [
        ("shop", "mail"),
        ("shop", "print"),
        ("bank", "mail"),
        ("root", "tasks"),
    ]


def test_one_service_under_two_names_is_found_once(town: Town) -> None:
    with town.workplace.transaction() as root:
        service = town.service_in(root, "shop", "mail")
        root["shop"].getSiteManager().registerUtility(service, ITaskService, name="post")
    assert town.find("shop@*") == [("shop", "mail"), ("shop", "print")]
    assert start_services(town.workplace.db, ["shop@mail", "shop@post"]) == 1


def test_what_is_not_there_is_not_found(town: Town) -> None:
    assert town.find("shop@fax", "pub@mail", "@mail", "pub@*") == []
    assert start_services(town.workplace.db, ["shop@fax", "pub@mail"]) == 0
