# SPDX-License-Identifier: ZPL-2.1
"""``remotetask add``, in processes of its own, on files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lovely.remotetask.base.storable import OUTSIDE_MAX_BYTES, OUTSIDE_MAX_DEPTH
from lovely.remotetask.command.main import main
from lovely.remotetask.interfaces import COMPLETED, QUEUED

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli"]
SECONDS = 30  # within which a command must have ended

#: As Zope and Plone have it: the registry holds services and tasks, neither has a parent.
TOWN = """
    import ZODB
    from persistent import Persistent
    from zope.component.interfaces import ISite
    from zope.component.persistentregistry import PersistentComponents
    from zope.interface import implementer
    from lovely.remotetask import TaskService
    from lovely.remotetask.interfaces import ITask, ITaskService
    from lovely.remotetask.task import EchoTask

    @implementer(ISite)
    class Site(Persistent):
        def __init__(self):
            self.components = PersistentComponents()

        def getSiteManager(self):
            return self.components

    def fill():
        database = ZODB.DB("Data.fs")
        with database.transaction() as connection:
            site = connection.root()["shop"] = Site()
            site.components.registerUtility(TaskService(), ITaskService, name="mail")
            site.components.registerUtility(EchoTask(), ITask, name="local")
        database.close()
"""


def test_the_id_of_an_added_job_is_printed(place: Any) -> None:
    ended = place.add("note", "--import", "shop", "--input", '{"size": [128, 64]}')
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"\d+\n", ended.stdout)
    with place.service() as service:
        job = service.jobs[int(ended.stdout)]
        assert (job.task, job.input, job.status) == ("note", {"size": [128, 64]}, QUEUED)
    assert place.check().returncode == 0


def test_a_job_is_added_once_with_its_options(place: Any) -> None:
    options = ["--priority", "-5", "--unique-key", "my key", "--lock", "desk", "--expires", "3600"]
    first, second = (place.add("note", "--import", "shop", *options) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == second.stdout
    with place.service() as service:
        [job] = service.jobs.values()
        assert (job.priority, job.unique_key, job.lock) == (-5, "my key", "desk")
        assert job.expires_at == pytest.approx(job.created_at + 3600, abs=1)
    ended = place.add("note", "--import", "shop", "--priority", "1000")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "priority must be an int" in ended.stderr


def test_a_job_is_added_for_a_time_or_for_behind_others(place: Any) -> None:
    def add(*options: str) -> Any:
        ended = place.add("note", "--import", "shop", *options)
        assert (ended.returncode, ended.stderr) == (0, "")
        return int(ended.stdout)

    first, second = add("--delay", "3600"), add("--at", "2070-01-31T12:00:00+01:00")
    third = add("--after", str(first), "--after", str(second))
    with place.service() as service:
        delayed, due, behind = (service.jobs[jobid] for jobid in (first, second, third))
        assert delayed.due == pytest.approx(delayed.created_at + 3600, abs=1)
        at = datetime(2070, 1, 31, 11, tzinfo=timezone.utc)
        assert due.due == pytest.approx(at.timestamp(), abs=1)
        assert (behind.status, behind.after) == (QUEUED, (first, second))
    for options, status, text in (
        (("--at", "2070-01-31 12:00:00"), 2, "--at must be a time such as 2030-01-31T12:00:00Z"),
        (("--delay", "1", "--after", str(first)), 2, "one of after, delay, at and startLater"),
        (("--after", "4711"), 1, "4711"),
    ):
        ended = place.add("note", "--import", "shop", *options)
        assert (ended.returncode, ended.stdout) == (status, "")
        assert text in ended.stderr


def test_the_id_of_an_added_job_is_there_for_programs(place: Any) -> None:
    ended = place.add("note", "--import", "shop", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    [(name, jobid)] = json.loads(ended.stdout).items()
    assert name == "job"
    with place.service() as service:
        assert service.jobs[jobid].input is None


def test_an_added_job_is_run_by_the_command_that_runs(place: Any) -> None:
    jobid = int(place.add("note", "--import", "shop", "--input", '"hello"').stdout)
    with subprocess.Popen(
        [*COMMAND, "run", place.uri, "--import", "shop"],
        cwd=place.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            end = time.monotonic() + SECONDS
            while not (place.directory / "noted").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.01)
            process.terminate()
            _, stderr = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    with place.service() as service:
        assert (service.getStatus(jobid), service.getResult(jobid)) == (COMPLETED, "hello")
    assert place.check().returncode == 0


@pytest.mark.parametrize("text", ["{size: 128}", "", "hello", "[1, 2", "[" * 50_000])
def test_input_that_is_no_json_is_told(place: Any, text: str, error_of: Any) -> None:
    ended = place.add("note", "--import", "shop", "--input", text)
    assert "--input is no JSON" in error_of(ended, 2)
    assert place.inputs() == []


def test_an_unknown_task_is_told(place: Any, error_of: Any) -> None:
    ended = place.add("juggle", "--import", "shop")
    assert "'juggle'" in error_of(ended, 1)
    assert "'note'" in error_of(place.add("note"), 1)  # who does not import knows nothing
    assert "'demo.report'" in error_of(place.add("demo.report"), 1)
    assert place.inputs() == []


def nested(depth: int) -> str:
    """Return JSON of so many lists in each other."""
    return "[" * depth + "1" + "]" * depth


def test_input_that_is_nested_too_deep_is_refused(place: Any, error_of: Any) -> None:
    before = (place.directory / "Data.fs").read_bytes()
    ended = place.add("note", "--import", "shop", "--input", nested(OUTSIDE_MAX_DEPTH + 1))
    assert f"deeper than {OUTSIDE_MAX_DEPTH} levels" in error_of(ended, 1)
    assert (place.directory / "Data.fs").read_bytes() == before
    ended = place.add("note", "--import", "shop", "--input", nested(OUTSIDE_MAX_DEPTH))
    assert ended.returncode == 0, ended.stderr
    assert len(place.inputs()) == 1


def test_input_that_is_too_large_is_refused(
    place: Any, register: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process: systems bound what one argument of a new process may hold.
    register("note", lambda input: input)
    before = (place.directory / "Data.fs").read_bytes()
    assert main(["add", place.uri, "note", "--input", json.dumps("x" * OUTSIDE_MAX_BYTES)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"larger than {OUTSIDE_MAX_BYTES} bytes" in captured.err
    assert (place.directory / "Data.fs").read_bytes() == before
    fitting = "x" * (OUTSIDE_MAX_BYTES - 100)
    assert main(["add", place.uri, "note", "--input", json.dumps(fitting)]) == 0
    assert place.inputs() == [fitting]


def test_tighter_limits_of_the_service_win(place: Any, error_of: Any) -> None:
    place.new_service("tight", max_input_bytes=50, max_input_depth=2)
    arguments = ("note", "--import", "shop", "--service", "@tight", "--input")
    assert "larger than 50 bytes" in error_of(place.add(*arguments, json.dumps("x" * 60)), 1)
    assert "deeper than 2 levels" in error_of(place.add(*arguments, nested(3)), 1)
    assert place.inputs("tight") == []
    assert place.add(*arguments, nested(2)).returncode == 0
    assert place.inputs("tight") == [[[1]]]


def test_a_limit_of_nothing_is_one(place: Any, error_of: Any) -> None:
    place.new_service("flat", max_input_depth=0)
    arguments = ("note", "--import", "shop", "--service", "@flat", "--input")
    assert "deeper than 0 levels" in error_of(place.add(*arguments, nested(1)), 1)
    assert place.add(*arguments, "1").returncode == 0


def test_wider_limits_of_the_service_win(
    place: Any, register: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    register("note", lambda input: input)
    place.new_service("wide", max_input_bytes=3 * OUTSIDE_MAX_BYTES, max_input_depth=200)
    arguments = ["add", place.uri, "note", "--service", "@wide", "--input"]
    assert main([*arguments, json.dumps("x" * 2 * OUTSIDE_MAX_BYTES)]) == 0
    assert main([*arguments, nested(150)]) == 0
    assert capsys.readouterr().err == ""
    assert len(place.inputs("wide")) == 2


def test_which_of_several_services_is_asked(place: Any, error_of: Any) -> None:
    place.new_service("mail")
    text = error_of(place.add("note", "--import", "shop"), 2)
    assert "--service must name one of" in text
    assert "@mail" in text
    assert "@tasks" in text
    assert (place.inputs("mail"), place.inputs()) == ([], [])


def test_the_services_are_named_as_they_can_be_given(place: Any, error_of: Any) -> None:
    place.new_service("mail")
    text = error_of(place.add("note", "--import", "shop"), 2)
    names = text.strip().partition("must name one of ")[2].split(", ")
    assert len(names) == 2
    for name in names:
        ended = place.add("note", "--import", "shop", "--service", name, "--input", f'"{name}"')
        assert ended.returncode == 0, ended.stderr
    assert (len(place.inputs("mail")), len(place.inputs())) == (1, 1)


def test_a_task_that_only_the_site_knows_can_be_added(tmp_path: Path, empty_place: Any) -> None:
    (tmp_path / "town.py").write_text(dedent(TOWN))
    subprocess.run(
        [sys.executable, "-c", "import town; town.fill()"],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    ended = empty_place.add("local", "--import", "town", "--service", "shop@mail")
    assert ended.returncode == 0, ended.stderr
    assert empty_place.check("--import", "town").returncode == 0


def test_the_input_can_come_from_stdin(place: Any, jobs: Any) -> None:
    ended = subprocess.run(
        [*COMMAND, "add", place.uri, "note", "--import", "shop", "--input", "-", "--json"],
        cwd=place.directory,
        input='{"size": [1, 2]}',
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    with place.root() as root:
        job = root["tasks"].jobs[json.loads(ended.stdout)["job"]]
        assert (job.status, job.input) == (QUEUED, {"size": [1, 2]})
