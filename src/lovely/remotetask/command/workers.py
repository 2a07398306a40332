# SPDX-License-Identifier: ZPL-2.1
"""``remotetask workers``: says who works."""

from __future__ import annotations

import argparse

from lovely.remotetask.command.jobtable import age_of
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.store.worker import list_workers

DESCRIPTION = """\
Says which processes hold jobs, how many, and when they last gave a sign of life.  Workers that have
nothing to do write nothing, and are not listed.

example:
  remotetask workers zeo://localhost:8100 --service '@tasks'
"""

TITLES = ("HOST", "PID", "JOBS", "LAST SIGN", "WORKER")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask workers`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Say who works.

    Transaction: must not run in one; reads only.
    """
    told = []
    with opened_services(arguments) as (_, matches):
        for match in matches:
            workers = list_workers(match.service)
            output.tell(f"{title_of(match)}:")
            rows = [
                [w.host, str(w.pid), f"{len(w.held):,}", age_of(w.last_sign), w.id] for w in workers
            ]
            if rows:
                output.columns(TITLES, rows)
            else:
                output.tell("  nobody has jobs in hand")
            for w in workers:
                sign = None if w.last_sign is None else w.last_sign.isoformat()
                told.append({**names_of(match), **w._asdict(), "last_sign": sign})
    output.result(told)
    return DONE
