# SPDX-License-Identifier: ZPL-2.1
"""The program that is killed: a process that adds jobs, works on them, or both.

It is run as a script, with ``tests`` in its path, and it does what an application does: it
opens a database, starts the service that it finds there, and adds jobs.  Its last line on the
standard output is a JSON object with what it has found; see `findings`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transaction
import ZODB
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from transaction.interfaces import TransientError
from ZODB.POSException import ConflictError, POSError

from doors import CRASHED, DOORS, append, key_of
from lovely.remotetask.engine import wakeup
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.execution import Execution
from lovely.remotetask.engine.finishing import Finishing
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.upkeep import Upkeep
from lovely.remotetask.store.count import count_jobs
from storages import open_url

POOL = 20  # connections: a processor of several threads uses one for each, and some more


# -- crashes to order --------------------------------------------------------------------


def crash_at(step: str, when: str, countdown: int) -> None:
    """Let the process end at a commit: the n-th of a step, ``before`` or ``after`` it.

    :param step: claim, run, pipe, record, beat, rescue or give_back.
    """
    place = threading.local()
    left = itertools.count(countdown, -1)

    def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **keywords: Any) -> Any:
            before = getattr(place, "step", None)
            place.step = name
            try:
                return function(*args, **keywords)
            finally:
                place.step = before

        return wrapper

    for owner, attribute, name in (
        (Claims, "claim", "claim"),
        (Claims, "claim_reserved", "claim"),
        (Execution, "run", "run"),
        (Execution, "run_together", "run"),
        (Finishing, "write_all", "pipe"),
        (Execution, "record", "record"),
        (Claims, "beat", "beat"),
        (Claims, "give_back", "give_back"),
        (Upkeep, "free", "rescue"),
    ):
        setattr(owner, attribute, named(name, getattr(owner, attribute)))
    commit = Session.commit

    def commit_or_crash(session: Session) -> None:
        is_it = getattr(place, "step", None) == step and bool(session.manager.get()._resources)
        is_time = is_it and next(left) <= 1
        if is_time and when == "before":
            os._exit(CRASHED)
        commit(session)
        if is_time:
            os._exit(CRASHED)

    Session.commit = commit_or_crash  # type: ignore[method-assign]


def run_clock(origin: float, factor: float) -> None:
    """Let the clock of the workers run faster than the wall's."""
    init = Claims.__init__

    def with_clock(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        self.clock = lambda: origin + (time.time() - origin) * factor

    Claims.__init__ = with_clock  # type: ignore[method-assign]


def fill_disk(path: Path, after_seconds: float, for_seconds: float) -> None:
    """Let the file of the database grow no further for some time."""

    def fill() -> None:
        time.sleep(after_seconds)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
        print("full", flush=True)
        time.sleep(for_seconds)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print("free", flush=True)

    threading.Thread(target=fill, daemon=True).start()


# -- the database ------------------------------------------------------------------------


def set_up(db: ZODB.DB, door: Any, lease_seconds: float, factory: str) -> None:
    """Make the service and the places for the traces, if they are not there."""
    with db.transaction() as connection:
        root = connection.root()
        if "tasks" not in root:
            root["effects"] = IOBTree()
            root["ticks"] = OOBTree()
            root["bags"] = IOBTree()
            service = root["tasks"] = door.make(factory)
            service.lease_seconds = lease_seconds


def produce(
    db: ZODB.DB, door: Any, acknowledged: Path, task_name: str, start: int, count: int
) -> None:
    """Add jobs; note each one after its commit has returned."""
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    names = task_name.split(",")
    number, end = start, start + count
    while number < end:
        try:
            manager.begin()
            name = names[number % len(names)]
            is_new = door.add(connection.root()["tasks"], name, number)
            manager.commit()
        except ConflictError:
            manager.abort()  # it is certain that nothing was stored
        except (POSError, OSError, TransientError, ValueError):
            manager.abort()
            number += 1  # nobody knows: it may be stored, and must not be added again
            time.sleep(0.05)
        else:
            if is_new:
                append(acknowledged, str(number))
            number += 1
    manager.abort()
    connection.close()


def wait_until_done(db: ZODB.DB, deadline: float) -> None:
    """Wait until no job waits or runs."""
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    while time.monotonic() < deadline:
        try:
            manager.begin()
            counts = count_jobs(connection.root()["tasks"])
        except (POSError, OSError, TransientError):
            manager.abort()
        else:
            if not sum(counts[name] for name in ("queued", "processing", "delayed")):
                break
        time.sleep(0.05)
    manager.abort()
    connection.close()


def findings(db: ZODB.DB, door: Any) -> dict[str, Any]:
    """Return what there is in the database."""
    with db.transaction() as connection:
        root = connection.root()
        jobs = list(root["tasks"].jobs.values())
        numbers = {job.id: door.number_of(job) for job in jobs}
        effects = root["effects"]
        problems = []
        counted = {name: n for name, n in count_jobs(root["tasks"]).items() if n}
        in_records = dict(Counter(job.status for job in jobs))
        if "processing" not in in_records and counted != in_records:
            problems.append(f"counted {counted}, but there are {in_records}")
        return {
            "statuses": [(numbers[job.id], job.status) for job in jobs if job.task != "tick"],
            "effects": [(number, effects.get(key_of(number), 0)) for number in numbers.values()],
            "ticks": sorted(root["ticks"].items()),
            "missed": sum(getattr(job, "missed", 0) for job in jobs),
            "attempts": max((job.attempt for job in jobs), default=0),
            "problems": problems,
            "errors": sorted({job.error for job in jobs if job.status == "error"}),
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--process", action="store_true")
    parser.add_argument("--door", choices=DOORS, default="tasks")
    parser.add_argument("--scheduler", action="store_true")
    parser.add_argument("--factory", choices=("simple", "multi"), default="simple")
    parser.add_argument("--lease", type=float, default=1.5)
    parser.add_argument("--task", default="effect")
    parser.add_argument("--produce", nargs=2, type=int)
    parser.add_argument("--schedule")
    parser.add_argument("--crash")
    parser.add_argument("--clock", nargs=2, type=float)
    parser.add_argument("--disk-full", nargs=2, type=float)
    parser.add_argument("--keep-ids", action="store_true")
    parser.add_argument("--until-done", type=float)
    parser.add_argument("--exit-after", type=float)
    options = parser.parse_args()
    door = DOORS[options.door]
    door.open_log(options.directory / "executions.log")
    if options.crash:
        step, when, countdown = options.crash.split(":")
        crash_at(step, when, int(countdown))
    if options.keep_ids:
        wakeup._ids_in_advance = lambda storage: iter(())  # type: ignore[assignment]
    if options.clock:
        run_clock(*options.clock)
    db = open_url(options.url, pool_size=POOL)
    while True:
        try:
            set_up(db, door, options.lease, options.factory)
            break
        except ConflictError:
            time.sleep(random.random() / 10)
    connection = db.open()
    service = connection.root()["tasks"]
    if options.schedule:
        door.schedule(service, options.schedule)
        transaction.commit()
    if options.process:
        door.start(service)
    if options.scheduler:
        service.startScheduler()
    transaction.abort()
    print("ready", flush=True)
    if options.disk_full:
        fill_disk(Path(options.url.partition(":")[2]), *options.disk_full)
    if options.produce:
        log = options.directory / "acknowledged.log"
        produce(db, door, log, options.task, *options.produce)
    if options.exit_after is not None:
        time.sleep(options.exit_after)
        return
    if options.until_done is not None:
        wait_until_done(db, time.monotonic() + options.until_done)
        found = findings(db, door)
        if options.process:
            door.stop(service)
        print(json.dumps(found), flush=True)
    elif options.process or options.scheduler:
        sys.stdin.read()  # until the parent closes the pipe
        door.stop(service)
    transaction.abort()
    connection.close()
    db.close()


if __name__ == "__main__":
    main()
