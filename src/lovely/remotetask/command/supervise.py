# SPDX-License-Identifier: ZPL-2.1
"""The supervisor: starts the processes that work, and starts again what ends.

It opens no storage, imports no tasks, and starts each process by a fresh interpreter: what a fork
would copy (the threads of a ZEO client, a lock that one of them holds) is not there.  A process
sees by its socket when the supervisor is gone, and ends in order by itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import time
from collections import deque
from typing import Any

from lovely.remotetask.command.health import Health
from lovely.remotetask.command.output import (
    DIED,
    DONE,
    FAILED,
    Output,
    set_up_logging,
    show_from,
)
from lovely.remotetask.command.process import MAX_EARLY, Place, Process, is_planned
from lovely.remotetask.command.signals import LOOK_SECONDS, STOPPING, Signals
from lovely.remotetask.command.systemd import Systemd
from lovely.remotetask.errors import InvalidArgument

log = logging.getLogger("lovely.remotetask")

#: A process that has jobs to finish before it ends keeps the next one waiting for so long, where
#: two can have the storage open.
PATIENCE_SECONDS = 10.0

#: Seconds beyond the grace until processes that do not end are killed.
MORE_SECONDS = 10.0

#: So many of those that have died last are told to each new process.  What those before them held
#: was freed long ago.
MAX_ENDED = 100

#: Seconds between two looks whether processes that end have ended.
STOP_LOOK_SECONDS = 0.05


def supervise(arguments: argparse.Namespace, output: Output) -> int:
    """Keep processes at work until a signal comes, or they have done what was asked for.

    :raises InvalidArgument: this system cannot do it.
    """
    if os.name != "posix":
        raise InvalidArgument("--processes, --max-jobs and --max-memory take a POSIX system")
    systemd = Systemd()
    if set_up_logging(arguments.verbose, logging.INFO, logging.WARNING, arguments.log_format):
        show_from(logging.WARNING)
    health = Health(arguments.health_file, arguments.health_address, systemd)
    supervisor = Supervisor(arguments, output, health, systemd)
    try:
        with Signals(supervisor.kill) as signals:
            return supervisor.run(signals)
    finally:
        supervisor.kill()
        health.close()


class Supervisor:
    """Keeps a process in each of its places."""

    def __init__(
        self, arguments: argparse.Namespace, output: Output, health: Health, systemd: Systemd
    ) -> None:
        self._arguments = arguments
        self._output = output
        self._health = health
        self._systemd = systemd
        self._places = [Place(number) for number in range(1, (arguments.processes or 1) + 1)]
        self._retiring: list[Process] = []
        self._ended: deque[str] = deque(maxlen=MAX_ENDED)  # tokens of processes that have died
        self._has_begun = False  # whether one process has worked
        self._is_told = False  # whether all have, and that was told
        self._left = ""  # what the last process has said that had nothing more to do

    @property
    def _processes(self) -> list[Process]:
        held = [place.process for place in self._places if place.process is not None]
        return [*held, *self._retiring]

    def kill(self) -> None:
        """End all processes on the spot."""
        for process in self._processes:
            process.kill()

    def run(self, signals: Signals) -> int:
        """Work until there is a reason to end; return the exit code."""
        code = None
        try:
            code = self._keep(signals)
        finally:  # also where a result cannot be written: jobs run by then
            if code is None:
                self._output.note(STOPPING)
            self._systemd.stopping()
            ended = self._stop()
        return ended if code is None else code

    def _keep(self, signals: Signals) -> int | None:
        """Work until there is a reason to end; return its exit code, or None after a signal."""
        while True:
            self._start_due()
            code = self._look_after()
            if code is not None or signals.received is not None:
                return code
            self._tell()
            signals.wait(self._seconds(), [process.channel for process in self._listened()])

    # -- starting ------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.process is None and not place.is_done and place.due <= now:
                place.start(self._arguments.same_command, self._ended)
            if not self._has_begun:
                return  # what the first one cannot do none can

    def _seconds(self) -> float:
        dues = [place.due for place in self._places if place.process is None and not place.is_done]
        if not self._has_begun:
            dues = dues[:1]
        # One that has closed its end is about to be gone.
        is_ending = len(self._listened()) < len(self._processes)
        look = STOP_LOOK_SECONDS if is_ending else LOOK_SECONDS
        return max(0.0, min([look, *(due - time.monotonic() for due in dues)]))

    def _listened(self) -> list[Process]:
        return [process for process in self._processes if process.channel.is_open]

    # -- looking -------------------------------------------------------------------------

    def _look_after(self) -> int | None:
        """Take note of what processes tell, and of their ends; return the exit code to end with."""
        for retiring in list(self._retiring):
            retiring.listen()
            if retiring.code is not None:
                self._retiring.remove(retiring)
                retiring.channel.close()
                self._tell_ended(retiring)
        for place in self._places:
            process = place.process
            if process is None:
                continue
            code = process.code  # before what it told last
            process.listen()
            self._has_begun = self._has_begun or process.ready is not None
            if code is not None:
                end = self._note_end(place, process, code)
                if end is not None:
                    return end
            elif self._may_go_beside(process):
                log.info(_TEXT, place.number, process.pid, "is still finishing jobs")
                self._retiring.append(place.leave_to_itself())
        if all(place.is_done for place in self._places) and not self._retiring:
            self._output.note(self._left)
            return DONE
        return None

    def _note_end(self, place: Place, process: Process, code: int) -> int | None:
        why = place.end(code)
        self._tell_ended(process)
        if place.is_done:
            self._left = why
            return None
        is_hopeless = not (self._has_begun and (self._is_told or process.is_storage_away))
        if is_hopeless and process.ready is None and code > 0:
            return code  # it has said why, and the next one would say the same
        if place.early >= MAX_EARLY:
            text = "process %s has died %s times in a row, each time at once: giving up"
            log.error(text, place.number, place.early)
            return DIED
        level = logging.INFO if code == 0 and process.leaving else logging.ERROR
        log.log(level, _TEXT, place.number, process.pid, why)
        return None

    def _may_go_beside(self, process: Process) -> bool:
        """Say whether the next one may be started while this one ends."""
        return (
            is_planned(process)
            and process.ready is not None
            and not process.ready["is_exclusive"]
            and time.monotonic() - process.left > PATIENCE_SECONDS
        )

    def _tell_ended(self, process: Process) -> None:
        """Let others free what a process held that has died; one that ends in order frees it."""
        if not process.code:
            return
        self._ended.append(process.token)
        for other in self._listened():
            other.tell_ended([process.token])

    # -- telling -------------------------------------------------------------------------

    def _tell(self) -> None:
        if not self._is_told and all(place.is_ready or place.is_done for place in self._places):
            self._is_told = True
            self._systemd.ready()
            self._tell_ready()
        hangs = [text for place in self._places for text in place.hangs()]
        problems = [text for place in self._places for text in place.problems()]
        processes: list[dict[str, Any]] = [place.told() for place in self._places]
        self._health.look(hangs, problems, processes)
        working = sum(place.is_ready for place in self._places)
        self._systemd.status("; ".join([f"{working} processes at work", *hangs, *problems]))

    def _tell_ready(self) -> None:
        told = [place.process.ready for place in self._places if place.process is not None]
        first = next((each for each in told if each is not None), None)
        if first is None:
            return
        count = len(self._places)
        who = f"{count} process{'es' if count > 1 else ''}"
        what = f"{first['services']} service{'s' if first['services'] > 1 else ''}"
        how = f"to stop: Ctrl-C, or kill {os.getpid()}"
        shown = first["database"]
        if first["known"]:
            self._output.tell(f"{who} at work on {what} of {shown}; {how}")
        else:
            self._output.tell(f"{who} waiting; {how}")
        if self._health.url:
            self._output.tell(f"Health is told at {self._health.url}")
        self._output.result(
            {
                "services": first["services"],
                "database": shown,
                "pid": os.getpid(),
                "processes": count,
                "health": self._health.url,
            }
        )

    # -- ending --------------------------------------------------------------------------

    def _stop(self) -> int:
        """Let all processes end in order; return the exit code."""
        end = time.monotonic() + self._arguments.grace + MORE_SECONDS
        for process in self._processes:
            process.stop()
        left = self._processes
        codes: list[int | None] = []
        while left and time.monotonic() < end:
            self._health.look([], ["stopping"], [place.told() for place in self._places])
            gone = [process for process in left if process.code is not None]
            for process in left:
                process.listen()
            for process in gone:
                left.remove(process)
                self._tell_ended(process)
            # One that a signal has ended before it had begun has left nothing behind.
            codes += [process.code for process in gone if process.ready is not None]
            if left:
                heard = [process.channel for process in left if process.channel.is_open]
                select.select(heard, [], [], STOP_LOOK_SECONDS)
        for process in left:
            log.error("process %s does not end, and is killed", process.pid)
            process.kill()
        return FAILED if left or any(codes) else DONE


_TEXT = "process %s (pid %s) %s; another one is started"
