# SPDX-License-Identifier: ZPL-2.1
"""An example, copied and served by the program that its README names."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SECONDS = 30


def copied(name: str, directory: Path) -> Path:
    """Copy an example, and return where to."""
    ignored = shutil.ignore_patterns("*.fs*", "__pycache__")
    return Path(shutil.copytree(EXAMPLES / name, directory / name, ignore=ignored))


def free_port() -> int:
    """Return the number of a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environ(directory: Path) -> dict[str, str]:
    """Return the environment in which the modules of an example are found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), *sys.path])}


def program(directory: Path, name: str, code: str) -> list[str]:
    """Return the command of a program that is called so, and runs this code."""
    path = directory / name  # by this servers are known
    path.write_text(code)
    return [sys.executable, str(path)]


@contextmanager
def served(directory: Path, port: int, command: Sequence[str]) -> Iterator[str]:
    """Serve an example until the end of the block; what it logs goes to ``log``."""
    with (
        (directory / "log").open("a") as log,
        subprocess.Popen(
            command, cwd=directory, env=environ(directory), stderr=log, stdout=subprocess.DEVNULL
        ) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait(lambda: server.poll() is not None or is_up(url))
            assert server.poll() is None, (directory / "log").read_text()
            yield url
            server.send_signal(signal.SIGINT)
            server.wait(SECONDS)
        finally:
            server.kill()


def wait(condition: Callable[[], Any]) -> Any:
    """Return what is true at last."""
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def is_up(url: str) -> bool:
    """Say whether a page is served."""
    try:
        return bool(get(url).startswith("<!doctype"))
    except urllib.error.URLError:
        return False


def get(url: str, **form: str) -> str:
    """Return a page; with fields it is posted."""
    return visit(url, **form)[1]


def visit(url: str, **form: str) -> tuple[str, str]:
    """Return where a page was found, and the page; with fields it is posted."""
    data = urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=SECONDS) as answer:
        return answer.url, answer.read().decode()
