# SPDX-License-Identifier: ZPL-2.1
"""The services that a command is to look after, and databases that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("command", [("check",), ("clean",), ("add", "note", "--import", "shop")])
def test_a_pattern_that_matches_no_service_is_told(
    place: Any, command: tuple[str, ...], remotetask: Any, error_of: Any
) -> None:
    for pattern in ("@mail", "shop@*", ","):
        ended = remotetask(
            command[0], place.uri, *command[1:], "--service", pattern, cwd=place.directory
        )
        assert f"matches {pattern!r}" in error_of(ended, 1)


def test_a_database_without_services_is_told(empty_place: Any, error_of: Any) -> None:
    with empty_place.root():
        pass
    line = error_of(empty_place.check(), 1)
    assert "no service" in line
    assert line.endswith(f"it has none; to make one: remotetask init {empty_place.uri}\n")
    assert "no service" in error_of(empty_place.check("--repair", "--json"), 1)
    assert "no service" in error_of(empty_place.clean("--json"), 1)


def test_a_database_that_is_not_there_is_not_made(
    tmp_path: Path, empty_place: Any, error_of: Any
) -> None:
    assert "no database file" in error_of(empty_place.check(), 1)
    assert "no database file" in error_of(empty_place.clean(), 1)
    assert "no database file" in error_of(empty_place.add("note", "--import", "shop"), 1)
    assert not (tmp_path / "Data.fs").exists()


def test_the_nearest_name_is_told(place: Any, error_of: Any) -> None:
    place.new_service("mail")
    line = error_of(place.check("--service", "@taks"), 1)
    assert line.endswith("matches '@taks': it has @mail, @tasks; did you mean '@tasks'?\n")


@pytest.mark.parametrize("verb", ["status", "run", "check"])
def test_a_file_that_is_no_database_is_told_and_left_as_it_is(
    tmp_path: Path, verb: str, remotetask: Any, error_of: Any
) -> None:
    (tmp_path / "empty.fs").touch()
    (tmp_path / "text.fs").write_text("This is no database.")
    for name, text in (
        ("none.fs", f"no database file {tmp_path}/none.fs; to make a database there: "),
        ("empty.fs", f"the file {tmp_path}/empty.fs is empty; to make a database there: "),
        ("text.fs", "is no FileStorage"),
        (".", "is a directory"),
    ):
        line = error_of(remotetask(verb, name, cwd=tmp_path), 1)
        assert text in line
        assert line.endswith(f"remotetask init {name}\n") == ("to make" in text)
    assert (tmp_path / "empty.fs").stat().st_size == 0
    assert not (tmp_path / "none.fs").exists()


def test_a_path_names_a_database(place: Any, remotetask: Any, without: Any) -> None:
    ended = remotetask("status", "Data.fs", cwd=place.directory, PYTHONPATH=without("zodburi"))
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = remotetask("status", f"{place.directory}/Data.fs", cwd="/")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_database_in_use_is_told(place: Any, error_of: Any) -> None:
    with place.root():
        assert "in use by another process" in error_of(place.check(), 1)
        assert "in use by another process" in error_of(place.clean(), 1)
        assert "in use by another process" in error_of(place.add("note", "--import", "shop"), 1)
