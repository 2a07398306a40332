# SPDX-License-Identifier: ZPL-2.1
"""What all tests share: a clean world for each, databases, services, and commits that fail."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from zope.component import getGlobalSiteManager
from zope.testing import cleanup

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.session import Session
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.task import SimpleTask
from servers import ZeoServer, administer_postgres, mongo_server, open_postgres, postgres_answers
from workplace import PATIENCE_SECONDS, Workplace, wait_until

pytest_plugins = ["storages", "figures"]

# A deadline for an example is a timing assert: it fails on a busy machine.
hypothesis.settings.register_profile("remotetask", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.load_profile("remotetask")

THREAD_PREFIX = "remotetasks."
SECONDS_TO_END = 5.0  # for a thread that has been told to stop


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Let no garbage collection look at what stays: modules, all the tests, what they have said."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let Python end as it does elsewhere: what was frozen would outlive its modules."""
    gc.unfreeze()


# -- a clean world ---------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def heeded_signals() -> None:
    """Let processes of tests heed what a shell lets all ignore that it runs in the background."""
    for name in ("SIGINT", "SIGQUIT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, default)


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

    The message names the command that would make it run.
    """

    def need(condition: object, reason: str, command: str) -> None:
        if not condition:
            pytest.skip(f"{reason} (to run this test: {command})")

    return need


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """See `_as_required`."""
    return _as_required((yield))


def _as_required(report: Any) -> Any:
    """Let what is skipped fail where ``REMOTETASK_REQUIRE_ALL=1`` is set.

    So it is in continuous integration: nothing is left out unseen.
    """
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    if is_skipped and os.environ.get("REMOTETASK_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = report.longrepr[2]
    return report


# -- databases -------------------------------------------------------------------------------


@contextmanager
def _closing(database: ZODB.DB) -> Iterator[ZODB.DB]:
    try:
        yield database
    finally:
        # A connection that still has changes cannot be closed with the database.
        transaction.abort()
        database.close()


@pytest.fixture
def db() -> Iterator[ZODB.DB]:
    """A database in memory, whose storage resolves conflicts as a real one does."""
    with _closing(ZODB.DB(DemoStorage())) as database:
        yield database


@pytest.fixture
def file_db(tmp_path: Path) -> Iterator[ZODB.DB]:
    """A database in a file, ``Data.fs`` in the test's own folder."""
    with _closing(ZODB.DB(FileStorage(str(tmp_path / "Data.fs")))) as database:
        yield database


# -- databases on servers --------------------------------------------------------------------


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
    answering = [dsn for dsn in candidates if postgres_answers(dsn)]
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
    administer_postgres(postgres_server, f"CREATE DATABASE {name}")
    try:
        yield make_dsn(postgres_server, dbname=name)
    finally:
        # A test that failed, or killed its processes, may have left connections open.
        administer_postgres(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def relstorage(need: Callable[[object, str, str], None]) -> None:
    """RelStorage, which keeps databases in SQL."""
    command = "pip install 'lovely.remotetask[relstorage]'"
    need(find_spec("relstorage"), "RelStorage is not installed", command)


@pytest.fixture
def postgres_db(postgres_dsn: str, relstorage: None) -> Iterator[ZODB.DB]:
    """A database in PostgreSQL, whose objects are not kept on this side."""
    with _closing(open_postgres(postgres_dsn, cache_local_mb=0)) as database:
        yield database


@pytest.fixture(scope="session")
def mongo_uri(
    need: Callable[[object, str, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URI of a server that speaks MongoDB's protocol; see `mongo_server`."""
    need(find_spec("pymongo"), "pymongo is not installed", "pip install 'lovely.remotetask[mongo]'")
    need(
        os.environ.get("REMOTETASK_MONGO_URI") or find_spec("secantus"),
        "there is no MongoDB server",
        "pip install --pre secantusdb==0.7.0b3, or export REMOTETASK_MONGO_URI='mongodb://...'",
    )
    with mongo_server(tmp_path_factory.mktemp("mongo")) as uri:
        yield uri


@pytest.fixture
def mongo_database(mongo_uri: str) -> Iterator[Any]:
    """A new, empty database, which is dropped after the test; its client knows no time zones."""
    import pymongo

    name = f"remotetask_test_{uuid.uuid4().hex[:12]}"
    with pymongo.MongoClient(mongo_uri) as client:
        yield client[name]
        transaction.abort()
        client.drop_database(name)


# -- services and their tasks ----------------------------------------------------------------


@pytest.fixture
def register() -> Callable[..., SimpleTask]:
    """Return ``register(name, function, **options)``, which makes a task of a function."""

    def register(name: str, function: Callable[..., Any], **options: Any) -> SimpleTask:
        task = SimpleTask(function, **options)
        getGlobalSiteManager().registerUtility(task, ITask, name=name)
        return task

    return register


@pytest.fixture
def until() -> Callable[..., None]:
    """Return `wait_until`."""
    return wait_until


@pytest.fixture
def make_workplace(
    register: Callable[..., SimpleTask],
) -> Iterator[Callable[[ZODB.DB], Workplace]]:
    """Return a function that makes a workplace of a database; its threads end with the test."""
    workplaces = []

    def make(db: ZODB.DB) -> Workplace:
        workplace = Workplace(db)
        workplaces.append(workplace)
        register("echo", lambda input: input)
        register("hang", workplace.hang)
        return workplace

    yield make
    for workplace in workplaces:
        workplace.gate.set()
    assert registry.stop_all(PATIENCE_SECONDS)


@pytest.fixture
def workplace(db: ZODB.DB, make_workplace: Callable[[ZODB.DB], Workplace]) -> Workplace:
    """A workplace in memory."""
    return make_workplace(db)


@pytest.fixture
def file_workplace(file_db: ZODB.DB, make_workplace: Callable[[ZODB.DB], Workplace]) -> Workplace:
    """A workplace in a file."""
    return make_workplace(file_db)


# -- commits that fail -----------------------------------------------------------------------


@pytest.fixture
def fail_commits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[BaseException]]:
    """Return ``fail_commits(*errors)``: the next commits of all sessions raise these."""

    def fail_commits(*errors: BaseException) -> list[BaseException]:
        waiting = list(errors)
        commit = Session.commit

        def failing(session: Session) -> None:
            if not waiting:
                return commit(session)
            session.in_commit = True
            raise waiting.pop(0)

        monkeypatch.setattr(Session, "commit", failing)
        return waiting

    return fail_commits


@pytest.fixture
def lose_the_reply(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return ``lose_the_reply(*errors)``: the next commits come to pass, and raise these.

    So it seems when the server dies in its last word, which is the default.
    """
    commit = Session.commit
    lost: list[BaseException] = []

    def commit_and_lose(session: Session) -> None:
        commit(session)
        if lost:
            raise lost.pop(0)

    def lose_the_reply(*errors: BaseException) -> None:
        lost.extend(errors or [ConnectionResetError("the server has gone")])

    monkeypatch.setattr(Session, "commit", commit_and_lose)
    return lose_the_reply


# -- what is told --------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Let what a test has logged go from a process to another one, whatever its characters are."""
    report = yield
    report.sections = [
        (head, text.encode(errors="backslashreplace").decode()) for head, text in report.sections
    ]
    return _as_required(report)


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
