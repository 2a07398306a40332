# SPDX-License-Identifier: ZPL-2.1
"""What the engine does for services of any class, which need not be `TaskService`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from transaction.interfaces import NoTransaction

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine.adding import add_job, add_ready, check_given, new_ids
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.control import cancel, find_job
from lovely.remotetask.engine.inline import process_due
from lovely.remotetask.engine.retention import clean
from lovely.remotetask.engine.service import Service
from lovely.remotetask.engine.zodb import Engine
from lovely.remotetask.errors import InvalidArgument, JobNotFound, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.task import SimpleTask

NOW = 2_000_000_000.0


def fail(input: Any) -> None:
    raise TaskError("no")


#: Registered nowhere.
OWN_TASKS = {"double": SimpleTask(lambda input: 2 * input), "fail": SimpleTask(fail)}


class Counter(Service):
    """A service with tasks of its own, and one word for what it does."""

    def find_task(self, name: str) -> Any:
        return OWN_TASKS.get(name)

    def order(self, name: str, *inputs: Any) -> list[int]:
        given = [check_given(self, self.find_task(name), input, None) for input in inputs]
        jobids = new_ids(self, len(given))
        jobs = [Job(jobid, name, input) for jobid, input in zip(jobids, given, strict=True)]
        if len(jobs) == 1:
            add_job(self, jobs[0])
        else:
            add_ready(self, jobs)
        return jobids


@pytest.fixture
def root(db: ZODB.DB) -> Iterator[Any]:
    """The root of a database with a service at *counter*."""
    connection = db.open()
    connection.root()["counter"] = Counter()
    transaction.commit()
    yield connection.root()
    transaction.abort()
    connection.close()


def test_its_jobs_run_inline(root: Any) -> None:
    service = root["counter"]
    jobids = [*service.order("double", 1, 2), *service.order("double", 3)]
    process_due(service, lambda: NOW)
    transaction.commit()
    assert [find_job(service, jobid).output for jobid in jobids] == [2, 4, 6]
    assert check_all(service, NOW, repair=False) == []


def test_its_jobs_are_run_by_an_engine(root: Any, db: ZODB.DB) -> None:
    service = root["counter"]
    done, failed = *service.order("double", 4), *service.order("fail", None)
    transaction.commit()
    claims = Claims(db, path_to(service), lambda seconds: False, lambda: NOW, lambda: NOW)
    engine = Engine(claims)
    with claims.open_beside() as session:
        for claim in claims.claim(session, 2):
            engine.execution.run(session, claim)
        claims.claim(session, 0)  # files them
    transaction.begin()
    assert find_job(service, done).output == 8
    assert find_job(service, failed).status == ERROR
    assert not service.workers
    assert check_all(service, NOW, repair=False) == []


def test_its_jobs_are_cancelled_counted_and_removed(root: Any) -> None:
    service = root["counter"]
    first, second, third = service.order("double", 1, 2, 3)
    cancel(service, first)
    cancel(service, max(first, second, third) + 1)  # which is gone
    assert count_jobs(service)[CANCELLED] == 1
    assert count_jobs(service)[QUEUED] == 2
    process_due(service, lambda: NOW)
    clean(service, [COMPLETED])
    assert count_jobs(service)[COMPLETED] == 0
    assert find_job(service, first).status == CANCELLED
    with pytest.raises(JobNotFound):
        find_job(service, second)


def test_its_settings_are_checked(root: Any) -> None:
    service = root["counter"]
    with pytest.raises(InvalidArgument):
        service.lease_seconds = -1
    assert service.lease_seconds == Counter.lease_seconds
    assert not service._p_changed


def test_nothing_is_changed_where_no_transaction_has_begun(db: ZODB.DB) -> None:
    manager = transaction.TransactionManager(explicit=True)
    connection = db.open(manager)
    with manager:
        service = connection.root()["counter"] = Counter()
        (jobid,) = service.order("double", 1)
    for change in (lambda: service.order("double", 2), lambda: cancel(service, jobid)):
        with pytest.raises(NoTransaction):
            change()
    with manager:
        assert list(service.jobs) == [jobid]
        assert find_job(service, jobid).status == QUEUED
    connection.close()
