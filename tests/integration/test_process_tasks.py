# SPDX-License-Identifier: ZPL-2.1
"""Tasks that call plain functions in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lovely.remotetask.base import processpool
from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import SimpleTask

ONCE = RetryPolicy(attempts=1)

#: Functions that other processes can import.
FUNCTIONS = '''
    import os
    import sys
    import threading
    import time
    from pathlib import Path
    from lovely.remotetask.errors import RetryLater, TaskError

    class NeedsArguments(Exception):
        """It can be pickled, and not be loaded."""

        def __init__(self, first, second):
            super().__init__(f"{first} {second}")

    def pid(input):
        return os.getpid()

    def double(input):
        return input * 2

    def hang(path):
        Path(path).write_text(f"{os.getpid()}\\n")
        time.sleep(600)

    def leave(code):
        os._exit(code)

    def leave_in_a_thread(code):
        threading.Thread(target=os._exit, args=(code,)).start()
        time.sleep(600)

    def fork_and_return(input):
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        return "done"

    def leave_politely(code):
        sys.exit(code)

    def refuse(message):
        raise TaskError(message)

    def stumble(message):
        raise KeyError(message)

    def time_out(message):
        raise TimeoutError(message)

    def need_arguments(input):
        raise NeedsArguments("one", "two")

    class NeedsMore(BaseException):
        def __init__(self, first, second):
            super().__init__(first)

    def need_more(input):
        raise NeedsMore("one", "two")

    class Broken(Exception):
        """A class that cannot be made again, nor printed."""

        def __init__(self, first, second):
            super().__init__(first)
            self.code = second
            self.lock = threading.Lock()

        def __str__(self):
            return f"it is {self.lock and 'broken'}"

    class Refusal(TaskError):
        def __init__(self, first, second):
            super().__init__(first)

    class Wish(RetryLater):
        def __init__(self, first, second):
            super().__init__(0.01)

    class Fault(OSError):
        def __init__(self, first, second):
            super().__init__(5, first)

    def break_down(input):
        raise Broken("one", 404)

    def refuse_oddly(input):
        raise Refusal("one", "two")

    def fault(input):
        raise Fault("one", "two")

    def wish(path):
        if Path(path).exists():
            return "done"
        Path(path).touch()
        raise Wish("one", "two")

    def break_locally(input):
        class Local(Broken):
            pass
        raise Local("one", 404)

    def break_nowhere(input):
        class Local(Exception):
            pass
        raise Local("nowhere")

    from os import _exit

    def leave_at_once(code):
        _exit(code)

    def later(path):
        if Path(path).exists():
            return "done"
        Path(path).touch()
        raise RetryLater(0.01, "not yet")

    def make_lambda(input):
        return lambda: None

    def make_class(input):
        class Local:
            pass
        return Local()
'''


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module of functions, known to a pool of processes that ends with these tests."""
    directory = tmp_path_factory.mktemp("functions")
    (directory / "functions_for_children.py").write_text(dedent(FUNCTIONS))
    before = dict(processpool._pools)
    processpool._pools.clear()  # their processes would not know where the module is
    sys.path.insert(0, str(directory))
    import functions_for_children  # type: ignore[import-not-found]

    yield functions_for_children
    sys.path.remove(str(directory))
    del sys.modules["functions_for_children"]
    processpool.end()
    processpool._pools.update(before)


class Yard:
    """A workplace whose thread runs, with a function as the task *it*."""

    def __init__(self, workplace: Any, register: Any, functions: Any) -> None:
        self.workplace = workplace
        self._register = register
        self._functions = functions

    def register(self, name: str, **options: Any) -> None:
        """Make a function the task *it*."""
        self._register("it", getattr(self._functions, name), executor="process", **options)

    def call(self, name: str, input: Any = None, **options: Any) -> tuple[str, Any, str | None]:
        """Run a job that calls a function; return its status, result and error."""
        self.register(name, **options)
        return self.end(*self.workplace.add("it", input))

    def end(self, jobid: int) -> tuple[str, Any, str | None]:
        """Wait until a job has ended."""
        if not self.workplace.is_processing():
            self.workplace.start()
        [status] = self.workplace.wait_for([jobid])
        with self.workplace.service() as service:
            job = service.jobs[jobid]
            return status, job.output, job.error

    def kind(self) -> str:
        """Return the class of the error of the last job."""
        with self.workplace.service() as service:
            [job] = service.jobs.values()
            return str(job.failures[-1].type)


