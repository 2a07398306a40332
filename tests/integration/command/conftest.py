# SPDX-License-Identifier: ZPL-2.1
"""What the tests of the command share: it runs in processes of its own, as users start it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import IO, Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.interfaces import COMPLETED, CRONJOB, DELAYED, QUEUED, STARTLATER

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli"]
SECONDS = 30  # within which a command must have ended

Ended = subprocess.CompletedProcess[str]

SHOP = """
    from pathlib import Path
    from lovely.remotetask.task import task

    @task("note")
    def note(input):
        Path("noted").write_text(repr(input))
        return input
"""


@pytest.fixture
def zeo_leftovers() -> Iterator[None]:
    """Take away, with the test that has left it, the socket of a ZEO client that was refused.

    ZEO ends its event loop without closing it; Python tells that when it comes to the garbage,
    and so in any later test.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        yield
        gc.collect()


# -- starting and ending it ------------------------------------------------------------------


def run_to_its_end(*arguments: object, cwd: Path, **variables: str) -> Ended:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@contextmanager
def start(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command, and kill it if it still runs at the end of the block, or after a minute.

    A test that waits for a line that does not come fails then, and does not wait for ever.
    """
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        limit = threading.Timer(2 * SECONDS, process.kill)
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()


@pytest.fixture
def remotetask() -> Callable[..., Ended]:
    """Return ``remotetask(*arguments, cwd, **variables)``, which runs the command to its end."""
    return run_to_its_end


@pytest.fixture
def started() -> Callable[..., AbstractContextManager[subprocess.Popen[str]]]:
    """Return ``started(*arguments, cwd)``, in whose block the command runs."""
    return start


@pytest.fixture
def error_of() -> Callable[[Ended, int], str]:
    """Return a function that returns what a command that failed has to say: one line."""

    def error_of(ended: Ended, returncode: int) -> str:
        assert (ended.returncode, ended.stdout) == (returncode, ""), ended
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert ended.stderr.startswith("remotetask: ")
        return ended.stderr

    return error_of


@pytest.fixture
def wait_for() -> Callable[[IO[str] | None, Callable[[str], bool]], str]:
    """Return a function that reads lines until one is what is waited for, and returns it."""

    def wait_for(stream: IO[str] | None, is_it: Callable[[str], bool]) -> str:
        assert stream is not None
        lines = []
        for line in stream:
            lines.append(line)
            if is_it(line):
                return line
        pytest.fail(f"the process ended after {lines}")

    return wait_for


@pytest.fixture
def without(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that returns the PYTHONPATH with which a module is not there."""

    def without(module: str) -> str:
        directory = tmp_path / "hidden"
        directory.mkdir()
        (directory / f"{module}.py").write_text("raise ImportError")
        return os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])

    return without


# -- databases and files ---------------------------------------------------------------------


@contextmanager
def open_here(storage: Any) -> Iterator[tuple[Any, transaction.TransactionManager]]:
    """Open a database in this process: its root object, and what begins and commits."""
    database = ZODB.DB(storage)
    manager = transaction.TransactionManager()
    try:
        yield database.open(manager).root(), manager
    finally:
        manager.abort()
        database.close()


@pytest.fixture
def opened() -> Callable[[Any], AbstractContextManager[tuple[Any, Any]]]:
    """Return ``opened(storage)``, which gives (root object, transaction manager)."""
    return open_here


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two text files."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "one.txt").write_text("red green")
    (root / "two.txt").write_text("red blue")
    return root


class Place:
    """A directory with a database file, and a module with the task *note*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.uri = f"file://{directory}/Data.fs"
        (directory / "shop.py").write_text(dedent(SHOP))

    @contextmanager
    def root(self) -> Iterator[Any]:
        """Open the file, give the root object, commit, and close the file."""
        with open_here(FileStorage(str(self.directory / "Data.fs"))) as (root, manager):
            yield root
            manager.commit()

    @contextmanager
    def service(self, name: str = "tasks") -> Iterator[TaskService]:
        with self.root() as root:
            yield root[name]

    def new_service(self, name: str, **attributes: Any) -> None:
        with self.root() as root:
            service = root[name] = TaskService()
            for attribute, value in attributes.items():
                setattr(service, attribute, value)

    def run(self, verb: str, *arguments: str) -> Ended:
        return run_to_its_end(verb, self.uri, *arguments, cwd=self.directory)

    def check(self, *arguments: str) -> Ended:
        return run_to_its_end("check", self.uri, *arguments, cwd=self.directory)

    def clean(self, *arguments: str) -> Ended:
        return run_to_its_end("clean", self.uri, *arguments, cwd=self.directory)

    def add(self, *arguments: str) -> Ended:
        return run_to_its_end("add", self.uri, *arguments, cwd=self.directory)

    def inputs(self, name: str = "tasks") -> list[Any]:
        """Return the inputs of all jobs."""
        with self.service(name) as service:
            return [job.input for job in service.jobs.values()]

    def statuses(self) -> set[str]:
        """Return the statuses of all jobs."""
        with self.service() as service:
            return {job.status for job in service.jobs.values()}


@pytest.fixture
def empty_place(tmp_path: Path) -> Place:
    """A place without a database."""
    return Place(tmp_path)


@pytest.fixture
def place(empty_place: Place) -> Place:
    """A place whose database has an empty service, *tasks*."""
    empty_place.new_service("tasks")
    return empty_place


@pytest.fixture
def jobs(place: Place, register: Any) -> dict[str, int]:
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
