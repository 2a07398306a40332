# SPDX-License-Identifier: ZPL-2.1
"""Databases that the command opens by URI: several in one configuration file, and PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import quote

import pytest
import ZODB.config
from persistent.mapping import PersistentMapping

from lovely.remotetask import TaskService
from lovely.remotetask.command.database import close_database, open_database
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from servers import open_postgres, postgres_uri

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli"]
SECONDS = 30  # within which a command must have ended

SHOP = """
    from pathlib import Path
    from lovely.remotetask.task import task

    @task("count", context=True)
    def count(context, product):
        stock = context.service._p_jar.get_connection("stock").root()
        stock["count"] = product["count"] + 1
        Path("counted").touch()
"""

CONFIGURATION = """
<zodb main>
  <filestorage>
    path {0}/main.fs
  </filestorage>
</zodb>
<zodb>
  database-name stock
  <filestorage>
    path {0}/stock.fs
  </filestorage>
</zodb>
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with two databases; a job of one has an input that is in the other."""
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    (tmp_path / "zodb.conf").write_text(CONFIGURATION.format(tmp_path))
    database: Any = ZODB.config.databaseFromURL(str(tmp_path / "zodb.conf"))
    with database.transaction() as connection:
        stock = connection.get_connection("stock")
        product = stock.root()["product"] = PersistentMapping(count=41)
        stock.add(product)
        connection.root()["tasks"] = service = TaskService()
        connection.add(service)
        stock.root()["mail"] = mail = TaskService()
        stock.add(mail)
    close_database(database)
    code = """
        import shop, ZODB.config
        database = ZODB.config.databaseFromURL("zodb.conf")
        with database.transaction() as connection:
            stock = connection.get_connection("stock").root()
            connection.root()["tasks"].add("count", stock["product"])
    """
    subprocess.run([sys.executable, "-c", dedent(code)], cwd=tmp_path, check=True, timeout=SECONDS)
    return tmp_path


# -- any URI ---------------------------------------------------------------------------------


def test_the_command_that_installs_zodburi_is_told(
    tmp_path: Path, remotetask: Any, error_of: Any, without: Any
) -> None:
    path = without("zodburi")
    ended = remotetask("run", "memory://", cwd=tmp_path, PYTHONPATH=path)
    assert "pip install 'lovely.remotetask[cli]'" in error_of(ended, 1)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://shop:secret@127.0.0.1:1/shop", "postgresql://shop:***@127.0.0.1:1/shop"),
        ("zeo://h:x?username=shop&password=secret", "zeo://h:x?username=shop&password=***"),
    ],
)
def test_passwords_are_not_shown(tmp_path: Path, uri: str, shown: str, remotetask: Any) -> None:
    ended = remotetask("run", uri, cwd=tmp_path)
    assert ended.returncode in (1, 2)
    assert shown in ended.stderr
    assert "secret" not in ended.stderr


# -- several in one file -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "#main"])
def test_jobs_that_need_another_database_of_the_file_are_run(
    shop: Path, name: str, until: Callable[..., None]
) -> None:
    with subprocess.Popen(
        [*COMMAND, "run", f"zconfig://{shop}/zodb.conf{name}", "--import", "shop"], cwd=shop
    ) as process:
        try:
            until((shop / "counted").exists, "the job")
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    database = open_database(f"zconfig://{shop}/zodb.conf")
    with database.transaction() as connection:
        assert connection.get_connection("stock").root()["count"] == 42
        assert connection.root()["tasks"].countJobs()["completed"] == 1
    close_database(database)


def test_the_other_commands_open_all_of_them_too(shop: Path, remotetask: Any) -> None:
    ended = remotetask("check", f"zconfig://{shop}/zodb.conf", "--import", "shop", cwd=shop)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "1 service(s) checked" in ended.stdout


def test_a_name_says_which_of_them_has_the_services(shop: Path, remotetask: Any) -> None:
    uri = f"zconfig://{shop}/zodb.conf#stock"
    ended = remotetask("check", uri, "--service", "@mail", cwd=shop)
    assert ended.returncode == 0, ended.stderr


def test_a_name_that_none_of_them_has_is_told(shop: Path, remotetask: Any, error_of: Any) -> None:
    line = error_of(remotetask("run", f"zconfig://{shop}/zodb.conf#sales", cwd=shop), 2)
    assert "there is no database 'sales'" in line
    assert "'main', 'stock'" in line


def test_databases_without_names_of_their_own_are_refused(
    shop: Path, remotetask: Any, error_of: Any
) -> None:
    text = CONFIGURATION.format(shop).replace("<zodb main>", "<zodb stock>")
    (shop / "zodb.conf").write_text(text)
    ended = remotetask("run", f"zconfig://{shop}/zodb.conf", cwd=shop)
    assert "need names of their own" in error_of(ended, 2)


def test_a_storage_by_itself_is_still_opened(tmp_path: Path) -> None:
    (tmp_path / "zodb.conf").write_text("<mappingstorage alone>\n</mappingstorage>\n")
    for name in ("", "#alone"):
        database = open_database(f"zconfig://{tmp_path}/zodb.conf{name}")
        assert database.databases == {"unnamed": database}
        close_database(database)


def test_a_file_that_is_not_there_or_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(RemoteTaskError, match="there is no file"):
        open_database(f"zconfig://{tmp_path}/zodb.conf")
    (tmp_path / "zodb.conf").write_text("<zodb>\n")
    with pytest.raises(InvalidArgument, match="is malformed"):
        open_database(f"zconfig://{tmp_path}/zodb.conf")


def test_if_one_of_them_cannot_be_opened_none_stays_open(shop: Path) -> None:
    database = ZODB.DB(str(shop / "stock.fs"))
    with pytest.raises(RemoteTaskError, match="is in use by another process"):
        open_database(f"zconfig://{shop}/zodb.conf")
    ZODB.DB(str(shop / "main.fs")).close()
    database.close()


def test_a_database_that_is_opened_alone_tells_what_its_jobs_lack(
    shop: Path, remotetask: Any
) -> None:
    ended = remotetask("check", f"file://{shop}/main.fs", "--import", "shop", cwd=shop)
    assert ended.returncode == 1
    assert "it refers to the database 'stock', which is not open here" in ended.stdout


# -- PostgreSQL --------------------------------------------------------------------------------


@pytest.fixture
def dsn_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, dict[str, Any]]]:
    """Return a function that returns what a URI asks of PostgreSQL, and of the database."""
    adapters = pytest.importorskip("relstorage.adapters.postgresql")

    class Asked(Exception):
        """Instead of a connection."""

    def adapter(dsn: str, options: Any) -> Any:
        raise Asked(dsn, {"keep_history": options.keep_history})

    monkeypatch.setattr(adapters, "PostgreSQLAdapter", adapter)

    def dsn_of(uri: str) -> tuple[str, dict[str, Any]]:
        with pytest.raises(RemoteTaskError) as caught:
            open_database(uri)
        assert isinstance(caught.value.__cause__, Asked)
        return caught.value.__cause__.args

    return dsn_of


@pytest.mark.parametrize(
    ("uri", "dsn"),
    [
        ("postgresql://user@host/name", "dbname='name' user='user' host='host'"),
        ("postgres://host/name", "dbname='name' host='host'"),
        ("postgresql:///name", "dbname='name'"),
        ("postgresql://", ""),
        (
            "postgresql://user:pass@host:5433/name",
            "dbname='name' user='user' password='pass' host='host' port='5433'",
        ),
        ("postgresql:///name?host=/tmp&port=5433", "dbname='name' host='/tmp' port='5433'"),
        (
            "postgresql://user:a%40b%27c%5C@host/name?sslmode=require&connect_timeout=3",
            "dbname='name' user='user' password='a@b\\'c\\\\' host='host' connect_timeout='3'"
            " sslmode='require'",
        ),
    ],
)
def test_what_a_uri_does_not_say_is_left_to_postgresql(dsn_of: Any, uri: str, dsn: str) -> None:
    assert dsn_of(uri)[0] == dsn
    from psycopg2.extensions import parse_dsn

    assert "None" not in parse_dsn(dsn).values()


def test_the_options_of_relstorage_are_not_given_to_postgresql(dsn_of: Any) -> None:
    dsn, options = dsn_of("postgresql://host/name?keep_history=0&connection_pool_size=3")
    assert dsn == "dbname='name' host='host'"
    assert options == {"keep_history": False}


def test_options_that_nobody_knows_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="color"):
        open_database("postgresql://host/name?color=red")


def test_a_database_is_opened_by_a_uri_with_an_empty_place(
    postgres_dsn: str, tmp_path: Path, remotetask: Any
) -> None:
    import psycopg2

    with closing(psycopg2.connect(postgres_dsn)) as connection:
        known = connection.info
        user = f"{known.user}:{quote(known.password)}" if known.password else known.user
        uri = f"postgresql://{user}@/{known.dbname}?host={known.host}&port={known.port}"
    uri += "&keep_history=0&connection_pool_size=3"
    open_postgres(postgres_dsn).close()
    database = open_database(uri)
    assert database.getPoolSize() == 3
    with database.transaction() as connection:
        connection.root()["tasks"] = TaskService()
    close_database(database)
    ended = remotetask("check", uri, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_postgresql_is_known_by_its_usual_name(
    tmp_path: Path, postgres_dsn: str, need: Callable[[object, str, str], None], remotetask: Any
) -> None:
    uri = postgres_uri(postgres_dsn)
    need(uri, "no PostgreSQL server on 127.0.0.1 takes us", "pg_ctlcluster 15 main start")
    open_postgres(postgres_dsn).close()
    ended = remotetask("run", f"{uri}?keep_history=0", cwd=tmp_path)
    assert ended.returncode == 1
    assert "no service" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_database_of_something_else_is_left_as_it_is(
    tmp_path: Path,
    postgres_dsn: str,
    need: Callable[[object, str, str], None],
    remotetask: Any,
    verb: str,
) -> None:
    import psycopg2

    uri = postgres_uri(postgres_dsn)
    need(uri, "no PostgreSQL server on 127.0.0.1 takes us", "pg_ctlcluster 15 main start")
    ended = remotetask(verb, uri, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert " cannot be opened: RelStorage has stored nothing in it; to make" in line
    assert ": remotetask init 'postgresql://" in line
    with closing(psycopg2.connect(postgres_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone() == (0,)


def test_no_configuration_makes_a_database(tmp_path: Path, remotetask: Any, error_of: Any) -> None:
    text = CONFIGURATION.format(tmp_path)
    (tmp_path / "zodb.conf").write_text(text)
    uri = f"zconfig://{tmp_path}/zodb.conf"
    assert f"no database file {tmp_path}/main.fs" in error_of(
        remotetask("status", uri, cwd=tmp_path), 1
    )
    assert not list(tmp_path.glob("*.fs"))
    assert remotetask("init", uri, cwd=tmp_path).returncode == 0
    assert remotetask("status", uri, cwd=tmp_path).returncode == 0


def test_sqlite_is_not_made_either(tmp_path: Path, remotetask: Any, error_of: Any) -> None:
    pytest.importorskip("relstorage")
    (tmp_path / "zodb.conf").write_text(LITE.format(tmp_path))
    for uri in (f"sqlite:///?data_dir={tmp_path}/lite", f"zconfig://{tmp_path}/zodb.conf"):
        line = error_of(remotetask("status", uri, cwd=tmp_path), 1)
        assert "there is no database of SQLite; to make a database there: " in line
        assert not (tmp_path / "lite").exists()


LITE = """
%import relstorage
<zodb>
  <relstorage>
    <sqlite3>
      data-dir {0}/lite
    </sqlite3>
  </relstorage>
