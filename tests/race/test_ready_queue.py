# SPDX-License-Identifier: ZPL-2.1
"""The ready queue under two connections: every pair of steps, in both commit orders."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.claim import take
from lovely.remotetask.interfaces import ITask
from lovely.remotetask.service import TaskService
from lovely.remotetask.store import ready as line_module
from lovely.remotetask.task import EchoTask

pytestmark = pytest.mark.race


class Side:
    """One connection, and what it has been told is committed."""

    def __init__(self, db: ZODB.DB, name: str) -> None:
        self.manager = transaction.TransactionManager()
        self.connection = db.open(self.manager)
        self.name = name
        self.memory = line_module.Memory()
        self.added: set[int] = set()
        self.gone: set[int] = set()
        self._step: Callable[[Side, Any], tuple[set[int], set[int]]]
        self._pending: tuple[set[int], set[int]] = (set(), set())

    @property
    def service(self) -> Any:
        return self.connection.root()["tasks"]

    def prepare(self, step: Any) -> None:
        self.manager.begin()
        self._step = step
        self._pending = step(self, self.service)

    def commit(self) -> bool:
        """Commit; say whether the storage took it."""
        try:
            self.manager.commit()
        except ConflictError:
            self.manager.abort()
            return False
        added, gone = self._pending
        self.added |= added
        self.gone |= gone
        return True

    def commit_in_the_end(self) -> int:
        """Commit, with repeats; return how many."""
        for repeats in itertools.count():
            if self.commit():
                return repeats
            assert repeats < 5, "conflicts with nobody"
            self.prepare(self._step)
        raise AssertionError


def put(side: Side, service: Any) -> tuple[set[int], set[int]]:
    return {service.add("echo")}, set()


def put_many(side: Side, service: Any) -> tuple[set[int], set[int]]:
    return {service.add("echo") for _ in range(line_module.SEGMENT_SIZE + 1)}, set()


def put_at_once(side: Side, service: Any) -> tuple[set[int], set[int]]:
    return set(service.add_many("echo", range(line_module.BULK_SIZE + 1))), set()


def _taken(side: Side, service: Any, count: int, start: float | None) -> set[int]:
    found = []
    for job in service.queue.pull(service.jobs, time.time(), start, memory=side.memory):
        take(service, job, side.name, time.time())
        found.append(job.id)
        if len(found) == count:
            break
    return set(found)


def claim(side: Side, service: Any) -> tuple[set[int], set[int]]:
    return set(), _taken(side, service, 1, None)


def claim_anywhere(side: Side, service: Any) -> tuple[set[int], set[int]]:
    return set(), _taken(side, service, 3, 0.5)


def drain(side: Side, service: Any) -> tuple[set[int], set[int]]:
    return set(), _taken(side, service, 10_000, None)


def look(side: Side, service: Any) -> tuple[set[int], set[int]]:
    for _ in service.queue.pull(service.jobs, time.time(), memory=side.memory):
        pass
    return set(), set()


def cancel(side: Side, service: Any) -> tuple[set[int], set[int]]:
    job = next(service.queue.pull(service.jobs, time.time()), None)
    if job is None:
        return set(), set()
    service.cancel(job.id)
    return set(), {job.id}


STEPS = [put, put_many, put_at_once, claim, claim_anywhere, drain, look, cancel]


def an_empty_line(side: Side) -> Iterator[Any]:
    return iter(())


def one_job(side: Side) -> Iterator[Any]:
    yield put


def one_used_up_segment(side: Side) -> Iterator[Any]:
    yield put
    yield drain


def a_used_up_segment_and_a_job(side: Side) -> Iterator[Any]:
    yield put_many  # fills one segment, and puts one job into the next one
    yield lambda side, service: (set(), _taken(side, service, line_module.SEGMENT_SIZE, None))


def several_segments(side: Side) -> Iterator[Any]:
    for _ in range(line_module.HEAD_SEGMENTS + 1):
        yield put_many
    yield claim_anywhere


STATES = [
    an_empty_line,
    one_job,
    one_used_up_segment,
    a_used_up_segment_and_a_job,
    several_segments,
]
STORAGES = ["memory", "file", "unresolving"]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SEGMENT_SIZE", 4)
    monkeypatch.setattr(line_module, "BULK_SIZE", 6)
    # All share one lane of the line, as in others they are in nobody's way.
    starts = itertools.cycle(range(1, 2**27, 2**22))
    monkeypatch.setattr(random, "randrange", lambda *bounds: next(starts))
    getGlobalSiteManager().registerUtility(EchoTask(), ITask, name="echo")


@pytest.fixture
def make_storage(tmp_path: Any) -> Callable[[str], Any]:
    numbers = itertools.count()

    def make(kind: str) -> Any:
        if kind == "memory":
            return DemoStorage()
        if kind == "file":
            return FileStorage(str(tmp_path / f"{next(numbers)}.fs"), create=True)
        return MappingStorage()  # it resolves no conflicts

    return make


def check(db: ZODB.DB, *sides: Side) -> None:
    """Check from outside that all that was acknowledged is so, and nothing else."""
    added = set().union(*(side.added for side in sides))
    gone = set().union(*(side.gone for side in sides))
    assert sum(len(side.gone) for side in sides) == len(gone), "a job was taken twice"
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    service = connection.root()["tasks"]
    assert len(service.queue) == len(added - gone)
    for start in (None, 0.5):
        found = [job.id for job in service.queue.pull(service.jobs, time.time(), start)]
        assert len(found) == len(set(found)), "a job is in the line twice"
        assert set(found) == added - gone, "a job is lost, or has come back"
        manager.abort()
    connection.close()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("state", STATES)
def test_of_any_two_steps_neither_loses_what_the_other_did(
    state: Any, storage: str, make_storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first, second, size in itertools.product(STEPS, STEPS, (1, 1000)):
        # Used up segments are taken out at once, or only closed.
        monkeypatch.setattr(line_module, "GENERATION_SIZE", size)
        with closing(ZODB.DB(make_storage(storage))) as db:
            one, two = Side(db, "one"), Side(db, "two")
            one.manager.begin()
            one.connection.root()["tasks"] = TaskService()
            one.manager.commit()
            for step in state(one):
                one.prepare(step)
                assert one.commit()
            one.prepare(first)
            two.prepare(second)
            assert one.commit(), "whoever commits first meets no conflict"
            two.commit_in_the_end()
            check(db, one, two)
            one.manager.abort()
            two.manager.abort()


@pytest.mark.parametrize("is_put_first", [True, False])
@pytest.mark.parametrize("generation_size", [1, 1000])
@pytest.mark.parametrize("storage", ["memory", "file"])
def test_a_put_into_a_segment_that_is_dropped_is_not_lost(
    storage: str,
    is_put_first: bool,
    generation_size: int,
    make_storage: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_module, "GENERATION_SIZE", generation_size)
    with closing(ZODB.DB(make_storage(storage))) as db:
        producer, rival, worker = Side(db, "producer"), Side(db, "rival"), Side(db, "worker")
        producer.manager.begin()
        producer.connection.root()["tasks"] = TaskService()
        producer.manager.commit()
        for side, step in ((producer, put), (worker, drain)):
            side.prepare(step)
            assert side.commit()
        producer.prepare(put)  # into the first segment
        monkeypatch.setattr(line_module, "SEGMENT_SIZE", 1)
        rival.prepare(put)  # into a new one
        assert rival.commit()
        worker.prepare(look)  # closes the first segment
        (jobid,) = producer._pending[0]
        place = producer.service.jobs[jobid].place
        (lane,) = (lane for lane in worker.service.queue.ready.lanes if lane.added.value)
        assert place not in {entry.key for entry in lane.places(line_module.Memory())}
        monkeypatch.setattr(line_module, "SEGMENT_SIZE", 4)
        order = (producer, worker) if is_put_first else (worker, producer)
        assert order[0].commit()
        assert order[1].commit_in_the_end() == 1, "the two must collide"
        check(db, producer, rival, worker)
        for side in (producer, rival, worker):
            side.manager.abort()


def test_two_that_put_into_the_first_segment_at_once_do_not_collide(make_storage: Any) -> None:
    with closing(ZODB.DB(make_storage("memory"))) as db:
        one, two = Side(db, "one"), Side(db, "two")
        one.manager.begin()
        one.connection.root()["tasks"] = TaskService()
        one.manager.commit()
        for step in (put, put_many):
            one.prepare(step)
            two.prepare(step)
            assert one.commit()
            assert two.commit(), "the storage could not merge"
        check(db, one, two)
        one.manager.abort()
        two.manager.abort()


@pytest.mark.parametrize("start", [None, 0.0, 0.7])
def test_a_claim_that_is_aborted_hides_no_jobs(start: float | None, make_storage: Any) -> None:
    with closing(ZODB.DB(make_storage("memory"))) as db:
        side = Side(db, "side")
        side.manager.begin()
        side.connection.root()["tasks"] = TaskService()
        side.manager.commit()
        side.prepare(put_many)
        assert side.commit()
        for count in (1, 4, 5, 10_000):
            side.manager.begin()
            taken = _taken(side, side.service, count, start)
            again = _taken(side, side.service, 10_000, start)
            assert taken | again == side.added
            side.manager.abort()
        check(db, side)
        assert _taken(side, side.service, 10_000, start) == side.added
        side.manager.abort()


def test_a_job_added_and_taken_in_an_aborted_transaction_hides_no_other(make_storage: Any) -> None:
    with closing(ZODB.DB(make_storage("memory"))) as db:
        side = Side(db, "side")
        side.manager.begin()
        side.connection.root()["tasks"] = TaskService()
        side.manager.commit()
        for _ in range(3):
            side.manager.begin()
            jobid = side.service.add("echo")
            assert _taken(side, side.service, 10, None) == {jobid}
            side.service._v_next_id = jobid  # the next transaction uses the same id
            side.service._v_last = None
            side.manager.abort()
        side.prepare(put)
        assert side.added | side._pending[0] == {jobid}
        assert side.commit()
        check(db, side)
