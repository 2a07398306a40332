# SPDX-License-Identifier: ZPL-2.1
"""``remotetask init``: services, files and tables that are made because somebody said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.remote.processor import RemoteProcessor
from servers import postgres_uri


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
