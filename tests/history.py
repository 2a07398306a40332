# SPDX-License-Identifier: ZPL-2.1
"""What transactions have stored, read off the file of a database."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

from ZODB.FileStorage import FileStorage


def transactions(path: Path) -> Iterator[Any]:
    """Yield the transactions of a file that nobody has open, from the first one on."""
    with closing(FileStorage(str(path), read_only=True)) as storage:
        yield from storage.iterator()


def states(transaction: Any, *kinds: type) -> Iterator[tuple[bytes, Any]]:
    """Yield (object id, state) of the objects of some classes that a transaction has stored.

    What they refer to is None.
    """
    for record in transaction:
        unpickler = pickle.Unpickler(BytesIO(record.data))
        unpickler.persistent_load = lambda reference: None  # type: ignore[method-assign]
        if unpickler.load() in kinds:
            yield record.oid, unpickler.load()
