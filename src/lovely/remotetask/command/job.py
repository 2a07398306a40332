# SPDX-License-Identifier: ZPL-2.1
"""``remotetask job``: shows one job with all that is known of it."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from lovely.remotetask.command.jobtable import add_ids, age_of, match_of
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.errors import shown
from lovely.remotetask.web.facts import facts_of, failures_of

DESCRIPTION = """\
Shows a job with all that is known of it: its times, its input and result (shortened), and the
traceback of its last failure.  Import the modules whose classes stand in it.

examples:
  remotetask job zeo://localhost:8100 1638120004
  remotetask job zeo://localhost:8100 1638120004 --import shop.tasks --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask job`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_ids(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Show jobs.

    Transaction: must not run in one; reads only.
    """
    told = []
    with opened_services(arguments) as (_, matches):
        for jobid in arguments.ids:
            match, number = match_of(matches, jobid)
            job = find_job(match.service, number)
            facts = {
                **facts_of(match.service, job),
                "input": shown(job.input),
                "result": None if job.output is None else shown(job.output),
            }
            told.append({**names_of(match), **facts, "failures": failures_of(job)})
            output.tell(f"{title_of(match)}: {job!r}")
            rows = [(name, value) for name, value in facts.items() if value not in (None, False)]
            output.columns((), [[f"{name}:", _text_of(value)] for name, value in rows])
            for failure in job.failures[:-1]:
                at = datetime.fromtimestamp(failure.time, timezone.utc)
                what = f"{failure.type}: {' '.join(failure.message.split())}"
                output.tell(f"  attempt {failure.attempt} failed {age_of(at)}: {what}")
            if job.failures:
                last = job.failures[-1]
                output.tell(f"  attempt {last.attempt} failed:\n")
                output.tell(last.traceback.rstrip() or f"{last.type}: {last.message}")
    output.result(told)
    return DONE


def _text_of(value: object) -> str:
    return " ".join(str(value).split())
