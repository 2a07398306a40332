# SPDX-License-Identifier: ZPL-2.1
"""Tasks: made of functions, registered, looked up, and given a context."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial, wraps
from typing import Any

import pytest
from zope.component import getGlobalSiteManager, getSiteManager
from zope.interface import Interface
from zope.interface.registry import Components

from lovely import remotetask
from lovely.remotetask.errors import InvalidArgument, JobCancelled, ServiceNotStored
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import (
    EchoTask,
    SimpleTask,
    TaskContext,
    available,
    look_up,
    running_in,
    task,
)
from lovely.remotetask.testing import ExceptionTask


def double(input: int) -> int:
    return input * 2


# -- SimpleTask --------------------------------------------------------------------------------


def test_a_simple_task_calls_its_function_with_the_input() -> None:
    assert SimpleTask(double)(TaskService(), 1, input=21) == 42


def test_a_simple_task_shows_its_function() -> None:
    assert repr(SimpleTask(double)) == f"<SimpleTask {double!r}>"


def test_a_subclass_shows_its_own_name() -> None:
    class Doubling(SimpleTask):
        pass

    assert repr(Doubling(double)) == f"<Doubling {double!r}>"


def test_a_simple_task_has_no_schemas_by_default() -> None:
    assert SimpleTask(double).inputSchema is Interface
    assert SimpleTask(double).outputSchema is Interface


def test_a_task_that_wants_a_context_gets_one() -> None:
    def describe(context: TaskContext, input: str) -> tuple[Any, ...]:
        return context.service, context.jobid, context.attempt, input

    service = TaskService()
    made = SimpleTask(describe, context=True)
    assert made(service, 7, "x") == (service, 7, 1, "x")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((None,), {}),
        (("double",), {}),
        ((double,), {"retry": 3}),
        ((double,), {"timeout_seconds": 0}),
        ((double,), {"timeout_seconds": -1}),
        ((double,), {"timeout_seconds": float("inf")}),
        ((double,), {"timeout_seconds": float("nan")}),
        ((double,), {"timeout_seconds": "5"}),
        ((double,), {"timeout_seconds": True}),
        ((double,), {"timeout_seconds": 10**400}),
        ((double,), {"executor": "thread"}),
        ((double,), {"inputSchema": int}),
    ],
)
def test_a_simple_task_refuses_what_makes_no_sense(
    arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument):
        SimpleTask(*arguments, **options)


def test_the_context_of_a_job_is_made_once_and_when_it_is_asked_for() -> None:
    made = []

    def make() -> TaskContext:
        made.append(TaskContext(None, 7, attempt=3))
        return made[-1]

    return_context = SimpleTask(lambda context, input: context, context=True)
    with running_in(7, make):
        SimpleTask(lambda input: input)(None, 7, None)
        assert made == []
        assert return_context(None, 7, None) is return_context(None, 7, None)
        assert return_context(None, 8, None).attempt == 1
    assert len(made) == 1
    assert return_context(None, 7, None) is not made[0]


def test_the_echo_task_returns_its_input() -> None:
    assert EchoTask()(TaskService(), 1, {"foo": "bar"}) == {"foo": "bar"}
    assert repr(EchoTask()) == "<EchoTask>"


def test_the_exception_task_divides_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        ExceptionTask()(TaskService(), 1, None)
    assert repr(ExceptionTask()) == "<ExceptionTask>"


# -- the decorator -----------------------------------------------------------------------------


def test_a_decorated_function_is_registered_under_its_dotted_name() -> None:
    @task
    def triple(input: int) -> int:
        return input * 3

    name = f"{__name__}.test_a_decorated_function_is_registered_under_its_dotted_name"
    found = look_up(ITask, f"{name}.<locals>.triple")
    assert found(TaskService(), 1, 2) == 6


def test_a_decorated_function_stays_what_it_is() -> None:
    assert task(double) is double
    assert task("double")(double) is double
    assert task(retry=RetryPolicy())(double) is double


def test_a_task_can_be_given_a_name_and_options() -> None:
    policy = RetryPolicy(attempts=9)
    task("numbers.double", retry=policy, timeout_seconds=5, shared_commit=True)(double)
    found = look_up(ITask, "numbers.double")
    assert found.func is double
    assert (found.retry, found.timeout_seconds, found.shared_commit) == (policy, 5, True)


def test_a_task_can_be_given_options_without_a_name() -> None:
    task(timeout_seconds=5)(double)
    assert look_up(ITask, f"{__name__}.double").timeout_seconds == 5


class Doubler:
    """A callable object."""

    def __call__(self, input: int) -> int:
        return input * 2


class Waiter:
    """A callable object that is asynchronous."""

    async def __call__(self, input: int) -> int:
        return input


async def wait(input: int) -> int:
    return input


async def wait_and_yield(input: int) -> AsyncIterator[int]:
    yield input


def count_up(input: int) -> Iterator[int]:
    yield input


@pytest.mark.parametrize("function", [partial(double), Doubler(), Doubler().__call__])
def test_any_callable_can_be_a_task_under_a_name(function: Any) -> None:
    assert task("numbers.double")(function) is function
    assert look_up(ITask, "numbers.double")(TaskService(), 1, 2) == 4


@pytest.mark.parametrize("function", [partial(double), Doubler()])
def test_what_has_no_name_of_its_own_needs_to_be_given_one(function: Any) -> None:
    for register in (task, task(), task(timeout_seconds=5)):
        with pytest.raises(InvalidArgument, match="has no name of its own: @task"):
            register(function)


@pytest.mark.parametrize("name", [5, b"x", 1.5, ("a",), ["a"], {"name": "a"}], ids=repr)
def test_what_is_neither_a_function_nor_a_name_is_refused_at_once(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="task takes a function, or a name, not"):
        task(name)


@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
def test_a_name_that_cannot_be_written_is_refused(
    service: TaskService, register: Any, name: str
) -> None:
    with pytest.raises(InvalidArgument, match="cannot be the name of a task"):
        task(name)(double)
    register(name, double)  # past the decorator
    with pytest.raises(InvalidArgument, match="cannot be the name of a task"):
        service.add(name)
    assert not service.jobs


def two(context: Any, input: Any) -> Any:
    return input


def three(service: Any, jobid: int, input: Any) -> Any:
    return input


def named_only(*, input: Any) -> Any:
    return input


def passing_a_connection(function: Any) -> Any:
    @wraps(function)
    def wrapper(input: Any) -> Any:
        return function("connection", input)

    return wrapper


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (wait_and_yield, {}, "is a generator"),
        (partial(wait_and_yield), {}, "is a generator"),
        (count_up, {}, "is a generator"),
        (partial(count_up), {}, "is a generator"),
        (lambda: 1, {}, r"takes \(\), but is called with 1 argument: \(input\); too many"),
        (two, {}, r"called with 1 argument: \(input\).*with context=True it gets \(context, input"),
        (three, {}, r"is an ITask, and is registered as such"),
        (double, {"context": True}, r"called with 2 arguments: \(context, input\)"),
        (named_only, {}, "called with 1 argument"),
        (partial(double, 5), {}, "called with 1 argument"),
        (wait, {"context": True}, "called with 2 arguments"),
        (lambda input: 1, {"executor": "process"}, "a lambda has no name"),
        (partial(lambda input: 1), {"executor": "process"}, "a lambda has no name"),
        (passing_a_connection(two), {"executor": "process"}, None),
    ],
)
def test_what_cannot_be_called_as_a_task_is_refused_at_the_registration(
    function: Any, options: dict[str, Any], words: str | None
) -> None:
    for register in (partial(SimpleTask, **options), task("numbers.later", **options)):
        if words is None:
            register(function)
            continue
        with pytest.raises(InvalidArgument, match=words):
            register(function)
        assert look_up(ITask, "numbers.later") is None


def test_a_subclass_may_call_its_function_as_it_likes() -> None:
    class Telling(SimpleTask):
        def __call__(self, service: Any, jobid: int, input: Any) -> Any:
            return self.func(service, jobid, input)

    assert Telling(three)(None, 7, "x") == "x"
    with pytest.raises(InvalidArgument):
        Telling(count_up)


def test_a_local_function_is_refused_for_another_process() -> None:
    def local(input: Any) -> Any:
        return input

    class Local:
        def __call__(self, input: Any) -> Any:
            return input

    for function in (local, partial(local), Local(), Local().__call__):
        with pytest.raises(InvalidArgument, match="what is defined in a function"):
            SimpleTask(function, executor="process")


@pytest.mark.parametrize(
    "function", [passing_a_connection(two), [].append, len, str, dict, print, max]
)
def test_what_can_be_called_with_an_input_is_taken_whatever_it_tells(function: Any) -> None:
    assert SimpleTask(function).func is function


@pytest.mark.parametrize(
    "function", [wait, partial(wait), Waiter(), staticmethod(wait), Waiter().__call__]
)
def test_an_asynchronous_function_is_a_task(service: TaskService, function: Any) -> None:
    task("later")(function)
    jobid = service.add("later", 5)
    service.process()
    assert service.getResult(jobid) == 5


def test_a_task_that_is_named_after_its_script_is_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def greet(input: Any) -> Any:
        return input

    monkeypatch.setattr(greet, "__module__", "__main__")
    monkeypatch.setattr(greet, "__qualname__", "greet")
    task("a name")(greet)
    assert not caplog.messages
    task(greet)
    [message] = caplog.messages
    assert "task __main__.greet is named after the script" in message


def test_what_the_package_calls_task_is_the_decorator_and_the_module_of_the_first_api() -> None:
    import lovely.remotetask.task as module

    @remotetask.task
    def bare(input: Any) -> Any:
        return input

    @remotetask.task("by name", retry=RetryPolicy(attempts=2))
    def named(input: Any) -> Any:
        return [input]

    assert remotetask.task is module
    assert module.SimpleTask is SimpleTask
    assert module.task is task
    assert bare(1) == 1
    assert look_up(ITask, f"{__name__}.{bare.__qualname__}")(None, 7, 1) == 1
    found = look_up(ITask, "by name")
    assert (found(None, 7, 1), found.retry) == ([1], RetryPolicy(attempts=2))
    with pytest.raises(InvalidArgument):
        remotetask.task(5)


# -- look-up -----------------------------------------------------------------------------------


@pytest.fixture
def current() -> Iterator[Components]:
    """A registry in the place of the current one, which knows nothing of the global one."""
    registry = Components("current")
    getSiteManager.sethook(lambda context=None: registry)
    yield registry
    getSiteManager.reset()


def test_a_task_that_nobody_registered_is_not_found() -> None:
    assert look_up(ITask, "nobody's") is None


def test_tasks_of_the_current_registry_are_found(current: Components) -> None:
    mine = SimpleTask(double)
    current.registerUtility(mine, ITask, name="mine")
    assert look_up(ITask, "mine") is mine
    assert available(ITask)["mine"] is mine


def test_look_up_falls_back_to_the_global_registry(current: Components) -> None:
    task("everybody's")(double)
    assert look_up(ITask, "everybody's").func is double
    assert "everybody's" in available(ITask)


def test_the_current_registry_goes_before_the_global_one(current: Components) -> None:
    task("shared")(double)
    mine = SimpleTask(double)
    current.registerUtility(mine, ITask, name="shared")
    assert look_up(ITask, "shared") is mine
    assert available(ITask)["shared"] is mine


def test_tasks_can_be_registered_for_an_interface_of_ones_own() -> None:
    class IMyTask(ITask):
        """Mine."""

    mine = SimpleTask(double)
    getGlobalSiteManager().registerUtility(mine, IMyTask, name="mine")
    assert look_up(IMyTask, "mine") is mine
    assert set(available(IMyTask)) == {"mine"}


def test_a_service_tells_the_tasks_that_can_be_added(empty_registry: None, register: Any) -> None:
    service = TaskService()
    assert service.getAvailableTasks() == {}
    echo = register("echo", lambda input: input)
    assert service.getAvailableTasks() == {"echo": echo}


# -- the context -------------------------------------------------------------------------------


def test_a_context_without_an_engine_is_at_peace() -> None:
    context = TaskContext(TaskService(), 5)
    context.check_cancelled()
    context.progress(1, 2, "half")
    assert not context.should_stop()
    assert context.time_remaining() is None
    assert (context.jobid, context.attempt) == (5, 1)


def test_a_context_tells_of_each_reason_to_stop() -> None:
    now = [100.0]

    def make(**options: Any) -> TaskContext:
        return TaskContext(None, 1, monotonic=lambda: now[0], **options)

    assert make(should_stop=lambda: True).should_stop()
    assert make(is_cancelled=lambda: True).should_stop()
    timed = make(timeout_seconds=3)
    assert not timed.should_stop()
    now[0] += 3
    assert timed.should_stop()


def test_only_a_cancel_request_raises() -> None:
    TaskContext(None, 1, should_stop=lambda: True).check_cancelled()
    with pytest.raises(JobCancelled):
        TaskContext(None, 1, is_cancelled=lambda: True).check_cancelled()


def test_progress_is_handed_on() -> None:
    told: list[Any] = []
    TaskContext(None, 1, progress=lambda *note: told.append(note)).progress(3, message="three")
    assert told == [(3, None, "three")]


def test_a_context_leads_to_the_database_and_to_the_job(workshop: Any, register: Any) -> None:
    seen: list[Any] = []

    def look(context: TaskContext, input: Any) -> str:
        context.root["seen"] = input
        seen.extend((context.job.id, context.job.status))
        assert context.root is context.connection.root()
        assert context.connection is context.service._p_jar
        return "looked"

    register("look", look, context=True)
    jobid = workshop.add("look", 5)
    workshop.work()
    assert seen == [jobid, "processing"]
    with workshop.transaction() as root:
        assert root["seen"] == 5


def test_a_context_without_a_database_says_so() -> None:
    with pytest.raises(ServiceNotStored):
        TaskContext(TaskService(), 5).root  # noqa: B018


def test_what_a_task_logs_tells_of_its_job(caplog: pytest.LogCaptureFixture) -> None:
    log = TaskContext(None, 5).log
    with caplog.at_level("INFO", "remotetask.job"):
        log.info("%d%% of %s", 50, "it")
    assert caplog.messages == ["job 5: 50% of it"]
