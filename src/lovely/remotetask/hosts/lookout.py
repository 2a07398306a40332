# SPDX-License-Identifier: ZPL-2.1
"""Services that are made after the start: looked for again and again."""

from __future__ import annotations

import logging
import threading
from typing import Any

from lovely.remotetask.hosts.autostart import start_new_services

log = logging.getLogger("lovely.remotetask")

#: Seconds between two looks for services that are new.
LOOK_AGAIN_SECONDS = 5.0


class Lookout(threading.Thread):
    """Starts the services that are made while this process runs.

    A thread of its own: where the storage is away, a look takes as long as that waits.

    :param known: see `start_new_services`.
    :ivar has_ended: set it, and there is no other look.
    """

    def __init__(self, db: Any, patterns: list[str], known: set[Any]) -> None:
        super().__init__(name="remotetask-lookout", daemon=True)
        self.has_ended = threading.Event()
        self._db = db
        self._patterns = patterns
        self._known = known

    def run(self) -> None:
        """Look again and again."""
        while not self.has_ended.wait(LOOK_AGAIN_SECONDS):
            try:
                start_new_services(self._db, self._patterns, self._known)
            except Exception:  # the storage is away, say: those who work on services tell that
                log.debug("new services were not looked for", exc_info=True)
