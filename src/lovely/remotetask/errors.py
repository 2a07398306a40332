# SPDX-License-Identifier: ZPL-2.1
"""The errors of the package.

::

    RemoteTaskError
    ├── TaskError                 raised by a task: this job has failed, for good
    ├── RetryLater                raised by a task: run this job again, later
    ├── JobCancelled              raised in a task by ``context.check_cancelled()``
    ├── JobTimeout                a job ran longer than its task allows
    ├── JobInterrupted            the process that ran a job was stopped, and runs it again
    ├── WorkerDied                the processes that ran a job died, time after time
    ├── WriteConflicts            a job met write conflicts each time it was run
    ├── TransactionMeddled        a task committed, aborted, began or doomed the transaction
    ├── CannotTakeBack            a job failed inline, and its writes are stuck: abort
    ├── InvalidResult             a result that cannot be stored, or breaks its schema
    ├── TransactionInProgress     the engine was called inside a transaction with changes
    ├── ServiceNotStored          a service that is not in a database was to be started
    ├── ServiceGone               the service is no longer in its database
    ├── StrayObject               what was to be stored belongs to no database: transient
    ├── JobNotFound (KeyError)    no job has this id
    ├── JobUnusable               a job's record cannot be read, or not be written, here
    ├── TaskNotFound (ValueError) no task is registered under this name
    ├── InvalidInput (ValueError) the input of a job cannot be accepted
    ├── InvalidSchedule (ValueError)
    │   └── UnknownZone           this machine does not know a time zone
    ├── InvalidArgument (ValueError)
    └── JobIsLive (ValueError)    a job that is still needed was to be removed
"""

from __future__ import annotations

from typing import Any, SupportsFloat, SupportsIndex

from transaction.interfaces import TransientError

#: No job waits longer than this many seconds for what comes next: a hundred years.
MAX_WAIT_SECONDS = 100 * 365.25 * 86_400.0


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

    :param delay_seconds: seconds until the next run, 0 to `MAX_WAIT_SECONDS`; None leaves
        the time to the retry policy of the job.
    """

    # Of the class too: a subclass may forget to call this one's `__init__`.
    delay_seconds: float | None = None

    def __init__(
        self, delay_seconds: SupportsFloat | SupportsIndex | None = None, message: str = ""
    ) -> None:
        super().__init__(message or "The task asks to be run again.")
        if delay_seconds is not None:
            self.delay_seconds = seconds_of(delay_seconds, "delay_seconds")

    def __reduce__(self) -> tuple[type[RetryLater], tuple[float | None, str]]:
        return type(self), (self.delay_seconds, str(self))


class JobCancelled(RemoteTaskError):
    """The job was cancelled while it ran."""


class JobTimeout(RemoteTaskError):
    """The job ran longer than its task allows."""


class JobInterrupted(RemoteTaskError):
    """The process that ran the job was stopped; the job runs again."""


class WorkerDied(RemoteTaskError):
    """The process that ran the job died."""


class WriteConflicts(RemoteTaskError):
    """The job met write conflicts each time it was run."""

    @classmethod
    def after(cls, runs: int, last: BaseException) -> WriteConflicts:
        """Return the error of a job that has met so many conflicts in a row."""
        return cls(f"the job met write conflicts in {runs} runs in a row; last: {describe(last)}")


class TransactionMeddled(RemoteTaskError):
    """A task must not commit, abort, begin or doom the transaction it runs in."""


class CannotTakeBack(RemoteTaskError):
    """What a failed job has written cannot be taken back: abort the transaction."""


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


class JobUnusable(RemoteTaskError):
    """The record of the job cannot be read, or not be written, in this process."""


class TaskNotFound(RemoteTaskError, ValueError):
    """No task is registered under this name."""


class InvalidInput(RemoteTaskError, ValueError):
    """The input of the job cannot be accepted."""


class InvalidSchedule(RemoteTaskError, ValueError):
    """The schedule is malformed or can never come true."""


class UnknownZone(InvalidSchedule):
    """This machine does not know the time zone."""


class InvalidArgument(RemoteTaskError, ValueError):
    """An argument has the wrong type or is out of range."""


class JobIsLive(RemoteTaskError, ValueError):
    """Jobs that are waiting or running are cancelled, not cleaned."""


def describe(error: BaseException) -> str:
    """Return the message of an exception, whatever it does when it is printed."""
    try:
        message = plain(str(error))
    except BaseException:  # SystemExit too: it would end the thread that only tells
        message = "(the message cannot be printed)"
    return message or name_of(error)


def check_honest(error: BaseException) -> None:
    """Raise another one in the place of an exception that cannot be asked what it is."""
    try:
        isinstance(error, TaskError)
    except BaseException:  # its property `__class__`
        raise TaskError(f"{name_of(error)}: {describe(error)}") from None


def name_of(error: BaseException) -> str:
    """Return the name of the class of an exception, whatever its metaclass says."""
    return _name_of_class(type(error))


def names_of(error: BaseException) -> set[str]:
    """Return the names of the class of an exception and of all its bases, as `name_of` does."""
    return set(map(_name_of_class, type.__dict__["__mro__"].__get__(type(error))))


def _name_of_class(kind: type) -> str:
    return plain(type.__dict__["__name__"].__get__(kind))


def plain(text: str) -> str:
    """Return a text of an exact str, which can be stored whatever a subclass of it does."""
    return "".join((text,))


def seconds_of(value: Any, name: str) -> float:
    """Return a wait as float seconds.

    :param name: names the value in the error's message.
    :raises InvalidArgument: it is no number, or not within 0 to `MAX_WAIT_SECONDS`.
    """
    try:
        seconds = -1.0 if isinstance(value, (bool, str, bytes, bytearray)) else float(value)
    except Exception:  # whatever somebody's __float__ raises
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        try:
            shown = repr(value)[:50]
        except Exception:  # of an int with more than 4,300 digits too
            shown = f"this {type(value).__name__}"
        raise InvalidArgument(f"{name} must be 0 or more seconds, up to 100 years, not {shown}")
    return seconds
