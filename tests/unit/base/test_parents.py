# SPDX-License-Identifier: ZPL-2.1
"""Jobs know their service, although nothing of that is stored."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB

from lovely.remotetask.base import site
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.service import TaskService


@pytest.fixture
def service(db: ZODB.DB, register: Any) -> Iterator[TaskService]:
    """A service that is stored."""
    register("echo", lambda input: input)
    connection = db.open()
    service = connection.root()["tasks"] = TaskService()
    transaction.commit()
    yield service
    transaction.abort()
    connection.close()


def stored(service: TaskService) -> Job:
    jobid = service.add("echo")
    transaction.commit()
    return service.jobs[jobid]


def test_a_job_is_named_by_its_id_and_stands_in_its_service(service: TaskService) -> None:
    job = stored(service)
    assert job.__parent__ is service
    assert job.__name__ == str(job.id)
    assert not job._p_changed
    assert Job.__name__ == "Job"


def test_so_is_one_that_is_not_stored_yet(service: TaskService) -> None:
    jobids = [*service.add_many("echo", range(40)), service.addCronJob("echo", delay=9)]
    assert all(service.jobs[jobid].__parent__ is service for jobid in jobids)
    transaction.savepoint(optimistic=True)
    assert all(service.jobs[jobid].__parent__ is service for jobid in jobids)


def test_so_is_one_of_a_service_in_no_database(register: Any) -> None:
    register("echo", lambda input: input)
    service, other = TaskService(), TaskService()
    job = service.jobs[service.add("echo")]
    other.add("echo")
    assert job.__parent__ is service


def test_a_service_without_jobs_in_common_is_no_parent(service: TaskService) -> None:
    job = stored(service)
    other = service._p_jar.root()["other"] = TaskService()
    copy = other.jobs[job.id] = Job(job.id, "echo")
    transaction.commit()
    assert job.__parent__ is service
    assert copy.__parent__ is other


def test_nothing_of_it_is_stored(service: TaskService) -> None:
    job = stored(service)
    before = job.__getstate__()
    assert job.__parent__ is service
    assert job.__getstate__() == before
    assert {name for name in vars(job) if "parent" in name or "service" in name} == set()


def test_it_holds_after_a_reload(service: TaskService) -> None:
    job = stored(service)
    service._p_jar.cacheMinimize()
    assert job.__parent__ is service
    service._p_jar.sync()
    assert job.__parent__ is service


def test_it_holds_where_nobody_holds_the_service(db: ZODB.DB, service: TaskService) -> None:
    jobid = stored(service).id
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    job = connection.root()["tasks"].jobs[jobid]
    connection.cacheMinimize()
    gc.collect()
    assert service._p_oid not in [
        other._p_oid for other in site._services.values() if other._p_jar is connection
    ]
    assert job.__parent__ is connection.root()["tasks"]
    assert job.__parent__ is not service
    connection.close()


def test_it_holds_where_only_the_maker_of_the_service_has_loaded_it(
    db: ZODB.DB, service: TaskService
) -> None:
    oid = stored(service)._p_oid
    connection = db.open(transaction.TransactionManager())
    assert connection.get(oid).__parent__ is connection.get(service._p_oid)
    connection.close()


def test_each_connection_has_its_own(db: ZODB.DB, service: TaskService) -> None:
    jobid = stored(service).id
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    other = connection.root()["tasks"]
    assert other.jobs[jobid].__parent__ is other
    assert service.jobs[jobid].__parent__ is service
    connection.close()


def test_it_is_gone_with_an_abort_and_with_the_job(service: TaskService) -> None:
    job = service.jobs[service.add("echo")]
    transaction.abort()
    assert job.__parent__ is None
    point = transaction.savepoint()
    job = service.jobs[service.add("echo")]
    point.rollback()
    assert job.__parent__ is None
    job = stored(service)
    del service.jobs[job.id]
    assert job.__parent__ is None
    transaction.abort()
    assert job.__parent__ is service
    assert Job(5, "echo").__parent__ is None
    assert not Job(5, "echo").is_cancel_requested


def test_a_service_that_was_packed_away_keeps_no_job_from_its_own(
    file_db: ZODB.DB, register: Any
) -> None:
    register("echo", lambda input: input)
    connection = file_db.open()
    root = connection.root()
    for name in ("tasks", "gone"):
        root[name] = TaskService()
    transaction.commit()
    connection.cacheMinimize()
    job = stored(root["tasks"])
    root["gone"].getAvailableTasks()
    root["gone"]._p_activate()
    del root["gone"]
    transaction.commit()
    file_db.pack()
    connection.cacheMinimize()
    gc.collect()
    assert job.__parent__ is root["tasks"]
    assert stored(root["tasks"]).__parent__ is root["tasks"]
    connection.close()


def test_looking_for_the_parent_of_a_new_job_loads_nothing_of_others(
    db: ZODB.DB, service: TaskService
) -> None:
    stored(service)
    loaded: list[Any] = []
    ready, done = threading.Event(), threading.Event()

    def stranger() -> None:
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        other = connection.root()["tasks"]
        other.lease_seconds  # noqa: B018 (it is loaded, its tree is not)
        ready.set()
        done.wait(20)
        loaded.extend(v for v in vars(other).values() if v._p_changed is not None)
        connection.close()

    thread = threading.Thread(target=stranger)
    thread.start()
    assert ready.wait(20)
    job = service.jobs[service.add("echo")]
    assert job.__parent__ is service
    done.set()
    thread.join(20)
    assert loaded == []


def test_a_schedule_is_changed_by_way_of_the_job_alone(service: TaskService) -> None:
    jobid = service.addCronJob("echo", hour=(3,))
    transaction.commit()
    job = service.jobs[jobid]
    assert isinstance(job, CronJob)
    job.update(hour=(4,))
    job.__parent__.reschedule(int(job.__name__))
    assert job.scheduledFor is not None
    assert job.scheduledFor.hour == 4
