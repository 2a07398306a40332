# SPDX-License-Identifier: ZPL-2.1
"""Tasks: what jobs run, how they are registered, looked up and checked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, overload

from zope.component import getGlobalSiteManager
from zope.interface import Interface, implementer
from zope.interface.interface import InterfaceClass

from lovely.remotetask.base import processpool
from lovely.remotetask.base.function import check_function, is_asynchronous, why_not_importable
from lovely.remotetask.base.lookup import Tasks, available, look_up
from lovely.remotetask.base.schemas import problems_with
from lovely.remotetask.context import TaskContext, current_context, running_in
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    TaskError,
    is_kind,
    is_true,
    plain,
    seconds_of,
    shown,
    whole_of,
)
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.schedule import make_schedule

__all__ = [
    "EchoTask",
    "SimpleTask",
    "TaskContext",
    "TaskError",
    "Tasks",
    "available",
    "look_up",
    "running_in",
    "task",
]

Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger("lovely.remotetask")

#: What a module is called that runs as a script, and no other process calls it so.
MAIN = "__main__"

#: A coroutine whose time is over is cancelled; it is given up when it has not ended after so many
#: seconds more.
GRACE_SECONDS = 5.0


@implementer(ITask)
class SimpleTask:
    """Make a task of a function of one argument, the input.

    The function may be an ``async def``: it is run to its end in the thread of the job, in an
    event loop of its own.  When the job is cancelled, its time is over, or its process ends and
    waits no longer, ``asyncio.CancelledError`` is raised where it waits.

    :param inputSchema: an interface; `ITaskService.add` refuses input that breaks it.
    :param outputSchema: an interface; a result that breaks it is the job's error.
    :param context: call ``func(context, input)`` with a `TaskContext`.
    :param retry: the policy for failed jobs; None is the default policy.
    :param timeout_seconds: a job that runs longer is an error, and what it does
        afterwards is not kept; None sets no bound.
    :param shared_commit: the function changes nothing outside its ZODB, so that several
        quick jobs may share one commit; if one of them fails, all are run again.
    :param piped: jobs that have written nothing to a database may share the commit that says
        that they have ended, and if they were quick their thread may go on before it; a process
        that is killed meanwhile leaves a few to run again.
    :param executor: ``"process"`` calls the function in another process, where it can use
        a core of its own and is killed by its timeout.  It must be a plain function of its
        input that can be imported by its name.
    :param cron: a cron expression: workers of the service see to it when they start that there
        is this schedule, with the name of the task as its key, and None as its input; see
        `ITaskService.ensure_declared`.
    :param timezone: the time zone of the schedule, an IANA name; None is UTC.
    :param service: the name of the service that is to have the schedule; None is each service
        that knows the task.
    :param max_jobs_per_process: with ``executor="process"``: a process that has run so many jobs
        ends, and a new one takes its place, which gives back what has piled up in its memory;
        None lets it live as long as this process.
    :raises InvalidArgument: an argument makes no sense, or the function does not take what it is
        called with, or is a generator function: what it returns when it is called is no result.
    :raises InvalidSchedule: the cron expression or the time zone makes no sense.
    :raises InvalidInput: with a schedule: the input schema does not allow None.
    """

    inputSchema: Any = Interface
    outputSchema: Any = Interface

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        inputSchema: Any = None,
        outputSchema: Any = None,
        context: bool = False,
        retry: RetryPolicy | None = None,
        timeout_seconds: float | None = None,
        shared_commit: bool = False,
        piped: bool = True,
        executor: str | None = None,
        max_jobs_per_process: int | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        service: str | None = None,
    ) -> None:
        context = is_true(context, "context")
        given = ("context", "input") if context else ("input",)
        is_called_here = type(self).__call__ is SimpleTask.__call__  # a subclass may do otherwise
        check_function(func, given if is_called_here else None)
        if retry is not None and not is_kind(retry, RetryPolicy):
            raise InvalidArgument(f"retry takes a RetryPolicy, not {shown(retry)}")
        if timeout_seconds is not None and not seconds_of(timeout_seconds, "timeout_seconds"):
            raise InvalidArgument(
                f"timeout_seconds must be more than 0, not {shown(timeout_seconds)}"
            )
        if executor is not None and not (is_kind(executor, str) and plain(executor) == "process"):
            raise InvalidArgument(f"executor must be None or 'process', not {shown(executor)}")
        for name, schema in (("inputSchema", inputSchema), ("outputSchema", outputSchema)):
            if schema is not None and not is_kind(schema, InterfaceClass):
                raise InvalidArgument(f"{name} must be an interface, not {shown(schema)}")
        max_jobs = 0 if max_jobs_per_process is None else whole_of(max_jobs_per_process) or 0
        if max_jobs_per_process is not None and (max_jobs < 1 or executor is None):
            raise InvalidArgument(
                "max_jobs_per_process must be an int of 1 or more, with executor='process',"
                f" not {shown(max_jobs_per_process)}"
            )
        if executor is not None:
            if context:
                raise InvalidArgument("a task in another process has no context")
            if (reason := why_not_importable(func)) is not None:
                raise InvalidArgument(f"{shown(func)} with executor='process': {reason}")
            processpool.check_installed()
        self.func = func
        if inputSchema is not None:
            self.inputSchema = inputSchema
        if outputSchema is not None:
            self.outputSchema = outputSchema
        self.context = context
        self.retry = retry
        self.timeout_seconds = timeout_seconds
        self.shared_commit = is_true(shared_commit, "shared_commit")
        self.piped = is_true(piped, "piped")
        self.executor = executor
        self.max_jobs_per_process = max_jobs_per_process
        self.grace_seconds = GRACE_SECONDS if is_asynchronous(func) else 0.0
        self._declare(cron, timezone, service)

    def _declare(self, cron: str | None, timezone: str | None, service: str | None) -> None:
        for name, text in (("cron", cron), ("timezone", timezone), ("service", service)):
            if text is not None and not is_kind(text, str):
                raise InvalidArgument(f"{name} must be a str, not {shown(text)}")
            if text is not None and cron is None:
                raise InvalidArgument(f"{name} is that of a schedule, which cron tells")
        if cron is not None:
            make_schedule(cron=cron, timezone=timezone)
            check_input(self, None)
        self.cron = cron
        self.timezone = timezone
        self.service = service

    def __call__(self, service: Any, jobid: int, input: Any) -> Any:
        """See `ITask`."""
        if self.context:
            return self.func(current_context(service, jobid), input)
        if self.executor == "process":
            now = current_context(service, jobid)
            return processpool.call(
                self.func,
                input,
                self.timeout_seconds,
                now.is_cancelled,
                now.is_stopping,
                self.max_jobs_per_process or 0,
            )
        return self.func(input)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.func!r}>"


@implementer(ITask)
class EchoTask:
    """Return the input: a task to try a service with."""

    inputSchema = Interface
    outputSchema = Interface

    def __call__(self, service: Any, jobid: int, input: Any) -> Any:
        """See `ITask`."""
        return input

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@overload
def task(name: Function) -> Function: ...
@overload
def task(name: str | None = None, **options: Any) -> Callable[[Function], Function]: ...
def task(name: Any = None, **options: Any) -> Any:
    """Register a function as a task in the global component registry.

    Use it bare (``@task``), with a name (``@task("thumbnail")``) and with the options of
    `SimpleTask` (``@task(retry=...)``).  The function stays what it is.  Other callables, such
    as a ``functools.partial``, have no name of their own, and need to be given one.

    :param name: the name of the task; by default the dotted name of the function.  That of a
        script's function begins with ``__main__``, which is logged: a worker that imports the
        module finds it under another name.
    :raises InvalidArgument: there is no name, or it cannot be one; and see `SimpleTask`.

    Transaction: none.
    """

    is_bare = name is not None and not is_kind(name, str)
    if is_bare and not callable(name):
        raise InvalidArgument(f"task takes a function, or a name, not {shown(name)}")

    def register(function: Function) -> Function:
        made = SimpleTask(function, **options)
        task_name = _dotted_name(function) if is_bare or name is None else plain(name)
        check_name(task_name)
        if task_name.startswith(f"{MAIN}.") and (is_bare or name is None):
            log.warning(
                "task %s is named after the script: a worker that imports the module does not find"
                ' it by this name; @task("a name") gives it one',
                task_name,
            )
        getGlobalSiteManager().registerUtility(made, ITask, name=task_name, event=False)
        return function

    return register(name) if is_bare else register


def _dotted_name(function: Any) -> str:
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except Exception:  # there is none, or somebody's __getattr__ raises another error
        raise InvalidArgument(
            f'{shown(function)} has no name of its own: @task("its name") gives it one'
        ) from None


def check_name(name: str) -> None:
    """Check that a task can be called by a name, which stands in records, logs and messages.

    :raises InvalidArgument: it holds a NUL, or a lone surrogate, which no encoding can write.
    """
    name = plain(name)
    try:
        name.encode()
    except UnicodeEncodeError:
        is_text = False
    else:
        is_text = "\0" not in name
    if not is_text:
        raise InvalidArgument(f"{shown(name)} cannot be the name of a task")


def check_input(task: Any, input: Any) -> None:
    """Check `input` against the task's input schema.

    :raises InvalidInput: names every field that is wrong.
    """
    problems = problems_with(getattr(task, "inputSchema", None), input)
    if problems:
        raise InvalidInput("the input is not valid: " + "; ".join(problems))


def check_output(task: Any, output: Any) -> None:
    """Check `output` against the task's output schema.

    :raises InvalidResult: names every field that is wrong.
    """
    problems = problems_with(getattr(task, "outputSchema", None), output)
    if problems:
        raise InvalidResult("the result is not valid: " + "; ".join(problems))


class _Module(ModuleType):
    """This module: called, it is the decorator `task`.

    ``from lovely.remotetask import task`` can name one thing only, and the module of this name is
    that of 0.5.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `task`."""
        return task(*arguments, **options)


sys.modules[__name__].__class__ = _Module
