# SPDX-License-Identifier: ZPL-2.1
"""How often jobs that are objects have been run."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
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
