# SPDX-License-Identifier: ZPL-2.1
"""``remotetask web``: serves the management pages and the web service."""

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
from lovely.remotetask.command.services import check_can_work, named_services
from lovely.remotetask.command.serving import add_place_arguments, make_server
from lovely.remotetask.command.signals import LOOK_SECONDS, Signals, leave_now, seconds_text
from lovely.remotetask.engine.registry import leave
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.hosts.autostart import split_patterns, start_services

DESCRIPTION = """\
Serves pages to look after jobs, and calls by JSON and XML-RPC, until SIGINT (Ctrl-C), SIGTERM,
SIGHUP or SIGQUIT.  Without --tokens and --passwords whoever can reach it may do all, and so only
this machine can.  What is sent is not encrypted: for others let a server that speaks https stand
before it, whose address --origin tells.

examples:
  remotetask web zeo://localhost:8100 --import shop.tasks
  remotetask web file:///srv/shop/Data.fs '@tasks' --import shop.tasks --workers
  remotetask web zeo://localhost:8100 --host 0.0.0.0 --passwords /etc/remotetask/passwords
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask web`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser)
    parser.add_argument(
        "patterns",
        metavar="PATTERNS",
        nargs="?",
        default="*@*",
        help="the services, as site@service patterns with commas between them "
        "(default: %(default)s, all)",
    )
    add_place_arguments(parser)
    parser.add_argument(
        "--workers", action="store_true", help="also work on the jobs, as remotetask run does"
    )
    parser.add_argument("--read-only", action="store_true", help="let nobody change anything")
    parser.add_argument(
        "--tokens", metavar="FILE", help="who may do what, by tokens: see remotetask credential"
    )
    parser.add_argument(
        "--passwords", metavar="FILE", help="who may do what, by names and passwords"
    )
    parser.add_argument(
        "--origin",
        metavar="URL",
        dest="origins",
        action="append",
        default=[],
        help="the address by which browsers know the server that stands before this one; may be "
        "repeated",
    )
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds_text,
        default=threading.TIMEOUT_MAX,
        help="with --workers: when stopped, wait no longer than this for running jobs (default: "
        "without bound)",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Serve pages and calls until a signal comes.

    Transaction: must not run in one; commits.
    """
    import_modules(arguments.modules)
    is_ours = set_up_logging(arguments.verbose, package=logging.INFO, jobs=logging.WARNING)
    authorize = _authorizer(arguments)
    shown = without_password(arguments.uri)
    db = open_database(arguments.uri)
    if is_ours:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        with Signals() as signals:
            with named_services(db, arguments.uri, arguments.patterns):
                pass  # it raises if there is none
            if arguments.workers:
                check_can_work(db)
            server = make_server(
                db,
                arguments.host,
                arguments.port,
                authorize,
                services=arguments.patterns,
                read_only=arguments.read_only,
                origins=arguments.origins,
            )
            try:
                if arguments.workers:
                    start_services(db, split_patterns(arguments.patterns))
                output.tell(f"{shown} at {server.url}; to stop: Ctrl-C, or kill {os.getpid()}")
                output.result({"url": server.url, "database": shown, "pid": os.getpid()})
                while not signals.wait(LOOK_SECONDS):
                    pass
            finally:
                server.stop()
            if arguments.workers and not leave(arguments.grace):
                output.note("remotetask: jobs were still running; they will be run again")
                leave_now(FAILED)
    finally:
        close_database(db)
    return DONE


def _authorizer(arguments: argparse.Namespace) -> object:
    if arguments.tokens is None and arguments.passwords is None:
        return None
    try:
        from lovely.remotetask.web.authorizers import from_files
    except ImportError as error:
        raise RemoteTaskError(
            f"{error}: serving pages takes pip install 'lovely.remotetask[web]'"
        ) from error
    return from_files(arguments.tokens, arguments.passwords)
