# SPDX-License-Identifier: ZPL-2.1
"""``remotetask cancel``: cancels jobs."""

from __future__ import annotations

import argparse

from lovely.remotetask.command.jobtable import add_ids, tell_jobs
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import add_service_arguments, opened_services
from lovely.remotetask.web import operations

DESCRIPTION = """\
Takes jobs back.  One that waits is cancelled at once; one that runs is asked to stop, which its
task has to heed.

example:
  remotetask cancel zeo://localhost:8100 1638120004 1638120005
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask cancel`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_ids(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Tell jobs so.

    Transaction: must not run in one; commits, a job at a time.
    """
    with opened_services(arguments) as (manager, matches):
        told = tell_jobs(manager, matches, arguments.ids, operations.cancel, output)
    output.result(told)
    return DONE
