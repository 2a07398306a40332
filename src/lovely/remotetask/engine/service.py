# SPDX-License-Identifier: ZPL-2.1
"""What every service has: the parts that keep its jobs, and its settings."""

from __future__ import annotations

import logging
from typing import Any

from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.utils import z64

from lovely.remotetask import setting
from lovely.remotetask.base.leftovers import clear_leftovers
from lovely.remotetask.base.ownership import check_parts, wrote
from lovely.remotetask.base.site import note_service, path_to
from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.retention import DEFAULT_RETENTION, Retention
from lovely.remotetask.errors import InvalidArgument, describe, shown
from lovely.remotetask.interfaces import PROCESSING, ITask
from lovely.remotetask.retry import MAX_DEATHS
from lovely.remotetask.store.predecessor import Part, check_not_old
from lovely.remotetask.store.quarantine import load_many
from lovely.remotetask.store.queue import JobQueue
from lovely.remotetask.store.tree import JobTree, holds_new
from lovely.remotetask.store.worker import LEASE_SECONDS
from lovely.remotetask.task import available, check_name, look_up

#: How names begin that even a service of 0.5 may get: those of ZODB, what is not stored, and
#: where it stands, so that it can be taken out of a container.
_NOT_OURS = ("_p_", "_v_", "__")

#: Arguments that every factory of ours takes that runs several jobs at a time.
_FOR_ANY = ("waitTime", "jobQuery")

#: Settings that name code: what has no name of its own cannot be stored.
_REFERENCES = ("processorFactory", "taskInterface")


def _part() -> Any:
    return Part()


class Service(Persistent):
    """What the engine asks of a service: base of the classes that applications keep.

    Stored: ``jobs`` `JobTree`: id -> `Job`.  ``queue`` `JobQueue`.  ``workers`` OOBTree:
    worker id -> `Worker`.  ``requests`` IITreeSet: ids of running jobs whose cancelling
    was asked for.  ``progress`` IOBTree: id of a running job -> `Progress`.  ``edits`` IOBTree:
    id of a running job -> `Edit`, see `CronJob.update`.  ``lines`` IOBTree: id of a running job ->
    what it has logged up to now, see `store.joblog`.  Set by the application, if at all:
    ``taskInterface``, ``processorFactory``, ``processorArguments``, ``lease_seconds`` float
    seconds, ``max_deaths`` int: deaths of its process after which a job is an error,
    ``retention`` dict of final status -> `Retention`, ``max_input_bytes`` and
    ``max_input_depth`` int or None: see `check_limits`, ``log_level`` int or
    None: see `LogLines`, ``around`` tuple of str: see `register_around`, ``piped`` bool: whether
    ends of runs may be written together, and a moment later, see `finishing`.
    The service's own record is written by nothing else; the setting ``limits`` stands in the
    queue, which claims read.
    """

    jobs: Any = None  # each service has its own; security declarations want a default
    queue: JobQueue = _part()
    workers: Any = _part()
    requests: Any = _part()
    progress: Any = _part()
    edits: Any = _part()
    lines: Any = IOBTree()  # of a service that was stored without; never changed
    taskInterface: Any = ITask
    processorFactory: Any  # its default is that of the class
    many_factory: Any  # what runs several jobs at a time, see `with_threads`
    processorArguments: dict[str, Any] = {"waitTime": 1.0}  # noqa: RUF012 (never changed in place)
    lease_seconds: float = LEASE_SECONDS
    max_deaths: int = MAX_DEATHS
    retention: dict[str, Retention] = DEFAULT_RETENTION
    max_input_bytes: int | None = None
    max_input_depth: int | None = None
    log_level: int | None = logging.INFO
    around: tuple[str, ...] = ()
    piped: bool = True

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        service = super().__new__(cls)
        note_service(service)
        return service

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        note_service(self)
        if self._p_jar is not None:
            clear_leftovers(self._p_jar.db())  # before anything of the service is written

    @property
    def place(self) -> tuple[Any, bytes] | None:
        """The database of the service, and its object id; None until it was committed."""
        jar = self._p_jar
        if jar is None or (self._p_serial == z64 and self._p_changed is not None):
            return None
        return jar.db(), self._p_oid

    def parts(self) -> tuple[Any, ...]:
        """Return what has to belong to one database, behind what it is reached from."""
        queue = self.queue
        ready = getattr(queue, "ready", queue)  # one that was disowned may have nothing
        notes = (self.requests, self.progress, self.edits, self.lines)
        return self, self.jobs, queue, ready, self.workers, *notes

    def make_processor(self, role: str) -> tuple[Any, str]:
        """Return a processor to be called in a thread of its own, and the thread's name.

        :param role: what it is to do, where the service has several.
        :raises InvalidArgument: the factory does not take the arguments.
        """
        path = path_to(self)
        factory, arguments = with_threads(
            self.processorFactory, self.processorArguments, self.many_factory
        )
        processor = made_by(factory, arguments, self._p_jar.db(), path)
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
        self.lines = IOBTree()

    def __setattr__(self, name: str, value: Any) -> None:
        # Not a property: by the time its setter refuses, Persistent would have noted a change.
        if not name.startswith(_NOT_OURS):
            check_not_old(self)
            if name in setting.CHECKS:
                value = _checked_setting(name, value, self._p_jar is not None)
            if name == "limits":
                set_limits(self, value)
                return
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not name.startswith(_NOT_OURS):
            check_not_old(self)
        super().__delattr__(name)

    def ensure_declared(self) -> dict[str, int]:
        """Let there be the schedules that are declared here; each worker does that at its start.

        :returns: the ids of their jobs, by key.
        """
        return {}

    def registered_tasks(self) -> list[tuple[str, Any]]:
        """Return the names and the tasks that are registered here; of one name the last counts."""
        return list(available(self.taskInterface).items())

    @property
    def limits(self) -> dict[str, int]:
        """See `ITaskService`."""
        return dict(self.queue.limits)

    def find_task(self, name: str) -> Any:
        """Return the task with a name, which is called as `ITask` says, or None."""
        return look_up(self.taskInterface, name)


