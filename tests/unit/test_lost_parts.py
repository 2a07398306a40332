# SPDX-License-Identifier: ZPL-2.1
"""Records that are missing of which indexes consist, and the tree of jobs."""

from __future__ import annotations

import gc
import itertools
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from ZODB.POSException import POSKeyError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.maintenance import Maintenance
from lovely.remotetask.engine.protocol import Stopping
from lovely.remotetask.errors import JobNotFound
from lovely.remotetask.interfaces import (
    COMPLETED,
    DELAYED,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
    ITask,
)
from lovely.remotetask.store import memory
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.lost import check_records


@pytest.fixture
def jobids(workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Jobs that stand in all places: three that have ended, and others that may run.

    Their ids are so near each other that they share all pages.
    """
    starts = itertools.count(6400, 2**23)
    monkeypatch.setattr(random, "randrange", lambda *bounds: next(starts))
    register("late", lambda input: input)
    ended = [workshop.add("echo") for _ in range(3)]
    workshop.work()
    parked = workshop.add("late")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    workshop.work()
    register("late", lambda input: input)
    held = workshop.add("echo")
    workshop.claim()
    delayed = workshop.add_cron_job("echo", delay=10)
    waiting = [workshop.add("echo") for _ in range(2)]
    workshop.now += 100
    return [*ended, parked, held, delayed, *waiting]


def generation(service: Any) -> Any:
    (found,) = (g for lane in service.queue.ready.lanes for g in lane.generations.entries.values())
    return found


def time_page(service: Any) -> Any:
    node = service.queue.indexes[DELAYED].pages
    while hasattr(node, "take") and not isinstance(node.entries, list):
        node = next(iter(node.entries.values()))
    return node


PARTS: dict[str, Callable[[Any], Any]] = {
    "a segment": lambda service: max(generation(service).entries.items())[1],
    "a generation": generation,
    "a page of an index by time": time_page,
    "a node of an index by time": lambda service: next(
        iter(service.queue.indexes[DELAYED].pages.entries.values())
    ),
    "a page of those that have ended": lambda service: next(
        page
        for lane in service.queue.indexes[COMPLETED].lanes
        for page in lane.values()
        if page.entries
    ),
    "a lot": lambda service: service.queue.parked["late"],
    "the pages of a lot": lambda service: service.queue.parked["late"].pages,
    "the size of a lot": lambda service: service.queue.parked["late"].size,
    "a page of a lot": lambda service: next(
        iter(service.queue.parked["late"].pages.entries.values())
    ),
    "a worker": lambda service: next(iter(service.workers.values())),
}


@pytest.fixture
def lose_record(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return ``lose_record(oid)``, which takes a record out of the storage."""

    def lose_record(oid: bytes) -> None:
        del workshop.db.storage.changes._data[oid]
        workshop.db.cacheMinimize()
        gc.collect()
        monkeypatch.setattr(memory, "MEMORY_SECONDS", 0.0)

    return lose_record


@pytest.fixture
def lose(workshop: Any, lose_record: Any) -> Callable[[str], None]:
    """Return ``lose(part)``, which does so with one of `PARTS`."""

    def lose(part: str) -> None:
        with workshop.service() as service:
            oid = PARTS[part](service)._p_oid
        lose_record(oid)

    return lose


def assert_all_is_well(workshop: Any, jobids: list[int]) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        counted = {status: n for status, n in service.countJobs().items() if n}
        assert counted == dict(Counter(job.status for job in service.jobs.values()))
    workshop.work()
    workshop.add("echo")
    workshop.work()
    assert [workshop.get(jobid, "status") for jobid in jobids] == [COMPLETED] * len(jobids)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_of_an_index_is_named_and_mended(
    workshop: Any, jobids: list[int], lose: Any, part: str
) -> None:
    lose(part)
    with workshop.service() as service:
        (problem,) = check_all(service, workshop.now, repair=False)
        assert problem.text.endswith(" lacks 1 of its records")
        assert problem.is_mendable
    with workshop.service() as service:
        assert problem in check_all(service, workshop.now, repair=True)
    workshop.engine.claims.in_hand.clear()  # as if another process had held the job
    assert_all_is_well(workshop, jobids)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_of_an_index_is_mended_by_the_keeper(
    workshop: Any, jobids: list[int], lose: Any, part: str
) -> None:
    lose(part)
    claims = workshop.engine.claims
    claims.in_hand.clear()
    claims.transact.log(POSKeyError(b"\0" * 8))  # as all that waits for a storage does
    the_keeper = Maintenance(workshop.engine, lambda: True, lambda: None, lambda thread: None)
    with workshop.engine.claims.open_beside() as session:
        the_keeper.tick(session)
        while the_keeper._has_chores:
            the_keeper.tick(session)
    assert not workshop.engine.claims.transact.has_missed
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)  # counters, which the maintenance leaves
    assert_all_is_well(workshop, jobids)


