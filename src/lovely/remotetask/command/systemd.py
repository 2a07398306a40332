# SPDX-License-Identifier: ZPL-2.1
"""Tells systemd how the process is doing, as its ``sd_notify`` protocol has it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger("lovely.remotetask")


class Systemd:
    """The service manager that waits for news of this process; nobody may.

    What it has put into the environment is taken out: processes that are started from here, by
    tasks too, are none of its services.

    :ivar watchdog_seconds: it wants a sign of life at least so often; None does not.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        self.watchdog_seconds: float | None = None
        is_meant = bool(self._address) and pid in ("", str(os.getpid()))
        if is_meant and microseconds.isdecimal() and int(microseconds):
            self.watchdog_seconds = int(microseconds) / 1e6
        self._signed = -float("inf")
        self._status = ""

    def ready(self) -> None:
        """Tell that the process does its work."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Tell that it ends."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """Tell people in a line what it does, if that has changed."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={' '.join(text.split())}")

    def alive(self, monotonic: float | None = None) -> None:
        """Give a sign of life, if it is time for one."""
        now = time.monotonic() if monotonic is None else monotonic
        if self.watchdog_seconds is not None and now - self._signed >= self.watchdog_seconds / 3:
            self._signed = now
            self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        # "@" stands for the zero byte of a name that is in no directory.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)
                sender.connect(address)
                sender.sendall(text.encode("utf-8", "replace"))
        except OSError as error:  # the work goes on, whoever hears of it
            log.debug("systemd at %s was not told: %s", self._address, error)
