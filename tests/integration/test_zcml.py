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
from zope.component import getGlobalSiteManager, getUtility
from zope.configuration import xmlconfig
from zope.lifecycleevent import ObjectModifiedEvent
from zope.processlifetime import DatabaseOpenedWithRoot, IDatabaseOpenedWithRoot
from zope.security.checker import CheckerPublic, ProxyFactory, getCheckerForInstancesOf
from zope.security.interfaces import ForbiddenAttribute, Unauthorized
from zope.security.management import endInteraction, newInteraction

import lovely.remotetask
from lovely.remotetask.around import forget_around, forget_context
from lovely.remotetask.hosts import interaction
from lovely.remotetask.hosts.autostart import bootStrapSubscriber
from lovely.remotetask.interfaces import ICronJob, IJob, ITask, ITaskService
from lovely.remotetask.job import CronJob, Job, Progress
from lovely.remotetask.remote import interfaces as remote_interfaces
from lovely.remotetask.remote import job as remote_job
from lovely.remotetask.remote.interfaces import IRemoteProcessor
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Cron, Delay
from lovely.remotetask.remote.testing import ErrorJob
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import EchoTask, SimpleTask, task

VIEW, MANAGE, PUBLIC = "lovely.remotetask.View", "lovely.remotetask.Manage", CheckerPublic


@pytest.fixture(autouse=True)
def loaded(empty_registry: None) -> Iterator[Any]:
    yield xmlconfig.file("configure.zcml", lovely.remotetask)
    forget_around(interaction.NAME)
    forget_context(interaction.NAME)


def test_it_can_be_loaded_twice(loaded: Any) -> None:
    xmlconfig.file("configure.zcml", lovely.remotetask, context=loaded)


def test_what_is_around_jobs_is_there_before_services_start() -> None:
    handlers = [
        registration.handler
        for registration in getGlobalSiteManager().registeredHandlers()
        if registration.required == (IDatabaseOpenedWithRoot,)
    ]
    assert handlers == [interaction.database_opened, bootStrapSubscriber]


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


SETTINGS = (
    *("limits", "taskInterface", "processorFactory", "processorArguments"),
    *("lease_seconds", "max_deaths"),
    *("retention", "max_input_bytes", "max_input_depth", "log_level", "around", "piped"),
)

#: What it takes a permission to call.
MANAGED = (
    *("clean", "remove_oldest", "process", "processNext", "claimNextJob"),
    *("startProcessing", "stopProcessing", "startAll"),
    *("list_workers", "retry_all", "pause", "resume", "undo"),
    *("ensure_declared", "remove_schedule"),
)


def test_everybody_uses_a_service_and_managers_alone_run_it_and_clean_it() -> None:
    permissions = required(TaskService)
    managed = {name for name, permission in permissions.items() if permission == MANAGE}
    assert managed == set(MANAGED)
    assert set(permissions) == set(ITaskService.names(all=True))
    assert {permissions[name] for name in set(permissions) - managed} == {PUBLIC}


def test_managers_alone_write_settings() -> None:
    checker = getCheckerForInstancesOf(TaskService)
    assert {name: checker.setattr_permission_id(name) for name in checker.set_permissions} == (
        dict.fromkeys(SETTINGS, MANAGE)
    )


@pytest.mark.parametrize(("kind", "interface"), [(Job, IJob), (CronJob, ICronJob)])
def test_everybody_sees_jobs(kind: type, interface: Any) -> None:
    assert required(kind) == dict.fromkeys(interface.names(all=True), PUBLIC)
    assert getCheckerForInstancesOf(kind).set_permissions == {}


def test_the_task_echo_is_there() -> None:
    assert isinstance(getUtility(ITask, name="echo"), EchoTask)
    service = TaskService()
    jobid = service.add("echo", "hello")
    service.process()
    assert service.getResult(jobid) == "hello"


@pytest.mark.parametrize("kind", [SimpleTask, EchoTask])
def test_nobody_calls_a_task_unseen(kind: type) -> None:
    assert required(kind) == dict.fromkeys(ITask.names(all=True), VIEW)


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
def test_a_stranger_adds_and_looks_up_jobs_and_no_more() -> None:
    bare = TaskService()
    service = ProxyFactory(bare)
    jobid = service.add("echo", 1)
    cron = service.addCronJob("echo", hour=(3,))
    service.jobs[cron].update(hour=(4,))
    service.reschedule(cron)
    assert service.getStatus(jobid) == service.jobs[jobid].status == "queued"
    assert service.jobs[jobid].__parent__ == bare
    assert service.countJobs()["queued"] == 1
    service.cancel(jobid)
    assert service.getStatus(jobid) == "cancelled"
    for name in MANAGED:
        with pytest.raises(Unauthorized):
            getattr(service, name)
    for name in SETTINGS:
        getattr(service, name)
        with pytest.raises(Unauthorized):
            setattr(service, name, None)
    for name in ("queue", "workers", "requests"):
        with pytest.raises(ForbiddenAttribute):
            getattr(service, name)
    for name in ("place", "owner", "start", "finish"):
        with pytest.raises(ForbiddenAttribute):
            getattr(service.jobs[jobid], name)
    with pytest.raises(ForbiddenAttribute):
        service.jobs[jobid].status = "queued"