@pytest.mark.parametrize("part", sorted(set(PARTS) - {"a worker"}))
def test_a_claim_that_comes_to_a_missing_part_calls_for_the_keeper(
    workshop: Any, jobids: list[int], lose: Any, part: str
) -> None:
    def stop() -> None:
        workshop.is_stopping = len(workshop.pauses) > 5

    called: list[bool] = []
    workshop.engine.claims.transact.on_missed = lambda: called.append(True)
    lose(part)
    workshop.while_pausing = stop
    with suppress(Stopping):
        workshop.run(next(iter(workshop.engine.claims.in_hand.values())))
        workshop.work()
    assert called
    assert workshop.engine.claims.transact.has_missed


# -- the first record of an index or a list ----------------------------------------------------


ROOTS: dict[str, Callable[[Any], Any]] = {
    "list of workers": lambda service: service.workers,
    "list of requests": lambda service: service.requests,
    "list of progress": lambda service: service.progress,
    "list of edits": lambda service: service.edits,
    "list of lines": lambda service: service.lines,
    "list of paused tasks": lambda service: service.queue.paused,
    "list of keys of schedules": lambda service: service.queue.schedules,
    "table of unique keys": lambda service: service.queue.keys,
    "index of jobs that expire": lambda service: service.queue.expiring,
    "index of jobs with priority 1": lambda service: service.queue.levels[1],
    "index of parked jobs": lambda service: service.queue.parked,
    "ready queue": lambda service: service.queue.ready,
    "ready queue of jobs with locks": lambda service: service.queue.in_order,
    "index of delayed jobs": lambda service: service.queue.indexes[DELAYED],
    "index of completed jobs": lambda service: service.queue.indexes[COMPLETED],
    "index of jobs at locks and limits": lambda service: service.queue.gates,
}

#: What such a record is of no use without.
BELOW: dict[str, Callable[[Any], Any]] = {
    "index of delayed jobs": lambda service: service.queue.indexes[DELAYED].pages,
    "index of completed jobs": lambda service: service.queue.indexes[COMPLETED].lanes[0],
    "ready queue": lambda service: service.queue.ready.lanes[0],
    "index of jobs at locks and limits": lambda service: service.queue.gates.slots,
}


@pytest.fixture
def waiting(workshop: Any, jobids: list[int]) -> list[int]:
    """Jobs that wait in the other places too; one of them at a lock that another one has."""
    locked = [workshop.add("echo", lock="a") for _ in range(2)]
    workshop.claim(50)
    others = [
        workshop.add("echo", priority=1),
        workshop.add("echo", unique_key="key"),
        workshop.add("echo", expires=workshop.now + 100_000.0),
        workshop.add("echo", lock="b"),
    ]
    with workshop.service() as service:
        others.append(service.ensure("soon", "echo", delay=0))
    workshop.now += 1.0
    return [*jobids, *locked, *others]


