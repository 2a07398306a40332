# SPDX-License-Identifier: ZPL-2.1
"""A real Plone: a server that is started as its users start it, asked over HTTP."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

HERE = Path(__file__).parent
SECONDS = 90
PASSWORDS = {"jane": "Secret-12345", "joe": "Secret-12345", "admin": "admin"}

#: Where the site is at home, by the rules of its web server.
VIRTUAL = "/VirtualHostBase/https/shop.example.com:443/Plone/VirtualHostRoot/_vh_shop"


class Plone:
    """An instance of Zope with a Plone site."""

    def __init__(self, python: Path, directory: Path) -> None:
        self._bin = python.parent
        self.directory = directory
        self._server: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.call("mkwsgiinstance", "-d", str(directory), "-u", "admin:admin")
        includes = directory / "etc" / "package-includes"
        includes.mkdir()
        (includes / "shop-configure.zcml").write_text((HERE / "plone_shop.zcml").read_text())
        with (directory / "etc" / "zope.conf").open("a") as conf:
            conf.write(
                "<product-config lovely.remotetask>\n  autostart Plone@*\n"
                "  server-url http://configured.example.com\n</product-config>\n"
            )
        ini = directory / "etc" / "zope.ini"
        ini.write_text(ini.read_text().replace("port = 8080", f"port = {self._port}"))
        self.run_script(HERE / "plone_make.py")

    def call(self, program: str, *arguments: str) -> str:
        """Run a program of the environment to its end; return what it has printed."""
        ended = subprocess.run(
            [str(self._bin / program), *arguments],
            env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def run_script(self, script: Path) -> str:
        """Run a script in a console."""
        return self.call("zconsole", "run", str(self.directory / "etc" / "zope.conf"), str(script))

    def begun(self, program: str, *arguments: str, name: str = "worker") -> Any:
        """Begin a program of the environment, which prints into a log with this name."""
        with (self.directory / name).open("ab") as log:
            return subprocess.Popen(
                [str(self._bin / program), *arguments],
                env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONWARNINGS": "ignore"},
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> str:
        """Return what a program has printed."""
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
        assert self._server.poll() is None, self.log("log")[-3000:]
        try:
            return self.run("jane", "result = 1") == 1
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path: str, user: str | None = None, **form: str) -> str:
        """Return what a page says; with fields they are posted."""
        headers = {}
        if user is not None:
            token = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", urlencode(form).encode() or None, headers
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        return text

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


@pytest.fixture(scope="module")
def instance(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[[object, str, str], None]
) -> Iterator[Plone]:
    python = os.environ.get("REMOTETASK_PLONE_PYTHON")
    need(
        python,
        "REMOTETASK_PLONE_PYTHON names no Python that has Plone and this package",
        "python3 -m venv plone && plone/bin/pip install -r tests/pins/plone-6.2.in -e . && "
        "export REMOTETASK_PLONE_PYTHON=$PWD/plone/bin/python",
    )
    instance = Plone(Path(str(python)), tmp_path_factory.mktemp("plone") / "instance")
    yield instance
    instance.stop()


@pytest.fixture
def plone(instance: Plone) -> Plone:
    """A Plone that serves."""
    if instance._server is None:
        instance.start()
    return instance


def test_a_job_sees_what_a_request_of_the_user_who_added_it_sees(plone: Plone) -> None:
    status, seen, error = plone.add("jane", "service.add('look', '')", VIRTUAL)
    assert (status, error) == ("completed", None)
    assert seen["url"] == seen["portal"] == "https://shop.example.com/shop"
    assert seen["user"] == "jane"
    assert seen["roles"] == ["Authenticated", "Member", "Site Administrator"]
    assert "IThemingLayer" in seen["layers"]
    assert "IPloneFormLayer" in seen["layers"]
    assert seen["translated"] == "Bearbeiten"
    assert seen["form"] == {}


def test_the_next_job_sees_nothing_of_the_one_before(plone: Plone) -> None:
    plone.add("jane", "service.add('mark')")
    _, seen, _ = plone.add(None, "service.add('look', '')")
    assert (seen["mark"], seen["user"], seen["roles"]) == (None, None, ["Anonymous"])


def test_a_job_of_no_request_has_the_configured_address(plone: Plone) -> None:
    code = "from zope.globalrequest import setRequest; setRequest(None); "
    jobid = plone.run("jane", f"{code}result = service.add('look', '')")
    assert plone.ended(jobid)[1]["url"] == "http://configured.example.com/Plone"


def test_what_a_job_makes_is_in_the_catalog_as_if_a_request_had_made_it(plone: Plone) -> None:
    _, by_job, error = plone.add("jane", "service.add('make', 'By a job')")
    assert error is None
    entry = """
