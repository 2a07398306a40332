# SPDX-License-Identifier: ZPL-2.1
"""``remotetask schedules``: lists the schedules, those that are declared beside those there are."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from lovely.remotetask.base.site import entered
from lovely.remotetask.command.jobtable import age_of
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.engine.schedules import ScheduleState, declared, states
from lovely.remotetask.hosts.autostart import Match, match_site
from lovely.remotetask.interfaces import PROCESSING, ITaskService

DESCRIPTION = """\
Lists the schedules of services, with what came of their last runs.  DECLARED says whether the
modules that are imported declare the schedule by @task(cron=...): "here"; "not here" if it was
declared once, and is not by these modules; "to come" if the next worker that starts will make it.
What is declared no more goes on until service.remove_schedule(key) ends it.

examples:
  remotetask schedules zeo://localhost:8100 --import shop.tasks
  remotetask schedules zeo://localhost:8100 --import shop.tasks --service '@tasks' --json
"""

TITLES = ("ID", "KEY", "TASK", "SCHEDULE", "ZONE", "NEXT", "LAST", "DECLARED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask schedules`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """List the schedules of services.

    Transaction: must not run in one; reads only.
    """
    told: list[dict[str, Any]] = []
    with opened_services(arguments) as (_, matches):
        for match in matches:
            if not ITaskService.providedBy(match.service):  # it has a scheduler of its own
                continue
            schedules = _schedules(match)
            told.append({**names_of(match), "schedules": schedules})
            output.tell(f"{title_of(match)}:")
            if schedules:
                output.columns(TITLES, [_row(schedule) for schedule in schedules])
            else:
                output.tell("  no schedules here")
    output.result(told)
    return DONE


def _schedules(match: Match) -> list[dict[str, Any]]:
    with entered(match_site(match)):
        here = declared(match.service)
    told = []
    for state in states(match.service):
        is_here = state.key in here
        where = "here" if is_here else "not here" if state.is_declared else None
        told.append({**_told(state), "declared": where})
    known = {schedule["key"] for schedule in told}
    for key, task in here.items():
        if key not in known:
            absent = dict.fromkeys(ScheduleState._fields)
            absent.update(key=key, task=key, schedule=task.cron, timezone=task.timezone)
            absent.update(is_paused=False, is_declared=True)
            told.append({**absent, "declared": "to come"})
    return told


def _told(state: ScheduleState) -> dict[str, Any]:
    moments = {
        name: None if (moment := getattr(state, name)) is None else moment.isoformat()
        for name in ("next_run", "last_run")
    }
    return {**state._asdict(), **moments}


def _row(schedule: dict[str, Any]) -> list[str]:
    upcoming = _age(schedule["next_run"])
    if schedule["status"] == PROCESSING:
        upcoming = "runs"
    elif schedule["is_paused"]:
        upcoming = "paused"
    last = " ".join(filter(None, (_age(schedule["last_run"]), schedule["outcome"])))
    number = "" if schedule["id"] is None else str(schedule["id"])
    names = (schedule[name] or "" for name in ("key", "task", "schedule"))
    zone = schedule["timezone"] or "UTC"
    return [number, *names, zone, upcoming, last, schedule["declared"] or ""]


def _age(moment: str | None) -> str:
    return age_of(None if moment is None else datetime.fromisoformat(moment))
