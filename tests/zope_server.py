# SPDX-License-Identifier: ZPL-2.1
"""A real Zope: a server that is started as its users start it, asked over HTTP."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

SECONDS = 90


class Answer(NamedTuple):
    """What a server has answered; ``url`` is where, behind redirections."""

    status: int
    text: str
    url: str

    def fields(self) -> dict[str, str]:
        """Return the hidden fields of the page; those of its first form count."""
        found = re.findall(r'<input type="hidden" name="(\w+)"(?: value="([^"]*)")?', self.text)
        return dict(reversed(found))


class Zope:
    """An instance of Zope, to be made by the commands of an example's README, in a copy of it.

    :param python: that of its environment.
    """

    def __init__(self, python: Path, example: Path, directory: Path) -> None:
        self._bin = python.parent
        self.directory = directory
        shutil.copytree(example, directory, ignore=shutil.ignore_patterns("__pycache__"))
        self.instance = directory / "instance"
        self._server: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    def environ(self) -> dict[str, str]:
        """Return the environment of its programs."""
        path = os.pathsep.join([str(self._bin), os.environ.get("PATH", "")])
        modules = os.pathsep.join([str(self.directory), os.environ.get("PYTHONPATH", "")])
        ours = {"PATH": path, "PYTHONPATH": modules, "PYTHONWARNINGS": "ignore"}
        # Where the environment has Plone too, its plone.protect is not to protect plain Zope.
        return {**os.environ, **ours, "PLONE_CSRF_DISABLED": "true"}

    def call(self, command: str) -> str:
        """Run a command line to its end; return what it has printed."""
        ended = subprocess.run(
            ["sh", "-ec", command],
            env=self.environ(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def console(self, code: str) -> str:
        """Run Python in a console; return the last line that it has printed."""
        script = self.directory / "script.py"
        script.write_text(code)
        return self.call(f"zconsole run instance/etc/zope.conf {script}").splitlines()[-1]

    def start(self) -> None:
        """Serve."""
        ini = self.instance / "etc" / "zope.ini"
        ini.write_text(re.sub(r"port = \d+", f"port = {self._port}", ini.read_text()))
        with (self.directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._bin / "runwsgi"), str(ini)],
                env=self.environ(),
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        self.until(self._answers)

    @property
    def is_down(self) -> bool:
        """Whether it has to be started."""
        return self._server is None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server by a signal."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(SECONDS)
            self._server = None

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.directory / "log").read_text()[-3000:]
        try:
            return self.ask("/").status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(self, path: str, user: str | None = None, **form: str) -> Answer:
        """Return what a page answers; with fields they are posted.

        :param user: with the password, as ``name:password``.
        """
        headers = {}
        if user is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        url = path if "://" in path else f"http://127.0.0.1:{self._port}{path}"
        request = urllib.request.Request(url, urlencode(form).encode() or None, headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return Answer(answer.status, answer.read().decode(), answer.url)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), url)

    @staticmethod
    def until(condition: Callable[[], Any]) -> Any:
        """Return what is true at last."""
        end = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < end
            time.sleep(0.1)
        return found
