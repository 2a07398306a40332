# SPDX-License-Identifier: ZPL-2.1
"""``--watch``: what is shown again and again, until Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ZEO.ClientStorage import ClientStorage

from lovely.remotetask import TaskService
from lovely.remotetask.command import watching
from lovely.remotetask.command.main import main

SECONDS = 30  # within which a command must have ended


def test_changes_are_seen_until_ctrl_c(
    tmp_path: Any, zeo: tuple[str, int], started: Any, opened: Any, wait_for: Any, register: Any
) -> None:
    register("echo", lambda input: input)
    with opened(ClientStorage(zeo)) as (root, manager):
        with manager:
            service = root["tasks"] = TaskService()
        uri = f"zeo://{zeo[0]}:{zeo[1]}"
        with started("status", uri, "--watch", "0.1", cwd=tmp_path) as process:
            command = f"  remotetask status {uri} --watch 0.1\n"
            wait_for(process.stdout, lambda line: line.endswith(command))
            wait_for(process.stdout, lambda line: line.split() == ["queued", "0"])
            with manager:
                service.add("echo")
            wait_for(process.stdout, lambda line: line.split() == ["queued", "1"])
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=SECONDS)[1] == ""
            assert process.returncode == 0


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a signal end the watching at the first wait; the seconds that were to be waited."""
    waits: list[float] = []

    def wait(self: object, seconds: float) -> bool:
        waits.append(seconds)
        return True

    monkeypatch.setattr(watching.Signals, "wait", wait)
    return waits


@pytest.mark.parametrize("verb", ["status", "jobs", "job", "workers"])
def test_what_looks_can_watch(
    verb: str,
    place: Any,
    jobs: dict[str, int],
    once: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = [str(jobs["queued"])] if verb == "job" else []
    assert main([verb, place.uri, *ids, "--watch"]) == 0
    assert "\ntasks on root:" in capsys.readouterr().out
    assert main([verb, place.uri, *ids, "--watch", "0"]) == 0
    assert once == [2.0, 0.1]
    assert main([verb, place.uri, *ids, "--watch", "--json"]) == 2
    assert main([verb, place.uri, *ids, "--watch=-1"]) == 2


def test_in_a_terminal_it_is_drawn_over_and_cut_where_the_screen_ends(
    place: Any, jobs: dict[str, int], until: Callable[..., None]
) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "30", "LINES": "6"}
    command = [sys.executable, "-m", "lovely.remotetask.cli", "status", place.uri, "--watch", "60"]
    with subprocess.Popen(command, stdout=slave, env=environment) as process:
        try:
            text = ""
            while not text.endswith(watching.REST_OF_SCREEN + "\r\n"):
                text += os.read(master, 65536).decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
            os.close(slave)
            os.close(master)
    assert text.startswith(watching.HOME)
    lines = text.removeprefix(watching.HOME).split(f"{watching.REST_OF_LINE}\r\n")
    assert lines[2:5] == ["tasks on root:", "  queued       1", "... and 9 more lines"]
    assert max(map(len, lines)) == 30
