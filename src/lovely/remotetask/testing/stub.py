# SPDX-License-Identifier: ZPL-2.1
"""A service in memory in the place of the real one, and tasks in the place of the real ones."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface, implementer

from lovely.remotetask.interfaces import ITask
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import available, look_up

# In the class of services `list` is a method.
Ids = list[int]


class ITaskStub(ITask):
    """What the tasks of a `TaskServiceStub` are registered for.

    So a test can put stubs in the place of an application's tasks.
    """


class TaskServiceStub(TaskService):
    """A service for tests: in memory, with job ids that count from 1, without a thread.

    Register it in the place of the real service, and call `process` or `run_all` to run the jobs.
    It knows the tasks of the application; one that is registered for `ITaskStub` takes the place
    of the one with its name.
    """

    taskInterface = ITaskStub
    _last_id = 0

    def _generateIds(self, count: int) -> Ids:
        first = self._last_id + 1
        self._last_id += count
        return list(range(first, self._last_id + 1))

    def find_task(self, name: str) -> Any:
        """See `Service`."""
        found = super().find_task(name)
        return look_up(ITask, name) if found is None else found

    def registered_tasks(self) -> list[tuple[str, Any]]:
        """See `Service`."""
        return [*available(ITask).items(), *super().registered_tasks()]

    def startProcessing(self) -> None:
        """Refuse: jobs of a stub run when `process` is called.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError("a stub has no thread, call process()")

    def stopProcessing(self, timeout_seconds: float | None = None) -> None:
        """Refuse, as `startProcessing` does.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError("a stub has no thread")


@implementer(ITask)
class ExceptionTask:
    """A task that always raises ZeroDivisionError."""

    inputSchema = Interface
    outputSchema = Interface

    def __call__(self, service: Any, jobid: int, input: Any) -> Any:
        """See `ITask`."""
        return 1 / 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
