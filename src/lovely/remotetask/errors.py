# SPDX-License-Identifier: ZPL-2.1
"""The errors of the package.

::

    RemoteTaskError
    ├── TaskError                 raised by a task: this job has failed, for good
    ├── RetryLater                raised by a task: run this job again, later
    ├── JobCancelled              raised in a task by ``context.check_cancelled()``
    ├── JobTimeout                a job ran longer than its task allows
    ├── WorkerDied                the processes that ran a job died, time after time
    ├── TransactionMeddled        a task committed, aborted, began or doomed the transaction
    ├── InvalidResult             a result that cannot be stored, or breaks its schema
    ├── TransactionInProgress     the engine was called inside a transaction with changes
    ├── ServiceNotStored          a service that is not in a database was to be started
    ├── ServiceGone               the service is no longer in its database
    ├── StrayObject               what was to be stored belongs to no database: transient
    ├── JobNotFound (KeyError)    no job has this id
    ├── TaskNotFound (ValueError) no task is registered under this name
    ├── InvalidInput (ValueError) the input of a job cannot be accepted
    ├── InvalidSchedule (ValueError)
    ├── InvalidArgument (ValueError)
    └── JobIsLive (ValueError)    a job that is still needed was to be removed
"""

from __future__ import annotations

from transaction.interfaces import TransientError


class RemoteTaskError(Exception):
    """Something went wrong in lovely.remotetask."""

    def __init__(self, *args: object) -> None:
        # An error without words of its own says what its class says.
        if not args and self.__doc__:
            args = (self.__doc__.splitlines()[0],)
        super().__init__(*args)


class TaskError(RemoteTaskError):
    """The task failed."""


class RetryLater(RemoteTaskError):
    """The task asks to be run again.

    :param delay_seconds: seconds until the next run, 0 or more; None leaves the
        time to the retry policy of the job.
    """

    def __init__(self, delay_seconds: float | None = None, message: str = "") -> None:
        if delay_seconds is not None and not 0 <= delay_seconds < float("inf"):
            raise InvalidArgument(f"delay_seconds must be 0 or more, not {delay_seconds!r}")
        super().__init__(message or "The task asks to be run again.")
        self.delay_seconds = delay_seconds

    def __reduce__(self) -> tuple[type[RetryLater], tuple[float | None, str]]:
        return type(self), (self.delay_seconds, str(self))


class JobCancelled(RemoteTaskError):
    """The job was cancelled while it ran."""


class JobTimeout(RemoteTaskError):
    """The job ran longer than its task allows."""


class WorkerDied(RemoteTaskError):
    """The process that ran the job died."""


class TransactionMeddled(RemoteTaskError):
    """A task must not commit, abort, begin or doom the transaction it runs in."""


class InvalidResult(RemoteTaskError):
    """The result of the task cannot be stored."""


class TransactionInProgress(RemoteTaskError):
    """A processor runs transactions of its own: commit or abort yours first."""


class ServiceNotStored(RemoteTaskError):
    """The service must be committed to a database before it can process jobs."""


class ServiceGone(RemoteTaskError):
    """The service is no longer in its database."""


class StrayObject(RemoteTaskError, TransientError):
    """An object no longer belongs to its database; the transaction can be repeated."""


class JobNotFound(RemoteTaskError, KeyError):
    """No job has this id."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument.
        return str(self.args[0])


class TaskNotFound(RemoteTaskError, ValueError):
    """No task is registered under this name."""


class InvalidInput(RemoteTaskError, ValueError):
    """The input of the job cannot be accepted."""


class InvalidSchedule(RemoteTaskError, ValueError):
    """The schedule is malformed or can never come true."""


class InvalidArgument(RemoteTaskError, ValueError):
    """An argument has the wrong type or is out of range."""


class JobIsLive(RemoteTaskError, ValueError):
    """Jobs that are waiting or running are cancelled, not cleaned."""


def describe(error: BaseException) -> str:
    """Return the message of an exception, whatever it does when it is printed."""
    try:
        message = str(error)
    except Exception:
        message = "(the message cannot be printed)"
    return message or type(error).__name__