@pytest.fixture
def yard(workplace: Any, register: Any, functions: Any) -> Iterator[Yard]:
    yield Yard(workplace, register, functions)
    if not all(pool.active for pool in processpool._pools.values()):
        processpool.end()  # a test that breaks one fails alone


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_in(path: Path) -> int | None:
    """Return the process id in a file, or None while it is not all there."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else None


# -- results -----------------------------------------------------------------------------------


def test_a_function_runs_in_another_process_and_its_result_is_kept(yard: Yard) -> None:
    status, pid, error = yard.call("pid")
    assert (status, error) == (COMPLETED, None)
    assert pid != os.getpid()
    assert is_alive(pid)  # it waits for the next job


def test_input_and_result_go_to_and_fro(yard: Yard) -> None:
    assert yard.call("double", {"a": [1, "two"]}, retry=ONCE)[0] == ERROR
    assert yard.call("double", [1, {"a": "two"}])[1] == [1, {"a": "two"}] * 2


def test_several_jobs_run_at_the_same_time(
    yard: Yard, workplace: Any, until: Any, tmp_path: Path
) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core has one process")
    from lovely.remotetask.processor import MultiProcessor

    with workplace.service() as service:
        service.processorFactory = MultiProcessor
    yard.register("hang")
    paths = [tmp_path / "one", tmp_path / "two"]
    jobids = workplace.add("it", *map(str, paths))
    workplace.start()
    until(lambda: all(pid_in(path) for path in paths), "two children at the same time")
    with workplace.service() as service:
        for jobid in jobids:
            service.cancel(jobid)
    assert workplace.wait_for(jobids) == [CANCELLED, CANCELLED]


def test_the_inline_form_calls_another_process_too(yard: Yard, workplace: Any) -> None:
    yard.register("pid")
    with workplace.service() as service:
        jobid = service.add("it")
        service.process()
        assert service.getStatus(jobid) == COMPLETED
        assert service.getResult(jobid) != os.getpid()


# -- errors ------------------------------------------------------------------------------------


def test_a_task_error_in_the_child_is_the_error_of_the_job(yard: Yard) -> None:
    assert yard.call("refuse", "no") == (ERROR, None, "no")
    assert yard.kind() == TaskError.__name__


def test_another_exception_in_the_child_is_repeated_as_the_policy_says(yard: Yard) -> None:
    policy = RetryPolicy(attempts=3, first_wait_seconds=0.01)
    assert yard.call("stumble", "oh", retry=policy) == (ERROR, None, "'oh'")
    assert yard.kind() == "KeyError"
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert (job.attempt, job.errors) == (3, 3)


def test_a_timeout_that_the_function_raises_is_its_own(yard: Yard) -> None:
    status, _, error = yard.call("time_out", "the server is slow", retry=ONCE)
    assert (status, error) == (ERROR, "the server is slow")
    assert yard.kind() == "TimeoutError"


def test_a_timeout_that_the_function_raises_is_repeated_as_any_error(yard: Yard) -> None:
    policy = RetryPolicy(attempts=2, first_wait_seconds=0.01)
    yard.call("time_out", "the server is slow", retry=policy)
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert job.attempt == 2


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("need_arguments", "NeedsArguments", "one two"),
        ("break_down", "Broken", "it is broken"),
        ("break_locally", "Local", "it is broken"),
        ("break_nowhere", "Local", "nowhere"),
        ("fault", "Fault", "[Errno 5] one"),
    ],
)
def test_an_exception_that_cannot_travel_is_repeated_as_the_policy_says(
    yard: Yard, name: str, kind: str, text: str
) -> None:
    policy = RetryPolicy(attempts=2, first_wait_seconds=0.01)
    assert yard.call(name, retry=policy) == (ERROR, None, text)
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert (job.attempt, job.errors) == (2, 2)
        assert [failure.type for failure in job.failures] == [kind, kind]


@pytest.mark.parametrize("name", ["break_down", "break_locally"])
@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_policy_knows_the_class_of_an_exception_that_cannot_travel(
    yard: Yard, functions: Any, name: str, is_repeated: bool
) -> None:
    kinds = {"retry_on": (functions.Broken,)} if is_repeated else {"give_up_on": functions.Broken}
    policy = RetryPolicy(attempts=2, first_wait_seconds=0.01, **kinds)
    yard.call(name, retry=policy)
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert job.attempt == (2 if is_repeated else 1)


class ByCode(RetryPolicy):
    """It asks an error for its code."""

    def wait_seconds(self, failures: int, error: Any, chance: Any = None) -> float | None:
        return 0.01 if error.code == 404 and failures < 3 else None


def test_a_policy_can_ask_for_what_such_an_exception_holds(yard: Yard) -> None:
    yard.call("break_down", retry=ByCode())
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert job.attempt == 3


def test_a_task_error_that_cannot_travel_is_final_and_a_wish_is_granted(
    yard: Yard, tmp_path: Path
) -> None:
    assert yard.call("refuse_oddly") == (ERROR, None, "one")
    assert yard.kind() == "Refusal"
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert job.attempt == 1
    [jobid] = yard.workplace.add("it", str(tmp_path / "first"))
    yard.register("wish", retry=RetryPolicy(attempts=1, first_wait_seconds=600))
    assert yard.end(jobid) == (COMPLETED, "done", None)


def test_an_exception_that_cannot_be_loaded_is_an_error_and_no_hang(yard: Yard) -> None:
    status, _, error = yard.call("need_arguments", retry=ONCE)
    assert status == ERROR
    assert error


@pytest.mark.parametrize(
    "name", ["need_arguments", "need_more", "later", "make_lambda", "leave", "time_out"]
)
def test_whatever_becomes_of_a_job_the_next_one_runs(yard: Yard, tmp_path: Path, name: str) -> None:
    yard.call(name, 1 if name == "leave" else str(tmp_path / "first"), retry=ONCE)
    assert yard.call("double", 2, retry=ONCE) == (COMPLETED, 4, None)


def test_a_wish_to_be_run_later_is_granted(yard: Yard, tmp_path: Path) -> None:
    assert yard.call("later", str(tmp_path / "first"), retry=ONCE) == (COMPLETED, "done", None)
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert (job.attempt, job.errors) == (2, 0)


@pytest.mark.parametrize("name", ["make_lambda", "make_class"])
def test_a_result_that_cannot_be_pickled_is_an_error(yard: Yard, name: str) -> None:
    status, output, error = yard.call(name, retry=ONCE)
    assert (status, output) == (ERROR, None)
    assert error is not None
    assert "pickle" in error


def test_a_function_that_cannot_be_imported_is_a_clear_error(
    yard: Yard, workplace: Any, register: Any
) -> None:
    def misnamed(input: Any) -> Any:
        return input

    misnamed.__qualname__ = "misnamed"
    register("it", misnamed, executor="process", retry=ONCE)
    status, _, error = yard.end(*workplace.add("it", None))
    assert status == ERROR
    assert error is not None
    assert "misnamed" in error
    assert "pickle" in error
    assert yard.call("double", 2)[1] == 4  # the pool is as good as before


# -- the end of a child ------------------------------------------------------------------------


def test_a_child_that_takes_too_long_is_killed(yard: Yard, until: Any, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    status, _, error = yard.call("hang", str(path), timeout_seconds=1.0)
    assert (status, error) == (ERROR, "the job ran longer than 1.0 s")
    assert yard.kind() == "JobTimeout"
    pid = pid_in(path)
    assert pid is not None
    until(lambda: not is_alive(pid), "the end of the child")
    with yard.workplace.service() as service:
        [job] = service.jobs.values()
        assert job.attempt == 1  # a timeout is not repeated
    assert yard.call("double", 2)[1] == 4


def test_a_job_in_time_is_not_killed(yard: Yard) -> None:
    assert yard.call("double", 2, timeout_seconds=60) == (COMPLETED, 4, None)


def test_the_thread_that_waited_for_a_killed_child_goes_on(
    yard: Yard, tmp_path: Path, threads: Any
) -> None:
    yard.call("hang", str(tmp_path / "pid"), timeout_seconds=0.5)
    assert len(threads("remotetasks.")) == 1
    assert yard.workplace.is_processing()
    yard.workplace.stop()
    with yard.workplace.service() as service:
        assert not len(service.workers)
        assert check_all(service, 0.0, repair=False) == []


@pytest.mark.parametrize("name", ["leave", "leave_at_once", "leave_in_a_thread"])
@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_child_that_leaves_is_an_error_and_no_hang(yard: Yard, name: str, code: int) -> None:
    status, _, error = yard.call(name, code, retry=ONCE)
    assert status == ERROR
    assert error == f"the process ended while it called the function, with exit code {code}"
    assert yard.kind() == "ProcessExpired"
    assert yard.call("double", 2)[1] == 4


def test_a_child_of_a_child_can_leave(yard: Yard) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this platform has no fork")
    assert yard.call("fork_and_return", retry=ONCE)[1] == "done"


def test_a_child_is_renewed_after_so_many_jobs(yard: Yard, workplace: Any) -> None:
    yard.register("pid", max_jobs_per_process=2, retry=ONCE)
    jobids = workplace.add("it", *[None] * 9)
    workplace.start()
    assert set(workplace.wait_for(jobids)) == {COMPLETED}
    with workplace.service() as service:
        pids = [service.getResult(jobid) for jobid in jobids]
    assert max(map(pids.count, pids)) <= 2
    yard.register("pid", retry=ONCE)
    jobids = workplace.add("it", *[None] * 9)
    workplace.wait_for(jobids)
    with workplace.service() as service:
        pids = [service.getResult(jobid) for jobid in jobids]
    assert max(map(pids.count, pids)) > 2


SCRIPT = """
    import sys
    import transaction, ZODB
    from lovely.remotetask.task import task
    from lovely.remotetask.service import TaskService

    @task("double", executor="process")
    def double(input):
        return input * 2

    {guard}
        connection = ZODB.connection(sys.argv[1])
        service = connection.root()["tasks"] = TaskService()
        jobid = service.add("double", 4)
        service.process()
        print(service.getStatus(jobid), service.jobs[jobid].attempt, service.getError(jobid))
