# SPDX-License-Identifier: ZPL-2.1
"""Persistent objects in inputs that are not stored there, but found again where the job runs."""

from __future__ import annotations

from typing import Any

from persistent import Persistent

from lovely.remotetask.errors import InvalidInput, shown
from lovely.remotetask.interfaces import IReference


class Reference:
    """Stands in a stored input in the place of a persistent object.

    Stored: ``to``, what the adapter to `IReference` has returned for the object.
    """

    def __init__(self, to: Any) -> None:
        self.to = to

    def __eq__(self, other: object) -> bool:
        return type(other) is Reference and bool(self.to == other.to)

    def __hash__(self) -> int:
        return hash(self.to)

    def __repr__(self) -> str:
        return repr(self.to)


def referring(value: Any) -> Any:
    """Return what is stored in the place of a persistent object: mostly the object itself.

    What an adapter raises goes to the caller.

    :raises InvalidInput: what it returns cannot stand for the object.
    """
    if not isinstance(value, Persistent):
        return value
    found = IReference(value, None)
    if found is None:
        return value
    if not callable(getattr(found, "resolve", None)) or isinstance(found, Persistent):
        raise InvalidInput(
            f"the adapter of {shown(value)} to IReference returned {shown(found)}: that has to be "
            "plain, and to have a resolve()"
        )
    return Reference(found)


def refusing(value: Any) -> Any:
    """Return what can be the input of a job object, which nobody resolves: all but such objects.

    :raises InvalidInput: the object has an adapter to `IReference`.
    """
    if type(referring(value)) is Reference:
        raise InvalidInput(
            f"{shown(value)} cannot be the input of a job object: give what stands for it"
        )
    return value


def resolved(value: Any) -> Any:
    """Return the object that a `Reference` stands for; all else is what it is.

    :raises Exception: what `IReference.resolve` raises.
    """
    return value.to.resolve() if type(value) is Reference else value
