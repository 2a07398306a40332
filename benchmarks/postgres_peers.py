# SPDX-License-Identifier: ZPL-2.1
"""Queues on PostgreSQL, each in a database of its own."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import uuid
from contextlib import closing, suppress
from typing import Any

import payload
from interleave import Unavailable, repeat
from peer import AT_LEAST_ONCE, FSYNC, Peer, imported
from places import POSTGRES_DSN, scratch_directory


class PostgresPeer(Peer):
    """A queue in a database of its own on the server of PostgreSQL."""

    durability = FSYNC
    guarantee = AT_LEAST_ONCE
    _rate = 200.0

    def connect(self) -> None:
        self._psycopg = imported("psycopg", "'psycopg[binary]'")
        self.database = self.queue.replace("-", "_")
        try:
            self._administer(f"CREATE DATABASE {self.database}")
        except self._psycopg.OperationalError:
            raise Unavailable(
                "no PostgreSQL server takes us",
                "export REMOTETASK_POSTGRES_DSN='host=... dbname=postgres user=...'",
            ) from None
        self._dsn = os.environ["BENCHMARK_POSTGRES"] = self._psycopg.conninfo.make_conninfo(
            POSTGRES_DSN, dbname=self.database
        )

    def _administer(self, statement: str) -> None:
        with closing(self._psycopg.connect(POSTGRES_DSN, autocommit=True)) as connection:
            connection.execute(statement)

    def disconnect(self) -> None:
        if hasattr(self, "database"):
            with suppress(self._psycopg.Error):
                self._administer(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")


class Procrastinate(PostgresPeer):
    """Procrastinate, with a task that is a function, one at a time: as its tutorial has it."""

    name = "Procrastinate on PostgreSQL: drain"
    slot = payload.FIRST_PEER + 1
    at_once = 1
    task = "noop"

    def __init__(self, name: str = "") -> None:
        self.name = name or self.name

    def connect(self) -> None:
        imported("procrastinate", "procrastinate")
        super().connect()
        os.environ["BENCHMARK_AT_ONCE"] = str(self.at_once)
        sys.modules.pop("peer_apps.procrastinate_app", None)
        app = importlib.import_module("peer_apps.procrastinate_app")
        self._app = app.app
        self._app.open()
        self._app.schema_manager.apply_schema()
        self._tasks = {"noop": app.noop, "nap": app.nap}

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "procrastinate", "--app", "peer_apps.procrastinate_app.app"),
            *("worker", "--concurrency", str(self.at_once)),
        ]

    def send(self, count: int) -> None:
        self._send(count, self.task, 0)

    def send_naps(self, count: int, seconds: float) -> None:
        """Add so many jobs that take so long."""
        self._send(count, "nap", seconds)

    def _send(self, count: int, name: str, value: float) -> None:
        task = self._tasks[name]
        if count == 1:
            task.defer(value=value)
        elif count:
            task.batch_defer(*({"value": value} for _ in range(count)))

    def purge(self) -> None:
        """Take away what waits."""
        with closing(self._psycopg.connect(self._dsn, autocommit=True)) as connection:
            connection.execute("DELETE FROM procrastinate_jobs WHERE status = 'todo'")

    def disconnect(self) -> None:
        if hasattr(self, "_app"):
            self._app.close()
        super().disconnect()


class ProcrastinateTasks(Procrastinate):
    """The fastest way to have it: tasks on an event loop, several at a time."""

    task = "nap"

    def __init__(self, at_once: int, slot: int, name: str = "") -> None:
        self.name = name or f"Procrastinate, {at_once}"
        self.at_once = at_once
        self.slot = slot


class _Adding:
    """What adds jobs, a commit each, and has no worker."""

    has_worker = False

    def open(self: Any) -> None:
        self.directory = scratch_directory()
        self.queue = f"benchmark-{uuid.uuid4().hex}"
        os.environ["BENCHMARK_QUEUE"] = self.queue
        self.connect()

    def prepare(self, seconds: float) -> None:
        pass

    def work(self, seconds: float) -> float:
        return repeat(self._add, seconds)

    def _add(self: Any) -> int:
        self.send(self.together)
        return int(self.together)


class ProcrastinateAdd(_Adding, Procrastinate):
    """Add jobs to Procrastinate."""

    def __init__(self, name: str = "Procrastinate on PostgreSQL: add", together: int = 1) -> None:
        self.name = name
        self.together = together


class PgQueuer(PostgresPeer):
    """PgQueuer, which takes jobs in batches and runs them on an event loop.

    :param batch: how many it takes at a time; 10 is its default.
    """

    def __init__(self, batch: int, slot: int) -> None:
        self.name = f"PgQueuer, batches of {batch}: drain"
        self.durability = "fsync each batch"
        self.slot = slot
        self._batch = batch

    def connect(self) -> None:
        imported("pgqueuer", "pgqueuer")
        imported("asyncpg", "asyncpg")
        super().connect()
        from pgqueuer.db import AsyncpgDriver, SyncPsycopgDriver
        from pgqueuer.queries import Queries, SyncQueries

        app = importlib.import_module("peer_apps.pgqueuer_app")

        async def install() -> None:
            connection = await app.connect()
            await Queries(AsyncpgDriver(connection)).install()
            await connection.close()

        asyncio.run(install())
        self._connection = self._psycopg.connect(self._dsn, autocommit=True)
        self._queries = SyncQueries(SyncPsycopgDriver(self._connection))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "peer_apps.pgqueuer_app", str(self._batch)]

    def send(self, count: int) -> None:
        if count == 1:
            self._queries.enqueue("noop", b"1", 0)
        elif count:
            self._queries.enqueue(["noop"] * count, [b"1"] * count, [0] * count)

    def disconnect(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()
        super().disconnect()


class PgQueuerAdd(_Adding, PgQueuer):
    """Add jobs to PgQueuer."""

    def __init__(self, together: int = 1) -> None:
        super().__init__(10, 0)
        self.durability = FSYNC
        self.together = together
        self.name = "PgQueuer: add" if together == 1 else f"PgQueuer: add, {together} a commit"
