# SPDX-License-Identifier: ZPL-2.1
"""A transactional job queue that lives in the application's own ZODB."""

from typing import TYPE_CHECKING

from lovely.remotetask.around import register_around, register_context
from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.errors import RemoteTaskError, RetryLater, TaskError
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import SimpleTask, TaskContext

if TYPE_CHECKING:
    from lovely.remotetask.task import task
else:
    from lovely.remotetask import task  # the module, which can be called

__all__ = [
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
