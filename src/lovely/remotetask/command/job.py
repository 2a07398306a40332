# SPDX-License-Identifier: ZPL-2.1
"""``remotetask job``: shows one job with all that is known of it."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.base.loglines import LogLine
from lovely.remotetask.command.jobtable import add_ids, age_of, match_of, told_of
from lovely.remotetask.command.output import Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.command.watching import add_watch_argument, show_and_watch
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.engine.undoing import time_of, transaction_of
from lovely.remotetask.errors import shown
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.job import Job
from lovely.remotetask.store.group import GroupState
from lovely.remotetask.store.joblog import log_of
from lovely.remotetask.store.quarantine import load

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
        progress = match.service.progress.get(number)
        facts = {
            **told_of(job),
            "waits_for": job.waits_for,
            **_others_of(match.service, job),
            "priority": job.priority,
            "unique_key": job.unique_key,
            "lock": job.lock,
            "expires": None if job.expires is None else job.expires.isoformat(),
            "note": job.note,
            "transaction": _transaction_of(job),
            "deaths": job.deaths,
            "conflicts": job.conflicts,
            "input": shown(job.input),
            "result": None if job.output is None else shown(job.output),
            "cancel_requested": job.is_cancel_requested,
            "progress": None if progress is None else list(progress),
        }
        failures = [failure._asdict() for failure in job.failures]
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


def _transaction_of(job: Job) -> str | None:
    tid = transaction_of(job)
    return None if tid is None else f"0x{tid.hex()} of {time_of(tid):%Y-%m-%d %H:%M:%S} UTC"


def _line_of(line: LogLine) -> str:
    at = datetime.fromtimestamp(line.time, timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S} {line.level} ({line.attempt}) {line.text}"


def _is_said(value: object) -> bool:
    return value not in (None, False, [], "")


def _others_of(service: Any, job: Any) -> dict[str, Any]:
    """Return what programs are told of the jobs that this one follows, and that follow it."""
    group = _group_of(service, job)
    counts = ("id", "total", "completed", "errors", "cancelled", "is_ended")
    return {
        "after": list(job.after),
        "awaits": list(job.awaits),
        "cause": job.cause,
        "on_success": job.on_success and job.on_success[0],
        "on_error": job.on_error and job.on_error[0],
        "group": group and {name: getattr(group, name) for name in counts},
    }


def _texts_of_others(service: Any, job: Any) -> dict[str, Any]:
    """Return how some of that is said to people."""
    group = _group_of(service, job)
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


def _group_of(service: Any, job: Any) -> GroupState | None:
    last = None if job.group is None else load(service.jobs, job.group)
    return None if last is None or last.members is None else GroupState(service, last)


def _text_of(value: object) -> str:
    return " ".join(str(value).split())
