# SPDX-License-Identifier: ZPL-2.1
"""Services that are started when the database is opened, by patterns."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import transaction
import ZODB
from zope.app.appsetup import product
from zope.component import getGlobalSiteManager
from zope.interface import implementer
from zope.processlifetime import DatabaseOpenedWithRoot
from zope.site.folder import Folder, rootFolder
from zope.site.site import LocalSiteManager

from lovely.remotetask.engine import registry
from lovely.remotetask.hosts import lookout
from lovely.remotetask.hosts.autostart import (
    find_services,
    names,
    split_patterns,
    start_services,
)
from lovely.remotetask.interfaces import IService, ITaskService
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.remote.interfaces import IRemoteProcessor
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.service import TaskService, bootStrapSubscriber, getAutostartServiceNames

HANDLING = ("INFO", "handling event IStartRemoteTasksEvent")
STARTED_1 = ("INFO", "service TestTaskService1 on site site1 started")
STARTED_ROOT = ("INFO", "service RootTaskService on site root started")

Configure = Callable[[str], None]


class Section:
    """A section of the product configuration, as zope.app gives it."""

    def __init__(self, autostart: str) -> None:
        self.mapping = {"autostart": autostart}

    def getSectionName(self) -> str:
        return "lovely.remotetask"


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Return a function that configures patterns in zope.app."""
    monkeypatch.setattr(product, "_configs", {})
    monkeypatch.delenv("REMOTETASK_AUTOSTART", raising=False)
    return lambda patterns: product.setProductConfigurations([Section(patterns)])


class Sites:
    """A database with the root object of zope.app, and services in sites.

    *site1* has TestTaskService1, the global registry has RootTaskService.
    """

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.connection = db.open()
        self.root = self.connection.root()["Application"] = rootFolder()
        self.add_site("site1", "TestTaskService1")
        self.services["RootTaskService"] = self.root["rootTaskService"] = TaskService()
        transaction.commit()
        register = getGlobalSiteManager().registerUtility
        register(self.services["RootTaskService"], ITaskService, name="RootTaskService")

    services: dict[str, TaskService]

    def add_site(self, name: str, *service_names: str) -> None:
        """Add a site in which services are registered."""
        if not hasattr(self, "services"):
            self.services = {}
        site = self.root[name] = Folder()
        site.setSiteManager(LocalSiteManager(site))
        for service_name in service_names:
            service = site.getSiteManager()["default"][service_name] = TaskService()
            site.getSiteManager().registerUtility(service, ITaskService, name=service_name)
            self.services[service_name] = service
        transaction.commit()

    def open(self) -> set[str]:
        """Tell that the database was opened; return the names of the services that run."""
        bootStrapSubscriber(DatabaseOpenedWithRoot(self.db))
        return {name for name, service in self.services.items() if service.isProcessing()}


