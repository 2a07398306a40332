# SPDX-License-Identifier: ZPL-2.1
"""The errors of the package.

::

    RemoteTaskError
    ├── TaskError                 raised by a task: this job has failed, for good
    ├── RetryLater                raised by a task: run this job again, later
    ├── JobCancelled              raised in a task by ``context.check_cancelled()``
    ├── JobTimeout                a job ran longer than its task allows
    ├── JobExpired                a job had not started by the time it was needed
    ├── JobInterrupted            the process that ran a job was stopped, and runs it again
    ├── WorkerDied                the processes that ran a job died, time after time
    ├── WriteConflicts            a job met write conflicts each time it was run
    ├── TransactionMeddled        a task committed, aborted, began or doomed the transaction
    ├── JobFailed                 a job that was waited for is an error, or was cancelled
    ├── JobNotDone (TimeoutError) a job that was waited for has not ended in time
    ├── CannotUndo                what a job has done cannot be undone, or not by itself
    ├── CannotTakeBack            a job failed inline, and its writes are stuck: abort
    ├── LoopIsRunning (RuntimeError)  a coroutine was to be run amid an event loop
    ├── InvalidResult             a result that cannot be stored, or breaks its schema
    ├── TransactionInProgress     the engine was called inside a transaction with changes
    ├── ServiceNotStored          a service that is not in a database was to be started
    ├── ServiceGone               the service is no longer in its database
    ├── StrayObject               what was to be stored belongs to no database: transient
    ├── ServerAway (OSError)      the server of a MongoDB database does not answer
    ├── StaleDocument             others have changed a document meanwhile: transient
    ├── OldRecord                 a service or a job of 0.5, which nobody here reads or writes
    ├── JobNotFound (KeyError)    no job has this id
    ├── JobUnusable               a job's record cannot be read, or not be written, here
    ├── TaskNotFound (ValueError) no task is registered under this name
    ├── InvalidInput (ValueError) the input of a job cannot be accepted
    ├── InvalidSchedule (ValueError)
    │   └── UnknownZone           this machine does not know a time zone
    ├── InvalidArgument (ValueError)
    │   └── UniqueKeyTaken        a job cannot run again: another one has its unique key
    └── JobIsLive (ValueError)    a job that is still needed was to be removed
"""

from __future__ import annotations

import errno
import math
import operator
from collections.abc import Iterable, Iterator
from itertools import islice
from traceback import walk_tb
from typing import Any, SupportsFloat, SupportsIndex

from transaction.interfaces import TransientError
from ZODB.POSException import InvalidObjectReference, POSError

#: No job waits longer than this many seconds for what comes next: a hundred years.
MAX_WAIT_SECONDS = 100 * 365.25 * 86_400.0

#: What a storage in a relational database raises when the database is away, or has ended the
#: session: the names of PEP 249, and RelStorage's own.  Each driver has classes of its own.
AWAY_NAMES = frozenset({"OperationalError", "InterfaceError", "ReplicaClosedException"})

#: What an `OSError` says where there is no room: on the disk, in a quota, in a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: And what the drivers of databases say: PostgreSQL's, and SQLite's.
NO_ROOM_TOLD = ("No space left on device", "disk is full")

_CONNECTION = "ZODB.Connection"

#: No time lies later, in seconds since the epoch: the end of the year 9899.  Schedules are
#: searched a hundred years ahead, and Python knows no year after 9999.
LAST_MOMENT = 250_246_627_200.0

#: Characters of a value that a message shows.
MAX_SHOWN = 80

