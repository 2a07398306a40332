# SPDX-License-Identifier: ZPL-2.1
"""Sites that are hard to tell: in another database, or containers with nothing in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.utils import p64, u64
from zope.component.hooks import getSite
from zope.component.interfaces import ISite
from zope.component.persistentregistry import PersistentComponents
from zope.interface import implementer

from lovely.remotetask.base.site import entered, path_to
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.session import Session
from lovely.remotetask.hosts.autostart import find_services
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.service import TaskService

PATIENCE_SECONDS = 20.0


@implementer(ISite)
class Folder(PersistentMapping):  # type: ignore[misc]
    """A site that is a container: false as long as nothing is in it."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.components = PersistentComponents()

    def getSiteManager(self) -> Any:
        """See `ISite`."""
        return self.components


class Estate:
    """Two databases that know each other, and services in both.

    In *main* are the sites *own* and *other*; the service of a test is where it says.
    """

    def __init__(self) -> None:
        self.databases: dict[str, ZODB.DB] = {}
        for name in ("main", "mounted"):
            ZODB.DB(None, database_name=name, databases=self.databases)
        # So that the same object ids name something else in both.
        with self.root("mounted") as root:
            root["filling"] = [PersistentMapping() for _ in range(9)]
        with self.root("main") as root:
            root["own"], root["other"] = Folder("own"), Folder("other")

    @contextmanager
    def root(self, name: str) -> Iterator[Any]:
        """Give the root of a database, and commit at the end."""
        with self.databases[name].transaction() as connection:
            yield connection.root()

    def put(self, name: str, has_parent: bool) -> None:
        """Put the service into a database."""
        with self.root(name) as root:
            service = root["tasks"] = TaskService()
            root._p_jar.add(service)
            if has_parent:
                own = root._p_jar.get_connection("main").root()["own"]
                service.__parent__, service.__name__ = own, "tasks"

    def start(self, name: str, site: str | None) -> None:
        """Start the service while a site is the current one."""
        with self.root(name) as root:
            current = site and root._p_jar.get_connection("main").root()[site]
            with entered(current):
                root["tasks"].startProcessing()

    def site_of_a_job(self, name: str, until: Callable[..., None]) -> tuple[str, Any]:
        """Run a job, and return its status and the title of the site that it ran in."""
        with self.root(name) as root:
            jobid = root["tasks"].add("site")

        def status() -> str:
            with self.root(name) as root:
                return str(root["tasks"].getStatus(jobid))

        until(lambda: status() == COMPLETED, "the job")
        with self.root(name) as root:
            return status(), root["tasks"].getResult(jobid)


@pytest.fixture
def estate(register: Any) -> Iterator[Estate]:
    """Two databases, whose services end with the test."""

    def site(input: Any) -> str | None:
        return None if getSite() is None else str(getSite().title)

    register("site", site)
    estate = Estate()
    yield estate
    assert registry.stop_all(PATIENCE_SECONDS)
    transaction.abort()
    for database in estate.databases.values():
        database.close()


@pytest.mark.parametrize("place", ["main", "mounted"])
def test_the_site_around_a_service_may_be_in_another_database(
    estate: Estate, until: Any, place: str
) -> None:
    with estate.root("main") as root:
        root["own"]["is empty"] = False
    estate.put(place, has_parent=True)
    estate.start(place, None)
    assert estate.site_of_a_job(place, until) == (COMPLETED, "own")


@pytest.mark.parametrize("place", ["main", "mounted"])
def test_an_empty_site_around_a_service_is_not_passed_over_for_the_starters(
    estate: Estate, until: Any, place: str
) -> None:
    estate.put(place, has_parent=True)
    with estate.root("main") as root:
        assert not root["own"]
    estate.start(place, "other")
    assert estate.site_of_a_job(place, until) == (COMPLETED, "own")


@pytest.mark.parametrize("place", ["main", "mounted"])
def test_where_no_site_is_around_a_service_it_is_the_starters(
    estate: Estate, until: Any, place: str
) -> None:
    estate.put(place, has_parent=False)
    estate.start(place, "other")
    assert estate.site_of_a_job(place, until) == (COMPLETED, "other")


def test_a_site_of_a_database_that_cannot_be_reached_is_no_site_of_a_service(
    estate: Estate, until: Any
) -> None:
    stranger = ZODB.DB(None, database_name="main")
    with stranger.transaction() as connection:
        connection.root()["site"] = Folder("stranger")
    estate.put("main", has_parent=False)
    with (
        stranger.transaction() as connection,
        estate.root("main") as root,
        entered(connection.root()["site"]),
    ):
        root["tasks"].startProcessing()
    assert estate.site_of_a_job("main", until) == (COMPLETED, None)
    stranger.close()


def test_two_services_with_the_same_id_in_two_databases_are_two(estate: Estate) -> None:
    with estate.root("main") as root:
        jars = [root._p_jar, root._p_jar.get_connection("mounted")]
        later = p64(max(u64(jar.new_oid()) for jar in jars) + 9)
        for jar, name in zip(jars, ("here", "there"), strict=True):
            while jar.new_oid() != later:  # they are given one after the other
                pass
            root[name] = TaskService()
            jar.add(root[name])
        assert root["here"]._p_oid == root["there"]._p_oid
    with estate.root("main") as root:
        found = [match.service_name for match in find_services(root, ["@here", "@there"])]
    assert found == ["here", "there"]


def test_a_site_and_its_service_come_from_one_connection(estate: Estate) -> None:
    estate.put("main", has_parent=True)
    with estate.root("mounted") as root:
        root._p_jar.get_connection("main")
    with estate.root("main") as root:  # gets that connection, and the one beside it
        path = path_to(root["tasks"])
        root._p_jar.get_connection("mounted")
        service = root["tasks"]
        service.add("site", {"of": root["own"]})  # an object of its own connection
        transaction.abort()
    with closing(Session(estate.databases["main"], path, transaction.TransactionManager())) as it:
        assert it.connection.connections["main"] is not it.connection
        service = it.begin()
        assert it.site(service) is service.__parent__
        it.abort()
