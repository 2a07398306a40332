# SPDX-License-Identifier: ZPL-2.1
"""``remotetask run``: works on the services of a database until a signal comes."""

from __future__ import annotations

import argparse
import logging
import os
import threading
from contextlib import closing
from typing import Any

import transaction

from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import DONE, FAILED, Output, set_up_logging, show_from
from lovely.remotetask.command.services import check_can_work, why_none
from lovely.remotetask.command.signals import LOOK_SECONDS, Signals, leave_now, seconds_text
from lovely.remotetask.command.zopeconf import open_zope
from lovely.remotetask.engine import registry
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.hosts.autostart import (
    find_all_services,
    getAutostartServiceNames,
    split_patterns,
    start_new_services,
)
from lovely.remotetask.hosts.lookout import Lookout
from lovely.remotetask.setting import MAX_THREADS

#: Connections that a service takes beside those of its threads, with one for a task's progress.
MORE_CONNECTIONS = 4

DESCRIPTION = """\
Opens a database and works on the jobs of its services until SIGINT (Ctrl-C), SIGTERM, SIGHUP or
SIGQUIT.  Then it finishes the jobs that run, and gives back the others that it holds, and what
still runs when the time of --grace is over; a second signal ends the process on the spot: its
jobs are run again.  Services that are made while it runs are found within seconds.

Exit code 0: stopped in order.  1: the database cannot be opened, it has no such service, or jobs
still ran when the time of --grace was over.

examples:
  remotetask run Data.fs --import shop.tasks
  remotetask run zeo://localhost:8100 --import shop.tasks --threads 4 --wait-for-service
  remotetask run zeo://localhost:8100 --import shop.tasks --autostart '@tasks'
  remotetask run 'postgresql://shop@localhost/shop?keep_history=0' --grace 30
  remotetask run --zope-conf etc/zope.conf --autostart 'Plone@*'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask run`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser, is_optional=True)
    parser.add_argument(
        "--zope-conf",
        metavar="FILE",
        help="in place of URI: the zope.conf of a Zope or Plone, whose products and ZCML the jobs "
        "need",
    )
    parser.add_argument(
        "--autostart",
        metavar="PATTERNS",
        help="the services, as site@service patterns with commas between them, "
        "such as '@tasks, shop@*'; @service is in the root (default: *@*, all; with --zope-conf "
        "those that it names)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=_threads,
        help="run N jobs of each service at a time, whatever processor it names (default: as its "
        "settings say)",
    )
    parser.add_argument(
        "--wait-for-service",
        action="store_true",
        help="where there is no such service yet, wait until there is one",
    )
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds_text,
        default=threading.TIMEOUT_MAX,
        help="when stopped, wait no longer than this for running jobs (default: without bound)",
    )


def _threads(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MAX_THREADS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 to {MAX_THREADS}")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Work on the services of a database until a signal comes.

    Transaction: must not run in one; commits.
    """
    import_modules(arguments.modules)
    is_ours = set_up_logging(arguments.verbose, package=logging.INFO, jobs=logging.WARNING)
    registry.threads = arguments.threads
    db = _open(arguments)
    if is_ours:
        show_from(logging.WARNING)  # what cannot be opened is told once, by us
    try:
        if arguments.zope_conf is None:
            check_can_work(db)
        with Signals() as signals:
            known: set[Any] = set()
            _start(db, arguments, output, known)
            lookout = Lookout(db, split_patterns(arguments.autostart), known)
            lookout.start()
            while not signals.wait(LOOK_SECONDS):
                pass
            lookout.has_ended.set()
            output.note("Stopping when the running jobs are done; a second signal leaves now.")
            if not registry.leave(arguments.grace):
                output.note("remotetask: jobs were still running; they will be run again")
                leave_now(FAILED)
    finally:
        close_database(db)
    return DONE


def _open(arguments: argparse.Namespace) -> Any:
    """Open the database, and say in the arguments what it is called, and which services are meant.

    :raises InvalidArgument: it is named twice, or not at all.
    """
    if (arguments.uri is None) is (arguments.zope_conf is None):
        raise InvalidArgument("run takes the URI of a database, or --zope-conf")
    patterns = "*@*"
    if arguments.zope_conf is None:
        db = open_database(arguments.uri)
    else:
        db = open_zope(arguments.zope_conf)
        arguments.uri = arguments.zope_conf
        patterns = ", ".join(getAutostartServiceNames()) or patterns
    arguments.autostart = arguments.autostart or patterns
    return db


def _start(db: Any, arguments: argparse.Namespace, output: Output, known: set[Any]) -> None:
    """Start the services that are there, and tell how many.

    :raises RemoteTaskError: there are none, and they are not to be waited for.
    """
    shown = without_password(arguments.uri)
    patterns = split_patterns(arguments.autostart)
    _make_room(db, patterns, arguments.threads)
    started = start_new_services(db, patterns, known)
    if known:
        _tell_missing(db, patterns, arguments, output)
        if not started:
            raise RemoteTaskError(f"no service in {shown} could be started")  # the log has why
    else:
        _wait_for_one(db, arguments, output)
    how = f"to stop: Ctrl-C, or kill {os.getpid()}"
    services = "1 service" if started == 1 else f"{started} services"
    output.tell(f"{services} of {shown} at work; {how}" if known else f"Waiting; {how}")
    output.result({"services": started, "database": shown, "pid": os.getpid()})


def _tell_missing(
    db: Any, patterns: list[str], arguments: argparse.Namespace, output: Output
) -> None:
    """Tell of each pattern that leads to no service, where others do."""
    with closing(db.open(transaction.TransactionManager())) as connection:
        root = connection.root()
        for pattern in patterns:
            if not any(find_all_services(root, [pattern])):
                output.note(f"remotetask: {why_none(root, arguments.uri, pattern)}")


def _wait_for_one(db: Any, arguments: argparse.Namespace, output: Output) -> None:
    """Tell that there is no service, and which ones there are.

    :raises RemoteTaskError: none is to be waited for.
    """
    with closing(db.open(transaction.TransactionManager())) as connection:
        why = why_none(connection.root(), arguments.uri, arguments.autostart)
    if not arguments.wait_for_service:
        raise RemoteTaskError(why)
    output.note(f"remotetask: {why}")


def _make_room(db: Any, patterns: list[str], threads: int | None) -> None:
    """Let the database have as many connections as threads will take, before it warns."""
    if threads is None:
        return
    with closing(db.open(transaction.TransactionManager())) as connection:
        count = max(1, len(list(find_all_services(connection.root(), patterns))))
    for opened in db.databases.values():
        wanted = count * (2 * threads + MORE_CONNECTIONS)
        opened.setPoolSize(max(opened.getPoolSize(), wanted))
