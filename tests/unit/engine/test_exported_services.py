# SPDX-License-Identifier: ZPL-2.1
"""A service that was exported and imported while the one that it is a copy of was at work."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.maintenance import Maintenance
from lovely.remotetask.engine.rescue import orphans
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.interfaces import COMPLETED, PROCESSING, QUEUED
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.worker import LEASE_SECONDS


@pytest.fixture(params=["the same database", "another database"])
def copy_db(request: Any, db: ZODB.DB) -> Iterator[ZODB.DB]:
    """Where the copy goes."""
    if request.param == "the same database":
        yield db
        return
    other = ZODB.DB(DemoStorage())
    yield other
    transaction.abort()
    other.close()


class Copy:
    """The copy, and a worker of its own."""

    def __init__(self, workshop: Any, db: ZODB.DB) -> None:
        self.db = db
        self.workshop = workshop
        exported = io.BytesIO()
        with workshop.service() as service:
            service._p_jar.exportFile(service._p_oid, exported)
        exported.seek(0)
        with db.transaction() as connection:
            connection.root()["copy"] = connection.importFile(exported)
        with self.service() as service:
            path = path_to(service)
        self.engine = Engine(Claims(db, path, workshop._pause, *[lambda: workshop.now] * 2))
        self.session = Session(db, path, transaction.TransactionManager())

    @contextmanager
    def service(self) -> Iterator[Any]:
        """Give the copy, and commit at the end."""
        with self.db.transaction() as connection:
            yield connection.root()["copy"]

    def status(self, jobid: int) -> str:
        """Return what is committed."""
        with self.service() as service:
            return str(service.getStatus(jobid))


@pytest.fixture(params=["by object id", "by names alone"])
def is_named(request: Any) -> bool:
    """Whether the worker of the original is told names alone, as applications may do."""
    return bool(request.param == "by names alone")


@pytest.fixture
def make_copy(workshop: Any, copy_db: ZODB.DB) -> Iterator[Any]:
    """Return a function that makes a `Copy`."""
    copies = []

    def make() -> Copy:
        copies.append(Copy(workshop, copy_db))
        return copies[-1]

    yield make
    for copy in copies:
        copy.session.close()


def test_the_worker_of_the_original_is_none_of_the_copys(
    workshop: Any, register: Any, make_copy: Any, is_named: bool
) -> None:
    if is_named:
        workshop.path = list(workshop.path)
        workshop.engine = workshop.new_engine()
    register("share", lambda input: input, shared_commit=True)
    jobids = [workshop.add("share"), workshop.add("echo")]
    claims = workshop.reserve()  # one, as a worker begins with few
    claims += workshop.reserve()
    assert [claim.jobid for claim in claims] == jobids
    copy = make_copy()
    with workshop.service() as service:
        assert orphans(service) == []
    with copy.service() as service:
        assert orphans(service) == [workshop.engine.claims.identity.id]
    copy.engine.upkeep.free_orphans(copy.session)
    assert [copy.status(jobid) for jobid in jobids] == [QUEUED, QUEUED]
    with copy.service() as service:
        assert check_all(service, workshop.now, False, lambda: None) == []
        assert not service.workers
    assert workshop.run_together(claims[:1]) is not None
    workshop.run(claims[1])
    assert [workshop.get(jobid, "status") for jobid in jobids] == [COMPLETED, COMPLETED]


def test_it_is_dead_to_the_copy_when_a_lease_is_over(workshop: Any, make_copy: Any) -> None:
    jobid = workshop.add("echo")
    workshop.claim()
    copy = make_copy()
    maintenance = Maintenance(copy.engine, lambda: True, lambda: None, lambda thread: None)
    for _ in range(4):
        assert copy.status(jobid) == PROCESSING
        maintenance.tick(copy.session)
        workshop.now += LEASE_SECONDS / 3
    maintenance.tick(copy.session)
    assert copy.status(jobid) == QUEUED


def test_what_the_original_has_claimed_inline_is_not_the_copys(
    workshop: Any, make_copy: Any
) -> None:
    jobid = workshop.add("echo")
    with workshop.service() as service:
        assert service.claimNextJob(workshop.now) == jobid
    copy = make_copy()
    with copy.service() as service:
        assert service.processNext(workshop.now, jobid=jobid) is False
        service.process(workshop.now + 60.0)
        assert service.getStatus(jobid) == COMPLETED
    with workshop.service() as service:
        assert service.processNext(workshop.now, jobid=jobid) is True
    assert workshop.get(jobid, "status") == COMPLETED


def test_what_was_claimed_inline_before_the_service_was_stored_stays_claimed(
    service: Any, db: ZODB.DB
) -> None:
    jobid = service.add("echo")
    assert service.claimNextJob() == jobid
    with db.transaction() as connection:
        connection.root()["tasks"] = service
    with db.transaction() as connection:
        service = connection.root()["tasks"]
        assert orphans(service) == []
        assert service.processNext(jobid=jobid) is True
        assert service.getStatus(jobid) == COMPLETED
        assert not service.workers
