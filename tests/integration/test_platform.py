# SPDX-License-Identifier: ZPL-2.1
"""A platform that has no fork, and what else only POSIX has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ZODB

from lovely.remotetask import TaskService
from lovely.remotetask.interfaces import COMPLETED, QUEUED

#: What other packages do with it when they are imported is their own affair.
PLAY = """
import asyncio, multiprocessing.pool, os, re, signal, ssl, subprocess, sys, tempfile, time
import croniter, pebble, rich.progress, transaction, zc.lockfile, zodburi, ZODB, zope.component

GONE = (
    (os, "fork|register_at|kill|[gs]et.*[gu]id|set(?!_)|wait(?!pid|status)|sched_|W(?!_OK)"),
    (signal, "SIG(?!INT|TERM|ABRT|FPE|ILL|SEGV|_DFL|_IGN)|pthread|alarm|.etitimer|sig(?!nal)"),
)
for module, pattern in GONE:
    for name in filter(re.compile(pattern).match, dir(module)):
        delattr(module, name)
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
"""
IMPORT_ALL = """
import importlib, pkgutil
import lovely.remotetask

# What only those import who have Zope.
ZOPE = ("AccessControl", "Acquisition", "App", "OFS", "Products", "plone", "zExceptions")

def check(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (name.startswith("lovely.remotetask.hosts.") and error.name.split(".")[0] in ZOPE):
            raise

for module in pkgutil.walk_packages(lovely.remotetask.__path__, "lovely.remotetask.", check):
    check(module.name)
"""
TASKS = """
from lovely.remotetask.task import task

@task("double")
def double(number):
    return 2 * number
"""
WORK = """
import tasks
from lovely.remotetask import TaskService

db = ZODB.DB("Data.fs")
connection = db.open()
service = connection.root()["tasks"] = TaskService()
transaction.commit()
service.startProcessing()
jobid = service.add("double", 21)
transaction.commit()
end = time.monotonic() + 30
while service.getStatus(jobid) != "completed" and time.monotonic() < end:
    time.sleep(0.01)
    transaction.begin()
print(service.getStatus(jobid), service.getResult(jobid))
service.stopProcessing(timeout_seconds=10)
assert not service.isProcessing()
db.close()
"""
IMPORT = ("--import", "tasks")
COMMAND = """
from lovely.remotetask.command.main import main
sys.exit(main(sys.argv[1:]))
"""
INTERRUPTED_COMMAND = f"""
import _thread, threading
threading.Timer(3, _thread.interrupt_main).start()  # it ends no system call
{COMMAND}
"""


def play(directory: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "tasks.py").write_text(TASKS)
    return subprocess.run(
        [sys.executable, "-B", "-c", PLAY + program, *arguments],
        cwd=directory,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def uri(tmp_path: Path) -> str:
    db = ZODB.DB(str(tmp_path / "Data.fs"))
    with db.transaction() as connection:
        connection.root()["tasks"] = TaskService()
    db.close()
    return f"file://{tmp_path}/Data.fs"


def test_every_module_can_be_imported(tmp_path: Path) -> None:
    ended = play(tmp_path, IMPORT_ALL)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_service_runs_a_job(tmp_path: Path) -> None:
    ended = play(tmp_path, WORK)
    assert (ended.stdout, ended.stderr) == ("completed 42\n", "")


def test_the_command_adds_and_checks_a_job(tmp_path: Path, uri: str) -> None:
    assert play(tmp_path, COMMAND, "--help").returncode == 0
    added = play(tmp_path, COMMAND, "add", uri, "double", "--input", "21", *IMPORT)
    assert (added.returncode, added.stderr) == (0, "")
    checked = play(tmp_path, COMMAND, "check", uri)
    assert (checked.returncode, checked.stderr) == (0, "")
    db = ZODB.DB(str(tmp_path / "Data.fs"))
    with db.transaction() as connection:
        assert [job.status for job in connection.root()["tasks"].jobs.values()] == [QUEUED]
    db.close()


def test_the_command_works_until_it_is_interrupted(tmp_path: Path, uri: str) -> None:
    play(tmp_path, COMMAND, "add", uri, "double", "--input", "21", *IMPORT)
    ran = play(tmp_path, INTERRUPTED_COMMAND, "run", uri, *IMPORT)
    assert ran.returncode == 0, ran.stderr
    db = ZODB.DB(str(tmp_path / "Data.fs"))
    with db.transaction() as connection:
        assert [job.status for job in connection.root()["tasks"].jobs.values()] == [COMPLETED]
    db.close()
