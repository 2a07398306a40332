# SPDX-License-Identifier: ZPL-2.1
"""Storages that wrap others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def layers_of(storage: Any) -> Iterator[Any]:
    """Yield a storage, and those that it wraps, from outside to inside."""
    while storage is not None:
        yield storage
        storage = getattr(storage, "base", None)
