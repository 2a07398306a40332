# SPDX-License-Identifier: ZPL-2.1
"""Whether the storage answers, and the threads of this process work."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import transaction
from ZODB.utils import z64

from lovely.remotetask.command.output import describe_kind
from lovely.remotetask.engine import registry

log = logging.getLogger("lovely.remotetask")

#: Seconds between two looks.
PROBE_SECONDS = 3.0

#: A storage that has not answered for so many seconds is away.
SILENT_SECONDS = 15.0

#: Characters that are told of an error.
MAX_TEXT = 200


class Probe(threading.Thread):
    """Asks the storage again and again.

    A thread of its own: where the storage is away, a look may take long.
    """

    def __init__(self, db: Any) -> None:
        super().__init__(name="remotetask-probe", daemon=True)
        self._db = db
        self._connection: Any = None
        self._error: str | None = None
        self._answered = time.monotonic()
        self.has_ended = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self.has_ended.wait(PROBE_SECONDS):
            try:
                self._look()
            except Exception as error:  # of any storage
                self._error = " ".join(describe_kind(error).split())[:MAX_TEXT]
                log.debug("the storage was asked in vain", exc_info=True)
            else:
                self._answered = time.monotonic()
                self._error = None

    def _look(self) -> None:
        # Always the same connection: one that cannot be opened is kept by ZODB all the same.
        if self._connection is None:
            self._connection = self._db.open(transaction.TransactionManager())
        self._connection.sync()  # RelStorage asks its server
        storage = self._db.storage
        if hasattr(storage, "is_connected"):  # ZEO's client, whose cache has the root too
            if not storage.is_connected():
                raise ConnectionError("not connected")
            storage.history(z64, 1)

    def problems(self) -> list[str]:
        """Return what is wrong, in texts for people."""
        found = []
        silent = time.monotonic() - self._answered
        if self._error is not None:
            found.append(f"the storage does not work: {self._error}")
        elif silent > SILENT_SECONDS:
            found.append(f"the storage has not answered for {silent:.0f} s")
        for processor in registry.all_started():
            if processor.engine.claims.transact.is_away:
                found.append(f"service {_name(processor)} waits for its storage")
        if not registry.are_alive():
            found.append("the thread of a service has ended")
        return found


def _name(processor: Any) -> str:
    name: str = getattr(processor, "name", None) or processor.remoteProcessor.__name__
    return name
