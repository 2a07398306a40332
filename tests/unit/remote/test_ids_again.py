# SPDX-License-Identifier: ZPL-2.1
"""Object ids that are handed out again, to what a remote processor consists of.

See the text of `lovely.remotetask.base.ownership`, and ``tests/unit/base/test_ownership.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError

from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Delay

#: Enough items for several leaves of their trees.
MANY = 40

START = datetime(2030, 1, 1, tzinfo=timezone.utc)


class FlavourJob(Job):
    """Returns its input, and what its factory was given."""

    flavour = "none"

    def __call__(self, processor: Any) -> Any:
        return [self.input, self.flavour]


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of a BTree that has no other nodes."""
    return list(tree.__getstate__()[0][::2])


KINDS: dict[str, Callable[[Any], Any]] = {
    "the processor": lambda processor: processor,
    "the factories": lambda processor: processor._jobFactories,
    "the tree of factories": lambda processor: processor._jobFactories.factories,
    "a factory": lambda processor: processor.getJobFactory("flavour"),
    "a record": lambda processor: next(iter(processor.jobs.values())),
    "a job": lambda processor: next(iter(processor.jobs.values())).input,
    "the scheduler": lambda processor: processor._scheduler,
    "the items": lambda processor: processor._scheduler.items_by_id,
    "an item": lambda processor: next(iter(processor._scheduler.values())),
    "what is due": lambda processor: processor._scheduler.due,
    "the first of the items": lambda processor: leaves(processor._scheduler.items_by_id)[0],
    "the last of the items": lambda processor: leaves(processor._scheduler.items_by_id)[-1],
    "what is due first": lambda processor: leaves(processor._scheduler.due)[0],
    "what is due last": lambda processor: leaves(processor._scheduler.due)[-1],
}
kinds = pytest.mark.parametrize("kind", KINDS)
ghosts = pytest.mark.parametrize("is_ghost", [False, True], ids=["loaded", "ghosts"])


