# SPDX-License-Identifier: ZPL-2.1
"""How processes end while jobs run: at exits that can still write, nothing counts as a death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.interfaces import COMPLETED, PROCESSING, QUEUED
from lovely.remotetask.store.check import check_all

SECONDS = 60
TESTS = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
)

TASKS = """
    import time
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from doors import HangJob, TasksByRemote, sleep_a_minute
    from lovely.remotetask import RetryPolicy, TaskService
    from lovely.remotetask.processor import MultiProcessor
    from lovely.remotetask.remote.worker import MultiJobWorker
    from lovely.remotetask.task import task

    def hang(input):
        with open("started", "a") as started:
            started.write(".")
        sleep_a_minute()

    def wait(seconds):
        with open("started", "a") as started:
            started.write(".")
        time.sleep(seconds)
        return "done"

    def pool(input):
        time.sleep(0.5)
        with ThreadPoolExecutor() as executor:
            return executor.submit(abs, -1).result()

    once = RetryPolicy(attempts=1)
    task("pool", retry=once)(pool)
    task("hang", retry=once)(hang)
    task("brief", retry=once, executor="process")(wait)
    task("long", retry=once, executor="process")(hang)

    def make_tasks():
        service = TaskService()
        service.processorArguments = {}
        return service

    def make_remote():
        service = TasksByRemote()
        service.addJobFactory("hang", HangJob())
        return service

    def use_threads(service):
        service.processorFactory = MultiProcessor
        service.jobWorkerFactory = MultiJobWorker
"""

PROGRAM = """
    import os, signal, sys, threading, time
    import transaction, ZODB
    import tasks_of_exits
    from lovely.remotetask.engine import registry
    from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
    from lovely.remotetask.remote.worker import SimpleJobWorker
    from pathlib import Path

    started = Path("started")

    def until_started():
        with db.transaction() as connection:
            factory = getattr(connection.root()["tasks"], "processorFactory", None)
            jobs = 2 if factory is MultiProcessor else 1
        while not started.exists() or started.stat().st_size < jobs:
            time.sleep(0.01)

    if __name__ == "__main__":
        db = ZODB.DB("Data.fs")
        with db.transaction() as connection:
            service = connection.root()["tasks"] = tasks_of_exits.make_{door}()
            {fill}
        registry.EXIT_SECONDS = registry.CLOSE_SECONDS = {bound}
        connection = db.open()
        {before}
        {start}
        {end}
