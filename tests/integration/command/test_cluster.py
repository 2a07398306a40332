# SPDX-License-Identifier: ZPL-2.1
"""The files and steps of the guides for clusters, run with the servers that they are about."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lovely.remotetask.command.database import open_database
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from postgres_server import PostgresServer, postgres_programs, running_postgres
from servers import ZeoServer

DEPLOY = Path(__file__).parents[3] / "docs" / "examples" / "deploy"
SECONDS = 60  # within which a program must have ended

SHOP = """
    from lovely.remotetask.task import task

    @task("note")
    def note(input):
        with open("noted", "a") as file:
            file.write(f"{input}\\n")
"""

Command = Callable[..., subprocess.CompletedProcess[str]]
Started = Callable[..., AbstractContextManager[Any]]


class Shop:
    """A directory with a task that writes down what it was given; its jobs are in a database."""

    def __init__(self, directory: Path, remotetask: Command, started: Started, until: Any) -> None:
        self.directory = directory
        self._remotetask = remotetask
        self._started = started
        self._until = until
        (directory / "shop.py").write_text(dedent(SHOP))

    def tell(self, verb: str, uri: str, *words: str) -> str:
        """Run the command, which must succeed, and return what it says."""
        ended = self._remotetask(verb, uri, *words, cwd=self.directory)
        assert ended.returncode == 0, ended
        return ended.stdout

    def add(self, uri: str, value: int) -> str:
        """Return the id of a job that notes a value."""
        return self.tell("add", uri, "note", "--input", str(value), "--import", "shop").strip()

    def working(self, uri: str) -> AbstractContextManager[Any]:
        return self._started("run", uri, "--import", "shop", cwd=self.directory)

    def work(self, uri: str, *values: int) -> None:
        """Let a worker run what waits, until it has noted these values."""
        with self.working(uri) as worker:
            self.wait_for(*values)
            worker.terminate()
            assert worker.wait(SECONDS) == 0

    def begin(self, uri: str) -> None:
        """Make a service, and let a first job note 1."""
        self.tell("init", uri)
        self.add(uri, 1)
        self.work(uri, 1)

    def wait_for(self, *values: int) -> None:
        self._until(lambda: self.noted == list(values), f"the jobs {values}")

    @property
    def noted(self) -> list[int]:
        path = self.directory / "noted"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def shop(tmp_path: Path, remotetask: Command, started: Started, until: Any) -> Shop:
    return Shop(tmp_path, remotetask, started, until)


def call(*words: object, cwd: Path) -> None:
    subprocess.run(list(map(str, words)), cwd=cwd, check=True, capture_output=True, timeout=SECONDS)


# -- ZEO -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("zeo_leftovers")
def test_the_files_for_a_zeo_server_work_together(tmp_path: Path, shop: Shop) -> None:
    call("sh", DEPLOY / "certificates.sh", "localhost", "worker", cwd=tmp_path)
    server = ZeoServer(tmp_path, text=deployed("zeo.conf", tmp_path))
    (tmp_path / "zodb.conf").write_text(
        deployed("zodb.conf", tmp_path).replace("PORT", str(server.address[1]))
    )
    server.start()
    try:
        uri = f"zconfig://{tmp_path}/zodb.conf"
        shop.begin(uri)
        with pytest.raises(RemoteTaskError, match="no ZEO server lets us in"):
            open_database(f"zeo://localhost:{server.address[1]}?wait_timeout=1")
    finally:
        server.stop()


def test_the_file_for_a_socket_works(tmp_path: Path, shop: Shop) -> None:
    server = ZeoServer(
        tmp_path, text=deployed("zeo-socket.conf", tmp_path), socket_path=tmp_path / "zeo.sock"
    )
    server.start()
    try:
        uri = f"zeo://{tmp_path}/zeo.sock"
        shop.begin(uri)
    finally:
        server.stop()


def deployed(name: str, directory: Path) -> str:
    """Return one of the files to deploy, for a directory of this machine.

    The port is still to be put in, in the place of ``PORT``.
    """
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for place in ("/etc/shop", "/var/lib/zeo", "/run/zeo"):
        text = text.replace(place, str(directory))
    text = text.replace("zeo.internal:8100", "localhost:PORT")
    return text.replace("zeo.internal", "localhost").replace("db.internal", "localhost")


def test_an_older_backup_of_a_file_brings_its_jobs_back(tmp_path: Path, shop: Shop) -> None:
    repozo = (sys.executable, "-m", "ZODB.scripts.repozo")
    file = tmp_path / "Data.fs"
    shop.begin("Data.fs")
    shop.add("Data.fs", 2)
    (tmp_path / "backup").mkdir()
    call(*repozo, "-B", "-r", "backup", "-f", file, cwd=tmp_path)
    shop.work("Data.fs", 1, 2)
    shop.add("Data.fs", 3)
    file.rename(tmp_path / "Data.fs.before")
    for left in ("Data.fs.index", "Data.fs.lock"):
        (tmp_path / left).unlink(missing_ok=True)
    call(*repozo, "-R", "-r", "backup", "-o", file, cwd=tmp_path)
    assert "jobs and indexes agree" in shop.tell("check", "Data.fs", "--import", "shop")
    shop.work("Data.fs", 1, 2, 2)  # the job runs again, and the one that came later is unknown
    assert "jobs and indexes agree" in shop.tell("check", "Data.fs", "--import", "shop")


# -- PostgreSQL ------------------------------------------------------------------------------


@pytest.fixture
def postgres(need: Callable[[object, str, str], None]) -> Iterator[PostgresServer]:
    """A server with the two roles, who come in with certificates."""
    programs = postgres_programs()
    need(programs, "PostgreSQL is not installed", "apt-get install postgresql")
    assert programs is not None
    with running_postgres(programs, DEPLOY, ("shop_owner", "shop_worker")) as server:
        yield server


def test_the_owner_makes_the_tables_and_the_worker_works(
    postgres: PostgresServer, tmp_path: Path, shop: Shop, error_of: Any, remotetask: Command
) -> None:
    worker_uri = postgres.uri("shop_worker", create_schema="0")
    made = shop.tell("init", postgres.uri("shop_owner"))
    assert "made the tables of RelStorage and the service tasks" in made
    shop.add(worker_uri, 1)
    shop.work(worker_uri, 1)

    text = deployed("zodb-postgres.conf", postgres.directory)
    (tmp_path / "zodb.conf").write_text(
        text.replace("host=localhost", f"host=localhost port={postgres.port}")
    )
    by_file = f"zconfig://{tmp_path}/zodb.conf"
    shop.add(by_file, 2)
    shop.work(by_file, 1, 2)

    line = error_of(remotetask("status", postgres.uri("shop_worker"), cwd=tmp_path), 1)
    assert "permission denied for schema public" in line  # RelStorage would see to its tables


def test_postgresql_refuses_who_has_no_certificate(postgres: PostgresServer) -> None:
    place = f"postgresql://shop_worker@localhost:{postgres.port}/shop?keep_history=0"
    for query, told in [
        ("sslmode=disable", "no pg_hba.conf entry for .* no encryption"),
        ("sslmode=require&sslcert=none&sslkey=none", "requires a valid client certificate"),
        (f"sslmode=verify-full&sslrootcert={DEPLOY}/roles.sql", "could not read root certificate"),
    ]:
        with pytest.raises(RemoteTaskError, match=told):
            open_database(f"{place}&{query}")
    foreign = postgres.uri("shop_owner").replace("shop_owner@", "shop_worker@")
    with pytest.raises(RemoteTaskError, match="certificate authentication failed"):
        open_database(foreign)


def test_no_tables_are_made_where_none_may_be(postgres_dsn: str) -> None:
    from psycopg2.extensions import parse_dsn

    known = parse_dsn(postgres_dsn)
    query = "&".join(f"{name}={value}" for name, value in known.items() if name != "dbname")
    uri = f"postgresql:///{known['dbname']}?{query}&create_schema=0"
    with pytest.raises(InvalidArgument, match="with create_schema=0 no tables are made"):
        open_database(uri, is_made=True)


def test_a_worker_goes_on_when_postgresql_was_restarted(
    postgres: PostgresServer, shop: Shop
) -> None:
    uri = postgres.uri("shop_worker", create_schema="0")
    shop.tell("init", postgres.uri("shop_owner"))
    with shop.working(uri) as worker:
        # What is noted is noted again if the commit behind it meets the restart.
        shop.tell("wait", uri, shop.add(uri, 1))
        postgres.restart()
        shop.add(uri, 2)
        shop.wait_for(1, 2)
        worker.terminate()
        assert worker.wait(SECONDS) == 0


def test_an_older_dump_brings_its_jobs_back(
    postgres_dsn: str, tmp_path: Path, shop: Shop, need: Callable[[object, str, str], None]
) -> None:
    from psycopg2.extensions import parse_dsn

    programs = postgres_programs()
    need(programs, "PostgreSQL is not installed", "apt-get install postgresql")
    assert programs is not None
    known = parse_dsn(postgres_dsn)
    query = "&".join(f"{name}={value}" for name, value in known.items() if name != "dbname")
    uri = f"postgresql:///{known['dbname']}?{query}&keep_history=0"
    shop.begin(uri)
    shop.add(uri, 2)
    call(programs / "pg_dump", "-Fc", "-f", "shop.dump", "-d", postgres_dsn, cwd=tmp_path)
    shop.work(uri, 1, 2)
    shop.add(uri, 3)
    restore = ("--clean", "--if-exists", "--single-transaction", "--no-owner")
    call(programs / "pg_restore", *restore, "-d", postgres_dsn, "shop.dump", cwd=tmp_path)
    assert "jobs and indexes agree" in shop.tell("check", uri, "--import", "shop")
    shop.work(uri, 1, 2, 2)
    with closing(open_database(uri)) as database, database.transaction() as connection:
        assert len(connection.root()["tasks"].jobs) == 2
