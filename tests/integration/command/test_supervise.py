# SPDX-License-Identifier: ZPL-2.1
"""``remotetask run`` with several processes, with limits, and until nothing waits any more."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from ZEO.ClientStorage import ClientStorage
from ZODB.FileStorage import FileStorage

from lovely.remotetask import TaskService
from lovely.remotetask.interfaces import COMPLETED, CRONJOB, DELAYED, FINAL_STATUSES

SECONDS = 30  # within which a command must have ended

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli", "run"]

#: One whose supervisor waits hardly at all for what has to end.
IMPATIENT = """
import sys
from lovely.remotetask.cli import main
from lovely.remotetask.command import supervise
supervise.PATIENCE_SECONDS = 0.1
sys.exit(main())
"""

#: Where nothing of a dead process is freed by the lease.
NEVER = 86400

SHOP = """
    import logging, os, time
    from pathlib import Path
    from lovely.remotetask.errors import RetryLater
    from lovely.remotetask.task import task

    kept = []

    @task("pid")
    def pid(input):
        return os.getpid()

    @task("wait", context=True)
    def wait(context, name):
        logging.getLogger("shop").warning("%s waits", name)
        Path(f"{name}.started").write_text(str(os.getpid()))
        while not Path("go").exists():
            time.sleep(0.01)
        return f"{name} is done"

    @task("keep")
    def keep(megabytes):
        kept.append(bytearray(os.urandom(1)) * (megabytes << 20))
        return os.getpid()

    @task("later", context=True)
    def later(context, input):
        if context.attempt < 3:
            raise RetryLater(0.3)
        return context.attempt

    @task("die")
    def die(input):
        os.kill(os.getpid(), 9)
"""


class Shop:
    """A directory with tasks, and a service on a ZEO server.

    - ``uri``: that of the database.
    """

    def __init__(self, directory: Path, address: tuple[str, int], opened: Any) -> None:
        self.directory = directory
        self.uri = f"zeo://{address[0]}:{address[1]}"
        self._address = address
        self._opened = opened
        (directory / "shop.py").write_text(dedent(SHOP))
        with self.service() as service:
            assert service is not None

    @contextmanager
    def service(self) -> Iterator[Any]:
        """Give the service, and commit."""
        with self._opened(ClientStorage(self._address)) as (root, manager):
            if "tasks" not in root:
                root["tasks"] = TaskService()
            yield root["tasks"]
            manager.commit()

    def let_leases_last(self, max_deaths: int = 3) -> None:
        with self.service() as service:
            service.lease_seconds = NEVER
            service.max_deaths = max_deaths

    def add(self, task: str, *inputs: Any) -> list[int]:
        with self.service() as service:
            return [service.add(task, each) for each in inputs]

    def statuses(self) -> Counter[str]:
        with self.service() as service:
            return Counter(job.status for job in service.jobs.values())

    def get(self, jobid: int, *names: str) -> tuple[Any, ...]:
        with self.service() as service:
            return tuple(getattr(service.jobs[jobid], name) for name in names)

    def outputs(self) -> list[Any]:
        with self.service() as service:
            return [job.output for job in service.jobs.values()]

    def wait_until_all_have_ended(self) -> None:
        wait(lambda: set(self.statuses()) <= set(FINAL_STATUSES))

    def pid_in(self, name: str) -> int:
        """Return the process that waits in a job, when one does."""
        path = self.directory / f"{name}.started"
        return int(wait(lambda: path.exists() and path.read_text()))

    def workers(self) -> list[dict[str, Any]]:
        """Return what ``remotetask workers --json`` says."""
        command = [*COMMAND[:-1], "workers", self.uri, "--json"]
        told: list[dict[str, Any]] = json.loads(subprocess.check_output(command))
        return told


def wait(condition: Callable[[], Any], seconds: float = 2 * SECONDS) -> Any:
    """Return what a condition says, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


