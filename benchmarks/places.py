# SPDX-License-Identifier: ZPL-2.1
"""Where our service lives while it is measured: a file, a ZEO server, or PostgreSQL."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import payload
import transaction
import ZODB
from interleave import Unavailable
from processes import end, processor_seconds_of
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine import registry
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.processor import MultiProcessor
from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask

POSTGRES_DSN = os.environ.get(
    "REMOTETASK_POSTGRES_DSN", "host=127.0.0.1 dbname=postgres user=postgres"
)

#: Connections: one for each of sixteen threads, and some more.
POOL = 25

#: The one task whose jobs are counted; whether it shares commits is switched between slices.
NOOP = SimpleTask(payload.noop)


def register_tasks() -> None:
    """Register what the jobs run."""
    register = getGlobalSiteManager().registerUtility
    register(NOOP, ITask, name="noop")
    register(SimpleTask(payload.nap), ITask, name="nap")


def scratch_directory() -> Path:
    """Make a directory on the disk that is measured."""
    return Path(tempfile.mkdtemp(prefix="benchmark-", dir=os.environ.get("BENCHMARK_DIRECTORY")))


class Place:
    """A database with a service at ``root["tasks"]``, and this thread's connection to it."""

    def __init__(self, path: Path | None = None) -> None:
        self.directory = scratch_directory() if path is None else path
        self.db = self._open()
        self.connection = self.db.open()
        self.root = self.connection.root()
        if "tasks" not in self.root:
            self.renew()

    def renew(self) -> None:
        """Put a new service in the place of the one before."""
        self.root["tasks"] = self._make_service()
        transaction.commit()

    def _make_service(self) -> Any:
        return TaskService()

    def add(self) -> None:
        """Add a job."""
        self.service.add("noop", 1)

    def add_many(self, count: int) -> None:
        """Add jobs."""
        self.service.add_many("noop", [1] * count)

    def start(self) -> None:
        """Start the thread of the service, if it does not run."""
        transaction.begin()
        if not self.service.isProcessing():
            self.service.startProcessing()

    def stop(self) -> None:
        """Stop the thread of the service, and wait for it."""
        self.service.stopProcessing(10.0)

    def rest(self) -> None:
        """End its threads, which wait at the gate: they are not to disturb what follows."""
        transaction.begin()
        payload.board().open_gate()
        self.stop()
        payload.board().close_gate()

    def _open(self) -> Any:
        return ZODB.DB(str(self.directory / "Data.fs"), pool_size=POOL)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Give the database as another process would have it."""
        yield self.db  # a file belongs to one process

    @property
    def service(self) -> Any:
        """The service, as this thread sees it."""
        return self.root["tasks"]

    def fill(self, count: int, chunk: int = 2000) -> None:
        """Add so many jobs, in commits of some thousands."""
        while count > 0:
            # The worker, on its way to the gate, may take used up segments out of the line.
            for attempt in transaction.manager.attempts(10):
                with attempt:
                    self.add_many(min(count, chunk))
            count -= chunk
        self.connection.cacheMinimize()

    def waiting(self) -> int:
        """Return how many jobs wait."""
        transaction.begin()
        return len(self.service.queue)

    def release(self) -> None:
        """Close the database, but keep its file."""
        transaction.abort()
        payload.board().open_gate()
        self.stop()
        transaction.abort()
        self.connection.close()
        self.db.close()

    def close(self) -> None:
        """Close the database and remove it."""
        self.release()
        shutil.rmtree(self.directory, ignore_errors=True)


class ChosenPlace(Place):
    """A place whose jobs have one of three priorities, and one of a thousand locks."""

    def __init__(self, path: Path | None = None) -> None:
        self._numbers = itertools.count()
        super().__init__(path)

    def add(self) -> None:
        """See `Place`."""
        number = next(self._numbers)
        self.service.add("noop", 1, priority=number % 3 - 1, lock=f"lock {number % 1000}")

    def add_many(self, count: int) -> None:
        """See `Place`."""
        for _ in range(count):
            self.add()


class NoopJob(Job):
    """What `NOOP` is, as a job."""

    def __call__(self, processor: Any) -> None:
        payload.noop(self.input)


class RemotePlace(Place):
    """A place with a remote processor."""

    def _make_service(self) -> Any:
        processor = RemoteProcessor()
        processor.addJobFactory("noop", NoopJob())
        return processor

    def add(self) -> None:
        """See `Place`."""
        self.service.addJob("noop", 1)

    def add_many(self, count: int) -> None:
        """See `Place`."""
        for _ in range(count):
            self.add()

    def start(self) -> None:
        """See `Place`."""
        transaction.begin()
        self.service.startProcessor()

    def stop(self) -> None:
        """See `Place`."""
        self.service.stopProcessor()
        registry.stop_all(10.0)


class ZeoPlace(Place):
    """A place on a ZEO server of its own.

    :ivar uri: what a `Worker` takes.
    """

    def __init__(self) -> None:
        try:
            import ZEO  # noqa: F401
        except ImportError:
            raise Unavailable("ZEO is not installed", "pip install ZEO") from None
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = ("127.0.0.1", probe.getsockname()[1])
        self.uri = f"{self.address[0]}:{self.address[1]}"
        super().__init__()

    @property
    def command_uri(self) -> str:
        """What the command calls it."""
        return f"zeo://{self.address[0]}:{self.address[1]}"

    def _open(self) -> Any:
        configuration = self.directory / "zeo.conf"
        configuration.write_text(
            f"<zeo>\n  address {self.address[0]}:{self.address[1]}\n</zeo>\n"
            f"<filestorage>\n  path {self.directory / 'Data.fs'}\n</filestorage>\n"
        )
        with (self.directory / "zeo.log").open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "ZEO.runzeo", "-C", str(configuration)],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        return open_zeo(self.uri)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """See `Place`."""
        with closing(open_zeo(self.uri)) as db:
            yield db

    def server_seconds(self) -> dict[int, float]:
        """Return how much time of a core the server has used, by the id of the process."""
        return {self._server.pid: processor_seconds_of(self._server.pid)}

    def release(self) -> None:
        """See `Place`."""
        super().release()
        end(self._server)


class PostgresPlace(Place):
    """A place on RelStorage, in a PostgreSQL database of its own.

    :ivar uri: what a `Worker` takes.
    """

    def __init__(self) -> None:
        try:
            import psycopg2.extensions
            import relstorage  # noqa: F401
        except ImportError:
            raise Unavailable(
                "RelStorage is not installed", "pip install RelStorage psycopg2-binary"
            ) from None
        self.database = f"benchmark_{uuid.uuid4().hex}"
        self.uri = f"postgresql:{psycopg2.extensions.make_dsn(POSTGRES_DSN, dbname=self.database)}"
        try:
            self._administer(f"CREATE DATABASE {self.database}")
        except psycopg2.OperationalError:
            raise Unavailable(
                "no PostgreSQL server takes us",
                "export REMOTETASK_POSTGRES_DSN='host=... dbname=postgres user=...'",
            ) from None
        super().__init__()

    @property
    def command_uri(self) -> str:
        """What the command calls it."""
        from psycopg2.extensions import parse_dsn

        known = parse_dsn(POSTGRES_DSN) | {"dbname": self.database, "keep_history": "0"}
        return f"postgresql:///{known.pop('dbname')}?{urlencode(known)}"

    def _administer(self, statement: str) -> None:
        import psycopg2

        with closing(psycopg2.connect(POSTGRES_DSN)) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)

    def _open(self) -> Any:
        return open_relstorage(self.uri)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """See `Place`."""
        with closing(self._open()) as db:
            yield db

    def server_seconds(self) -> dict[int, float]:
        """Return how much time of a core each session has used, by the id of its process."""
        pids = query_postgres(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = %s",
            self.database,
            "client backend",
        )
        return {pid: processor_seconds_of(pid) for (pid,) in pids}

    def release(self) -> None:
        """See `Place`."""
        super().release()
        self._administer(f"DROP DATABASE {self.database} WITH (FORCE)")


def open_zeo(uri: str) -> Any:
    """Open the database of a `ZeoPlace`, in this process or in another."""
    from ZEO.ClientStorage import ClientStorage

    # A client that connects while others commit logs an error, and goes on.
    logging.getLogger("ZEO").addHandler(logging.NullHandler())
    host, _, port = uri.rpartition(":")
    return ZODB.DB(ClientStorage((host, int(port)), wait_timeout=30), pool_size=POOL)


def open_relstorage(uri: str) -> Any:
    """Open the database of a `PostgresPlace`, in this process or in another."""
    from relstorage.adapters.postgresql import PostgreSQLAdapter
    from relstorage.options import Options
    from relstorage.storage import RelStorage

    options = Options(keep_history=False)
    adapter = PostgreSQLAdapter(uri.partition(":")[2], options=options)
    return ZODB.DB(RelStorage(adapter, options=options), pool_size=POOL)


def query_postgres(query: str, *values: object) -> list[Any]:
    """Ask the server of PostgreSQL; through a database that is not measured."""
    import psycopg2

    with closing(psycopg2.connect(POSTGRES_DSN)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(query, values)
        return list(cursor.fetchall())


class ThreadsPlace(Place):
    """A place whose service has several threads for its jobs.

    :param threads: 0 for the thread of the service itself.
    :param seconds: how long a job takes, without using the processor.
    """

    def __init__(self, threads: int, seconds: float) -> None:
        self._threads = threads
        self._seconds = seconds
        super().__init__()

    def _make_service(self) -> Any:
        service = TaskService()
        if self._threads:
            service.processorFactory = MultiProcessor
            service.processorArguments = {"waitTime": 1.0, "maxThreads": self._threads}
        return service

    def add_many(self, count: int) -> None:
        """See `Place`."""
        if self._seconds:
            self.service.add_many("nap", [self._seconds] * count)
        else:
            super().add_many(count)


def wait_until_filed(place: Place, count: int, seconds: float = 30.0) -> None:
    """Wait until so many jobs have ended."""
    limit = time.monotonic() + seconds
    while True:
        transaction.begin()
        if place.service.countJobs()["completed"] >= count:
            return
        if time.monotonic() > limit:
            raise TimeoutError(f"{place.service.countJobs()}")
        time.sleep(0.002)
