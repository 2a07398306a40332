# SPDX-License-Identifier: ZPL-2.1
"""``remotetask clean``, in processes of its own, on files."""

from __future__ import annotations

import io
import json
import subprocess
import time
from typing import Any

import pytest
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from lovely.remotetask import TaskService
from lovely.remotetask.command.main import main
from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    FINAL_STATUSES,
    QUEUED,
    STARTLATER,
)
from lovely.remotetask.store.worker import Worker
from lovely.remotetask.web import batches as removing
from lovely.remotetask.web.batches import REMOVE_SIZE, TRIES


def result_of(ended: subprocess.CompletedProcess[str]) -> list[Any]:
    """Return what a command that went well says to programs."""
    assert (ended.returncode, ended.stderr) == (0, "")
    result = json.loads(ended.stdout)
    assert isinstance(result, list)
    return result


def cleaned(service_name: str = "tasks", **removed: int) -> dict[str, Any]:
    """Return what is told to programs of one service of the root."""
    return {"site": "root", "service": service_name, "removed": removed}


@pytest.fixture
def ended_jobs(place: Any, jobs: Any, register: Any) -> Any:
    """Beside the other jobs: one that is an error, and one that is cancelled."""

    def fail(input: Any) -> None:
        raise TaskError

    register("fail", fail)
    with place.service() as service:
        jobs[CANCELLED] = jobs[QUEUED]
        service.cancel(jobs[CANCELLED])
        jobs[ERROR] = service.add("fail")
        service.process()
        jobs[QUEUED] = service.add("echo")
        for status, jobid in jobs.items():
            assert service.getStatus(jobid) == status
    return jobs


def test_all_jobs_that_have_ended_are_removed(place: Any, ended_jobs: Any) -> None:
    ended = place.clean("--yes")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "tasks on root: removed 1 cancelled, 1 error, 1 completed\n"
    assert place.statuses() == {QUEUED, DELAYED, CRONJOB, STARTLATER}
    assert place.check().returncode == 0


def test_what_was_removed_is_there_for_programs(place: Any, ended_jobs: Any) -> None:
    removed = result_of(place.clean("--json", "--yes"))
    assert removed == [cleaned(cancelled=1, error=1, completed=1)]


def test_nothing_is_removed_twice(place: Any, ended_jobs: Any) -> None:
    place.clean("--yes")
    before = (place.directory / "Data.fs").read_bytes()
    ended = place.clean()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "tasks on root: removed 0 cancelled, 0 error, 0 completed\n"
    assert (place.directory / "Data.fs").read_bytes() == before


