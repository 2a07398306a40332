# SPDX-License-Identifier: ZPL-2.1
"""Times that a clock far ahead has set, and time zones that a machine lacks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask import schedule
from lovely.remotetask.errors import InvalidSchedule, RetryLater, UnknownZone
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, CRONJOB, DELAYED, QUEUED
from lovely.remotetask.job import CronJob
from lovely.remotetask.store import queue
from lovely.remotetask.store.check import check_all, check_jobs

HOUR = 3600.0
DAY = 24 * HOUR
FAR = 400 * DAY


@pytest.fixture
def later(register: Any) -> list[int]:
    """The runs of the task *later*, which asks to be run again each first time."""
    runs: list[int] = []

    def later(input: Any) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RetryLater(2 * DAY)

    register("later", later)
    return runs


def put_back(workshop: Any) -> None:
    """Put the clock back, and start another worker."""
    workshop.claim(0)  # files what waits again
    workshop.now -= FAR
    workshop.db.cacheMinimize()
    workshop.engine = workshop.new_engine()
    with workshop.service() as service:
        for worker_id in list(service.workers):
            del service.workers[worker_id]


@pytest.mark.parametrize("where", [QUEUED, DELAYED])
def test_a_retry_that_was_timed_by_a_clock_ahead_waits_as_long_as_it_was_to(
    workshop: Any, later: list[int], where: str
) -> None:
    if where == QUEUED:
        jobid = workshop.add("later")
    else:
        jobid = workshop.add_cron_job("later", delay=0)
    workshop.now += FAR
    workshop.step()
    assert workshop.get(jobid, "due") == workshop.now + 2 * DAY
    put_back(workshop)
    assert workshop.claim() == []
    assert workshop.get(jobid, "status", "due") == (where, workshop.now + 2 * DAY)
    for _ in range(2):  # once is enough
        with workshop.service() as service:
            service.process(workshop.now)
            assert check_all(service, workshop.now, repair=False) == []
    workshop.now += 2 * DAY
    assert workshop.work() == [jobid]


def test_a_cron_job_whose_retry_was_timed_so_goes_on(workshop: Any, later: list[int]) -> None:
    jobid = workshop.add_cron_job("later", minute=(0,))
    workshop.now += HOUR
    claims = workshop.claim()
    workshop.now += FAR  # while it runs
    workshop.run(claims[0])
    put_back(workshop)
    workshop.claim()
    assert workshop.get(jobid, "due") == workshop.now + 2 * DAY
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def test_a_job_that_was_given_back_by_a_clock_ahead_is_due_at_once(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: workshop.now + FAR)
    jobid = workshop.add("echo")
    monkeypatch.undo()
    workshop.now += FAR + 10
    workshop.engine.claims.give_back(workshop.session, workshop.claim())
    put_back(workshop)
    assert workshop.work() == [jobid]


def test_a_cron_job_that_was_given_back_by_a_clock_ahead_is_due_at_once(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,))
    workshop.now += HOUR
    claims = workshop.claim()
    workshop.now += FAR  # while it runs
    workshop.engine.claims.give_back(workshop.session, claims)
    put_back(workshop)
    assert workshop.work() == [jobid]
    workshop.now += HOUR
    assert workshop.work() == [jobid]


@pytest.mark.parametrize("is_cron", [False, True])
def test_a_job_that_was_put_back_by_a_clock_ahead_because_of_conflicts_goes_on(
    workshop: Any, register: Any, is_cron: bool
) -> None:
    def collide(input: Any) -> None:
        raise ConflictError

    register("collide", collide)
    jobid = workshop.add_cron_job("collide", minute=(0,)) if is_cron else workshop.add("collide")
    workshop.now += HOUR
    claims = workshop.claim()
    workshop.now += FAR
    workshop.run(claims[0])
    put_back(workshop)
    register("collide", lambda input: None)
    assert workshop.work() == []
    workshop.now += 2.0
    assert workshop.work() == [jobid]


def test_a_cron_job_that_was_only_claimed_by_a_clock_ahead_goes_on(
    workshop: Any, register: Any
) -> None:
    def soon(input: Any) -> None:
        raise RetryLater(60)

    register("soon", soon)
    jobid = workshop.add_cron_job("soon", minute=(0,))
    workshop.now += FAR
    claims = workshop.claim()
    workshop.now -= FAR  # while it runs
    workshop.run(claims[0])
    workshop.claim()
    register("soon", lambda input: None)
    workshop.now += 60
    assert workshop.work() == [jobid]
    assert workshop.now < workshop.get(jobid, "due") <= workshop.now + HOUR


def test_a_retry_that_is_really_far_away_is_left(workshop: Any, later: list[int]) -> None:
    jobid = workshop.add("later")
    workshop.step()
    due = workshop.get(jobid, "due")
    workshop.db.cacheMinimize()
    with workshop.service() as service:
        service.process(workshop.now)
        assert check_all(service, workshop.now, repair=True) == []
    assert workshop.get(jobid, "due") == due


def test_a_check_finds_those_that_are_too_many_to_be_looked_at(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(input: Any) -> None:
        raise RetryLater(5)

    register("fail", fail)
    jobids = [workshop.add("fail") for _ in range(5)]
    jobids.append(workshop.add_cron_job("echo", delay=60))
    workshop.now += FAR
    with workshop.service() as service:
        service.queue.reschedule(service.jobs[jobids[-1]], workshop.now)
    for _ in range(5):
        workshop.step()
    put_back(workshop)
    monkeypatch.setattr(queue, "RECOUNT_LIMIT", 0)
    workshop.claim()
    with workshop.service() as service:
        problems, _ = check_jobs(service, workshop.now, repair=True)
        assert sorted(problem.jobid for problem in problems) == sorted(jobids)
        assert check_all(service, workshop.now, repair=False) == []
        assert all(service.jobs[jobid].due <= workshop.now + 60 for jobid in jobids)


# -- time zones ----------------------------------------------------------------------------------


@pytest.fixture
def lack(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return ``lack(*names)``, which makes this a machine without these time zones."""
    lacking: tuple[str, ...] = ()
    real = schedule.ZoneInfo

    def zone_info(name: str) -> Any:
        if name in lacking:
            raise KeyError(name)
        return real(name)

    def lack(*names: str) -> None:
        nonlocal lacking
        lacking = names
        schedule._cached_schedule.cache_clear()

    monkeypatch.setattr(schedule, "ZoneInfo", zone_info)
    return lack


