# SPDX-License-Identifier: ZPL-2.1
"""What refused commits leave behind in a storage."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, BlobStorage
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from lovely.remotetask.service import TaskService
from storages import room_for


def opened(path: Path, layer: str) -> ZODB.DB:
    """Open a database, whose file lies directly or behind other storages."""
    storage: Any = FileStorage(str(path))
    if "blobs" in layer:
        storage = BlobStorage(str(path.with_suffix(".blobs")), storage)
    return ZODB.DB(DemoStorage(changes=storage) if "demo" in layer else storage)


def counted(db: ZODB.DB) -> int:
    """Read the counter, and that nothing of the refused text is there, anew from the storage."""
    with db.transaction() as connection:
        connection.cacheMinimize()
        assert not connection.root()["text"]
        n: int = connection.root()["counter"]["n"]
        return n


@pytest.mark.parametrize("layer", ["direct", "blobs", "demo", "blobs, demo"])
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


def test_a_service_that_was_just_made_leaves_nothing_either(tmp_path: Path, register: Any) -> None:
    register("echo", lambda input: input)
    path = tmp_path / "Data.fs"
    with closing(ZODB.DB(str(path))) as db, closing(db.open()) as connection:
        service = connection.root()["tasks"] = TaskService()
        connection.root()["large"] = PersistentMapping(t="l" * 30_000)
        transaction.commit()
        size = path.stat().st_size
        with room_for(300, path):
            service.add("echo", "x" * 500)
            with pytest.raises(OSError, match="File too large"):
                transaction.commit()
            transaction.abort()
        assert path.stat().st_size == size


@pytest.mark.parametrize("layer", ["direct", "demo"])
def test_a_conflict_leaves_no_blob_file(tmp_path: Path, layer: str) -> None:
    storage: Any = FileStorage(str(tmp_path / "Data.fs"), blob_dir=str(tmp_path / "blobs"))
    with closing(ZODB.DB(DemoStorage(changes=storage) if layer == "demo" else storage)) as db:
        with db.transaction() as connection:
            connection.root()["tasks"] = TaskService()
            connection.root()["counter"] = PersistentMapping(n=0)
        mine, others = transaction.TransactionManager(), transaction.TransactionManager()
        for number in range(3):
            root = db.open(mine).root()
            root._p_jar.cacheMinimize()
            assert root["tasks"].jobs is not None  # loaded, as whoever uses it does
            root[f"blob {number}"] = Blob(b"of no use")
            root["counter"]["n"] += 1
            other = db.open(others)
            other.root()["counter"]["n"] += 1
            others.commit()
            other.close()
            with pytest.raises(ConflictError):
                mine.commit()
            mine.abort()
            root._p_jar.close()
            assert not [*(tmp_path / "blobs").rglob("*.blob")]
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"of use")
        assert len([*(tmp_path / "blobs").rglob("*.blob")]) == 1
        with db.transaction() as connection, connection.root()["blob"].open() as file:
            assert file.read() == b"of use"
