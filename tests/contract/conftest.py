# SPDX-License-Identifier: ZPL-2.1
"""What the contract tests share: databases of several kinds, and a recorded one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage

from recording import RECORDING
from workplace import Place


@pytest.fixture(params=["memory", "file", "file below memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place in each kind of storage that takes part in tests without a server."""
    path = str(tmp_path / "Data.fs")
    match request.param:
        case "memory":
            storage: Any = DemoStorage()
        case "file":
            storage = FileStorage(path)
        case _:
            storage = DemoStorage(base=FileStorage(path))
    database = ZODB.DB(storage)
    yield Place(database)
    transaction.abort()
    database.close()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[ZODB.DB]:
    """A copy of the database that this release has once written; see ``tests/recording.py``."""
    path = tmp_path / "Recorded.fs"
    shutil.copyfile(RECORDING, path)
    path.chmod(0o600)
    with closing(ZODB.DB(FileStorage(str(path)))) as database:
        yield database
        transaction.abort()
