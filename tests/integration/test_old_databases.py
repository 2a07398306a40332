# SPDX-License-Identifier: ZPL-2.1
"""Each command on the databases of 0.5: a sentence, the exit code 1, and not a byte changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from datetime import timezone
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.engine.upgrade import Upgrade
from lovely.remotetask.store.check import check_all
from servers import postgres_storage, zeo_storage

DATA = Path(__file__).parent.parent / "data"

COMMANDS = {
    "check": ["check"],
    "check --repair": ["check", "--repair"],
    "check --json": ["check", "--json"],
    "run": ["run"],
    "run of one": ["run", "--autostart", "@tasks"],
    "clean": ["clean"],
    "add": ["add", "echo"],
}

UPGRADE = ["upgrade", "--timezone", "UTC"]


def remotetask(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    return subprocess.run(
        [sys.executable, "-m", "lovely.remotetask.cli", command, f"file://{path}", *rest],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path.parent,
    )


def copied(name: str, directory: Path) -> Path:
    path = directory / "Data.fs"
    shutil.copyfile(DATA / name, path)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_converted_database(tmp_path: Path, command: str) -> None:
    path = copied("written-by-0.5-python3.fs", tmp_path)
    before = path.read_bytes()
    ended = remotetask(path, *COMMANDS[command])
    assert ended.returncode == 1
    assert path.read_bytes() == before
    said = ended.stdout + ended.stderr
    assert "the service 'tasks' was written by lovely.remotetask 0.5" in said
    assert "Coming from 0.5" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= (9 if "--json" in command else 2)


def test_an_old_service_can_be_uninstalled(tmp_path: Path) -> None:
    path = copied("written-by-0.5-python3.fs", tmp_path)
    ended = remotetask(path, "uninstall", "--yes")
    assert "tasks on root: its jobs cannot be counted here" in ended.stdout
    [left] = json.loads(remotetask(path, "uninstall", "--yes", "--json").stdout)["left"]
    # What the application keeps under the key "classes".
    assert left["needs"] == ["lovely.remotetask.processor.MultiProcessor"]


def test_a_check_tells_it_as_a_problem(tmp_path: Path) -> None:
    path = copied("written-by-0.5-python3.fs", tmp_path)
    [problem] = json.loads(remotetask(path, "check", "--json").stdout)
    assert (problem["site"], problem["service"], problem["job"]) == ("root", "tasks", None)


def test_an_upgrade_on_trial_tells_what_it_would_do(tmp_path: Path) -> None:
    path = copied("written-by-0.5-python3.fs", tmp_path)
    before = path.read_bytes()
    ended = remotetask(path, *UPGRADE, "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert path.read_bytes() == before
    assert ended.stdout == (
        "tasks on root: would be upgraded, with 3 queued, 1 cancelled, 2 error, 1 completed, "
        "2 delayed, 3 cronjob, 1 start later\n"
    )


def test_after_an_upgrade_the_commands_find_a_service_of_today(tmp_path: Path) -> None:
    path = copied("written-by-0.5-python3.fs", tmp_path)
    [told] = json.loads(remotetask(path, *UPGRADE, "--json").stdout)
    assert (told["service"], told["jobs"]["queued"], told["dropped"]) == ("tasks", 3, 0)
    assert remotetask(path, "check").returncode == 0
    [status] = json.loads(remotetask(path, "status", "--json").stdout)
    assert status["jobs"]["cronjob"] == 3
    again = remotetask(path, *UPGRADE)
    assert again.returncode == 0
    assert again.stdout.startswith("Nothing to upgrade")


def test_a_time_zone_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = copied("written-by-0.5-python3.fs", tmp_path)
    ended = remotetask(path, "upgrade", "--timezone", "Mars/Olympus")
    assert ended.returncode == 2
    assert "Mars/Olympus" in ended.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "upgrade"])
def test_a_database_of_python_2(tmp_path: Path, command: str) -> None:
    path = copied("written-by-0.5-python2.fs", tmp_path)
    before = path.read_bytes()
    ended = remotetask(path, *({**COMMANDS, "upgrade": UPGRADE}[command]))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert path.read_bytes() == before
    [line] = ended.stderr.splitlines()
    assert f"file://{path} cannot be opened: Python 2 has written it." in line
    assert "zodbupdate" in line
    assert "Coming from 0.5" in line


def test_a_file_that_is_no_database_is_not_taken_for_one_of_python_2(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    path.write_text("not a database at all, but a text")
    [line] = remotetask(path, "check").stderr.splitlines()
    assert line == f"remotetask: file://{path} cannot be opened: {path} is no FileStorage"


@pytest.mark.parametrize("server", ["zeo", "postgres_dsn"])
def test_a_service_behind_a_server_is_upgraded_too(
    tmp_path: Path, request: pytest.FixtureRequest, server: str, register: Any
) -> None:
    register("echo", lambda input: input)
    make = zeo_storage if server == "zeo" else postgres_storage
    address = request.getfixturevalue(server)
    old = FileStorage(str(copied("written-by-0.5-python3.fs", tmp_path)))
    with closing(old), closing(make(address)) as storage:  # a database would make a root
        storage.copyTransactionsFrom(old)
    with closing(ZODB.DB(make(address))) as db:
        connection = db.open()
        service = connection.root()["tasks"]
        upgrade = Upgrade(service, timezone.utc, time.time(), True)
        while (report := upgrade.step()) is None:
            transaction.commit()
        transaction.commit()
        assert sum(report.jobs.values()) == len(service.jobs) == 13
        service.process()
        transaction.commit()
        assert service.getStatus(connection.root()["ids"]["queued"]) == "completed"
        assert list(check_all(service, time.time(), False, transaction.abort)) == []
        transaction.abort()
