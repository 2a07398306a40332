# SPDX-License-Identifier: ZPL-2.1
"""The example of Flask, served as its page says."""

from __future__ import annotations

import importlib.util
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ZODB

from example_server import EXAMPLES, copied, free_port, get, program, served, visit, wait

WAITRESS = "import sys; from waitress.runner import run; sys.exit(run())"
FLASK = "import sys; from flask.cli import main; sys.exit(main())"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("counting", EXAMPLES / "flask" / "counting.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "counting", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def db(counting: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZODB.DB]:
    """The database that the application opens."""
    db = ZODB.DB(None)
    monkeypatch.setattr(counting.ZODB, "DB", lambda path: db)
    yield db
    db.close()


@pytest.mark.parametrize(
    ("name", "code", "arguments"),
    [
        (
            "waitress-serve",
            WAITRESS,
            ["--listen", "127.0.0.1:{port}", "--call", "counting:make_app"],
        ),
        ("flask", FLASK, ["--app", "counting", "run", "--port", "{port}"]),
    ],
)
def test_the_example_adds_a_job_shows_it_and_goes_on_after_a_restart(
    tmp_path: Path, name: str, code: str, arguments: list[str]
) -> None:
    directory = copied("flask", tmp_path)
    port = free_port()
    command = program(directory, name, code) + [part.format(port=port) for part in arguments]
    with served(directory, port, command) as url:
        job, _ = visit(f"{url}/jobs", text="a b " * 20)
        wait(lambda: "word" in get(job).partition("status")[2])
    with served(directory, port, command) as url:
        page = wait(lambda: "completed" in (text := get(job)) and text)
        assert "a: 20 b: 20" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}/jobs/1")
    assert "Traceback" not in (directory / "log").read_text()


def test_a_view_that_fails_leaves_no_job(counting: ModuleType, db: Any) -> None:
    app = counting.make_app()

    @app.get("/fail")
    def fail() -> str:
        counting.g.tasks.add(counting.count, "")
        raise ArithmeticError

    client = app.test_client()
    assert client.get("/fail").status_code == 500
    assert client.post("/jobs", data={"text": "a"}).status_code == 303
    with db.transaction() as connection:
        assert connection.root()["tasks"].countJobs()["queued"] == 1


def test_a_process_that_is_no_server_leaves_the_jobs_alone(counting: ModuleType, db: Any) -> None:
    counting.make_app()
    with db.transaction() as connection:
        assert not connection.root()["tasks"].isProcessing()
