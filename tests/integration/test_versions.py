# SPDX-License-Identifier: ZPL-2.1
"""Two versions of an application, one after the other, on one database."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

OLD = """
    import os
    from lovely.remotetask.task import task

    @task("ship", context=True)
    def ship(context, order):
        if context.attempt == 1 and os.environ.get("DIES"):
            os._exit(1)
        return order.number

    @task("other")
    def other(input):
        return input
"""
NEW = f"""{OLD}
    class Order:
        def __init__(self, number):
            self.number = number
"""
FILL = """
    import app, ZODB
    from lovely.remotetask import TaskService

    db = ZODB.DB("Data.fs")
    with db.transaction() as connection:
        connection.root()["tasks"] = TaskService()
    with db.transaction() as connection:
        service = connection.root()["tasks"]
        service.add("ship", app.Order(5))
        service.addCronJob("ship", app.Order(6), delay=0)
        service.add_many("other", range(3))
    db.close()
"""
WORK = """
    import sys, time
    import app, ZODB
    from lovely.remotetask import processor

    kind = getattr(processor, sys.argv[1])
    db = ZODB.DB("Data.fs")
    with db.transaction() as connection:
        connection.root()["tasks"].processorFactory = kind
    connection = db.open()
    service = connection.root()["tasks"]
    service.startProcessing()
    wanted = int(sys.argv[2])
    end = time.monotonic() + 20
    while service.countJobs()["completed"] < wanted and time.monotonic() < end:
        time.sleep(0.01)
        connection.sync()
    time.sleep(0.2)
    service.stopProcessing(timeout_seconds=5)
    connection.sync()
    for job in service.jobs.values():
        print(job.task, job.status)
    db.close()
"""


def write(directory: Path, **modules: str) -> None:
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(text))


def python(directory: Path, *arguments: str, **environment: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=directory,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return sorted(ended.stdout.splitlines())


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("kind", ["SimpleProcessor", "MultiProcessor"])
def test_jobs_of_the_new_version_wait_for_it(tmp_path: Path, kind: str, dies: bool) -> None:
    write(tmp_path, app=NEW, fill=FILL, work=WORK)
    python(tmp_path, "fill.py")
    if dies:  # with jobs in hand
        assert python(tmp_path, "work.py", kind, "5", DIES="1") == []
    write(tmp_path, app=OLD)
    others = ["other completed"] * 3
    assert [line for line in python(tmp_path, "work.py", kind, "3") if "other" in line] == others
    write(tmp_path, app=NEW)
    assert python(tmp_path, "work.py", kind, "5") == [*others, *["ship completed"] * 2]


def test_a_check_names_them_and_cannot_mend_them(tmp_path: Path) -> None:
    write(tmp_path, app=NEW, fill=FILL)
    python(tmp_path, "fill.py")
    check = ["-m", "lovely.remotetask.cli", "check", f"file://{tmp_path}/Data.fs"]
    assert "agree" in " ".join(python(tmp_path, *check, "--import", "app"))
    write(tmp_path, app=OLD)
    for repair in ([], ["--repair"]):
        said = python(tmp_path, *check, "--import", "app", *repair)
        assert said[-1] == "2 problem(s) found, and none can be mended here:"
        assert sum("there is no app.Order here" in line for line in said) == 2
