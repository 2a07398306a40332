# SPDX-License-Identifier: ZPL-2.1
"""``remotetask wait``: waits until jobs have ended."""

from __future__ import annotations

import argparse
import time

from lovely.remotetask.command.jobtable import add_ids, match_of
from lovely.remotetask.command.output import DONE, FAILED, TIME_IS_OVER, Output
from lovely.remotetask.command.services import add_service_arguments, names_of, opened_services
from lovely.remotetask.engine.waiting import wait_for
from lovely.remotetask.errors import seconds_of
from lovely.remotetask.interfaces import COMPLETED, FINAL_STATUSES

DESCRIPTION = """\
Waits until jobs have ended, and prints their statuses.  Exit code 0: all are completed; 1: one is
an error, or was cancelled; 3: the time was over before all had ended.

examples:
  remotetask wait zeo://localhost:8100 1638120004 --timeout 60
  remotetask wait zeo://localhost:8100 $(remotetask add zeo://localhost:8100 nightly)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask wait`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_ids(parser)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="wait no longer than this (default: without bound)",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Wait for jobs.

    Transaction: must not run in one; reads only.
    """
    end = None
    if arguments.timeout is not None:
        end = time.monotonic() + seconds_of(arguments.timeout, "--timeout")
    told = []
    with opened_services(arguments) as (_, matches):
        for jobid in arguments.ids:
            match, number = match_of(matches, jobid)
            rest = None if end is None else max(0.0, end - time.monotonic())
            [status] = wait_for(match.service, [number], rest).values()
            told.append({**names_of(match), "job": jobid, "status": status})
            output.tell(f"job {jobid}: {status}")
    output.result(told)
    statuses = {str(one["status"]) for one in told}
    if not statuses.issubset(FINAL_STATUSES):
        return TIME_IS_OVER
    return DONE if statuses == {COMPLETED} else FAILED
