# SPDX-License-Identifier: ZPL-2.1
"""A real Plone: a server that is started as its users start it, asked over HTTP."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

HOSTS = Path(__file__).parent / "integration" / "hosts"
EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "plone"
SECONDS = 90
PASSWORDS = dict.fromkeys(("jane", "joe", "edith"), "Secret-12345") | {"admin": "admin"}


class Answer(NamedTuple):
    """What a server has answered.

    :ivar url: where it was found, behind redirections.
    """

    status: int
    text: str
    headers: Any
    url: str

    def json(self) -> Any:
        """Return what the text says."""
        return json.loads(self.text)

    def token(self) -> str:
        """Return the authenticator of the first form."""
        found = re.search(r'name="_authenticator"[^>]* value="(\w+)"', self.text)
        assert found is not None, self.text
        return found[1]


class Plone:
    """An instance of Zope with a Plone site."""

    def __init__(self, python: Path, directory: Path) -> None:
        self._bin = python.parent
        self.directory = directory
        self._server: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.data = directory / "var" / "Data.fs"
        self._example = directory.parent / "site-packages"
        self._install_example()
        self.call("mkwsgiinstance", "-d", str(directory), "-u", "admin:admin")
        includes = directory / "etc" / "package-includes"
        includes.mkdir()
        (includes / "shop-configure.zcml").write_text((HOSTS / "plone_shop.zcml").read_text())
        with (directory / "etc" / "zope.conf").open("a") as conf:
            conf.write(
                "<product-config lovely.remotetask>\n  autostart Plone@*\n"
                "  server-url http://configured.example.com\n</product-config>\n"
            )
        ini = directory / "etc" / "zope.ini"
        ini.write_text(ini.read_text().replace("port = 8080", f"port = {self._port}"))
        self.run_script(HOSTS / "plone_make.py")

    def _install_example(self) -> None:
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--target", self._example)
        command = [sys.executable, "-m", "pip", "install", "-q", *options, EXAMPLE]
        subprocess.run(command, check=True, timeout=SECONDS)

    def _environ(self) -> dict[str, str]:
        path = os.pathsep.join([str(HOSTS), str(self._example)])
        return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}

    def call(self, program: str, *arguments: str) -> str:
        """Run a program of the environment to its end; return what it has printed."""
        ended = subprocess.run(
            [str(self._bin / program), *arguments],
            env=self._environ(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def run_script(self, script: Path) -> str:
        """Run a script in a console."""
        return self.call("zconsole", "run", str(self.directory / "etc" / "zope.conf"), str(script))

    @contextmanager
    def set_back(self) -> Iterator[None]:
        """Let the database be, after the block, as it was; no server may run."""
        before = self.data.read_bytes()
        try:
            yield
        finally:
            self.data.write_bytes(before)
            self.data.with_name("Data.fs.index").unlink(missing_ok=True)

    def begun(self, program: str, *arguments: str, name: str = "worker") -> subprocess.Popen[bytes]:
        """Begin a program of the environment, which prints into a log with this name."""
        with (self.directory / name).open("ab") as log:
            return subprocess.Popen(
                [str(self._bin / program), *arguments],
                env=self._environ(),
                stdout=log,
                stderr=log,
            )

    def log(self, name: str = "log") -> str:
        """Return what a program has printed; without a name the server."""
        return (self.directory / name).read_text()

    def start(self) -> None:
        """Serve."""
        ini = str(self.directory / "etc" / "zope.ini")
        self._server = self.begun("runwsgi", ini, name="log")
        self.until(self._answers)

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
            return self.run("jane", "result = 1") == 1
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(
        self,
        path: str,
        user: str | None = None,
        form: dict[str, str] | None = None,
        data: Any = None,
        method: str | None = None,
    ) -> Answer:
        """Return what a page answers; a form is posted, and so is data, as JSON."""
        headers = {}
        if user is not None:
            token = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        body = None if form is None else urlencode(form).encode()
        if "@remotetasks" in path or "@addons" in path:
            headers |= {"Accept": "application/json", "Content-Type": "application/json"}
            body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", body, headers, method=method
        )
        try:
            # Messages wait in a cookie for the page that comes next.
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(request, timeout=SECONDS) as answer:
                return Answer(answer.status, answer.read().decode(), answer.headers, answer.url)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), error.headers, path)

    def get(self, path: str, user: str | None = None, **form: str) -> str:
        """Return what a page says; with fields they are posted."""
        answer = self.ask(path, user, form or None)
        assert answer.status == 200, answer.text
        return answer.text

    def run(self, user: str | None, code: str, path: str = "/Plone") -> Any:
        """Run Python in a request of a user, and return what it has put into ``result``."""
        return json.loads(self.get(f"{path}/run", user, code=code))

    def add(self, user: str | None, code: str, path: str = "/Plone") -> Any:
        """Run Python that adds a job; return (status, result, error) of the job when it ended."""
        jobid = self.run(user, f"result = {code}", path)
        return self.ended(jobid)

    def ended(self, jobid: int) -> Any:
        """Wait for a job, and return its status, result and error."""
        told = "[job.is_final, job.status, job.output, job.error]"
        code = f"job = service.job({jobid}); result = {told}"
        return self.until(lambda: (found := self.run("admin", code))[0] and found)[1:]

    @staticmethod
    def until(condition: Callable[[], Any]) -> Any:
        """Return what is true at last."""
        end = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < end
            time.sleep(0.1)
        return found
