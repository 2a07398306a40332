# SPDX-License-Identifier: ZPL-2.1
"""``remotetask status``: says how many jobs there are, what is paused, and who works."""

from __future__ import annotations

import argparse
from typing import Any

from lovely.remotetask.command.output import Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.command.watching import add_watch_argument, show_and_watch
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.worker import list_workers
from lovely.remotetask.web.overview import paused_names

DESCRIPTION = """\
Says of each service how many jobs it has by status, what is paused, and how many workers hold
jobs.

examples:
  remotetask status zeo://localhost:8100
  remotetask status zeo://localhost:8100 --service '@tasks' --json
  remotetask status zeo://localhost:8100 --watch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask status`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_watch_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Say how the services are.

    Transaction: must not run in one; reads only.
    """
    with opened_services(arguments) as (manager, matches):
        return show_and_watch(arguments, output, manager, lambda: _show(matches, output))


def _show(matches: list[Match], output: Output) -> list[dict[str, Any]]:
    told = []
    for match in matches:
        counts = count_jobs(match.service)
        paused = paused_names(match.service)
        workers = len(list_workers(match.service))
        told.append({**names_of(match), "jobs": counts, "paused": paused, "workers": workers})
        rows = [[status, f"{count:,}"] for status, count in counts.items()]
        rows.append(["paused", ", ".join(paused) or "nothing"])
        rows.append(["workers", f"{workers:,} with jobs in hand"])
        output.tell(f"{title_of(match)}:")
        output.columns((), rows)
    return told
