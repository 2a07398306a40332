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
    assert "no service" in error_of(empty_place.check(), 1)
    assert "no service" in error_of(empty_place.check("--repair", "--json"), 1)
    assert "no service" in error_of(empty_place.clean("--json"), 1)


def test_a_database_that_is_not_there_is_not_made(
    tmp_path: Path, empty_place: Any, error_of: Any
) -> None:
    assert "no database file" in error_of(empty_place.check(), 1)
    assert "no database file" in error_of(empty_place.clean(), 1)
    assert "no database file" in error_of(empty_place.add("note", "--import", "shop"), 1)
    assert not (tmp_path / "Data.fs").exists()


def test_a_database_in_use_is_told(place: Any, error_of: Any) -> None:
    with place.root():
        assert "in use by another process" in error_of(place.check(), 1)
        assert "in use by another process" in error_of(place.clean(), 1)
        assert "in use by another process" in error_of(place.add("note", "--import", "shop"), 1)