BERLIN = "Europe/Berlin"


def test_a_job_whose_zone_is_not_known_waits_for_a_machine_that_knows_it(
    workshop: Any, lack: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,), timezone=BERLIN)
    other = workshop.add_cron_job("echo", minute=(0,), timezone="Asia/Tokyo")
    lack(BERLIN)
    with caplog.at_level(logging.WARNING, "remotetask.job"):
        for _ in range(3):
            workshop.now += HOUR
            assert workshop.work() == [other]
            with workshop.service() as service:
                service.process(workshop.now)
                assert not service.hasJobsWaiting(workshop.now)
    assert len(caplog.messages) == 1
    assert workshop.get(jobid, "status", "attempt", "failures") == (CRONJOB, 0, ())
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=True) == []
        assert sum(service.countJobs().values()) == 2
    lack()
    with workshop.service() as service:
        assert service.hasJobsWaiting(workshop.now)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "missed") == 2
    with workshop.service() as service:
        assert len(service.queue.parked) == 0


def test_its_zone_is_lost_while_it_runs(workshop: Any, lack: Any, register: Any) -> None:
    register("lose", lambda input: lack(BERLIN))
    jobid = workshop.add_cron_job("lose", minute=(0,), timezone=BERLIN)
    workshop.now += HOUR
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status", "attempt", "due") == (CRONJOB, 1, None)
    workshop.now += HOUR
    assert workshop.work() == []
    lack()
    assert workshop.work() == []  # the slot is counted, no run comes out of turn
    due = workshop.get(jobid, "due")
    assert workshop.now < due <= workshop.now + HOUR
    workshop.now += HOUR
    assert workshop.work() == [jobid]
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