"""


class Program:
    """A process that works on a service, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "tasks_of_exits.py").write_text(dedent(TASKS))

    @contextmanager
    def running(
        self,
        fill: str,
        end: str,
        before: str = "",
        bound: float = 0.1,
        start: str = "connection.root()['tasks'].startProcessing()",
        door: str = "tasks",
        **variables: str,
    ) -> Iterator[subprocess.Popen[str]]:
        """Start it, in a group of its own, and wait until it has ended."""
        text = dedent(PROGRAM).format(
            fill=fill, end=end, before=before, bound=bound, start=start, door=door
        )
        (self.directory / "program.py").write_text(text)
        with self.popen([sys.executable, "program.py"], **variables) as process:
            yield process

    @contextmanager
    def popen(self, command: list[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            command,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": TESTS, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
                process.communicate(timeout=SECONDS)
            finally:
                process.kill()

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Wait until a job has started."""
        end = time.monotonic() + SECONDS
        while not (self.directory / "started").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def jobs(self) -> list[tuple[str, int, int, int, list[str]]]:
        """Return of each job: status, attempt, errors, deaths, and what was noted."""
        db = ZODB.DB(FileStorage(str(self.directory / "Data.fs")))
        try:
            with db.transaction() as connection:
                service = connection.root()["tasks"]
                assert not service.workers
                assert check_all(service, time.time(), repair=False) == []
                return [
                    (
                        job.status,
                        job.attempt,
                        job.errors,
                        job.deaths,
                        [note.type for note in job.failures],
                    )
                    for job in service.jobs.values()
                ]
        finally:
            db.close()

    def status(self) -> str:
        """Return the status of the only job, in the file as it was left."""
        db = ZODB.DB(FileStorage(str(self.directory / "Data.fs")))
        try:
            with db.transaction() as connection:
                [job] = connection.root()["tasks"].jobs.values()
                return str(job.status)
        finally:
            db.close()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


#: What is left of a job that ran, and of one that waited.
STOPPED = (QUEUED, 0, 0, 0, ["JobInterrupted"])
WAITS = (QUEUED, 0, 0, 0, [])

HANG = "service.add('hang')"
HANG_TWICE = "service.add_many('hang', [1, 2])"
MULTI = HANG_TWICE + "; tasks_of_exits.use_threads(service)"
SLEEP = "tasks_of_exits.sleep_a_minute()"

both_doors = pytest.mark.parametrize("door", ["tasks", "remote"])


@pytest.mark.parametrize(
    ("fill", "left"), [(HANG_TWICE, [STOPPED, WAITS]), (MULTI, [STOPPED, STOPPED])]
)
@pytest.mark.parametrize(
    "end",
    [
        "until_started()",
        "until_started(); sys.exit(3)",
        "until_started(); connection.close(); db.close()",
        "until_started(); connection.root()['tasks'].stopProcessing(0.1)",
        "until_started(); raise ZeroDivisionError",
    ],
)
@both_doors
def test_what_runs_when_a_script_ends_is_given_back(
    program: Program, fill: str, left: list[Any], end: str, door: str
) -> None:
    with program.running(fill, end, door=door):
        pass
    assert program.jobs() == left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@both_doors
def test_a_signal_gives_back_what_runs_and_ends_the_process(
    program: Program, number: int, door: str
) -> None:
    with program.running(HANG_TWICE, SLEEP, door=door) as process:
        program.wait(process)
        process.send_signal(number)
    assert process.returncode == -number
    assert program.jobs() == [STOPPED, WAITS]


#: A processor that the application runs itself, in a thread and in the main thread.
THREAD = "threading.Thread(target={}, daemon=True).start()"
OWN = "SimpleProcessor(db, ['tasks'])"
OWN_WORKER = "SimpleJobWorker(connection.root()['tasks'])"


@pytest.mark.parametrize(
    ("door", "start"),
    [
        ("tasks", THREAD.format(OWN)),
        ("tasks", THREAD.format(OWN + ".processNext")),
        ("remote", THREAD.format(OWN_WORKER)),
    ],
)
def test_what_the_application_runs_itself_is_given_back_too(
    program: Program, door: str, start: str
) -> None:
    with program.running(HANG, "until_started()", start=start, door=door):
        pass
    assert program.jobs() == [STOPPED]


@pytest.mark.parametrize(
    "start", [THREAD.format(OWN), OWN + "()", OWN + ".processNext()"], ids=["thread", "loop", "job"]
)
def test_so_it_is_at_a_signal(program: Program, start: str) -> None:
    with program.running(HANG, SLEEP, start=start) as process:
        program.wait(process)
        process.terminate()
    assert process.returncode == -signal.SIGTERM
    assert program.jobs() == [STOPPED]


def test_what_is_only_claimed_is_given_back_at_an_exit(program: Program) -> None:
    with program.running(HANG, "pass", start=OWN + ".claimNextJob()"):
        pass
    assert program.jobs() == [WAITS]


def test_the_echo_of_sigterm_ends_nothing(program: Program) -> None:
    with program.running(HANG, SLEEP, bound=1.0) as process:
        program.wait(process)
        process.terminate()
        time.sleep(0.1)
        process.terminate()
    assert process.returncode == -signal.SIGTERM
    assert program.jobs() == [STOPPED]


def test_a_second_sigterm_ends_the_process_at_once(program: Program) -> None:
    with program.running(HANG, SLEEP, bound=600.0) as process:
        program.wait(process)
        while process.poll() is None:
            process.terminate()
            time.sleep(0.1)
    assert process.returncode == -signal.SIGTERM
    assert program.status() == PROCESSING


@pytest.mark.parametrize(
    ("before", "variables"),
    [
        ("signal.signal(signal.SIGTERM, lambda *arguments: os._exit(7))", {}),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", {}),
        ("", {"REMOTETASK_SIGTERM": "off"}),
    ],
    ids=["handled", "ignored", "switched off"],
)
def test_a_handler_of_the_application_stays(
    program: Program, before: str, variables: dict[str, str]
) -> None:
    end = "assert signal.getsignal(signal.SIGTERM) == handler; os._exit(0)"
    before += "; handler = signal.getsignal(signal.SIGTERM)"
    with program.running(HANG, end, before.removeprefix("; "), **variables) as process:
        pass
    assert process.returncode == 0


def test_a_forked_child_ends_as_if_there_was_no_handler(program: Program) -> None:
    end = """until_started()
    child = os.fork()
    if child == 0:
        time.sleep(60)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)"""
    with program.running(HANG, end) as process:
        pass
    assert process.returncode == -signal.SIGTERM
    assert program.jobs() == [STOPPED]


def test_a_forked_child_that_exits_leaves_its_parents_jobs_alone(program: Program) -> None:
    end = """until_started()
    child = os.fork()
    if child == 0:
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    connection.sync()
    [job] = connection.root()["tasks"].jobs.values()
    assert job.status == "processing" """
    with program.running(HANG, end) as process:
        pass
    assert process.returncode == 0
    assert program.jobs() == [STOPPED]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("end", ["pass", "sys.exit(3)"])
def test_a_child_of_multiprocessing_gives_back_what_runs(
    tmp_path: Path, method: str, end: str
) -> None:
    program = Program(tmp_path)
    text = """
    import multiprocessing, sys, time
    import ZODB
    import tasks_of_exits
    from lovely.remotetask import TaskService
    from lovely.remotetask.engine import registry
    from pathlib import Path

    def work():
        registry.EXIT_SECONDS = 0.1
        db = ZODB.DB("Data.fs")
        with db.transaction() as connection:
            service = connection.root()["tasks"] = TaskService()
            service.add("hang")
        db.open().root()["tasks"].startProcessing()
        while not Path("started").exists():
            time.sleep(0.01)
        {end}

    if __name__ == "__main__":
        child = multiprocessing.get_context("{method}").Process(target=work)
        child.start()
        child.join()
    """
    (tmp_path / "program.py").write_text(dedent(text).format(method=method, end=end))
    with program.popen([sys.executable, "program.py"]):
        pass
    assert program.jobs() == [STOPPED]


# -- functions in other processes --------------------------------------------------------------


def test_a_function_in_another_process_is_waited_for_at_the_exit(program: Program) -> None:
    with program.running("service.add('brief', 1.0)", "until_started()", bound=600.0):
        pass
    assert program.jobs() == [(COMPLETED, 1, 0, 0, [])]


def test_a_function_in_another_process_is_no_death_at_the_exit(program: Program) -> None:
    with program.running("service.add('long', 1.0)", "until_started()"):
        pass
    assert program.jobs() == [STOPPED]


@pytest.mark.parametrize("job", ["'pool', [1] * 8", "'brief', [0.1] * 8"])
def test_jobs_that_wait_when_the_main_thread_ends_lose_no_attempt(
    program: Program, job: str
) -> None:
    end = "threading.Thread(target=time.sleep, args=(2,)).start()"  # the interpreter waits for it
    with program.running(f"service.add_many({job})", end, bound=600.0):
        pass
    jobs = program.jobs()
    assert set(map(str, jobs)) <= {str(WAITS), str((COMPLETED, 1, 0, 0, []))}


@pytest.mark.parametrize("task", ["hang", "long"])
def test_a_signal_to_the_whole_group_counts_no_attempt(program: Program, task: str) -> None:
    with program.running(f"service.add({task!r})", SLEEP) as process:
        program.wait(process)
        os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    [(status, attempt, errors, deaths, _)] = program.jobs()
    assert (status, attempt, errors, deaths) == (QUEUED, 0, 0, 0)
