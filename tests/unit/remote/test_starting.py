# SPDX-License-Identifier: ZPL-2.1
"""Starting remote processors that the current transaction is to store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB

from lovely.remotetask.engine import registry
from lovely.remotetask.errors import ServiceNotStored
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.testing import EchoJob
from workplace import PATIENCE_SECONDS, wait_until


@pytest.fixture
def root(db: ZODB.DB) -> Iterator[Any]:
    connection = db.open()
    yield connection.root()
    transaction.abort()
    assert registry.stop_all(PATIENCE_SECONDS)
    connection.close()


def test_a_processor_starts_with_the_commit_that_stores_it(
    root: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lovely.remotetask.remote")
    root["remote"] = remote = RemoteProcessor()
    remote.addJobFactory("echo", EchoJob())
    jobid = remote.addJob("echo", "hello")
    remote.startProcessor()
    remote.startScheduler()
    assert (remote.isProcessing, remote.isScheduling) == (False, False)
    assert caplog.messages == []
    transaction.commit()
    assert (remote.isProcessing, remote.isScheduling) == (True, True)
    assert caplog.messages == [
        "Processor 'root-worker' started",
        "Scheduler 'root-scheduler' started",
    ]

    def is_done() -> bool:
        transaction.abort()
        return remote.getJobStatus(jobid) == "completed"

    wait_until(is_done)


def test_a_processor_that_was_aborted_does_not_start(root: Any) -> None:
    before = threading.active_count()
    root["remote"] = remote = RemoteProcessor()
    remote.startProcessor()
    transaction.abort()
    assert remote.isProcessing is False
    transaction.commit()
    assert threading.active_count() == before
    root["remote"] = remote
    remote.startProcessor()
    transaction.commit()
    assert remote.isProcessing is True


def test_a_processor_that_was_stopped_before_the_commit_does_not_start(root: Any) -> None:
    root["remote"] = remote = RemoteProcessor()
    remote.startProcessor()
    remote.startScheduler()
    remote.stopProcessor()
    transaction.commit()
    assert (remote.isProcessing, remote.isScheduling) == (False, True)


def test_a_processor_in_no_database_cannot_start() -> None:
    remote = RemoteProcessor()
    remote.addJobFactory("echo", EchoJob())
    remote.addJob("echo")
    assert remote.processNextJob() is True
    with pytest.raises(ServiceNotStored):
        remote.startProcessor()
    assert (remote.isProcessing, remote.processorStartTime) == (False, None)
    assert remote.stopProcessor() is None


def test_a_processor_knows_the_root_of_its_database() -> None:
    processor = RemoteProcessor()
    with pytest.raises(ServiceNotStored, match="in no database"):
        _ = processor.root
    root = ZODB.connection(None).root()
    root["processor"] = processor
    transaction.commit()
    assert processor.root is root
    root._p_jar.close()
