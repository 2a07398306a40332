# SPDX-License-Identifier: ZPL-2.1
"""``remotetask workers``: says who works."""

from __future__ import annotations

import argparse
from typing import Any

from lovely.remotetask.command.jobtable import age_of
from lovely.remotetask.command.output import Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.command.watching import add_watch_argument, show_and_watch
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.store.worker import list_workers

DESCRIPTION = """\
Says which processes hold jobs, how many, and when they last gave a sign of life.  Workers that have
nothing to do write nothing, and are not listed.

examples:
  remotetask workers zeo://localhost:8100 --service '@tasks'
  remotetask workers zeo://localhost:8100 --watch 10
"""

TITLES = ("HOST", "PID", "THREADS", "JOBS", "LAST SIGN", "WORKER")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask workers`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_watch_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Say who works.

    Transaction: must not run in one; reads only.
    """
    with opened_services(arguments) as (manager, matches):
        return show_and_watch(arguments, output, manager, lambda: _show(matches, output))


def _show(matches: list[Match], output: Output) -> list[dict[str, Any]]:
    told = []
    for match in matches:
        workers = list_workers(match.service)
        output.tell(f"{title_of(match)}:")
        rows = [
            [w.host, str(w.pid), str(w.threads), f"{len(w.held):,}", age_of(w.last_sign), w.id]
            for w in workers
        ]
        if rows:
            output.columns(TITLES, rows)
        else:
            output.tell("  nobody has jobs in hand")
        for w in workers:
            sign = None if w.last_sign is None else w.last_sign.isoformat()
            told.append({**names_of(match), **w._asdict(), "last_sign": sign})
    return told
