# SPDX-License-Identifier: ZPL-2.1
"""``remotetask retry``: runs errors and cancelled jobs again."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lovely.remotetask.command.jobtable import add_ids, tell_jobs
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.web import batches, operations

DESCRIPTION = """\
Lets jobs that are an error, or were cancelled, run again; their failures are kept.  With --all
it is all errors that there are when the command begins, some hundreds in one transaction.

examples:
  remotetask retry zeo://localhost:8100 1638120004
  remotetask retry zeo://localhost:8100 --service '@tasks' --all --task shop.charge
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask retry`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_ids(parser, "*")
    parser.add_argument("--all", action="store_true", help="all errors")
    parser.add_argument("--task", metavar="NAME", help="with --all: only those of this task")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Let jobs run again.

    Transaction: must not run in one; commits, a job or a batch at a time.
    """
    if bool(arguments.ids) == arguments.all or (arguments.task is not None and not arguments.all):
        raise InvalidArgument("retry takes the ids of jobs, or --all, which --task may limit")
    with opened_services(arguments) as (manager, matches):
        if arguments.all:
            before = time.time()
            told: list[dict[str, Any]] = []
            for match in matches:
                count = batches.retry_all(manager, match.service, arguments.task, before)
                told.append({**names_of(match), "repeated": count})
                output.tell(f"{title_of(match)}: {count:,} jobs run again")
        else:
            told = tell_jobs(manager, matches, arguments.ids, operations.retry, output)
    output.result(told)
    return DONE