</zodb>
"""


@pytest.mark.parametrize("kept", [0, 1])
def test_tables_of_the_other_kind_of_history_are_left_as_they_are(
    tmp_path: Path,
    postgres_dsn: str,
    need: Callable[[object, str, str], None],
    remotetask: Any,
    error_of: Any,
    kept: int,
) -> None:
    uri = postgres_uri(postgres_dsn)
    need(uri, "no PostgreSQL server on 127.0.0.1 takes us", "pg_ctlcluster 15 main start")
    open_postgres(postgres_dsn, keep_history=bool(kept)).close()
    tables = tables_of(postgres_dsn)
    for verb in ("status", "init"):
        line = error_of(remotetask(verb, f"{uri}?keep_history={1 - kept}", cwd=tmp_path), 2)
        assert f", so keep_history={kept} belongs into the URI" in line
    assert tables_of(postgres_dsn) == tables


def tables_of(dsn: str) -> list[tuple[str]]:
    import psycopg2

    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        found: list[tuple[str]] = cursor.fetchall()
        return found


def test_the_history_of_sqlite_is_looked_at_too(
    tmp_path: Path, remotetask: Any, error_of: Any
) -> None:
    pytest.importorskip("relstorage")
    uri = f"sqlite:///?data_dir={tmp_path}/lite"
    assert remotetask("init", f"{uri}&keep_history=0", cwd=tmp_path).returncode == 0
    line = error_of(remotetask("status", uri, cwd=tmp_path), 2)
    assert "its tables keep no history, so keep_history=0 belongs into the URI" in line
