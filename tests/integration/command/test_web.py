# SPDX-License-Identifier: ZPL-2.1
"""``remotetask web`` and ``remotetask credential``."""

from __future__ import annotations

import base64
import json
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.client import RemoteService
from lovely.remotetask.command.main import main
from lovely.remotetask.command.pastedeploy import app_factory
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.web import credentials
from lovely.remotetask.web.credentials import TOKEN, read_entries

TASKS = """
from lovely.remotetask.task import task

@task("double")
def double(input):
    return 2 * input
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a database that has a service, and a module with its task."""
    db = ZODB.DB(FileStorage(str(tmp_path / "Data.fs")))
    with db.transaction() as connection:
        connection.root()["tasks"] = TaskService()
    db.close()
    (tmp_path / "shop_tasks.py").write_text(TASKS)
    return tmp_path


def address_in(line: str) -> str:
    found = re.search(r"http://\S+/", line)
    assert found is not None
    return found[0]


def test_jobs_are_served_and_worked_on_until_a_signal_comes(
    place: Path, started: Any, wait_for: Any
) -> None:
    arguments = ("web", f"file://{place}/Data.fs", "@tasks", "--import", "shop_tasks")
    with started(*arguments, "--port", 0, "--workers", cwd=place) as process:
        url = address_in(wait_for(process.stdout, lambda line: "http://" in line))
        service = RemoteService(url)
        assert service.wait_result(service.add("double", 21), 60) == 42
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)


def test_a_name_that_leads_here_from_elsewhere_is_not_served(
    place: Path, started: Any, wait_for: Any
) -> None:
    arguments = ("web", f"file://{place}/Data.fs", "--port", 0, "--json")
    with started(*arguments, cwd=place) as process:
        url = address_in(wait_for(process.stdout, lambda line: "http://" in line))
        request = urllib.request.Request(f"{url}api/v1/jobs", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request, timeout=10)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_who_has_a_token_or_a_password_is_let_in(
    place: Path, started: Any, wait_for: Any, remotetask: Any
) -> None:
    made = remotetask("credential", "shop", "--token", "--permissions", "view,add", cwd=place)
    token = made.stderr.removeprefix("token: ").strip()
    (place / "tokens").write_text(made.stdout)
    arguments = ("web", f"file://{place}/Data.fs", "--host", "0.0.0.0", "--port", 0)
    arguments += ("--tokens", place / "tokens", "--import", "shop_tasks")
    with started(*arguments, cwd=place) as process:
        line = wait_for(process.stdout, lambda line: "http://" in line)
        url = address_in(line).replace("0.0.0.0", "127.0.0.1")
        service = RemoteService(url, token=token)
        jobid = service.add("double", 1)
        assert service.getStatus(jobid) == "queued"
        with pytest.raises(Exception, match="403"):
            service.cancel(jobid)
        with pytest.raises(Exception, match="401"):
            RemoteService(url, token="guess").countJobs()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_others_cannot_reach_what_anybody_may_do(
    place: Path, host: str, remotetask: Any, error_of: Any
) -> None:
    ended = remotetask("web", f"file://{place}/Data.fs", "--host", host, cwd=place)
    assert f"{host} can be reached by others" in error_of(ended, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--tokens", "nowhere"), "nowhere cannot be read"),
        (("--host", "no.such.host.invalid"), "there is no host"),
        (("@nix",), "no service in"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    place: Path, arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", f"file://{place}/Data.fs", *arguments]) in (1, 2)
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1


def test_a_port_that_is_taken_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["web", f"file://{place}/Data.fs", "--port", port]) == 1
    assert f"cannot listen at 127.0.0.1, port {port}" in capsys.readouterr().err


def test_a_line_for_a_file_is_made_of_a_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from webob import Request

    from lovely.remotetask.web.authorizers import BasicPasswords

    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\n"))
    assert main(["credential", "alice", "--permissions", "view,manage"]) == 0
    line = capsys.readouterr().out
    assert "s3cret" not in line
    (tmp_path / "passwords").write_text(line)
    shown = base64.b64encode(b"alice:s3cret").decode()
    request = Request.blank("/", headers={"Authorization": f"Basic {shown}"})
    authorize = BasicPasswords.from_file(tmp_path / "passwords")
    assert [authorize(request, name) for name in ("view", "add", "manage")] == [True, False, True]


def test_a_token_is_told_to_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credential", "shop", "--token", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (tmp_path / "tokens").write_text(told["line"])
    [entry] = read_entries(tmp_path / "tokens", TOKEN)
    assert (entry.name, entry.permissions) == ("shop", {"view"})
    assert told["token"] not in told["line"]


@pytest.mark.parametrize("wrong", [["a b"], ["a", "--permissions", "all"], ["a:b"]])
def test_a_credential_that_makes_no_sense_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["credential", "--token", *wrong]) == 2
    assert capsys.readouterr().out == ""


def test_the_demo_serves_pages_while_it_works_and_afterwards(
    tmp_path: Path, started: Any, wait_for: Any
) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"some words {number}\n")
    arguments = ("demo", "texts", "--database", "demo", "--web", "--port", 0)
    with started(*arguments, cwd=tmp_path) as process:
        url = address_in(wait_for(process.stdout, lambda line: "pages: http" in line))
        service = RemoteService(url)
        assert service.countJobs()
        wait_for(process.stdout, lambda line: "The pages stay open" in line)
        assert service.countJobs()["completed"] >= 3
        assert service.isProcessing()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_the_application_of_a_pastedeploy_file_is_the_same(place: Path) -> None:
    from paste.deploy import loadapp
    from webob import Request

    made = credentials.line_of("shop", ["view"], credentials.hash_token("t"))
    (place / "tokens").write_text(made)
    configuration = f"""
        [app:main]
        use = call:lovely.remotetask.command.pastedeploy:app_factory
        uri = file://{place}/Data.fs
        services = @tasks
        tokens = %(here)s/tokens
        read_only = yes
    """
    (place / "jobs.ini").write_text(dedent(configuration))
    app = loadapp(f"config:{place}/jobs.ini")
    request = Request.blank("/api/v1/jobs", headers={"Authorization": "Bearer t"})
    assert request.get_response(app).json == {"jobs": [], "next": None}
    assert Request.blank("/api/v1/jobs").get_response(app).status_int == 401
    app.database.close()
    with pytest.raises(InvalidArgument, match="nobody is let in"):
        app_factory({}, f"file://{place}/Data.fs")
    with pytest.raises(InvalidArgument, match="read_only"):
        app_factory({}, f"file://{place}/Data.fs", tokens=f"{place}/tokens", read_only="maybe")
