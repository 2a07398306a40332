# SPDX-License-Identifier: ZPL-2.1
"""``remotetask run``: works on the services of databases until a signal comes."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable

from lovely.remotetask.command.database import add_database_arguments
from lovely.remotetask.command.health import add_health_arguments
from lovely.remotetask.command.logformat import JSON, TEXT
from lovely.remotetask.command.output import Output, tell_as_json
from lovely.remotetask.command.parent import add_child_arguments, find_parent
from lovely.remotetask.command.signals import seconds_text
from lovely.remotetask.command.supervise import supervise
from lovely.remotetask.command.work import check_named, work
from lovely.remotetask.setting import MAX_THREADS

#: A supervisor starts no more processes than this.
MAX_PROCESSES = 1000

DESCRIPTION = """\
Opens databases, one or several, and works on the jobs of their services until SIGINT (Ctrl-C),
SIGTERM, SIGHUP or SIGQUIT.  Then it finishes the jobs that run, and gives back the others that it
holds, and what still runs when the time of --grace is over; a second signal ends the process on the
spot: its jobs are run again.  Services that are made while it runs are found within seconds.

With --processes, --max-jobs or --max-memory it is a supervisor, and processes that it starts do
the work.  It starts another one for each that dies, has run its jobs or has grown, and ends all of
them in order; when it is killed, they end in order by themselves.

Exit code 0: stopped in order, or drained.  1: a database cannot be opened, there is no such
service, or jobs still ran when the time of --grace was over.  4: processes have died at once again
and again.

examples:
  remotetask run Data.fs --import shop.tasks
  remotetask run zeo://localhost:8100 --import shop.tasks --threads 4 --wait-for-service
  remotetask run zeo://localhost:8100 --import shop.tasks --processes 2 --max-memory 500
  remotetask run Data.fs --import shop.tasks --drain
  remotetask run zeo://localhost:8100 --import shop.tasks --autostart '@tasks'
  remotetask run zeo://localhost:8100 zeo://localhost:8101 --import shop.tasks
  remotetask run 'postgresql://shop@localhost/shop?keep_history=0' --grace 30
  remotetask run --zope-conf etc/zope.conf --autostart 'Plone@*'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask run`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser, how_many="*")
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
        type=_up_to(MAX_THREADS),
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
    _add_process_arguments(parser)
    add_health_arguments(parser)
    parser.add_argument(
        "--log-format",
        choices=(TEXT, JSON),
        default=TEXT,
        help="json: each line of the log, and whatever else would be told on the standard error, "
        "is one JSON object (default: %(default)s)",
    )
    add_child_arguments(parser)


def _add_process_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        metavar="N",
        type=_up_to(MAX_PROCESSES),
        help="start N processes of --threads each, and start again what dies; not for a plain "
        "file, which one process can open",
    )
    parser.add_argument(
        "--max-jobs",
        metavar="N",
        type=_up_to(10**9),
        help="let a process that has run N jobs end in order, and start another",
    )
    parser.add_argument(
        "--max-memory",
        metavar="MB",
        type=_up_to(10**9),
        help="the same with one that takes more memory than this when a job has ended",
    )
    parser.add_argument(
        "--drain",
        action="store_true",
        help="end when no job is left that could run; delayed jobs and schedules are not waited "
        "for, jobs that are to be tried again are",
    )


def _up_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if text.isdecimal() and 1 <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 to {most}")

    return number


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Work on the services of databases until a signal comes.

    Transaction: must not run in one; commits.
    """
    if arguments.log_format == JSON:
        tell_as_json()
    parent = find_parent(arguments)
    is_several = (arguments.processes, arguments.max_jobs, arguments.max_memory) != (None,) * 3
    if is_several and not parent.is_there:
        check_named(arguments)
        return supervise(arguments, output)
    return work(arguments, output, parent)
