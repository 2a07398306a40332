# SPDX-License-Identifier: ZPL-2.1
"""``remotetask demo`` in processes of its own: what people and programs see of it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import string
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ZODB.FileStorage import FileStorage

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli"]
SECONDS = 30  # within which a command must have ended


@pytest.fixture
def demo(remotetask: Any) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the demo, which must succeed, and returns its result."""

    def demo(*arguments: object, cwd: Path) -> dict[str, Any]:
        ended = remotetask("demo", *arguments, "--json", cwd=cwd)
        assert ended.returncode == 0, ended.stderr
        result: dict[str, Any] = json.loads(ended.stdout)
        return result

    return demo


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


def test_the_demo_indexes_a_tree_and_proves_it(tmp_path: Path, tree: Path, demo: Any) -> None:
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
    tmp_path: Path, tree: Path, demo: Any, remotetask: Any
) -> None:
    demo(tree, cwd=tmp_path)
    again = demo(tree, cwd=tmp_path)
    assert (again["jobs_added"], again["already_indexed"], again["done"]) == (0, 2, 0)
    text = remotetask("demo", tree, cwd=tmp_path).stdout
    assert "\nNothing is new, so no file is indexed in this run." in text
    assert "none: all files had been done before" in text
    assert "jobs a second" not in text
    (tree / "two.txt").write_text("yellow")
    third = demo(tree, cwd=tmp_path)
    assert (third["jobs_added"], third["already_indexed"], third["words"]) == (1, 1, 3)
    assert third["agrees"] is True


def test_a_clone_ignores_what_the_demo_leaves_behind(tmp_path: Path, tree: Path, demo: Any) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    shutil.move(tree, tmp_path / ".git" / "tree")
    demo(tmp_path / ".git" / "tree", cwd=tmp_path)
    assert (tmp_path / "remotetask-demo" / "unreadable.txt").exists()
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, cwd=tmp_path, capture_output=True, check=True).stdout == b""


def test_it_is_told_that_files_were_left_out(tmp_path: Path, tree: Path, remotetask: Any) -> None:
    ended = remotetask("demo", tree, "--limit", "1", cwd=tmp_path)
    assert ended.stdout.startswith("the first 1 text files under")


def test_people_are_told_in_plain_text_where_there_is_no_terminal(
    tmp_path: Path, tree: Path, remotetask: Any
) -> None:
    ended = remotetask("demo", tree, "--database", "here", cwd=tmp_path)
    assert ended.returncode == 0
    assert "2 text files under" in ended.stdout
    assert "They agree." in ended.stdout
    assert f"run file://{tmp_path / 'here' / 'demo.fs'}" in ended.stdout
    assert ended.stdout.isascii()
    assert "jobs done" in ended.stderr


def test_people_are_told_what_job_objects_do(tmp_path: Path, tree: Path, remotetask: Any) -> None:
    ended = remotetask("demo", tree, "--door", "remote", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "UTC, by a Cron item" in ended.stdout
    assert f"  {tmp_path / 'remotetask-demo' / 'late.txt'}\n      after [" in ended.stdout
    assert "They agree." in ended.stdout
    assert f"run file://{tmp_path / 'remotetask-demo' / 'remote.fs'}" in ended.stdout


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


def test_a_terminal_gets_a_bar_and_tables(
    tmp_path: Path, tree: Path, need: Callable[[object, str, str], None]
) -> None:
    need(find_spec("rich"), "rich is not installed", "pip install rich")
    shown = on_terminal("demo", tree, cwd=tmp_path)
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" in shown
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown
    assert "They agree." in shown


def test_a_terminal_without_rich_gets_plain_text(tmp_path: Path, tree: Path, without: Any) -> None:
    path = without("rich")
    shown = on_terminal("demo", tree, cwd=tmp_path, PYTHONPATH=path)
    assert shown.isascii()
    assert "They agree." in shown


def test_a_catalog_that_does_not_agree_is_told_and_is_a_failure(
    tmp_path: Path, tree: Path, remotetask: Any, opened: Any, demo: Any
) -> None:
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


def test_the_demo_goes_on_after_a_kill(
    tmp_path: Path, large_tree: Path, started: Any, wait_for: Any, demo: Any
) -> None:
    with started("demo", large_tree, cwd=tmp_path) as process:
        wait_for(process.stderr, is_progress)
        process.kill()
    result = demo(large_tree, cwd=tmp_path)
    assert result["agrees"] is True
    assert result["documents"] == 500
    assert 0 < result["already_indexed"] < 500
    assert result["left_over"] > 0


def test_the_demo_stops_at_ctrl_c_and_tells_how_to_go_on(
    tmp_path: Path, large_tree: Path, started: Any, wait_for: Any, demo: Any
) -> None:
    with started("demo", large_tree, "--json", cwd=tmp_path) as process:
        wait_for(process.stderr, is_progress)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Go on with:\n  python -m lovely.remotetask.cli demo" in stderr
    interrupted = json.loads(stdout)
    assert interrupted["agrees"] is None
    assert interrupted["left"] > 0
    assert interrupted["jobs"]["processing"] == 0
    result = demo(large_tree, cwd=tmp_path)
    assert result["done"] == interrupted["left"]
    assert (result["agrees"], result["documents"]) == (True, 500)


def test_a_database_that_is_in_use_is_told(
    tmp_path: Path, tree: Path, remotetask: Any, error_of: Any, opened: Any
) -> None:
    database = tmp_path / "demo.fs"
    with opened(FileStorage(str(database))):
        ended = remotetask("demo", tree, "--database", tmp_path, cwd=tmp_path)
        assert "in use by another process" in error_of(ended, 1)
        ended = remotetask("run", f"file://{database}", cwd=tmp_path)
        assert "in use by another process" in error_of(ended, 1)


@pytest.mark.parametrize("path", ["no such directory", "empty"])
def test_a_path_without_text_files_is_told(
    tmp_path: Path, path: str, remotetask: Any, error_of: Any
) -> None:
    (tmp_path / "empty").mkdir()
    assert path in error_of(remotetask("demo", path, cwd=tmp_path), 2)
    assert not (tmp_path / "remotetask-demo").exists()


def test_a_directory_that_cannot_be_made_is_told(
    tmp_path: Path, tree: Path, remotetask: Any, error_of: Any
) -> None:
    ended = remotetask("demo", tree, "--database", tree / "one.txt", cwd=tmp_path)
    assert "one.txt" in error_of(ended, 1)


def test_a_file_whose_name_is_no_text_is_a_file_like_others(
    tmp_path: Path, tree: Path, remotetask: Any
) -> None:
    with open(os.fsencode(tree) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"\0")
    ended = remotetask("demo", tree, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "caf\\udce9.txt is no text" in ended.stdout


def test_a_reader_who_goes_away_is_no_error_to_tell(
    tmp_path: Path, tree: Path, started: Any
) -> None:
    with started("demo", tree, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Broken" not in process.stderr.read()
        assert process.wait(SECONDS) == 1
