# SPDX-License-Identifier: ZPL-2.1
"""One thread's place at the database, and its transactions."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.base.site import site_of
from lovely.remotetask.engine.session import SessionBase


class Session(SessionBase):
    """One thread's place at the database.

    :param processor: as the thread's own transactions see it.
    """

    def __init__(self, processor: Any, manager: Any = None) -> None:
        super().__init__(manager)
        self.processor = processor if manager is None else processor.seen_by(manager)

    @property
    def is_closed(self) -> bool:
        """See `SessionBase`."""
        is_closed: bool = self.processor.database.is_closed
        return is_closed

    @property
    def is_open(self) -> bool:
        """See `SessionBase`."""
        return True

    def begin(self) -> Any:
        """See `SessionBase`."""
        self.in_commit = False
        self.in_begin = True
        self.manager.begin()
        self.in_begin = False
        return self.processor

    def site(self, service: Any) -> Any:
        """See `SessionBase`."""
        return site_of(service)

    def check_reachable(self, service: Any) -> None:
        """See `SessionBase`: it always is."""

    def empty_cache(self) -> None:
        """See `SessionBase`: nothing outlives its transaction."""

    def close(self) -> None:
        """See `SessionBase`."""
        self.abort()
