# SPDX-License-Identifier: ZPL-2.1
"""What the contract of all storages is tested with: two clients of one storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import ZODB

from lovely.remotetask.engine import registry
from storages import Storage
from workplace import PATIENCE_SECONDS, Workplace, catch_up


@pytest.fixture
def databases(storage: Storage) -> Iterator[tuple[ZODB.DB, ZODB.DB]]:
    """A storage, opened twice; the same database two times where only one can have it open."""
    with ExitStack() as stack:
        first = stack.enter_context(closing(storage.open()))
        other = stack.enter_context(closing(storage.open())) if storage.kind.is_shared else first
        yield first, other


@pytest.fixture
def here(databases: tuple[ZODB.DB, ZODB.DB], make_workplace: Any) -> Iterator[Workplace]:
    """The client that works on the jobs."""
    yield make_workplace(databases[0])
    assert registry.stop_all(PATIENCE_SECONDS)


@pytest.fixture
def elsewhere(databases: tuple[ZODB.DB, ZODB.DB], here: Workplace) -> Workplace:
    """Another client, whose commits the first one knows from the storage alone."""
    catch_up(*databases)
    return here.beside(databases[1])
