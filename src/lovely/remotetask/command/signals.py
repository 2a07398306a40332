# SPDX-License-Identifier: ZPL-2.1
"""Signals that end the command: the first one in order, the second one on the spot."""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from lovely.remotetask.command.output import BY_SIGNAL
from lovely.remotetask.engine.registry import SAME_SIGNAL_SECONDS

#: Seconds between two looks whether a signal came: on Windows none of them ends a `select`.
LOOK_SECONDS = 1.0


def seconds_text(text: str) -> float:
    """Return the seconds that an argument tells."""
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) <= threading.TIMEOUT_MAX:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


class Signals:
    """Takes SIGINT, SIGTERM, SIGHUP and SIGQUIT in a ``with`` block.

    The first one asks the command to stop, the second one ends the process on the spot.

    :ivar received: the number of the first one, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}
        # Not an Event: a handler that sets it while the same thread is about to wait for it
        # would wait for itself.  Nor a SimpleQueue: in Python 3.10 a `get` whose timeout is
        # over can wait for ever.
        self._bell, self._ear = socket.socketpair()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *_hangups()):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._bell.close()
        self._ear.close()

    def _receive(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = number
            self._since = time.monotonic()
            self._bell.send(b"!")
        elif time.monotonic() - self._since > SAME_SIGNAL_SECONDS:
            leave_now(BY_SIGNAL + number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a signal; say whether one has come.

        :param seconds: wait no longer than this; None waits for ever.
        """
        select.select([self._ear], [], [], seconds)
        return self.received is not None


def _hangups() -> list[int]:
    # Not all platforms have them; and ``nohup`` has them ignored.
    numbers = [getattr(signal, name, None) for name in ("SIGHUP", "SIGQUIT")]
    return [n for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN]


def leave_now(code: int) -> None:
    """End the process on the spot, with an exit code; what was printed is not lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(RuntimeError, OSError, ValueError):  # the signal came amid a print
            stream.flush()
    os._exit(code)
