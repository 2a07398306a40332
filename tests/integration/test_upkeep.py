# SPDX-License-Identifier: ZPL-2.1
"""``remotetask check``, ``clean`` and ``add``, in processes of their own, on files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from lovely.remotetask import TaskService
from lovely.remotetask.base.storable import OUTSIDE_MAX_BYTES, OUTSIDE_MAX_DEPTH
from lovely.remotetask.command.clean import BATCH_SIZE, BATCH_TRIES
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
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.worker import Worker

COMMAND = [sys.executable, "-m", "lovely.remotetask.command.main"]
SECONDS = 30  # within which a command must have ended

SHOP = """
    from pathlib import Path
    from lovely.remotetask.task import task

    @task("note")
    def note(input):
        Path("noted").write_text(repr(input))
        return input
"""

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


# -- starting them -----------------------------------------------------------------------------


def remotetask(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def error_of(ended: subprocess.CompletedProcess[str], returncode: int) -> str:
    """Return what a command that failed has to say: one line."""
    assert (ended.returncode, ended.stdout) == (returncode, ""), ended
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("remotetask: ")
    return ended.stderr


class Place:
    """A directory with a database file, and a module with the task *note*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.uri = f"file://{directory}/Data.fs"
        (directory / "shop.py").write_text(dedent(SHOP))

    @contextmanager
    def root(self) -> Iterator[Any]:
        """Open the file, give the root object, commit, and close the file."""
        database = ZODB.DB(FileStorage(str(self.directory / "Data.fs")))
        manager = transaction.TransactionManager()
        try:
            yield database.open(manager).root()
            manager.commit()
        finally:
            manager.abort()
            database.close()

    @contextmanager
    def service(self, name: str = "tasks") -> Iterator[TaskService]:
        with self.root() as root:
            yield root[name]

    def new_service(self, name: str, **attributes: Any) -> None:
        with self.root() as root:
            service = root[name] = TaskService()
            for attribute, value in attributes.items():
                setattr(service, attribute, value)

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return remotetask("check", self.uri, *arguments, cwd=self.directory)

    def clean(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return remotetask("clean", self.uri, *arguments, cwd=self.directory)

    def add(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return remotetask("add", self.uri, *arguments, cwd=self.directory)

    def inputs(self, name: str = "tasks") -> list[Any]:
        """Return the inputs of all jobs."""
        with self.service(name) as service:
            return [job.input for job in service.jobs.values()]

    def statuses(self) -> set[str]:
        """Return the statuses of all jobs."""
        with self.service() as service:
            return {job.status for job in service.jobs.values()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place whose database has an empty service, *tasks*."""
    place = Place(tmp_path)
    place.new_service("tasks")
    return place


Jobs = dict[str, int]


@pytest.fixture
def jobs(place: Place, register: Any) -> Jobs:
    """Jobs that stand in several places: status -> id."""
    register("echo", lambda input: input)
    with place.service() as service:
        jobs = {COMPLETED: service.add("echo")}
        service.process()
        jobs[QUEUED] = service.add("echo")
        jobs[DELAYED] = service.addCronJob("echo", delay=3600)
        jobs[CRONJOB] = service.addCronJob("echo", minute=(0,))
        jobs[STARTLATER] = service.add("echo", startLater=True)
    return jobs


# -- remotetask check --------------------------------------------------------------------------


def test_a_healthy_database_is_told(place: Place, jobs: Jobs) -> None:
    ended = place.check()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "1 service(s) checked: jobs and indexes agree.\n"


def test_a_healthy_database_is_an_empty_list_for_programs(place: Place, jobs: Jobs) -> None:
    ended = place.check("--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == []


def delete_a_job(service: TaskService, jobs: Jobs) -> tuple[int | None, str]:
    del service.jobs[jobs[DELAYED]]
    return jobs[DELAYED], "an entry of the index of delayed jobs is stale"


def delete_a_job_in_the_line(service: TaskService, jobs: Jobs) -> tuple[int | None, str]:
    del service.jobs[jobs[QUEUED]]
    return None, "the count of ready jobs is wrong by 1"


def remove_an_entry(service: TaskService, jobs: Jobs) -> tuple[int | None, str]:
    job = service.jobs[jobs[CRONJOB]]
    service.queue.indexes[CRONJOB].remove(job.place, job.id)
    return job.id, "it is cronjob, but waits nowhere"


def remove_an_entry_of_an_ended_job(service: TaskService, jobs: Jobs) -> tuple[int | None, str]:
    job = service.jobs[jobs[COMPLETED]]
    service.queue.indexes[COMPLETED].remove(job.completed_at, job.id)
    return job.id, "it is completed, but not filed"


def miscount(service: TaskService, jobs: Jobs) -> tuple[int | None, str]:
    service.queue.indexes[STARTLATER].correct(-3)
    return None, "the count of start later jobs is wrong by 3"


Break = Callable[[TaskService, Jobs], tuple[int | None, str]]

BREAKS = [
    delete_a_job,
    delete_a_job_in_the_line,
    remove_an_entry,
    remove_an_entry_of_an_ended_job,
    miscount,
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_what_is_wrong_is_told_mended_and_gone(place: Place, jobs: Jobs, break_it: Break) -> None:
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


def test_what_was_mended_is_told(place: Place, jobs: Jobs) -> None:
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


def test_a_check_writes_nothing_unless_it_is_to_mend(place: Place, jobs: Jobs) -> None:
    with place.service() as service:
        remove_an_entry(service, jobs)
    before = (place.directory / "Data.fs").read_bytes()
    assert place.check().returncode == 1
    assert (place.directory / "Data.fs").read_bytes() == before


def test_of_many_problems_the_first_ones_are_told(place: Place, jobs: Jobs, register: Any) -> None:
    with place.service() as service:
        for jobid in service.add_many("echo", range(20)):
            service.jobs[jobid].place = None
    ended = place.check()
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "  and 11 more"  # the count of the line is wrong too
    assert len(json.loads(place.check("--json").stdout)) == 21
    assert place.check("--repair").returncode == 0
    assert place.check().returncode == 0


def test_patterns_name_the_services_to_check(place: Place, jobs: Jobs) -> None:
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


@pytest.mark.parametrize("command", [("check",), ("clean",), ("add", "note", "--import", "shop")])
def test_a_pattern_that_matches_no_service_is_told(place: Place, command: tuple[str, ...]) -> None:
    for pattern in ("@mail", "shop@*", ","):
        ended = remotetask(
            command[0], place.uri, *command[1:], "--service", pattern, cwd=place.directory
        )
        assert f"matches {pattern!r}" in error_of(ended, 1)


def test_a_database_without_services_is_told(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.root():
        pass
    assert "no service" in error_of(place.check(), 1)
    assert "no service" in error_of(place.check("--repair", "--json"), 1)
    assert "no service" in error_of(place.clean("--json"), 1)


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert "no database file" in error_of(place.check(), 1)
    assert "no database file" in error_of(place.clean(), 1)
    assert "no database file" in error_of(place.add("note", "--import", "shop"), 1)
    assert not (tmp_path / "Data.fs").exists()


def test_a_database_in_use_is_told(place: Place) -> None:
    with place.root():
        assert "in use by another process" in error_of(place.check(), 1)
        assert "in use by another process" in error_of(place.clean(), 1)
        assert "in use by another process" in error_of(place.add("note", "--import", "shop"), 1)


# -- remotetask clean --------------------------------------------------------------------------


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
def ended_jobs(place: Place, jobs: Jobs, register: Any) -> Jobs:
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


def test_all_jobs_that_have_ended_are_removed(place: Place, ended_jobs: Jobs) -> None:
    ended = place.clean()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "tasks on root: removed 1 cancelled, 1 error, 1 completed\n"
    assert place.statuses() == {QUEUED, DELAYED, CRONJOB, STARTLATER}
    assert place.check().returncode == 0


def test_what_was_removed_is_there_for_programs(place: Place, ended_jobs: Jobs) -> None:
    removed = result_of(place.clean("--json"))
    assert removed == [cleaned(cancelled=1, error=1, completed=1)]


def test_nothing_is_removed_twice(place: Place, ended_jobs: Jobs) -> None:
    place.clean()
    before = (place.directory / "Data.fs").read_bytes()
    ended = place.clean()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "tasks on root: removed 0 cancelled, 0 error, 0 completed\n"
    assert (place.directory / "Data.fs").read_bytes() == before


@pytest.mark.parametrize(
    "statuses",
    [[COMPLETED], [ERROR], [CANCELLED], [ERROR, COMPLETED], [ERROR, ERROR], [*FINAL_STATUSES]],
)
def test_jobs_are_removed_by_their_status(
    place: Place, ended_jobs: Jobs, statuses: list[str]
) -> None:
    arguments = [argument for status in statuses for argument in ("--status", status)]
    removed = result_of(place.clean("--json", *arguments))
    assert removed == [cleaned(**dict.fromkeys(statuses, 1))]
    assert place.statuses() == set(ended_jobs) - set(statuses)


@pytest.mark.parametrize("status", [QUEUED, "start later", "done", ""])
def test_a_status_of_no_ended_jobs_is_refused(place: Place, ended_jobs: Jobs, status: str) -> None:
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
    place: Place,
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
def test_an_age_that_is_none_is_told(place: Place, ended_jobs: Jobs, age: str) -> None:
    ended = place.clean("--older-than", age)
    assert (ended.returncode, ended.stdout) == (2, "")
    last = ended.stderr.splitlines()[-1]
    assert f"--older-than: {age!r} is not an age such as 90, 90s, 15m, 12h or 7d" in last
    assert place.statuses() == set(ended_jobs)


def test_patterns_name_the_services_to_clean(place: Place, register: Any) -> None:
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


def test_what_a_worker_has_not_filed_yet_is_left_to_it(place: Place, jobs: Jobs) -> None:
    with place.service() as service:
        job = service.jobs[jobs[COMPLETED]]
        service.queue.indexes[COMPLETED].remove(job.completed_at, job.id)
        service.workers["other"] = worker = Worker()
        worker.held = (job.id,)
    assert result_of(place.clean("--json")) == [cleaned(cancelled=0, error=0, completed=0)]
    assert place.statuses() == set(jobs)
    assert place.check().returncode == 0


def transactions(place: Place) -> int:
    """Return how many transactions the file holds."""
    storage = FileStorage(str(place.directory / "Data.fs"), read_only=True)
    try:
        return len(list(storage.iterator()))
    finally:
        storage.close()


def test_many_jobs_are_removed_in_several_transactions(
    place: Place, register: Any, monkeypatch: pytest.MonkeyPatch
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

    unpatched = TaskService.remove_oldest
    monkeypatch.setattr(TaskService, "remove_oldest", remove_oldest)
    before = transactions(place)
    assert main(["clean", place.uri, "--status", COMPLETED]) == 0
    assert batches == [BATCH_SIZE, BATCH_SIZE, 1_200 - 2 * BATCH_SIZE]
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

    unpatched = TaskService.remove_oldest
    monkeypatch.setattr(TaskService, "remove_oldest", remove_oldest)
    return removed, conflicts


def test_a_batch_is_repeated_after_a_conflict(
    place: Place,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    removed, _ = conflict(monkeypatch, times=BATCH_TRIES - 1)
    assert main(["clean", place.uri, "--status", COMPLETED]) == 0
    assert removed == [1] * BATCH_TRIES  # each time from the start
    captured = capsys.readouterr()
    assert captured.out == "tasks on root: removed 1 completed\n"  # counted once
    assert captured.err == ""
    assert place.statuses() == set(jobs) - {COMPLETED}
    assert place.check().returncode == 0


def test_a_batch_is_not_repeated_for_ever(
    place: Place,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, conflicts = conflict(monkeypatch, times=1_000)
    assert main(["clean", place.uri, "--status", COMPLETED]) == 1
    assert len(conflicts) == BATCH_TRIES
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("remotetask: ConflictError: ")
    assert place.statuses() == set(jobs)


# -- remotetask add ----------------------------------------------------------------------------


def test_the_id_of_an_added_job_is_printed(place: Place) -> None:
    ended = place.add("note", "--import", "shop", "--input", '{"size": [128, 64]}')
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"\d+\n", ended.stdout)
    with place.service() as service:
        job = service.jobs[int(ended.stdout)]
        assert (job.task, job.input, job.status) == ("note", {"size": [128, 64]}, QUEUED)
    assert place.check().returncode == 0


def test_the_id_of_an_added_job_is_there_for_programs(place: Place) -> None:
    ended = place.add("note", "--import", "shop", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    [(name, jobid)] = json.loads(ended.stdout).items()
    assert name == "job"
    with place.service() as service:
        assert service.jobs[jobid].input is None


def test_an_added_job_is_run_by_the_command_that_runs(place: Place) -> None:
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
def test_input_that_is_no_json_is_told(place: Place, text: str) -> None:
    ended = place.add("note", "--import", "shop", "--input", text)
    assert "--input is no JSON" in error_of(ended, 2)
    assert place.inputs() == []


def test_an_unknown_task_is_told(place: Place) -> None:
    ended = place.add("juggle", "--import", "shop")
    assert "'juggle'" in error_of(ended, 1)
    assert "'note'" in error_of(place.add("note"), 1)  # who does not import knows nothing
    assert place.inputs() == []


def nested(depth: int) -> str:
    """Return JSON of so many lists in each other."""
    return "[" * depth + "1" + "]" * depth


def test_input_that_is_nested_too_deep_is_refused(place: Place) -> None:
    before = (place.directory / "Data.fs").read_bytes()
    ended = place.add("note", "--import", "shop", "--input", nested(OUTSIDE_MAX_DEPTH + 1))
    assert f"deeper than {OUTSIDE_MAX_DEPTH} levels" in error_of(ended, 1)
    assert (place.directory / "Data.fs").read_bytes() == before
    ended = place.add("note", "--import", "shop", "--input", nested(OUTSIDE_MAX_DEPTH))
    assert ended.returncode == 0, ended.stderr
    assert len(place.inputs()) == 1


def test_input_that_is_too_large_is_refused(
    place: Place, register: Any, capsys: pytest.CaptureFixture[str]
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


def test_tighter_limits_of_the_service_win(place: Place) -> None:
    place.new_service("tight", max_input_bytes=50, max_input_depth=2)
    arguments = ("note", "--import", "shop", "--service", "@tight", "--input")
    assert "larger than 50 bytes" in error_of(place.add(*arguments, json.dumps("x" * 60)), 1)
    assert "deeper than 2 levels" in error_of(place.add(*arguments, nested(3)), 1)
    assert place.inputs("tight") == []
    assert place.add(*arguments, nested(2)).returncode == 0
    assert place.inputs("tight") == [[[1]]]


def test_a_limit_of_nothing_is_one(place: Place) -> None:
    place.new_service("flat", max_input_depth=0)
    arguments = ("note", "--import", "shop", "--service", "@flat", "--input")
    assert "deeper than 0 levels" in error_of(place.add(*arguments, nested(1)), 1)
    assert place.add(*arguments, "1").returncode == 0


def test_wider_limits_of_the_service_win(
    place: Place, register: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    register("note", lambda input: input)
    place.new_service("wide", max_input_bytes=3 * OUTSIDE_MAX_BYTES, max_input_depth=200)
    arguments = ["add", place.uri, "note", "--service", "@wide", "--input"]
    assert main([*arguments, json.dumps("x" * 2 * OUTSIDE_MAX_BYTES)]) == 0
    assert main([*arguments, nested(150)]) == 0
    assert capsys.readouterr().err == ""
    assert len(place.inputs("wide")) == 2


def test_which_of_several_services_is_asked(place: Place) -> None:
    place.new_service("mail")
    text = error_of(place.add("note", "--import", "shop"), 2)
    assert "--service must name one of" in text
    assert "@mail" in text
    assert "@tasks" in text
    assert (place.inputs("mail"), place.inputs()) == ([], [])


def test_the_services_are_named_as_they_can_be_given(place: Place) -> None:
    place.new_service("mail")
    text = error_of(place.add("note", "--import", "shop"), 2)
    names = text.strip().partition("must name one of ")[2].split(", ")
    assert len(names) == 2
    for name in names:
        ended = place.add("note", "--import", "shop", "--service", name, "--input", f'"{name}"')
        assert ended.returncode == 0, ended.stderr
    assert (len(place.inputs("mail")), len(place.inputs())) == (1, 1)


def test_a_task_that_only_the_site_knows_can_be_added(tmp_path: Path) -> None:
    (tmp_path / "town.py").write_text(dedent(TOWN))
    subprocess.run(
        [sys.executable, "-c", "import town; town.fill()"],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    place = Place(tmp_path)
    ended = place.add("local", "--import", "town", "--service", "shop@mail")
    assert ended.returncode == 0, ended.stderr
    assert place.check("--import", "town").returncode == 0


# -- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("check", ["--repair", "--service", "--json", "Exit code 1", "remotetask check zeo://"]),
        ("clean", ["--status", "--older-than AGE", "7d", "--service", "remotetask clean zeo://"]),
        ("add", ["TASK", "--input JSON", "--service", "1 MB", "100 levels", "remotetask add zeo"]),
    ],
)
def test_help_tells_what_can_be_given(tmp_path: Path, command: str, texts: list[str]) -> None:
    ended = remotetask(command, "--help", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    for text in texts:
        assert text in ended.stdout


@pytest.mark.parametrize("arguments", [("check",), ("clean",), ("add",), ("add", "file:///x")])
def test_what_is_missing_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = remotetask(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert "usage: remotetask" in ended.stderr
    assert "required" in ended.stderr


def test_the_input_can_come_from_stdin(place: Place, jobs: Jobs) -> None:
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
