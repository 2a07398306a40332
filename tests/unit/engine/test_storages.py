# SPDX-License-Identifier: ZPL-2.1
"""A storage in a relational database: what it raises when it is away, and its news."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from persistent.mapping import PersistentMapping

from lovely.remotetask.interfaces import COMPLETED, QUEUED


class DatabaseError(Exception):
    """What a driver raises for an answer that breaks off."""


class OperationalError(DatabaseError):
    """What drivers of relational databases raise when the server is away."""


class AdminShutdown(OperationalError):
    """What one of them raises for a session that was ended."""


class ProgrammingError(DatabaseError):
    """What they raise for a wrong statement."""


AWAY = [AdminShutdown("terminating connection\ndue to administrator command"), DatabaseError("eof")]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_a_database_that_is_away_is_a_lost_storage(
    workshop: Any, fail_commits: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO, "lovely.remotetask")
    jobid = workshop.add("echo")
    fail_commits(error, error)
    [claim] = workshop.claim()
    fail_commits(error)
    assert workshop.run(claim).status == COMPLETED
    assert workshop.get(jobid, "attempt", "failures") == (1, ())
    [lost, back] = [record.getMessage() for record in caplog.records]
    assert lost.startswith("the storage of service tasks does not work, waiting for it: ")
    assert "\n" not in lost
    assert back == "the storage of service tasks works again"


def test_what_a_database_refuses_is_not_waited_for(workshop: Any, fail_commits: Any) -> None:
    workshop.add("echo")
    fail_commits(ProgrammingError("there is no such table"))
    with pytest.raises(ProgrammingError):
        workshop.claim()


@pytest.fixture
def unreadable(workshop: Any, register: Any, monkeypatch: Any) -> Callable[[BaseException], int]:
    """Return a function: add a job whose task cannot load an object; the error that it meets."""
    with workshop.transaction() as root:
        root["data"] = PersistentMapping(value=1)

    def unreadable(*errors: BaseException) -> int:
        waiting = list(errors)
        workshop.session.begin()
        data = workshop.session.connection.root()["data"]
        load = workshop.session.connection._storage.load

        def failing(oid: bytes, *arguments: Any) -> Any:
            if oid == data._p_oid and waiting:
                raise waiting.pop(0)
            return load(oid, *arguments)

        monkeypatch.setattr(workshop.session.connection._storage, "load", failing)

        def read(input: Any) -> Any:
            data._p_deactivate()
            return data["value"]

        register("read", read)
        jobid: int = workshop.add("read")
        return jobid

    return unreadable


@pytest.mark.parametrize("error", [*AWAY, OSError(5, "Input/output error")], ids=repr)
def test_a_run_whose_storage_cannot_read_is_repeated(
    workshop: Any, unreadable: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    jobid = unreadable(error)
    assert workshop.step().status == COMPLETED
    assert workshop.get(jobid, "attempt", "output", "failures") == (1, 1, ())
    assert "the storage of service tasks does not work" in caplog.text


def test_what_can_be_read_in_no_run_is_the_error_of_the_job(workshop: Any, unreadable: Any) -> None:
    jobid = unreadable(*[OperationalError("gone")] * 8)
    workshop.work()
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 1)
    assert workshop.get(jobid, "error") == "gone"


def test_a_database_of_the_tasks_own_that_is_away_is_the_error_of_the_job(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []

    def fail(input: Any) -> None:
        runs.append(1)
        raise OperationalError("gone")

    register("fail", fail)
    jobid = workshop.add("fail")
    workshop.step()
    assert runs == [1]
    assert workshop.get(jobid, "error") == "gone"
    assert "storage" not in caplog.text


@pytest.mark.parametrize("moment", ["an add", "a schedule that is counted anew"])
def test_news_of_other_processes_are_seen_without_being_told(workshop: Any, moment: str) -> None:
    jobid = workshop.add_cron_job("echo", delay=3600)
    workshop.engine.news.is_asked = True
    assert workshop.claim() == []
    assert not workshop.engine.news.has_signal(workshop.session)
    if moment == "an add":
        workshop.add("echo")
    else:  # taken out of its place and put in again: the counter of the place stays as it was
        with workshop.service() as service:
            service.reschedule(jobid)
    assert workshop.engine.news.has_signal(workshop.session)
    workshop.claim()
    workshop.claim()
    assert not workshop.engine.news.has_signal(workshop.session)


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_inline_a_storage_that_cannot_read_is_for_the_caller_to_deal_with(
    workshop: Any, unreadable: Any, error: Exception
) -> None:
    jobid = unreadable(error)
    service = workshop.session.begin()
    with pytest.raises(type(error)):
        service.process()
    workshop.session.manager.abort()
    assert workshop.get(jobid, "status", "attempt", "failures") == (QUEUED, 0, ())
