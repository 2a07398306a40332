# SPDX-License-Identifier: ZPL-2.1
"""``remotetask undo``: undoes what completed jobs have done."""

from __future__ import annotations

import argparse

from lovely.remotetask.command.jobtable import add_ids, match_of, refusals
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import add_service_arguments, names_of, opened_services
from lovely.remotetask.engine.undoing import undo

DESCRIPTION = """\
Undoes all that completed jobs have written to the database, with their results: each was one
commit.  The jobs are cancelled then; retry runs them anew.  It needs a storage that keeps history,
and fails, changing nothing, where others have written to the same objects since.

example:
  remotetask undo zeo://localhost:8100 1638120004 --by Ada
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask undo`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_ids(parser)
    parser.add_argument("--by", metavar="NAME", help="who undoes it (default: you)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Undo jobs, one after the other.

    Transaction: must not run in one; commits.
    """
    told = []
    with opened_services(arguments) as (_, matches):
        for jobid in arguments.ids:
            match, number = match_of(matches, jobid)
            with refusals():
                undo(match.service, number, arguments.by)
            output.tell(f"job {jobid}: is undone")
            told.append({**names_of(match), "job": jobid, "outcome": "is undone"})
    output.result(told)
    return DONE