#: What makes a float of itself, or of its text, and is meant for none.
_NO_NUMBERS = (bool, str, bytes, bytearray)


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
    :raises InvalidArgument: it is no such number.
    """

    # Of the class too: a subclass may forget to call this one's `__init__`.
    delay_seconds: float | None = None

    def __init__(
        self, delay_seconds: SupportsFloat | SupportsIndex | None = None, message: str = ""
    ) -> None:
        super().__init__(text_of(message) or "The task asks to be run again.")
        if delay_seconds is not None:
            self.delay_seconds = seconds_of(delay_seconds, "delay_seconds")

    def __reduce__(self) -> tuple[type[RetryLater], tuple[float | None, str]]:
        return type(self), (self.delay_seconds, str(self))


class JobCancelled(RemoteTaskError):
    """The job was cancelled while it ran."""


class JobTimeout(RemoteTaskError):
    """The job ran longer than its task allows."""


class JobExpired(RemoteTaskError):
    """The job had not started by the time that it was to."""


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


class JobFailed(RemoteTaskError):
    """The job has failed."""

    @classmethod
    def of(cls, job: Any) -> JobFailed:
        """Return the error of a job that is an error or was cancelled; it tells the traceback."""
        what = f"job {job.__name__}, task {job.task}, is {job.status}"
        if not job.failures:
            return cls(what)
        last = job.failures[-1]
        text = f"{what}: {last.type}: {last.message}"
        return cls(f"{text}\n\n{last.traceback.rstrip()}" if last.traceback else text)


class JobNotDone(RemoteTaskError, TimeoutError):
    """The job has not ended in time."""


class LoopIsRunning(RemoteTaskError, RuntimeError):
    """This thread runs an event loop, so no asynchronous task can run in it: use another thread."""


class CannotUndo(RemoteTaskError):
    """What the job has done cannot be undone."""


class InvalidResult(RemoteTaskError):
    """The result of the task cannot be stored."""


class TransactionInProgress(RemoteTaskError):
    """A processor runs transactions of its own: commit or abort yours first."""


class ServiceNotStored(RemoteTaskError):
    """The service must be put into a database before it can process jobs."""


class ServiceGone(RemoteTaskError):
    """The service is no longer in its database."""


class StrayObject(RemoteTaskError, TransientError):
    """An object no longer belongs to its database; the transaction can be repeated."""


class ServerAway(RemoteTaskError, ConnectionError):
    """The server of the database does not answer."""


class StaleDocument(RemoteTaskError, TransientError):
    """A document was changed by others meanwhile; the transaction can be repeated."""


class OldRecord(RemoteTaskError, POSError):  # a POSError, which ZODB does not wrap
    """A record of lovely.remotetask 0.5 is neither read nor written before it is upgraded."""

    @classmethod
    def of(cls, what: str) -> OldRecord:
        """Return the error of something that 0.5 has written."""
        return cls(
            f"{what} was written by lovely.remotetask 0.5; 'remotetask upgrade' brings it to "
            f"today's records: see 'Coming from 0.5' in the documentation"
        )


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


class UniqueKeyTaken(InvalidArgument):
    """The job cannot run again: another one has its unique key by now."""


class JobIsLive(RemoteTaskError, ValueError):
    """Jobs that are waiting or running are cancelled, not cleaned."""


def describe(error: BaseException) -> str:
    """Return the message of an exception, whatever it does when it is printed."""
    return text_of(error, "(the message cannot be printed)") or name_of(error)


def check_honest(error: BaseException) -> None:
    """Raise another one in the place of an exception that cannot be asked what it is."""
    try:
        isinstance(error, TaskError)
    except BaseException:  # its property `__class__`
        raise TaskError(f"{name_of(error)}: {describe(error)}") from None


# Nor is an exception asked what it is in the four that follow: it may be any task's.


def is_storage_fault(error: BaseException) -> bool:
    """Say whether storages raise an error of this kind when they do not work."""
    if type(error) is InvalidObjectReference and _is_of_others(error):
        return False
    return issubclass(type(error), (POSError, OSError, TransientError)) or _is_away(error)


def _is_of_others(error: BaseException) -> bool:
    """Say whether somebody has tried to store an object of another connection."""
    *_, stray = error.args or (None,)  # one of no connection is another matter: see `StrayObject`
    return getattr(stray, "_p_jar", None) is not None


def is_read_fault(error: BaseException) -> bool:
    """Say whether a storage did not work when a task has asked for an object.

    A task's own file, or its own connection to such a database, raises the same; but not by way
    of ZODB.  Objects that are missing are no fault of the storage.
    """
    if issubclass(type(error), ServerAway):
        return True
    return (issubclass(type(error), OSError) or _is_away(error)) and is_from_zodb(error)


def is_from_zodb(error: BaseException) -> bool:
    """Say whether an error has come by way of a ZODB connection."""
    return _CONNECTION in _modules_of(error)


def is_refused(error: BaseException) -> bool:
    """Say whether an error of a commit is that of a storage which has no room: of a full disk.

    Neither another data manager's is that, nor one of an object that is asked for its state; nor
    is one of a storage that cannot write for another reason, as its server is away.
    """
    if is_kind(error, OSError):
        is_full = attribute_of(OSError, "errno", error) in NO_ROOM
    else:
        is_full = _is_away(error) and any(words in describe(error) for words in NO_ROOM_TOLD)
    inwards = _modules_of(error)[::-1]  # from where it was raised
    if not is_full or _CONNECTION not in inwards:
        return False
    return "ZODB.serialize" not in inwards[: inwards.index(_CONNECTION)][-1:]


def attribute_of(kind: type, name: str, error: BaseException) -> Any:
    """Return an attribute that Python gives to exceptions, whatever their own classes make of it.

    :param kind: the class that has it.
    """
    return kind.__dict__[name].__get__(error)


def _modules_of(error: BaseException) -> list[str]:
    """Return the names of the modules by way of which an error has come."""
    traceback = attribute_of(BaseException, "__traceback__", error)
    return [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(traceback)]


def _is_away(error: BaseException) -> bool:
    names = [_name_of_class(kind) for kind in type.__dict__["__mro__"].__get__(type(error))]
    # What a database refuses is of a subclass; an answer that breaks off is of no other kind.
    return names[0] == "DatabaseError" or not AWAY_NAMES.isdisjoint(names)


def name_of(error: BaseException) -> str:
    """Return the name of the class of an exception, whatever its metaclass says."""
    return _name_of_class(type(error))


def _name_of_class(kind: type) -> str:
    return plain(type.__dict__["__name__"].__get__(kind))


def plain(text: str) -> str:
    """Return a text of an exact str, which can be stored whatever a subclass of it does."""
    return "".join((text,))


def text_of(value: object, otherwise: str = "(it cannot be printed)") -> str:
    """Return what a value says of itself, whatever it does when it is printed."""
    try:
        return plain(str(value))
    except BaseException:  # SystemExit too: it would end the thread that only tells
        return otherwise


def shown(value: object) -> str:
    """Return a value as a message shows it, shortened, whatever its code does."""
    try:
        text = plain(repr(value))
    except Exception:  # of an int with more than 4,300 digits too, and of what is nested deep
        text = f"<{plain(type.__dict__['__name__'].__get__(type(value)))}>"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def is_kind(value: object, kind: type | tuple[type, ...]) -> bool:
    """Say whether a value is an instance of a class, or of one of several.

    Not `isinstance`, which asks the value too what it is.
    """
    return issubclass(type(value), kind)


def whole_of(value: object) -> int | None:
    """Return a whole number as an exact int, None if it is none; a bool is none."""
    try:
        return None if type(value) is bool else operator.index(value)  # type: ignore[arg-type]
    except Exception:  # whatever somebody's __index__ raises
        return None


def number_of(value: Any) -> float:
    """Return a number as an exact float, nan if it is none; texts and bools are none."""
    try:
        return math.nan if is_kind(value, _NO_NUMBERS) else float(value)
    except Exception:  # whatever somebody's __float__ raises
        return math.nan


def each_of(values: Iterable[Any], name: str, error: type[RemoteTaskError]) -> Iterator[Any]:
    """Yield values one by one.

    :param name: names the values in the error's message.
    :param error: raised for what is no collection.
    :raises TransientError: the collection is stored, and could not be read.
    """
    try:
        yield from iter(values)
    except TransientError:
        raise
    except Exception as fault:  # whatever somebody's __iter__ or generator raises
        raise error(f"{name}={shown(values)}: must be a collection ({describe(fault)})") from fault


def inputs_of(values: Iterable[Any]) -> Iterator[Any]:
    """Return an iterator over the inputs of many jobs; see `each_of`.

    :raises InvalidInput: they are no collection, or one text, each letter of which would be one.
    """
    if is_kind(values, (str, bytes, bytearray)):
        raise InvalidInput(f"inputs={shown(values)}: must be a collection of inputs, not one text")
    return each_of(values, "inputs", InvalidInput)


def list_of(
    values: Iterable[Any], name: str, error: type[RemoteTaskError], limit: int
) -> list[Any]:
    """Return values in a list; see `each_of`.

    :param error: raised for more than `limit` values too.
    """
    found = list(islice(each_of(values, name, error), limit + 1))
    if len(found) > limit:
        raise error(f"{name} must not have more than {limit} values")
    return found


def is_true(value: object, name: str) -> bool:
    """Say whether a value counts as true.

    :param name: names the value in the error's message.
    :raises InvalidArgument: it cannot tell.
    """
    try:
        return value is not NotImplemented and bool(value)
    except Exception:  # whatever somebody's __bool__ raises
        raise InvalidArgument(f"{name} must be true or false, not {shown(value)}") from None


def seconds_of(value: Any, name: str) -> float:
    """Return a wait as float seconds.

    :param name: names the value in the error's message.
    :raises InvalidArgument: it is no number, or not within 0 to `MAX_WAIT_SECONDS`.
    """
    seconds = number_of(value)
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidArgument(
            f"{name} must be 0 or more seconds, up to 100 years, not {shown(value)}"
        )
    return seconds


def moment_of(value: Any, name: str) -> float:
    """Return a time as float seconds since the epoch.

    :param name: names the value in the error's message.
    :raises InvalidArgument: it is no number, or not within the years 1970 to 9899.
    """
    seconds = number_of(value)
    if not 0 <= seconds < LAST_MOMENT:
        raise InvalidArgument(f"{name} must be seconds since the epoch, not {shown(value)}")
    return seconds