@pytest.mark.parametrize(("name", "find"), [*ROOTS.items(), *BELOW.items()])
@pytest.mark.parametrize("is_keeper", [False, True])
def test_the_first_record_of_an_index_is_made_anew(
    workshop: Any,
    waiting: list[int],
    lose_record: Any,
    name: str,
    find: Callable[[Any], Any],
    is_keeper: bool,
) -> None:
    with workshop.service() as service:
        oid = find(service)._p_oid
    lose_record(oid)
    with workshop.service() as service:
        [problem] = check_all(service, workshop.now, repair=False)
        assert problem == (None, f"the first record of the {name} is missing")
        assert problem.is_mendable
    if is_keeper:  # which leaves it to people to let go on what was paused
        is_left = name == "list of paused tasks"
        with workshop.service() as service:
            [problem] = check_records(service, repair=True, with_jobs=False)
            assert problem.is_mendable is not is_left
    with workshop.service() as service:
        assert (problem in check_all(service, workshop.now, repair=True)) is (
            not is_keeper or is_left
        )
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    for claim in list(workshop.engine.claims.in_hand.values()):
        workshop.run(claim)
    workshop.now += 10.0
    assert_all_is_well(workshop, waiting)


def test_a_lock_is_held_on_when_nobody_knows_any_more_by_whom(
    workshop: Any, waiting: list[int], lose_record: Any
) -> None:
    with workshop.service() as service:
        held, waits = (job for job in service.jobs.values() if job.lock == "a")
        assert (held.status, waits.status) in ((PROCESSING, QUEUED), (QUEUED, PROCESSING))
        if held.status != PROCESSING:
            held, waits = waits, held
        jobid, oid = waits.id, service.queue.gates._p_oid
    lose_record(oid)
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    workshop.now += 10.0
    assert jobid not in [claim.jobid for claim in workshop.claim(50)]


@pytest.mark.parametrize("name", ["queue", "tree of jobs"])
def test_what_cannot_be_made_anew_is_named(
    workshop: Any, jobids: list[int], lose_record: Any, name: str
) -> None:
    with workshop.service() as service:
        oid = (service.queue if name == "queue" else service.jobs)._p_oid
    lose_record(oid)
    with workshop.service() as service:
        [problem] = check_all(service, workshop.now, repair=True)
        assert problem == (None, f"the first record of the {name} is missing")
        assert not problem.is_mendable


# -- the tree of jobs --------------------------------------------------------------------------


@pytest.fixture(params=["a page", "a node"])
def lost(workshop: Any, jobids: list[int], lose_record: Any, request: Any) -> set[int]:
    """The jobs that stood in a part of the tree of jobs that is missing."""
    with workshop.service() as service:
        (node,) = (node for lane in service.jobs.lanes for node in lane.entries.values())
        while request.param == "a page" and jobids[0] not in node.entries:
            node = min(node.entries.items())[1]
        found = set(node.entries) if request.param == "a page" else set(jobids)
        lose_record(node._p_oid)
    return found


def test_a_missing_part_of_the_tree_of_jobs_stops_nobody(workshop: Any, lost: set[int]) -> None:
    workshop.run(next(iter(workshop.engine.claims.in_hand.values())))
    added = []
    for _ in range(5):
        with suppress(POSKeyError):  # who adds jobs there tries it elsewhere the next time
            added.append(workshop.add("echo"))
    assert len(added) >= 4
    workshop.work()
    assert [workshop.get(jobid, "status") for jobid in added] == [COMPLETED] * len(added)
    with workshop.service() as service:
        service.countJobs()
        with pytest.raises(JobNotFound):
            service.getStatus(min(lost))


def test_a_missing_part_of_the_tree_of_jobs_is_left_to_people(
    workshop: Any, jobids: list[int], lost: set[int]
) -> None:
    with workshop.service() as service:
        (problem,) = check_records(service, repair=True, with_jobs=False)
        assert not problem.is_mendable
    with workshop.service() as service:
        (problem,) = check_all(service, workshop.now, repair=False)
        assert tuple(problem) == (None, "the tree of jobs lacks 1 of its records")
        assert problem.is_mendable
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        assert set(service.jobs) == set(jobids) - lost
    workshop.engine.claims.in_hand.clear()
    jobid = workshop.add("echo")
    assert jobid in workshop.work()
    with workshop.service() as service:
        assert {job.status for job in service.jobs.values()} <= set(FINAL_STATUSES)
