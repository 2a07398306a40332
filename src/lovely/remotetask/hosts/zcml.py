# SPDX-License-Identifier: ZPL-2.1
"""What ZCML says of tasks: ``<remotetask:task .../>`` and ``<remotetask:scan package="..."/>``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from zope.configuration.exceptions import ConfigurationError
from zope.configuration.fields import Bool, GlobalInterface, GlobalObject
from zope.interface import Interface
from zope.schema import Choice, Float, Int, TextLine

from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.task import task

#: Parts of a package that hold no tasks of the application.
NOT_SCANNED = ("tests", "testing", "conftest")


class ITaskDirective(Interface):
    """Register a function as a task."""

    function = GlobalObject(title="Function", description="What jobs call, with their input.")
    name = TextLine(title="Name", description="Its dotted path if there is none.", required=False)
    inputSchema = GlobalInterface(title="Schema of the input", required=False)
    outputSchema = GlobalInterface(title="Schema of the result", required=False)
    context = Bool(title="Whether the function takes a context first", required=False)
    retry = GlobalObject(title="The retry policy", required=False)
    timeout_seconds = Float(title="Seconds that a job may run", required=False)
    shared_commit = Bool(title="Whether quick jobs may share a commit", required=False)
    executor = Choice(title="Where it is called", values=("process",), required=False)
    max_jobs_per_process = Int(title="Jobs after which its process ends", required=False)


class IScanDirective(Interface):
    """Import a module, or all modules of a package, for the tasks that they register."""

    package = GlobalObject(title="Package", description="The package or the module.")


def task_directive(_context: Any, function: Any, name: str | None = None, **options: Any) -> None:
    """Register a function as a task.

    :raises ConfigurationError: it cannot be one.
    """
    if name is None:
        name = f"{function.__module__}.{function.__qualname__}"

    def register() -> None:
        try:
            task(name, **options)(function)
        except RemoteTaskError as error:
            raise ConfigurationError(str(error)) from error

    _context.action(discriminator=("remotetask:task", name), callable=register)


def scan_directive(_context: Any, package: Any) -> None:
    """Import a module, or all modules of a package but for its tests."""
    _context.action(
        discriminator=("remotetask:scan", package.__name__), callable=scan, args=(package,)
    )


def scan(package: Any) -> None:
    """Import all modules of a package, but for its tests.

    Transaction: none.
    """
    for found in walk_packages(getattr(package, "__path__", ()), f"{package.__name__}."):
        if not set(found.name.split(".")) & set(NOT_SCANNED):
            import_module(found.name)