class Application:
    """A connection that has met an id again, and repeats what is transient."""

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.manager = transaction.TransactionManager()
        self.connection = db.open(self.manager)
        processor = self.connection.root()["remote"] = RemoteProcessor()
        processor.addJobFactory("flavour", FlavourJob({"flavour": "sweet", "maxRetries": 7}))
        self.manager.commit()
        self.jobid = processor.addJob("flavour", 1)
        data = {"jobName": "flavour", "input": 2, "active": True, "nextCallTime": START}
        processor.addScheduler(Delay({**data, "delay": 60}))
        for number in range(MANY):
            later = START + timedelta(days=10, seconds=number)
            processor.addScheduler(Delay({**data, "delay": 60, "nextCallTime": later}))
        self.manager.commit()

    def __call__(self, change: Callable[[Any], Any]) -> Any:
        for attempt in self.manager.attempts(5):
            with attempt:
                result = change(self.connection.root()["remote"])
        return result

    def meet_again(self, kind: str, is_ghost: bool) -> None:
        """Fail at a new object with an id that is in use."""
        found = [find(self.connection.root()["remote"]) for find in KINDS.values()]
        for each in found:
            each._p_activate()
        target = KINDS[kind](self.connection.root()["remote"])
        oid = target._p_oid
        if is_ghost:
            target._p_deactivate()
        self.connection.new_oid = lambda: oid
        self.connection.root()["new"] = PersistentMapping()
        with pytest.raises(ConflictError):
            self.manager.commit()
        self.manager.abort()
        del self.connection.new_oid

    def stored(self, look: Callable[[Any], Any]) -> Any:
        """Look at the processor through another connection."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            return look(connection.root()["remote"])
        finally:
            manager.abort()
            connection.close()


@pytest.fixture
def application(db: ZODB.DB) -> Iterator[Application]:
    made = Application(db)
    yield made
    made.manager.abort()
    made.connection.close()


@kinds
@ghosts
def test_a_job_that_is_added_is_what_its_factory_makes(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    jobid = application(lambda processor: processor.addJob("flavour", 3))

    def look(processor: Any) -> Any:
        job = processor._jobs[jobid]
        return job.jobName, job.input, job.flavour, job.maxRetries

    assert application.stored(look) == ("flavour", 3, "sweet", 7)


@kinds
@ghosts
def test_a_job_runs_with_what_it_was_given(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    query = {"flavour": "sweet"}
    assert application(lambda processor: processor.processNextJob(query)) is True
    jobid = application.jobid
    assert application.stored(lambda p: p.getJobResult(jobid)) == [1, "sweet"]
    assert application.stored(lambda p: p.getJobStatus(jobid)) == COMPLETED


@kinds
@ghosts
def test_a_worker_runs_a_job_with_what_it_was_given(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    processor = application.connection.root()["remote"]
    engine = processor.make_engine(threading.Event().wait, {"flavour": "sweet"})
    application.connection.close()
    with engine.claims.open_beside() as session:
        assert session.connection is application.connection
        [claim] = engine.claims.claim(session, 5)
        assert engine.execution.run(session, claim).status == COMPLETED
    jobid = application.jobid
    assert application.stored(lambda p: p.getJobResult(jobid)) == [1, "sweet"]
    application.connection.open(application.manager)


@kinds
@ghosts
def test_an_item_that_is_due_adds_its_job_once(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    now = START + timedelta(seconds=1)
    jobid = application(lambda processor: processor.scheduleNextJob(now))
    assert jobid is not None
    assert application(lambda processor: processor.scheduleNextJob(now)) is None
    assert application.stored(lambda p: p._jobs[jobid].input) == 2
    assert application.stored(lambda p: p.scheduleNextJob(now)) is None
    later = now + timedelta(seconds=60)
    assert application.stored(lambda p: p.scheduleNextJob(later)) is not None


@kinds
@ghosts
def test_a_change_of_an_item_is_stored(application: Application, kind: str, is_ghost: bool) -> None:
    application.meet_again(kind, is_ghost)

    def change(processor: Any) -> None:
        item = next(iter(processor._scheduler.values()))
        item.nextCallTime = START + timedelta(hours=1)

    application(change)
    now = START + timedelta(seconds=1)
    assert application.stored(lambda p: p.scheduleNextJob(now)) is None
    later = now + timedelta(hours=1)
    assert application.stored(lambda p: p.scheduleNextJob(later)) is not None


@kinds
@ghosts
def test_an_item_that_is_added_is_stored(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    application(lambda p: p.addScheduler(Delay({"jobName": "flavour", "delay": 5})))
    assert application.stored(lambda p: len(p._scheduler)) == MANY + 2


@kinds
@ghosts
def test_all_items_are_counted_anew(application: Application, kind: str, is_ghost: bool) -> None:
    application.meet_again(kind, is_ghost)
    application(lambda processor: processor.reScheduleItems(START + timedelta(days=20)))

    def look(processor: Any) -> set[Any]:
        return {item.nextCallTime for item in processor._scheduler.values()}

    assert application.stored(look) == {START + timedelta(days=20, seconds=60)}


@kinds
@ghosts
def test_an_item_that_is_removed_is_gone(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    application(lambda p: p._scheduler.remove(list(p._scheduler.values())[-1]))
    assert application.stored(lambda p: len(p._scheduler)) == MANY
    assert application.stored(lambda p: len(p._scheduler.due)) == MANY


@kinds
@ghosts
def test_a_factory_that_is_added_is_stored(
    application: Application, kind: str, is_ghost: bool
) -> None:
    application.meet_again(kind, is_ghost)
    application(lambda p: p.addJobFactory("other", FlavourJob({"flavour": "sour"})))
    assert application.stored(lambda p: p.getJobFactory("other").flavour) == "sour"
