# SPDX-License-Identifier: ZPL-2.1
"""What refused commits leave behind in a storage."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage

from lovely.remotetask.service import TaskService


@contextmanager
def room_for(n_bytes: int, path: Path) -> Iterator[None]:
    """Let no file of this process get larger than one is, and some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def opened(path: Path, layer: str) -> ZODB.DB:
    """Open a database, whose file lies directly or behind another storage."""
    storage: Any = FileStorage(str(path))
    return ZODB.DB(DemoStorage(changes=storage) if layer == "demo" else storage)


def counted(db: ZODB.DB) -> int:
    """Read the counter, and that nothing of the refused text is there, anew from the storage."""
    with db.transaction() as connection:
        connection.cacheMinimize()
        assert not connection.root()["text"]
        n: int = connection.root()["counter"]["n"]
        return n


@pytest.mark.parametrize("layer", ["direct", "demo"])
@pytest.mark.parametrize(
    ("n_free", "n_written"), [(0, 10), (1, 500), (300, 500), (3000, 6000), (3000, 20_000)]
)
def test_a_full_disk_leaves_nothing_in_the_file(
    tmp_path: Path, layer: str, n_free: int, n_written: int
) -> None:
    path = tmp_path / "Data.fs"
    with closing(opened(path, layer)) as db:
        connection = db.open()
        root = connection.root()
        root["service"] = TaskService()
        # Large objects, so that the file is larger than the temporary one of a transaction.
        root["large"], root["text"] = PersistentMapping(t="l" * 30_000), PersistentMapping()
        root["counter"] = PersistentMapping(n=0)
        transaction.commit()
        connection.close()

    with closing(opened(path, layer)) as db:
        connection = db.open()
        root = connection.root()
        assert root["service"].jobs is not None  # loaded, as whoever uses it does
        size = path.stat().st_size
        with room_for(n_free, path):
            root["text"]["t"] = "x" * n_written
            with pytest.raises(OSError, match="File too large"):
                transaction.commit()
            transaction.abort()
            assert path.stat().st_size == size
            assert counted(db) == 0
        for n in range(1, 40):
            root["counter"]["n"] = n
            transaction.commit()
            assert path.stat().st_size == db.storage.getSize()
            assert counted(db) == n
        assert path.stat().st_size > size
        connection.close()

        copied = tmp_path / "Copy.fs"
        shutil.copy(path, copied)
    with closing(opened(copied, layer)) as db:
        assert counted(db) == 39
    assert not list(tmp_path.glob("*.tr*")), "the copy had to be truncated"