"""


def run_script(tmp_path: Path, guard: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(dedent(SCRIPT.format(guard=guard)))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "Data.fs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout.decode()


def test_a_script_without_its_guard_is_told_so_at_once(tmp_path: Path) -> None:
    said = run_script(tmp_path, "if True:")
    assert said.startswith("error 1 the processes of the pool have ended at once")
    assert 'needs an `if __name__ == "__main__":`' in said


def test_a_script_with_its_guard_runs(tmp_path: Path) -> None:
    assert run_script(tmp_path, 'if __name__ == "__main__":') == "completed 1 None\n"


@pytest.mark.parametrize("code", [3])
def test_a_function_that_ends_the_interpreter_is_an_error(yard: Yard, code: int) -> None:
    status, _, error = yard.call("leave_politely", code, retry=ONCE)
    assert status == ERROR
    assert error
    assert yard.call("double", 2)[1] == 4


def test_a_running_job_that_is_canceled_kills_its_child(
    yard: Yard, workplace: Any, until: Any, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    yard.register("hang")
    [jobid] = workplace.add("it", str(path))
    workplace.start()
    until(lambda: pid_in(path), "the child")
    pid = pid_in(path)
    assert pid is not None
    assert workplace.statuses([jobid]) == [PROCESSING]
    assert is_alive(pid)
    with workplace.service() as service:
        service.cancel(jobid)
        assert service.jobs[jobid].is_cancel_requested
    assert workplace.wait_for([jobid]) == [CANCELLED]
    until(lambda: not is_alive(pid), "the end of the child")
    assert yard.call("double", 2)[1] == 4


# -- what is refused ---------------------------------------------------------------------------


def test_a_task_in_another_process_has_no_context() -> None:
    with pytest.raises(InvalidArgument, match="context"):
        SimpleTask(abs, context=True, executor="process")


def test_no_other_executor_is_known() -> None:
    with pytest.raises(InvalidArgument, match="'thread'"):
        SimpleTask(abs, executor="thread")


@pytest.mark.parametrize("number", [0, -1, 1.5, "5", True, None])
def test_the_number_of_jobs_of_a_process_is_a_whole_one(number: Any) -> None:
    if number is None:
        assert SimpleTask(abs, executor="process").max_jobs_per_process is None
        return
    with pytest.raises(InvalidArgument, match="max_jobs_per_process"):
        SimpleTask(abs, executor="process", max_jobs_per_process=number)


def test_only_a_task_in_another_process_has_it() -> None:
    with pytest.raises(InvalidArgument, match="executor='process'"):
        SimpleTask(abs, max_jobs_per_process=5)


def test_the_package_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pebble", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'lovely\.remotetask\[process\]'"):
        SimpleTask(abs, executor="process")
    SimpleTask(abs)  # does without
