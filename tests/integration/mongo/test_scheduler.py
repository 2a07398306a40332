# SPDX-License-Identifier: ZPL-2.1
"""The scheduler on MongoDB: a slot is taken once, whoever looks, and is not lost."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
from transaction.interfaces import TransientError

from lovely.remotetask.remote.scheduler import Cron, Delay

AT = datetime(2030, 1, 1, tzinfo=timezone.utc)


def later(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


@pytest.fixture
def item(processor: Any) -> Delay:
    """A stored item that is due at second 0, and each 10 seconds."""
    item = Delay({"jobName": "echo", "delay": 10, "active": True, "nextCallTime": AT})
    processor.addScheduler(item)
    transaction.commit()
    return item


def test_a_stored_item_advances_when_it_is_pulled(processor: Any, item: Any, other: Any) -> None:
    assert processor.scheduleNextJob(later(-1)) is None
    jobid = processor.scheduleNextJob(later(40))
    assert processor.scheduleNextJob(later(40)) is None
    transaction.commit()
    assert processor.getJobStatus(jobid) == "queued"
    assert item.nextCallTime == later(50)
    assert item.retryTime is None
    assert other.processor.scheduleNextJob(later(49)) is None
    assert other.processor.scheduleNextJob(later(50)) is not None
    other.commit()
    assert processor.next_call() == later(60).timestamp()


def test_who_pulls_is_seen_by_all_before_the_commit(processor: Any, item: Any, other: Any) -> None:
    assert processor.scheduleNextJob(AT) is not None
    assert other.processor.scheduleNextJob(AT) is None
    assert other.processor.scheduleNextJob(later(20)) is None
    transaction.abort()
    other.abort()
    assert other.processor.scheduleNextJob(AT) is not None
    other.commit()
    assert processor.scheduleNextJob(AT) is None
    assert len(processor._jobs) == 1


def test_an_item_whose_scheduler_died_is_pulled_again_after_its_retry_delay(
    processor: Any, item: Any, other: Any
) -> None:
    item.retryDelay = 5
    transaction.commit()
    assert other.processor.scheduleNextJob(AT) is not None  # and nothing is heard of it again
    assert processor.scheduleNextJob(later(4)) is None
    assert processor.scheduleNextJob(later(5)) is not None
    transaction.commit()
    with pytest.raises(TransientError):
        other.commit()
    other.abort()
    assert len(processor._jobs) == 1


def test_a_change_counts_at_once_and_after_the_commit(
    processor: Any, item: Any, other: Any
) -> None:
    item.nextCallTime = later(100)
    assert processor.scheduleNextJob(later(50)) is None
    assert processor.next_call() == AT.timestamp()  # what is committed
    item.nextCallTime = later(20)
    assert processor.scheduleNextJob(later(20)) is not None
    transaction.abort()
    item.active = False
    assert processor.scheduleNextJob(later(50)) is None
    transaction.commit()
    assert other.processor.scheduleNextJob(later(50)) is None
    assert processor.next_call() is None


def test_an_item_is_removed(processor: Any, item: Any, other: Any) -> None:
    itemid = item.__name__
    processor._scheduler.remove(item)
    assert processor.scheduleNextJob(AT) is None
    assert list(processor._scheduler) == []
    with pytest.raises(KeyError):
        processor._scheduler[itemid]
    assert list(other.processor._scheduler) == [itemid]
    transaction.commit()
    other.abort()
    assert list(other.processor._scheduler) == []
    assert item.__parent__ is None


def test_items_are_counted_anew(processor: Any, other: Any) -> None:
    itemid = processor.addScheduler(Cron({"jobName": "echo", "minute": [30], "active": True}))
    transaction.commit()
    processor.reScheduleItems(AT)
    transaction.commit()
    assert other.processor._scheduler[itemid].nextCallTime == later(30 * 60)


def test_an_item_whose_factory_is_gone_is_logged_and_does_not_keep_others_back(
    processor: Any, item: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Delay({"jobName": "gone", "delay": 10, "active": True, "nextCallTime": later(-5)})
    processor.addScheduler(lost)
    transaction.commit()
    assert processor.scheduleNextJob(AT) is not None
    assert "gone" in caplog.text
    transaction.commit()
    assert lost.nextCallTime == later(10)


def test_an_item_with_broken_fields_rests(
    processor: Any, item: Any, mongo_database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mongo_database.rscheduler.update_one({}, {"$set": {"delay": "often"}})
    assert processor.scheduleNextJob(AT) is None
    transaction.commit()
    assert "rests until it is changed" in caplog.text
    assert mongo_database.rscheduler.find_one()["active"] is False


def test_what_users_set_of_an_item_does_not_collide_with_who_pulls_it(
    processor: Any, item: Any, other: Any
) -> None:
    item.title = "of a user"
    assert other.processor.scheduleNextJob(AT) is not None
    other.commit()
    transaction.commit()
    assert (item.title, item.nextCallTime) == ("of a user", later(10))
    item.nextCallTime = later(5)
    assert other.processor.scheduleNextJob(later(10)) is not None
    other.commit()
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()


def test_a_pull_that_cannot_commit_locks_its_item_no_longer(
    processor: Any, item: Any, other: Any
) -> None:
    assert other.processor.scheduleNextJob(AT) is not None
    item.active = False
    transaction.commit()
    with pytest.raises(TransientError):
        other.commit()
    other.abort()
    assert item.retryTime is None
    assert len(processor._jobs) == 0
    item.active = True
    transaction.commit()
    assert other.processor.scheduleNextJob(AT) is not None
    other.commit()
