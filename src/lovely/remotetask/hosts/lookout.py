# SPDX-License-Identifier: ZPL-2.1
"""Services that are made after the start: looked for again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from lovely.remotetask.engine import registry

log = logging.getLogger("lovely.remotetask")

#: Seconds between two looks for services that are new.
LOOK_AGAIN_SECONDS = 5.0


class Lookout(threading.Thread):
    """Starts the services that are made while this process runs, until it or the database ends.

    A thread of its own: where the storage is away, a look takes as long as that waits.

    :param db: the database.
    :param look: looks once.
    """

    def __init__(self, db: Any, look: Callable[[], object]) -> None:
        super().__init__(name="remotetask-lookout", daemon=True)
        self.db = db
        self._look = look
        self._has_ended = threading.Event()
        registry.attend(self)

    def stop(self) -> None:
        """Let there be no other look."""
        self._has_ended.set()

    def run(self) -> None:
        """Look again and again."""
        while not self._has_ended.wait(LOOK_AGAIN_SECONDS):
            try:
                self._look()
            except Exception:  # the storage is away, say: those who work on services tell that
                log.debug("new services were not looked for", exc_info=True)
