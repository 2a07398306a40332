# SPDX-License-Identifier: ZPL-2.1
"""Services that are made after the start, and which patterns name them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lovely.remotetask.hosts import autostart, lookout
from lovely.remotetask.hosts.autostart import look_out, names, start_services


@pytest.fixture
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LOOK_AGAIN_SECONDS", 0.01)


@pytest.fixture
def watch(workplace: Any, look_often: None) -> Iterator[Any]:
    """Return a function that starts what is there, and then looks out."""
    begun = []

    def watch(*patterns: str) -> None:
        known: set[Any] = set()
        start_services(workplace.db, patterns, known)
        begun.append(look_out(workplace.db, list(patterns), known))

    yield watch
    for thread in begun:
        thread.stop()
        thread.join()


def is_processing(workplace: Any, name: str) -> bool:
    with workplace.service(name) as service:
        return bool(service.isProcessing())


def test_a_service_that_is_made_after_the_start_is_started(
    workplace: Any, watch: Any, until: Any
) -> None:
    watch("@*")
    workplace.new_service("letters")
    until(lambda: is_processing(workplace, "letters"))


def test_a_service_that_was_there_at_the_start_and_was_stopped_stays_so(
    workplace: Any, watch: Any, until: Any
) -> None:
    watch("@*")
    assert is_processing(workplace, "tasks")
    workplace.stop()
    workplace.new_service("letters")
    until(lambda: is_processing(workplace, "letters"))
    assert not is_processing(workplace, "tasks")


def test_a_look_that_fails_is_not_the_last_one(
    workplace: Any, watch: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = []
    look = autostart.start_new_services

    def fail_once(*arguments: Any) -> int:
        if not failed:
            failed.append(True)
            raise ConnectionError("the storage is away")
        return look(*arguments)

    monkeypatch.setattr(autostart, "start_new_services", fail_once)
    watch("@*")
    until(lambda: failed)
    workplace.new_service("letters")
    until(lambda: is_processing(workplace, "letters"))


@pytest.mark.parametrize(
    ("pattern", "path", "service", "is_named"),
    [
        ("@tasks", "", "tasks", True),
        ("@*", "", "tasks", True),
        ("*@*", "", "tasks", True),
        ("*@*", "/shop", "tasks", True),
        ("*@*", "/folder/shop", "tasks", False),
        ("folder/shop@tasks", "/folder/shop", "tasks", True),
        ("shop@mail", "/shop", "tasks", False),
        ("@tasks", "/shop", "tasks", False),
        ("shop", "/shop", "tasks", False),
    ],
)
def test_patterns_name_services(pattern: str, path: str, service: str, is_named: bool) -> None:
    assert names(pattern, path, service) is is_named
