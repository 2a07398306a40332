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
from lovely.remotetask.store.worker import WorkerState, list_workers

DESCRIPTION = """\
Says which processes hold jobs, how many, and when they last gave a sign of life.  Workers that have
nothing to do write nothing, and are not listed.  Of a process that a supervisor has started ('run
--processes' and the like) it says which one that is, and why it was started again.

examples:
  remotetask workers zeo://localhost:8100 --service '@tasks'
  remotetask workers zeo://localhost:8100 --watch 10
"""

TITLES = ("HOST", "PID", "THREADS", "JOBS", "LAST SIGN", "WORKER")

#: And where some are supervised.
SUPERVISED = ("PROCESS",)


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
        if any(w.supervisor for w in workers):
            output.columns(
                (*TITLES, *SUPERVISED),
                [[*row, _origin_of(w)] for row, w in zip(rows, workers, strict=True)],
            )
        elif rows:
            output.columns(TITLES, rows)
        else:
            output.tell("  nobody has jobs in hand")
        for w in workers:
            sign = None if w.last_sign is None else w.last_sign.isoformat()
            told.append({**names_of(match), **w._asdict(), "last_sign": sign})
    return told


def _origin_of(worker: WorkerState) -> str:
    """Return who has started the process of a worker, and why again."""
    if worker.supervisor is None:
        return ""
    text = f"{worker.child} of supervisor {worker.supervisor}"
    if worker.starts > 1:
        text += f", start {worker.starts}: the one before {worker.restarted}"
    return text
