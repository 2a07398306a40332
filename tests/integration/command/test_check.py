# SPDX-License-Identifier: ZPL-2.1
"""``remotetask check``, in processes of its own, on files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from lovely.remotetask import TaskService
from lovely.remotetask.interfaces import (
    COMPLETED,
    CRONJOB,
    DELAYED,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.store.check import check_all


def test_a_healthy_database_is_told(place: Any, jobs: Any) -> None:
    ended = place.check()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "1 service(s) checked: jobs and indexes agree.\n"


def test_a_healthy_database_is_an_empty_list_for_programs(place: Any, jobs: Any) -> None:
    ended = place.check("--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == []


def delete_a_job(service: TaskService, jobs: Any) -> tuple[int | None, str]:
    del service.jobs[jobs[DELAYED]]
    return jobs[DELAYED], "an entry of the index of delayed jobs is stale"


def delete_a_job_in_the_line(service: TaskService, jobs: Any) -> tuple[int | None, str]:
    del service.jobs[jobs[QUEUED]]
    return None, "the count of ready jobs is wrong by 1"


def remove_an_entry(service: TaskService, jobs: Any) -> tuple[int | None, str]:
    job = service.jobs[jobs[CRONJOB]]
    service.queue.indexes[CRONJOB].remove(job.place, job.id)
    return job.id, "it is cronjob, but waits nowhere"


def remove_an_entry_of_an_ended_job(service: TaskService, jobs: Any) -> tuple[int | None, str]:
    job = service.jobs[jobs[COMPLETED]]
    service.queue.indexes[COMPLETED].remove(job.completed_at, job.id)
    return job.id, "it is completed, but not filed"


def miscount(service: TaskService, jobs: Any) -> tuple[int | None, str]:
    service.queue.indexes[STARTLATER].correct(-3)
    return None, "the count of start later jobs is wrong by 3"


Break = Callable[[TaskService, Any], tuple[int | None, str]]


BREAKS = [
    delete_a_job,
    delete_a_job_in_the_line,
    remove_an_entry,
    remove_an_entry_of_an_ended_job,
    miscount,
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_what_is_wrong_is_told_mended_and_gone(place: Any, jobs: Any, break_it: Break) -> None:
    with place.service() as service:
        jobid, problem = break_it(service, jobs)
    line = (
        f"tasks on root: {problem}" if jobid is None else f"tasks on root: job {jobid}: {problem}"
    )

    ended = place.check()
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout == f"1 problem(s) found; --repair mends them:\n  {line}\n"

    found = [{"site": "root", "service": "tasks", "job": jobid, "problem": problem}]
    ended = place.check("--json")
    assert (ended.returncode, json.loads(ended.stdout), ended.stderr) == (1, found, "")

    ended = place.check("--repair", "--json")
    assert (ended.returncode, json.loads(ended.stdout), ended.stderr) == (0, found, "")

    assert place.check().returncode == 0
    with place.service() as service:
        assert check_all(service, time.time(), repair=False) == []


def test_what_was_mended_is_told(place: Any, jobs: Any) -> None:
    with place.service() as service:
        expected = [break_it(service, jobs)[1] for break_it in BREAKS[:4]]
    ended = place.check("--repair")
    assert ended.returncode == 0
    first, *lines = ended.stdout.splitlines()
    assert first == f"{len(expected)} problem(s) mended:"
    assert len(lines) == len(expected)
    for problem in expected:
        assert any(line.endswith(problem) for line in lines)
    assert place.check().returncode == 0


def test_a_check_writes_nothing_unless_it_is_to_mend(place: Any, jobs: Any) -> None:
    with place.service() as service:
        remove_an_entry(service, jobs)
    before = (place.directory / "Data.fs").read_bytes()
    assert place.check().returncode == 1
    assert (place.directory / "Data.fs").read_bytes() == before


def test_of_many_problems_the_first_ones_are_told(place: Any, jobs: Any, register: Any) -> None:
    with place.service() as service:
        for jobid in service.add_many("echo", range(20)):
            service.jobs[jobid].place = None
    ended = place.check()
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "  and 11 more"  # the count of the line is wrong too
    assert len(json.loads(place.check("--json").stdout)) == 21
    assert place.check("--repair").returncode == 0
    assert place.check().returncode == 0


def test_patterns_name_the_services_to_check(place: Any, jobs: Any) -> None:
    place.new_service("other")
    with place.service() as service:
        remove_an_entry(service, jobs)
    for patterns, code, text in (
        ("@other", 0, "1 service(s) checked"),
        ("@tasks", 1, "tasks on root"),
        ("@tasks, @other", 1, "tasks on root"),
        ("@*", 1, "tasks on root"),
    ):
        ended = place.check("--service", patterns)
        assert (ended.returncode, ended.stderr) == (code, "")
        assert text in ended.stdout
    assert place.check().returncode == 1
    assert place.check("--service", "@other", "--repair").returncode == 0
    assert place.check("--service", "@tasks").returncode == 1  # that one was not to be mended
    assert place.check("--repair").returncode == 0
    assert place.check().stdout.startswith("2 service(s) checked")
