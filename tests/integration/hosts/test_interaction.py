# SPDX-License-Identifier: ZPL-2.1
"""Applications of zope.security: a job runs as the principal who has added it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
import zope.component.event  # what every framework does: events reach subscribers by it
from zope.authentication.interfaces import IAuthentication
from zope.component import provideUtility
from zope.configuration import xmlconfig
from zope.event import notify
from zope.principalregistry.principalregistry import PrincipalRegistry, UnauthenticatedPrincipal
from zope.processlifetime import DatabaseOpenedWithRoot
from zope.security.management import (
    endInteraction,
    getInteraction,
    newInteraction,
    queryInteraction,
)

import lovely.remotetask
from lovely.remotetask.around import forget_around, forget_context
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.hosts import interaction
from lovely.remotetask.hosts.users import run_as
from lovely.remotetask.service import TaskService

assert zope.component.event


def principals() -> list[str | None]:
    """Return the ids of who takes part in the current interaction."""
    return [
        None if one.principal is None else one.principal.id
        for one in getInteraction().participations
    ]


@pytest.fixture
def registry(empty_registry: None, db: ZODB.DB) -> Iterator[PrincipalRegistry]:
    """Who is known to an application that is configured as its users configure it."""
    xmlconfig.file("configure.zcml", lovely.remotetask)
    registry = PrincipalRegistry()
    for name in ("jane", "joe"):
        registry.definePrincipal(f"shop.{name}", name, login=name)
    provideUtility(registry, IAuthentication)
    notify(DatabaseOpenedWithRoot(db))
    yield registry
    endInteraction()
    forget_around(interaction.NAME)
    forget_context(interaction.NAME)


@pytest.fixture
def service(db: ZODB.DB, registry: PrincipalRegistry, register: Any) -> Iterator[TaskService]:
    """A service, with the task *who*, which returns who takes part."""
    register("who", lambda input: principals())
    connection = db.open()
    service = connection.root()["tasks"] = TaskService()
    transaction.commit()
    yield service
    transaction.abort()
    connection.close()


def as_principal(principal: Any) -> None:
    """Take part in the interaction of the caller."""
    endInteraction()
    newInteraction(interaction.Participation(principal))


def test_a_job_runs_as_who_has_added_it(service: TaskService, registry: PrincipalRegistry) -> None:
    as_principal(registry.getPrincipal("shop.jane"))
    jobid = service.add("who")
    as_principal(registry.getPrincipal("shop.joe"))
    service.process()
    assert service.getResult(jobid) == ["shop.jane"]
    assert principals() == ["shop.joe"]  # who runs it is given the thread back


def test_a_worker_runs_it_so_too_and_nobody_after_it(
    service: TaskService, registry: PrincipalRegistry
) -> None:
    as_principal(registry.getPrincipal("shop.jane"))
    first = service.add("who")
    endInteraction()
    second = service.add("who")
    transaction.commit()
    service.startProcessing()
    assert service.wait_result(first, 30) == ["shop.jane"]
    assert service.wait_result(second, 30) == [None]
    service.stopProcessing(30)


@pytest.mark.parametrize("principal", [None, UnauthenticatedPrincipal("nobody", "", "")])
def test_a_job_that_nobody_has_added_runs_as_nobody(service: TaskService, principal: Any) -> None:
    as_principal(principal)
    jobid = service.add("who")
    service.process()
    assert service.getResult(jobid) == [None]


def test_a_job_can_run_as_somebody_else(service: TaskService, registry: PrincipalRegistry) -> None:
    as_principal(registry.getPrincipal("shop.jane"))
    with run_as("shop.joe"):
        jobid = service.add("who")
    service.process()
    assert service.getResult(jobid) == ["shop.joe"]


@pytest.mark.parametrize("name", ["", None, 5])
def test_nobody_in_particular_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="the id of a user"), run_as(name):
        pass


def test_a_principal_who_is_gone_is_a_clear_error(service: TaskService) -> None:
    with run_as("shop.jim"):
        jobid = service.add("who")
    service.process()
    assert service.getStatus(jobid) == "error"
    assert service.getError(jobid) == (
        "the user 'shop.jim', as whom the job is to run, is not there any more"
    )
    assert queryInteraction() is None


def test_a_task_can_set_the_principal_as_in_0_5(
    service: TaskService, registry: PrincipalRegistry, register: Any
) -> None:
    def become(name: str) -> list[str | None]:
        getInteraction().participations[0].setPrincipal(registry.getPrincipal(name))
        return principals()

    register("become", become)
    first = service.add("become", "shop.joe")
    second = service.add("who")
    service.process()
    assert service.getResult(first) == ["shop.joe"]
    assert service.getResult(second) == [None]
