# SPDX-License-Identifier: ZPL-2.1
"""How the attributes of a job stand in its record.

As a tuple of those that most jobs have, by position, with a dict of all others at its end: that
takes half the bytes of a dict of them all.  What is stored so must be read for ever.
"""

from __future__ import annotations

from typing import Any

from lovely.remotetask.errors import OldRecord
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
)

#: The attributes that stand in a job's record by their position: those that most jobs have,
#: and those that a job has to its end before those that it loses.  They cannot change: what stands
#: behind the last of them in a record is the dict of the others.
POSITIONS = (
    "id",
    "task",
    "input",
    "created_at",
    "status",
    "attempt",
    "started_at",
    "completed_at",
    "output",
    "place",
    "owner",
    "due",
)

_IN_POSITION = frozenset(POSITIONS)

#: How a status stands in a job's record.  These numbers cannot change.
STATUS_CODES = {
    QUEUED: 0,
    PROCESSING: 1,
    COMPLETED: 2,
    ERROR: 3,
    CANCELLED: 4,
    DELAYED: 5,
    CRONJOB: 6,
    STARTLATER: 7,
}
_STATUSES = {code: status for status, code in STATUS_CODES.items()}
_STATUS = POSITIONS.index("status")


def pack(attributes: dict[str, Any]) -> tuple[Any, ...]:
    """Return the state of a job with these attributes; what is volatile stays out of it."""
    state = list(map(attributes.get, POSITIONS))
    status = attributes.get("status", QUEUED)
    state[_STATUS] = STATUS_CODES.get(status, status)
    rest = attributes.keys() - _IN_POSITION
    rest.discard("_v_is_usable")
    if rest:
        others = {name: attributes[name] for name in rest if not name.startswith("_v_")}
        if others:
            return (*state, others)
    while state[-1] is None:
        del state[-1]
    return tuple(state)


def unpack(state: Any) -> dict[str, Any]:
    """Return the attributes of a job with this state.

    :raises OldRecord: it is that of a job of 0.5.
    :raises TypeError: it is none.
    """
    if type(state) is not tuple:
        raise _foreign(state)
    attributes = {
        name: value for name, value in zip(POSITIONS, state, strict=False) if value is not None
    }
    status = attributes["status"]
    attributes["status"] = _STATUSES.get(status, status)
    if len(state) > len(POSITIONS):
        attributes.update(state[-1])
    return attributes


def _foreign(state: Any) -> Exception:
    """Return the error of a state that is none of ours; taken for one, it would be overwritten."""
    if isinstance(state, dict) and "task" in state:
        return OldRecord.of(f"the job {state.get('id')}")
    return TypeError(f"a {type(state).__name__} is not the state of a job")
