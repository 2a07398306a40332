# SPDX-License-Identifier: ZPL-2.1
"""A plugin of pytest: ``pytest_plugins = ["lovely.remotetask.testing.fixtures"]``.

It needs pytest, and nothing else of this package imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage

from lovely.remotetask.service import TaskService
from lovely.remotetask.testing.eagerness import eager
from lovely.remotetask.testing.moving import Clock, moving_clock


@pytest.fixture
def remotetask_db() -> Iterator[ZODB.DB]:
    """A new database in memory; threads of its services end with the test."""
    db = ZODB.DB(DemoStorage())
    yield db
    transaction.abort()  # a connection that has changes cannot be closed
    db.close()


@pytest.fixture
def remotetask_root(remotetask_db: ZODB.DB) -> Any:
    """The root object of the database, in the thread's own transaction."""
    return remotetask_db.open().root()


@pytest.fixture
def remotetask_service(remotetask_root: Any) -> TaskService:
    """A service that is stored as ``root["tasks"]``, in the thread's own transaction."""
    service = remotetask_root["tasks"] = TaskService()
    transaction.commit()
    return service


@pytest.fixture
def remotetask_clock() -> Iterator[Clock]:
    """A clock that the test moves: ``remotetask_clock.move(hours=3)``."""
    with moving_clock() as clock:
        yield clock


@pytest.fixture
def remotetask_eager() -> Iterator[None]:
    """Each job that is added runs at once; see `lovely.remotetask.testing.eager`."""
    with eager():
        yield
