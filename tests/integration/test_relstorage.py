# SPDX-License-Identifier: ZPL-2.1
"""A service in PostgreSQL, whose server ends its sessions."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from typing import Any

import pytest
import ZODB
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine import loop, trigger
from lovely.remotetask.interfaces import COMPLETED, ITask
from servers import open_postgres
from workplace import wait_until

ROUNDS = 8

#: The maintenance looks so often, more than twice as often as it does by default.
TICK_SECONDS = 4.0


@pytest.fixture
def postgres_workplace(postgres_db: ZODB.DB, make_workplace: Any) -> Any:
    """A workplace in PostgreSQL."""
    return make_workplace(postgres_db)


def end_sessions(dsn: str) -> None:
    """Let the server end all other sessions of a database."""
    import psycopg2

    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_sessions_that_the_server_ends_cost_no_attempt_and_are_told_in_a_line(
    postgres_workplace: Any,
    postgres_dsn: str,
    register: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "lovely.remotetask")
    caplog.set_level(logging.INFO, "remotetask.job")
    runs: list[int] = []
    ended = 0

    def write(context: Any, number: int) -> None:
        runs.append(number)
        time.sleep(0.002)
        connection = context.service._p_jar
        connection.root()._p_deactivate()
        connection.root()[f"job {number}"] = number

    register("write", write, context=True)
    jobids = postgres_workplace.add("write", *range(100))
    postgres_workplace.start()
    while len(runs) < 90 and ended < ROUNDS:
        seen = len(runs)
        while len(runs) < min(90, seen + 5):
            time.sleep(0.001)
        end_sessions(postgres_dsn)
        ended += 1

    def statuses() -> list[str]:
        with suppress(Exception):  # the last sessions that were ended are the test's own too
            return postgres_workplace.statuses(jobids)
        return []

    end = time.monotonic() + 30.0
    while statuses() != [COMPLETED] * len(jobids):
        assert time.monotonic() < end, statuses()
        time.sleep(0.05)
    with postgres_workplace.service() as service:
        assert {service.jobs[jobid].attempt for jobid in jobids} == {1}
        assert [service._p_jar.root()[f"job {number}"] for number in range(100)]
    told = [record for record in caplog.records if record.name == "lovely.remotetask"]
    assert [(r.levelname, r.exc_info) for r in told] == [("WARNING", None), ("INFO", None)]
    assert "the storage of service tasks does not work" in told[0].getMessage()


@pytest.fixture
def transactions(relstorage: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with each transaction that this process ends in PostgreSQL."""
    from psycopg2.extensions import STATUS_BEGIN
    from relstorage.adapters.postgresql.drivers.psycopg2 import Psycopg2Driver

    ended: list[str] = []

    def counted(end: Any) -> Any:
        def count(driver: Any, connection: Any, *arguments: Any) -> Any:
            if connection.status == STATUS_BEGIN:
                ended.append(threading.current_thread().name)
            return end(driver, connection, *arguments)

        return count

    monkeypatch.setattr(Psycopg2Driver, "commit", counted(Psycopg2Driver.commit))
    monkeypatch.setattr(Psycopg2Driver, "rollback", counted(Psycopg2Driver.rollback))
    return ended


@pytest.mark.parametrize(
    ("keep_history", "is_told"), [(False, False), (True, True)], ids=["asked", "told, with history"]
)
def test_an_idle_worker_has_two_transactions_a_second_at_the_most(
    transactions: list[str],
    postgres_dsn: str,
    make_workplace: Any,
    monkeypatch: pytest.MonkeyPatch,
    keep_history: bool,
    is_told: bool,
) -> None:
    # It looks as rarely as it does otherwise when nothing has come for twenty seconds.
    monkeypatch.setattr(loop, "IDLE_SHARE", 1.0)
    with closing(open_postgres(postgres_dsn, keep_history=keep_history)) as db:
        if is_told:
            trigger.install(trigger.adapter_of(db.storage))
        workplace = make_workplace(db)
        with workplace.service() as service:
            service.lease_seconds = 3 * TICK_SECONDS
        workplace.start()
        time.sleep(TICK_SECONDS)
        begun, before = time.monotonic(), len(transactions)
        ticks = transactions.count("remotetask-maintenance.tasks")
        time.sleep(3 * TICK_SECONDS)
        found = transactions[before:]
        seconds = time.monotonic() - begun
        workplace.stop()
    assert transactions.count("remotetask-maintenance.tasks") - ticks >= 3
    assert len(found) <= 2 * seconds, Counter(found)


def test_jobs_whose_task_is_registered_later_are_found_without_a_signal(
    postgres_workplace: Any, register: Any
) -> None:
    register("late", lambda input: input)
    jobids = postgres_workplace.add("late", 1)
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    postgres_workplace.start(waitTime=0.02)
    wait_until(lambda: _is_parked(postgres_workplace), "the job to be parked")
    register("late", lambda input: input)
    assert postgres_workplace.wait_for(jobids) == [COMPLETED]


def _is_parked(workplace: Any) -> bool:
    with workplace.service() as service:
        return bool(len(service.queue.parked))
