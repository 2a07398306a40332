# SPDX-License-Identifier: ZPL-2.1
"""``remotetask job``: shows one job with all that is known of it."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.base.loglines import LogLine
from lovely.remotetask.command.jobtable import add_ids, age_of, match_of
from lovely.remotetask.command.output import Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.command.watching import add_watch_argument, show_and_watch
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.errors import shown
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.store.joblog import log_of
from lovely.remotetask.store.quarantine import load
from lovely.remotetask.web.facts import facts_of, failures_of, group_of

DESCRIPTION = """\
Shows a job with all that is known of it: its times, what it waits for, its input and result
(shortened), the traceback of its last failure, and what it has logged.  Import the modules whose
classes stand in it.

examples:
  remotetask job zeo://localhost:8100 1638120004
  remotetask job zeo://localhost:8100 1638120004 --import shop.tasks --json
  remotetask job zeo://localhost:8100 1638120004 --watch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask job`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    add_ids(parser)
    add_watch_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Show jobs.

    Transaction: must not run in one; reads only.
    """
    with opened_services(arguments) as (manager, matches):
        return show_and_watch(
            arguments, output, manager, lambda: _show(matches, arguments.ids, output)
        )


def _show(matches: list[Match], ids: list[int | str], output: Output) -> list[dict[str, Any]]:
    told = []
    for jobid in ids:
        match, number = match_of(matches, jobid)
        job = find_job(match.service, number)
        facts = {
            **facts_of(match.service, job),
            "input": shown(job.input),
            "result": None if job.output is None else shown(job.output),
        }
        failures = failures_of(job)
        lines = log_of(match.service, job)
        log = [line._asdict() for line in lines]
        told.append({**names_of(match), **facts, "failures": failures, "log": log})
        output.tell(f"{title_of(match)}: {job!r}")
        shown_facts = {**facts, **_texts_of_others(match.service, job)}
        rows = [(name, value) for name, value in shown_facts.items() if _is_said(value)]
        output.columns((), [[f"{name}:", _text_of(value)] for name, value in rows])
        for failure in job.failures[:-1]:
            at = datetime.fromtimestamp(failure.time, timezone.utc)
            what = f"{failure.type}: {' '.join(failure.message.split())}"
            output.tell(f"  attempt {failure.attempt} failed {age_of(at)}: {what}")
        if job.failures:
            last = job.failures[-1]
            output.tell(f"  attempt {last.attempt} failed:\n")
            output.tell(last.traceback.rstrip() or f"{last.type}: {last.message}")
        if lines:
            output.tell("  log:\n")
        for line in lines:
            output.tell(_line_of(line))
    return told


def _line_of(line: LogLine) -> str:
    at = datetime.fromtimestamp(line.time, timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S} {line.level} ({line.attempt}) {line.text}"


def _is_said(value: object) -> bool:
    return value not in (None, False, [], "")


def _texts_of_others(service: Any, job: Any) -> dict[str, Any]:
    """Return how some of that is said to people."""
    group = group_of(service, job)
    text = group and f"{group.id}: {group.done} of {group.total} ended, {group.errors} errors"
    awaits = []
    for jobid in job.awaits:
        before = load(service.jobs, jobid)
        if jobid == job.id:
            awaits.append("the end of its group")
        else:
            awaits.append(f"{jobid} ({'gone' if before is None else before.status})")
    return {
        "after": ", ".join(map(str, job.after)),
        "awaits": ", ".join(awaits),
        "group": text or job.group,
    }


def _text_of(value: object) -> str:
    return " ".join(str(value).split())
