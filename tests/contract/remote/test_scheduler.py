# SPDX-License-Identifier: ZPL-2.1
"""Scheduler items, their container, and the jobs that they add."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import zope.event
from transaction.interfaces import TransientError
from zope.lifecycleevent import ObjectModifiedEvent

from lovely.remotetask.remote.scheduler import Cron, Delay, adjustCallTime

#: Nothing can be counted from here on.
END_OF_TIME = datetime.max.replace(tzinfo=timezone.utc)

FIELDS = ("minute", "hour", "dayOfMonth", "month", "dayOfWeek")


def at(seconds: float) -> datetime:
    """A time on a Tuesday, far enough ahead that no clock has come to it."""
    return datetime(2069, 12, 31, tzinfo=timezone.utc) + timedelta(seconds=seconds)


def delay(**data: Any) -> Delay:
    """An active item that is due at 0, and each 10 seconds."""
    return Delay({"jobName": "note", "delay": 10, "active": True, "nextCallTime": at(0), **data})


def cron(**data: Any) -> Cron:
    """An active item that is due at 0, and at five past each hour."""
    return Cron({"jobName": "note", "minute": [5], "active": True, "nextCallTime": at(0), **data})


# -- items ---------------------------------------------------------------------------------


def test_items_have_defaults() -> None:
    for item in (Delay({"delay": 5}), Cron()):
        assert item.active is False
        assert item.retryDelay == 300
        for name in ("retryTime", "jobName", "input", "title", "description", "__name__"):
            assert getattr(item, name) is None
    assert Cron().nextCallTime is None
    assert [getattr(Cron(), name) for name in FIELDS] == [[]] * 5


def test_a_delay_is_called_first_when_its_delay_has_passed() -> None:
    before = datetime.now(timezone.utc)
    item = Delay({"delay": 5})
    assert before <= item.nextCallTime - timedelta(seconds=5) <= datetime.now(timezone.utc)
    assert Delay({"delay": 5, "nextCallTime": at(0)}).nextCallTime == at(0)


def test_items_keep_attributes_of_any_names() -> None:
    item = cron(title="Five past", description="each hour", input={"n": 1}, colour="blue")
    assert (item.title, item.description, item.input) == ("Five past", "each hour", {"n": 1})
    assert item.colour == "blue"


def test_attributes_may_have_any_names(store: Any, remote: Any) -> None:
    names = ("place", "count", "check", "due", "id", "colour")
    item = delay(**dict.fromkeys(names, "mine"))
    remote.addScheduler(item)
    store.commit()
    assert remote.scheduleNextJob(at(0)) is not None
    store.commit()
    assert [getattr(item, name) for name in names] == ["mine"] * len(names)
    assert item.nextCallTime == at(10)


def test_fields_are_lists_whatever_they_are_given() -> None:
    item = Cron({"minute": (30, 0), "hour": None, "dayOfWeek": range(2)})
    assert [getattr(item, name) for name in FIELDS] == [[0, 30], [], [], [], [0, 1]]


@pytest.mark.parametrize(
    "data",
    [
        {"minute": [60]},
        {"hour": [-1]},
        {"dayOfMonth": [0]},
        {"month": [13]},
        {"dayOfWeek": [7]},
        {"minute": "5"},
        {"minute": 5},
        {"minute": [2.5]},
        {"dayOfMonth": [31], "month": [2, 4]},
        {"dayOfMonth": [30], "month": [2]},
    ],
)
def test_fields_that_never_fit_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"minute|hour|dayOfMonth|month|dayOfWeek"):
        Cron({"jobName": "note", **data})


@pytest.mark.parametrize("seconds", [0, -5, "soon", float("nan"), float("inf"), True])
def test_a_delay_that_makes_no_sense_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="delay"):
        Delay({"delay": seconds})


@pytest.mark.parametrize("name", ["nextCallTime", "retryTime"])
@pytest.mark.parametrize("value", [5, "now", datetime(2030, 1, 1)])
def test_the_times_of_items_are_aware(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        delay(**{name: value})


def test_an_item_can_be_dumped(remote: Any) -> None:
    item = delay(retryTime=at(3), retryDelay=7)
    itemid = remote.addScheduler(item)
    state = item.dump()
    expected = {
        "_id": itemid,
        "__name__": itemid,
        "active": True,
        "nextCallTime": at(0),
        "retryTime": at(3),
        "retryDelay": 7,
    }
    assert {name: state[name] for name in expected} == expected


# -- the next call time ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [delay, cron])
def test_an_item_that_is_not_active_is_never_called(make: Any) -> None:
    item = make(active=False)
    assert item.getNextCallTime(at(100)) is None
    assert item.nextCallTime == at(0)


def test_the_old_time_is_returned_when_a_new_one_is_counted() -> None:
    item = delay()
    assert item.getNextCallTime(at(-1)) == at(0)
    assert item.nextCallTime == at(0)
    assert item.getNextCallTime(at(3)) == at(0)
    assert item.nextCallTime == at(13)
    assert item.getNextCallTime(at(4)) == at(13)
    assert item.getNextCallTime(at(13)) == at(13)
    assert item.nextCallTime == at(23)


def test_a_cron_item_counts_its_first_time_and_returns_none() -> None:
    item = cron(nextCallTime=None)
    assert item.getNextCallTime(at(0)) is None
    assert item.nextCallTime == at(300)
    assert item.getNextCallTime(at(1)) == at(300)
    assert item.getNextCallTime(at(300)) == at(300)
    assert item.nextCallTime == at(3900)


def test_a_delay_item_counts_its_first_time_and_returns_it() -> None:
    item = delay()
    item.nextCallTime = None
    assert item.getNextCallTime(at(2)) == at(12)
    assert item.nextCallTime == at(12)


def test_the_day_of_a_month_is_called_once() -> None:
    item = cron(minute=[], dayOfMonth=[31], nextCallTime=at(0))
    assert item.getNextCallTime(at(1)) == at(0)
    assert item.nextCallTime == datetime(2070, 1, 31, tzinfo=timezone.utc)
    assert item.getNextCallTime(at(2)) == item.nextCallTime


def test_a_late_look_does_not_move_the_time_of_day() -> None:
    item = cron(minute=[], dayOfWeek=[2], nextCallTime=at(600))
    item.getNextCallTime(at(7200))
    assert item.nextCallTime == at(600 + 86_400)


def test_call_times_are_adjusted() -> None:
    time = datetime(2010, 10, 12, 13, 14, 15, 16, tzinfo=timezone.utc)
    assert adjustCallTime(cron(), time) == time.replace(second=0)
    assert adjustCallTime(cron(minute=[], hour=[1]), time) == time.replace(minute=0, second=0)


# -- the container ---------------------------------------------------------------------------


def test_items_are_added_and_removed(store: Any, remote: Any) -> None:
    scheduler = remote._scheduler
    first, second = delay(), cron()
    one = remote.addScheduler(first)
    two = scheduler.add(second)
    assert type(one) is type(two) is str
    assert (first.__name__, second.__name__) == (one, two)
    assert sorted(scheduler) == sorted(scheduler.keys()) == sorted([one, two])
    assert scheduler[one] is first
    assert sorted(scheduler.values(), key=lambda item: item.__name__) == [first, second]
    assert repr(first) == f"<Delay {one} for: 'note'>"
    assert repr(second) == f"<Cron {two} for: 'note'>"
    store.commit()
    with store.elsewhere(remote) as other:
        assert sorted(other._scheduler) == sorted([one, two])
        assert [getattr(other._scheduler[two], name) for name in FIELDS] == [[5], [], [], [], []]
    assert scheduler.remove(first) is None
    assert list(scheduler) == [two]
    with pytest.raises(KeyError):
        scheduler.remove(first)
    store.commit()
    assert remote.scheduleNextJob(at(0)) is not None
    assert remote.scheduleNextJob(at(0)) is None


@pytest.mark.parametrize(
    "item",
    [
        5,
        Delay({"delay": 5}),
        Delay({"jobName": "note"}),
        Cron(),
        delay(input=lambda: None),
    ],
    ids=["number", "no jobName", "no delay", "no jobName of a cron", "input"],
)
def test_what_can_never_be_due_is_not_added(remote: Any, item: Any) -> None:
    with pytest.raises(ValueError, match=r"item|jobName|delay|input"):
        remote.addScheduler(item)
    assert len(remote._scheduler) == 0


def test_an_item_is_added_once(remote: Any) -> None:
    item = delay()
    remote.addScheduler(item)
    with pytest.raises(ValueError, match="already"):
        remote.addScheduler(item)


def test_an_item_that_an_abort_has_taken_out_can_be_added_again(store: Any, remote: Any) -> None:
    item = delay()
    remote.addScheduler(item)
    store.abort()
    assert len(remote._scheduler) == 0
    assert remote._scheduler.getNextCachedItem(at(0)) is None
    item.nextCallTime = at(1)
    assert remote.scheduleNextJob(at(1)) is None
    remote.addScheduler(item)
    store.commit()
    assert remote.scheduleNextJob(at(1)) is not None


# -- added in this transaction -----------------------------------------------------------------


def test_a_new_item_is_locked_when_it_is_pulled(remote: Any) -> None:
    item = delay(retryDelay=4)
    remote.addScheduler(item)
    scheduler = remote._scheduler
    for pull in (scheduler.getNextCachedItem, scheduler.pullNextSchedulerItem):
        item.retryTime = None
        assert pull(at(-1)) is None
        assert item.retryTime is None
        assert pull(at(0)) is item
        assert (item.retryTime, item.nextCallTime) == (at(4), at(0))
        assert pull(at(3)) is None
        assert pull(at(6)) is item
        assert (item.retryTime, item.nextCallTime) == (at(10), at(0))


def test_the_retry_time_of_a_pull_can_be_asked_for(remote: Any) -> None:
    item = delay(retryDelay=4)
    scheduler = remote._scheduler
    remote.addScheduler(item)
    assert scheduler.updateRetryTime(item.dump(), at(-1)) is False
    assert scheduler.updateRetryTime(item.dump(), at(0)) == at(4)
    assert scheduler.updateRetryTime(item.dump(), at(5)) == at(9)
    assert item.retryTime is None
    item.retryTime = at(6)
    assert scheduler.updateRetryTime(item.dump(), at(5)) is False
    assert scheduler.updateRetryTime(item.dump(), at(6)) == at(10)
    item.active = False
    assert scheduler.updateRetryTime(item.dump(), at(6)) is False


def test_a_new_item_that_is_not_active_is_not_pulled(remote: Any) -> None:
    remote.addScheduler(delay(active=False))
    assert remote._scheduler.getNextCachedItem(at(50)) is None
    assert remote._scheduler.pullNextSchedulerItem(at(50)) is None
    assert remote.scheduleNextJob(at(50)) is None


def test_no_stored_item_is_a_cached_one(store: Any, remote: Any) -> None:
    remote.addScheduler(delay())
    store.commit()
    assert remote._scheduler.getNextCachedItem(at(0)) is None


# -- stored ------------------------------------------------------------------------------------


def test_a_stored_item_goes_on_when_it_is_pulled(store: Any, remote: Any) -> None:
    item = delay()
    remote.addScheduler(item)
    store.commit()
    assert remote._scheduler.pullNextSchedulerItem(at(-1)) is None
    assert remote._scheduler.pullNextSchedulerItem(at(0)) is item
    assert (item.nextCallTime, item.retryTime) == (at(10), None)
    assert remote._scheduler.pullNextSchedulerItem(at(9)) is None
    store.abort()
    assert item.nextCallTime == at(0)


def test_a_job_is_added_when_its_item_is_due(store: Any, remote: Any, attempt: Any) -> None:
    item = delay(input="bread", retryDelay=300)
    remote.addScheduler(item)
    store.commit()
    assert remote.scheduleNextJob(at(-0.001)) is None
    jobid = remote.scheduleNextJob(at(0))
    store.commit()
    assert type(jobid) is str
    assert (remote._jobs[jobid].jobName, remote._jobs[jobid].input) == ("note", "bread")
    assert attempt(remote) is True
    assert remote.getJobResult(jobid) == "bread"
    times = [second for second in range(0, 60) if remote.scheduleNextJob(at(second))]
    assert times == [10, 20, 30, 40, 50]
    assert item.nextCallTime == at(60)


def test_of_two_who_take_an_item_one_adds_its_job(store: Any, remote: Any) -> None:
    remote.addScheduler(delay())
    store.commit()
    with suppress(TransientError):
        with store.elsewhere(remote) as other:
            other.scheduleNextJob(at(0))
            remote.scheduleNextJob(at(0))
        store.commit()
    store.abort()
    assert len(remote._jobs) == 1
    [item] = remote._scheduler.values()
    assert item.nextCallTime == at(10)


def test_each_item_that_is_due_adds_a_job(store: Any, remote: Any) -> None:
    for number in range(3):
        remote.addScheduler(delay(input=number, nextCallTime=at(number)))
    store.commit()
    inputs = []
    while (jobid := remote.scheduleNextJob(at(2))) is not None:
        inputs.append(remote._jobs[jobid].input)
    assert inputs == [0, 1, 2]


def test_an_item_that_others_have_locked_is_not_due(store: Any, remote: Any) -> None:
    item = delay(retryTime=at(7))
    remote.addScheduler(item)
    store.commit()
    assert remote.scheduleNextJob(at(6)) is None
    assert remote.scheduleNextJob(at(7)) is not None
    assert (item.retryTime, item.nextCallTime) == (None, at(17))


def test_an_item_without_its_factory_is_passed_over(store: Any, remote: Any, logged: Any) -> None:
    lost = delay(jobName="lost", nextCallTime=at(-5))
    remote.addScheduler(lost)
    remote.addScheduler(delay())
    store.commit()
    jobid = remote.scheduleNextJob(at(0))
    assert remote._jobs[jobid].jobName == "note"
    assert remote.scheduleNextJob(at(0)) is None
    assert lost.nextCallTime == at(10)
    assert [line for line in logged() if "'lost'" in line] == [
        f"{lost!r}: its job cannot be added: there is no job factory 'lost'"
    ]


def test_a_cron_item_is_counted_when_it_is_added(store: Any, remote: Any) -> None:
    item = cron(nextCallTime=None)
    before = datetime.now(timezone.utc)
    remote.addScheduler(item)
    assert before < item.nextCallTime <= before + timedelta(hours=1, seconds=10)
    assert (item.nextCallTime.minute, item.nextCallTime.second) == (5, 0)
    store.commit()
    assert remote.scheduleNextJob(item.nextCallTime) is not None


def test_a_time_that_was_given_is_kept_when_an_item_is_added(remote: Any) -> None:
    item = cron()
    remote.addScheduler(item)
    assert item.nextCallTime == at(0)


def test_an_item_is_counted_when_it_begins_to_be_active(store: Any, remote: Any) -> None:
    item = cron(active=False, nextCallTime=None)
    remote.addScheduler(item)
    store.commit()
    assert item.nextCallTime is None
    item.active = True
    assert item.nextCallTime is not None
    store.commit()
    assert remote.scheduleNextJob(item.nextCallTime) is not None


@pytest.mark.parametrize(
    ("changes", "is_due"),
    [
        ({"active": False}, False),
        ({"nextCallTime": at(1)}, False),
        ({"retryTime": at(1)}, False),
        ({"nextCallTime": at(-1)}, True),
        ({"retryTime": at(-1)}, True),
        ({"active": False, "nextCallTime": at(-1)}, False),
    ],
)
def test_changes_of_a_stored_item_hold_at_once_and_for_others_from_the_commit(
    store: Any, remote: Any, changes: dict[str, Any], is_due: bool
) -> None:
    remote.addScheduler(delay())
    store.commit()
    [item] = remote._scheduler.values()
    for name, value in changes.items():
        setattr(item, name, value)
    assert (remote.scheduleNextJob(at(0)) is not None) is is_due
    store.abort()
    assert item.nextCallTime == at(0)
    for name, value in changes.items():
        setattr(item, name, value)
    with store.elsewhere(remote) as other:
        [same] = other._scheduler.values()
        assert (same.active, same.nextCallTime, same.retryTime) == (True, at(0), None)
    store.commit()
    with store.elsewhere(remote) as other:
        assert (other.scheduleNextJob(at(0)) is not None) is is_due


def test_an_item_that_is_active_again_goes_on(store: Any, remote: Any) -> None:
    item = delay()
    remote.addScheduler(item)
    store.commit()
    item.active = False
    store.commit()
    assert remote.scheduleNextJob(at(50)) is None
    item.active = True
    store.commit()
    assert remote.scheduleNextJob(at(50)) is not None
    assert item.nextCallTime == at(60)


@pytest.mark.parametrize("time", [datetime(2030, 1, 1), datetime.max, END_OF_TIME, 5, "now"])
def test_the_time_of_a_call_is_aware(remote: Any, time: Any) -> None:
    item = delay()
    remote.addScheduler(item)
    for call in (
        remote.scheduleNextJob,
        remote._scheduler.pullNextSchedulerItem,
        remote._scheduler.getNextCachedItem,
        remote.reScheduleItems,
        item.getNextCallTime,
    ):
        with pytest.raises(ValueError, match="callTime"):
            call(time)
    assert (item.active, item.nextCallTime) == (True, at(0))


# -- counted anew -------------------------------------------------------------------------------


def test_an_item_is_counted_anew(store: Any, remote: Any) -> None:
    item = delay(retryTime=at(500))
    remote.addScheduler(item)
    store.commit()
    assert remote.reScheduleItem(item, at(100)) is None
    assert (item.nextCallTime, item.retryTime) == (at(110), None)
    store.commit()
    assert remote.scheduleNextJob(at(109)) is None
    assert remote.scheduleNextJob(at(110)) is not None


def test_all_items_are_counted_anew(store: Any, remote: Any) -> None:
    items = [delay(), cron(), delay(active=False), delay(delay=20)]
    for item in items:
        remote.addScheduler(item)
    store.commit()
    assert remote.reScheduleItems(at(100)) is None
    assert [item.nextCallTime for item in items] == [at(110), at(300), None, at(120)]
    items[2].active = True
    assert items[2].nextCallTime is not None


def test_an_item_whose_fields_no_longer_fit_is_counted_anew_by_nobody(
    store: Any, remote: Any, logged: Any
) -> None:
    broken, sound = cron(), delay()
    for item in (broken, sound):
        remote.addScheduler(item)
    store.commit()
    broken.dayOfMonth, broken.month = [31], [2]
    with pytest.raises(ValueError, match="no such day"):
        remote.reScheduleItem(broken, at(100))
    assert broken.nextCallTime == at(0)
    remote.reScheduleItems(at(100))
    assert (broken.active, broken.nextCallTime) == (False, None)
    assert sound.nextCallTime == at(110)
    assert "rests until it is changed" in logged()[-1]


def test_an_item_whose_fields_no_longer_fit_does_not_stop_others(store: Any, remote: Any) -> None:
    broken, sound = cron(nextCallTime=at(-5)), delay()
    for item in (broken, sound):
        remote.addScheduler(item)
    store.commit()
    broken.dayOfMonth, broken.month = [31], [2]
    store.commit()
    assert remote.scheduleNextJob(at(0)) is not None
    assert sound.nextCallTime == at(10)
    assert broken.active is False


def test_an_event_says_that_an_item_was_modified(store: Any, remote: Any) -> None:
    item = delay()
    remote.addScheduler(item)
    store.commit()
    item.delay = 3600
    before = datetime.now(timezone.utc)
    zope.event.notify(ObjectModifiedEvent(item))
    assert before <= item.nextCallTime - timedelta(hours=1) <= datetime.now(timezone.utc)


def test_events_of_what_is_in_no_scheduler_mean_nothing(store: Any, remote: Any) -> None:
    item = delay()
    zope.event.notify(ObjectModifiedEvent(item))
    zope.event.notify(ObjectModifiedEvent(remote))
    zope.event.notify(item)
    assert item.nextCallTime == at(0)