@pytest.mark.usefixtures("system")
def test_a_proxied_service_works(workplace: Any, register: Any) -> None:
    register("echo", lambda input: input)
    with workplace.service() as service:
        proxied = ProxyFactory(service)
        jobid = proxied.add("echo", {"foo": "bar"})
        assert proxied.getStatus(jobid) == "queued"
        proxied.cancel(waiting := proxied.add("echo"))
        assert proxied.getStatus(waiting) == "cancelled"
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


@pytest.mark.usefixtures("stranger")
def test_a_stranger_reads_what_services_and_jobs_give_out() -> None:
    @task("fail", retry=RetryPolicy(attempts=1))
    def fail(input: Any) -> None:
        raise ValueError("no")

    bare = TaskService()
    service = ProxyFactory(bare)
    jobid = service.add("fail")
    bare.process()
    bare.progress[jobid] = Progress(1.0, 2.0, "half")
    assert list(service.getProgress(jobid)) == [1.0, 2.0, "half"]
    assert service.getProgress(jobid).message == "half"
    [failure] = service.jobs[jobid].failures
    assert (failure.attempt, failure.type, failure[3]) == (1, "ValueError", "no")
    assert "no" in failure.traceback
    seconds, count = service.retention["error"]
    assert (service.retention["error"].max_age_seconds, count) == (seconds, 1_000_000)


# -- the second door -----------------------------------------------------------------------------

CONTAINERS = {"_jobFactories", "_jobs", "_scheduler"}


def test_everybody_uses_a_remote_processor_and_managers_alone_run_it() -> None:
    permissions = required(RemoteProcessor)
    promised = set(IRemoteProcessor.names(all=True))
    assert set(permissions) == {*promised, *CONTAINERS, *SETTINGS[4:]}
    public = {name for name, permission in permissions.items() if permission == PUBLIC}
    assert {name for name in public if name.startswith(("add", "cancel", "get"))} == {
        *("addJob", "addNamed", "cancelJob"),
        *("getJobStatus", "getJobResult", "getJobErrors"),
    }
    assert not [
        name
        for name in public
        if name.startswith(("start", "stop", "process", "pull")) and not name.endswith("StartTime")
    ]
    assert {permissions[name] for name in CONTAINERS} == {VIEW}


def test_managers_alone_write_settings_of_a_remote_processor() -> None:
    checker = getCheckerForInstancesOf(RemoteProcessor)
    names = {name for name in IRemoteProcessor.names() if name.endswith(("Factory", "Arguments"))}
    names -= {"addJobFactory", "getJobFactory"}
    assert {name: checker.setattr_permission_id(name) for name in checker.set_permissions} == (
        dict.fromkeys({*names, *SETTINGS[4:]}, MANAGE)
    )


@pytest.mark.parametrize(
    ("kind", "interface", "managed"),
    [
        (remote_job.Job, remote_interfaces.IJob, {"__call__", "getJob", "setError"}),
        (remote_job.UnusableJob, remote_interfaces.IJob, {"__call__", "getJob", "setError"}),
        (Delay, remote_interfaces.IDelay, {"getNextCallTime"}),
        (Cron, remote_interfaces.ICron, {"getNextCallTime"}),
    ],
)
def test_who_may_look_sees_jobs_and_items_and_managers_change_them(
    kind: type, interface: Any, managed: set[str]
) -> None:
    permissions = required(kind)
    assert set(permissions) == set(interface.names(all=True))
    assert {name for name, permission in permissions.items() if permission == MANAGE} == managed
    assert {permissions[name] for name in set(permissions) - managed} == {VIEW}
    checker = getCheckerForInstancesOf(kind)
    assert set(map(checker.setattr_permission_id, checker.set_permissions)) == {MANAGE}


def test_a_stranger_reads_what_became_of_his_job(stranger: None) -> None:
    service = RemoteProcessor()
    service.addJobFactory("error", ErrorJob())
    remote = ProxyFactory(service)
    jobid = remote.addJob("error")
    service.processJobs()
    assert remote.getJobStatus(jobid) == "error"
    [error] = remote.getJobErrors(jobid)
    assert str(error).endswith("] An error occurred.")
    assert error.created.tzinfo is not None
    assert "RemoteException" in error.tb
    for forbidden in ("startProcessor", "removeJobs", "_jobs", "addJobFactory"):
        with pytest.raises(Unauthorized):
            getattr(remote, forbidden)


def test_an_item_that_was_modified_through_a_proxy_is_counted_anew() -> None:
    service = RemoteProcessor()
    service.addJobFactory("error", ErrorJob())
    item = Delay({"jobName": "error", "delay": 5, "active": True})
    service.addScheduler(item)
    before = item.nextCallTime
    item.delay = 3600
    zope.event.notify(ObjectModifiedEvent(ProxyFactory(item)))
    assert (item.nextCallTime - before).total_seconds() > 3000
