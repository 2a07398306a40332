# SPDX-License-Identifier: ZPL-2.1
"""What every service has: the parts that keep its jobs, and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.utils import z64

from lovely.remotetask import setting
from lovely.remotetask.base.site import note_service, path_to
from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.engine.retention import DEFAULT_RETENTION, Retention
from lovely.remotetask.errors import InvalidArgument, describe, shown
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.retry import MAX_DEATHS
from lovely.remotetask.store.predecessor import Part, check_not_old
from lovely.remotetask.store.queue import JobQueue
from lovely.remotetask.store.tree import JobTree, holds_new
from lovely.remotetask.store.worker import LEASE_SECONDS
from lovely.remotetask.task import look_up

#: How names begin that even a service of 0.5 may get: those of ZODB, what is not stored, and
#: where it stands, so that it can be taken out of a container.
_NOT_OURS = ("_p_", "_v_", "__")

#: Settings that name code: what has no name of its own cannot be stored.
_REFERENCES = ("processorFactory", "taskInterface")


def _part() -> Any:
    return Part()


class Service(Persistent):
    """What the engine asks of a service: base of the classes that applications keep.

    Stored: ``jobs`` `JobTree`: id -> `Job`.  ``queue`` `JobQueue`.  ``workers`` OOBTree:
    worker id -> `Worker`.  ``requests`` IITreeSet: ids of running jobs whose cancelling
    was asked for.  ``progress`` IOBTree: id of a running job -> `Progress`.  ``edits`` IOBTree:
    id of a running job -> `Edit`, see `CronJob.update`.  Set by the application, if at all:
    ``taskInterface``, ``processorFactory``, ``processorArguments``, ``lease_seconds`` float
    seconds, ``max_deaths`` int: deaths of its process after which a job is an error,
    ``retention`` dict of final status -> `Retention`, ``max_input_bytes`` and
    ``max_input_depth`` int or None: see `check_limits`.  ``piped`` bool: whether ends of quick runs
    may be written a moment later, see `finishing`.  The service's own record is written
    by nothing else.
    """

    jobs: Any = None  # each service has its own; security declarations want a default
    queue: JobQueue = _part()
    workers: Any = _part()
    requests: Any = _part()
    progress: Any = _part()
    edits: Any = _part()
    taskInterface: Any = ITask
    processorFactory: Any  # its default is that of the class
    processorArguments: dict[str, Any] = {"waitTime": 1.0}  # noqa: RUF012 (never changed in place)
    lease_seconds: float = LEASE_SECONDS
    max_deaths: int = MAX_DEATHS
    retention: dict[str, Retention] = DEFAULT_RETENTION
    max_input_bytes: int | None = None
    max_input_depth: int | None = None
    piped: bool = True

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        service = super().__new__(cls)
        note_service(service)
        return service

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        note_service(self)

    @property
    def place(self) -> tuple[Any, bytes] | None:
        """The database of the service, and its object id; None until it was committed."""
        jar = self._p_jar
        if jar is None or (self._p_serial == z64 and self._p_changed is not None):
            return None
        return jar.db(), self._p_oid

    def parts(self) -> Iterator[tuple[Any, ...]]:
        """Yield what has to belong to one database, behind what it is reached from."""
        queue = self.queue
        notes = (self.requests, self.progress, self.edits)
        yield self, self.jobs, queue, self.workers, *notes
        yield queue, queue.ready  # not earlier: one that was disowned may have nothing

    def make_processor(self, role: str) -> tuple[Any, str]:
        """Return a processor to be called in a thread of its own, and the thread's name.

        :param role: what it is to do, where the service has several.
        :raises InvalidArgument: the factory does not take the arguments.
        """
        path = path_to(self)
        arguments = self.processorArguments
        processor = made_by(self.processorFactory, arguments, self._p_jar.db(), path)
        return processor, "remotetasks." + ".".join(path)

    def holds_new(self, job: Any) -> bool:
        """Say whether the service has got a job in the current transaction; see `service_of`."""
        return holds_new(vars(self).get("jobs"), job)

    def __init__(self) -> None:
        self.jobs = JobTree()
        self.queue = JobQueue()
        self.workers = OOBTree()
        self.requests = IITreeSet()
        self.progress = IOBTree()
        self.edits = IOBTree()

    def __setattr__(self, name: str, value: Any) -> None:
        # Not a property: by the time its setter refuses, Persistent would have noted a change.
        if not name.startswith(_NOT_OURS):
            check_not_old(self)
            if name in setting.CHECKS:
                value = _checked_setting(name, value, self._p_jar is not None)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not name.startswith(_NOT_OURS):
            check_not_old(self)
        super().__delattr__(name)

    def find_task(self, name: str) -> Any:
        """Return the task with a name, which is called as `ITask` says, or None."""
        return look_up(self.taskInterface, name)


def made_by(factory: Any, arguments: dict[str, Any], *given: Any) -> Any:
    """Return what a factory makes that is a setting, as its keyword arguments are.

    :raises InvalidArgument: it does not take them.
    """
    try:
        return factory(*given, **arguments)
    except TypeError as error:
        raise InvalidArgument(
            f"{shown(factory)} does not take {shown(arguments)}: {describe(error)}"
        ) from error


def _checked_setting(name: str, value: Any, is_stored: bool) -> Any:
    value = setting.CHECKS[name](value)
    if name == "retention":
        return {status: Retention(*bounds) for status, bounds in value.items()}
    if name == "processorArguments" or (is_stored and name in _REFERENCES):
        return check_storable(value, InvalidArgument, name)
    return value
