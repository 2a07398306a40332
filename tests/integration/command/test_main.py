# SPDX-License-Identifier: ZPL-2.1
"""The command line itself: its verbs, their help, and exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from lovely.remotetask.command.main import VERBS, main

#: The extras for users; the others are for those who work on the package.
EXTRAS = [
    extra
    for extra in distribution("lovely.remotetask").metadata.get_all("Provides-Extra", [])
    if extra not in ("benchmarks", "docs", "lint", "test")
]

SECONDS = 30  # within which a command must have ended


@pytest.mark.parametrize("arguments", [(), ("juggle",), ("demo", "--limit", "0")])
def test_a_wrong_command_line_is_told_from_a_failure(
    tmp_path: Path, arguments: tuple[str, ...], remotetask: Any
) -> None:
    ended = remotetask(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert "usage: remotetask" in ended.stderr


@pytest.mark.parametrize("arguments", [("check",), ("clean",), ("add",), ("add", "file:///x")])
def test_what_is_missing_is_told(
    tmp_path: Path, arguments: tuple[str, ...], remotetask: Any
) -> None:
    ended = remotetask(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert "usage: remotetask" in ended.stderr
    assert "required" in ended.stderr


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


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("check", ["--repair", "--service", "--json", "Exit code 1", "remotetask check zeo://"]),
        ("clean", ["--status", "--older-than AGE", "7d", "--service", "remotetask clean zeo://"]),
        ("add", ["TASK", "--input JSON", "--service", "1 MB", "100 levels", "remotetask add zeo"]),
    ],
)
def test_help_tells_what_can_be_given(
    tmp_path: Path, command: str, texts: list[str], remotetask: Any
) -> None:
    ended = remotetask(command, "--help", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    for text in texts:
        assert text in ended.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_describes_itself_and_prints_json(
    capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main([verb, "--help"]) == 0
    help = capsys.readouterr().out
    assert f"\n  remotetask {verb} " in help
    assert "--json" in help


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_lists_every_verb(verb: str) -> None:
    page = (Path(__file__).parents[3] / "docs/reference/command-line.rst").read_text()
    overview = page.partition("The database\n====")[0].partition("command         ")[2]
    assert f"``{verb}``" in overview
    assert f"remotetask {verb} " in page


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_page_about_installing_lists_every_extra(extra: str) -> None:
    page = (Path(__file__).parents[3] / "docs/install.rst").read_text()
    assert f"\n``{extra}`` " in page


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