def entry(path):
    [brain] = portal.portal_catalog(path=path)
    names = ("Title", "Creator", "review_state", "portal_type", "is_folderish", "Type")
    provided = portal.portal_catalog.getIndexDataForRID(brain.getRID())["object_provides"]
    roles = portal.portal_catalog.getIndexDataForRID(brain.getRID())["allowedRolesAndUsers"]
    return [*(getattr(brain, name) for name in names), sorted(provided), sorted(roles)]
"""
    made = "api.content.create(portal, 'Document', title='By a request').getPhysicalPath()"
    code = f"{entry}\nresult = [entry({by_job!r}), entry('/'.join({made}))]"
    job, request = plone.run("jane", code)
    assert job[0] == "By a job"
    assert job[1:] == request[1:]
    assert job[1] == "jane"


def test_a_job_can_run_as_somebody_else(plone: Plone) -> None:
    code = "with zope.run_as('joe'): result = service.add('look', '')"
    assert plone.ended(plone.run("jane", code))[1]["user"] == "joe"


def test_a_user_who_is_gone_is_a_clear_error(plone: Plone) -> None:
    code = "with zope.run_as('nobody-here'): result = service.add('look', '')"
    status, _, error = plone.ended(plone.run("jane", code))
    assert status == "error"
    assert "'nobody-here', as whom the job is to run, is not there any more" in error


def test_content_is_found_where_it_was_moved_to(plone: Plone) -> None:
    code = """
page = api.content.create(portal, "Document", title="To move")
given = content.reference(page)
folder = api.content.create(portal, "Folder", title="A folder")
api.content.move(page, folder)
result = service.add("show", given)
"""
    assert plone.ended(plone.run("jane", code))[:2] == ["completed", "To move"]


def test_content_that_is_gone_or_not_to_be_seen_is_a_clear_error(plone: Plone) -> None:
    code = """
page = api.content.create(portal, "Document", title="Private")
given = content.reference(page)
if {gone}:
    api.content.delete(page)
with zope.run_as("joe"):
    result = service.add("show", given)
"""
    status, _, error = plone.ended(plone.run("jane", code.format(gone=True)))
    assert (status, error) == ("error", "/Plone/private is not there any more")
    status, _, error = plone.ended(plone.run("jane", code.format(gone=False)))
    assert (status, error) == ("error", "joe has no permission 'View' at /Plone/private")


def test_a_view_and_a_function_are_called_by_one_call_each(plone: Plone) -> None:
    code = """
page = api.content.create(portal, "Document", title="Called")
result = [
    content.call_view(service, page, "@@shop-title", **{"with": "this"}),
    content.call_function(service, page, rename, "Renamed", exclaim=True),
]
"""
    view, function = plone.run("jane", code)
    assert plone.ended(view)[:2] == ["completed", "Called this"]
    status, url, _ = plone.ended(function)
    assert status == "completed"
    assert plone.run(
        "jane", f"result = portal.restrictedTraverse({url.split('/Plone/')[1]!r}).title"
    ) == ("Renamed!")


def test_the_undo_log_names_task_and_user(plone: Plone) -> None:
    plone.add("jane", "service.add('make', 'To be undone')")
    code = """
