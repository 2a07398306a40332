# SPDX-License-Identifier: ZPL-2.1
"""The program that is killed in the tests of what follows one job on another.

It adds *bundles* of such jobs, works on them, or says what has become of them.  Each job leaves a
trace in the database, and looks whether it runs before its time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import transaction
from BTrees.IOBTree import IOBTree
from program import POOL, crash_at, wait_until_done
from transaction.interfaces import TransientError
from ZODB.POSException import ConflictError, POSError

from doors import append
from lovely.remotetask.errors import TaskError
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import task
from storages import open_url

#: How many members a group has.
MEMBERS = 12

#: What each bundle leaves: the jobs that run, but for the members of its group.
TRACES = ("first", "second", "late", "success", "failure", "end")

#: What the cause of some of them has come to.
CAUSES = {"success": "completed", "failure": "error"}

#: How often one is to be tried that was added although its transaction met a conflict.
TRIES = 100


def key_of(name: str) -> int:
    return crc32(name.encode()) & 0x7FFFFFFF


def leave_trace(context: Any, name: str) -> None:
    effects = context.root["effects"]
    key = key_of(name)
    effects[key] = effects.get(key, 0) + 1


@task("step", context=True)
def step(context: Any, name: str) -> None:
    for jobid in context.job.after:
        before = context.service.jobs.get(jobid)
        if before is not None and before.status != "completed":
            raise TaskError(f"{name} runs while job {jobid} is {before.status}")
    cause = context.cause
    if cause is not None and cause.status != CAUSES[name.split()[1]]:
        raise TaskError(f"{name} runs while its cause is {cause.status}")
    leave_trace(context, name)


@task("fail", context=True, retry=RetryPolicy(2, 0.01))
def fail(context: Any, name: str) -> None:
    leave_trace(context, name)  # nothing of that is kept
    raise ValueError("it fails each time")


@task("member", context=True)
def member(context: Any, name: str) -> str:
    if name.endswith(" 3"):
        raise TaskError("this member fails")
    leave_trace(context, name)
    return name


@task("shared member", shared_commit=True, context=True)
def shared_member(context: Any, name: str) -> str:
    return member_of(context, name)


def member_of(context: Any, name: str) -> str:
    if name.endswith(" 3"):
        raise TaskError("this member fails")
    leave_trace(context, name)
    return name


@task("end", context=True)
def end(context: Any, name: str) -> int:
    group = context.group
    counts = Counter(status for _, status, _ in group)
    if counts != {"completed": MEMBERS - 1, "error": 1} or not group.is_ended:
        raise TaskError(f"{name} runs while its group is {counts}, {group.is_ended}")
    leave_trace(context, name)
    return group.done


def add_bundle(service: Any, number: int) -> int:
    """Add jobs that follow each other; return the id of the first one."""
    first = service.add("step", f"{number} first", on_success=("step", f"{number} success"))
    service.add("step", f"{number} second", after=first)
    failing = service.add("fail", f"{number} fail", on_error=("step", f"{number} failure"))
    service.add("step", f"{number} never", after=failing)
    name = ("member", "shared member")[number % 2]
    inputs = [f"{number} {place}" for place in range(MEMBERS)]
    service.add_group(name, inputs, then=("end", f"{number} end"))
    return int(first)


def produce(db: Any, acknowledged: Path, start: int, count: int) -> None:
    """Add bundles, and one job later that waits for the first one of each; note what is certain."""
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    service = connection.root()["tasks"]
    first = 0

    def add() -> None:
        nonlocal first
        first = add_bundle(service, number)

    for number in range(start, start + count):
        late = f"{number} late"
        for change in (add, lambda late=late: service.add("step", late, after=first)):
            if not commit(manager, change):
                time.sleep(0.05)
                break  # nobody knows whether it was stored
        else:
            append(acknowledged, str(number))
    manager.abort()
    connection.close()


def commit(manager: Any, change: Any) -> bool:
    """Change something, again after conflicts; say whether it is certain that it was stored."""
    for _ in range(TRIES):
        try:
            manager.begin()
            change()
            manager.commit()
        except (ConflictError, TransientError):
            manager.abort()
        except (POSError, OSError, ValueError):
            manager.abort()
            return False
        else:
            return True
    return False


def findings(db: Any) -> dict[str, Any]:
    """Return what there is in the database."""
    with db.transaction() as connection:
        root = connection.root()
        service = root["tasks"]
        jobs = list(service.jobs.values())
        effects = root["effects"]
        return {
            "traces": TRACES,
            "members": MEMBERS,
            "jobs": [(job.input, job.status, job.error) for job in jobs],
            "effects": {job.input: effects.get(key_of(job.input), 0) for job in jobs},
            "groups": [
                (group.completed, group.errors, group.cancelled, group.is_ended)
                for group in (service.group(job.id) for job in jobs if job.task == "end")
            ],
            "problems": [problem.text for problem in check_all(service, time.time(), False)],
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--door", help="there is one alone")
    parser.add_argument("--process", action="store_true")
    parser.add_argument("--factory", choices=("simple", "multi"), default="simple")
    parser.add_argument("--lease", type=float, default=1.5)
    parser.add_argument("--produce", nargs=2, type=int)
    parser.add_argument("--crash")
    parser.add_argument("--until-done", type=float)
    options = parser.parse_args()
    if options.crash:
        step_name, when, countdown = options.crash.split(":")
        crash_at(step_name, when, int(countdown))
    db = open_url(options.url, pool_size=POOL)
    with db.transaction() as connection:
        root = connection.root()
        if "tasks" not in root:
            root["effects"] = IOBTree()
            service = root["tasks"] = TaskService()
            factories = {"simple": SimpleProcessor, "multi": MultiProcessor}
            service.processorFactory = factories[options.factory]
            service.processorArguments = {"waitTime": 0.5}
            service.lease_seconds = options.lease
    connection = db.open()
    service = connection.root()["tasks"]
    if options.process:
        service.startProcessing()
    transaction.abort()
    print("ready", flush=True)
    if options.produce:
        produce(db, options.directory / "acknowledged.log", *options.produce)
    if options.until_done is not None:
        wait_until_done(db, time.monotonic() + options.until_done)
        if options.process:
            service.stopProcessing(5)
        print(json.dumps(findings(db)), flush=True)
    elif options.process:
        sys.stdin.read()  # until the parent closes the pipe
        service.stopProcessing(5)
    transaction.abort()
    connection.close()
    db.close()


if __name__ == "__main__":
    main()
