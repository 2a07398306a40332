# SPDX-License-Identifier: ZPL-2.1
"""What all tests share: a clean world for each of them, databases, and real servers."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import transaction
import ZODB
import zope.component
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from zope.testing import cleanup

# A deadline for an example is a timing assert: it fails on a busy machine.
hypothesis.settings.register_profile("remotetask", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.load_profile("remotetask")

THREAD_PREFIX = "remotetasks."
SECONDS_TO_END = 5.0  # for a thread or a server that has been told to stop
SECONDS_TO_START = 30.0  # for a server


# -- a clean world ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def clean_world() -> Iterator[None]:
    """Put back the component registry after every test, and let no thread survive it.

    A test starts with what the imports registered: a ``@task`` at the top of a test module
    is there in each of its tests.
    """
    registered = _registrations()
    threads_before = set(threading.enumerate())
    yield
    transaction.abort()
    survivors = _surviving_threads(threads_before)
    _restore(registered)
    if survivors:
        pytest.fail(f"the test left threads behind: {', '.join(sorted(survivors))}")


@pytest.fixture
def empty_registry(clean_world: None) -> None:
    """Take out of the global component registry even what the imports registered."""
    cleanup.cleanUp()


def _surviving_threads(threads_before: set[threading.Thread]) -> list[str]:
    """Name the threads that a test started, and that do not end by themselves soon."""
    survivors = []
    for thread in set(threading.enumerate()) - threads_before:
        if thread.name.startswith(THREAD_PREFIX):
            thread.join(SECONDS_TO_END)
            if thread.is_alive():
                survivors.append(thread.name)
    return survivors


def _registrations() -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    registry = zope.component.getGlobalSiteManager()
    return [
        *(
            (registry.registerUtility, (entry.component, entry.provided, entry.name, entry.info))
            for entry in registry.registeredUtilities()
        ),
        *(
            (
                registry.registerAdapter,
                (entry.factory, entry.required, entry.provided, entry.name, entry.info),
            )
            for entry in registry.registeredAdapters()
        ),
        *(
            (
                registry.registerSubscriptionAdapter,
                (entry.factory, entry.required, entry.provided, entry.name, entry.info),
            )
            for entry in registry.registeredSubscriptionAdapters()
        ),
        *(
            (registry.registerHandler, (entry.factory, entry.required, entry.name, entry.info))
            for entry in registry.registeredHandlers()
        ),
    ]


def _restore(registered: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> None:
    cleanup.cleanUp()
    for register, arguments in registered:
        register(*arguments, event=False)


# -- what a machine may lack -----------------------------------------------------------------


@pytest.fixture(scope="session")
def need() -> Callable[[object, str, str], None]:
    """Return ``need(condition, reason, command)``, which skips a test that cannot run here.

    The message names the command that would make it run.  Where ``REMOTETASK_REQUIRE_ALL=1``
    is set, as in continuous integration, the test fails instead: nothing is left out unseen.
    """

    def need(condition: object, reason: str, command: str) -> None:
        if condition:
            return
        message = f"{reason} (to run this test: {command})"
        if os.environ.get("REMOTETASK_REQUIRE_ALL") == "1":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)

    return need


# -- databases -------------------------------------------------------------------------------


@contextmanager
def _open_database(storage: Any) -> Iterator[ZODB.DB]:
    database = ZODB.DB(storage)
    try:
        yield database
    finally:
        # A connection that still has changes cannot be closed with the database.
        transaction.abort()
        database.close()


@pytest.fixture
def db() -> Iterator[ZODB.DB]:
    """A database in memory, whose storage resolves conflicts as a real one does."""
    with _open_database(DemoStorage()) as database:
        yield database


@pytest.fixture
def file_db(tmp_path: Path) -> Iterator[ZODB.DB]:
    """A database in a file, ``Data.fs`` in the test's own folder."""
    with _open_database(FileStorage(str(tmp_path / "Data.fs"))) as database:
        yield database


# -- a ZEO server ----------------------------------------------------------------------------


