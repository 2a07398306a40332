# SPDX-License-Identifier: ZPL-2.1
"""How often jobs that are objects have been run."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
import transaction
import ZODB

from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.testing import EchoJob

LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)


class Stubborn(EchoJob):
    """Works in its second run."""

    def __call__(self, remoteProcessor: Any) -> Any:
        if not self.errors:
            raise ValueError("not yet")
        return "done"


def test_a_job_that_may_run_at_once_again_is_put_into_the_ready_queue_no_second_time() -> None:
    connection = ZODB.connection(None)
    processor = connection.root()["processor"] = RemoteProcessor()
    processor.addJobFactory("stubborn", Stubborn())
    failed, resting = [processor._jobs[processor.addJob("stubborn")] for _ in range(2)]
    with pytest.raises(ValueError, match="not yet"):
        processor.processNextJob()
    assert failed.retryTime is not None
    failed.retryTime = None
    resting.active = False
    resting.active = True
    for job in (failed, resting):
        assert (job.status, job.retryTime) == ("queued", None)
        assert not job._record.is_ready
    assert processor.processNextJob()
    assert failed.status == "completed"
    connection.transaction_manager.abort()
    connection.close()


def test_the_runs_that_failed_are_counted_of_a_job_that_is_completed_in_the_end() -> None:
    connection = ZODB.connection(None)
    processor = connection.root()["processor"] = RemoteProcessor()
    processor.addJobFactory("stubborn", Stubborn())
    job = processor._jobs[processor.addJob("stubborn")]
    with pytest.raises(ValueError, match="not yet"):
        processor.processNextJob()
    assert job.retryCounter == 1
    job.retryTime = LONG_AGO
    assert processor.processNextJob()
    assert (job.status, job.output, job.retryCounter) == ("completed", "done", 2)
    connection.transaction_manager.abort()
    connection.close()


class Dooms(Exception):
    def __str__(self) -> str:
        transaction.doom()
        return "the error"


class Doomed(EchoJob):
    """Its exception dooms the transaction."""

    maxRetries = 0

    def __call__(self, remoteProcessor: Any) -> Any:
        raise Dooms


def test_what_an_exception_says_when_it_is_logged_leaves_the_transaction_alone() -> None:
    connection = ZODB.connection(None)
    processor = connection.root()["processor"] = RemoteProcessor()
    job = Doomed()
    processor.addJobFactory("doomed", job)
    added = processor._jobs[processor.addJob("doomed")]
    transaction.commit()
    assert processor.processNextJob()
    transaction.commit()
    assert added.status == "error"
    connection.close()