@pytest.mark.parametrize("arguments", [(), ("--status", ERROR), ("--json",)])
def test_errors_are_not_removed_where_nobody_can_be_asked(
    place: Any, ended_jobs: Any, arguments: tuple[str, ...], error_of: Any
) -> None:
    line = error_of(place.clean(*arguments), 2)
    assert "Remove errors too (1 of tasks on root)" in line
    assert "--yes" in line
    assert place.statuses() == set(ended_jobs)
    assert place.clean("--status", COMPLETED).returncode == 0


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("n\n", 1), ("", 1), ("yess\n", 1)]
)
def test_it_is_asked_in_a_terminal_before_errors_are_removed(
    place: Any,
    ended_jobs: Any,
    answer: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["clean", place.uri]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("Remove errors too (1 of tasks on root), as far as they match? ")
    assert (ERROR in place.statuses()) == bool(code)
    assert ("nothing was removed" in captured.err) == bool(code)


@pytest.mark.parametrize(
    "statuses",
    [[COMPLETED], [ERROR], [CANCELLED], [ERROR, COMPLETED], [ERROR, ERROR], [*FINAL_STATUSES]],
)
def test_jobs_are_removed_by_their_status(place: Any, ended_jobs: Any, statuses: list[str]) -> None:
    arguments = [argument for status in statuses for argument in ("--status", status)]
    removed = result_of(place.clean("--json", "--yes", *arguments))
    assert removed == [cleaned(**dict.fromkeys(statuses, 1))]
    assert place.statuses() == set(ended_jobs) - set(statuses)


@pytest.mark.parametrize("status", [QUEUED, "start later", "done", ""])
def test_a_status_of_no_ended_jobs_is_refused(place: Any, ended_jobs: Any, status: str) -> None:
    ended = place.clean("--status", COMPLETED, "--status", status)
    assert (ended.returncode, ended.stdout) == (2, "")
    last = ended.stderr.splitlines()[-1]
    assert f"--status: invalid choice: {status!r}" in last
    for name in FINAL_STATUSES:
        assert name in last
    assert place.statuses() == set(ended_jobs)


@pytest.mark.parametrize(
    ("age", "kept"),
    [
        ("0", []),
        ("60", [1]),
        ("90s", [1]),
        ("1.5m", [1]),
        ("2m", [1, 100]),
        ("1h", [1, 100]),
        ("2h", [1, 100, 7_000]),
        ("7d", [1, 100, 7_000]),
        ("9d", [1, 100, 7_000, 700_000]),
        ("9" * 400 + "d", [1, 100, 7_000, 700_000]),
    ],
)
def test_jobs_are_removed_by_their_age(
    place: Any,
    register: Any,
    capsys: pytest.CaptureFixture[str],
    age: str,
    kept: list[int],
) -> None:
    register("echo", lambda input: input)
    ages = [1, 100, 7_000, 700_000]
    with place.service() as service:
        now = time.time()
        for seconds, jobid in zip(ages, service.add_many("echo", ages), strict=True):
            service.processNext(now - seconds)
            assert service.jobs[jobid].completed_at == now - seconds
    assert main(["clean", place.uri, "--older-than", age, "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert told == cleaned(cancelled=0, error=0, completed=len(ages) - len(kept))
    assert sorted(place.inputs()) == kept


@pytest.mark.parametrize(
    "age", ["soon", "", "d", "7w", "7 d", "7D", "-7", "nan", "inf", "1e3", "\u0667d"]
)
def test_an_age_that_is_none_is_told(place: Any, ended_jobs: Any, age: str) -> None:
    ended = place.clean("--older-than", age)
    assert (ended.returncode, ended.stdout) == (2, "")
    last = ended.stderr.splitlines()[-1]
    assert f"--older-than: {age!r} is not an age such as 90, 90s, 15m, 12h or 7d" in last
    assert place.statuses() == set(ended_jobs)


def test_patterns_name_the_services_to_clean(place: Any, register: Any) -> None:
    register("echo", lambda input: input)
    names = ["mail", "other", "tasks"]
    with place.root() as root:
        for count, name in enumerate(names, start=1):
            service = root[name] = TaskService()
            service.add_many("echo", range(count))
            service.process()
    ended = place.clean("--service", "@mail, @tasks", "--status", COMPLETED)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "mail on root: removed 1 completed",
        "tasks on root: removed 3 completed",
    ]
    assert [len(place.inputs(name)) for name in names] == [0, 2, 0]
    removed = result_of(place.clean("--json", "--status", COMPLETED))
    assert removed == [
        cleaned("mail", completed=0),
        cleaned("other", completed=2),
        cleaned("tasks", completed=0),
    ]


def test_what_a_worker_has_not_filed_yet_is_left_to_it(place: Any, jobs: Any) -> None:
    with place.service() as service:
        job = service.jobs[jobs[COMPLETED]]
        service.queue.indexes[COMPLETED].remove(job.completed_at, job.id)
        service.workers["other"] = worker = Worker()
        worker.held = (job.id,)
    assert result_of(place.clean("--json")) == [cleaned(cancelled=0, error=0, completed=0)]
    assert place.statuses() == set(jobs)
    assert place.check().returncode == 0


def transactions(place: Any) -> int:
    """Return how many transactions the file holds."""
    storage = FileStorage(str(place.directory / "Data.fs"), read_only=True)
    try:
        return len(list(storage.iterator()))
    finally:
        storage.close()


def test_many_jobs_are_removed_in_several_transactions(
    place: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("echo", lambda input: input)
    with place.service() as service:
        service.add_many("echo", range(1_200))
        service.process()
        service.add("echo", "waits")
    loaded: list[int] = []
    batches: list[int] = []

    def remove_oldest(service: TaskService, status: str, *arguments: Any) -> int:
        loaded.append(service._p_jar._cache.cache_non_ghost_count)
        batches.append(unpatched(service, status, *arguments))
        return batches[-1]

    unpatched = removing.remove_oldest
    monkeypatch.setattr(removing, "remove_oldest", remove_oldest)
    before = transactions(place)
    assert main(["clean", place.uri, "--status", COMPLETED]) == 0
    assert batches == [REMOVE_SIZE, REMOVE_SIZE, 1_200 - 2 * REMOVE_SIZE]
    assert transactions(place) - before == len(batches)
    assert max(loaded) < 50  # nothing is kept from batch to batch
    assert place.inputs() == ["waits"]
    assert place.check().returncode == 0


def conflict(monkeypatch: pytest.MonkeyPatch, times: int) -> tuple[list[int], list[int]]:
    """Let so many batches meet a conflict when they have removed their jobs.

    :returns: lists that grow: what the batches have removed, and for each conflict a one.
    """
    removed: list[int] = []
    conflicts: list[int] = []

    def remove_oldest(service: TaskService, *arguments: Any) -> int:
        removed.append(unpatched(service, *arguments))
        if len(conflicts) < times:
            conflicts.append(1)
            raise ConflictError
        return removed[-1]

    unpatched = removing.remove_oldest
    monkeypatch.setattr(removing, "remove_oldest", remove_oldest)
    return removed, conflicts


def test_a_batch_is_repeated_after_a_conflict(
    place: Any,
    jobs: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    removed, _ = conflict(monkeypatch, times=TRIES - 1)
    assert main(["clean", place.uri, "--status", COMPLETED]) == 0
    assert removed == [1] * TRIES  # each time from the start
    captured = capsys.readouterr()
    assert captured.out == "tasks on root: removed 1 completed\n"  # counted once
    assert captured.err == ""
    assert place.statuses() == set(jobs) - {COMPLETED}
    assert place.check().returncode == 0


def test_a_batch_is_not_repeated_for_ever(
    place: Any,
    jobs: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, conflicts = conflict(monkeypatch, times=1_000)
    assert main(["clean", place.uri, "--status", COMPLETED]) == 1
    assert len(conflicts) == TRIES
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("remotetask: ConflictError: ")
    assert place.statuses() == set(jobs)
