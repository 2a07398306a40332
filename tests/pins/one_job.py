# SPDX-License-Identifier: ZPL-2.1
"""Run one job on a new ``Data.fs``, with nothing installed but the package and its needs."""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import transaction
import ZODB

from lovely.remotetask import TaskService
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.task import task

SECONDS = 60.0


@task("double")
def double(number: int) -> int:
    """Return twice as much."""
    return 2 * number


def run_a_job(path: Path) -> int:
    """Return what a job gives that a thread has run."""
    db = ZODB.DB(str(path))
    connection = db.open()
    service = connection.root()["tasks"] = TaskService()
    transaction.commit()
    service.startProcessing()
    jobid = service.add("double", 21)
    transaction.commit()
    end = time.monotonic() + SECONDS
    while service.getStatus(jobid) != COMPLETED and time.monotonic() < end:
        time.sleep(0.01)
        transaction.begin()
    result: int = service.getResult(jobid)
    connection.close()
    db.close()
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        assert run_a_job(Path(directory) / "Data.fs") == 42
    names = ("ZODB", "BTrees", "persistent", "transaction", "zope.interface")
    print("ran a job with", ", ".join(f"{name} {version(name)}" for name in names))
