# SPDX-License-Identifier: ZPL-2.1
"""Services that lovely.remotetask 0.5 has written: they are neither read nor changed."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.errors import OldRecord


class Part:
    """Stands for a part that a service lacks; one that it has is found first, at no cost."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, service: Any, owner: type | None = None) -> Any:
        if service is None:
            return self
        check_not_old(service)
        raise AttributeError(f"{type(service).__name__} has no {self._name}")


def check_not_old(service: Any) -> None:
    """Refuse a service that 0.5 has written: it would be stored as neither the old nor a new one.

    :raises OldRecord: it is one.
    """
    if is_old(service):
        raise OldRecord.of(f"the service {service.__name__!r}")


def is_old(service: Any) -> bool:
    """Say whether 0.5 has written a service, and nothing has brought it to today's records."""
    service._p_activate()
    stored = vars(service)
    return "_queue" in stored and "queue" not in stored
