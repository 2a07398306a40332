# SPDX-License-Identifier: ZPL-2.1
"""``remotetask jobs``: lists jobs, a page at a time."""

from __future__ import annotations

import argparse
from typing import Any

from lovely.remotetask.command.jobtable import TITLES, row_of
from lovely.remotetask.command.output import Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    pattern_of,
    title_of,
)
from lovely.remotetask.command.watching import add_watch_argument, show_and_watch
from lovely.remotetask.engine.finding import list_page
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.interfaces import STATUSES
from lovely.remotetask.web.facts import told_of

DESCRIPTION = """\
Lists jobs, the newest first.  WHEN is when a job ended, was claimed, is due or was added, as its
status is; TRY is how often it was claimed.  A page looks at 1,000 jobs at the most, so with --task
it may show few of them; --after goes on where the last page has ended.

examples:
  remotetask jobs zeo://localhost:8100
  remotetask jobs zeo://localhost:8100 --service '@tasks' --status error --limit 100
  remotetask jobs zeo://localhost:8100 --status queued --task shop.charge --oldest --json
  remotetask jobs zeo://localhost:8100 --status processing --watch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask jobs`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    parser.add_argument(
        "--status",
        metavar="STATUS",
        choices=STATUSES,
        help=f"only jobs with this status: {', '.join(STATUSES)}",
    )
    parser.add_argument("--task", metavar="NAME", help="only jobs of this task")
    parser.add_argument("--oldest", action="store_true", help="the oldest first")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=int,
        default=20,
        help="how many jobs of each service, up to 1000 (default: %(default)s)",
    )
    parser.add_argument("--after", metavar="NEXT", help="the page after the one that named this")
    add_watch_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """List jobs.

    Transaction: must not run in one; reads only.
    """
    with opened_services(arguments) as (manager, matches):
        if arguments.after is not None and len(matches) > 1:
            names = ", ".join(map(pattern_of, matches))
            raise InvalidArgument(f"with --after, --service must name one of {names}")
        return show_and_watch(arguments, output, manager, lambda: _show(matches, arguments, output))


def _show(
    matches: list[Match], arguments: argparse.Namespace, output: Output
) -> list[dict[str, Any]]:
    order = "oldest" if arguments.oldest else "newest"
    told = []
    for match in matches:
        page = list_page(
            match.service,
            arguments.status,
            arguments.task,
            order,
            arguments.after,
            arguments.limit,
        )
        jobs = [told_of(job) for job in page.jobs]
        told.append({**names_of(match), "jobs": jobs, "next": page.next})
        output.tell(f"{title_of(match)}:")
        if page.jobs:
            output.columns(TITLES, [row_of(job) for job in page.jobs])
        else:
            output.tell("  no jobs here")
        if page.next is not None:
            output.tell(f"  more: --service '{pattern_of(match)}' --after {page.next}")
    return told
