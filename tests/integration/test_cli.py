# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``, in processes of its own, as a user starts and ends it."""

from __future__ import annotations

import json
import os
import pty
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import IO, Any

import pytest
import transaction
import ZODB
from ZEO.ClientStorage import ClientStorage
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.command import demo as demo_module
from lovely.remotetask.command.main import main
from lovely.remotetask.command.signals import Signals

COMMAND = [sys.executable, "-m", "lovely.remotetask.command.main"]
SECONDS = 30  # within which a command must have ended

TASKS = """
    from pathlib import Path
    from time import sleep
    import ZODB
    from lovely.remotetask import TaskService
    from lovely.remotetask.task import task

    @task("wait")
    def wait(name):
        Path(f"{name}.started").touch()
        while not Path("go").exists():
            sleep(0.01)
        return f"{name} is done"

    def fill():
        database = ZODB.DB("Data.fs")
        with database.transaction() as connection:
            service = connection.root()["tasks"] = TaskService()
            service.add("wait", "first")
            service.add("wait", "second")
        database.close()
"""


# -- starting and ending it ------------------------------------------------------------------


def remotetask(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command, and kill it if it still runs at the end of the block."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(stream: IO[str] | None, is_it: Callable[[str], bool]) -> str:
    """Read lines until one is what is waited for, and return it."""
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if is_it(line):
            return line
    pytest.fail(f"the process ended after {lines}")


def demo(*arguments: object, cwd: Path) -> dict[str, Any]:
    """Run the demo, which must succeed, and return its result."""
    ended = remotetask("demo", *arguments, "--json", cwd=cwd)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def error_of(ended: subprocess.CompletedProcess[str], returncode: int) -> str:
    """Return what a command that failed has to say: one line."""
    assert (ended.returncode, ended.stdout) == (returncode, "")
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("remotetask: ")
    return ended.stderr


@contextmanager
def opened(storage: Any) -> Iterator[tuple[Any, transaction.TransactionManager]]:
    """Open a database in this process: its root object, and what begins and commits."""
    database = ZODB.DB(storage)
    manager = transaction.TransactionManager()
    try:
        yield database.open(manager).root(), manager
    finally:
        manager.abort()
        database.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two text files."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "one.txt").write_text("red green")
    (root / "two.txt").write_text("red blue")
    return root


@pytest.fixture
def large_tree(tmp_path: Path) -> Path:
    """A directory with so many files that a run takes some seconds."""
    root = tmp_path / "large"
    root.mkdir()
    for number in range(500):
        letters = string.ascii_lowercase * 2
        words = [letters[word % 26 :][: 2 + (word + number) % 24] for word in range(1000)]
        (root / f"{number}.txt").write_text(" ".join(words))
    return root


# -- remotetask ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("juggle",), ("demo", "--limit", "0"), ("run",)])
def test_a_wrong_command_line_is_told_from_a_failure(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = remotetask(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert "usage: remotetask" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--help",), "demo"),
        (("demo", "--help"), "remotetask demo ~/src"),
        (("run", "--help"), "SECONDS"),
        (("--version",), "remotetask "),
    ],
)
def test_help_is_given(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    assert main(list(arguments)) == 0
    assert text in capsys.readouterr().out


def test_the_installed_command_is_the_same(
    tmp_path: Path, tree: Path, need: Callable[[object, str, str], None]
) -> None:
    script = Path(sys.executable).with_name("remotetask")
    need(script.exists(), "the package is not installed", "pip install -e '.[test]'")
    ended = subprocess.run(
        [script, "demo", "tree"], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert ended.returncode == 0
    assert f"\n  {script} demo tree\n" in ended.stdout


# -- remotetask demo -------------------------------------------------------------------------


def test_the_demo_indexes_a_tree_and_proves_it(tmp_path: Path, tree: Path) -> None:
    result = demo(tree, cwd=tmp_path)
    assert result["agrees"] is True
    assert (result["files"], result["jobs_added"], result["documents"]) == (2, 3, 2)
    assert (result["words"], result["frequent_words"]["red"]) == (4, 2)
    assert (result["jobs"]["completed"], result["jobs"]["error"]) == (3, 1)
    assert result["jobs"]["cronjob"] == 1
    assert result["next_report"] > 0
    assert Path(result["database"]) == tmp_path / "remotetask-demo" / "demo.fs"
    assert result["bytes"] >= Path(result["database"]).stat().st_size


def test_a_second_run_of_the_demo_adds_nothing_but_what_has_changed(
    tmp_path: Path, tree: Path
) -> None:
    demo(tree, cwd=tmp_path)
    again = demo(tree, cwd=tmp_path)
    assert (again["jobs_added"], again["already_indexed"], again["done"]) == (0, 2, 0)
    (tree / "two.txt").write_text("yellow")
    third = demo(tree, cwd=tmp_path)
    assert (third["jobs_added"], third["already_indexed"], third["words"]) == (1, 1, 3)
    assert third["agrees"] is True


def test_people_are_told_in_plain_text_where_there_is_no_terminal(
    tmp_path: Path, tree: Path
) -> None:
    ended = remotetask("demo", tree, "--database", "here", cwd=tmp_path)
    assert ended.returncode == 0
    assert "2 text files under" in ended.stdout
    assert "They agree." in ended.stdout
    assert f"run file://{tmp_path / 'here' / 'demo.fs'}" in ended.stdout
    assert ended.stdout.isascii()
    assert "jobs done" in ended.stderr


def on_terminal(*arguments: object, cwd: Path, **variables: str) -> str:
    """Run the command on a terminal, and return what it shows there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while chunk := os.read(ours, 4096):
                shown += chunk
    os.close(ours)
    return shown.decode()


def without(module: str, directory: Path) -> str:
    """Return the PYTHONPATH with which a module is not there."""
    directory.mkdir()
    (directory / f"{module}.py").write_text("raise ImportError")
    return os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])


def test_a_terminal_gets_a_bar_and_tables(
    tmp_path: Path, tree: Path, need: Callable[[object, str, str], None]
) -> None:
    need(find_spec("rich"), "rich is not installed", "pip install rich")
    shown = on_terminal("demo", tree, cwd=tmp_path)
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" in shown
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown
    assert "They agree." in shown


def test_a_terminal_without_rich_gets_plain_text(tmp_path: Path, tree: Path) -> None:
    path = without("rich", tmp_path / "hidden")
    shown = on_terminal("demo", tree, cwd=tmp_path, PYTHONPATH=path)
    assert shown.isascii()
    assert "They agree." in shown


def test_a_catalog_that_does_not_agree_is_told_and_is_a_failure(tmp_path: Path, tree: Path) -> None:
    database = demo(tree, cwd=tmp_path)["database"]
    with opened(FileStorage(database)) as (root, manager), manager:
        segment = next(iter(root["catalog"].segments.values()))
        segment.postings = {**segment.postings, "red": dict.fromkeys(segment.postings["red"], 7)}
    ended = remotetask("demo", tree, cwd=tmp_path)
    assert ended.returncode == 1
    assert "WRONG  the postings of each document add up" in ended.stdout
    assert "8 words in the postings, 2 in the document" in ended.stdout
    assert ended.stderr.endswith("catalog and completed jobs do not agree\n")


def is_progress(line: str) -> bool:
    """Say whether a line tells of some jobs, but not of all of them."""
    done, _, rest = line.partition(" of ")
    return done.isdigit() and 0 < int(done) < int(rest.split()[0])


def test_the_demo_goes_on_after_a_kill(tmp_path: Path, large_tree: Path) -> None:
    with started("demo", large_tree, cwd=tmp_path) as process:
        wait_for(process.stderr, is_progress)
        process.kill()
    result = demo(large_tree, cwd=tmp_path)
    assert result["agrees"] is True
    assert result["documents"] == 500
    assert 0 < result["already_indexed"] < 500
    assert result["left_over"] > 0


def test_the_demo_stops_at_ctrl_c_and_tells_how_to_go_on(tmp_path: Path, large_tree: Path) -> None:
    with started("demo", large_tree, "--json", cwd=tmp_path) as process:
        wait_for(process.stderr, is_progress)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Go on with:\n  python -m lovely.remotetask.command.main demo" in stderr
    interrupted = json.loads(stdout)
    assert interrupted["agrees"] is None
    assert interrupted["left"] > 0
    assert interrupted["jobs"]["processing"] == 0
    result = demo(large_tree, cwd=tmp_path)
    assert result["done"] == interrupted["left"]
    assert (result["agrees"], result["documents"]) == (True, 500)


def test_a_database_that_is_in_use_is_told(tmp_path: Path, tree: Path) -> None:
    database = tmp_path / "demo.fs"
    with opened(FileStorage(str(database))):
        ended = remotetask("demo", tree, "--database", tmp_path, cwd=tmp_path)
        assert "in use by another process" in error_of(ended, 1)
        ended = remotetask("run", f"file://{database}", cwd=tmp_path)
        assert "in use by another process" in error_of(ended, 1)


@pytest.mark.parametrize("path", ["no such directory", "empty"])
def test_a_path_without_text_files_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    assert path in error_of(remotetask("demo", path, cwd=tmp_path), 2)
    assert not (tmp_path / "remotetask-demo").exists()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path, tree: Path) -> None:
    ended = remotetask("demo", tree, "--database", tree / "one.txt", cwd=tmp_path)
    assert "one.txt" in error_of(ended, 1)


def test_a_file_whose_name_is_no_text_is_a_file_like_others(tmp_path: Path, tree: Path) -> None:
    with open(os.fsencode(tree) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"\0")
    ended = remotetask("demo", tree, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "caf\\udce9.txt is no text" in ended.stdout


def test_a_reader_who_goes_away_is_no_error_to_tell(tmp_path: Path, tree: Path) -> None:
    with started("demo", tree, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Broken" not in process.stderr.read()
        assert process.wait(SECONDS) == 1


# -- remotetask run --------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with a module of tasks, and a database whose two jobs wait for ``go``."""
    (tmp_path / "shop.py").write_text(dedent(TASKS))
    subprocess.run([sys.executable, "-c", "import shop; shop.fill()"], cwd=tmp_path, check=True)
    return tmp_path


def jobs_in(shop: Path) -> dict[str, tuple[str, Any]]:
    """Return the status and the result of each job, by its input."""
    with opened(FileStorage(str(shop / "Data.fs"))) as (root, _):
        return {job.input: (job.status, job.output) for job in root["tasks"].jobs.values()}


def run(shop: Path, *arguments: object) -> Any:
    return started("run", f"file://{shop}/Data.fs", "--import", "shop", *arguments, cwd=shop)


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def signal_until_it_ends(process: subprocess.Popen[str], number: int) -> None:
    for _ in range(10 * SECONDS):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return
    pytest.fail("the process goes on, whatever it is sent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_the_first_signal_finishes_what_runs_and_gives_back_the_rest(
    shop: Path, number: int
) -> None:
    with run(shop) as process:
        wait_for_file(shop / "first.started", process)
        process.send_signal(number)
        wait_for(process.stderr, lambda line: line.startswith("Stopping"))
        (shop / "go").touch()
        stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, stderr
    assert f"kill {process.pid}" in stdout
    assert jobs_in(shop) == {"first": ("completed", "first is done"), "second": ("queued", None)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_leaves_now_and_its_jobs_are_run_again(shop: Path, number: int) -> None:
    with run(shop) as process:
        wait_for_file(shop / "first.started", process)
        process.send_signal(number)
        wait_for(process.stderr, lambda line: line.startswith("Stopping"))
        signal_until_it_ends(process, number)
    assert process.returncode == 128 + number
    assert jobs_in(shop)["first"] == ("processing", None)
    (shop / "go").touch()
    with run(shop) as process:
        wait_for_file(shop / "second.started", process)
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert jobs_in(shop)["first"] == ("completed", "first is done")


def test_the_grace_has_an_end(shop: Path) -> None:
    with run(shop, "--grace", "0.1") as process:
        wait_for_file(shop / "first.started", process)
        process.terminate()
        stderr = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1
    assert "jobs were still running" in stderr

    with opened(FileStorage(str(shop / "Data.fs"))) as (root, _):
        jobs = {job.input: job for job in root["tasks"].jobs.values()}
        assert not root["tasks"].workers
    assert {(job.status, job.attempt, job.deaths) for job in jobs.values()} == {("queued", 0, 0)}
    assert [note.type for note in jobs["first"].failures] == ["JobInterrupted"]


def test_a_hangup_that_is_to_be_ignored_is() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGQUIT) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_programs_are_told_what_runs(shop: Path) -> None:
    (shop / "go").touch()
    with run(shop, "--json", "--autostart", "@tasks") as process:
        wait_for_file(shop / "second.started", process)
        process.terminate()
        stdout = process.communicate(timeout=SECONDS)[0]
    assert json.loads(stdout) == {
        "services": 1,
        "database": f"file://{shop}/Data.fs",
        "pid": process.pid,
    }


def test_services_that_are_started_and_single_jobs_are_logged(shop: Path) -> None:
    (shop / "go").touch()
    with run(shop, "--verbose") as process:
        wait_for(process.stderr, lambda line: "service tasks on site root started" in line)
        wait_for(process.stderr, lambda line: "task wait, attempt 1: completed" in line)


def test_jobs_that_come_from_another_process_are_run(tmp_path: Path, zeo: tuple[str, int]) -> None:
    with opened(ClientStorage(zeo)) as (root, manager):
        with manager:
            root["tasks"] = TaskService()
        uri = f"zeo://{zeo[0]}:{zeo[1]}"
        with started(
            "run", uri, "--import", "lovely.remotetask.command.demo", cwd=tmp_path
        ) as process:
            wait_for(process.stdout, lambda line: "at work" in line)
            demo_module.register()
            with manager:
                jobid = root["tasks"].add(demo_module.REPORT)
            while root["tasks"].getStatus(jobid) != "error":  # there is no catalog
                time.sleep(0.01)
                manager.begin()
            process.terminate()
            assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("uri", "returncode", "text"),
    [
        ("Data.fs", 2, "no URI"),
        ("ftp://example.org/Data.fs", 2, "no storage is known for ftp://"),
        ("zeo://localhost:port", 2, "malformed"),
        ("memory://?color=red", 2, "malformed"),
        ("file:///no/such/Data.fs", 1, "no database file /no/such/Data.fs"),
        ("zeo://127.0.0.1:1?wait_timeout=1", 1, "cannot be opened"),
        ("memory://", 1, "no service"),
    ],
)
def test_a_database_that_cannot_be_worked_on_is_told(
    tmp_path: Path, uri: str, returncode: int, text: str
) -> None:
    ended = remotetask("run", uri, "--autostart", "@tasks", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (returncode, "")
    assert text in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_pattern_that_matches_no_service_is_told(shop: Path) -> None:
    ended = remotetask("run", f"file://{shop}/Data.fs", "--autostart", "a@b", cwd=shop)
    assert ended.returncode == 1
    assert "matches 'a@b'" in ended.stderr


@pytest.mark.parametrize("source", ["import no_such_module", "raise KeyError('oh')", None])
def test_a_module_that_cannot_be_imported_is_told(shop: Path, source: str | None) -> None:
    if source:
        (shop / "broken.py").write_text(source)
    ended = remotetask("run", f"file://{shop}/Data.fs", "--import", "broken", cwd=shop)
    assert "cannot import broken" in error_of(ended, 1)


def test_a_traceback_is_shown_to_who_asks_for_it(tmp_path: Path) -> None:
    ended = remotetask("run", "memory://", "--import", "broken", "--verbose", cwd=tmp_path)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_the_command_that_installs_zodburi_is_told(tmp_path: Path) -> None:
    path = without("zodburi", tmp_path / "hidden")
    ended = remotetask("run", "memory://", cwd=tmp_path, PYTHONPATH=path)
    assert "pip install 'lovely.remotetask[cli]'" in error_of(ended, 1)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://shop:secret@127.0.0.1:1/shop", "postgresql://shop:***@127.0.0.1:1/shop"),
        ("zeo://h:x?username=shop&password=secret", "zeo://h:x?username=shop&password=***"),
    ],
)
def test_passwords_are_not_shown(tmp_path: Path, uri: str, shown: str) -> None:
    ended = remotetask("run", uri, cwd=tmp_path)
    assert ended.returncode in (1, 2)
    assert shown in ended.stderr
    assert "secret" not in ended.stderr


def test_postgresql_is_known_by_its_usual_name(
    tmp_path: Path, postgres_dsn: str, need: Callable[[object, str, str], None]
) -> None:
    uri = postgres_uri(postgres_dsn)
    need(uri, "no PostgreSQL server on 127.0.0.1 takes us", "pg_ctlcluster 15 main start")
    ended = remotetask("run", uri, cwd=tmp_path)
    assert ended.returncode == 1
    assert "no service" in ended.stderr.splitlines()[-1]


def postgres_uri(dsn: str) -> str | None:
    """Return the URI of a database; URIs know no directories of sockets."""
    import psycopg2

    try:
        with closing(psycopg2.connect(dsn, host="127.0.0.1")) as connection:
            known = connection.info
            return (
                f"postgresql://{known.user}:{known.password}@127.0.0.1:{known.port}/{known.dbname}"
            )
    except psycopg2.OperationalError:
        return None
