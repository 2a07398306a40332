# SPDX-License-Identifier: ZPL-2.1
"""What can be called by XML-RPC."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple
from xmlrpc.client import Fault

from lovely.remotetask.engine.control import cancel as cancel_number
from lovely.remotetask.errors import JobNotFound, TaskNotFound, shown
from lovely.remotetask.web import operations
from lovely.remotetask.web.security import ADD, MANAGE, VIEW
from lovely.remotetask.web.xmlrpc.wire import UNKNOWN_METHOD, WRONG_ARGUMENTS

#: The types of inputs.
_INPUTS = ("string", "int", "double", "boolean", "struct", "array", "base64", "dateTime.iso8601")


class Method(NamedTuple):
    """What can be called.

    :ivar permission: what it takes.
    :ivar help: what it does.
    :ivar signatures: the types of the result and of the arguments, in each way to call it.
    :ivar run: called with the service and the arguments; returns the result.
    """

    permission: str
    help: str
    signatures: list[list[str]]
    run: Callable[..., Any]


def _add(service: Any, task: Any, input: Any = None) -> Any:
    if type(task) is not str:
        raise TaskNotFound(f"no task is registered under the name {shown(task)}")
    return operations.add(service, task, input)


def _cancel(service: Any, jobid: Any) -> bool:
    with suppress(JobNotFound):  # as it was in 0.5
        cancel_number(service, operations.number_of(service, jobid))
    return True


def _status(service: Any, jobid: Any) -> str:
    status: str = operations.find_job(service, jobid).status
    return status


def _result(service: Any, jobid: Any) -> Any:
    return operations.find_job(service, jobid).output


def _error(service: Any, jobid: Any) -> str:
    return str(operations.find_job(service, jobid).error)


def _list_methods(service: Any) -> list[str]:
    return sorted(METHODS)


def _help(service: Any, name: Any) -> str:
    return method_named(name).help


def _signature(service: Any, name: Any) -> list[list[str]]:
    return method_named(name).signatures


def _of_job(result: str) -> list[list[str]]:
    return [[result, "int"], [result, "string"]]


_INTROSPECTION = {
    "listMethods": Method(
        VIEW, "Return the names of all methods, sorted.", [["array"]], _list_methods
    ),
    "methodHelp": Method(
        VIEW, "Return what a method does: methodHelp(name).", [["string", "string"]], _help
    ),
    "methodSignature": Method(
        VIEW,
        "Return the types of a method, that of its result first: methodSignature(name).",
        [["array", "string"]],
        _signature,
    ),
}

METHODS = {
    "getAvailableTasks": Method(
        VIEW,
        "Return the names that jobs can be added for, sorted.",
        [["array"]],
        operations.task_names,
    ),
    "add": Method(
        ADD,
        "Add a job, and return its id: add(task[, input]).  It is committed then.",
        [["int", "string"], *(["int", "string", kind] for kind in _INPUTS)],
        _add,
    ),
    "cancel": Method(
        MANAGE,
        "Take a job back, or ask it to stop: cancel(jobid).  Return True, also for an id that is "
        "gone.",
        _of_job("boolean"),
        _cancel,
    ),
    "getStatus": Method(
        VIEW, "Return the status of a job: getStatus(jobid).", _of_job("string"), _status
    ),
    "getResult": Method(
        VIEW,
        "Return what the task has returned, nil as long as there is nothing: getResult(jobid).",
        _of_job("struct"),
        _result,
    ),
    "getError": Method(
        VIEW,
        "Return why the last attempt has failed, 'None' if it has not: getError(jobid).",
        _of_job("string"),
        _error,
    ),
    **_INTROSPECTION,
    **{f"system.{name}": method for name, method in _INTROSPECTION.items()},
}


def method_named(name: Any) -> Method:
    """Return a method.

    :raises Fault: there is none.
    """
    method = METHODS.get(name) if type(name) is str else None
    if method is None:
        raise Fault(UNKNOWN_METHOD, f"there is no method {shown(name)}")
    return method


def check_arguments(name: str, method: Method, arguments: tuple[Any, ...]) -> None:
    """Check the number of arguments.

    :raises Fault: there are too many, or too few.
    """
    numbers = sorted({len(signature) - 1 for signature in method.signatures})
    if len(arguments) not in numbers:
        takes = " or ".join(map(str, numbers))
        text = f"{name} takes {takes} arguments, not {len(arguments)}"
        raise Fault(WRONG_ARGUMENTS, text)
