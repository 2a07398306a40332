# SPDX-License-Identifier: ZPL-2.1
"""``remotetask upgrade``: brings services of lovely.remotetask 0.5 to today's records."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from datetime import tzinfo
from typing import Any

from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.engine.upgrade import Report, Upgrade, is_upgradable
from lovely.remotetask.errors import UnknownZone
from lovely.remotetask.interfaces import STATUSES
from lovely.remotetask.schedule import zone_named
from lovely.remotetask.web.batches import TRIES

DESCRIPTION = """\
Brings the services that lovely.remotetask 0.5 has written to today's records: ids stay, waiting
jobs keep their order, delayed and cron jobs their times.  Make a copy of the database first, and
see with --dry-run what would become of it.  It works in transactions of some hundreds of jobs; if
it is stopped, call it again.  What Python 2 has written has to be converted before: see 'Coming
from 0.5' in the documentation.

examples:
  remotetask upgrade file:///srv/shop/Data.fs --timezone Europe/Vienna --dry-run
  remotetask upgrade file:///srv/shop/Data.fs --timezone Europe/Vienna
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask upgrade`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    parser.add_argument(
        "--timezone",
        metavar="NAME",
        type=_zone,
        help="the time zone of the server that wrote it, such as Europe/Vienna: 0.5 stored local "
        "times without it (default: that of this machine)",
    )
    parser.add_argument(
        "--claimed",
        choices=("run", "error"),
        default="run",
        help="what becomes of jobs that a thread of 0.5 had taken and never ended: they run "
        "again, or are an error (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, and tell")


def _zone(name: str) -> tzinfo:
    try:
        return zone_named(name)
    except (ValueError, UnknownZone) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Bring services of 0.5 to today's records, and tell what became of their jobs.

    Transaction: must not run in one; commits, some hundreds of jobs at a time.
    """
    told = []
    with opened_services(arguments) as (manager, matches):
        old = [match for match in matches if is_upgradable(match.service)]
        if not old:
            output.tell("Nothing to upgrade: no service here was written by lovely.remotetask 0.5.")
        for match in old:
            upgrade = Upgrade(
                match.service, arguments.timezone, time.time(), arguments.claimed == "run"
            )
            report = upgrade.plan() if arguments.dry_run else _upgrade(manager, upgrade, match)
            told.append({**names_of(match), **asdict(report)})
            _tell(output, title_of(match), report, arguments)
    output.result(told)
    return DONE


def _upgrade(manager: Any, upgrade: Upgrade, match: Any) -> Report:
    report = None
    while report is None:
        for attempt in manager.attempts(TRIES):
            with attempt:
                report = upgrade.step()
        match.service._p_jar.cacheGC()
    return report


def _tell(output: Output, title: str, report: Report, arguments: argparse.Namespace) -> None:
    counts = [f"{report.jobs[status]:,} {status}" for status in STATUSES if status in report.jobs]
    verb = "would be" if arguments.dry_run else "is"
    output.tell(f"{title}: {verb} upgraded, with {', '.join(counts) or 'no jobs'}")
    if report.claimed:
        ends = "run again" if arguments.claimed == "run" else "are errors"
        output.tell(f"  {report.claimed:,} jobs had been claimed and not ended: they {ends}")
    if report.dropped:
        output.tell(f"  {report.dropped:,} entries of jobs that are gone are dropped")
    if report.outdated:
        output.tell(
            f"  {report.outdated:,} jobs ended longer ago than is kept by default: the service "
            f"keeps all, as 0.5 did, until its setting 'retention' is changed"
        )
    if report.remarks:
        output.tell_list(f"  {report.remark_count:,} could not be kept as it was:", report.remarks)
