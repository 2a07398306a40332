# SPDX-License-Identifier: ZPL-2.1
"""Counts the commits of this process, and the conflicts that they meet."""

from __future__ import annotations

from collections import Counter
from functools import wraps
from typing import Any

from ZODB.Connection import Connection
from ZODB.POSException import ConflictError


def count_commits() -> Counter[str]:
    """Count from now on; return the counts, of ``commits`` and ``conflicts``."""
    met: Counter[str] = Counter()

    def counting(name: str) -> Any:
        original = getattr(Connection, name)

        @wraps(original)
        def counted(connection: Connection, *arguments: Any) -> Any:
            try:
                result = original(connection, *arguments)
            except ConflictError:
                met["conflicts"] += 1
                raise
            met["commits"] += name == "tpc_finish"
            return result

        return counted

    for name in ("commit", "tpc_vote", "tpc_finish"):
        setattr(Connection, name, counting(name))
    return met
