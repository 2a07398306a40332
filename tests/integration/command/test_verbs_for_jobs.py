# SPDX-License-Identifier: ZPL-2.1
"""The verbs that look at jobs and tell them something, on files."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lovely.remotetask.command.main import main
from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, CRONJOB, DELAYED, ERROR, QUEUED

Told = Callable[..., Any]


@pytest.fixture
def fail(register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError(f"no {input}")

    register("fail", fail)


@pytest.fixture
def ended(place: Any, jobs: dict[str, int], fail: None) -> dict[str, int]:
    """Beside the other jobs an error, and a cancelled one."""
    with place.service() as service:
        jobs[CANCELLED] = jobs[QUEUED]
        service.cancel(jobs[CANCELLED])
        jobs[ERROR] = service.add("fail", "way")
        service.process()
        jobs[QUEUED] = service.add("echo")
    return jobs


@pytest.fixture
def told(place: Any, capsys: pytest.CaptureFixture[str]) -> Told:
    """Return ``told(verb, *arguments, code=0)``, which returns what it says to people."""

    def told(verb: str, *arguments: object, code: int = 0) -> str:
        assert main([verb, place.uri, *map(str, arguments)]) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return told


@pytest.fixture
def result(told: Told) -> Told:
    """Return the same for what it says to programs."""
    return lambda verb, *arguments, code=0: json.loads(told(verb, *arguments, "--json", code=code))


def test_status_counts_jobs(ended: dict[str, int], told: Told, result: Told, place: Any) -> None:
    text = told("status")
    assert text.startswith("tasks on root:\n  queued       1\n")
    assert "  paused       nothing\n" in text
    assert "  workers      0 with jobs in hand\n" in text
    with place.service() as service:
        counts = service.countJobs()
    [one] = result("status")
    assert one == {
        "site": "root",
        "service": "tasks",
        "jobs": counts,
        "paused": [],
        "workers": 0,
    }


def test_jobs_are_listed(ended: dict[str, int], told: Told, result: Told) -> None:
    text = told("jobs")
    lines = text.splitlines()
    assert lines[0] == "tasks on root:"
    assert lines[1].split() == ["ID", "STATUS", "WHEN", "TRY", "TASK", "ERROR"]
    assert len(lines) == 2 + len(ended)
    assert all(len(line) <= 80 for line in lines)
    [error] = [line for line in lines if str(ended[ERROR]) in line]
    assert error.split()[1:] == ["error", "0s", "ago", "1", "fail", "no", "way"]
    [delayed] = [line for line in lines if str(ended[DELAYED]) in line]
    assert " in 59m " in delayed
    [one] = result("jobs")
    assert {job["id"] for job in one["jobs"]} == set(ended.values())
    assert one["next"] is None


def test_jobs_are_filtered_and_ordered(ended: dict[str, int], told: Told, result: Told) -> None:
    def ids(*arguments: str) -> list[int]:
        return [job["id"] for one in result("jobs", *arguments) for job in one["jobs"]]

    assert ids("--status", "error") == [ended[ERROR]]
    assert ids("--task", "fail") == [ended[ERROR]]
    assert ids("--oldest") == ids()[::-1]
    assert "no jobs here" in told("jobs", "--task", "nobody's")
    [first] = result("jobs", "--limit", "4")
    assert f"more: --service '@tasks' --after {first['next']}" in told("jobs", "--limit", "4")
    assert [job["id"] for job in first["jobs"]] + ids("--after", first["next"]) == ids()
    assert "there is no status" not in told("jobs", "--limit", "0", code=2)
    assert "next" in told("jobs", "--after", "x", code=2)


def test_a_job_is_shown_with_its_traceback(ended: dict[str, int], told: Told, result: Told) -> None:
    text = told("job", ended[ERROR])
    assert text.startswith(f"tasks on root: <Job {ended[ERROR]} 'fail' error>\n")
    assert "input: 'way'" in " ".join(text.split())
    assert 'raise TaskError(f"no {input}")' in text
    [one] = result("job", ended[ERROR])
    assert (one["status"], one["input"], one["error"]) == ("error", "'way'", "no way")
    assert one["failures"][0]["type"] == "TaskError"
    assert "there is no job 4711" in told("job", "4711", code=1)


def test_a_job_is_shown_with_what_it_has_logged(
    place: Any, register: Any, told: Told, result: Told
) -> None:
    register("tell", lambda input: logging.getLogger("shop").warning("it is %s", input))
    with place.service() as service:
        jobid = service.add("tell", "late")
        service.process()
    assert " WARNING (1) it is late\n" in told("job", jobid)
    [one] = result("job", jobid)
    [line] = one["log"]
    assert (line["level"], line["attempt"], line["text"]) == ("WARNING", 1, "it is late")


def test_a_job_is_undone(place: Any, register: Any, told: Told, result: Told) -> None:
    register("write", lambda context, name: context.root.update({name: 1}), context=True)
    with place.service() as service:
        one, two = service.add("write", "one"), service.add("write", "two")
    for _ in range(2):
        with place.service() as service:
            service.processNext()
    assert "the commit" not in told("undo", two, "--by", "Ada")
    [shown] = result("job", two)
    assert (shown["status"], shown["transaction"]) == ("cancelled", None)
    assert shown["note"].startswith("undone by Ada at ")
    with place.root() as root:
        assert "two" not in root
    [undone] = result("undo", one)
    assert (undone["job"], undone["outcome"]) == (one, "is undone")
    assert "only a completed job is undone" in told("undo", one, code=1)


def test_a_completed_job_is_shown_with_its_transaction(
    jobs: dict[str, int], place: Any, told: Told
) -> None:
    with place.service() as service:
        job = service.job(jobs[COMPLETED])
        job._p_activate()
        tid = job._p_serial
    assert f" 0x{tid.hex()} of 20" in told("job", jobs[COMPLETED])


def test_a_job_tells_what_it_waits_for(told: Told, result: Told, place: Any, register: Any) -> None:
    register("echo", lambda input: input)
    place.new_service("tasks")
    with place.service() as service:
        first, second = (service.add("echo", lock="desk", priority=3) for _ in range(2))
        assert service.claimNextJob() == first
    reason = f"the lock 'desk', after job {first}"
    [running, waiting] = result("job", first, second)
    assert (running["waits_for"], waiting["waits_for"]) == (None, reason)
    assert (waiting["lock"], waiting["priority"], waiting["unique_key"]) == ("desk", 3, None)
    assert f"waits_for: {reason}" in " ".join(told("job", second).split())


def test_jobs_run_again(ended: dict[str, int], told: Told, result: Told, place: Any) -> None:
    assert told("retry", ended[CANCELLED]) == f"job {ended[CANCELLED]}: runs again\n"
    assert told("retry", "--all") == "tasks on root: 1 jobs run again\n"
    assert result("retry", "--all") == [{"site": "root", "service": "tasks", "repeated": 0}]
    with place.service() as service:
        assert service.getStatus(ended[ERROR]) == QUEUED
        assert service.getStatus(ended[CANCELLED]) == QUEUED
    assert "is queued: there is nothing to repeat" in told("retry", ended[ERROR], code=1)


def test_errors_of_a_task_run_again(ended: dict[str, int], result: Told) -> None:
    assert [one["repeated"] for one in result("retry", "--all", "--task", "echo")] == [0]
    assert [one["repeated"] for one in result("retry", "--all", "--task", "fail")] == [1]


@pytest.mark.parametrize("arguments", [(), (5, "--all"), ("--task", "fail"), (5, "--task", "x")])
def test_what_is_to_run_again_must_be_said(jobs: Any, told: Told, arguments: Any) -> None:
    assert "retry takes the ids of jobs, or --all" in told("retry", *arguments, code=2)


def test_jobs_are_cancelled(ended: dict[str, int], told: Told, result: Told, place: Any) -> None:
    text = told("cancel", ended[QUEUED], ended[CRONJOB], ended[COMPLETED])
    assert text == (
        f"job {ended[QUEUED]}: is cancelled\n"
        f"job {ended[CRONJOB]}: is cancelled\n"
        f"job {ended[COMPLETED]}: is completed already\n"
    )
    with place.service() as service:
        running = service.add("echo")
        assert service.claimNextJob() == running
    told_of = {"site": "root", "service": "tasks", "job": running, "outcome": "is asked to stop"}
    assert result("cancel", running) == [told_of]
    assert "there is no job 4711" in told("cancel", 4711, code=1)


def test_a_job_tells_whom_it_waits_for(
    place: Any, jobs: dict[str, int], told: Told, result: Told
) -> None:
    with place.service() as service:
        first = service.add("echo", on_success="echo")
        second = service.add("echo", after=first)
        groupid = service.add_group("echo", range(3), ("echo", "end"))
        [member, *_] = (member.jobid for member in service.group(groupid))
    assert f"after:  {first}\n" in _squeezed(told("job", second))
    assert f"awaits:  {first} (queued)\n" in _squeezed(told("job", second))
    assert "on_success:  echo\n" in _squeezed(told("job", first))
    assert "awaits:  the end of its group\n" in _squeezed(told("job", groupid))
    assert f"group:  {groupid}: 0 of 3 ended, 0 errors\n" in _squeezed(told("job", member))
    [one] = result("job", second)
    assert (one["after"], one["awaits"], one["cause"]) == ([first], [first], None)
    [one] = result("job", groupid)
    assert one["awaits"] == [groupid]
    assert one["group"] == {
        "id": groupid,
        "total": 3,
        "completed": 0,
        "errors": 0,
        "cancelled": 0,
        "is_ended": False,
    }
    with place.service() as service:
        service.process()
        [cause] = (job.id for job in service.jobs.values() if job.cause == first)
    assert f"cause:  {first}\n" in _squeezed(told("job", cause))
    assert "awaits" not in told("job", second)


def _squeezed(text: str) -> str:
    return re.sub(" {2,}", "  ", text)


def test_a_job_that_waits_runs_now(ended: dict[str, int], told: Told, place: Any) -> None:
    assert told("run-now", ended[DELAYED]) == f"job {ended[DELAYED]}: is due now\n"
    with place.service() as service:
        service.process()
        assert service.getStatus(ended[DELAYED]) == COMPLETED
    assert "waits for no time" in told("run-now", ended[COMPLETED], code=1)


def test_services_and_tasks_are_paused(jobs: Any, told: Told, result: Told, place: Any) -> None:
    assert told("pause") == "tasks on root: paused: all tasks\n"
    assert told("pause", "--task", "echo") == "tasks on root: paused: all tasks, echo\n"
    assert "  paused       all tasks, echo\n" in told("status")
    with place.service() as service:
        assert service.list_paused() == [None, "echo"]
    assert told("resume", "--task", "echo") == "tasks on root: paused: all tasks\n"
    assert result("resume") == [{"site": "root", "service": "tasks", "paused": []}]


def test_who_works_is_told(jobs: dict[str, int], told: Told, result: Told, place: Any) -> None:
    assert told("workers") == "tasks on root:\n  nobody has jobs in hand\n"
    with place.service() as service:
        held = service.claimNextJob()
    lines = told("workers").splitlines()
    assert lines[1].split() == ["HOST", "PID", "THREADS", "JOBS", "LAST", "SIGN", "WORKER"]
    assert str(os.getpid()) in lines[2].split()
    [one] = result("workers")
    assert (one["pid"], one["held"], one["is_inline"]) == (os.getpid(), [held], True)


def test_jobs_are_waited_for(ended: dict[str, int], told: Told, result: Told) -> None:
    assert told("wait", ended[COMPLETED]) == f"job {ended[COMPLETED]}: completed\n"
    told("wait", ended[COMPLETED], ended[ERROR], code=1)
    told("wait", ended[CANCELLED], code=1)
    [one] = result("wait", ended[QUEUED], "--timeout", "0.01", code=3)
    assert (one["job"], one["status"]) == (ended[QUEUED], "queued")
    assert "--timeout" in told("wait", ended[QUEUED], "--timeout", "-1", code=2)


def test_a_job_is_found_in_the_service_that_has_it(
    jobs: dict[str, int], told: Told, place: Any
) -> None:
    place.new_service("other")
    assert told("cancel", jobs[QUEUED]) == f"job {jobs[QUEUED]}: is cancelled\n"
    with place.root() as root:
        root["other"].jobs[jobs[QUEUED]] = root["other"].jobs.get(5) or type(
            root["tasks"].jobs[jobs[QUEUED]]
        )(jobs[QUEUED], "echo")
    assert "--service must name one of @other, @tasks" in told("job", jobs[QUEUED], code=2)
    assert "tasks on root" in told("job", jobs[QUEUED], "--service", "@tasks")
    assert "--service must name one of" in told("jobs", "--after", "5", code=2)


@pytest.mark.parametrize(
    "verb",
    [
        *("status", "jobs", "job", "retry", "cancel", "undo", "run-now", "pause", "resume"),
        *("workers", "wait"),
    ],
)
def test_the_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n  remotetask {verb} zeo://" in text
    assert "--json" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_table_gives_no_commands_to_the_terminal(place: Any, told: Told, fail: None) -> None:
    with place.service() as service:
        service.add("fail", "\x1b[2J")
        service.process()
    assert "no ?[2J" in told("jobs")


def test_a_table_is_no_wider_than_the_terminal(place: Any, jobs: Any, fail: None) -> None:
    with place.service() as service:
        service.add("fail", "x" * 200)
        service.process()
    lines = in_terminal("jobs", place.uri, columns=60)
    assert max(map(len, lines)) == 60
    assert any(line.endswith("...") for line in lines)


def in_terminal(*arguments: str, columns: int) -> list[str]:
    """Return the lines that the command prints in a terminal."""
    master, slave = pty.openpty()
    try:
        command = [sys.executable, "-m", "lovely.remotetask.cli", *arguments]
        environment = {**os.environ, "COLUMNS": str(columns)}
        ended = subprocess.run(command, stdout=slave, env=environment, check=True, timeout=60)
        assert ended.returncode == 0
        os.close(slave)
        slave = -1
        text = b""
        while True:
            try:
                text += (more := os.read(master, 65536))
            except OSError:  # the other end is closed
                break
            if not more:
                break
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)
    return text.decode().replace("\r", "").splitlines()
