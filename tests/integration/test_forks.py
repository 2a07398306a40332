# SPDX-License-Identifier: ZPL-2.1
"""Jobs that fork: the child ends where it comes out of the job, and its parent goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.store.check import check_all

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

SECONDS = 60
NOTES = 10

TASKS = """
    import multiprocessing, os, signal, sys, time
    from contextlib import contextmanager
    from pathlib import Path
    import transaction, zope.event
    from lovely.remotetask import RetryPolicy, TaskService
    from lovely.remotetask.around import register_around
    from lovely.remotetask.events import JobCompleted
    from lovely.remotetask.processor import MultiProcessor
    from lovely.remotetask.task import task

    def say(name, text):
        with open(name, "a") as lines:
            lines.write(f"{text}\\n")

    def fail():
        raise ValueError("the child has failed")

    WAYS = {
        "return": lambda: "child",
        "raise": fail,
        "exit": sys.exit,
        "exit 3": lambda: sys.exit(3),
        "exit text": lambda: sys.exit("the child has had enough"),
    }

    def attend(child):
        end = time.monotonic() + 5
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        say("children", os.waitstatus_to_exitcode(ended[1]))

    def fork(way):
        child = os.fork()
        if child == 0:
            return WAYS[way]()
        attend(child)
        return "parent"

    async def fork_in_coroutine(way):
        return fork(way)

    def fork_in_hook(way):
        transaction.get().addBeforeCommitHook(fork, (way,))
        return "parent"

    def stay(input):
        child = os.fork()
        if child == 0:
            if os.fork():
                os._exit(0)
            time.sleep(0.5)  # by now its parents have gone on
            say("server", "ok")
            while True:
                time.sleep(1)
        os.waitpid(child, 0)
        return "parent"

    def use_multiprocessing(input):
        process = multiprocessing.get_context("fork").Process(target=say, args=("server", "ok"))
        process.start()
        process.join(10)
        say("children", process.exitcode)
        return "parent"

    def note(context, number):
        say("notes", os.getpid())
        context.root[f"note {number}"]["times"] += 1

    once = RetryPolicy(attempts=1)
    for function in (fork, fork_in_coroutine, fork_in_hook, stay, use_multiprocessing):
        task(function.__name__, retry=once)(function)
    task("fork_together", retry=once, shared_commit=True)(fork)
    task("fork_elsewhere", retry=once, executor="process")(fork)
    task("note", context=True)(note)
    task("note_together", context=True, shared_commit=True)(note)

    @task("quiet")
    def quiet(way):
        return "parent"

    def fork_at_begin(way):
        @contextmanager
        def around(job, context):
            if job.task == "quiet":
                fork(way)
            yield

        register_around("fork", around)

    def fork_at_end(way):
        @contextmanager
        def outer(job, context):
            yield
            if job.task == "quiet":
                say("left", "ok")

        @contextmanager
        def inner(job, context):
            yield
            if job.task == "quiet":
                fork(way)

        register_around("outer", outer)
        register_around("inner", inner)

    def fork_in_subscriber(way):
        def hear(event):
            if type(event) is JobCompleted and event.task == "quiet":
                fork(way)

        zope.event.subscribers.append(hear)
"""

PROGRAM = """
    import os, sys, threading, time
    import transaction, ZODB
    import tasks_that_fork as tasks
    from persistent.mapping import PersistentMapping

    kind, task, way = sys.argv[1:]
    if task.endswith(":"):
        getattr(tasks, task[:-1])(way)
        task = "quiet"
    together = "_together" if task == "fork_together" else ""

    def is_over():
        with db.transaction() as connection:
            jobs = connection.root()["tasks"].jobs.values()
            return all(job.is_final for job in jobs)

    def work():
        db.open().root()["tasks"].startProcessing()
        end = time.monotonic() + 30
        while not is_over() and time.monotonic() < end:
            time.sleep(0.01)

    def work_inline():
        for _ in range(2):
            with db.transaction() as connection:
                connection.root()["tasks"].process()
            tasks.say("commits", "ok")

    if __name__ == "__main__":
        db = ZODB.DB("Data.fs")
        with db.transaction() as connection:
            service = connection.root()["tasks"] = tasks.TaskService()
            for number in range(10):
                connection.root()[f"note {number}"] = PersistentMapping(times=0)
            if kind == "threads":
                service.processorFactory = tasks.MultiProcessor
                service.processorArguments = {"maxThreads": 3}
            service.add_many("note" + together, [0, 1])
            service.add(task, way)
            service.add_many("note" + together, range(2, 10))
        (work_inline if kind == "inline" else work)()
        with db.transaction() as connection:
            connection.root()["tasks"].stopProcessing(10)
        db.close()
