# SPDX-License-Identifier: ZPL-2.1
"""What is killed, by each of the doors: a service whose jobs leave traces.

A *door* makes a service, adds jobs to it, starts and stops its threads; all else of it the
program reads off the records of the engine, which the doors share.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import transaction
from persistent.mapping import PersistentMapping

from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.remote import job as remote
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Delay
from lovely.remotetask.remote.worker import MultiJobWorker, SimpleJobWorker
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import task

CRASHED = 137
WAIT_SECONDS = 0.5

#: Where the jobs of this process note that they run; see `open_log`.
LOG: list[Path] = []


def append(path: Path, text: str) -> None:
    """Append a line to a log that several processes share; it outlives the process."""
    with path.open("ab", buffering=0) as log:
        log.write(f"{text}\n".encode())


def key_of(number: int) -> int:
    """Spread the keys of the effects: rivals then seldom write the same bucket."""
    return number * 2654435761 % 2**31


# -- what the jobs do ----------------------------------------------------------------------


class Call(NamedTuple):
    """A job that runs.

    :ivar root: of the database.
    :ivar attempt: the number of its run, from 1.
    """

    root: Any
    jobid: int
    attempt: int


def note(number: int, attempt: int = 0) -> None:
    append(LOG[0], f"{number} {os.getpid()} {attempt}")


def leave_effect(call: Call, number: int) -> None:
    effects = call.root["effects"]
    key = key_of(number)
    effects[key] = effects.get(key, 0) + 1


def effect(call: Call, number: int) -> int:
    note(number)
    leave_effect(call, number)
    return number


def quiet(call: Call, number: int) -> int:
    """Leaves nothing in the database."""
    note(number)
    return number


def slow(call: Call, number: int) -> int:
    effect(call, number)
    time.sleep(0.03)  # long enough to be killed in
    return number


def long(call: Call, number: int) -> int:
    effect(call, number)
    time.sleep(1.0)
    return number


def stuck(call: Call, number: int) -> int:
    """Does not end in its first run, in which its process is to be killed."""
    runs = LOG[0].read_text().splitlines()
    effect(call, number)
    if not any(run.startswith(f"{number} ") for run in runs):
        time.sleep(60)
    return number


def twice(call: Call, number: int) -> int:
    """Fails at its first attempt."""
    note(number, call.attempt)
    leave_effect(call, number)
    if call.attempt == 1:
        raise ValueError("the first attempt fails")
    return number


def alone(kind: str, call: Call, number: int) -> int:
    """Notes when it begins and ends, among those of which only so many may run at once."""
    with _interval(kind, number):
        effect(call, number)
        time.sleep(0.01)
    return number


def alone_and_quiet(kind: str, call: Call, number: int) -> int:
    """Does as `alone`, is quick, and leaves nothing in the database."""
    with _interval(kind, number):
        return quiet(call, number)


@contextmanager
def _interval(kind: str, number: int) -> Iterator[None]:
    group = GROUPS[kind](number)
    where = LOG[0].with_name("intervals.log")
    append(where, f"begin {os.getpid()} {time.monotonic()} {number} {group}")
    yield
    append(where, f"end {os.getpid()} {time.monotonic()} {number} {group}")


def most_at_once(log: Path, ends: dict[int, float]) -> dict[str, int]:
    """Return how many jobs of each group ran at the same time.

    :param ends: when processes were killed, by their ids: what they ran ended then.
    """
    running: dict[tuple[int, int], tuple[float, str]] = {}
    events: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        what, pid, when, number, group = line.split(maxsplit=4)
        run = int(pid), int(number)
        if what == "begin":
            running[run] = float(when), group
        else:
            begun, _ = running.pop(run)
            events[group] += [(begun, 1), (float(when), -1)]
    for (pid_, _), (begun, group) in running.items():
        events[group] += [(begun, 1), (ends[pid_], -1)]
    most = {}
    for group, changes in events.items():
        now = most[group] = 0
        for _, change in sorted(changes):
            now += change
            most[group] = max(most[group], now)
    return most


def many(call: Call, number: int) -> int:
    """Makes many new objects."""
    leave_effect(call, number)
    bag = PersistentMapping(jobid=call.jobid)
    call.root["bags"][key_of(number)] = bag
    for part in range(20):
        bag[part] = PersistentMapping()
    if number % 3 == 0:
        savepoint = transaction.savepoint()
        bag["more"] = [PersistentMapping() for _ in range(10)]
        transaction.savepoint()
        savepoint.rollback()
    return number


def poison(call: Call, number: int) -> None:
    note(number)
    os._exit(CRASHED)


#: Name -> what jobs do; those that end with _shared may share a commit, if the door can do that.
ACTS: dict[str, Callable[[Call, int], Any]] = {
    "effect": effect,
    "shared": effect,
    "quiet": quiet,
    "slow": slow,
    "long": long,
    "stuck": stuck,
    "twice": twice,
    "many": many,
    "many_shared": many,
    "poison": poison,
    **{kind: partial(alone, kind) for kind in ("locked", "limited", "unique")},
    "quiet_locked": partial(alone_and_quiet, "quiet_locked"),
}

#: Name -> those among which only so many jobs may run at once, by a job's number.
GROUPS: dict[str, Callable[[int], str]] = {
    "locked": lambda number: f"lock {number // 3 % 4}",
    "quiet_locked": lambda number: f"quiet lock {number // 3 % 4}",
    "limited": lambda number: "limit",
    "unique": lambda number: f"key {number // 3 % 5}",
}

#: What such jobs are added with.
OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "locked": lambda number: {"lock": GROUPS["locked"](number), "priority": number % 2},
    "quiet_locked": lambda number: {"lock": GROUPS["quiet_locked"](number)},
    "limited": lambda number: {"priority": number % 2},
    "unique": lambda number: {"unique_key": GROUPS["unique"](number)},
}

#: How many of those that are limited run at once.
LIMIT = 2


def sleep_a_minute() -> None:
    """Sleep in steps: a signal that comes just before a sleep is heeded only after it."""
    for _ in range(600):
        time.sleep(0.1)


class HangJob(remote.Job):
    """Notes that it has started, and does not end."""

    maxRetries = 1

    def __call__(self, processor: Any) -> None:
        append(Path("started"), "")
        sleep_a_minute()


# -- the doors -----------------------------------------------------------------------------


class Tasks:
    """Jobs that are names of tasks."""

    factories = {"simple": SimpleProcessor, "multi": MultiProcessor}  # noqa: RUF012

    def open_log(self, executions: Path) -> None:
        """Let the jobs of this process note that they run."""
        LOG[:] = [executions]
        for name, act in ACTS.items():
            act = partial(self._act, act)
            task(name, context=True, shared_commit=name.endswith("shared"))(act)

        @task("tick", context=True)
        def tick(context: Any, number: int) -> None:
            ticks = context.service._p_jar.root()["ticks"]
            slot = context.service.jobs[context.jobid].slot
            ticks[slot] = ticks.get(slot, 0) + 1
            note(number)

    @staticmethod
    def _act(act: Callable[[Call, int], Any], context: Any, number: int) -> Any:
        return act(Call(context.service._p_jar.root(), context.jobid, context.attempt), number)

    def make(self, factory: str) -> Any:
        """Return a new service."""
        service = TaskService()
        service.processorFactory = self.factories[factory]
        service.processorArguments = {"waitTime": WAIT_SECONDS}
        service.limits = {"limited": LIMIT}
        return service

    def add(self, service: Any, name: str, number: int) -> bool:
        """Add a job; say whether it is a new one."""
        options = OPTIONS[name](number) if name in OPTIONS else {}
        return service.jobs[service.add(name, number, **options)].input == number

    def start(self, service: Any) -> None:
        """Start its thread."""
        service.startProcessing()

    def stop(self, service: Any) -> None:
        """Stop its threads, and wait for them."""
        service.stopProcessing(5)

    def schedule(self, service: Any, cron: str) -> None:
        """Add a cron job."""
        service.addCronJob("tick", -1, cron=cron)

    def number_of(self, record: Any) -> int:
        """Return the input of a job."""
        number: int = record.input
        return number


class ActJob(remote.Job):
    """A job that does one of `ACTS`, by its name."""

    retryDelay = 0.1

    def __call__(self, processor: Any) -> Any:
        record = remote.record_of(self)
        assert record is not None
        call = Call(processor._p_jar.root(), record.id, self.retryCounter)
        return ACTS[self.jobName or ""](call, self.input)


class TickJob(remote.Job):
    """A job that a scheduler has added."""

    def __call__(self, processor: Any) -> None:
        record = remote.record_of(self)
        assert record is not None
        ticks = processor._p_jar.root()["ticks"]
        key = key_of(record.id)
        ticks[key] = ticks.get(key, 0) + 1
        note(-1)


class Remote:
    """Jobs that are objects."""

    factories = {"simple": SimpleJobWorker, "multi": MultiJobWorker}  # noqa: RUF012

    def open_log(self, executions: Path) -> None:
        """See `Tasks`."""
        LOG[:] = [executions]

    def make(self, factory: str) -> Any:
        """See `Tasks`."""
        processor = RemoteProcessor()
        processor.jobWorkerFactory = self.factories[factory]
        processor.jobWorkerArguments = {"waitTime": WAIT_SECONDS, "maxThreads": 5}
        processor.schedulerWorkerArguments = {"waitTime": WAIT_SECONDS}
        for name in ACTS:
            processor.addJobFactory(name, ActJob())
        processor.addJobFactory("tick", TickJob())
        return processor

    def add(self, processor: Any, name: str, number: int) -> bool:
        """See `Tasks`."""
        processor.addJob(name, number)
        return True

    def start(self, processor: Any) -> None:
        """See `Tasks`."""
        processor.startProcessor()

    def stop(self, processor: Any) -> None:
        """See `Tasks`."""
        processor.stopProcessor()
        processor.stopScheduler()

    def number_of(self, record: Any) -> int:
        """See `Tasks`."""
        number: int = record.input.input
        return number

    def schedule(self, processor: Any, delays: str) -> None:
        """Add an item for each of some delays, in seconds between commas."""
        for number, delay in enumerate(delays.split(",")):
            data = {"jobName": "tick", "input": -1 - number, "active": True}
            processor.addScheduler(Delay({**data, "delay": float(delay)}))


class TasksByRemote(RemoteProcessor):
    """A remote processor by the names of the other door."""

    def add(self, name: str, input: Any = None) -> None:
        """Add a job."""
        self.addJob(name, input)

    def add_many(self, name: str, inputs: list[Any]) -> None:
        """Add jobs."""
        for input in inputs:
            self.addJob(name, input)

    def startProcessing(self) -> None:
        """Start its thread."""
        self.startProcessor()

    def stopProcessing(self, seconds: float) -> None:
        """Stop its thread."""
        self.stopProcessor()


DOORS: dict[str, Any] = {"tasks": Tasks(), "remote": Remote()}
