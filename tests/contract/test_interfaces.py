# SPDX-License-Identifier: ZPL-2.1
"""What the package shows to the outside: interfaces, exported names, errors."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import ZODB
from zope.interface import Interface
from zope.interface.verify import verifyClass, verifyObject

from lovely import remotetask
from lovely.remotetask import errors, interfaces
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.interfaces import ICronJob, IJob, IProcessor, ITask, ITaskService
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import EchoTask, SimpleTask
from lovely.remotetask.testing import ExceptionTask, ITaskStub, TaskServiceStub


@pytest.mark.parametrize(
    ("interface", "implementation"),
    [
        (ITaskService, TaskService),
        (ITaskService, TaskServiceStub),
        (IJob, Job),
        (IJob, CronJob),
        (ICronJob, CronJob),
        (ITask, SimpleTask),
        (ITask, EchoTask),
        (ITask, ExceptionTask),
        (IProcessor, SimpleProcessor),
        (IProcessor, MultiProcessor),
    ],
)
def test_classes_keep_what_their_interfaces_promise(interface: Any, implementation: Any) -> None:
    assert interface.implementedBy(implementation)
    assert verifyClass(interface, implementation)


@pytest.mark.parametrize(
    ("interface", "make"),
    [
        (ITaskService, TaskService),
        (ITaskService, TaskServiceStub),
        (IJob, lambda: Job(1, "echo", {})),
        (IJob, lambda: CronJob(1, "echo", {})),
        (ICronJob, lambda: CronJob(1, "echo", {})),
        (ICronJob, lambda: CronJob(1, "echo", {}, delay=5)),
        (ITask, lambda: SimpleTask(len)),
        (ITask, EchoTask),
        (ITask, ExceptionTask),
    ],
)
def test_objects_keep_what_their_interfaces_promise(interface: Any, make: Any) -> None:
    assert interface.providedBy(make())
    assert verifyObject(interface, make())


@pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])
def test_processors_keep_what_their_interface_promises(db: ZODB.DB, kind: Any) -> None:
    assert verifyObject(IProcessor, kind(db, ["tasks"]))


def test_stub_tasks_are_tasks() -> None:
    assert ITaskStub.extends(ITask)


def test_a_job_without_a_time_is_no_cron_job() -> None:
    assert not ICronJob.providedBy(Job(1, "echo"))


def test_the_package_exports_these_names_and_no_others() -> None:
    assert sorted(remotetask.__all__) == [
        "RemoteTaskError",
        "Retention",
        "RetryLater",
        "RetryPolicy",
        "SimpleTask",
        "TaskContext",
        "TaskError",
        "TaskService",
        "register_around",
        "register_context",
        "task",
    ]
    for name in remotetask.__all__:
        assert getattr(remotetask, name) is not None


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("lovely.remotetask.service", "TaskService"),
        ("lovely.remotetask.service", "getAutostartServiceNames"),
        ("lovely.remotetask.service", "bootStrapSubscriber"),
        ("lovely.remotetask.task", "SimpleTask"),
        ("lovely.remotetask.task", "TaskError"),
        ("lovely.remotetask.job", "Job"),
        ("lovely.remotetask.job", "CronJob"),
        ("lovely.remotetask.interfaces", "ITaskService"),
        ("lovely.remotetask.interfaces", "IStartRemoteTasksEvent"),
        ("lovely.remotetask.processor", "SimpleProcessor"),
        ("lovely.remotetask.processor", "MultiProcessor"),
    ],
)
def test_names_stand_where_the_first_api_had_them(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_statuses_have_the_names_of_the_first_api() -> None:
    assert (
        *("queued", "processing", "cancelled", "error", "completed"),
        *("delayed", "cronjob", "start later"),
    ) == interfaces.STATUSES
    assert set(interfaces.FINAL_STATUSES) == {"cancelled", "error", "completed"}


ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_stands_in_the_tree_and_speaks(kind: type[RemoteTaskError]) -> None:
    assert issubclass(kind, RemoteTaskError)
    assert kind.__name__ in (errors.__doc__ or "")
    assert str(kind())


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.TaskNotFound, ValueError),
        (errors.InvalidInput, ValueError),
        (errors.InvalidSchedule, ValueError),
        (errors.InvalidArgument, ValueError),
        (errors.JobIsLive, ValueError),
        (errors.JobNotFound, KeyError),
    ],
)
def test_wrong_arguments_are_the_errors_that_python_has_for_them(kind: Any, builtin: Any) -> None:
    assert issubclass(kind, builtin)
    assert str(kind("these words")) == "these words"


def test_every_contract_says_what_it_does_with_the_transaction() -> None:
    silent = [
        f"{name}.{method}"
        for name, interface in inspect.getmembers(interfaces)
        if isinstance(interface, type(Interface)) and interface.__module__ == interfaces.__name__
        for method in interface.names()
        if hasattr(interface[method], "getSignatureString")
        and "Transaction:" not in interface[method].__doc__
        and (name, method) != ("ITask", "__call__")
    ]
    assert silent == []