@pytest.fixture
def sites(db: ZODB.DB, caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO)
    sites = Sites(db)
    yield sites
    registry.stop_all(20)
    transaction.abort()
    sites.connection.close()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Return a function that returns the lines of the log: (level, text)."""

    def lines() -> list[tuple[str, str]]:
        assert {record.name for record in caplog.records} <= {"lovely.remotetask"}
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    return lines


def test_a_service_that_is_made_later_is_started_too(
    sites: Sites, configure: Configure, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_AGAIN_SECONDS", 0.01)
    configure("*@*")
    assert sites.open() == {"TestTaskService1", "RootTaskService"}
    sites.add_site("site2", "letters")
    until(sites.services["letters"].isProcessing)


@pytest.mark.parametrize(("text", "threads"), [("3", 3), ("0", None), ("many", None)])
def test_the_configuration_says_how_many_threads_a_service_has(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, lines: Any, text: str, threads: int | None
) -> None:
    monkeypatch.setattr(registry, "threads", None)
    section = Section("site1@TestTaskService1")
    section.mapping["threads"] = text
    monkeypatch.setattr(product, "_configs", {})
    product.setProductConfigurations([section])
    assert sites.open() == {"TestTaskService1"}
    assert registry.threads == threads
    service = sites.services["TestTaskService1"]
    processor = registry.find(service)
    assert type(processor) is (SimpleProcessor if threads is None else MultiProcessor)
    wrong = ("ERROR", f"threads in the product configuration must be 1 to 1000: {text}")
    assert (wrong in lines()) is (threads is None)


def test_the_look_out_ends_with_the_database(file_db: ZODB.DB, configure: Configure) -> None:
    configure("*@*")
    bootStrapSubscriber(DatabaseOpenedWithRoot(file_db))
    [watcher] = [one for one in threading.enumerate() if one.name == "remotetask-lookout"]
    file_db.close()
    watcher.join(20)  # long before it would look
    assert not watcher.is_alive()


# -- patterns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", []),
        ("  ", []),
        ("a@b", ["a@b"]),
        (
            "site1@TestTaskService1, site2@TestTaskService2,@RootTaskService",
            ["site1@TestTaskService1", "site2@TestTaskService2", "@RootTaskService"],
        ),
        (" a@b ,\n c@d , ,", ["a@b", "c@d"]),
        ("*@*", ["*@*"]),
    ],
)
def test_patterns_stand_between_commas(
    configure: Configure, text: str, patterns: list[str]
) -> None:
    assert split_patterns(text) == patterns
    configure(text)
    assert getAutostartServiceNames() == patterns


def test_named_services_are_started_in_the_order_of_their_patterns(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    configure("site1@TestTaskService1, site2@TestTaskService2,@RootTaskService")
    assert sites.open() == {"TestTaskService1", "RootTaskService"}
    assert lines() == [HANDLING, STARTED_1, ("ERROR", "site site2 not found"), STARTED_ROOT]


def test_all_services_of_a_site(sites: Sites, configure: Configure, lines: Any) -> None:
    configure("site1@*")
    assert sites.open() == {"TestTaskService1"}
    assert lines() == [HANDLING, STARTED_1]


def test_all_services_of_all_sites(sites: Sites, configure: Configure, lines: Any) -> None:
    configure("*@*")
    assert sites.open() == {"TestTaskService1", "RootTaskService"}
    assert lines() == [HANDLING, STARTED_ROOT, STARTED_1]


def test_one_service_of_all_sites(sites: Sites, configure: Configure, lines: Any) -> None:
    configure("*@TestTaskService1")
    assert sites.open() == {"TestTaskService1"}
    assert lines() == [HANDLING, STARTED_1]


def test_a_pattern_with_a_star_that_matches_nothing(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    configure("*@Foo")
    assert sites.open() == set()
    assert lines() == [HANDLING, ("WARNING", "no services started by directive *@Foo")]


def test_all_services_of_a_site_that_has_none(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    sites.add_site("empty")
    configure("empty@*")
    assert sites.open() == set()
    assert lines() == [HANDLING, ("WARNING", "no services started by directive empty@*")]


def test_several_services_of_a_site_are_started_by_name(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    sites.add_site("site2", "b", "a", "c")
    configure("site2@*")
    assert sites.open() == {"a", "b", "c"}
    assert lines()[1:] == [("INFO", f"service {name} on site site2 started") for name in "abc"]


def test_a_service_that_is_not_there_is_an_error(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    configure("site1@Foo, @Bar, site1@TestTaskService1")
    assert sites.open() == {"TestTaskService1"}
    assert lines() == [
        HANDLING,
        ("ERROR", "service Foo on site site1 not found"),
        ("ERROR", "service Bar on site root not found"),
        STARTED_1,
    ]


def test_an_object_that_is_no_site_is_told_apart_from_none(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    sites.root["folder"] = Folder()
    transaction.commit()
    configure("folder@*")
    assert sites.open() == set()
    said = "site folder not found: what is there is no site, with a registry of its own"
    assert ("ERROR", said) in lines()


def test_a_site_in_a_folder_is_found_by_its_path(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    folder = sites.root["folder"] = Folder()
    folder["site1"] = sites.root["site1"]
    del sites.root["site1"]
    transaction.commit()
    configure("folder/site1@TestTaskService1, folder/site9@*")
    assert sites.open() == {"TestTaskService1"}
    assert ("ERROR", "site folder/site9 not found") in lines()


@pytest.mark.parametrize("broken", ["nonsense", "site1@", "@"])
def test_a_malformed_pattern_does_not_stop_the_others(
    sites: Sites, configure: Configure, lines: Any, broken: str
) -> None:
    configure(f"{broken}, site1@TestTaskService1")
    assert sites.open() == {"TestTaskService1"}
    assert lines() == [
        HANDLING,
        ("ERROR", f"autostart pattern {broken} is not of the form site@service"),
        STARTED_1,
    ]


def test_a_service_that_cannot_start_does_not_stop_the_others(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    sites.add_site("site2", "a", "b")
    sites.services["a"].processorArguments = {"no such": "argument"}
    transaction.commit()
    configure("site2@*, site1@*")
    assert sites.open() == {"b", "TestTaskService1"}
    assert ("ERROR", "service a on site site2 could not be started") in lines()


def test_a_registration_of_a_service_that_was_removed_does_no_harm(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    sites.add_site("site2", "a")
    del sites.root["site2"].getSiteManager()["default"]["a"]
    transaction.commit()
    configure("site2@a, site1@*")
    assert "TestTaskService1" in sites.open()


def test_a_service_that_runs_already_is_left_alone(
    sites: Sites, configure: Configure, lines: Any
) -> None:
    configure("site1@*")
    sites.open()
    first = lines()
    sites.open()
    assert lines()[len(first) :] == [HANDLING]
    assert sites.services["TestTaskService1"].isProcessing()


def test_a_job_runs_in_a_service_that_was_started(
    sites: Sites, configure: Configure, register: Any, until: Any
) -> None:
    register("echo", lambda input: input)
    configure("site1@*")
    sites.open()
    service = sites.services["TestTaskService1"]
    jobid = service.add("echo", {"foo": "bar"})
    transaction.commit()

    def result() -> Any:
        transaction.begin()
        return service.getResult(jobid)

    until(result)
    assert result() == {"foo": "bar"}


def test_threads_are_named_after_the_whole_path(
    sites: Sites, configure: Configure, threads: Any
) -> None:
    configure("*@*")
    sites.open()
    assert {thread.name for thread in threads("remotetasks.")} == {
        "remotetasks.rootTaskService",
        "remotetasks.site1.++etc++site.default.TestTaskService1",
    }


# -- nothing is raised -------------------------------------------------------------------------


def test_nothing_is_raised_out_of_the_subscriber(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure("*@*")

    class Broken:
        def open(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("no database")

    bootStrapSubscriber(SimpleNamespace(database=Broken()))
    assert "services could not be started" in caplog.text


def test_no_configuration_starts_nothing(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    monkeypatch.setattr(product, "_configs", {})
    assert getAutostartServiceNames() == []
    assert sites.open() == set()
    assert lines() == [HANDLING]


def test_a_configuration_without_patterns_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_configs", {"lovely.remotetask": {"other": "x"}})
    assert getAutostartServiceNames() == []


# -- the switch --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "off", "OFF", "no", "false"])
def test_starting_can_be_switched_off(
    sites: Sites, configure: Configure, monkeypatch: pytest.MonkeyPatch, lines: Any, value: str
) -> None:
    configure("*@*")
    monkeypatch.setenv("REMOTETASK_AUTOSTART", value)
    assert sites.open() == set()
    assert lines() == []


@pytest.mark.parametrize("value", ["", "1", "on", "yes"])
def test_other_values_leave_it_on(
    sites: Sites, configure: Configure, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    configure("site1@*")
    monkeypatch.setenv("REMOTETASK_AUTOSTART", value)
    assert sites.open() == {"TestTaskService1"}


# -- other frameworks --------------------------------------------------------------------------


@pytest.fixture
def zope(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The configuration of Zope, without zope.app."""
    configuration = SimpleNamespace(product_config={})
    app = ModuleType("App")
    app.config = ModuleType("App.config")  # type: ignore[attr-defined]
    app.config.getConfiguration = lambda: configuration  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "App", app)
    monkeypatch.setitem(sys.modules, "App.config", app.config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zope.app.appsetup.product", None)
    monkeypatch.delenv("REMOTETASK_AUTOSTART", raising=False)
    return configuration


def test_patterns_can_stand_in_the_configuration_of_zope(zope: SimpleNamespace) -> None:
    assert getAutostartServiceNames() == []
    zope.product_config["lovely.remotetask"] = {"autostart": "plone@tasks , @Root"}
    assert getAutostartServiceNames() == ["plone@tasks", "@Root"]


def test_a_zope_without_product_configuration_starts_nothing(zope: SimpleNamespace) -> None:
    del zope.product_config
    assert getAutostartServiceNames() == []


def test_the_application_of_zope_need_be_no_site(
    db: ZODB.DB, zope: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connection = db.open()
    application = connection.root()["Application"] = Folder()
    site = application["plone"] = Folder()
    site.setSiteManager(LocalSiteManager(site))
    transaction.commit()
    service = site["tasks"] = TaskService()
    service.__parent__ = service.__name__ = None
    site.getSiteManager().registerUtility(service, ITaskService, name="tasks")
    transaction.commit()
    zope.product_config["lovely.remotetask"] = {"autostart": "@Root, plone@tasks, *@*"}
    bootStrapSubscriber(DatabaseOpenedWithRoot(db))
    assert service.isProcessing()
    assert [record.getMessage() for record in caplog.records][1:] == [
        "service Root on site root not found",
        "service tasks on site plone started",
    ]
    registry.stop_all(20)
    connection.close()


def test_services_of_a_plain_root_are_started(workplace: Any) -> None:
    workplace.new_service("other")
    with workplace.transaction() as root:
        root["something else"] = 1
    assert start_services(workplace.db, ["@other"]) == 1
    assert workplace.is_processing("other")
    assert not workplace.is_processing("tasks")
    assert start_services(workplace.db, ["*@*"]) == 1
    assert workplace.is_processing("tasks")
    assert start_services(workplace.db, ["*@*"]) == 0


def test_starting_writes_nothing(workplace: Any) -> None:
    before = workplace.last_transaction()
    start_services(workplace.db, ["@tasks"])
    assert workplace.last_transaction() == before


# -- remote processors -------------------------------------------------------------------------


@pytest.fixture
def remote(db: ZODB.DB) -> Any:
    """A remote processor in the root of the database, *remote*."""
    root = db.open().root()
    root["remote"] = remote = RemoteProcessor()
    transaction.commit()
    yield remote
    assert registry.stop_all(60)


@pytest.mark.parametrize("pattern", ["@remote", "@*", "*@*", "*@remote"])
def test_both_threads_of_a_remote_processor_are_started(
    db: ZODB.DB, remote: Any, pattern: str
) -> None:
    assert start_services(db, [pattern]) == 1
    assert (remote.isProcessing, remote.isScheduling) == (True, True)
    assert start_services(db, [pattern]) == 0
    remote.stopScheduler()
    assert start_services(db, [pattern]) == 1
    assert (remote.isProcessing, remote.isScheduling) == (True, True)


def test_a_remote_processor_is_found_by_its_registration(sites: Sites) -> None:
    site = sites.root["site1"]
    remote = site.getSiteManager()["default"]["mail"] = RemoteProcessor()
    site.getSiteManager().registerUtility(remote, IRemoteProcessor, name="mail")
    transaction.commit()
    assert start_services(sites.db, ["site1@mail"]) == 1
    assert (remote.isProcessing, remote.isScheduling) == (True, True)
    names = [match.service_name for match in find_services(sites.connection.root(), ["*@*"])]
    assert sorted(names) == ["RootTaskService", "TestTaskService1", "mail"]


@implementer(IService)
class Elsewhere:
    """A service that keeps its jobs in no ZODB."""

    started = 0

    def startAll(self) -> bool:
        self.started += 1
        return True


def test_what_keeps_its_jobs_elsewhere_is_started_and_not_looked_after(
    db: ZODB.DB, remote: Any
) -> None:
    elsewhere = Elsewhere()
    getGlobalSiteManager().registerUtility(elsewhere, IService, name="elsewhere")
    assert start_services(db, ["@elsewhere"]) == 1
    assert elsewhere.started == 1
    names = [match.service_name for match in find_services(db.open().root(), ["*@*"])]
    assert names == ["remote"]


@pytest.mark.parametrize(
    ("pattern", "path", "name", "is_named"),
    [
        ("Plone@tasks", "/Plone", "tasks", True),
        ("Plone@*", "/Plone", "tasks", True),
        ("*@*", "/Plone", "tasks", True),
        ("*@tasks", "", "tasks", True),
        ("@tasks", "", "tasks", True),
        ("europe/shop@tasks", "/europe/shop", "tasks", True),
        ("@tasks", "/Plone", "tasks", False),
        ("*@*", "/europe/shop", "tasks", False),
        ("Plone@mail", "/Plone", "tasks", False),
        ("tasks", "", "tasks", False),
    ],
)
def test_a_pattern_names_what_it_finds_at_the_start(
    pattern: str, path: str, name: str, is_named: bool
) -> None:
    assert names(pattern, path, name) is is_named
