# SPDX-License-Identifier: ZPL-2.1
"""One process that works on the services of databases, by itself or under a supervisor."""

from __future__ import annotations

import argparse
import logging
import os
import time
from contextlib import closing
from typing import Any

import transaction

from lovely.remotetask.command.database import (
    check_shareable,
    import_modules,
    without_password,
)
from lovely.remotetask.command.drain import is_drained, what_is_left
from lovely.remotetask.command.health import Health
from lovely.remotetask.command.output import DONE, FAILED, Output, set_up_logging, show_from
from lovely.remotetask.command.parent import BY_SIGNAL, DRAINED, USED_UP, NoParent
from lovely.remotetask.command.probe import Probe
from lovely.remotetask.command.served import Served, close_served, open_served, why_not_found
from lovely.remotetask.command.services import check_can_work
from lovely.remotetask.command.signals import LOOK_SECONDS, STOPPING, Signals, leave_now
from lovely.remotetask.command.systemd import Systemd
from lovely.remotetask.command.zopeconf import open_zope
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.allowance import Allowance
from lovely.remotetask.engine.identity import is_exclusive
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.hosts.autostart import (
    find_all_services,
    getAutostartServiceNames,
    look_out,
    split_patterns,
    start_new_services,
    use_configured_threads,
)

#: Connections that a service takes beside those of its threads, with one for a task's progress.
MORE_CONNECTIONS = 4

#: Seconds between two looks whether there is nothing more to do.
DRAIN_SECONDS = 0.2

#: Seconds between two looks while running jobs are waited for.
END_SECONDS = 0.3


def work(arguments: argparse.Namespace, output: Output, parent: NoParent) -> int:
    """Work until a signal comes, the parent wants it, or what was asked for is done.

    Transaction: must not run in one; commits.
    """
    systemd = Systemd()
    import_modules(arguments.modules)
    is_ours = set_up_logging(arguments.verbose, logging.INFO, logging.WARNING, arguments.log_format)
    registry.threads = arguments.threads
    try:
        served = _open(arguments)
    except InvalidArgument:
        raise
    except RemoteTaskError:
        parent.tell(is_away=True)
        raise
    if is_ours:
        show_from(logging.WARNING)  # what cannot be opened is told once, by us
    try:
        if arguments.zope_conf is None:
            for each in served:
                check_can_work(each.db)
        if (arguments.processes or 1) > 1:
            for each in served:
                check_shareable(each.db, without_password(each.uri))
        with Signals() as signals:
            code = _Work(arguments, output, parent, served, signals, systemd).run()
            if code != DONE:
                output.note("remotetask: jobs were still running; they will be run again")
                leave_now(code)
    finally:
        close_served(served)
    return DONE