result = [
    f"{entry['user_name']} {entry['description']}"
    for entry in portal._p_jar.db().undoInfo(0, 20)
]
"""
    assert any("jane remotetask make" in line for line in plone.run("jane", code))


def test_a_restart_in_the_middle_loses_nothing(plone: Plone, tmp_path: Path) -> None:
    path = tmp_path / "go"
    jobid = plone.run("jane", f"result = service.add('slow', {str(path)!r})")
    plone.until(path.with_suffix(".begun").exists)
    plone.stop()
    path.touch()
    plone.start()
    status, output, _ = plone.ended(jobid)
    assert (status, output) == ("completed", "done")
    code = f"result = [failure.type for failure in service.job({jobid}).failures]"
    assert plone.run("jane", code) == ["JobInterrupted"]  # it was given back


def test_a_console_leaves_the_queue_alone(plone: Plone, tmp_path: Path) -> None:
    plone.run("jane", "service.pause()")
    jobid = plone.run("jane", "result = service.add('look', '')")
    plone.stop()
    script = tmp_path / "ask.py"
    script.write_text(
        "import time, transaction\n"
        "from lovely.remotetask.interfaces import ITaskService\n"
        "service = app.Plone.getSiteManager().getUtility(ITaskService, 'tasks')\n"
        "service.resume()\n"
        "transaction.commit()\n"
        "time.sleep(1)\n"
        "transaction.begin()\n"
        f"print(service.isProcessing(), service.getStatus({jobid}))\n"
    )
    assert plone.run_script(script).splitlines()[-1] == "False queued"
    plone.start()
    assert plone.ended(jobid)[0] == "completed"


def test_the_command_works_on_jobs_without_a_web_server(plone: Plone, tmp_path: Path) -> None:
    plone.run("jane", "service.pause()")
    jobid = plone.run("jane", "result = service.add('make', 'By the command')")
    plone.stop()
    script = tmp_path / "resume.py"
    script.write_text(
        "import transaction\n"
        "from lovely.remotetask.interfaces import ITaskService\n"
        "app.Plone.getSiteManager().getUtility(ITaskService, 'tasks').resume()\n"
        "transaction.commit()\n"
    )
    plone.run_script(script)
    conf = str(plone.directory / "etc" / "zope.conf")
    with plone.begun(
        "remotetask", "run", "--zope-conf", conf, "--threads", "2", "--verbose"
    ) as worker:
        plone.until(lambda: f"job {jobid}: task make, attempt 1: completed" in plone.log("worker"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0
    plone.start()
    status, path, error = plone.ended(jobid)
    assert (status, error) == ("completed", None)
    found = f"[brain] = portal.portal_catalog(path={path!r})"
    code = f"{found}; result = [brain.Creator, brain.review_state]"
    assert plone.run("jane", code) == ["jane", "private"]


def test_after_an_uninstall_the_site_works_without_the_package(
    plone: Plone, tmp_path: Path
) -> None:
    plone.stop()
    before = (plone.directory / "var" / "Data.fs").read_bytes()
    try:
        remove = tmp_path / "remove.py"
        remove.write_text(
            "import transaction\n"
            "from lovely.remotetask.hosts.zope import uninstall\n"
            "print(uninstall(app.Plone), uninstall(app.Plone))\n"
            "transaction.commit()\n"
        )
        assert plone.run_script(remove).splitlines()[-1] == "True False"
        includes = plone.directory / "etc" / "package-includes" / "shop-configure.zcml"
        without = includes.rename(includes.with_suffix(".off"))
        ask = tmp_path / "ask.py"
        ask.write_text(
            "import sys\n"
            "sys.modules['lovely.remotetask'] = None\n"
            "app._p_jar.cacheMinimize()\n"
            "from zope.component.hooks import setSite\n"
            "setSite(app.Plone)\n"
            "registry = app.Plone.getSiteManager()\n"
            "names = [u.name for u in registry.registeredUtilities()]\n"
            "print(len(names) > 10, len(app.Plone.portal_catalog()) > 0)\n"
        )
        try:
            assert plone.run_script(ask).splitlines()[-1] == "True True"
        finally:
            without.rename(includes)
    finally:
        (plone.directory / "var" / "Data.fs").write_bytes(before)
        (plone.directory / "var" / "Data.fs.index").unlink(missing_ok=True)
