# SPDX-License-Identifier: ZPL-2.1
"""Jobs, factories and items whose classes are not known here, or whose records cannot be read."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from lovely.remotetask.errors import JobUnusable
from lovely.remotetask.remote import testing
from lovely.remotetask.remote.scheduler import Delay
from remotejobs import Note

MODULE = "a_shop_that_closes"
NOW = datetime(2069, 1, 1, tzinfo=timezone.utc)

SOURCE = """
from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.scheduler import Delay

class Lost(Job):
    def __call__(self, remoteProcessor):
        return "found"

class Unreadable(Job):
    def __setstate__(self, state):
        raise ValueError("it does not understand itself")

class LostDelay(Delay):
    pass

class LostInput:
    pass
"""


class Shop:
    """A database whose classes are known until it is reopened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.module = types.ModuleType(MODULE)
        exec(SOURCE, vars(self.module))
        sys.modules[MODULE] = self.module
        self.db = ZODB.DB(FileStorage(path))
        self.remote: Any = testing.TestProcessor()
        root = self.db.open().root()
        root["remote"] = self.remote
        self.remote.addJobFactory("note", Note())

    def reopen(self, is_open: bool = False) -> Any:
        """Open the database anew, without the classes; return the processor."""
        transaction.commit()
        self.db.close()
        if not is_open:
            sys.modules.pop(MODULE, None)
        self.db = ZODB.DB(FileStorage(self.path))
        self.remote = self.db.open().root()["remote"]
        return self.remote


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(str(tmp_path / "Data.fs"))
    yield shop
    sys.modules.pop(MODULE, None)
    transaction.abort()
    shop.db.close()


def lose_class(shop: Shop) -> str:
    shop.remote.addJobFactory("lost", shop.module.Lost())
    return shop.remote.addJob("lost")


def lose_input(shop: Shop) -> str:
    return shop.remote.addJob("note", shop.module.LostInput())


def lose_attribute(shop: Shop) -> str:
    jobid = shop.remote.addJob("note")
    shop.remote._jobs[jobid].colour = shop.module.LostInput()
    return jobid


Lose = Callable[[Shop], str]


@pytest.mark.parametrize("lose", [lose_class, lose_input, lose_attribute])
def test_a_job_that_cannot_be_used_here_is_passed_over(shop: Shop, lose: Lose) -> None:
    lost = lose(shop)
    known = shop.remote.addJob("note", "known")
    remote = shop.reopen()
    assert [job.status for job in remote._jobs.values()] == ["queued", "queued"]
    assert remote.pullNextJob().__name__ == known
    transaction.abort()
    assert remote.processJobs() is True
    transaction.commit()
    assert remote.getJobStatus(known) == "completed"
    assert remote.getJobStatus(lost) == "queued"
    assert remote.getJobErrors(lost) == []


@pytest.mark.parametrize("lose", [lose_class, lose_input, lose_attribute])
def test_it_runs_where_it_is_known(shop: Shop, lose: Lose) -> None:
    lost = lose(shop)
    module = shop.module
    remote = shop.reopen()
    assert remote.processJobs() is False
    sys.modules[MODULE] = module
    remote = shop.reopen(is_open=True)
    assert remote.processJobs() is True
    assert remote.getJobStatus(lost) == "completed"


def test_a_job_whose_class_is_lost_can_be_looked_at_and_no_more(shop: Shop) -> None:
    lost = lose_class(shop)
    remote = shop.reopen()
    job = remote._jobs[lost]
    assert repr(job) == f"<UnusableJob 'lost' {lost}>"
    assert (job.status, job.jobName, job.output, job.errors) == ("queued", "lost", None, [])
    with pytest.raises(JobUnusable):
        remote.cancelJob(lost)
    with pytest.raises(JobUnusable):
        job.retryTime = NOW
    assert remote.removeJobs("queued", "queued") == {"queued": 0}
    assert remote.getJobStatus(lost) == "queued"


def test_a_job_that_cannot_be_read_does_not_hide_others(shop: Shop) -> None:
    shop.remote.addJobFactory("unreadable", shop.module.Unreadable())
    lost = shop.remote.addJob("unreadable")
    known = shop.remote.addJob("note", "known")
    remote = shop.reopen(is_open=True)
    assert sorted(remote._jobs) == [lost, known]
    assert [job.status for job in remote._jobs.values()] == ["queued", "queued"]
    assert remote.processJobs() is True
    assert remote.getJobStatus(known) == "completed"
    assert remote.getJobStatus(lost) == "queued"


def test_a_factory_whose_class_is_lost_makes_no_jobs(shop: Shop) -> None:
    shop.remote.addJobFactory("lost", shop.module.Lost())
    remote = shop.reopen()
    assert sorted(remote._jobFactories) == ["lost", "note"]
    with pytest.raises(ValueError, match="cannot be used here"):
        remote.addJob("lost")
    with pytest.raises(ValueError, match="'lost'"):
        remote.addJobFactory("lost", Note())
    assert remote.addJob("note") in remote._jobs


def test_an_item_whose_class_is_lost_is_passed_over(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    due = {"jobName": "note", "delay": 10, "active": True, "nextCallTime": NOW}
    lost = shop.remote.addScheduler(shop.module.LostDelay({**due, "input": "lost"}))
    known = shop.remote.addScheduler(Delay({**due, "input": "known"}))
    remote = shop.reopen()
    assert list(remote._scheduler) == [known]
    assert [item.input for item in remote._scheduler.values()] == ["known"]
    assert len(remote._scheduler) == 1
    assert remote._scheduler.next_call() == NOW.timestamp()
    assert remote._jobs[remote.scheduleNextJob(NOW)].input == "known"
    assert remote.scheduleNextJob(NOW) is None
    assert remote._scheduler.next_call() == NOW.timestamp() + 10
    remote.reScheduleItems(NOW)
    told = [record for record in caplog.records if "passed over" in record.getMessage()]
    assert len(told) == 1
    assert lost not in [item.__name__ for item in remote._scheduler.values()]
