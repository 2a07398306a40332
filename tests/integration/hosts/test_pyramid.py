# SPDX-License-Identifier: ZPL-2.1
"""Applications of Pyramid, by ``config.include``; the example, served as its page says."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from example_server import SECONDS, copied, environ, free_port, get, program, served, visit, wait
from lovely.remotetask.hosts import pyramid as host
from lovely.remotetask.hosts import servers
from lovely.remotetask.task import task

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes an application; its keywords are settings without a prefix."""
    registries = []

    def close(registry: Any) -> None:
        host.tasks_of(registry).database().close()

    def make(**settings: Any) -> Any:
        while registries:  # a file is open once
            close(registries.pop())
        config = Configurator(
            settings={
                "zodbconn.uri": f"file://{tmp_path / 'Data.fs'}",
                **{f"remotetask.{name}": value for name, value in settings.items()},
            }
        )
        config.include("pyramid_tm")
        config.include("pyramid_zodbconn")
        registries.append(config.registry)
        config.include("lovely.remotetask.hosts.pyramid")
        config.add_route("job", "/jobs/{id}")
        config.add_view(
            lambda request: request.tasks.getStatus(int(request.matchdict["id"])),
            route_name="job",
            renderer="json",
        )
        config.add_view(lambda request: request.tasks.add("echo", 1), name="add", renderer="json")
        config.add_view(_add_and_fail, name="fail")
        return config.make_wsgi_app()

    task("echo")(lambda input: input)
    yield make
    transaction.abort()
    while registries:
        close(registries.pop())


def _add_and_fail(request: Any) -> None:
    request.tasks.add("echo", 1)
    raise ArithmeticError


def ask(app: Any, path: str) -> Any:
    """Return the response of an application."""
    return Request.blank(path).get_response(app)


def service_of(app: Any) -> Any:
    """Return the service of an application, through another connection."""
    return host.tasks_of(app.registry).database().open().root()["tasks"]


def test_the_service_is_there_when_the_application_is_made(make: Make) -> None:
    app = make()
    assert ask(app, "/add").status_code == 200
    assert service_of(app).countJobs()["queued"] == 1


def test_a_view_that_fails_leaves_no_job(make: Make) -> None:
    app = make()
    with pytest.raises(ArithmeticError):
        ask(app, "/fail")
    assert service_of(app).countJobs()["queued"] == 0


def test_an_id_that_is_not_known_is_not_found(make: Make) -> None:
    response = ask(make(), "/jobs/17")
    assert response.status_code == 404
    assert "there is no job 17" in response.text


def test_no_job_runs_in_a_process_that_is_no_server(make: Make) -> None:
    app = make()
    ask(app, "/add")
    service = service_of(app)
    assert not service.isProcessing()


def test_a_server_that_does_not_fork_works_at_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pserve", "shop.ini"])
    app = make()
    service = service_of(app)
    assert service.isProcessing()
    jobid = ask(app, "/add").json_body
    until(lambda: ask(app, f"/jobs/{jobid}").json_body == "completed")


def test_a_server_that_may_fork_works_from_its_first_request_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/gunicorn", "shop:app"])
    app = make()
    service = service_of(app)
    assert not service.isProcessing()
    ask(app, "/add")
    assert service.isProcessing()


def test_a_process_begins_once_and_a_fork_of_it_again(make: Make) -> None:
    app = make(work="true")
    tasks = host.tasks_of(app.registry)
    service = service_of(app)
    assert service.isProcessing()
    service.stopProcessing(20)
    ask(app, "/add")
    assert not service.isProcessing()  # somebody has stopped it
    tasks._begun_in = -1
    host.start(app)
    assert service.isProcessing()


@pytest.mark.parametrize("switch", [{"work": "false"}, {}])
def test_servers_can_be_told_to_leave_the_jobs_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, switch: dict[str, str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pserve", "shop.ini"])
    if not switch:
        monkeypatch.setenv("REMOTETASK_AUTOSTART", "0")
    app = make(**switch)
    ask(app, "/add")
    assert not service_of(app).isProcessing()


def test_a_service_that_is_there_is_left_as_it_is(make: Make) -> None:
    first = make()
    jobid = ask(first, "/add").json_body
    assert ask(make(), f"/jobs/{jobid}").json_body == "queued"


def test_what_is_no_service_under_its_name_is_refused(make: Make) -> None:
    app = make()
    database = host.tasks_of(app.registry).database()
    with database.transaction() as connection:
        connection.root()["tasks"] = "mine"
    with pytest.raises(ConfigurationError, match="'tasks' in the root object is no task service"):
        make()


@pytest.mark.parametrize("name", ["", "shop@tasks"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    config = Configurator(settings={"remotetask.service": name})
    with pytest.raises(ConfigurationError, match="no name of a service"):
        config.include("lovely.remotetask.hosts.pyramid")


def test_an_application_without_a_database_is_refused() -> None:
    config = Configurator()
    config.include("lovely.remotetask.hosts.pyramid")
    with pytest.raises(ConfigurationError, match="pyramid_zodbconn"):
        config.make_wsgi_app()


@pytest.mark.parametrize(
    ("argv", "is_server"),
    [
        (["/srv/bin/pserve", "a.ini"], True),
        (["C:\\pserve.exe"], False),  # a path of another system
        (["/srv/bin/pshell", "a.ini"], False),
        (["/srv/lib/pytest/__main__.py"], False),
        (["/srv/lib/gunicorn/__main__.py"], True),
        (["/srv/bin/flask", "--app", "shop", "run"], True),
        (["/srv/lib/flask/__main__.py", "shell"], False),
        (["/srv/bin/fastapi", "dev", "shop.py"], True),
        ([""], False),
        ([], False),
    ],
)
def test_servers_are_known_by_how_they_start(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], is_server: bool
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert servers.is_server() is is_server


def test_who_embeds_python_is_a_server_that_may_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))
    assert servers.is_server()
    assert servers.forks()


# -- the example ------------------------------------------------------------------------------


PSERVE = "from pyramid.scripts.pserve import main; main()"
PSHELL = "from pyramid.scripts.pshell import main; main()"


def test_the_example_adds_a_job_shows_it_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    directory = copied("pyramid", tmp_path)
    port = free_port()
    ini = directory / "counting.ini"
    ini.write_text(re.sub(r"(127\.0\.0\.1):\d+", rf"\1:{port}", ini.read_text()))
    command = [*program(directory, "pserve", PSERVE), str(ini)]
    with served(directory, port, command) as url:
        assert "role=status>" in get(f"{url}/jobs", text="to be or not to be")
        job, _ = visit(f"{url}/jobs", text="a b " * 20)
        wait(lambda: "word" in get(job))
    with served(directory, port, command) as url:
        page = wait(lambda: "completed" in (text := get(job)) and text)
        assert "a: 20, b: 20" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}/jobs/1")
    assert "Traceback" not in (directory / "log").read_text()


def test_a_console_leaves_the_jobs_of_the_example_alone(tmp_path: Path) -> None:
    directory = copied("pyramid", tmp_path)
    ended = subprocess.run(
        [*program(directory, "pshell", PSHELL), "-p", "python", "counting.ini"],
        cwd=directory,
        env=environ(directory),
        input="print('works:', request.tasks.isProcessing())\n",
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert "works: False" in ended.stdout
