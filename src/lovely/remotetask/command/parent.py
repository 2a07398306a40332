# SPDX-License-Identifier: ZPL-2.1
"""The supervisor, as one of its processes sees it; or that there is none."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import stat
from typing import Any

from lovely.remotetask.command.channel import Channel
from lovely.remotetask.engine import registry
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.store import worker

log = logging.getLogger("lovely.remotetask")

#: Why a process ends: it was told to by a signal, it may do no more, or there is nothing to do.
BY_SIGNAL, USED_UP, DRAINED = "signal", "used up", "drained"


class NoParent:
    """Nobody supervises this process."""

    is_there = False

    def handles(self) -> list[Any]:
        """Return what to wait for, for news from it."""
        return []

    def listen(self) -> None:
        """Take note of what it has told."""

    def wants_end(self) -> bool:
        """Say whether this process is to end."""
        return False

    def tell(self, **message: Any) -> None:
        """Tell it something."""


class Parent(NoParent):
    """The supervisor, at the other end of a socket that this process has inherited."""

    is_there = True

    def __init__(self, descriptor: int) -> None:
        self._channel = Channel(socket.socket(fileno=descriptor))
        self._wants_end = False

    def handles(self) -> list[Any]:
        """See `NoParent`."""
        return [] if self._wants_end else [self._channel]

    def listen(self) -> None:
        """See `NoParent`."""
        for message in self._channel.receive():
            if "stop" in message:
                self._wants_end = True
            elif "ended" in message:
                worker.ended.update(message["ended"])
                registry.hurry()
        if not (self._wants_end or self._channel.is_open):
            self._wants_end = True
            log.warning("the supervisor is gone; ending when the running jobs are done")

    def wants_end(self) -> bool:
        """See `NoParent`.  Also when the supervisor is gone."""
        self.listen()
        return self._wants_end

    def tell(self, **message: Any) -> None:
        """See `NoParent`."""
        self._channel.send(message)


def add_child_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a supervisor gives its processes, and nobody else types."""
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)


#: What a supervisor tells a process by its environment: its own id, the token of the process, how
#: often it was started, and why again.
STARTED = "REMOTETASK_CHILD"


def find_parent(arguments: argparse.Namespace) -> NoParent:
    """Return who supervises this process.

    :raises InvalidArgument: somebody has typed what only a supervisor gives.
    """
    if arguments.child is None and arguments.channel is None:
        return NoParent()
    told = os.environ.pop(STARTED, "").split(" ", 3)
    is_whole = len(told) == 4 and told[0].isdecimal() and told[2].isdecimal()
    if not (is_whole and arguments.child and _is_socket(arguments.channel)):
        raise InvalidArgument("--child and --channel are for the processes of a supervisor")
    os.set_inheritable(arguments.channel, False)
    supervisor, token, starts, why = told
    # Of a process between the two the supervisor would wait for that one, which can die alone.
    is_its_own = os.getppid() == int(supervisor)
    worker.origin = worker.Origin(
        int(supervisor), arguments.child, int(starts), why, token if is_its_own else ""
    )
    return Parent(arguments.channel)


def _is_socket(descriptor: int | None) -> bool:
    try:
        return descriptor is not None and stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False
