# SPDX-License-Identifier: ZPL-2.1
"""``remotetask run`` in processes of its own, as a user starts and ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from ZEO.ClientStorage import ClientStorage
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.command import demo
from lovely.remotetask.command.signals import Signals
from lovely.remotetask.store.count import count_jobs

SECONDS = 30  # within which a command must have ended

TASKS = """
    import logging
    from pathlib import Path
    from time import sleep
    import ZODB
    from lovely.remotetask import TaskService
    from lovely.remotetask.task import task

    @task("wait")
    def wait(name):
        logging.getLogger("shop").info("%s is about to wait", name)
        Path(f"{name}.started").touch()
        while not Path("go").exists():
            sleep(0.01)
        return f"{name} is done"

    def fill():
        database = ZODB.DB("Data.fs")
        with database.transaction() as connection:
            service = connection.root()["tasks"] = TaskService()
            service.add("wait", "first")
            service.add("wait", "second")
        database.close()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with a module of tasks, and a database whose two jobs wait for ``go``."""
    (tmp_path / "shop.py").write_text(dedent(TASKS))
    subprocess.run([sys.executable, "-c", "import shop; shop.fill()"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def run(started: Any) -> Callable[..., Any]:
    """Return ``run(shop, *arguments)``, in whose block the services of the shop are worked on."""

    def run(shop: Path, *arguments: object) -> Any:
        return started("run", f"file://{shop}/Data.fs", "--import", "shop", *arguments, cwd=shop)

    return run


@pytest.fixture
def jobs_in(opened: Any) -> Callable[[Path], dict[str, tuple[str, Any]]]:
    """Return a function that returns the status and the result of each job, by its input."""

    def jobs_in(shop: Path) -> dict[str, tuple[str, Any]]:
        with opened(FileStorage(str(shop / "Data.fs"))) as (root, _):
            return {job.input: (job.status, job.output) for job in root["tasks"].jobs.values()}

    return jobs_in


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def signal_until_it_ends(process: subprocess.Popen[str], number: int) -> None:
    for _ in range(10 * SECONDS):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return
    pytest.fail("the process goes on, whatever it is sent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_the_first_signal_finishes_what_runs_and_gives_back_the_rest(
    shop: Path, number: int, wait_for: Any, run: Any, jobs_in: Any
) -> None:
    with run(shop) as process:
        wait_for_file(shop / "first.started", process)
        process.send_signal(number)
        wait_for(process.stderr, lambda line: line.startswith("Stopping"))
        (shop / "go").touch()
        stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, stderr
    assert f"kill {process.pid}" in stdout
    assert jobs_in(shop) == {"first": ("completed", "first is done"), "second": ("queued", None)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_leaves_now_and_its_jobs_are_run_again(
    shop: Path, number: int, wait_for: Any, run: Any, jobs_in: Any
) -> None:
    with run(shop) as process:
        wait_for_file(shop / "first.started", process)
        process.send_signal(number)
        wait_for(process.stderr, lambda line: line.startswith("Stopping"))
        signal_until_it_ends(process, number)
    assert process.returncode == 128 + number
    assert jobs_in(shop)["first"] == ("processing", None)
    (shop / "go").touch()
    with run(shop) as process:
        wait_for_file(shop / "second.started", process)
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert jobs_in(shop)["first"] == ("completed", "first is done")


def test_the_grace_has_an_end(shop: Path, opened: Any, run: Any) -> None:
    with run(shop, "--grace", "0.1") as process:
        wait_for_file(shop / "first.started", process)
        process.terminate()
        stderr = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1
    assert "jobs were still running" in stderr

    with opened(FileStorage(str(shop / "Data.fs"))) as (root, _):
        jobs = {job.input: job for job in root["tasks"].jobs.values()}
        assert not root["tasks"].workers
    assert {(job.status, job.attempt, job.deaths) for job in jobs.values()} == {("queued", 0, 0)}
    assert [note.type for note in jobs["first"].failures] == ["JobInterrupted"]


def test_a_hangup_that_is_to_be_ignored_is() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGQUIT) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_programs_are_told_what_runs(shop: Path, run: Any) -> None:
    (shop / "go").touch()
    with run(shop, "--json", "--autostart", "@tasks") as process:
        wait_for_file(shop / "second.started", process)
        process.terminate()
        stdout = process.communicate(timeout=SECONDS)[0]
    assert json.loads(stdout) == {
        "services": 1,
        "database": f"file://{shop}/Data.fs",
        "pid": process.pid,
    }


def test_services_that_are_started_and_single_jobs_are_logged(
    shop: Path, wait_for: Any, run: Any
) -> None:
    (shop / "go").touch()
    with run(shop, "--verbose") as process:
        wait_for(process.stderr, lambda line: "service tasks on site root started" in line)
        wait_for(process.stderr, lambda line: "task wait, attempt 1: completed" in line)


def test_jobs_that_come_from_another_process_are_run(
    tmp_path: Path, zeo: tuple[str, int], started: Any, wait_for: Any, opened: Any
) -> None:
    with opened(ClientStorage(zeo)) as (root, manager):
        with manager:
            root["tasks"] = TaskService()
        uri = f"zeo://{zeo[0]}:{zeo[1]}"
        with started(
            "run", uri, "--import", "lovely.remotetask.command.demo", cwd=tmp_path
        ) as process:
            wait_for(process.stdout, lambda line: "at work" in line)
            demo.register()
            with manager:
                jobid = root["tasks"].add(demo.REPORT)
            while root["tasks"].getStatus(jobid) != "error":  # there is no catalog
                time.sleep(0.01)
                manager.begin()
            process.terminate()
            assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("uri", "returncode", "text"),
    [
        ("Data.fs", 1, "no database file"),
        ("zeo:localhost:8100", 2, "no URI"),
        ("ftp://example.org/Data.fs", 2, "no storage is known for ftp://"),
        ("zeo://localhost:port", 2, "malformed"),
        ("memory://?color=red", 2, "malformed"),
        ("file:///no/such/Data.fs", 1, "no database file /no/such/Data.fs"),
        ("zeo://127.0.0.1:1?wait_timeout=1", 1, "cannot be opened"),
        ("memory://", 1, "no service"),
    ],
)
def test_a_database_that_cannot_be_worked_on_is_told(
    tmp_path: Path, uri: str, returncode: int, text: str, remotetask: Any
) -> None:
    ended = remotetask("run", uri, "--autostart", "@tasks", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (returncode, "")
    assert text in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_pattern_that_matches_no_service_is_told_with_those_that_there_are(
    shop: Path, remotetask: Any, error_of: Any
) -> None:
    ended = remotetask("run", "Data.fs", "--autostart", "a@b", cwd=shop)
    assert "no service in Data.fs matches 'a@b': it has @tasks" in error_of(ended, 1)


def test_a_pattern_that_leads_nowhere_is_told_where_others_lead_to_services(
    shop: Path, run: Any, wait_for: Any
) -> None:
    (shop / "go").touch()
    with run(shop, "--autostart", "@tasks, @taks") as process:
        wait_for(process.stderr, lambda line: "matches '@taks': it has @tasks" in line)
        wait_for(process.stdout, lambda line: line.startswith("1 service of "))


def test_a_service_that_is_made_later_is_found(
    tmp_path: Path,
    zeo: tuple[str, int],
    started: Any,
    wait_for: Any,
    opened: Any,
    remotetask: Any,
    error_of: Any,
) -> None:
    uri = f"zeo://{zeo[0]}:{zeo[1]}"
    with opened(ClientStorage(zeo)) as (root, manager):
        ended = remotetask("run", uri, cwd=tmp_path)
        assert error_of(ended, 1).endswith(f"it has none; to make one: remotetask init {uri}\n")
        with started("run", uri, "--wait-for-service", cwd=tmp_path) as process:
            wait_for(process.stdout, lambda line: line.startswith("Waiting; to stop: "))
            for name in ("early", "late"):
                with manager:
                    root[name] = TaskService()
                wait_for(process.stderr, lambda line, name=name: f"service {name} on site" in line)
            process.terminate()
            assert process.wait(SECONDS) == 0


THREADS = """
    import threading, time
    from lovely.remotetask.remote.job import Job
    from lovely.remotetask.task import task

    gate = threading.Barrier(3)

    @task("meet")
    def meet(input):
        gate.wait(20)

    class Meet(Job):
        def __call__(self, processor):
            gate.wait(20)
