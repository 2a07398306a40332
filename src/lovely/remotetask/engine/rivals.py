# SPDX-License-Identifier: ZPL-2.1
"""What a worker knows of those beside it, with whom it shares the jobs that are ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lovely.remotetask.engine.identity import Identity

#: After a rival was seen, the strict order is left for so many seconds.
RIVAL_SECONDS = 10.0


class Rivals:
    """The other workers of a service that one of them has seen lately.

    :param identity: who the worker itself is.
    """

    def __init__(self, identity: Identity, monotonic: Callable[[], float]) -> None:
        self._identity = identity
        self._monotonic = monotonic
        self._seen: dict[str, float] = {}  # worker id -> when it was seen

    def share(self, service: Any, limit: int) -> tuple[float | None, int]:
        """Return where the worker begins among the jobs that are ready, and how many it takes.

        Workers that know of each other begin at equal distances.  Of the last jobs nobody
        takes a batch while others have nothing to do.
        """
        now = self._monotonic()
        mine = self._identity.id
        # Rivals that hold nothing at the moment have no record: those seen lately count.
        self._seen.update((other, now) for other in service.workers if other != mine)
        for worker_id, seen in list(self._seen.items()):
            if now - seen > RIVAL_SECONDS:
                del self._seen[worker_id]
        if not self._seen:
            return None, limit
        workers = sorted([mine, *self._seen])
        start = workers.index(mine) / len(workers)
        return start, max(1, min(limit, len(service.queue) // len(workers)))
