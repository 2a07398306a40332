# SPDX-License-Identifier: ZPL-2.1
"""``remotetask check``: checks jobs against their indexes, and mends what is wrong."""

from __future__ import annotations

import argparse
import time

from lovely.remotetask.command.output import DONE, FAILED, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.problem import Problem
from lovely.remotetask.store.quarantine import load
from lovely.remotetask.web.facts import id_of

DESCRIPTION = """\
Looks for jobs that wait nowhere, entries of jobs that are gone, claims that nobody holds, and
counts that are wrong: traces of jobs deleted by hand, of undone transactions, of databases
partly restored.  Exit code 1 tells of problems that were found and not mended.  It may run
beside workers, except on a file, which only one process can open.

examples:
  remotetask check /srv/shop/Data.fs
  remotetask check zeo://localhost:8100 --service '@tasks' --repair
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask check`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    parser.add_argument("--repair", action="store_true", help="mend what is wrong")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Check the jobs of services against their indexes, and mend what is wrong.

    Transaction: must not run in one; commits, a step at a time, if it is to mend.
    """
    found: list[tuple[Match, Problem]] = []
    with opened_services(arguments) as (manager, matches):
        for match in matches:
            end = manager.commit if arguments.repair else manager.abort
            problems = check_all(match.service, time.time(), arguments.repair, end)
            found.extend((match, problem) for problem in problems)
    output.result(
        [
            {**names_of(match), "job": _name_of(match, problem), "problem": problem.text}
            for match, problem in found
        ]
    )
    if not found:
        output.tell(f"{len(matches)} service(s) checked: jobs and indexes agree.")
        return DONE
    lines = []
    for match, problem in found:
        about = "" if problem.jobid is None else f"job {_name_of(match, problem)}: "
        lines.append(f"{title_of(match)}: {about}{problem.text}")
    left = sum(not problem.is_mendable for _, problem in found)
    what = "mended" if arguments.repair else "found; --repair mends them"
    but = f", but for {left}, whose records cannot be read or written here" if left else ""
    if left == len(found):
        what, but = "found, and none can be mended here", ""
    output.tell_list(f"{len(found)} problem(s) {what}{but}:", lines)
    return DONE if arguments.repair and not left else FAILED


def _name_of(match: Match, problem: Problem) -> int | str | None:
    """Return the id of a job as its service shows it; the number if its record tells no more."""
    if problem.jobid is None:
        return None
    job = load(match.service.jobs, problem.jobid)
    return problem.jobid if job is None else id_of(job)