class ZeoServer:
    """A ZEO server in a process of its own, with a FileStorage.

    - ``address``: (host, port) for clients; it stays the same when the server starts again
    - ``process``: the running server, or None
    """

    def __init__(self, directory: Path, *, client_conflict_resolution: bool = False) -> None:
        self.directory = directory
        self.client_conflict_resolution = client_conflict_resolution
        self.address = ("127.0.0.1", _free_port())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return as soon as it takes connections."""
        configuration = self.directory / "zeo.conf"
        configuration.write_text(
            f"<zeo>\n"
            f"  address {self.address[0]}:{self.address[1]}\n"
            f"  client-conflict-resolution {str(self.client_conflict_resolution).lower()}\n"
            f"</zeo>\n"
            f"<filestorage>\n"
            f"  path {self.directory / 'Data.fs'}\n"
            f"</filestorage>\n"
        )
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ZEO.runzeo", "-C", str(configuration)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while not _takes_connections(self.address):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the ZEO server did not start:\n{self._log.read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask the server to end, and make it end if it does not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def _log(self) -> Path:
        return self.directory / "zeo.log"


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _takes_connections(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def zeo_server(tmp_path: Path) -> Iterator[Callable[..., ZeoServer]]:
    """Return a function that starts a `ZeoServer`; its keywords are those of the class."""
    servers: list[ZeoServer] = []

    def start(**options: Any) -> ZeoServer:
        directory = tmp_path / f"zeo-{len(servers)}"
        directory.mkdir()
        server = ZeoServer(directory, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def zeo(zeo_server: Callable[..., ZeoServer]) -> tuple[str, int]:
    """The address of a running ZEO server."""
    return zeo_server().address


# -- PostgreSQL ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server(need: Callable[[object, str, str], None]) -> str:
    """The DSN of a PostgreSQL server where databases may be made.

    It is ``REMOTETASK_POSTGRES_DSN``, or else a server on this machine that trusts the user
    who runs the tests.
    """
    need(find_spec("psycopg2"), "psycopg2 is not installed", "pip install psycopg2-binary")
    given = os.environ.get("REMOTETASK_POSTGRES_DSN")
    places = ("/var/run/postgresql", "/tmp", "127.0.0.1")
    candidates = [given] if given else [f"host={place} dbname=postgres" for place in places]
    answering = [dsn for dsn in candidates if _postgres_answers(dsn)]
    need(
        answering,
        f"no PostgreSQL server takes us at {' or '.join(candidates)}",
        "export REMOTETASK_POSTGRES_DSN='host=... dbname=postgres user=...'",
    )
    return answering[0]


@pytest.fixture
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """The DSN of a new, empty PostgreSQL database, which is dropped after the test."""
    from psycopg2.extensions import make_dsn

    name = f"remotetask_test_{uuid.uuid4().hex}"
    _administer_postgres(postgres_server, f"CREATE DATABASE {name}")
    try:
        yield make_dsn(postgres_server, dbname=name)
    finally:
        # A test that failed, or killed its processes, may have left connections open.
        _administer_postgres(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def _postgres_answers(dsn: str) -> bool:
    import psycopg2

    try:
        psycopg2.connect(dsn, connect_timeout=5).close()
    except psycopg2.OperationalError:
        return False
    return True


def _administer_postgres(dsn: str, statement: str) -> None:
    import psycopg2

    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True  # databases are not made inside a transaction
        with connection.cursor() as cursor:
            cursor.execute(statement)


# -- options ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the size of the acceptance tests; pytest reads options here or in no conftest."""
    parser.addoption(
        "--jobs",
        type=int,
        default=150,
        metavar="N",
        help="how many jobs each acceptance test adds (default: %(default)s)",
    )
    parser.addoption(
        "--restarts",
        type=int,
        default=6,
        metavar="N",
        help="how often a ZEO server is restarted under its clients (default: %(default)s)",
    )


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """Put back the levels that the command sets, where a test calls it in this process."""
    loggers = [logging.getLogger(name) for name in ("lovely.remotetask", "remotetask.job")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
