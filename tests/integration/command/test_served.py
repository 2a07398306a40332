# SPDX-License-Identifier: ZPL-2.1
"""``remotetask run`` with services in several storages, all of them real files or servers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import ZODB.config
from ZEO.ClientStorage import ClientStorage
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.command.database import close_database, open_database

SECONDS = 30  # within which a command must have ended

SHOP = """
    from pathlib import Path
    from lovely.remotetask.task import task

    @task("touch")
    def touch(name):
        with open(name, "a") as file:
            file.write("run\\n")
"""

CONFIGURATION = """
<zodb main>
  <filestorage>
    path {0}/main.fs
  </filestorage>
</zodb>
<zodb stock>
  <filestorage>
    path {0}/stock.fs
  </filestorage>
</zodb>
"""

Opened = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _task(tmp_path: Path, register: Any) -> None:
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    register("touch", lambda name: None)  # jobs are added here, and run elsewhere


def add_to(root: Any, name: str) -> None:
    service = root["tasks"] = TaskService()
    service.add("touch", name)


def run_until_there(
    started: Any, until: Any, directory: Path, names: list[str], *arguments: object
) -> str:
    """Run the command until files are there; end it, and return what it has told."""
    with started("run", *arguments, "--import", "shop", cwd=directory) as process:
        for name in names:
            until((directory / name).exists, name)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, stderr
        return str(stdout)


def test_several_uris_are_served_by_one_process(
    tmp_path: Path, zeo: tuple[str, int], opened: Opened, started: Any, until: Any
) -> None:
    uri = f"zeo://{zeo[0]}:{zeo[1]}"
    with opened(FileStorage(str(tmp_path / "Data.fs"))) as (root, manager):
        add_to(root, "of a file")
        manager.commit()
    with opened(ClientStorage(zeo)) as (root, manager):
        add_to(root, "of a server")
        manager.commit()
        names = ["of a file", "of a server"]
        told = run_until_there(started, until, tmp_path, names, "Data.fs", uri, "--threads", 2)
        manager.begin()
        assert root["tasks"].countJobs()["completed"] == 1
    assert told.startswith(f"2 services of Data.fs, {uri} at work; ")
    with opened(FileStorage(str(tmp_path / "Data.fs"))) as (root, _):
        assert root["tasks"].countJobs()["completed"] == 1
        assert not root["tasks"].workers  # both were left in order


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    """A directory with two databases that one file configures, each with a service and a job.

    A third service lies in the second one, and is named in the root of the first, as a mount.
    """
    (tmp_path / "zodb.conf").write_text(CONFIGURATION.format(tmp_path))
    database: Any = ZODB.config.databaseFromURL(str(tmp_path / "zodb.conf"))
    with database.transaction() as connection:
        add_to(connection.root(), "main")
        stock = connection.get_connection("stock")
        add_to(stock.root(), "stock")
        mounted = TaskService()
        stock.add(mounted)
        connection.root()["mounted"] = mounted
        mounted.add("touch", "mounted")
    close_database(database)
    return tmp_path


def test_all_databases_of_one_file_are_served_each_service_once(
    stores: Path, started: Any, until: Any
) -> None:
    uri = f"zconfig://{stores}/zodb.conf"
    told = run_until_there(started, until, stores, ["main", "stock", "mounted"], uri)
    assert told.startswith("3 services of ")
    for name in ("main", "stock", "mounted"):
        assert (stores / name).read_text() == "run\n"
    database = open_database(uri)
    with database.transaction() as connection:
        root = connection.root()
        assert root["mounted"]._p_jar.db().database_name == "stock"
        for service in (root["tasks"], root["mounted"]):
            assert service.countJobs()["completed"] == 1
    close_database(database)


def test_a_name_says_which_of_them_is_served(stores: Path, started: Any, until: Any) -> None:
    told = run_until_there(started, until, stores, ["stock"], f"zconfig://{stores}/zodb.conf#stock")
    assert told.startswith("1 service of ")
    assert not (stores / "main").exists()


def test_a_service_that_is_made_later_is_found_in_any_of_them(
    tmp_path: Path, zeo: tuple[str, int], opened: Opened, started: Any, until: Any, wait_for: Any
) -> None:
    uri = f"zeo://{zeo[0]}:{zeo[1]}"
    with opened(FileStorage(str(tmp_path / "Data.fs"))) as (root, manager):
        add_to(root, "early")
        manager.commit()
    with ExitStack() as stack:
        root, manager = stack.enter_context(opened(ClientStorage(zeo)))
        process = stack.enter_context(
            started("run", "Data.fs", uri, "--import", "shop", cwd=tmp_path)
        )
        wait_for(process.stdout, lambda line: line.startswith("1 service of "))
        with manager:
            add_to(root, "late")
        until((tmp_path / "late").exists, "the job")
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_a_pattern_that_leads_nowhere_is_told_for_each_of_them(
    tmp_path: Path, opened: Opened, remotetask: Any, error_of: Any
) -> None:
    for name in ("one.fs", "two.fs"):
        with opened(FileStorage(str(tmp_path / name))) as (root, manager):
            root["tasks"] = TaskService()
            manager.commit()
    ended = remotetask("run", "one.fs", "two.fs", "--autostart", "@mail", cwd=tmp_path)
    line = error_of(ended, 1)
    for name in ("one.fs", "two.fs"):
        assert f"no service in {name} matches '@mail': it has @tasks" in line


def test_if_one_cannot_be_opened_none_is_served(
    stores: Path, remotetask: Any, error_of: Any
) -> None:
    ended = remotetask("run", "main.fs", "missing.fs", cwd=stores)
    assert "no database file" in error_of(ended, 1)
    assert not (stores / "main").exists()


def test_a_database_that_is_named_twice_is_told(
    stores: Path, remotetask: Any, error_of: Any
) -> None:
    ended = remotetask("run", "main.fs", "main.fs", cwd=stores)
    assert "main.fs is named twice" in error_of(ended, 2)
