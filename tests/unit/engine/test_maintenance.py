# SPDX-License-Identifier: ZPL-2.1
"""What a worker does beside its jobs, one look after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ZODB.POSException import POSKeyError

from lovely.remotetask.engine import upkeep
from lovely.remotetask.engine.maintenance import CHECK_SECONDS, Maintenance
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.engine.retention import DEFAULT_RETENTION, Retention, prune
from lovely.remotetask.errors import InvalidArgument, JobIsLive, ServiceGone
from lovely.remotetask.interfaces import (
    COMPLETED,
    ERROR,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
    STATUSES,
)
from lovely.remotetask.store.worker import LEASE_SECONDS, Worker


class Kept:
    """A maintenance, and what it has called."""

    def __init__(self, workshop: Any, session: Any) -> None:
        self.workshop = workshop
        self.session = session
        self.upkeep = workshop.engine.upkeep
        self.freed: list[float] = []
        self.maintenance = Maintenance(
            workshop.engine,
            lambda: True,
            lambda: self.freed.append(workshop.now),
            lambda thread: None,
        )

    def tick(self) -> float:
        return self.maintenance.tick(self.session)

    def watch_for_a_lease(self) -> None:
        """Look at the others until one that shows no sign of life counts as dead."""
        for _ in range(3):
            self.tick()
            self.workshop.now += LEASE_SECONDS / 3


@pytest.fixture
def kept(workshop: Any) -> Iterator[Kept]:
    with workshop.engine.claims.open_beside() as session:
        yield Kept(workshop, session)


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


def test_the_steps_of_a_look_share_a_transaction_while_nothing_is_written(
    workshop: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        workshop.add("echo", number)
    begins = spied(kept.session, monkeypatch)
    kept.tick()
    assert len(begins) == 1
    workshop.now += CHECK_SECONDS
    kept.tick()
    assert len(begins) == 2


def test_a_step_that_writes_ends_the_shared_transaction(
    workshop: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = workshop.add("echo")
    workshop.claim()
    workshop.now += LEASE_SECONDS / 3
    begins = spied(kept.session, monkeypatch)
    kept.tick()
    # Of the look, of the sign of life, and one for all that comes behind that.
    assert len(begins) == 3
    assert workshop.get(jobid, "status") == PROCESSING


def test_a_step_sees_what_was_committed_before_its_look(workshop: Any, kept: Kept) -> None:
    kept.tick()
    first = workshop.add("echo")
    second = workshop.add("echo", after=first)
    kept.tick()
    with workshop.service() as service:
        del service.jobs[first]
    kept.tick()
    workshop.work()
    assert workshop.get(second, "status") == ERROR


def spied(session: Any, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that grows with each transaction that a session begins."""
    begins: list[None] = []
    begin = session.begin

    def counted() -> Any:
        begins.append(None)
        return begin()

    monkeypatch.setattr(session, "begin", counted)
    return begins


def test_a_look_that_is_wanted_while_it_looks_is_made(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    times = iter([True, True, False])
    maintenance = Maintenance(
        workshop.engine, lambda: next(times), lambda: None, lambda thread: None
    )

    def free_dead(session: Any, lease: float) -> int:
        looks.append(lease)
        if len(looks) == 1:
            maintenance.hurry()
        return 0

    monkeypatch.setattr(workshop.engine.upkeep, "free_dead", free_dead)
    maintenance()
    assert len(looks) == 2


# -- others ------------------------------------------------------------------------------------


def test_the_jobs_of_a_worker_without_signs_of_life_are_freed(workshop: Any, kept: Kept) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    for _ in range(3):
        kept.tick()
        assert workshop.get(jobid, "owner") == "stranger"
        workshop.now += LEASE_SECONDS / 3
    kept.tick()
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)
    assert kept.freed == [workshop.now]


def test_who_was_stopped_for_a_lease_robs_nobody(workshop: Any, kept: Kept) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    kept.tick()
    workshop.now += LEASE_SECONDS + 1
    kept.tick()
    assert workshop.get(jobid, "owner") == "stranger"


def test_a_sign_of_life_after_the_look_is_no_death(workshop: Any, kept: Kept) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    look = kept.upkeep._dead
    judged: list[Any] = []

    def look_and_beat(service: Any, lease: float) -> Any:
        judged[:] = look(service, lease)
        with workshop.service() as other:
            other.workers["stranger"].beat()
        return list(judged)

    kept.watch_for_a_lease()
    kept.upkeep._dead = look_and_beat  # type: ignore[method-assign]
    kept.tick()
    assert judged
    assert workshop.get(jobid, "owner", "deaths") == ("stranger", 0)


def test_a_sign_of_life_in_the_moment_of_the_rescue_is_no_death(
    workshop: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    kept.watch_for_a_lease()
    tries = []

    def rescue_late(service: Any, **options: Any) -> int:
        freed = rescue(service, **options)
        tries.append(freed)
        if len(tries) == 1:
            with workshop.service() as other:
                other.workers["stranger"].beat()
        return freed

    monkeypatch.setattr(upkeep, "rescue", rescue_late)
    kept.tick()
    assert tries == [1, 0]
    assert workshop.get(jobid, "owner", "deaths") == ("stranger", 0)


def test_a_worker_that_cannot_be_freed_keeps_nobody_waiting(
    workshop: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = workshop.add("echo")
    stranger(workshop, jobid)
    kept.watch_for_a_lease()

    def fail(service: Any, **options: Any) -> int:
        raise POSKeyError(b"\0" * 8)

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "rescue", fail)
        kept.tick()
    workshop.now += LEASE_SECONDS / 3
    kept.tick()
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)


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
    sibling.claims.claim(workshop.session, 1)
    for _ in range(3):
        kept.tick()
        workshop.now += LEASE_SECONDS
    assert workshop.get(jobid, "owner") == sibling.claims.identity.id


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
    assert len(workshop.pauses) >= 2


