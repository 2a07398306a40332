# SPDX-License-Identifier: ZPL-2.1
"""Threads that go on with the next job before the end of a quick one is written."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZODB
from ZODB.POSException import StorageError

from lovely.remotetask.engine.finishing import Finishing
from lovely.remotetask.engine.session import Session
from lovely.remotetask.interfaces import COMPLETED, PROCESSING, QUEUED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.store.check import check_all

KINDS = pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])


def start(workplace: Any, kind: Any, **arguments: Any) -> None:
    with workplace.service() as service:
        service.processorFactory = kind
    workplace.start(**arguments)


def count_commits(workplace: Any) -> int:
    return sum(1 for _ in workplace.db.storage.iterator())


@KINDS
def test_quick_jobs_take_few_commits(file_workplace: Any, kind: Any) -> None:
    jobids = file_workplace.add("echo", *range(300))
    before = count_commits(file_workplace)
    start(file_workplace, kind)
    assert set(file_workplace.wait_for(jobids)) == {COMPLETED}
    file_workplace.stop()
    assert count_commits(file_workplace) - before < 150


@KINDS
def test_the_end_of_a_job_is_written_while_the_next_one_hangs(
    workplace: Any, until: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the one that hangs is claimed with the others.
    init = kind.__init__

    def with_batch(self: Any, *arguments: Any, **keywords: Any) -> None:
        init(self, *arguments, **keywords)
        self.loop.crew.runner.batch = 10.0

    monkeypatch.setattr(kind, "__init__", with_batch)
    quick = workplace.add("echo", *range(5))
    [hanging] = workplace.add("hang", 1)
    later = workplace.add("echo", 6)
    start(workplace, kind, **({"maxThreads": 1} if kind is MultiProcessor else {}))
    until(lambda: workplace.hanging)
    until(lambda: set(workplace.statuses(quick)) == {COMPLETED})
    assert workplace.statuses([hanging]) == [PROCESSING]
    workplace.gate.set()
    assert set(workplace.wait_for([hanging, *later])) == {COMPLETED}


@KINDS
def test_stopping_writes_what_has_run_and_gives_back_the_rest(
    workplace: Any, register: Any, kind: Any
) -> None:
    ran: list[int] = []
    register("note", ran.append)
    jobids = workplace.add("note", *range(400))
    start(workplace, kind)
    while len(ran) < 50:
        time.sleep(0.001)
    workplace.stop()
    statuses = dict(zip(jobids, workplace.statuses(jobids), strict=True))
    assert set(statuses.values()) <= {COMPLETED, QUEUED}
    assert len(ran) == list(statuses.values()).count(COMPLETED)
    with workplace.service() as service:
        assert check_all(service, time.time(), repair=False) == []


@KINDS
def test_closing_the_database_writes_what_has_run(
    make_workplace: Any, register: Any, kind: Any, tmp_path: Path
) -> None:
    ran: list[int] = []
    register("note", ran.append)
    place = make_workplace(ZODB.DB(str(tmp_path / "Data.fs")))
    place.add("note", *range(400))
    start(place, kind)
    while len(ran) < 50:
        time.sleep(0.001)
    place.db.close()
    with closing(ZODB.DB(str(tmp_path / "Data.fs"))) as db, db.transaction() as connection:
        jobs = connection.root()["tasks"].jobs.values()
        assert {job.status for job in jobs} <= {COMPLETED, QUEUED}
        assert sorted(ran) == sorted(job.input for job in jobs if job.status == COMPLETED)


@KINDS
def test_the_thread_beside_the_pipe_ends_with_the_work(
    workplace: Any, threads: Any, until: Any, kind: Any
) -> None:
    jobids = workplace.add("echo", *range(50))
    start(workplace, kind)
    assert set(workplace.wait_for(jobids)) == {COMPLETED}
    workplace.stop()
    until(lambda: not threads("remotetask-pipe."))


@KINDS
def test_no_task_runs_again_where_commits_fail(
    workplace: Any, register: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    register("note", ran.append)
    jobids = workplace.add("note", *range(200))
    write, turns = Finishing._keep, iter(range(1_000_000))

    def failing(*arguments: Any) -> Any:
        kept = write(*arguments)
        if next(turns) % 3 == 0:
            raise StorageError("the disk is full")
        return kept

    monkeypatch.setattr(Finishing, "_keep", failing)
    start(workplace, kind)
    assert set(workplace.wait_for(jobids)) == {COMPLETED}
    workplace.stop()
    assert sorted(ran) == list(range(200))


def test_what_threads_hand_over_together_is_one_commit(
    file_workplace: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(4, timeout=30)

    def meet(input: Any) -> None:
        together.wait()
        time.sleep(0.01)  # longer than what is piped

    register("meet", meet)
    jobids = file_workplace.add("meet", *range(40))
    before = count_commits(file_workplace)
    start(file_workplace, MultiProcessor, maxThreads=4)
    assert set(file_workplace.wait_for(jobids)) == {COMPLETED}
    file_workplace.stop()
    assert count_commits(file_workplace) - before < 60


@KINDS
def test_a_fault_of_the_pipes_own_thread_loses_nothing(
    workplace: Any, register: Any, until: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, faults = Session.commit, iter([RuntimeError("unheard of"), OSError("no space")])

    def commit_but(session: Session) -> None:
        if threading.current_thread().name.startswith("remotetask-pipe."):
            for error in faults:
                raise error
        commit(session)

    monkeypatch.setattr(Session, "commit", commit_but)
    test_the_end_of_a_job_is_written_while_the_next_one_hangs(workplace, until, kind, monkeypatch)
