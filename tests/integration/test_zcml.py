# SPDX-License-Identifier: ZPL-2.1
"""The package's configure.zcml: the subscriber and the security declarations."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zope.component.event  # what every framework does: events reach subscribers by it
import zope.event
from zope.app.appsetup import product
from zope.component import getGlobalSiteManager
from zope.configuration import xmlconfig
from zope.processlifetime import DatabaseOpenedWithRoot, IDatabaseOpenedWithRoot
from zope.security.checker import ProxyFactory, getCheckerForInstancesOf
from zope.security.interfaces import ForbiddenAttribute, Unauthorized
from zope.security.management import endInteraction, newInteraction

import lovely.remotetask
from lovely.remotetask.interfaces import ICronJob, IJob, ITaskService
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask

VIEW, MANAGE = "lovely.remotetask.View", "lovely.remotetask.Manage"


@pytest.fixture(autouse=True)
def loaded(empty_registry: None) -> Any:
    return xmlconfig.file("configure.zcml", lovely.remotetask)


def test_it_can_be_loaded_twice(loaded: Any) -> None:
    xmlconfig.file("configure.zcml", lovely.remotetask, context=loaded)


def test_one_subscriber_waits_for_the_database() -> None:
    handlers = [
        registration.handler
        for registration in getGlobalSiteManager().registeredHandlers()
        if registration.required == (IDatabaseOpenedWithRoot,)
    ]
    assert len(handlers) == 1


def test_opening_the_database_starts_the_configured_services(
    workplace: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("REMOTETASK_AUTOSTART", raising=False)
    monkeypatch.setattr(product, "_configs", {"lovely.remotetask": {"autostart": "@tasks"}})
    with caplog.at_level(logging.INFO):
        zope.event.notify(DatabaseOpenedWithRoot(workplace.db))
    assert workplace.is_processing()
    assert "service tasks on site root started" in caplog.text


def required(kind: type) -> dict[str, Any]:
    checker = getCheckerForInstancesOf(kind)
    return {name: checker.permission_id(name) for name in checker.get_permissions}


def test_managers_alone_use_a_service() -> None:
    permissions = required(TaskService)
    for name in ITaskService.names(all=True):
        assert permissions[name] in (VIEW, MANAGE), name
    for name in ("add", "addCronJob", "cancel", "clean", "process", "startProcessing"):
        assert permissions[name] == MANAGE
    assert "queue" not in permissions
    assert "workers" not in permissions


@pytest.mark.parametrize(("kind", "interface"), [(Job, IJob), (CronJob, ICronJob)])
def test_viewers_see_jobs(kind: type, interface: Any) -> None:
    permissions = required(kind)
    for name in IJob.names():
        assert permissions[name] == VIEW, name
    for name in interface.names(all=True):
        assert permissions[name] in (VIEW, MANAGE), name
    assert "place" not in permissions


def test_managers_alone_change_a_schedule() -> None:
    assert required(CronJob)["update"] == MANAGE


def test_nobody_calls_a_task_unseen() -> None:
    assert required(SimpleTask)["__call__"] in (VIEW, MANAGE)


@pytest.fixture
def stranger() -> Iterator[None]:
    """An interaction with somebody who has no permission at all."""

    principal = SimpleNamespace(id="stranger", groups=())
    newInteraction(SimpleNamespace(interaction=None, principal=principal))
    yield
    endInteraction()


@pytest.fixture
def system() -> Iterator[None]:
    """An interaction of the application itself, which may do everything."""
    newInteraction()
    yield
    endInteraction()


@pytest.mark.usefixtures("stranger")
def test_a_stranger_is_refused() -> None:
    service = ProxyFactory(TaskService())
    with pytest.raises(Unauthorized):
        service.add("echo")
    with pytest.raises(ForbiddenAttribute):
        service.queue  # noqa: B018
    job = ProxyFactory(Job(1, "echo"))
    with pytest.raises(Unauthorized):
        job.status  # noqa: B018


@pytest.mark.usefixtures("system")
def test_a_proxied_service_works(workplace: Any, register: Any) -> None:
    register("echo", lambda input: input)
    with workplace.service() as service:
        proxied = ProxyFactory(service)
        jobid = proxied.add("echo", {"foo": "bar"})
        assert proxied.getStatus(jobid) == "queued"
        assert proxied.cancel(proxied.add("echo"))
        assert set(proxied.getAvailableTasks()) == {"echo", "hang"}
        proxied.process()
        assert proxied.getResult(jobid) == {"foo": "bar"}
        proxied.clean()


@pytest.mark.usefixtures("system")
def test_the_jobs_of_a_proxied_service_can_be_read(workplace: Any) -> None:
    [jobid] = workplace.add("echo", 1)
    with workplace.service() as service:
        jobs = ProxyFactory(service).jobs
        assert jobs[jobid].status == "queued"
        assert list(jobs) == [jobid]
        assert [job.id for job in jobs.values()] == [jobid]
        assert len(jobs) == 1


@pytest.mark.usefixtures("system")
def test_a_proxied_service_starts_and_stops(workplace: Any) -> None:
    with workplace.service() as service:
        proxied = ProxyFactory(service)
        proxied.startProcessing()
        assert proxied.isProcessing()
        proxied.stopProcessing(20)
        assert not proxied.isProcessing()
