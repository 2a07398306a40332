# SPDX-License-Identifier: ZPL-2.1
"""Schedulers of several processes that find the same items due."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.POSException import ConflictError

from lovely.remotetask.remote import items
from lovely.remotetask.remote.scheduler import Delay
from lovely.remotetask.remote.testing import EchoJob, TestProcessor

START = datetime(2020, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def processor(db: ZODB.DB) -> Any:
    """A processor with five items that are due, in order."""
    connection = db.open()
    processor = connection.root()["remote"] = TestProcessor()
    processor.addJobFactory("echo", EchoJob())
    for number in range(5):
        data = {"jobName": "echo", "input": number, "active": True, "delay": 10**6}
        item = Delay({**data, "nextCallTime": START + timedelta(seconds=number)})
        processor.addScheduler(item)
    transaction.commit()
    return processor


def scheduled(processor: Any) -> Any:
    """Let the next item add its job; return which one that was."""
    jobid = processor.scheduleNextJob()
    return None if jobid is None else processor._jobs[jobid].input


def test_who_takes_another_item_than_the_first_comes_to_all(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items.random, "shuffle", list.reverse)
    found = []
    for _ in range(6):
        processor.choose_anew()
        found.append(scheduled(processor))
    assert found == [4, 3, 2, 1, 0, None]
    transaction.abort()


def test_the_next_time_it_is_the_first_again(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items.random, "shuffle", list.reverse)
    processor.choose_anew()
    assert [scheduled(processor) for _ in range(3)] == [4, 0, 1]
    transaction.abort()


def test_a_scheduler_that_meets_another_one_takes_another_item(
    processor: Any,
    fail_commits: Callable[..., list[BaseException]],
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(items.random, "shuffle", list.reverse)
    fail_commits(ConflictError("another scheduler was at the same item"))
    processor.startScheduler()

    def added() -> list[Any]:
        transaction.abort()
        return [job.input for job in processor._jobs.values()]

    until(lambda: len(added()) == 5, "the jobs of all items")
    by_time = sorted(processor._jobs.values(), key=lambda job: job.created)
    assert [job.input for job in by_time] == [4, 0, 1, 2, 3]
    processor.stopScheduler()
    transaction.abort()
