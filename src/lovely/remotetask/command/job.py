# SPDX-License-Identifier: ZPL-2.1
"""``remotetask job``: shows one job with all that is known of it."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.command.jobtable import add_ids, age_of, match_of, told_of
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.engine.control import find_job
from lovely.remotetask.errors import shown
from lovely.remotetask.store.group import GroupState
from lovely.remotetask.store.quarantine import load

DESCRIPTION = """\
Shows a job with all that is known of it: its times, whom it waits for, its input and result
(shortened), and the traceback of its last failure.  Import the modules whose classes stand in it.

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
            progress = match.service.progress.get(number)
            facts = {
                **told_of(job),
                "note": job.note,
                **_others_of(match.service, job),
                "deaths": job.deaths,
                "conflicts": job.conflicts,
                "input": shown(job.input),
                "result": None if job.output is None else shown(job.output),
                "cancel_requested": job.is_cancel_requested,
                "progress": None if progress is None else list(progress),
            }
            failures = [failure._asdict() for failure in job.failures]
            told.append({**names_of(match), **facts, "failures": failures})
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
    output.result(told)
    return DONE


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