class Run:
    """The command as it runs; what it logs is in a file."""

    def __init__(
        self,
        directory: Path,
        *arguments: object,
        stdout: int | None = None,
        command: list[str] = COMMAND,
        **variables: str,
    ) -> None:
        self._log = directory / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)],
                cwd=directory,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> str:
        """Wait for a line with a text."""

        def find() -> str | None:
            has_ended = self.process.poll() is not None  # and so has written all it will write
            lines = [line for line in self.log.splitlines() if text in line]
            assert lines or not has_ended, self.log
            return lines[0] if lines else None

        found: str = wait(find)
        return found

    def children(self) -> list[int]:
        """Return the processes that work, by their numbers."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(word) for word in listed.stdout.split()]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def kill_all(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def shop(tmp_path: Path, zeo: tuple[str, int], opened: Any, register: Any) -> Shop:
    for name in ("pid", "wait", "keep", "later", "die"):  # here they are only added
        register(name, lambda input: input)
    return Shop(tmp_path, zeo, opened)


@pytest.fixture
def run(shop: Shop) -> Iterator[Callable[..., Run]]:
    """Return ``run(*arguments)``, which starts the command on the shop."""
    runs = []

    def start(*arguments: object, **more: Any) -> Run:
        started = Run(shop.directory, shop.uri, "--import", "shop", *arguments, **more)
        runs.append(started)
        return started

    yield start
    for started in runs:
        started.kill_all()


def is_alive(pid: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip() not in ("",) and not listed.stdout.startswith("Z")


# -- several processes -----------------------------------------------------------------------


def test_processes_work_beside_each_other(shop: Shop, run: Any) -> None:
    started = run("--processes", 2, "--threads", 1)
    started.wait_for("2 processes at work on 1 service of")
    shop.add("wait", "one", "two")
    wait((shop.directory / "one.started").exists)
    wait((shop.directory / "two.started").exists)  # while the other one runs
    workers = shop.workers()
    assert {worker["supervisor"] for worker in workers} == {started.process.pid}
    assert sorted(worker["child"] for worker in workers) == [1, 2]
    assert {(worker["starts"], worker["restarted"]) for worker in workers} == {(1, "")}
    started.process.terminate()
    started.wait_for("Stopping")
    (shop.directory / "go").touch()
    assert started.process.wait(SECONDS) == 0
    assert sorted(shop.outputs()) == ["one is done", "two is done"]


def test_one_that_is_killed_is_followed_by_another(shop: Shop, run: Any) -> None:
    started = run("--processes", 2)
    started.wait_for("2 processes at work")
    killed = started.children()[0]
    os.kill(killed, signal.SIGKILL)
    started.wait_for(f"(pid {killed}) was ended by SIGKILL; another one is started")
    wait(lambda: len(started.children()) == 2)
    shop.add("wait", "one", "two")
    wait(lambda: len(shop.workers()) == 2)
    [again] = [worker for worker in shop.workers() if worker["starts"] == 2]
    assert again["restarted"] == "was ended by SIGKILL"
    shown = subprocess.check_output([*COMMAND[:-1], "workers", shop.uri], text=True)
    supervisor = started.process.pid
    expected = f"{again['child']} of supervisor {supervisor}, start 2: the one before was ended by"
    assert expected in shown
    (shop.directory / "go").touch()
    shop.wait_until_all_have_ended()
    assert started.end() == 0


def test_what_one_that_was_killed_held_runs_again_at_once(shop: Shop, run: Any) -> None:
    shop.let_leases_last()
    started = run("--processes", 1)
    [jobid] = shop.add("wait", "one")
    first = shop.pid_in("one")
    os.kill(first, signal.SIGKILL)
    wait(lambda: shop.get(jobid, "status", "attempt") == ("processing", 2))
    (shop.directory / "go").touch()
    shop.wait_until_all_have_ended()
    assert shop.get(jobid, "status", "deaths") == ("completed", 1)
    assert (
        f"the process {first} on {socket.gethostname()} died while it held the job" in started.log
    )
    assert started.end() == 0


def test_one_that_stops_frees_what_another_held_that_was_killed(shop: Shop, run: Any) -> None:
    shop.let_leases_last()
    started = run("--processes", 2, "--threads", 1)
    started.wait_for("2 processes at work")
    jobids = shop.add("wait", "one", "two")
    killed = shop.pid_in("one")
    assert shop.pid_in("two") != killed
    started.process.terminate()
    started.wait_for("Stopping")
    os.kill(killed, signal.SIGKILL)
    wait(lambda: shop.get(jobids[0], "status", "deaths") == ("queued", 1))
    (shop.directory / "go").touch()
    assert started.process.wait(SECONDS) == 1
    assert shop.get(jobids[1], "status", "deaths") == ("completed", 0)
    with shop.service() as service:
        assert not service.workers


def test_those_of_a_supervisor_that_is_killed_end_in_order(shop: Shop, run: Any) -> None:
    started = run("--processes", 2)
    started.wait_for("2 processes at work")
    shop.add("wait", "one", "two", "three")
    # Two of them, and not always the first two: who finds a rival at work takes another one.
    wait(lambda: len(list(shop.directory.glob("*.started"))) == 2)
    children = started.children()
    started.process.kill()
    started.process.wait()
    wait(lambda: started.log.count("the supervisor is gone") == 2)
    (shop.directory / "go").touch()
    wait(lambda: not any(map(is_alive, children)))
    assert shop.statuses() == {"completed": 2, "queued": 1}
    with shop.service() as service:
        assert not service.workers
        assert {job.deaths for job in service.jobs.values()} == {0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_group_ends_all_in_order(shop: Shop, run: Any, number: int) -> None:
    started = run("--processes", 2)
    started.wait_for("2 processes at work")
    shop.add("wait", "one")
    wait((shop.directory / "one.started").exists)
    os.killpg(started.process.pid, number)
    started.wait_for("Stopping")
    (shop.directory / "go").touch()
    assert started.process.wait(SECONDS) == 0, started.log
    assert shop.statuses() == {"completed": 1}
    assert started.log.count("Stopping") == 1
    assert "Traceback" not in started.log


def test_one_that_gets_a_signal_by_itself_is_followed_too(shop: Shop, run: Any) -> None:
    started = run("--processes", 1)
    started.wait_for("1 process at work")
    [first] = started.children()
    os.kill(first, signal.SIGTERM)
    started.wait_for(f"(pid {first}) was told to end by signal 15; another one is started")
    wait(lambda: started.children() and started.children() != [first])
    assert started.end() == 0


def test_the_grace_has_an_end_for_all(shop: Shop, run: Any) -> None:
    started = run("--processes", 2, "--grace", 0.2)
    started.wait_for("2 processes at work")
    shop.add("wait", "one")
    wait((shop.directory / "one.started").exists)
    assert started.end() == 1
    with shop.service() as service:
        [job] = service.jobs.values()
        assert (job.status, job.attempt, job.deaths) == ("queued", 0, 0)


def test_a_second_signal_ends_all_on_the_spot(shop: Shop, run: Any) -> None:
    started = run("--processes", 2)
    started.wait_for("2 processes at work")
    shop.add("wait", "one")
    wait((shop.directory / "one.started").exists)
    children = started.children()
    started.process.terminate()
    started.wait_for("Stopping")
    time.sleep(0.5)  # one that comes sooner counts as the same
    assert started.end() == 128 + signal.SIGTERM
    wait(lambda: not any(map(is_alive, children)))
    assert shop.statuses() == {"processing": 1}


def test_a_result_that_cannot_be_written_lets_jobs_end(shop: Shop, run: Any) -> None:
    shop.add("wait", "one")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)  # so that the result is written when the job runs
    started = run("--processes", 2, "--json", stdout=writer)
    os.close(writer)
    wait((shop.directory / "one.started").exists)
    os.close(reader)
    started.wait_for("Stopping")
    (shop.directory / "go").touch()
    assert started.process.wait(SECONDS) == 1
    assert shop.statuses() == {"completed": 1}


# -- starts that fail ------------------------------------------------------------------------


def test_a_plain_file_is_for_one_process(tmp_path: Path, remotetask: Any, error_of: Any) -> None:
    remotetask("init", "Data.fs", cwd=tmp_path)
    line = error_of(remotetask("run", "Data.fs", "--processes", 2, cwd=tmp_path), 2)
    assert "Data.fs can be opened by one process at a time, so --processes takes a ZEO" in line


def test_what_the_first_process_cannot_do_ends_all(
    tmp_path: Path, remotetask: Any, error_of: Any
) -> None:
    ended = remotetask("run", "Data.fs", "--processes", 2, "--import", "nothing", cwd=tmp_path)
    assert "cannot import nothing" in error_of(ended, 1)


def test_processes_that_die_at_once_again_and_again_are_given_up(shop: Shop, run: Any) -> None:
    (shop.directory / "dying.py").write_text("import os; os.kill(os.getpid(), 9)")
    started = run("--import", "dying", "--processes", 2)
    assert started.process.wait(2 * SECONDS) == 4
    assert started.log.count("was ended by SIGKILL") == 7
    assert "process 1 has died 8 times in a row, each time at once: giving up" in started.log


@pytest.mark.parametrize("words", [["--child", "1"], ["--child", "1", "--channel", "0"]])
def test_what_only_a_supervisor_gives_is_refused(
    tmp_path: Path, words: list[str], remotetask: Any, error_of: Any
) -> None:
    line = error_of(remotetask("run", "Data.fs", *words, cwd=tmp_path), 2)
    assert "--child and --channel are for the processes of a supervisor" in line


# -- limits ----------------------------------------------------------------------------------


def test_a_process_runs_no_more_jobs_than_it_may(shop: Shop, run: Any) -> None:
    shop.add("pid", *range(7))
    started = run("--max-jobs", 2, "--threads", 2)
    shop.wait_until_all_have_ended()
    assert started.end() == 0
    counts = Counter(shop.outputs())
    assert max(counts.values()) == 2
    assert len(counts) >= 4
    assert "has run 2 jobs; another one is started" in started.log
    assert shop.statuses() == {"completed": 7}


def test_one_that_has_grown_is_followed_by_another(shop: Shop, run: Any) -> None:
    started = run("--max-memory", 300)
    started.wait_for("1 process at work")
    [first] = started.children()
    shop.add("keep", 400)
    line = started.wait_for("has grown to")
    assert f"process 1 (pid {first})" in line
    shop.add("keep", 1)
    shop.add("wait", "one")
    wait((shop.directory / "one.started").exists)
    [worker] = shop.workers()
    assert worker["restarted"].startswith("has grown to ")
    assert (worker["starts"], worker["supervisor"]) == (2, started.process.pid)
    (shop.directory / "go").touch()
    shop.wait_until_all_have_ended()
    with shop.service() as service:
        outputs = {job.input: job.output for job in service.jobs.values()}
    assert outputs[400] == first != outputs[1]
    assert started.end() == 0


@pytest.fixture
def retiring(shop: Shop, run: Any) -> tuple[Run, int, int]:
    """A supervisor, and a process that has to end, beside the next one, and runs a job."""
    shop.let_leases_last()
    impatient = [sys.executable, "-c", IMPATIENT, "run"]
    started = run("--max-jobs", 2, "--threads", 2, "--grace", 1, command=impatient)
    started.wait_for("1 process at work")
    [first] = started.children()
    [jobid] = shop.add("wait", "one")
    wait((shop.directory / "one.started").exists)
    shop.add("pid", None)
    wait(lambda: first in shop.outputs())
    shop.add("pid", None, None)
    # It is not kept waiting for ever: where others can have the database open, one works beside.
    wait(lambda: shop.statuses() == {"completed": 3, "processing": 1})
    assert "is still finishing jobs; another one is started" in started.log
    return started, first, jobid


def test_what_runs_in_one_that_has_to_end_is_finished_first(
    shop: Shop, retiring: tuple[Run, int, int]
) -> None:
    started, first, jobid = retiring
    # One that comes after another death knows which one has died, and robs no other.
    shop.let_leases_last(max_deaths=1)
    shop.add("die", None)
    wait(lambda: shop.statuses()["error"])
    shop.add("pid", None)
    wait(lambda: shop.statuses() == {"completed": 4, "processing": 1, "error": 1})
    (shop.directory / "go").touch()
    shop.wait_until_all_have_ended()
    assert shop.get(jobid, "output", "attempt", "deaths") == ("one is done", 1, 0)
    wait(lambda: not is_alive(first))
    assert started.end() == 0


def test_what_one_that_has_to_end_held_when_it_was_killed_runs_beside(
    shop: Shop, retiring: tuple[Run, int, int]
) -> None:
    started, first, jobid = retiring
    os.kill(first, signal.SIGKILL)
    wait(lambda: shop.get(jobid, "status", "attempt") == ("processing", 2))
    (shop.directory / "go").touch()
    shop.wait_until_all_have_ended()
    assert shop.get(jobid, "output", "deaths") == ("one is done", 1)
    assert started.end() == 0


# -- drain -----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--processes", 2], ["--max-jobs", 1]])
def test_it_ends_when_nothing_is_left_that_could_run(shop: Shop, run: Any, more: Any) -> None:
    shop.add("pid", *range(3))
    shop.add("later", None)
    with shop.service() as service:
        service.addCronJob("pid", minute=(0,))
        service.addCronJob("pid", delay=3600)
    started = run("--drain", *more)
    assert started.process.wait(SECONDS) == 0, started.log
    assert shop.statuses() == {COMPLETED: 4, CRONJOB: 1, DELAYED: 1}
    assert 3 in shop.outputs()
    text = "Nothing waits any more (left for later: 1 delayed, 1 schedules)."
    assert started.log.count(text) == 1


def test_it_waits_for_jobs_that_others_run(shop: Shop, run: Any) -> None:
    other = run()
    other.wait_for("at work")
    shop.add("wait", "one")
    wait((shop.directory / "one.started").exists)
    draining = run("--drain")
    draining.wait_for("at work")
    time.sleep(1.0)
    assert draining.process.poll() is None
    (shop.directory / "go").touch()
    assert draining.process.wait(SECONDS) == 0
    assert other.end() == 0


def test_jobs_that_are_held_back_are_left(shop: Shop, run: Any) -> None:
    shop.add("pid", None)
    with shop.service() as service:
        service.pause()
    started = run("--drain")
    assert started.process.wait(SECONDS) == 0
    assert "Nothing waits any more (left for later: 1 held back)." in started.log


def test_a_job_that_kills_its_process_keeps_nothing_from_its_end(
    tmp_path: Path, remotetask: Any, opened: Any
) -> None:
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    remotetask("init", "Data.fs", cwd=tmp_path)
    for task in ("die", "pid"):
        remotetask("add", "Data.fs", task, "--import", "shop", cwd=tmp_path)
    words = ("run", "Data.fs", "--import", "shop", "--processes", 1, "--drain")
    ended = remotetask(*words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("was ended by SIGKILL") == 3
    with opened(FileStorage(str(tmp_path / "Data.fs"))) as (root, _):
        statuses = sorted(job.status for job in root["tasks"].jobs.values())
    assert statuses == ["completed", "error"]


def test_a_job_that_kills_its_processes_keeps_none_of_them_from_its_end(
    shop: Shop, run: Any
) -> None:
    shop.let_leases_last(max_deaths=2)
    [jobid] = shop.add("die", None)
    shop.add("pid", None)
    started = run("--processes", 2, "--drain")
    assert started.process.wait(2 * SECONDS) == 0, started.log
    assert shop.get(jobid, "status", "deaths") == ("error", 2)
    assert shop.statuses() == {"error": 1, "completed": 1}


# -- the log ---------------------------------------------------------------------------------


def test_all_lines_are_json(shop: Shop, run: Any) -> None:
    started = run("--processes", 2, "--log-format", "json", "--verbose")
    started.wait_for("2 processes at work")
    (shop.directory / "go").touch()
    [jobid] = shop.add("wait", "one")
    shop.wait_until_all_have_ended()
    os.kill(started.children()[0], signal.SIGKILL)
    started.wait_for("another one is started")
    assert started.end() == 0
    lines = [json.loads(line) for line in started.log.splitlines()]
    names = {"time", "level", "logger", "message", "pid"}
    assert all(names <= line.keys() for line in lines)
    told = {"service": "tasks", "job": jobid, "task": "wait", "attempt": 1}
    [of_task] = [line for line in lines if line["logger"] == "shop"]
    assert told.items() <= of_task.items()
    assert of_task["message"] == "one waits"
    [ended] = [line for line in lines if "completed" in line["message"]]
    assert told.items() <= ended.items()
    assert any(line["message"].startswith("Stopping") for line in lines)


@pytest.mark.parametrize("more", [[], ["--processes", 2]])
def test_what_ends_the_command_is_json_too(tmp_path: Path, remotetask: Any, more: Any) -> None:
    ended = remotetask("run", "Data.fs", "--log-format", "json", *more, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (line["level"], line["logger"]) == ("ERROR", "lovely.remotetask")
    assert line["message"].startswith("there is no database file")


# -- health ----------------------------------------------------------------------------------


def ask(url: str) -> tuple[int, dict[str, Any]]:
    """Return what an address says: the status, and the body."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def url_of(started: Run) -> str:
    return started.wait_for("Health is told at").split()[-1]


