# SPDX-License-Identifier: ZPL-2.1
"""Delayed and cron jobs in a worker: slots, clocks that jump, schedules that are broken."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ZODB.POSException import ReadConflictError

from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.errors import InvalidSchedule, RetryLater, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, CRONJOB, DELAYED, ERROR
from lovely.remotetask.job import MAX_MISSED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import TaskContext

HOUR = 3600.0
EVERY_MINUTE = range(60)


@pytest.fixture
def ticks(workshop: Any, register: Any) -> list[float]:
    """The times at which the task *tick* has run; the workshop stands at a full hour."""
    workshop.now = (workshop.now // HOUR + 2) * HOUR
    ticks: list[float] = []
    register("tick", lambda input: ticks.append(workshop.now))
    return ticks


def run_at(workshop: Any, *times: float) -> None:
    for workshop.now in times:
        workshop.work()


def test_a_delayed_job_runs_once_when_its_delay_is_over(workshop: Any, ticks: list[float]) -> None:
    begun = workshop.now
    jobid = workshop.add_cron_job("tick", delay=10)
    run_at(workshop, begun, begun + 9.9)
    assert workshop.get(jobid, "status") == DELAYED
    run_at(workshop, begun + 10, begun + 20, begun + 1000)
    assert ticks == [begun + 10]
    assert workshop.get(jobid, "status") == COMPLETED


def test_a_cron_job_runs_at_each_of_its_slots(workshop: Any, ticks: list[float]) -> None:
    begun = workshop.now
    jobid = workshop.add_cron_job("tick", minute=(10, 13))
    times = [begun + 60 * minute for minute in range(75)]
    run_at(workshop, *times)
    assert ticks == [begun + 60 * minute for minute in (10, 13, 70, 73)]
    assert workshop.get(jobid, "status", "missed", "attempt") == (CRONJOB, 0, 4)


def test_slots_do_not_drift_with_late_runs(workshop: Any, ticks: list[float]) -> None:
    begun = workshop.now
    jobid = workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    run_at(workshop, begun + 73, begun + 130)
    assert ticks == [begun + 73, begun + 130]
    assert workshop.get(jobid, "due") == begun + 180


def test_missed_slots_are_one_run_and_are_counted(workshop: Any, ticks: list[float]) -> None:
    begun = workshop.now
    jobid = workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    run_at(workshop, begun + 600, begun + 601)
    assert ticks == [begun + 600]
    assert workshop.get(jobid, "missed", "due") == (9, begun + 660)


def test_slots_that_pass_during_a_run_are_missed(workshop: Any, register: Any) -> None:
    workshop.now = begun = (workshop.now // HOUR + 2) * HOUR

    def take_long(input: Any) -> None:
        workshop.now += 150

    register("long", take_long)
    jobid = workshop.add_cron_job("long", minute=EVERY_MINUTE)
    workshop.now = begun + 60
    workshop.step()
    assert workshop.get(jobid, "missed", "due") == (2, begun + 240)


def test_missed_slots_are_counted_up_to_a_bound(workshop: Any, ticks: list[float]) -> None:
    jobid = workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    run_at(workshop, workshop.now + 1000 * 24 * HOUR)
    assert len(ticks) == 1
    assert workshop.get(jobid, "missed") == MAX_MISSED


def test_two_workers_run_a_slot_once(workshop: Any, ticks: list[float]) -> None:
    workshop.add_cron_job("tick", minute=(0,))
    rival = workshop.new_engine()
    workshop.now += HOUR
    [claim] = workshop.claim()
    assert rival.claims.claim(workshop.session, 1) == []
    workshop.run(claim)
    assert rival.claims.claim(workshop.session, 1) == []
    assert len(ticks) == 1


def test_a_cron_job_that_runs_is_not_started_again(workshop: Any, ticks: list[float]) -> None:
    workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    workshop.now += 60
    [claim] = workshop.claim()
    workshop.now += 60
    assert workshop.claim() == []
    workshop.run(claim)


# -- failures ----------------------------------------------------------------------------------


def test_a_failing_cron_job_goes_on_to_its_next_slot(workshop: Any, register: Any) -> None:
    workshop.now = begun = (workshop.now // HOUR + 2) * HOUR
    outcomes = [TaskError("no luck"), None]

    def stumble(input: Any) -> str:
        if error := outcomes.pop(0):
            raise error
        return "done"

    register("stumble", stumble)
    jobid = workshop.add_cron_job("stumble", minute=(0,))
    run_at(workshop, begun + HOUR)
    assert workshop.get(jobid, "status", "error", "due") == (CRONJOB, "no luck", begun + 2 * HOUR)
    run_at(workshop, begun + 2 * HOUR)
    assert workshop.get(jobid, "status", "error", "output") == (CRONJOB, None, "done")


def test_a_run_of_a_cron_job_is_repeated_as_its_policy_says(workshop: Any, register: Any) -> None:
    workshop.now = begun = (workshop.now // HOUR + 2) * HOUR
    calls = []

    def fail(input: Any) -> None:
        calls.append(workshop.now - begun)
        raise ValueError("no luck")

    policy = RetryPolicy(attempts=3, first_wait_seconds=100, jitter=0)
    register("fail", fail)
    jobid = workshop.add_cron_job("fail", minute=(0,), retry=policy)
    run_at(workshop, *(begun + second for second in range(0, int(2.2 * HOUR), 20)))
    assert calls == [3600, 3700, 3900, 7200, 7300, 7500]
    assert workshop.get(jobid, "status", "due", "errors") == (CRONJOB, begun + 3 * HOUR, 0)
    assert workshop.get(jobid, "missed") == 0


def test_a_run_that_wants_to_be_run_later_keeps_its_slots(workshop: Any, register: Any) -> None:
    workshop.now = begun = (workshop.now // HOUR + 2) * HOUR
    calls = []

    def wait(input: Any) -> None:
        calls.append(workshop.now - begun)
        if len(calls) == 1:
            raise RetryLater(600)

    register("wait", wait)
    workshop.add_cron_job("wait", minute=(0,))
    run_at(workshop, *(begun + second for second in range(0, int(2.2 * HOUR), 60)))
    assert calls == [3600, 4200, 7200]


def test_slots_that_pass_while_a_run_waits_for_its_repeat_are_missed(
    workshop: Any, register: Any
) -> None:
    workshop.now = begun = (workshop.now // HOUR + 2) * HOUR
    errors = [ValueError("once"), None]

    def stumble(input: Any) -> None:
        if error := errors.pop(0):
            raise error

    policy = RetryPolicy(first_wait_seconds=300, jitter=0)
    register("stumble", stumble, retry=policy)
    jobid = workshop.add_cron_job("stumble", minute=EVERY_MINUTE)
    run_at(workshop, begun + 60, begun + 360)
    assert errors == []
    # Of the slots at 120 to 360 the repeat serves one.
    assert workshop.get(jobid, "missed", "due") == (4, begun + 420)


# -- cancelling --------------------------------------------------------------------------------


def test_cancelling_a_cron_job_while_it_runs_is_its_end(workshop: Any, register: Any) -> None:
    def deaf(context: Any, input: Any) -> None:
        with workshop.service() as service:
            service.cancel(context.jobid)
            assert service.jobs[context.jobid].is_cancel_requested

    register("deaf", deaf, context=True)
    jobid = workshop.add_cron_job("deaf", minute=(0,))
    workshop.now += HOUR
    workshop.step()
    workshop.claim()
    assert workshop.get(jobid, "status") == CANCELLED
    workshop.now += 10 * HOUR
    assert workshop.work() == []


# -- clocks ------------------------------------------------------------------------------------


def test_a_clock_that_jumps_ahead_leads_to_one_run(workshop: Any, ticks: list[float]) -> None:
    begun = workshop.now
    workshop.add_cron_job("tick", minute=(0,))
    run_at(workshop, begun + 50 * HOUR, begun + 50 * HOUR + 60, begun + 51 * HOUR)
    assert ticks == [begun + 50 * HOUR, begun + 51 * HOUR]


def test_a_clock_that_is_put_back_a_little_repeats_no_slot(
    workshop: Any, ticks: list[float]
) -> None:
    begun = workshop.now
    workshop.add_cron_job("tick", minute=(0,))
    run_at(workshop, begun + HOUR, begun + HOUR - 600, begun + HOUR, begun + 2 * HOUR)
    assert ticks == [begun + HOUR, begun + 2 * HOUR]


def test_a_clock_that_was_far_ahead_stops_no_schedule(workshop: Any, ticks: list[float]) -> None:
    begun = workshop.now
    jobid = workshop.add_cron_job("tick", minute=(0,))
    ahead = begun + 1000 * 24 * HOUR
    run_at(workshop, ahead)
    assert ticks == [ahead]
    run_at(workshop, begun + 60)
    assert workshop.get(jobid, "due") == begun + HOUR
    run_at(workshop, begun + HOUR)
    assert ticks == [ahead, begun + HOUR]


# -- zones -------------------------------------------------------------------------------------


def test_a_job_in_a_zone_keeps_its_wall_clock_time_through_the_year(
    workshop: Any, ticks: list[float]
) -> None:
    zone = ZoneInfo("Europe/Vienna")
    workshop.now = datetime(2030, 3, 29, 12, tzinfo=zone).timestamp()
    workshop.add_cron_job("tick", hour=(3,), minute=(30,), timezone="Europe/Vienna")
    first = workshop.now
    run_at(workshop, *(first + 1800 * half_hour for half_hour in range(4 * 48)))
    # Clocks go forward on 31 March 2030, from 2:00 to 3:00.
    assert [datetime.fromtimestamp(tick, zone).strftime("%d %H:%M") for tick in ticks] == [
        "30 03:30",
        "31 03:30",
        "01 03:30",
        "02 03:30",
    ]
    assert ticks[1] - ticks[0] == 23 * HOUR


# -- broken schedules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"minute": ("x",)},
        {"month": (2,), "dayOfMonth": (31,)},
        {"cron": "what?"},
        {"timezone": "localtime"},
        {"minute": None},
    ],
    ids=repr,
)
def test_a_broken_stored_schedule_sets_that_job_aside_alone(
    workshop: Any, ticks: list[float], broken: dict[str, Any]
) -> None:
    jobid = workshop.add_cron_job("tick", minute=(0,))
    healthy = workshop.add_cron_job("tick", minute=(0,))
    with workshop.service() as service:
        for name, value in broken.items():
            setattr(service.jobs[jobid], name, value)
    workshop.now += HOUR
    workshop.work()
    workshop.now += HOUR
    workshop.work()
    assert len(ticks) >= 2
    assert workshop.get(jobid, "status") == ERROR
    assert workshop.get(healthy, "status") == CRONJOB
    with workshop.service() as service:
        assert service.countJobs()[ERROR] == 1
        assert check_all(service, workshop.now, repair=False) == []


def test_a_schedule_that_breaks_while_its_job_runs_ends_that_job(
    workshop: Any, register: Any
) -> None:
    def break_it(context: Any, input: Any) -> str:
        context.service.jobs[context.jobid].month = (13,)
        return "done"

    register("break", break_it, context=True)
    jobid = workshop.add_cron_job("break", minute=(0,))
    follower = workshop.add("echo")
    workshop.now += HOUR
    assert sorted(workshop.work()) == sorted([jobid, follower])
    assert workshop.get(jobid, "status") == ERROR


# -- what a run writes ---------------------------------------------------------------------------


def written_last(workshop: Any) -> set[bytes]:
    """Return the ids of the objects that the last transaction has written."""
    written: set[bytes] = set()
    with closing(workshop.db.storage.iterator()) as transactions:
        for records in transactions:
            written = {record.oid for record in records}
    return written


@pytest.mark.parametrize("ending", ["completed", "failed", "later"])
def test_the_end_of_a_run_writes_the_record_alone(
    file_workshop: Any, register: Any, ending: str
) -> None:
    def tick(input: Any) -> None:
        if ending != "completed":
            raise TaskError("no") if ending == "failed" else RetryLater(5)

    register("tick", tick)
    jobid = file_workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    file_workshop.add_cron_job("tick", minute=(5,))  # waits in the same index
    file_workshop.now += 90
    file_workshop.step()
    with file_workshop.service() as service:
        assert written_last(file_workshop) == {service.jobs[jobid]._p_oid}
        assert check_all(service, file_workshop.now, False) == []
        assert service.countJobs()[CRONJOB] == 2


def test_a_job_that_waits_again_is_not_lost_with_its_worker(
    workshop: Any, ticks: list[float]
) -> None:
    begun = workshop.now
    workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    workshop.now = begun + 60
    workshop.step()
    dead, workshop.engine = workshop.engine, workshop.new_engine()
    with workshop.service() as service:
        assert rescue(service, dead.claims.identity.id, workshop.now) == 0
        assert check_all(service, workshop.now, False) == []
    run_at(workshop, begun + 120)
    assert ticks == [begun + 60, begun + 120]


@pytest.mark.parametrize("change", ["cancel", "reschedule"])
def test_a_job_that_waits_again_can_be_changed_before_it_is_filed(
    workshop: Any, ticks: list[float], change: str
) -> None:
    begun = workshop.now
    jobid = workshop.add_cron_job("tick", minute=EVERY_MINUTE)
    workshop.now = begun + 60
    workshop.step()
    with workshop.service() as service:
        if change == "cancel":
            service.cancel(jobid)
        else:
            service.jobs[jobid].update(hour=((time.gmtime(begun).tm_hour + 12) % 24,))
            service.reschedule(jobid)
    workshop.claim(0)
    with workshop.service() as service:
        assert check_all(service, workshop.now, False) == []
        assert sum(service.countJobs().values()) == 1
    run_at(workshop, begun + 120)
    assert ticks == [begun + 60]


# -- schedules that are edited while they run ------------------------------------------------------


@pytest.fixture
def edited(workshop: Any, register: Any) -> Any:
    """Return ``edited(edit, ending)``: a run of an hourly job in which it is edited twice."""
    workshop.now = (workshop.now // HOUR + 2) * HOUR
    runs: list[float] = []

    def edited(edit: dict[str, Any], ending: BaseException | None = None, **first: Any) -> int:
        def work(input: Any) -> None:
            runs.append(workshop.now)
            for change in ({"delay": 77}, edit):
                with workshop.service() as service:
                    service.jobs[jobid].update(**change)
                    service.reschedule(jobid)
            if ending is not None:
                raise ending

        register("work", work)
        jobid: int = workshop.add_cron_job("work", **(first or {"minute": (30,)}))
        workshop.now = workshop.get(jobid, "due")
        workshop.step()
        assert runs == [workshop.now]
        workshop.claim(0)
        with workshop.service() as service:
            assert len(service.edits) == 0
            assert check_all(service, workshop.now, False) == []
        return jobid

    return edited


@pytest.mark.parametrize("ending", [None, TaskError("no"), RetryLater(5)])
def test_a_schedule_that_is_edited_while_it_runs_counts_from_the_end_of_the_run(
    workshop: Any, edited: Any, ending: BaseException | None
) -> None:
    jobid = edited({"minute": (45,)}, ending)
    assert workshop.get(jobid, "status", "attempt", "conflicts") == (CRONJOB, 1, 0)
    assert workshop.get(jobid, "due") == workshop.now + 15 * 60
    assert workshop.get(jobid, "minute", "delay") == ((45,), None)


def test_a_schedule_can_become_a_delay_while_it_runs(workshop: Any, edited: Any) -> None:
    jobid = edited({"delay": 20})
    assert workshop.get(jobid, "status", "due") == (DELAYED, workshop.now + 20)


def test_a_delayed_job_that_has_run_is_over_whatever_its_delay_is_now(
    workshop: Any, edited: Any
) -> None:
    assert workshop.get(edited({"delay": 20}, delay=5), "status") == COMPLETED


def test_a_delayed_job_can_become_a_schedule_while_it_runs(workshop: Any, edited: Any) -> None:
    jobid = edited({"cron": "0 * * * *"}, delay=5)
    assert workshop.get(jobid, "status", "cron") == (CRONJOB, "0 * * * *")
    assert workshop.get(jobid, "due") == (workshop.now // HOUR + 1) * HOUR


def test_a_wrong_edit_is_refused_while_the_job_runs_too(workshop: Any, register: Any) -> None:
    def work(input: Any) -> None:
        with workshop.service() as service, pytest.raises(InvalidSchedule):
            service.jobs[jobid].update(minute=(99,))

    register("work", work)
    jobid = workshop.add_cron_job("work", delay=1)
    workshop.now += 2
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED


def test_an_edit_that_meets_the_end_of_the_run_is_not_lost(
    workshop: Any, ticks: list[float]
) -> None:
    jobid = workshop.add_cron_job("tick", minute=(30,))
    workshop.now = workshop.get(jobid, "due")
    [claim] = workshop.claim()

    def edit_while_the_run_ends() -> None:
        with workshop.service() as service:
            service.jobs[jobid].update(minute=(45,))
            workshop.run(claim)

    with pytest.raises(ReadConflictError):
        edit_while_the_run_ends()
    with workshop.service() as service:  # what was refused is repeated
        service.jobs[jobid].update(minute=(45,))
        service.reschedule(jobid)
        assert len(service.edits) == 0
    assert workshop.get(jobid, "minute") == (45,)


def test_an_edit_outlives_the_worker(workshop: Any, ticks: list[float]) -> None:
    jobid = workshop.add_cron_job("tick", minute=(30,))
    workshop.now = workshop.get(jobid, "due")
    workshop.claim()
    with workshop.service() as service:
        service.jobs[jobid].update(minute=(45,))
    with workshop.service() as service:
        rescue(service, workshop.engine.claims.identity.id, workshop.now)
    assert workshop.get(jobid, "status", "due") == (CRONJOB, workshop.now + 15 * 60)


def test_an_edit_inside_the_run_itself_takes_effect(workshop: Any, register: Any) -> None:
    def work(context: TaskContext, input: Any) -> None:
        context.service.jobs[context.jobid].update(minute=(45,))

    register("work", work, context=True)
    workshop.now = (workshop.now // HOUR + 2) * HOUR
    jobid = workshop.add_cron_job("work", minute=(30,))
    workshop.now += 30 * 60
    workshop.work()
    assert workshop.get(jobid, "minute", "due") == ((45,), workshop.now + 15 * 60)
