# SPDX-License-Identifier: ZPL-2.1
"""The command with standard streams that are closed, full or read by nobody."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import ZODB

from lovely.remotetask import TaskService

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli"]
SECONDS = 30  # within which a command must have ended

SHOP = """
    from pathlib import Path
    from lovely.remotetask.task import task

    @task("note")
    def note(input):
        Path("noted").touch()
"""

ADD = ("add", "note", "--import", "shop")
READ = (*ADD, "--input", "-")
CHECK = ("check", "--import", "shop")
CLEAN = ("clean", "--import", "shop")
RUN = ("run", "--import", "shop")
DEMO = ("demo", "shop.py", "--database", "demo")
FAILING = ("check", "--service", "@nobody")

CLOSED = [">&-", "<&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"]

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with a module of tasks, and a database with one job."""
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    database = ZODB.DB(str(tmp_path / "Data.fs"))
    with database.transaction() as connection:
        connection.root()["tasks"] = TaskService()
    database.close()
    return tmp_path


def command(shop: Path, arguments: tuple[str, ...], streams: str) -> list[str]:
    """Return a command of the shell whose streams are as it is told."""
    verb, *others = arguments
    words = [*COMMAND, verb, *([] if verb in ("demo", "--help", "--version") else [uri(shop)])]
    return ["bash", "-c", f"exec {shlex.join([*words, *others])} {streams}"]


def uri(shop: Path) -> str:
    return f"file://{shop}/Data.fs"


def remotetask(
    shop: Path, arguments: tuple[str, ...], streams: str, is_buffered: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "" if is_buffered else "1"}
    return subprocess.run(
        command(shop, arguments, streams),
        cwd=shop,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("streams", CLOSED)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(ADD, 0), (READ, 2), (CLEAN, 0), (DEMO, 0), (FAILING, 1), (("--help",), 0)],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_stream_that_nobody_wants_changes_nothing(
    shop: Path, arguments: tuple[str, ...], code: int, streams: str
) -> None:
    ended = remotetask(shop, arguments, streams)
    assert ended.returncode == code, ended
    assert "Traceback" not in ended.stderr
    assert "Error" not in ended.stderr
    if "2>" in streams:  # what is no result does not go where results go
        assert ended.stderr == ""
        assert "remotetask: " not in ended.stdout
    elif code:
        assert ended.stderr.startswith("remotetask: ")
    if ">&-" not in streams.split() and not code:
        assert ended.stdout != ""


@pytest.mark.parametrize(
    "arguments",
    [ADD, CHECK, (*CHECK, "--json"), CLEAN, RUN, DEMO, ("--help",), ("--version",)],
    ids=lambda arguments: "-".join((arguments[0], *arguments[3:])),
)
def test_a_result_that_cannot_be_written_is_a_failure(
    shop: Path, arguments: tuple[str, ...]
) -> None:
    ended = remotetask(shop, arguments, ">/dev/full")
    assert (ended.returncode, ended.stdout) == (1, "")
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("remotetask: the result cannot be written: "), ended.stderr
    assert "No space left" in last
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [CHECK, ("--help",)], ids=lambda arguments: arguments[0])
def test_it_is_the_same_where_nothing_is_buffered(shop: Path, arguments: tuple[str, ...]) -> None:
    ended = remotetask(shop, arguments, ">/dev/full", is_buffered=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("remotetask: the result cannot be written: ")
    assert remotetask(shop, arguments, ">/dev/full 2>/dev/full").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [ADD, CHECK, CLEAN, RUN, DEMO, ("--help",)],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("streams", ["2>&1", ""])
def test_who_reads_no_more_is_told_no_more(
    shop: Path, arguments: tuple[str, ...], streams: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        command(shop, arguments, streams),
        cwd=shop,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    os.close(writer)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "remotetask: " not in ended.stderr


@pytest.mark.parametrize("streams", [">&-", "<&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_services_are_worked_on_without_streams(
    shop: Path, streams: str, until: Callable[..., None]
) -> None:
    assert remotetask(shop, ADD, "").returncode == 0
    with subprocess.Popen(
        command(shop, RUN, streams),
        cwd=shop,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until((shop / "noted").exists, "the job")
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in told
    assert "Error" not in told


def test_no_database_gets_the_number_of_a_closed_stream(shop: Path) -> None:
    (shop / "spy.py").write_text(
        dedent("""
            import os, sys
            with open("numbers", "w") as file:
                print([os.readlink(f"/proc/self/fd/{number}") for number in range(3)], file=file)
                print(file.fileno() > 2, None in (sys.stdin, sys.stdout, sys.stderr), file=file)
        """)
    )
    ended = remotetask(shop, ("check", "--import", "spy"), "<&- >&- 2>&-")
    assert ended.returncode == 0
    assert (shop / "numbers").read_text().splitlines() == [
        "['/dev/null', '/dev/null', '/dev/null']",
        "True False",
    ]


def test_a_job_is_added_although_its_id_cannot_be_told(shop: Path) -> None:
    assert remotetask(shop, ADD, ">/dev/full").returncode == 1
    database: Any = ZODB.DB(str(shop / "Data.fs"))
    with database.transaction() as connection:
        assert connection.root()["tasks"].countJobs()["queued"] == 1
    database.close()
