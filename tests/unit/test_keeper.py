# SPDX-License-Identifier: ZPL-2.1
"""What a worker does beside its jobs, one look after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ZODB.POSException import POSKeyError

from lovely.remotetask.errors import ServiceGone
from lovely.remotetask.interfaces import COMPLETED, ERROR, QUEUED
from lovely.remotetask.keeper import CHECK_SECONDS, Keeper
from lovely.remotetask.step import Retention
from lovely.remotetask.worker import LEASE_SECONDS, Worker


class Kept:
    """A keeper, and what it has called."""

    def __init__(self, workshop: Any, seat: Any) -> None:
        self.seat = seat
        self.freed: list[float] = []
        self.keeper = Keeper(
            workshop.engine,
            lambda: True,
            lambda: self.freed.append(workshop.now),
            lambda deadline: True,
            lambda thread: None,
        )

    def tick(self) -> float:
        return self.keeper.tick(self.seat)


@pytest.fixture
def kept(workshop: Any) -> Iterator[Kept]:
    with workshop.engine.short_seat() as seat:
        yield Kept(workshop, seat)


def stranger(workshop: Any, *jobids: int) -> None:
    """Let a worker of another process hold jobs."""
    with workshop.service() as service:
        service.workers["stranger"] = Worker()
        service.workers["stranger"].held = jobids
        for jobid in jobids:
            service.queue.remove(service.jobs[jobid])
            service.jobs[jobid].start("stranger", workshop.now)


# -- signs of life -----------------------------------------------------------------------------


def test_a_worker_that_does_nothing_gives_no_sign_of_life(workshop: Any, kept: Kept) -> None:
    workshop.add("echo")
    workshop.work()
    before = workshop.last_transaction()
    for _ in range(10):
        workshop.now += LEASE_SECONDS
        kept.tick()
    assert workshop.last_transaction() == before


def test_a_worker_beats_when_it_has_written_nothing_for_a_third_of_its_lease(
    workshop: Any, kept: Kept
) -> None:
    workshop.add("echo")
    workshop.claim()
    before = workshop.last_transaction()
    workshop.now += LEASE_SECONDS / 3 - 1
    kept.tick()
    assert workshop.last_transaction() == before
    workshop.now += 1
    kept.tick()
    first_beat = workshop.last_transaction()
    assert first_beat > before
    workshop.now += LEASE_SECONDS / 3 - 1
    kept.tick()
    assert workshop.last_transaction() == first_beat
    workshop.now += 1
    kept.tick()
    assert workshop.last_transaction() > first_beat


def test_the_lease_is_that_of_the_service(workshop: Any, kept: Kept) -> None:
    with workshop.service() as service:
        service.lease_seconds = 7.5
    assert kept.tick() == 7.5


# -- others ------------------------------------------------------------------------------------


def test_the_jobs_of_a_worker_without_signs_of_life_are_freed(workshop: Any, kept: Kept) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    begun = workshop.now
    for workshop.now in (begun, begun + LEASE_SECONDS - 1):
        kept.tick()
        assert workshop.get(jobid, "owner") == "stranger"
    workshop.now = begun + LEASE_SECONDS
    kept.tick()
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)
    assert kept.freed == [workshop.now]


def test_a_worker_that_beats_is_left_alone(workshop: Any, kept: Kept) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    for _ in range(5):
        kept.tick()
        workshop.now += LEASE_SECONDS - 1
        with workshop.service() as service:
            service.workers["stranger"].beat()
    kept.tick()
    assert workshop.get(jobid, "owner") == "stranger"


def test_workers_of_the_same_process_are_left_alone(workshop: Any, kept: Kept) -> None:
    jobid = workshop.add("echo")
    sibling = workshop.new_engine()
    sibling.claim(workshop.seat, 1)
    for _ in range(3):
        kept.tick()
        workshop.now += LEASE_SECONDS
    assert workshop.get(jobid, "owner") == sibling.identity.id


def test_a_service_that_was_taken_out_is_noticed(workshop: Any, kept: Kept) -> None:
    kept.tick()
    with workshop.transaction() as root:
        del root["tasks"]
    with pytest.raises((ServiceGone, POSKeyError)):
        kept.tick()


# -- retention ---------------------------------------------------------------------------------


def test_jobs_that_ended_long_ago_are_removed(workshop: Any, kept: Kept) -> None:
    day = 86_400.0
    jobid = workshop.add("echo")
    workshop.work()
    workshop.now += 29 * day
    kept.tick()
    assert workshop.get(jobid, "status") == COMPLETED
    workshop.now += 2 * day
    kept.tick()
    with workshop.service() as service:
        assert list(service.jobs) == []
        assert set(service.countJobs().values()) == {0}


def test_errors_are_kept_longer(workshop: Any, register: Callable[..., Any], kept: Kept) -> None:
    def end(input: Any) -> None:
        raise SystemExit

    register("end", end)
    jobid = workshop.add("end")
    workshop.work()
    workshop.now += 89 * 86_400.0
    kept.tick()
    assert workshop.get(jobid, "status") == ERROR
    workshop.now += 2 * 86_400.0
    kept.tick()
    with workshop.service() as service:
        assert list(service.jobs) == []


def test_of_too_many_ended_jobs_the_last_ones_are_kept(workshop: Any, kept: Kept) -> None:
    with workshop.service() as service:
        service.retention = {COMPLETED: Retention(None, 3)}
    added = []
    for number in range(8):
        added.append(workshop.add("echo", number))
        workshop.work()
        workshop.now += 1
    waiting = workshop.add("echo")
    kept.tick()
    with workshop.service() as service:
        assert set(service.jobs) == {*added[-3:], waiting}
        assert service.countJobs()[COMPLETED] == 3


def test_many_jobs_are_removed_in_several_transactions(workshop: Any, kept: Kept) -> None:
    with workshop.service() as service:
        for jobid in service.add_many("echo", range(1200)):
            service.cancel(jobid)
        service.retention = {"cancelled": Retention(None, 0)}
    kept.tick()
    with workshop.service() as service:
        assert len(service.jobs) == 0
    assert len(workshop.pauses) == 2


def test_nothing_is_removed_where_all_is_to_be_kept(workshop: Any, kept: Kept) -> None:
    with workshop.service() as service:
        service.retention = {}
    jobid = workshop.add("echo")
    workshop.work()
    workshop.now += 10_000 * 86_400.0
    kept.tick()
    assert workshop.get(jobid, "status") == COMPLETED


# -- mending -----------------------------------------------------------------------------------


def lose(workshop: Any, jobid: int) -> None:
    """Take a job out of its place, as no verb does."""
    with workshop.service() as service:
        service.jobs[jobid].place = None


def test_a_job_that_waits_nowhere_is_found_and_mended(
    workshop: Any, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    jobid = workshop.add("echo")
    lose(workshop, jobid)
    assert workshop.claim() == []
    kept.tick()
    assert [record.getMessage() for record in caplog.records] == [
        f"job {jobid}: it is queued, but waits nowhere; mended"
    ]
    assert workshop.work() == [jobid]


def test_the_jobs_are_checked_once_an_hour(workshop: Any, kept: Kept) -> None:
    kept.tick()
    jobid = workshop.add("echo")
    lose(workshop, jobid)
    workshop.now += CHECK_SECONDS - 1
    kept.tick()
    assert workshop.claim() == []
    workshop.now += 1
    kept.tick()
    assert workshop.work() == [jobid]


def test_a_check_that_finds_nothing_writes_nothing(workshop: Any, kept: Kept) -> None:
    for number in range(20):
        workshop.add("echo", number)
    before = workshop.last_transaction()
    kept.tick()
    assert workshop.last_transaction() == before
