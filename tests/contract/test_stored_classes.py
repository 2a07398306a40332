# SPDX-License-Identifier: ZPL-2.1
"""Class paths that stand in databases: they can never change again."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transaction
import ZODB
from persistent.interfaces import IPersistent
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from zodbpickle import pickle
from zope.component import getGlobalSiteManager, provideAdapter

from lovely.remotetask.command.demo import Catalog
from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import DELAYED, STATUSES, IReference, ITask
from lovely.remotetask.job import CronJob, Job, Progress
from lovely.remotetask.processor import MultiProcessor
from lovely.remotetask.remote.job import Job as RemoteJob
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Cron, Delay
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from recording import record

ALLOWED = {
    "lovely.remotetask.store.ended.EndedIndex",
    "lovely.remotetask.store.group.Group",
    "lovely.remotetask.store.group.Tally",
    "lovely.remotetask.store.index.EntryPage",
    "lovely.remotetask.store.links.LinkLane",
    "lovely.remotetask.store.links.Links",
    "lovely.remotetask.job.CronJob",
    "lovely.remotetask.job.Edit",
    "lovely.remotetask.job.Failure",
    "lovely.remotetask.job.Job",
    "lovely.remotetask.store.joblog.JobLog",
    "lovely.remotetask.store.tree.JobTree",
    "lovely.remotetask.job.Progress",
    "lovely.remotetask.store.ready.Lane",
    "lovely.remotetask.store.ready.ReadyQueue",
    "lovely.remotetask.store.queue.JobQueue",
    "lovely.remotetask.store.gates.Gates",
    "lovely.remotetask.store.level.Level",
    "lovely.remotetask.store.names.NamePage",
    "lovely.remotetask.store.names.NameTable",
    "lovely.remotetask.store.timeindex.TimeIndex",
    "lovely.remotetask.retry.RetryPolicy",
    "lovely.remotetask.service.TaskService",
    "lovely.remotetask.base.shelf.Shelf",
    "lovely.remotetask.store.worker.Worker",
    # Of the second door.
    "lovely.remotetask.remote.items.JobFactories",
    "lovely.remotetask.remote.items.Scheduler",
    "lovely.remotetask.remote.job.Job",
    "lovely.remotetask.remote.processor.RemoteProcessor",
    "lovely.remotetask.remote.record.JobRecord",
    "lovely.remotetask.remote.scheduler.Cron",
    "lovely.remotetask.remote.scheduler.Delay",
    # Of other packages.
    "BTrees.IIBTree.IITreeSet",
    "BTrees.IOBTree.IOBTree",
    "BTrees.Length.Length",
    "BTrees.OOBTree.OOBTree",
    "BTrees.OOBTree.OOSet",
    "BTrees.OOBTree.OOTreeSet",
    "builtins.Exception",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "persistent.mapping.PersistentMapping",
    "zc.queue._queue.BucketQueue",
}

# Where an application sets them.
ALLOWED_IF_SET = {
    "lovely.remotetask.base.reference.Reference",
    "lovely.remotetask.processor.MultiProcessor",
    "lovely.remotetask.processor.SimpleProcessor",
    "lovely.remotetask.engine.retention.Retention",
    "lovely.remotetask.remote.testing.EchoJob",
    "lovely.remotetask.remote.testing.ErrorJob",
    "lovely.remotetask.remote.testing.FatalErrorJob",
    "lovely.remotetask.remote.worker.MultiJobWorker",
    "lovely.remotetask.remote.worker.SchedulerWorker",
    "lovely.remotetask.remote.worker.SimpleJobWorker",
}

# In the database of ``remotetask demo``, beside those of its service.
ALLOWED_IN_DEMO = {
    "lovely.remotetask.command.demo.catalog.Catalog",
    "lovely.remotetask.command.demo.catalog.Document",
    "lovely.remotetask.command.demo.catalog.Segment",
}


def global_names(data: bytes) -> set[str]:
    """Return the names of all globals in a record: that of the class, and of the state."""
    found = set()

    class Finder(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # Protocol 3 of zodbpickle writes the names that Python 2 had.
            module = {"__builtin__": "builtins", "exceptions": "builtins"}.get(module, module)
            found.add(f"{module}.{name}")
            return super().find_class(module, name)

    unpickler = Finder(io.BytesIO(data))
    unpickler.persistent_load = lambda reference: None
    unpickler.load()
    unpickler.load()
    return found


def stored_globals(db: ZODB.DB) -> set[str]:
    with closing(db.storage.iterator()) as transactions:
        return {
            name
            for txn in transactions
            for record in txn
            if record.data is not None
            for name in global_names(record.data)
        }


@pytest.fixture
def populated_db(file_db: ZODB.DB, register: Any) -> ZODB.DB:
    """A database with a service where everything has happened."""

    def fail(input: Any) -> None:
        logging.getLogger("shop").warning("about to fail")
        raise TaskError("no")

    register("echo", lambda input: input)
    register("fail", fail)
    register("stumble", lambda input: 1 / 0)
    register("late", lambda input: input)
    connection = file_db.open()
    root = connection.root()
    service = root["tasks"] = TaskService()
    transaction.commit()
    service.add("echo", retry=RetryPolicy(retry_on=(Exception,)))
    service.add("fail")
    service.add("stumble", retry=RetryPolicy(first_wait_seconds=10_000))
    service.add("late")
    service.add_many("echo", range(200))
    service.cancel(service.add("echo"))
    service.addCronJob("echo", minute=(1,))
    service.addCronJob("echo", delay=1000)
    service.add("echo", startLater=True)
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    transaction.commit()
    for _ in range(150):
        service.processNext()
        transaction.commit()
    service.add_many("echo", range(200))
    service.process()
    transaction.commit()
    service.add("echo", after=service.add("echo", delay=1000), on_error=("echo", "no"))
    service.add_group("echo", range(3), "echo")
    transaction.commit()
    service.add("echo", after=next(iter(service.jobs)))
    for job in service.list("delayed").jobs:
        service.add("echo", after=job.id)
    service.add("echo")
    running = service.claimNextJob()
    service.cancel(running)
    service.progress[running] = Progress(1, 2, "half way")
    cron = service.addCronJob("echo", delay=0)
    while service.getStatus(cron) == DELAYED:
        service.claimNextJob()
    service.jobs[cron].update(minute=(5,))
    service.add("echo")
    service.limits = {"fail": 1}
    for _ in range(2):
        service.add("echo", unique_key="key", lock="desk", priority=9, expires=1000)
        service.add("fail", lock="desk", priority=9)
        service.claimNextJob()
    remote = root["remote"] = RemoteProcessor()
    remote.addJobFactory("job", RemoteJob())
    remote.addScheduler(Delay({"jobName": "job", "delay": 5, "active": True}))
    remote.addScheduler(Cron({"jobName": "job", "minute": [5], "active": True}))
    transaction.commit()
    remote.addJob("job")
    assert remote.processNextJob()
    later = remote._jobs[remote.addJob("job")]
    later.retryTime = datetime(2080, 1, 1, tzinfo=timezone.utc)
    transaction.commit()
    counts = service.countJobs()
    assert all(counts[status] for status in STATUSES), counts
    transaction.abort()
    connection.close()
    return file_db


def test_the_class_paths_in_a_database_are_these_and_no_others(populated_db: ZODB.DB) -> None:
    found = stored_globals(populated_db)
    assert found - ALLOWED == set()
    ours = {name for name in ALLOWED if name.startswith("lovely.")}
    assert ours - found == set()


def test_the_class_paths_in_the_recording_are_among_them(recorded: ZODB.DB) -> None:
    assert stored_globals(recorded) - ALLOWED - ALLOWED_IF_SET == {"builtins.KeyError"}


class Stand:
    """Stands for an object in an input."""

    def resolve(self) -> Any:
        """See `IReference`."""


def test_what_an_application_sets_has_class_paths_too(file_db: ZODB.DB, register: Any) -> None:
    register("echo", lambda input: input)
    connection = file_db.open()
    service = connection.root()["tasks"] = TaskService()
    service.processorFactory = MultiProcessor
    service.retention = {"completed": Retention(10.0, 10)}
    provideAdapter(lambda mapping: Stand(), (IPersistent,), IReference)
    service.addNamed("echo", PersistentMapping())
    transaction.commit()
    connection.close()
    found = stored_globals(file_db)
    assert found - ALLOWED - ALLOWED_IF_SET == {f"{Stand.__module__}.Stand"}
    assert "lovely.remotetask.base.reference.Reference" in found


def test_the_catalog_of_the_demo_has_class_paths_too(file_db: ZODB.DB) -> None:
    connection = file_db.open()
    catalog = connection.root()["catalog"] = Catalog()
    catalog.index(1, "/one", "v1", {"red": 2})
    transaction.commit()
    connection.close()
    found = stored_globals(file_db)
    assert {name for name in found if name.startswith("lovely.")} == ALLOWED_IN_DEMO


def test_every_class_path_can_be_found() -> None:
    for path in sorted(ALLOWED | ALLOWED_IF_SET | ALLOWED_IN_DEMO):
        module, _, name = path.rpartition(".")
        assert pickle.Unpickler(io.BytesIO(b"")).find_class(module, name)


def test_no_attribute_of_a_service_is_stored_but_its_parts(file_db: ZODB.DB) -> None:
    parts = {"jobs", "queue", "workers", "requests", "progress", "edits", "lines"}
    assert set(TaskService().__dict__) == parts
    assert set(RemoteProcessor().__dict__) == {*parts, "factories", "scheduler"}


# -- the shapes of states --------------------------------------------------------------------

#: What stands at which place in the record of a job; a dict of all else may follow.
POSITIONS = (
    "id",
    "task",
    "input",
    "created_at",
    "status",
    "attempt",
    "started_at",
    "completed_at",
    "output",
    "place",
    "owner",
    "due",
)

#: What applications decide.
THEIRS = {"input", "output", "color"}

SHAPES: dict[str, Any] = {
    "lovely.remotetask.base.shelf.Shelf": (
        "int: BucketQueue | int: CronJob | int: EntryPage | int: Job | int: JobRecord | "
        "int: NamePage | int: Shelf"
    ),
    "lovely.remotetask.engine.retention.Retention": {
        "max_age_seconds": "None | float",
        "max_count": "None | int",
    },
    "lovely.remotetask.job.CronJob": {
        "attempt": "int",
        "collisions": "int",
        "conflicts": "int",
        "created_at": "float",
        "cron": "None | str",
        "dayOfMonth": "tuple | tuple of int",
        "dayOfWeek": "tuple | tuple of int",
        "deaths": "int",
        "delay": "None | float",
        "due": "float",
        "edits": "IOBTree",
        "errors": "int",
        "failures": "tuple of Failure",
        "hour": "tuple | tuple of int",
        "id": "int",
        "input": "anything",
        "is_declared": "bool",
        "key": "str",
        "minute": "tuple | tuple of int",
        "missed": "int",
        "month": "tuple | tuple of int",
        "output": "anything",
        "owner": "str",
        "place": "float | str",
        "retry": "RetryPolicy",
        "slot": "float",
        "started_at": "float",
        "status": "int",
        "task": "str",
        "timezone": "None | str",
    },
    "lovely.remotetask.job.Edit": {
        "cron": "str",
        "dayOfMonth": "tuple",
        "dayOfWeek": "tuple",
        "delay": "None",
        "hour": "tuple",
        "minute": "tuple",
        "month": "tuple",
        "timezone": "str",
    },
    "lovely.remotetask.job.Failure": {
        "attempt": "int",
        "message": "str",
        "time": "float",
        "traceback": "str",
        "type": "str",
    },
    "lovely.remotetask.job.Job": {
        "after": "tuple of int",
        "attempt": "int",
        "carried": "dict of str: str",
        "awaits": "tuple of int",
        "color": "anything",
        "completed_at": "float",
        "created_at": "float",
        "due": "float",
        "errors": "int",
        "expires_at": "float",
        "failures": "tuple of Failure",
        "followers": "tuple of int",
        "id": "int",
        "input": "anything",
        "is_unwanted": "bool",
        "log": "JobLog",
        "members": "Group",
        "membership": "tuple of int",
        "on_error": "tuple of None | str",
        "on_success": "tuple of str",
        "lock": "str",
        "output": "anything",
        "owner": "str",
        "place": "float | int | str",
        "priority": "int",
        "retry": "RetryPolicy",
        "started_at": "float",
        "status": "int",
        "task": "str",
        "unique_key": "str",
    },
    "lovely.remotetask.job.Progress": {
        "done": "int",
        "message": "str",
        "total": "int",
    },
    "lovely.remotetask.remote.items.JobFactories": {
        "__parent__": "RemoteProcessor",
        "factories": "OOBTree",
    },
    "lovely.remotetask.remote.items.Scheduler": {
        "__parent__": "RemoteProcessor",
        "due": "OOTreeSet",
        "items_by_id": "OOBTree",
    },
    "lovely.remotetask.remote.job.Job": {
        "__name__": "str",
        "__parent__": "JobFactories",
        "_record": "JobRecord",
        "color": "anything",
        "jobName": "str",
    },
    "lovely.remotetask.remote.processor.RemoteProcessor": {
        "edits": "IOBTree",
        "jobWorkerArguments": "dict of str: dict of str: int | float | int",
        "jobWorkerFactory": "class",
        "factories": "JobFactories",
        "scheduler": "Scheduler",
        "jobs": "JobTree",
        "lines": "IOBTree",
        "progress": "IOBTree",
        "queue": "JobQueue",
        "requests": "IITreeSet",
        "schedulerWorkerArguments": "dict of str: float",
        "schedulerWorkerFactory": "class",
        "workers": "OOBTree",
    },
    "lovely.remotetask.remote.record.JobRecord": {
        "attempt": "int",
        "begun_at": "float",
        "completed_at": "float",
        "created_at": "float",
        "due": "float",
        "errors": "int",
        "failures": "tuple of Failure",
        "id": "int",
        "input": "anything",
        "output": "anything",
        "owner": "str",
        "place": "float | int",
        "started_at": "float",
        "status": "int",
        "task": "str",
    },
    "lovely.remotetask.remote.scheduler.Cron": {
        "__name__": "str",
        "__parent__": "Scheduler",
        "_place": "None | float",
        "active": "bool",
        "dayOfMonth": "list | list of int",
        "dayOfWeek": "list | list of int",
        "description": "str",
        "hour": "list | list of int",
        "input": "anything",
        "jobName": "str",
        "minute": "list | list of int",
        "month": "list | list of int",
        "nextCallTime": "datetime",
        "retryDelay": "int",
        "retryTime": "datetime",
        "title": "str",
    },
    "lovely.remotetask.remote.scheduler.Delay": {
        "__name__": "str",
        "__parent__": "Scheduler",
        "_place": "float",
        "active": "bool",
        "delay": "float",
        "description": "str",
        "input": "anything",
        "jobName": "str",
        "nextCallTime": "datetime",
        "retryDelay": "int",
        "retryTime": "datetime",
        "title": "str",
    },
    "lovely.remotetask.remote.testing.EchoJob": {
        "__name__": "str",
        "__parent__": "JobFactories",
        "_record": "JobRecord",
        "active": "bool",
        "input": "anything",
        "jobName": "str",
    },
    "lovely.remotetask.remote.testing.ErrorJob": {
        "__name__": "str",
        "__parent__": "JobFactories",
        "_record": "JobRecord",
        "input": "anything",
        "jobName": "str",
    },
    "lovely.remotetask.remote.testing.FatalErrorJob": {
        "__name__": "str",
        "__parent__": "JobFactories",
        "_record": "JobRecord",
        "input": "anything",
        "jobName": "str",
        "maxRetries": "int",
        "retryDelay": "int",
    },
    "lovely.remotetask.retry.RetryPolicy": {
        "attempts": "int",
        "cap_seconds": "float",
        "factor": "float",
        "first_wait_seconds": "float",
        "give_up_on": "tuple | tuple of class",
        "jitter": "float",
        "retry_on": "tuple of class",
    },
    "lovely.remotetask.service.TaskService": {
        "around": "tuple",
        "edits": "IOBTree",
        "jobs": "JobTree",
        "lease_seconds": "float",
        "lines": "IOBTree",
        "log_level": "int",
        "max_deaths": "int",
        "max_input_bytes": "int",
        "max_input_depth": "int",
        "processorArguments": "dict of str: float | int",
        "processorFactory": "class",
        "progress": "IOBTree",
        "queue": "JobQueue",
        "requests": "IITreeSet",
        "retention": "dict of str: Retention",
        "workers": "OOBTree",
    },
    "lovely.remotetask.store.ended.EndedIndex": {
        "lanes": "tuple of OOBTree",
        "size": "Length",
    },
    "lovely.remotetask.store.group.Group": {
        "ended": "Tally",
        "pages": "tuple of Tally",
        "runs": "tuple of tuple of int",
    },
    "lovely.remotetask.store.group.Tally": "tuple of int",
    "lovely.remotetask.store.index.EntryPage": "tuple of int",
    "lovely.remotetask.store.joblog.JobLog": {
        "left_out": "int",
        "lines": "tuple of tuple of float | int | str",
    },
    "lovely.remotetask.store.links.LinkLane": {"entries": "dict | dict of int: tuple of int"},
    "lovely.remotetask.store.links.Links": {"lanes": "tuple of LinkLane"},
    "lovely.remotetask.store.gates.Gates": {
        "aside": "dict of str: TimeIndex",
        "idle": "tuple of str",
        "jobs": "JobTree",
        "lots": "OOBTree",
        "slots": "NameTable",
    },
    "lovely.remotetask.store.level.Level": {
        "in_order": "ReadyQueue",
        "indexes": "dict of str: TimeIndex",
        "parked": "OOBTree",
        "ready": "ReadyQueue",
    },
    "lovely.remotetask.store.names.NamePage": "tuple of dict of str: tuple of int | int",
    "lovely.remotetask.store.names.NameTable": {
        "pages": "Shelf",
        "shifts": "tuple of int",
    },
    "lovely.remotetask.store.queue.JobQueue": {
        "expiring": "TimeIndex",
        "gates": "Gates",
        "in_order": "ReadyQueue",
        "indexes": "dict of str: EndedIndex | TimeIndex",
        "links": "Links",
        "keys": "NameTable",
        "levels": "dict of int: Level",
        "limits": "dict of str: int",
        "parked": "OOBTree",
        "paused": "OOSet",
        "ready": "ReadyQueue",
        "schedules": "OOBTree",
        "words": "TimeIndex",
    },
    "lovely.remotetask.store.ready.Lane": {
        "added": "Length",
        "generations": "Shelf",
        "left": "Length",
        "number": "int",
    },
    "lovely.remotetask.store.ready.ReadyQueue": {
        "lanes": "tuple of Lane",
    },
    "lovely.remotetask.store.timeindex.TimeIndex": {
        "pages": "Shelf",
        "size": "Length",
    },
    "lovely.remotetask.store.tree.JobTree": {
        "lanes": "tuple of Shelf",
    },
    "lovely.remotetask.store.worker.Worker": {
        "beats": "int",
        "held": "tuple of int",
        "host": "str",
        "is_inline": "bool",
        "pid": "int",
        "threads": "int",
    },
}


class Reference(NamedTuple):
    """What stands in a record for another object."""

    kind: type


def read_record(data: bytes) -> tuple[type, Any]:
    """Return the class and the state of a record, as they were written."""
    unpickler = pickle.Unpickler(io.BytesIO(data))
    unpickler.persistent_load = lambda reference: Reference(reference[1])
    return unpickler.load(), unpickler.load()


def records_of(db: ZODB.DB) -> Iterator[tuple[type, Any]]:
    """Yield the class and the state of each record."""
    with closing(db.storage.iterator()) as transactions:
        for txn in transactions:
            yield from (read_record(record.data) for record in txn if record.data is not None)


class Shapes:
    """The shapes of all that is stored of our classes: path -> attribute -> what it can be.

    A state without attributes stands under the path alone.
    """

    def __init__(self, db: ZODB.DB) -> None:
        self._found: dict[str, Any] = {}
        for kind, state in records_of(db):
            if kind.__module__.startswith("lovely."):
                self._note(kind, dict(_attributes(kind, state)) or state)
            else:
                self.of(state)  # the notes of a service stand in BTrees

    def table(self) -> dict[str, Any]:
        """Return what was found, in words."""
        return {
            path: (
                {name: _either(shapes) for name, shapes in sorted(found.items())}
                if isinstance(found, dict)
                else _either(found)
            )
            for path, found in sorted(self._found.items())
        }

    def _note(self, kind: type, state: Any) -> None:
        path = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(state, dict) and all(type(name) is str for name in state) and state:
            found = self._found.setdefault(path, {})
            for name, value in state.items():
                shape = "anything" if name in THEIRS else self.of(value)
                found.setdefault(name, set()).add(shape)
        elif isinstance(state, dict):
            pairs = (f"{self.of(key)}: {self.of(value)}" for key, value in state.items())
            self._found.setdefault(path, set()).update(pairs)
        else:
            self._found.setdefault(path, set()).add(self.of(state))

    def of(self, value: Any) -> str:
        """Return what a value is; that of a container names what is in it."""
        kind = type(value)
        if kind is Reference:
            return str(value.kind.__name__)
        if value is None or isinstance(value, type):
            return "None" if value is None else "class"
        if kind.__module__.startswith("lovely."):
            self._note(kind, value._asdict() if isinstance(value, tuple) else vars(value))
        if kind is dict:
            keys, values = _either(map(self.of, value)), _either(map(self.of, value.values()))
            return f"dict of {keys}: {values}" if value else "dict"
        if kind in (tuple, list):
            inside = _either(map(self.of, value))
            return f"{kind.__name__} of {inside}" if value else kind.__name__
        return kind.__name__


def _attributes(kind: type, state: Any) -> Iterable[tuple[str, Any]]:
    if not issubclass(kind, Job):
        return ()
    placed = zip(POSITIONS, state, strict=False)
    others = state[len(POSITIONS)].items() if len(state) > len(POSITIONS) else ()
    return [*((name, value) for name, value in placed if value is not None), *others]


def _either(shapes: Iterable[str]) -> str:
    return " | ".join(sorted(set(shapes)))


def test_the_shapes_of_states_are_these(tmp_path: Path) -> None:
    record(tmp_path / "Data.fs")
    with closing(ZODB.DB(FileStorage(str(tmp_path / "Data.fs"), read_only=True))) as db:
        assert Shapes(db).table() == SHAPES


def test_what_the_recording_has_is_among_these(recorded: ZODB.DB) -> None:
    for path, found in Shapes(recorded).table().items():
        if isinstance(found, dict):
            assert found.keys() <= SHAPES[path].keys()
        else:
            assert found == SHAPES[path]


# -- the records of jobs -----------------------------------------------------------------

#: States as they stand in databases.  What is here must be read for ever.
STATES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((7, "echo", None, 5.0, 0, None, None, None, None, 3), {"status": "queued", "place": 3}),
    (
        (7, "echo", 1, 5.0, 1, 2, 6.0, None, None, None, "worker"),
        {"status": "processing", "attempt": 2, "started_at": 6.0, "owner": "worker"},
    ),
    (
        (7, "echo", 1, 5.0, 2, 1, 6.0, 7.0, "output"),
        {"status": "completed", "completed_at": 7.0, "output": "output"},
    ),
    ((7, "echo", 1, 5.0, 3, 1, 6.0, 7.0), {"status": "error", "output": None}),
    ((7, "echo", 1, 5.0, 4), {"status": "cancelled", "attempt": 0}),
    (
        (7, "echo", 1, 5.0, 5, None, None, None, None, 9.0, None, 9.0, {"delay": 4}),
        {"status": "delayed", "due": 9.0, "place": 9.0, "delay": 4, "minute": ()},
    ),
    (
        (7, "echo", 1, 5.0, 6, None, None, None, None, 9.0, None, 9.0, {"minute": (1,)}),
        {"status": "cronjob", "minute": (1,)},
    ),
    ((7, "echo", 1, 5.0, 7), {"status": "start later"}),
    (
        (
            *(7, "echo", 1, 5.0, 0, None, None, None, None, "\0lock desk\x005", None, None),
            {"priority": 5, "unique_key": "key", "lock": "desk", "expires_at": 9.0},
        ),
        {
            "status": "queued",
            "place": "\0lock desk\x005",
            "priority": 5,
            "unique_key": "key",
            "lock": "desk",
        },
    ),
]


@pytest.mark.parametrize(("state", "attributes"), STATES)
def test_records_of_jobs_are_read_as_they_were_once_written(
    state: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    job = CronJob.__new__(CronJob)
    job.__setstate__(state)
    assert {name: getattr(job, name) for name in attributes} == attributes
    assert (job.id, job.task, job.created_at) == (7, "echo", 5.0)
    assert job.__getstate__() == state


def test_every_status_has_a_state_of_its_own() -> None:
    assert {attributes["status"] for _, attributes in STATES} == set(STATUSES)


def test_what_an_application_adds_to_a_job_is_stored_with_it() -> None:
    job = Job(7, "echo")
    job.color = "red"
    job._v_cache = "of no worth"
    job.status = "of its own"
    copy = Job.__new__(Job)
    copy.note = "forgotten"
    copy.__setstate__(job.__getstate__())
    assert vars(copy) == {
        "id": 7,
        "task": "echo",
        "created_at": job.created_at,
        "status": "of its own",
        "color": "red",
    }
