# SPDX-License-Identifier: ZPL-2.1
"""What systemd is told, at a socket as it has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lovely.remotetask.command.systemd import Systemd

Told = Callable[[], list[str]]


@pytest.fixture(params=["file", "abstract"])
def manager(request: Any, tmp_path: Path) -> Iterator[tuple[str, Told]]:
    """The address of a socket, and a function that returns what has come there."""
    name = f"remotetask-test-{os.getpid()}"
    is_file = request.param == "file"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify") if is_file else f"\0{name}")
        receiver.setblocking(False)

        def told() -> list[str]:
            messages = []
            with suppress(BlockingIOError):
                while True:
                    messages.append(receiver.recv(1000).decode())
            return messages

        yield (str(tmp_path / "notify") if is_file else f"@{name}"), told


def test_it_is_told_how_the_process_does(manager: tuple[str, Told]) -> None:
    address, told = manager
    environment = {"NOTIFY_SOCKET": address, "OTHER": "yes"}
    systemd = Systemd(environment)
    assert environment == {"OTHER": "yes"}  # those that are started from here are not asked
    systemd.ready()
    systemd.status("2 processes\nat work")
    systemd.status("2 processes\nat work")
    systemd.alive()
    systemd.stopping()
    assert told() == ["READY=1", "STATUS=2 processes at work", "STOPPING=1"]


def test_it_gets_signs_of_life_where_it_wants_them(manager: tuple[str, Told]) -> None:
    address, told = manager
    systemd = Systemd(
        {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert systemd.watchdog_seconds == 30
    for now in (0.0, 1.0, 9.9, 10.0, 12.0, 25.0):
        systemd.alive(now)
    assert told() == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize("more", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_signs_of_life_that_another_process_is_to_give_are_not_given(
    more: dict[str, str], manager: tuple[str, Told]
) -> None:
    address, told = manager
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", **more})
    systemd.alive(5.0)
    assert (systemd.watchdog_seconds, told()) == (None, [])


def test_nobody_need_listen(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"WATCHDOG_USEC": "1000"}):
        systemd = Systemd(environment)
        systemd.ready()
        systemd.alive()
        systemd.stopping()