def with_threads(factory: Any, arguments: dict[str, Any], many: Any) -> tuple[Any, dict[str, Any]]:
    """Return a factory that is a setting, and its arguments, as this process is told to run.

    :param many: the factory that runs several jobs at a time; one that is a subclass of it stays.
    """
    if registry.threads is None:
        return factory, arguments
    if not (isinstance(factory, type) and issubclass(factory, many)):
        # Those of another factory may say nothing to this one.
        arguments = {name: arguments[name] for name in _FOR_ANY if name in arguments}
        factory = many
    return factory, {**arguments, "maxThreads": registry.threads}


def set_limits(service: Any, limits: dict[str, int]) -> None:
    """Limit tasks, some jobs of which may run; see `ITaskService.limits`."""
    queue = service.queue
    check_parts(service)
    changed = [task for task, count in limits.items() if queue.limits.get(task) != count]
    ends = queue.limits.keys() - limits.keys()
    if not changed and not ends:
        return
    running: dict[str, list[int]] = {}
    for worker in service.workers.values() if changed else ():
        for job in load_many(service.jobs, worker.held):
            if job is not None and job.status == PROCESSING:
                running.setdefault(job.task, []).append(job.id)
    queue.limits = limits
    gates = queue.need_gates(service.jobs)
    for task in changed:
        gates.count_limit(queue, task, running.get(task, ()))
    wrote(queue, queue)
    registry.wake_after_commit(service)


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
    if name == "limits":
        for task in value:
            check_name(task)
    if name == "retention":
        return {status: Retention(*bounds) for status, bounds in value.items()}
    if name == "processorArguments" or (is_stored and name in _REFERENCES):
        return check_storable(value, InvalidArgument, name)
    return value