class _Work:
    """What goes on in the main thread, beside those that work on services."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        output: Output,
        parent: NoParent,
        served: list[Served],
        signals: Signals,
        systemd: Systemd,
    ) -> None:
        self._arguments = arguments
        self._output = output
        self._parent = parent
        self._served = served
        self._databases = [each.db for each in served]
        self._signals = signals
        self._systemd = systemd
        self._patterns = split_patterns(arguments.autostart)
        self._why_used_up: str | None = None
        self._allowance = Allowance(arguments.max_jobs, _bytes(arguments), self._use_up)
        registry.allowance = self._allowance
        self._known: set[Any] = set()
        self._lookouts: list[Any] = []
        self._probes = [Probe(db) for db in self._databases]
        self._health = None
        if not parent.is_there:  # whom the parent asks tells him
            self._health = Health(arguments.health_file, arguments.health_address, systemd)
        self._is_watched = parent.is_there or self._is_asked()

    def _is_asked(self) -> bool:
        given = self._arguments
        return given.health_file is not None or given.health_address is not None

    def run(self) -> int:
        """Work to the end; return the exit code."""
        try:
            self._parent.listen()  # who has died before: what they held is freed first
            _start(self._served, self._arguments, self._output, self._known, self._parent)
            if self._health is not None and self._health.url:
                self._output.tell(f"Health is told at {self._health.url}")
            # One each: a storage that is away keeps none of the others waiting.
            for db in self._databases:
                self._lookouts.append(look_out(db, self._patterns, self._known))
            for probe in self._probes if self._is_watched else ():
                probe.start()
            self._systemd.ready()
            kind, why = self._wait()
            self._parent.tell(leaving=kind, why=why)
            self._systemd.stopping()
            self._say(kind, why)
            return self._end(kind)
        finally:
            self._look_no_more()
            for probe in self._probes:
                probe.has_ended.set()
            registry.allowance = None
            if self._health is not None:
                self._health.close()

    def _wait(self) -> tuple[str, str]:
        """Wait for a reason to end; return its kind, and what to say of it."""
        seconds = DRAIN_SECONDS if self._arguments.drain else LOOK_SECONDS
        while True:
            self._beat()
            # A signal that came with others to all of a group is the parent's affair too.
            has_signal = self._signals.wait(seconds, self._parent.handles())
            if self._wants_end() or has_signal:
                return BY_SIGNAL, f"was told to end by signal {self._signals.received}"
            self._allowance.look()
            if self._why_used_up is not None:
                return USED_UP, self._why_used_up
            if self._arguments.drain and self._has_nothing_to_do():
                left = what_is_left(self._databases, self._patterns)
                return DRAINED, f"Nothing waits any more{left}."

    def _look_no_more(self) -> None:
        for lookout in self._lookouts:
            lookout.stop()

    def _wants_end(self) -> bool:
        return self._signals.received is not None or self._parent.wants_end()

    def _has_nothing_to_do(self) -> bool:
        try:
            return is_drained(self._databases, self._patterns)
        except Exception:  # the storage is away, say: those who work on services tell that
            logging.getLogger("lovely.remotetask").debug("not looked", exc_info=True)
            return False

    def _use_up(self, why: str) -> None:
        self._why_used_up = why
        self._look_no_more()
        registry.stop_all(0)
        self._signals.ring()

    def _say(self, kind: str, why: str) -> None:
        if self._parent.is_there:
            return  # it says so for all
        if kind == DRAINED:
            self._output.note(why)
        else:
            self._output.note(STOPPING)

    def _end(self, kind: str) -> int:
        """End in order; return the exit code."""
        self._look_no_more()
        if kind in (USED_UP, DRAINED):  # nobody has asked for it: what runs may take its time
            while not (self._wants_end() or registry.stop_all(END_SECONDS)):
                self._beat()
        end = time.monotonic() + self._arguments.grace
        while (left := end - time.monotonic()) > 0:
            if registry.stop_all(min(left, END_SECONDS)):
                break
            self._parent.listen()
            self._beat()
        return DONE if registry.leave(0) else FAILED

    def _beat(self) -> None:
        probes = self._probes if self._is_watched else ()
        problems = list(dict.fromkeys(text for probe in probes for text in probe.problems()))
        self._parent.tell(beat=problems, jobs=self._allowance.jobs)
        if self._health is not None:
            told = {"pid": os.getpid(), "state": "working", "jobs": self._allowance.jobs}
            self._health.look([], problems, [told])


def _bytes(arguments: argparse.Namespace) -> int | None:
    return None if arguments.max_memory is None else arguments.max_memory << 20


def _open(arguments: argparse.Namespace) -> list[Served]:
    """Open the databases, and say in the arguments which services are meant.

    :raises InvalidArgument: one is named twice, or none at all.
    """
    check_named(arguments)
    patterns = "*@*"
    if arguments.zope_conf is None:
        served = open_served(arguments.uri)
    else:
        served = [Served(arguments.zope_conf, open_zope(arguments.zope_conf))]
        patterns = ", ".join(getAutostartServiceNames()) or patterns
        if arguments.threads is None:
            use_configured_threads()
    arguments.autostart = arguments.autostart or patterns
    return served


def check_named(arguments: argparse.Namespace) -> None:
    """Check that the arguments name databases, or a ``zope.conf``.

    :raises InvalidArgument: they do not, or name both.
    """
    if (not arguments.uri) is (arguments.zope_conf is None):
        not_both = ", not both" if arguments.uri else ""
        raise InvalidArgument(f"run takes the URI of a database, or --zope-conf{not_both}")


def _start(
    served: list[Served],
    arguments: argparse.Namespace,
    output: Output,
    known: set[Any],
    parent: NoParent,
) -> None:
    """Start the services that are there, and tell how many.

    :raises RemoteTaskError: there are none, and they are not to be waited for.
    """
    shown = ", ".join(without_password(each.uri) for each in served)
    patterns = split_patterns(arguments.autostart)
    started = 0
    for each in served:
        _make_room(each.db, patterns, arguments.threads)
        started += start_new_services(each.db, patterns, known)
    is_first = not parent.is_there or arguments.child == 1
    if known:
        if is_first:
            for why in (why for pattern in patterns for why in why_not_found(served, pattern)):
                output.note(f"remotetask: {why}")
        if not started:
            raise RemoteTaskError(f"no service in {shown} could be started")  # the log has why
    else:
        _wait_for_one(served, arguments, output if is_first else None)
    parent.tell(
        ready=True,
        services=started,
        known=len(known),
        database=shown,
        is_exclusive=any(is_exclusive(each.db.storage) for each in served),
    )
    if parent.is_there:
        return
    how = f"to stop: Ctrl-C, or kill {os.getpid()}"
    services = "1 service" if started == 1 else f"{started} services"
    output.tell(f"{services} of {shown} at work; {how}" if known else f"Waiting; {how}")
    output.result({"services": started, "database": shown, "pid": os.getpid()})


def _wait_for_one(
    served: list[Served], arguments: argparse.Namespace, output: Output | None
) -> None:
    """Tell that there is no service, and which ones there are.

    :raises RemoteTaskError: none is to be waited for.
    """
    reasons = why_not_found(served, arguments.autostart)
    if reasons and not arguments.wait_for_service:
        raise RemoteTaskError("; ".join(reasons))
    if output is not None:
        for reason in reasons:
            output.note(f"remotetask: {reason}")


def _make_room(db: Any, patterns: list[str], threads: int | None) -> None:
    """Let the database have as many connections as threads will take, before it warns."""
    if threads is None:
        return
    with closing(db.open(transaction.TransactionManager())) as connection:
        count = max(1, len(list(find_all_services(connection.root(), patterns))))
    for opened in db.databases.values():
        wanted = count * (2 * threads + MORE_CONNECTIONS)
        opened.setPoolSize(max(opened.getPoolSize(), wanted))
