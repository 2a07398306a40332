# SPDX-License-Identifier: ZPL-2.1
"""What a supervisor and its processes tell each other: JSON, a line a message, over a socket.

Each end sees when the other is gone, however it has ended: the kernel closes the socket.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

#: What the other end has not read is no longer than this, in bytes: it may be stopped.
MAX_PENDING = 100_000

#: A supervisor tells this when its processes are to end.
STOP = {"stop": True}


class Channel:
    """One end; neither sending nor receiving waits for the other.

    :ivar is_open: whether the other end is there.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._pending = b""
        self._received = b""
        self.is_open = True

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._end.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; where the other end does not read, it is dropped."""
        if len(self._pending) < MAX_PENDING:
            self._pending += json.dumps(message).encode() + b"\n"
        try:
            while self._pending:
                self._pending = self._pending[self._end.send(self._pending) :]
        except BlockingIOError:
            pass
        except OSError:  # it is gone
            self._pending = b""

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have come."""
        with suppress(BlockingIOError):
            while self.is_open:
                try:
                    part = self._end.recv(65536)
                except ConnectionError:
                    part = b""
                self.is_open = bool(part)
                self._received += part
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._end.close()