def test_one_that_hangs_makes_it_unhealthy(shop: Shop, run: Any) -> None:
    started = run("--processes", 2, "--health-address", "127.0.0.1:0")
    url = url_of(started)
    status, body = wait(lambda: (told := ask(url))[0] == 200 and told)
    assert body["problems"] == []
    assert [process["state"] for process in body["processes"]] == ["working"] * 2
    pid = body["processes"][1]["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait(lambda: ask(f"{url}live")[0] == 503)
    status, body = ask(url)
    assert (status, body["healthy"]) == (503, False)
    assert body["problems"][0].startswith(f"process 2 (pid {pid}) has not told anything for")
    os.kill(pid, signal.SIGCONT)
    wait(lambda: ask(url)[0] == 200)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{url}other", timeout=SECONDS)
    assert started.end() == 0


@pytest.mark.parametrize("more", [[], ["--processes", 2]])
def test_a_storage_that_is_away_makes_it_unhealthy(
    tmp_path: Path, zeo_server: Any, opened: Any, more: Any
) -> None:
    server = zeo_server()
    shop = Shop(tmp_path, server.address, opened)
    file = tmp_path / "health"
    health = ("--health-address", "127.0.0.1:0", "--health-file", "health")
    started = Run(tmp_path, shop.uri, "--import", "shop", *health, *more)
    try:
        url = url_of(started)
        wait(lambda: ask(url)[0] == 200)
        first = wait(lambda: json.loads(file.read_text())["healthy"] and file.stat().st_mtime)
        wait(lambda: file.stat().st_mtime > first)
        server.kill()
        wait(lambda: ask(url)[0] == 503)
        assert "the storage does not work" in ask(url)[1]["problems"][0]
        assert ask(f"{url}live")[0] == 200  # a new start would mend nothing
        wait(lambda: not json.loads(file.read_text())["healthy"])
        before = file.stat().st_mtime
        time.sleep(6)
        assert file.stat().st_mtime == before  # when all was well
        server.start()
        wait(lambda: ask(url)[0] == 200)
        wait(lambda: file.stat().st_mtime > before)
        assert started.end() == 0
        assert not file.exists()
    finally:
        started.kill_all()


def test_an_address_that_is_taken_is_told(shop: Shop, run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = run("--health-address", f"127.0.0.1:{port}")
        assert started.process.wait(SECONDS) == 1
    assert f"remotetask: --health-address 127.0.0.1:{port}: " in started.log


def test_a_file_that_cannot_be_written_is_told(shop: Shop, run: Any) -> None:
    path = shop.directory / "taken"
    path.mkdir()
    started = run("--health-file", path)
    assert started.process.wait(SECONDS) == 1
    assert "remotetask: the file of --health-file: " in started.log
    assert not path.with_name("taken.new").exists()


@pytest.mark.parametrize("address", ["8080", "localhost", "localhost:port", ":80", "a:70000"])
def test_an_address_that_is_none_is_told(tmp_path: Path, remotetask: Any, address: str) -> None:
    ended = remotetask("run", "Data.fs", "--health-address", address, cwd=tmp_path)
    assert ended.returncode == 2
    assert f"{address!r} is not HOST:PORT" in ended.stderr


# -- systemd ---------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--processes", 2]])
def test_systemd_is_told(shop: Shop, run: Any, more: Any) -> None:
    path = shop.directory / "notify"
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)

        def has_come(text: str) -> bool:
            with suppress(BlockingIOError):
                while True:
                    told.append(manager.recv(1000).decode())
            return text in told

        started = run(*more, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="3000000")
        wait(lambda: has_come("READY=1"))
        wait(lambda: has_come("WATCHDOG=1"))
        assert "STOPPING=1" not in told
        if more:
            wait(lambda: has_come("STATUS=2 processes at work"))
        assert started.end() == 0
        assert has_come("STOPPING=1")
    assert told.count("READY=1") == 1
