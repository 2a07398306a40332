# SPDX-License-Identifier: ZPL-2.1
"""What applications need to test their tasks and what they add them to."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface, implementer

from lovely.remotetask.interfaces import ITask
from lovely.remotetask.service import TaskService

# In the class of services `list` is a method.
Ids = list[int]


class ITaskStub(ITask):
    """What the tasks of a `TaskServiceStub` are registered for.

    So a test can put stubs in the place of an application's tasks.
    """


class TaskServiceStub(TaskService):
    """A service for tests: in memory, with job ids that count from 1, without a thread.

    Register it in the place of the real service, and call `process` to run the jobs.
    """

    taskInterface = ITaskStub
    _last_id = 0

    def _generateIds(self, count: int) -> Ids:
        first = self._last_id + 1
        self._last_id += count
        return list(range(first, self._last_id + 1))

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
