# SPDX-License-Identifier: ZPL-2.1
"""What a running task can know and tell of its own job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lovely.remotetask.base.coroutine import is_coroutine, run_to_end
from lovely.remotetask.base.loglines import keep_unseen
from lovely.remotetask.errors import (
    JobCancelled,
    JobInterrupted,
    JobTimeout,
    RemoteTaskError,
    ServiceNotStored,
)

# Subscribed only for those who check types: Python 3.10 cannot.
if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class _JobLog(_Adapter):
    def process(self, msg: Any, kwargs: Any) -> tuple[str, Any]:
        """See `logging.LoggerAdapter`."""
        return f"job {(self.extra or {})['jobid']}: {msg}", kwargs

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """See `logging.LoggerAdapter`.  Lines of any level come into the log of the job."""
        keep_unseen(self.logger, level, msg, args)
        super().log(level, msg, *args, **kwargs)


class TaskContext:
    """What a running task can know and tell about its own job.

    A task gets one as its first argument when it is made with ``context=True``.  Cancel
    requests and progress go through another connection to the database: the task's own
    sees nothing new while it runs, and is kept or dropped as a whole.

    :ivar service: the service the job belongs to, in the task's own transaction.
    :ivar jobid: the id of the job.
    :ivar attempt: how often the job has been claimed, this time included.
    :ivar is_stopping: says whether the process is to end.
    """

    def __init__(
        self,
        service: Any,
        jobid: int,
        attempt: int = 1,
        timeout_seconds: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        is_cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[float, float | None, str], None] = lambda done, total, message: None,
        monotonic: Callable[[], float] = time.monotonic,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.service = service
        self.jobid = jobid
        self.attempt = attempt
        self._monotonic = monotonic
        self._timeout_seconds = timeout_seconds
        self._deadline = None if timeout_seconds is None else monotonic() + timeout_seconds
        self._is_given_up = is_given_up
        self.is_stopping = should_stop
        self._is_cancelled = is_cancelled
        self._progress = progress

    @property
    def connection(self) -> Any:
        """The connection to the database, in the task's own transaction.

        :raises ServiceNotStored: the service is in no database, as in some tests.
        """
        connection = self.service._p_jar
        if connection is None:
            raise ServiceNotStored("the service is in no database")
        return connection

    @property
    def root(self) -> Any:
        """The root object of the database, in the task's own transaction.

        :raises ServiceNotStored: the service is in no database, as in some tests.
        """
        return self.connection.root()

    @property
    def job(self) -> Any:
        """The job that runs, an `IJob`.  It is for reading: the engine writes it."""
        return self.service.jobs[self.jobid]

    @property
    def cause(self) -> Any:
        """The job that has brought this one about by its ``on_success`` or ``on_error``.

        An `IJob`; None if there was none, or it was removed since.
        """
        jobid = self.job.cause
        cause = None if jobid is None else self.service.jobs.get(jobid)
        if cause is not None:
            cause._p_deactivate()  # an earlier attempt may have changed its result in place
        return cause

    @property
    def group(self) -> Any:
        """The group that this job belongs to, or that it ends; see `ITaskService.group`.

        None if there is none, or the job that ends it was removed.
        """
        groupid = self.job.group
        ends = None if groupid is None else self.service.jobs.get(groupid)
        return None if ends is None else self.service.group(groupid)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger ``remotetask.job``, which says in each line which job it is about."""
        return _JobLog(logging.getLogger("remotetask.job"), {"jobid": self.jobid})

    def should_stop(self) -> bool:
        """Say whether the task does well to end soon: cancelled, out of time, or shut down.

        Transaction: reads only, through a connection of its own.
        """
        remaining = self.time_remaining()
        return (
            (remaining is not None and remaining <= 0) or self.is_stopping() or self._is_cancelled()
        )

    def check_cancelled(self) -> None:
        """Raise if somebody has asked for the job to be cancelled.

        :raises JobCancelled: let it pass, and the job ends as cancelled.

        Transaction: reads only, through a connection of its own.
        """
        if self.is_cancelled():
            raise JobCancelled

    def is_cancelled(self) -> bool:
        """Say whether somebody has asked for the job to be cancelled.

        Transaction: reads only, through a connection of its own.
        """
        return self._is_cancelled()

    def why_stop(self) -> RemoteTaskError | None:
        """Return the error as which the run has to end now, or None: it can go on.

        Transaction: reads only, through a connection of its own.
        """
        if self._is_given_up():
            return JobInterrupted()
        remaining = self.time_remaining()
        if remaining is not None and remaining <= 0:
            return JobTimeout(f"the job ran longer than {self._timeout_seconds} s")
        return JobCancelled() if self._is_cancelled() else None

    def time_remaining(self) -> float | None:
        """Return the seconds until the task's timeout, or None when it has none.

        Transaction: reads only.
        """
        return None if self._deadline is None else self._deadline - self._monotonic()

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the job is; other connections see it before the job is committed.

        Calls that follow fast upon each other are left out, but never one that says that
        all is done.

        :param done: how much is done, in any unit.
        :param total: how much there is to do, in the same unit; None when not known.

        Transaction: commits, through a connection of its own.
        """
        self._progress(done, total, message)


_running = threading.local()


class running_in:
    """Let tasks that are called for a job in this thread, in a ``with`` block, get its context.

    :param make: makes the context.  Few tasks ask for it.
    :param task: the name of the task.
    """

    def __init__(
        self, jobid: int, make: Callable[[], TaskContext], task: str = "", attempt: int = 1
    ) -> None:
        self.jobid = jobid
        self.task = task
        self.attempt = attempt
        self._make = make
        self._context: TaskContext | None = None

    def __enter__(self) -> None:
        self._previous = getattr(_running, "job", None)
        _running.job = self

    def __exit__(self, *exception: object) -> None:
        _running.job = self._previous

    @property
    def context(self) -> TaskContext:
        """The context, the same one each time."""
        if self._context is None:
            self._context = self._make()
        return self._context


def running_job() -> running_in | None:
    """Return what is known of the job that runs in this thread, or None."""
    job: running_in | None = getattr(_running, "job", None)
    return job


def current_context(service: Any, jobid: int) -> TaskContext:
    """Return the context of the job that runs in this thread; another one for another job."""
    job = running_job()
    return TaskContext(service, jobid) if job is None or job.jobid != jobid else job.context


def awaited(service: Any, jobid: int, output: Any) -> Any:
    """Return what a task has returned; a coroutine is run to its end, or ended with its job."""
    if is_coroutine(output):
        return run_to_end(output, current_context(service, jobid).why_stop)
    return output
