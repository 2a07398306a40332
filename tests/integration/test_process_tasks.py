# SPDX-License-Identifier: ZPL-2.1
"""Tasks that call plain functions in other processes."""

from __future__ import annotations

import os
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
    before = processpool._pool
    processpool._pool = None  # its processes would not know where the module is
    sys.path.insert(0, str(directory))
    import functions_for_children  # type: ignore[import-not-found]

    yield functions_for_children
    sys.path.remove(str(directory))
    del sys.modules["functions_for_children"]
    stop_pool()
    processpool._pool = before


def stop_pool() -> None:
    pool, processpool._pool = processpool._pool, None
    if pool is not None:
        pool.stop()
        pool.join()


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
    if processpool._pool is not None and not processpool._pool.active:
        stop_pool()  # a test that breaks it fails alone


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
    register("it", lambda input: input, executor="process", retry=ONCE)
    status, _, error = yard.end(*workplace.add("it", None))
    assert status == ERROR
    assert error is not None
    assert "lambda" in error
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


@pytest.mark.parametrize("code", [1, 3])
def test_a_child_that_leaves_is_an_error_and_no_hang(yard: Yard, code: int) -> None:
    status, _, error = yard.call("leave", code, retry=ONCE)
    assert status == ERROR
    assert error
    assert yard.kind() == "ProcessExpired"
    assert yard.call("double", 2)[1] == 4


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


def test_the_package_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pebble", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'lovely\.remotetask\[process\]'"):
        SimpleTask(abs, executor="process")
    SimpleTask(abs)  # does without
