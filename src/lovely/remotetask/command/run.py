# SPDX-License-Identifier: ZPL-2.1
"""``remotetask run``: works on the services of a database until a signal comes."""

from __future__ import annotations

import argparse
import logging
import os
import threading

from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import DONE, FAILED, Output, set_up_logging
from lovely.remotetask.command.services import named_services
from lovely.remotetask.command.signals import LOOK_SECONDS, Signals, leave_now, seconds_text
from lovely.remotetask.engine.registry import leave
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.hosts.autostart import split_patterns, start_services

DESCRIPTION = """\
Opens a database and works on the jobs of its services until SIGINT (Ctrl-C), SIGTERM, SIGHUP or
SIGQUIT.  Then it finishes the jobs that run, and gives back the others that it holds, and what
still runs when the time of --grace is over; a second signal ends the process on the spot: its
jobs are run again.

examples:
  remotetask run zeo://localhost:8100 --import shop.tasks
  remotetask run file:///srv/shop/Data.fs --import shop.tasks --autostart '@tasks'
  remotetask run 'postgresql://shop:secret@localhost:5432/shop?keep_history=0' --grace 30
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask run`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser)
    parser.add_argument(
        "--autostart",
        metavar="PATTERNS",
        default="*@*",
        help="the services, as site@service patterns with commas between them, "
        "such as '@tasks, shop@*'; @service is in the root (default: %(default)s, all)",
    )
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds_text,
        default=threading.TIMEOUT_MAX,
        help="when stopped, wait no longer than this for running jobs (default: without bound)",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Work on the services of a database until a signal comes.

    Transaction: must not run in one; commits.
    """
    import_modules(arguments.modules)
    is_ours = set_up_logging(arguments.verbose, package=logging.INFO, jobs=logging.WARNING)
    shown = without_password(arguments.uri)
    db = open_database(arguments.uri)
    if is_ours:
        logging.getLogger().setLevel(logging.WARNING)  # what cannot be opened is told once, by us
    try:
        with Signals() as signals:
            started = start_services(db, split_patterns(arguments.autostart))
            if not started:
                with named_services(db, arguments.uri, arguments.autostart):  # raises if none is
                    raise RemoteTaskError(f"no service in {shown} could be started")  # log: why
            services = "1 service" if started == 1 else f"{started} services"
            output.tell(f"{services} of {shown} at work; to stop: Ctrl-C, or kill {os.getpid()}")
            output.result({"services": started, "database": shown, "pid": os.getpid()})
            while not signals.wait(LOOK_SECONDS):
                pass
            output.note("Stopping when the running jobs are done; a second signal leaves now.")
            if not leave(arguments.grace):
                output.note("remotetask: jobs were still running; they will be run again")
                leave_now(FAILED)
    finally:
        close_database(db)
    return DONE
