# SPDX-License-Identifier: ZPL-2.1
"""The commands on remote processors, which are services too."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from lovely.remotetask.interfaces import CANCELLED, COMPLETED, QUEUED
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Delay
from lovely.remotetask.remote.testing import EchoJob, SleepJob


@pytest.fixture
def shop(empty_place: Any) -> Any:
    """A place whose database has a remote processor, *remote*, with the job factory *echo*."""
    with empty_place.root() as root:
        root["remote"] = remote = RemoteProcessor()
        remote.addJobFactory("echo", EchoJob())
    return empty_place


def test_a_job_is_added_by_the_name_of_its_factory(shop: Any) -> None:
    ended = shop.add("echo", "--input", '{"size": 128}')
    assert (ended.returncode, ended.stderr) == (0, "")
    with shop.service("remote") as remote:
        [(jobid, job)] = remote._jobs.items()
        assert (job.input, job.status) == ({"size": 128}, QUEUED)
    assert ended.stdout == f"{jobid}\n"
    again = shop.add("echo", "--json")
    with shop.service("remote") as remote:
        assert sorted(remote._jobs) == [jobid, json.loads(again.stdout)["job"]]


def test_a_job_is_not_added_with_what_remote_processors_do_not_know(
    shop: Any, error_of: Any
) -> None:
    error = error_of(shop.add("echo", "--unique-key", "key", "--priority", "1"), 2)
    assert "a remote processor takes no --priority, --unique-key" in error


def test_there_is_a_word_for_a_factory_that_is_not_known(shop: Any, error_of: Any) -> None:
    assert "there is no job factory 'bake'" in error_of(shop.add("bake"), 1)


def test_bounds_hold_for_inputs_from_outside(shop: Any, error_of: Any) -> None:
    with shop.service("remote") as remote:
        remote.max_input_bytes = 10
    assert "10 bytes" in error_of(shop.add("echo", "--input", json.dumps("x" * 100)), 1)


def test_the_command_that_runs_works_and_schedules(shop: Any, started: Any, wait_for: Any) -> None:
    jobid = shop.add("echo", "--input", '"hello"').stdout.strip()
    with shop.service("remote") as remote:
        remote.addJobFactory("sleep", SleepJob())
        remote.addScheduler(
            Delay({"jobName": "sleep", "input": (0, 7), "delay": 0.1, "active": True})
        )
    with started("run", shop.uri, cwd=shop.directory) as process:
        said = wait_for(process.stdout, lambda line: "at work" in line)
        assert said.startswith("1 service of ")
        for text in (
            "Processor 'root-worker' started",
            "Scheduler 'root-scheduler' started",
            "service remote on site root started",
            "Job: 7",
        ):
            wait_for(process.stderr, lambda line, text=text: text in line)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    with shop.service("remote") as remote:
        assert remote.getJobResult(jobid) == "hello"


def test_jobs_are_compared_with_their_indexes(shop: Any) -> None:
    with shop.service("remote") as remote:
        jobid = remote.addJob("echo")
    ended = shop.check()
    assert (ended.returncode, ended.stdout) == (
        0,
        "1 service(s) checked: jobs and indexes agree.\n",
    )
    with shop.service("remote") as remote:
        remote.queue.remove(remote._jobs.record(jobid))
    ended = shop.check("--json")
    assert ended.returncode == 1
    assert jobid in [problem["job"] for problem in json.loads(ended.stdout)]
    assert f"job {jobid}: it is queued, but waits nowhere" in shop.check("--repair").stdout
    assert shop.check().returncode == 0
    with shop.service("remote") as remote:
        assert remote.processNextJob() is True


def test_jobs_that_have_ended_are_removed(shop: Any) -> None:
    with shop.service("remote") as remote:
        jobids = [remote.addJob("echo", number) for number in range(3)]
        remote.processNextJob()
        remote.cancelJob(jobids[1])
    ended = shop.clean("--status", COMPLETED)
    assert ended.stdout == "remote on root: removed 1 completed\n"
    with shop.service("remote") as remote:
        assert sorted(remote._jobs) == jobids[1:]
    assert re.search("1 cancelled", shop.clean().stdout)
    with shop.service("remote") as remote:
        assert sorted(remote._jobs) == jobids[2:]


def test_jobs_are_found_and_told_by_their_ids(shop: Any) -> None:
    jobid, other = (shop.add("echo").stdout.strip() for _ in range(2))
    listed = shop.run("jobs", "--json")
    [page] = json.loads(listed.stdout)
    assert {job["id"] for job in page["jobs"]} == {jobid, other}
    assert jobid in shop.run("jobs").stdout
    shown = json.loads(shop.run("job", jobid, "--json").stdout)
    assert [(job["id"], job["status"]) for job in shown] == [(jobid, QUEUED)]
    assert shop.run("cancel", jobid).stdout == f"job {jobid}: is cancelled\n"
    with shop.service("remote") as remote:
        assert (remote.getJobStatus(jobid), remote.getJobStatus(other)) == (CANCELLED, QUEUED)
    assert shop.run("retry", jobid).returncode == 0
    waited = shop.run("wait", jobid, "--timeout", "0")
    assert (waited.returncode, waited.stdout) == (3, f"job {jobid}: {QUEUED}\n")
    # The number in it would be found, but it is that of another id.
    gone = "0" * 14 + jobid[14:]
    assert f"there is no job {gone}" in shop.run("job", gone).stderr


def test_services_of_both_kinds_are_listed(shop: Any) -> None:
    shop.new_service("tasks")
    assert "2 service(s) checked" in shop.check().stdout
    assert "1 service(s) checked" in shop.check("--service", "@remote").stdout
