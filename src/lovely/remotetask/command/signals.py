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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from lovely.remotetask.command.output import BY_SIGNAL
from lovely.remotetask.engine.registry import SAME_SIGNAL_SECONDS

#: Seconds between two looks whether a signal came: on Windows none of them ends a `select`.
LOOK_SECONDS = 1.0

#: What people are told when the first one has come.
STOPPING = "Stopping when the running jobs are done; a second signal leaves now."


def seconds_text(text: str) -> float:
    """Return the seconds that an argument tells."""
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) <= threading.TIMEOUT_MAX:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


class Signals:
    """Takes SIGINT, SIGTERM, SIGHUP and SIGQUIT in a ``with`` block.

    The first one asks the command to stop, the second one ends the process on the spot.

    :param on_second: called before that, amid anything that the main thread does.
    :ivar received: the number of the first one, or None.
    """

    def __init__(self, on_second: Callable[[], None] = lambda: None) -> None:
        self.received: int | None = None
        self._on_second = on_second
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
            self._on_second()
            leave_now(BY_SIGNAL + number)

    def ring(self) -> None:
        """Let who waits go on, from another thread."""
        with suppress(OSError):  # nobody waits any more
            self._bell.send(b".")

    def wait(self, seconds: float | None = None, handles: Sequence[Any] = ()) -> bool:
        """Wait for a signal; say whether one has come.

        :param seconds: wait no longer than this; None waits for ever.
        :param handles: what else ends the waiting, when it can be read.
        """
        if self.received is None:
            heard, _, _ = select.select([self._ear, *handles], [], [], seconds)
            if self._ear in heard:
                self._ear.recv(1024)
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
