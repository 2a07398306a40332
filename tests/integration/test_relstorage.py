# SPDX-License-Identifier: ZPL-2.1
"""A service in PostgreSQL, whose server ends its sessions."""

from __future__ import annotations

import logging
import time
from contextlib import closing, suppress
from typing import Any

import pytest
import ZODB

from lovely.remotetask.interfaces import COMPLETED

ROUNDS = 8


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
