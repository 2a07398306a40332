# SPDX-License-Identifier: ZPL-2.1
"""Storages that wrap others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def layers_of(storage: Any) -> Iterator[Any]:
    """Yield a storage, and those that it wraps, from outside to inside."""
    while storage is not None:
        yield storage
        # A `BlobStorage` has no name for it, and answers for it to all that it does not know.
        inner = getattr(storage, "__dict__", {}).get("_BlobStorage__storage")
        storage = getattr(storage, "base", None) if inner is None else inner
