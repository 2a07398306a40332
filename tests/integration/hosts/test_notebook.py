# SPDX-License-Identifier: ZPL-2.1
"""The bar for a job that is waited for; the notebook of the example, in a real kernel."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from example_server import copied, environ
from lovely.remotetask.errors import JobFailed, JobNotDone, TransactionInProgress
from lovely.remotetask.hosts import notebook
from lovely.remotetask.hosts.notebook import follow

#: Runs the cells, and prints what they show: each line the text of a display or of a result.
EXECUTE = """
import nbformat
from nbclient import NotebookClient

class Client(NotebookClient):
    def process_message(self, msg, cell, cell_index):
        data = msg["content"].get("data", {})
        if "text/plain" in data:
            print(cell_index, data["text/plain"].replace("\\n", " "))
        return super().process_message(msg, cell, cell_index)

notebook = nbformat.read("counting.ipynb", 4)
Client(notebook, timeout=60, kernel_name="python3").execute()
"""


def start(workplace: Any, name: str, *arguments: Any) -> int:
    """Add a job, and let it run."""
    workplace.start()
    with workplace.service() as service:
        jobid: int = service.add(name, *arguments)
    return jobid


def test_a_job_is_followed_to_its_result(workplace: Any, capsys: Any) -> None:
    jobid = start(workplace, "echo", "heard")
    with workplace.service() as service:
        assert follow(service, jobid) == "heard"
    assert f"job {jobid}: completed" in capsys.readouterr().err


def test_the_bar_shows_the_progress(
    workplace: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def step(context: Any, input: Any) -> None:
        context.progress(2, 4, "[two]")
        assert go.wait(60)

    shown: list[str] = []
    update = notebook.Progress.update

    def watch(self: Any, row: Any, **fields: Any) -> None:
        update(self, row, **fields)
        shown.append(f"{self.tasks[0].percentage:g} {fields['message']}")
        if shown[-1] == "50 2 of 4 [two]":
            go.set()

    monkeypatch.setattr(notebook.Progress, "update", watch)
    register("step", step, context=True)
    jobid = start(workplace, "step")
    with workplace.service() as service:
        assert follow(service, jobid) is None
    assert "50 2 of 4 [two]" in shown
    assert shown[-1].startswith("100")


def test_a_job_that_fails_says_so(workplace: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise ArithmeticError("one too many")

    register("fail", fail)
    jobid = start(workplace, "fail")
    with workplace.service() as service, pytest.raises(JobFailed, match="one too many"):
        follow(service, jobid)


def test_it_waits_no_longer_than_it_is_told(workplace: Any) -> None:
    jobid = start(workplace, "hang")
    try:
        text = rf"job {jobid} has not ended in 0\.01 seconds, it is (queued|processing)"
        with workplace.service() as service, pytest.raises(JobNotDone, match=text):
            follow(service, jobid, timeout_seconds=0.01)
    finally:
        workplace.gate.set()


def test_a_job_that_is_not_committed_is_not_waited_for(workplace: Any) -> None:
    with workplace.connected() as (_, root):
        jobid = root["tasks"].add("echo", 1)
        with pytest.raises(TransactionInProgress):
            follow(root["tasks"], jobid)


def test_the_notebook_of_the_example_runs_in_a_kernel(tmp_path: Path) -> None:
    directory = copied("jupyter", tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        cwd=directory,
        env={**environ(directory), "PYTHONWARNINGS": "ignore", "IPYTHONDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert any("processing" in line and "of 10" in line for line in lines), lines
    assert any("'to': 2" in line for line in lines), lines
    assert lines[-1].endswith("[{'to': 1, 'be': 1}, {'or': 1, 'not': 1}]")
