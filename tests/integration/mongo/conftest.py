# SPDX-License-Identifier: ZPL-2.1
"""What the tests on MongoDB share: a processor, and others that see the same database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction

from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.testing import EchoJob, ErrorJob, FatalErrorJob

pytest.importorskip("pymongo")  # for who runs these without the extra

from lovely.remotetask.remote.mongo import MongoRemoteProcessor


class CallJob(Job):
    """Calls a function that the test has set, with the job and the processor."""

    function: Any = staticmethod(lambda job, processor: None)

    def __call__(self, remoteProcessor: Any) -> Any:
        return type(self).function(self, remoteProcessor)


CLASSES = (EchoJob, ErrorJob, FatalErrorJob, CallJob)


@pytest.fixture
def processor(mongo_database: Any) -> Iterator[MongoRemoteProcessor]:
    """A processor with the factories *echo*, *fatal* and *call*, committed."""
    processor = MongoRemoteProcessor(mongo_database, CLASSES)
    processor.addJobFactory("echo", EchoJob())
    processor.addJobFactory("fatal", FatalErrorJob())
    processor.addJobFactory("call", CallJob())
    transaction.commit()
    yield processor
    transaction.abort()
    processor.stopProcessor()
    processor.stopScheduler()
    CallJob.function = staticmethod(lambda job, processor: None)


@pytest.fixture
def call() -> Callable[[Any], None]:
    """Return a function that sets what `CallJob` calls."""

    def call(function: Any) -> None:
        CallJob.function = staticmethod(function)

    return call


class Other:
    """The same database, seen by another process: nothing is shared with it.

    - ``processor``: its processor, whose transactions are those of ``manager``.
    """

    def __init__(self, database: Any) -> None:
        self.manager = transaction.TransactionManager()
        self.processor = MongoRemoteProcessor(database, CLASSES).seen_by(self.manager)

    def commit(self) -> None:
        self.manager.commit()

    def abort(self) -> None:
        self.manager.abort()


@pytest.fixture
def other(mongo_database: Any) -> Iterator[Other]:
    """Another process, see `Other`."""
    other = Other(mongo_database)
    yield other
    other.abort()
