# SPDX-License-Identifier: ZPL-2.1
"""The program that is killed, on MongoDB: a process that works on jobs, or schedules them.

It is run as a script, with ``tests`` in its path: ``mongo_program.py URI DATABASE ROLE``.  It works
until its standard input ends.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pymongo

from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.mongo import MongoRemoteProcessor
from lovely.remotetask.remote.worker import MultiJobWorker


class Work(Job):
    """Notes at once, and outside of its transaction, that it runs; and may fail, or add a job."""

    runs: Any = None  # the collection for the notes

    def __call__(self, remoteProcessor: Any) -> Any:
        note = {"job": self.__name__, "pid": os.getpid(), "at": time.time()}
        type(self).runs.insert_one(note)
        time.sleep(self.input.get("seconds", 0.02))
        if self.input.get("fails") and self.retryCounter < 2:
            raise ValueError("once more")
        if self.input.get("has_child"):
            remoteProcessor.addJob("work", {"parent": self.__name__})


class Processor(MongoRemoteProcessor):
    """What all processes use."""

    lease_seconds = 6.0
    schedulerWorkerArguments = {"waitTime": 0.2}  # noqa: RUF012


def open_processor(database: Any) -> Processor:
    """Return the processor of a database."""
    Work.runs = database.runs
    return Processor(database, [Work])


def main(uri: str, name: str, role: str) -> None:
    processor = open_processor(pymongo.MongoClient(uri)[name])
    if role == "scheduler":
        processor.startScheduler()
    else:
        processor.jobWorkerArguments = {"waitTime": 0.3, "maxThreads": 3}
        if role == "threads":
            processor.jobWorkerFactory = MultiJobWorker
        processor.startProcessor()
    sys.stdin.read()
    processor.stopProcessor()
    processor.stopScheduler()


if __name__ == "__main__":
    main(*sys.argv[1:])
