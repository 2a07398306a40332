# SPDX-License-Identifier: ZPL-2.1
"""Whether something has changed that a page shows, at the cost of a few small records."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from ZODB.utils import z64


def state_of(service: Any, *more: Any) -> str:
    """Return a text that changes with the lists of jobs of a service, and with what is given.

    A job that is added, claimed, put back, ended or removed changes a counter or the record of a
    worker, and who runs one writes the worker's record now and then.  So it is enough to look when
    those were last written.  What a run logs is noted beside.

    :param more: persistent objects, and what says all of itself by `repr`.
    """
    mark = sha256()
    for part in (*_counters(service), *more):
        mark.update(_version(part))
    return mark.hexdigest()[:16]


def _counters(service: Any) -> Iterator[Any]:
    queue = service.queue
    for level in queue.all_levels():
        yield from _places(level)
    if queue.gates is not None:
        yield from (index.size for index in queue.gates.aside.values())
    yield list(queue.paused)
    yield queue.limits
    yield from service.workers.values()
    yield list(service.requests)
    yield list(service.progress.items())
    # The lines of a run: their number is enough.
    yield [(jobid, note[1]) for jobid, note in service.lines.items()]


def _places(level: Any) -> Iterator[Any]:
    """Yield what changes when a job begins or ends to wait with some priority."""
    yield from (index.size for index in level.indexes.values())
    for ready in level.queues:
        for lane in ready.lanes:
            yield lane.added
            yield lane.left
    for name, lot in level.parked.items():
        yield name
        yield lot.size


def _version(part: Any) -> bytes:
    serial = getattr(part, "_p_serial", None)
    if serial is None:
        return repr(part).encode("utf-8", "backslashreplace")
    if serial == z64:
        part._p_activate()  # a ghost has no serial
        serial = part._p_serial
    return bytes(part._p_oid or b"") + bytes(serial)