"""


class Forks:
    """A process whose jobs fork, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "tasks_that_fork.py").write_text(dedent(TASKS))
        (directory / "program.py").write_text(dedent(PROGRAM))

    def run(self, kind: str, task: str, way: str) -> str:
        """Let it do its work, and return what it has said; the children that are left end too."""
        with (self.directory / "said").open("w+") as said:
            process = subprocess.Popen(
                [sys.executable, "program.py", kind, task, way],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.pid = process.pid
            try:
                status = process.wait(SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            said.seek(0)
            text = said.read()
        assert status == 0, text
        return text

    def lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().split() if path.exists() else []

    def check(self) -> None:
        """Check that a copy of the database opens, and that all was done once, by the parent."""
        assert set(self.lines("notes")) == {str(self.pid)}
        copy = str(self.directory / "Copy.fs")
        shutil.copy(self.directory / "Data.fs", copy)
        db = ZODB.DB(FileStorage(copy))
        try:
            for transaction in db.storage.iterator():
                assert all(record.oid for record in transaction)
            with db.transaction() as connection:
                root = connection.root()
                assert [root[f"note {number}"]["times"] for number in range(NOTES)] == [1] * NOTES
                service = root["tasks"]
                assert check_all(service, 0.0, repair=False) == []
                jobs = [(job.status, job.attempt, job.deaths) for job in service.jobs.values()]
                assert jobs == [(COMPLETED, 1, 0)] * (NOTES + 1)
                [output] = [job.output for job in service.jobs.values() if "note" not in job.task]
                assert output == "parent"
        finally:
            db.close()


@pytest.fixture
def forks(tmp_path: Path) -> Forks:
    return Forks(tmp_path)


WAYS = {"return": "0", "raise": "1", "exit": "0", "exit 3": "3", "exit text": "1"}
SOME = ("return", "raise", "exit 3")
SAID = {"raise": "ValueError: the child has failed\n", "exit text": "the child has had enough\n"}


@pytest.mark.parametrize(
    ("kind", "task", "way"),
    [
        *(("thread", "fork", way) for way in WAYS),
        *(("threads", "fork", way) for way in SOME),
        *(("thread", "fork_together", way) for way in SOME),
        *(("inline", "fork", way) for way in SOME),
    ],
)
def test_a_child_ends_where_it_leaves_its_task(
    forks: Forks, kind: str, task: str, way: str
) -> None:
    said = forks.run(kind, task, way)
    assert forks.lines("children") == [WAYS[way]]
    assert said.endswith(SAID.get(way, ""))
    assert said.startswith("Traceback") if way == "raise" else said == SAID.get(way, "")
    forks.check()
    if kind == "inline":
        assert forks.lines("commits") == ["ok", "ok"]


@pytest.mark.parametrize(
    "task",
    [
        "fork_in_coroutine",
        "fork_in_hook",
        "fork_elsewhere",
        "fork_at_begin:",
        "fork_at_end:",
        "fork_in_subscriber:",
    ],
)
@pytest.mark.parametrize("way", ["return", "exit"])
def test_so_it_does_elsewhere_in_a_job(forks: Forks, task: str, way: str) -> None:
    forks.run("thread", task, way)
    assert forks.lines("children") == ["0"]
    forks.check()
    if task == "fork_at_end:":
        assert forks.lines("left") == ["ok"]


def test_a_child_that_stays_in_its_task_is_left_alone(forks: Forks) -> None:
    code = forks.directory / "program.py"
    code.write_text(
        code.read_text().replace(
            "    db.close()",
            "    while not os.path.exists('server'):\n        time.sleep(0.01)\n    db.close()",
        )
    )
    forks.run("thread", "stay", "return")
    assert forks.lines("server") == ["ok"]
    forks.check()


def test_a_child_of_multiprocessing_ends_by_itself(forks: Forks) -> None:
    forks.run("thread", "use_multiprocessing", "return")
    assert forks.lines("server") == ["ok"]
    assert forks.lines("children") == ["0"]
    forks.check()
