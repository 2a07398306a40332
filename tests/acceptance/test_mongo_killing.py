# SPDX-License-Identifier: ZPL-2.1
"""Four workers and two schedulers on MongoDB, which are killed again and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import transaction
from transaction.interfaces import TransientError

pytest.importorskip("pymongo")

from lovely.remotetask.remote.scheduler import Delay

pytestmark = pytest.mark.acceptance

PROGRAM = Path(__file__).with_name("mongo_program.py")
ROLES = ("one", "one", "threads", "threads", "scheduler", "scheduler")
INPUTS: tuple[dict[str, Any], ...] = ({}, {"fails": True}, {"has_child": True}, {"seconds": 0.3})
JOBS = 120
DELAY_SECONDS = 2.0
PATIENCE_SECONDS = 120.0


class Processes:
    """The processes, one for each of `ROLES`."""

    def __init__(self, uri: str, name: str, log: Path) -> None:
        self._arguments = (uri, name)
        self._log = log
        self.all = [self._start(role) for role in ROLES]
        self.kills = 0

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(PROGRAM), *self._arguments, role],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def kill_one(self, number: int, how: int = signal.SIGKILL) -> None:
        """End a process as a crash would, and start another one."""
        self.all[number].send_signal(how)
        self.all[number].communicate(timeout=PATIENCE_SECONDS)
        self.all[number] = self._start(ROLES[number])
        self.kills += 1

    def end(self, role: str | None = None) -> None:
        """Let processes end in an orderly way."""
        ending = [p for p, of in zip(self.all, ROLES, strict=True) if role in (of, None)]
        for process in ending:
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        for process in ending:
            process.wait(PATIENCE_SECONDS)


def runs_at_the_most(document: dict[str, Any]) -> int:
    """Return how often a job may have been run, by what its document tells."""
    messages = [error["message"] for error in document["errors"]]
    stopped = sum("was stopped while it ran" in message for message in messages)
    return runs_at_least(document) + document.get("_deaths", 0) + stopped


def runs_at_least(document: dict[str, Any]) -> int:
    failed = sum("once more" in error["message"] for error in document["errors"])
    return failed + (document["status"] == "completed")


def test_no_job_and_no_slot_is_taken_twice_or_lost(
    mongo_uri: str, mongo_database: Any, tmp_path: Path
) -> None:
    sys.path.insert(0, str(PROGRAM.parent))
    try:
        from mongo_program import Work, open_processor
    finally:
        sys.path.pop(0)
    database = mongo_database
    processor = open_processor(database)
    processor.addJobFactory("work", Work({"retryDelay": 0.5, "maxRetries": 5, "input": {}}))
    data = {"jobName": "work", "active": True, "delay": DELAY_SECONDS, "retryDelay": 3}
    items = [processor.addScheduler(Delay({**data, "input": {"item": n}})) for n in range(3)]
    transaction.commit()
    processes = Processes(mongo_uri, database.name, tmp_path / "log")
    chance = random.Random()
    begun = time.time()
    jobids = []
    try:
        for number in range(JOBS):
            jobids.append(processor.addJob("work", chance.choice(INPUTS)))
            transaction.commit()
            if chance.random() < 0.1:
                with suppress(TransientError):
                    processor.cancelJob(chance.choice(jobids))
                    transaction.commit()
                transaction.abort()
            if number % 12 == 11:
                how = signal.SIGTERM if chance.random() < 0.2 else signal.SIGKILL
                processes.kill_one(chance.randrange(len(ROLES)), how)
            time.sleep(0.15)
        processes.end("scheduler")
        ended = time.time()
        live = {"status": {"$in": ["queued", "processing"]}}
        while database.rjobs.count_documents(live):
            assert time.time() < ended + PATIENCE_SECONDS, list(database.rjobs.find(live))
            time.sleep(0.2)
    finally:
        processes.end()
    documents = {str(document["_id"]): document for document in database.rjobs.find()}
    runs: defaultdict[str, list[float]] = defaultdict(list)
    for note in database.runs.find():
        runs[note["job"]].append(note["at"])
    assert processes.kills == JOBS // 12
    assert set(jobids) <= set(documents)
    assert len(items) == 3
    for jobid, document in documents.items():
        if document["status"] != "cancelled":
            assert document["status"] == "completed", document
            low, high = runs_at_least(document), runs_at_the_most(document)
            assert low <= len(runs[jobid]) <= high, (document, runs[jobid])
    parents = Counter(d["input"].get("parent") for d in documents.values())
    for jobid, document in documents.items():
        has_child = document["input"].get("has_child") and document["status"] == "completed"
        assert parents[jobid] == bool(has_child)
    for number in range(3):
        mine = [d for d in documents.values() if d["input"].get("item") == number]
        assert 1 < len(mine) <= (ended - begun) / DELAY_SECONDS + 1
