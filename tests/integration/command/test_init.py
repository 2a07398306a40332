# SPDX-License-Identifier: ZPL-2.1
"""``remotetask init``: services, files and tables that are made because somebody said so."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.remote.processor import RemoteProcessor
from servers import open_postgres, postgres_uri


def test_a_file_and_a_service_are_made_once(tmp_path: Path, remotetask: Any, opened: Any) -> None:
    ended = remotetask("init", "Data.fs", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    made = f"made the file {tmp_path}/Data.fs and the service tasks"
    assert ended.stdout == f"Data.fs: {made}\n"
    size = (tmp_path / "Data.fs").stat().st_size
    again = remotetask("init", "Data.fs", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "Data.fs: all is there already\n")
    assert (tmp_path / "Data.fs").stat().st_size == size
    ended = remotetask("init", "Data.fs", "@mail", "--door", "remote", "--json", cwd=tmp_path)
    told = {"database": "Data.fs", "service": "mail", "made": ["the service mail"]}
    assert json.loads(ended.stdout) == told
    with opened(FileStorage(str(tmp_path / "Data.fs"))) as (root, _):
        assert type(root["tasks"]) is TaskService
        assert type(root["mail"]) is RemoteProcessor


def test_what_is_there_stays(place: Any, error_of: Any) -> None:
    with place.root() as root:
        root["notes"] = [1]
    assert "is a list, and no service" in error_of(place.run("init", "notes"), 1)
    assert "is a TaskService" in error_of(place.run("init", "tasks", "--door", "remote"), 2)
    with place.root() as root:
        assert root["notes"] == [1]


@pytest.mark.parametrize("name", ["", "@", "shop@tasks", "*", "a,b"])
def test_a_name_that_no_pattern_would_find_is_refused(place: Any, name: str) -> None:
    ended = place.run("init", name)
    assert ended.returncode == 2
    assert "is no name for a service of the root" in ended.stderr


def test_a_directory_is_not_made(tmp_path: Path, remotetask: Any, error_of: Any) -> None:
    line = error_of(remotetask("init", "typo/Data.fs", cwd=tmp_path), 1)
    assert f"there is no directory {tmp_path}/typo" in line


def test_no_service_is_put_beside_an_application(place: Any, error_of: Any) -> None:
    with place.root() as root:
        root["Application"] = {}
    assert "registered in sites" in error_of(place.run("init", "mail"), 1)


def test_tables_are_made_too(tmp_path: Path, postgres_dsn: str, need: Any, remotetask: Any) -> None:
    uri = postgres_uri(postgres_dsn)
    need(uri, "no PostgreSQL server on 127.0.0.1 takes us", "pg_ctlcluster 15 main start")
    uri = f"{uri}?keep_history=0"
    ended = remotetask("init", uri, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(": made the tables of RelStorage and the service tasks\n")
    assert remotetask("status", uri, cwd=tmp_path).returncode == 0
    assert "all is there already" in remotetask("init", uri, cwd=tmp_path).stdout


@pytest.fixture
def uri(postgres_dsn: str, need: Any) -> str:
    """The URI of an empty database in PostgreSQL."""
    found = postgres_uri(postgres_dsn)
    need(found, "no PostgreSQL server on 127.0.0.1 takes us", "pg_ctlcluster 15 main start")
    return f"{found}?keep_history=0"


def test_a_trigger_is_made_and_dropped(tmp_path: Path, uri: str, remotetask: Any) -> None:
    ended = remotetask("init", uri, "--notify", cwd=tmp_path)
    made = "the tables of RelStorage and the service tasks and the trigger that wakes idle workers"
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(f": made {made}\n")
    again = remotetask("init", uri, "--notify", cwd=tmp_path)
    assert again.stdout.endswith(": all is there already\n")
    seen = remotetask("uninstall", uri, "--notify", "--dry-run", "--json", cwd=tmp_path)
    told = {"services": [], "places": ["the trigger that wakes idle workers"], "left": None}
    assert json.loads(seen.stdout) == {**told, "removed": False}
    ended = remotetask("uninstall", uri, "--notify", "--json", cwd=tmp_path)
    assert json.loads(ended.stdout) == {**told, "removed": True}
    ended = remotetask("uninstall", uri, "--notify", "--json", cwd=tmp_path)
    assert json.loads(ended.stdout) == {**told, "places": [], "removed": False}
    ended = remotetask("init", uri, "--notify", "--json", cwd=tmp_path)
    assert json.loads(ended.stdout)["made"] == ["the trigger that wakes idle workers"]


def test_two_may_make_the_trigger_at_once(tmp_path: Path, uri: str, remotetask: Any) -> None:
    assert remotetask("init", uri, cwd=tmp_path).returncode == 0
    import psycopg2

    with closing(psycopg2.connect(uri.partition("?")[0])) as writer, ThreadPoolExecutor() as pool:
        writer.cursor().execute("LOCK TABLE object_state IN ROW EXCLUSIVE MODE")
        both = [pool.submit(remotetask, "init", uri, "--notify", cwd=tmp_path) for _ in range(2)]
        time.sleep(2)  # the first has made the table, and waits for the writer
        writer.rollback()
    assert [one.result().stderr for one in both] == ["", ""]
    made = sorted("made the trigger" in one.result().stdout for one in both)
    assert made == [False, True]


def test_it_goes_with_the_services(tmp_path: Path, uri: str, remotetask: Any) -> None:
    assert remotetask("init", uri, "--notify", cwd=tmp_path).returncode == 0
    one = remotetask("uninstall", uri, "tasks", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(one.stdout)["places"] == ["tasks in the root"]
    ended = remotetask("uninstall", uri, "--yes", "--json", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    places = ["tasks in the root", "the trigger that wakes idle workers"]
    assert json.loads(ended.stdout)["places"] == places
    again = remotetask("uninstall", uri, "--yes", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["places"] == []


def test_in_zope_the_trigger_alone_is_made(
    tmp_path: Path, uri: str, postgres_dsn: str, remotetask: Any, error_of: Any
) -> None:
    with closing(open_postgres(postgres_dsn)) as db, db.transaction() as connection:
        connection.root()["Application"] = PersistentMapping()
    ended = remotetask("init", uri, "--notify", "--json", cwd=tmp_path)
    assert json.loads(ended.stdout)["made"] == ["the trigger that wakes idle workers"]
    refused = error_of(remotetask("init", uri, "mail", "--notify", cwd=tmp_path), 1)
    assert "where services are registered in sites" in refused


@pytest.mark.parametrize("given", ["Data.fs", "zeo://localhost:1", "sqlite:///x?data_dir=x"])
def test_no_trigger_is_made_elsewhere(
    tmp_path: Path, remotetask: Any, error_of: Any, given: str
) -> None:
    text = error_of(remotetask("init", given, "--notify", cwd=tmp_path), 2)
    assert "--notify takes RelStorage on PostgreSQL; this is " in text
    assert not list(tmp_path.iterdir())


def test_no_trigger_is_made_in_a_file_that_is_configured(
    place: Any, remotetask: Any, error_of: Any
) -> None:
    configuration = place.directory / "zodb.conf"
    text = f"<zodb>\n<filestorage>\npath {place.directory}/Data.fs\n</filestorage>\n</zodb>\n"
    configuration.write_text(text)
    for command in ("init", "uninstall"):
        given = f"zconfig://{configuration}"
        ended = remotetask(command, given, "--notify", cwd=place.directory)
        assert "this database is a FileStorage" in error_of(ended, 1)
