# SPDX-License-Identifier: ZPL-2.1
"""What inputs and attributes of job objects may hold in ZODB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping
from zope.component import provideAdapter
from zope.interface import Interface, implementer

from lovely.remotetask.errors import InvalidInput
from lovely.remotetask.interfaces import IReference
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Delay
from remotejobs import Note


class IPage(Interface):
    """What has an address."""


@implementer(IPage)
class Page(Persistent):
    """Something that is found by its address."""


class Address:
    """Stands for a page."""

    def resolve(self) -> Page:
        """Find it."""
        return Page()


@pytest.fixture
def root(db: ZODB.DB) -> Iterator[Any]:
    connection = db.open()
    root = connection.root()
    root["remote"] = remote = RemoteProcessor()
    remote.addJobFactory("note", Note())
    transaction.commit()
    yield root
    transaction.abort()
    connection.close()


def test_the_limits_of_a_processor_hold_for_its_jobs(root: Any) -> None:
    remote = root["remote"]
    remote.max_input_bytes = 100
    remote.max_input_depth = 3
    with pytest.raises(InvalidInput, match="100 bytes"):
        remote.addJob("note", "x" * 200)
    with pytest.raises(InvalidInput, match="3"):
        remote.addJob("note", [[[[1]]]])
    assert len(remote._jobs) == 0
    transaction.commit()
    assert remote.addJob("note", "x") in remote._jobs


def test_a_persistent_input_is_the_object_itself(root: Any) -> None:
    shared = root["shared"] = PersistentMapping()
    jobid = root["remote"].addJob("note", {"shared": shared})
    transaction.commit()
    assert root["remote"].processNextJob() is True
    assert root["remote"].getJobResult(jobid)["shared"] is shared


def test_an_object_of_another_connection_is_refused_at_once(root: Any, db: ZODB.DB) -> None:
    root["shared"] = PersistentMapping()
    transaction.commit()
    manager = transaction.TransactionManager()
    other = db.open(manager)
    with pytest.raises(InvalidInput, match="another connection"):
        root["remote"].addJob("note", [other.root()["shared"]])
    manager.abort()
    other.close()
    assert root["remote"].addJob("note") in root["remote"]._jobs
    transaction.commit()


def test_what_an_attribute_holds_has_to_be_storable_when_a_job_is_made(root: Any) -> None:
    factory = root["remote"].getJobFactory("note")
    factory.colour = lambda: None
    with pytest.raises(InvalidInput, match="the job cannot be stored"):
        root["remote"].addJob("note")


def test_an_object_that_is_found_again_is_refused_but_not_what_stands_for_it(root: Any) -> None:
    provideAdapter(lambda page: Address(), (IPage,), IReference)
    remote, page = root["remote"], Page()
    for add in (
        lambda: remote.addJob("note", [page]),
        lambda: remote._jobs.add(Note({"input": {"page": page}})),
        lambda: remote.addScheduler(Delay({"jobName": "note", "delay": 5, "input": [page]})),
    ):
        with pytest.raises(InvalidInput, match="cannot be the input of a job object"):
            add()
    assert len(remote._jobs) == 0
    assert remote.addJob("note", IReference(page)) in remote._jobs