@pytest.mark.parametrize("is_once", [False, True])
def test_it_is_given_a_zone_while_it_runs_that_its_worker_lacks(
    workshop: Any, lack: Any, register: Any, is_once: bool
) -> None:
    def edit(input: Any) -> None:
        with workshop.service() as service:
            service.jobs[jobid].update(minute=(0,), timezone=BERLIN)
        lack(BERLIN)

    register("edit", edit)
    jobid = workshop.add_cron_job("edit", **({"delay": 0} if is_once else {"minute": (0,)}))
    workshop.now += HOUR
    assert workshop.work() == [jobid]
    other = workshop.add("echo")
    workshop.now += HOUR
    assert workshop.work() == [other]
    assert workshop.get(jobid, "status", "due", "timezone") == (CRONJOB, None, BERLIN)
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=True) == []
        assert len(service.edits) == 0
    lack()
    register("edit", lambda input: None)
    assert workshop.work() == []
    workshop.now += HOUR
    assert workshop.work() == [jobid]
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def test_it_is_given_a_delay_while_it_is_parked(workshop: Any, lack: Any, register: Any) -> None:
    register("lose", lambda input: lack(BERLIN))
    jobid = workshop.add_cron_job("lose", minute=(0,), timezone=BERLIN)
    workshop.now += HOUR
    assert workshop.work() == [jobid]
    assert workshop.claim() == []
    with workshop.service() as service:
        assert service.queue.stands_by(service.jobs[jobid])
        service.jobs[jobid].update(delay=5)  # and nobody calls reschedule
    lack()
    register("lose", lambda input: None)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status", "attempt") == (COMPLETED, 2)
    assert workshop.claim() == []  # files it
    before = workshop.last_transaction()
    assert workshop.claim() == []
    assert workshop.last_transaction() == before
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def test_a_parked_job_can_be_cancelled(workshop: Any, lack: Any) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,), timezone=BERLIN)
    lack(BERLIN)
    workshop.now += HOUR
    workshop.work()
    with workshop.service() as service:
        service.cancel(jobid)
        assert service.getStatus(jobid) == CANCELLED
        assert len(service.queue.parked) == 0
        assert check_all(service, workshop.now, repair=False) == []


def test_a_clock_that_is_put_back_does_not_stumble_over_it(workshop: Any, lack: Any) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,), timezone=BERLIN)
    workshop.now += FAR
    with workshop.service() as service:
        service.queue.reschedule(service.jobs[jobid], workshop.now)
    other = workshop.add("echo")
    put_back(workshop)
    lack(BERLIN)
    assert workshop.work() == [other]
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)


def test_a_zone_that_is_not_known_is_an_error_of_its_own(workshop: Any, lack: Any) -> None:
    lack(BERLIN)
    with workshop.service() as service:
        with pytest.raises(UnknownZone, match="there is no such time zone"):
            service.addCronJob("echo", timezone=BERLIN)
        with pytest.raises(InvalidSchedule, match="everywhere") as caught:
            service.addCronJob("echo", timezone="localtime")
        assert caught.type is InvalidSchedule
        assert len(service.jobs) == 0


def test_a_slot_that_is_really_far_away_is_left_though_the_last_run_was_ahead() -> None:
    february = datetime(2027, 2, 1, tzinfo=timezone.utc).timestamp()
    job = CronJob(1, "echo", cron="0 0 1 1 *")
    job.created_at = february
    job.start("worker", february + 100 * DAY)
    job.wait(job.count_from(february))
    assert job.due is not None
    assert job.due > february + 300 * DAY
    assert not job.is_ahead_of(february)
