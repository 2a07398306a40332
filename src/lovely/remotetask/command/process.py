# SPDX-License-Identifier: ZPL-2.1
"""One process of a supervisor, and the place in which another one follows it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from lovely.remotetask.command.channel import STOP, Channel
from lovely.remotetask.command.health import HANG_SECONDS
from lovely.remotetask.command.parent import BY_SIGNAL, DRAINED, STARTED, USED_UP

#: A process that dies within so many seconds of its start has died at once.
EARLY_SECONDS = 10.0

#: So many in a row do, in one place: then no more are started there.
MAX_EARLY = 8

#: Seconds until the next one is started: at first, doubled each time, and at the most.
FIRST_WAIT, MAX_WAIT = 0.1, 30.0

#: The same where the storage is away, and where a signal has ended it, which may be on its way
#: to the supervisor too.
STORAGE_WAIT, SIGNAL_WAIT = 5.0, 0.5

#: What became of a process that could not open the storage.
AWAY = "could not open the storage"

#: A process has so many seconds from its start until it is missed.
START_SECONDS = 60.0


class Process:
    """A process that was started.

    :param ended: the tokens of others that have died.
    :ivar token: names this very process, in the records of its workers too.
    :ivar is_ready: what it has told of its services, or None.
    :ivar leaving: why it is about to end, as `parent` names it, and in words; or None.
    """

    def __init__(
        self, command: list[str], number: int, starts: int, why: str, ended: Iterable[str] = ()
    ) -> None:
        self.token = uuid.uuid4().hex
        ours, its = socket.socketpair()
        self.channel = Channel(ours)
        self.tell_ended(ended)  # so that it is there when the process begins
        with its:
            self._process = subprocess.Popen(
                [*command, "--child", str(number), "--channel", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                env={**os.environ, STARTED: f"{os.getpid()} {self.token} {starts} {why}"},
            )
        self.born = self.heard = time.monotonic()
        self.ready: dict[str, Any] | None = None
        self.leaving: tuple[str, str] | None = None
        self.left = 0.0
        self.is_storage_away = False
        self.problems: list[str] = []
        self.jobs = 0

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, or that of a signal as a negative number; None while it runs."""
        return self._process.poll()

    def listen(self) -> None:
        """Take note of what it has told."""
        for message in self.channel.receive():
            self.heard = time.monotonic()
            if "beat" in message:
                self.problems, self.jobs = message["beat"], message["jobs"]
            elif "ready" in message:
                self.ready = message
            elif "leaving" in message:
                self.leaving = message["leaving"], message["why"]
                self.left = self.heard
            elif "is_away" in message:
                self.is_storage_away = True

    def tell_ended(self, tokens: Iterable[str]) -> None:
        """Tell it which others have died, so that it frees what they held."""
        if told := list(tokens):
            self.channel.send({"ended": told})

    def stop(self) -> None:
        """Ask it to end in order."""
        self.channel.send(STOP)

    def kill(self) -> None:
        """End it on the spot."""
        with suppress(OSError):
            self._process.kill()

    @property
    def silent_seconds(self) -> float:
        """For how long it has told nothing, although it should."""
        return 0.0 if self.ready is None else time.monotonic() - self.heard


class Place:
    """Where one process of a number follows another.

    :ivar process: the one that runs, or None.
    :ivar due: when the next one is to be started, by the monotonic clock.
    :ivar is_done: whether no other one is to be started.
    :ivar early: how many in a row have died at once.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.due = self._since = time.monotonic()
        self.is_done = False
        self.early = 0
        self._starts = 0
        self._why = ""

    def start(self, command: list[str], ended: Iterable[str] = ()) -> None:
        """Start the next one, and tell it the tokens of those that have died."""
        self._starts += 1
        self.process = Process(command, self.number, self._starts, self._why, ended)

    def end(self, code: int) -> str:
        """Take note that the process has ended; return what became of it, in words."""
        process, self.process = self.process, None
        assert process is not None
        process.channel.close()
        now = self._since = time.monotonic()
        kind, why = process.leaving or ("", "")
        if kind and code == 0:
            self.early = 0
            self.is_done = kind == DRAINED
            self.due = now + (SIGNAL_WAIT if kind == BY_SIGNAL else 0.0)
            self._why = why
        elif process.is_storage_away:
            self.due = now + STORAGE_WAIT
            self._why = AWAY
        else:
            self.early = self.early + 1 if now - process.born < EARLY_SECONDS else 0
            self.due = now
            if self.early:
                self.due += min(MAX_WAIT, FIRST_WAIT * 2 ** (self.early - 1))
            self._why = _of_code(code)
        return self._why

    def leave_to_itself(self) -> Process:
        """Let another one be started although this one has jobs to finish; return it."""
        process, self.process = self.process, None
        assert process is not None
        assert process.leaving is not None
        self._why = process.leaving[1]
        self.due = self._since = time.monotonic()
        return process

    @property
    def is_ready(self) -> bool:
        """Whether a process works here."""
        return self.process is not None and self.process.ready is not None

    def hangs(self) -> list[str]:
        """Return that the process hangs, if it does."""
        process = self.process
        if process is None or process.silent_seconds <= HANG_SECONDS:
            return []
        silent = f"{process.silent_seconds:.0f} s"
        return [f"process {self.number} (pid {process.pid}) has not told anything for {silent}"]

    def problems(self) -> list[str]:
        """Return what else is wrong here."""
        if self.is_done:
            return []
        process = self.process
        if self.early > 1:
            return [f"process {self.number} has died at once {self.early} times: {self._why}"]
        if process is not None and process.ready is not None:
            return [f"process {self.number}: {problem}" for problem in process.problems]
        since = self._since if process is None else process.born
        if self._starts <= 1 or time.monotonic() - since > START_SECONDS or not self._goes_well():
            return [f"process {self.number} does not work yet"]
        return []

    def _goes_well(self) -> bool:
        return self.early == 0 and self._why != AWAY

    def told(self) -> dict[str, Any]:
        """Return what programs are told of it."""
        process = self.process
        state = "ended" if self.is_done else "waiting to be started"
        if process is not None:
            state = "starting" if process.ready is None else "working"
            state = "ending" if process.leaving else state
        return {
            "number": self.number,
            "pid": None if process is None else process.pid,
            "state": state,
            "jobs": 0 if process is None else process.jobs,
            "starts": self._starts,
            "restarted": self._why,
        }


def is_planned(process: Process) -> bool:
    """Say whether a process ends since it may do no more."""
    return process.leaving is not None and process.leaving[0] == USED_UP


def _of_code(code: int) -> str:
    if code >= 0:
        return f"has ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