@pytest.mark.parametrize("status", [*sorted({*STATUSES} - {*FINAL_STATUSES}), "done"])
def test_jobs_that_are_still_needed_are_none_of_the_retention(
    workshop: Any, kept: Kept, status: str
) -> None:
    with workshop.service() as service:
        service.addCronJob("echo", minute=(0,))
        service.addCronJob("echo", delay=60)
        service.add("echo", startLater=True)
        before = service.countJobs()
    with workshop.service() as service:
        with pytest.raises(JobIsLive, match=status):
            service.retention = {COMPLETED: Retention(None, 3), status: Retention(None, 0)}
        assert service.retention is DEFAULT_RETENTION
        assert not service._p_changed
    added = workshop.add("echo")
    workshop.work()
    with workshop.service() as service:
        # As a release that did not look had stored it.
        service.__dict__["retention"] = {
            status: Retention(0.0, 0),
            COMPLETED: Retention(None, 0),
        }
        service._p_changed = True
    workshop.now += 10
    kept.tick()
    with workshop.service() as service:
        assert service.countJobs() == before
        assert added not in service.jobs


def test_a_retention_is_a_dict(workshop: Any) -> None:
    with workshop.service() as service:
        for odd in (None, 5, "completed", [COMPLETED]):
            with pytest.raises(InvalidArgument, match="retention must be a dict"):
                service.retention = odd
        assert not service._p_changed


class Slow:
    """A step that takes some seconds for each job, by the clock of the workshop."""

    def __init__(self, workshop: Any, step: Callable[..., Any], seconds: float) -> None:
        self.workshop = workshop
        self.step = step
        self.seconds = seconds
        self.sizes: list[int] = []

    def __call__(self, service: Any, **options: Any) -> Any:
        self.sizes.append(options["size"])
        self.workshop.now += self.seconds * options["size"]
        return self.step(service, **options)


@pytest.mark.parametrize("name", ["prune", "check_jobs"])
def test_what_can_wait_keeps_nothing_waiting_that_cannot(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with workshop.service() as service:
        service.lease_seconds = 3.0
        for jobid in service.add_many("echo", range(1500)):
            if name == "prune":
                service.cancel(jobid)
        service.retention = {"cancelled": Retention(None, 0)}
    workshop.add("echo")
    workshop.claim()
    slow = Slow(workshop, getattr(upkeep, name), 0.01)
    monkeypatch.setattr(upkeep, name, slow)
    beats = []
    beat = workshop.engine.claims.beat

    def note(session: Any) -> None:
        beats.append(workshop.now)
        beat(session)

    workshop.engine.claims.beat = note
    looks = 0

    def is_needed() -> bool:
        nonlocal looks
        looks += 1
        return looks < 2 or bool(the_keeper._has_chores)

    the_keeper = Maintenance(workshop.engine, is_needed, lambda: None, lambda thread: None)
    begun = workshop.now
    the_keeper()
    assert sum(slow.sizes) >= 1500
    times = [begun, *beats, workshop.now]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(beats) > 5
    assert max(gaps) < 2.0  # two thirds of the lease


def test_timeouts_are_heeded_while_the_keeper_prunes(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workshop.service() as service:
        for jobid in service.add_many("echo", range(1500)):
            service.cancel(jobid)
        service.retention = {"cancelled": Retention(None, 0)}
    monkeypatch.setattr(upkeep, "prune", Slow(workshop, prune, 0.01))
    looked = []

    the_keeper = Maintenance(
        workshop.engine,
        lambda: not looked or the_keeper._has_chores,
        lambda: None,
        lambda thread: None,
    )
    monkeypatch.setattr(the_keeper, "_expire", lambda: looked.append(workshop.now))
    the_keeper()
    gaps = [after - before for before, after in itertools.pairwise(looked)]
    assert len(looked) > 10
    assert max(gaps) < 1.5


def test_a_step_that_fails_is_left_to_the_next_tick(
    workshop: Any, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(service: Any, **options: Any) -> int:
        raise POSKeyError(b"\0" * 8)

    workshop.add("echo")
    workshop.claim()
    monkeypatch.setattr(upkeep, "prune", fail)
    before = workshop.last_transaction()
    workshop.now += LEASE_SECONDS / 3
    kept.tick()
    assert workshop.last_transaction() > before  # it has given a sign of life
    assert not any(pause > 0.1 for pause in workshop.pauses)


def test_a_tick_that_fails_keeps_no_timeout_waiting(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    the_keeper = Maintenance(workshop.engine, lambda: True, lambda: None, lambda thread: None)

    def fail(session: Any) -> float:
        raise POSKeyError(b"\0" * 8)

    monkeypatch.setattr(the_keeper, "tick", fail)
    monkeypatch.setattr(the_keeper, "_expire", lambda: looked.append(1))
    for _ in range(3):
        with pytest.raises(POSKeyError):
            the_keeper()
    assert len(looked) == 3


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
