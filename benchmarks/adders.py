# SPDX-License-Identifier: ZPL-2.1
"""How often those who add jobs meet a conflict, while a worker runs the jobs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import payload
import transaction
from places import NOOP, Place
from transaction.interfaces import TransientError

#: A transaction is begun so often before it counts as failed; three is what web servers do.
TRIES = 3

#: Adders wait while so many jobs do.
BACKLOG = 20_000


def conflicts_of_adders(place: Place, seconds: float) -> Iterator[tuple[str, Counter[str]]]:
    """Yield what adders meet in so many seconds: (what they do, counts).

    The counts are ``commits``, ``conflicts``, and ``failures`` for good.
    """
    payload.board().open_gate()
    for is_shared in (False, True):
        for adders in (1, 4):
            for together in (1, 100, 1000):
                NOOP.shared_commit = is_shared
                name = "add" if together == 1 else f"add_many {together:,}"
                kind = "shared" if is_shared else "plain"
                found = _measured(place, adders, together, seconds)
                yield f"{name}, {adders} at once, {kind}", found


def _measured(place: Place, adders: int, together: int, seconds: float) -> Counter[str]:
    transaction.begin()
    place.service.startProcessing()
    with ExitStack() as stack:
        stack.callback(place.service.stopProcessing, 10.0)
        databases = [stack.enter_context(place.opened()) for _ in range(adders)]
        counts: list[Counter[str]] = [Counter() for _ in databases]
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=_add, args=(db, together, end, count))
            for db, count in zip(databases, counts, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts, Counter())


def _add(db: Any, together: int, end: float, counts: Counter[str]) -> None:
    manager = transaction.TransactionManager()
    with closing(db.open(manager)) as connection:
        service = connection.root()["tasks"]
        while not counts["commits"] or time.monotonic() < end:
            _add_once(manager, service, together, counts)
            manager.begin()
            if len(service.queue) > BACKLOG:
                time.sleep(0.01)
            manager.abort()


def add_for(db: Any, seconds: float, together: int) -> Counter[str]:
    """Add jobs for some seconds, as fast as it goes, and return the counts."""
    counts: Counter[str] = Counter()
    manager = transaction.TransactionManager()
    with closing(db.open(manager)) as connection:
        service = connection.root()["tasks"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            _add_once(manager, service, together, counts)
    return counts


def _add_once(manager: Any, service: Any, together: int, counts: Counter[str]) -> None:
    counts["commits"] += 1
    if not any(_has_added(manager, service, together, counts) for _ in range(TRIES)):
        counts["failures"] += 1


def _has_added(manager: Any, service: Any, together: int, counts: Counter[str]) -> bool:
    try:
        with manager:
            if together == 1:
                service.add("noop", 1)
            else:
                service.add_many("noop", [1] * together)
    except TransientError:
        counts["conflicts"] += 1
        return False
    except Exception:  # an application would not repeat it
        counts["failures"] += 1
    return True