"""


@pytest.mark.parametrize("door", ["tasks", "remote"])
def test_as_many_threads_run_as_were_asked_for(
    tmp_path: Path, door: str, started: Any, opened: Any, remotetask: Any, until: Any
) -> None:
    (tmp_path / "meeting.py").write_text(dedent(THREADS))
    remotetask("init", "Data.fs", "--door", door, cwd=tmp_path)
    code = f"""
        import meeting, ZODB
        database = ZODB.DB("Data.fs")
        with database.transaction() as connection:
            service = connection.root()["tasks"]
            if {door!r} == "remote":
                service.addJobFactory("meet", meeting.Meet())
            for number in range(3):
                service.addNamed("meet")
        database.close()
    """
    subprocess.run([sys.executable, "-c", dedent(code)], cwd=tmp_path, check=True)
    with started(
        "run", "Data.fs", "--import", "meeting", "--threads", 3, "--verbose", cwd=tmp_path
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if sum("attempt 1: completed" in line for line in lines) == 3:
                break
        process.terminate()
        assert process.wait(SECONDS) == 0
    with opened(FileStorage(str(tmp_path / "Data.fs"))) as (root, _):
        service = root["tasks"]
        assert count_jobs(service)["completed"] == 3
        assert "processorFactory" not in vars(service)  # nothing of it is stored


@pytest.mark.parametrize("threads", ["0", "1001", "many"])
def test_a_number_of_threads_that_is_none_is_told(
    shop: Path, threads: str, remotetask: Any
) -> None:
    ended = remotetask("run", "Data.fs", "--threads", threads, cwd=shop)
    assert ended.returncode == 2
    assert f"'{threads}' is not a number of 1 to 1000" in ended.stderr


ZOPE = """
    from persistent.mapping import PersistentMapping

    class Application(PersistentMapping):
        pass
"""


@pytest.fixture
def zope(tmp_path: Path, remotetask: Any) -> Path:
    """A directory with a database of Zope, whose root has a service, and a stand-in for Zope."""
    package = tmp_path / "zope_home" / "OFS"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "Application.py").write_text(dedent(ZOPE))
    code = """
        import ZODB
        from OFS.Application import Application
        from lovely.remotetask import TaskService
        database = ZODB.DB("Data.fs")
        with database.transaction() as connection:
            app = connection.root()["Application"] = Application()
            app["tasks"] = TaskService()
        database.close()
    """
    subprocess.run(
        [sys.executable, "-c", dedent(code)],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": path_with(tmp_path / "zope_home")},
    )
    return tmp_path


def path_with(directory: Path) -> str:
    return os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])


def test_a_database_of_zope_is_not_worked_on(zope: Path, remotetask: Any, error_of: Any) -> None:
    path = path_with(zope / "zope_home")
    line = error_of(remotetask("run", "Data.fs", cwd=zope, PYTHONPATH=path), 1)
    assert "this is a database of Zope" in line
    ended = remotetask("status", "Data.fs", cwd=zope, PYTHONPATH=path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("tasks on root:")


@pytest.mark.parametrize("verb", ["run", "status", "uninstall"])
def test_a_database_whose_application_cannot_be_imported_is_told(
    zope: Path, verb: str, remotetask: Any, error_of: Any
) -> None:
    line = error_of(remotetask(verb, "Data.fs", cwd=zope), 1)
    assert "is a OFS.Application.Application, which cannot be imported here" in line


@pytest.mark.parametrize("source", ["import no_such_module", "raise KeyError('oh')", None])
def test_a_module_that_cannot_be_imported_is_told(
    shop: Path, source: str | None, remotetask: Any, error_of: Any
) -> None:
    if source:
        (shop / "broken.py").write_text(source)
    ended = remotetask("run", f"file://{shop}/Data.fs", "--import", "broken", cwd=shop)
    assert "cannot import broken" in error_of(ended, 1)


def test_a_traceback_is_shown_to_who_asks_for_it(tmp_path: Path, remotetask: Any) -> None:
    ended = remotetask("run", "memory://", "--import", "broken", "--verbose", cwd=tmp_path)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_lines_that_nobody_is_shown_are_kept_with_their_job(
    shop: Path, opened: Any, run: Any
) -> None:
    (shop / "go").touch()
    with run(shop) as process:
        wait_for_file(shop / "second.started", process)
        process.terminate()
        stderr = process.communicate(timeout=SECONDS)[1]
    assert "about to wait" not in stderr
    with opened(FileStorage(str(shop / "Data.fs"))) as (root, _):
        service = root["tasks"]
        first = next(job for job in service.jobs.values() if job.input == "first")
        assert [line.text for line in service.getLog(first.id)] == ["first is about to wait"]


@pytest.mark.parametrize("arguments", [[], ["Data.fs", "--zope-conf", "zope.conf"]])
def test_a_database_is_named_once(
    arguments: list[str], tmp_path: Path, remotetask: Any, error_of: Any
) -> None:
    line = error_of(remotetask("run", *arguments, cwd=tmp_path), 2)
    assert "run takes the URI of a database, or --zope-conf" in line


def test_a_configuration_of_zope_that_is_not_there_is_told(
    tmp_path: Path, remotetask: Any, error_of: Any
) -> None:
    line = error_of(remotetask("run", "--zope-conf", "zope.conf", cwd=tmp_path), 1)
    assert "there is no file zope.conf" in line


def test_an_environment_without_zope_is_told(
    tmp_path: Path, remotetask: Any, error_of: Any
) -> None:
    (tmp_path / "zope.conf").write_text("instancehome .")
    (tmp_path / "Zope2.py").write_text("raise ImportError")
    line = error_of(
        remotetask("run", "--zope-conf", "zope.conf", cwd=tmp_path, PYTHONPATH=path_with(tmp_path)),
        1,
    )
    assert "there is no Zope in this environment" in line
