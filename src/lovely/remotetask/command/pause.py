# SPDX-License-Identifier: ZPL-2.1
"""``remotetask pause``: holds back all jobs, or those of a task."""

from __future__ import annotations

import argparse

from lovely.remotetask.command.jobtable import TRIES
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.engine import control
from lovely.remotetask.engine.finding import task_name
from lovely.remotetask.store.pauses import paused_tasks

DESCRIPTION = """\
Lets no worker claim jobs any more, in any process, or none of one task.  What runs goes on; jobs
can be added, and wait.  It is kept until somebody resumes.

examples:
  remotetask pause zeo://localhost:8100 --service '@tasks'
  remotetask pause zeo://localhost:8100 --task shop.charge
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask pause`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    parser.add_argument("--task", metavar="NAME", help="the task (default: all tasks)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Pause services, or a task of theirs.

    Transaction: must not run in one; commits, a service at a time.
    """
    task = task_name(arguments.task)
    told = []
    with opened_services(arguments) as (manager, matches):
        for match in matches:
            for attempt in manager.attempts(TRIES):
                with attempt:
                    control.pause(match.service, task)
            paused = ["all tasks" if n is None else n for n in paused_tasks(match.service.queue)]
            told.append({**names_of(match), "paused": paused})
            output.tell(f"{title_of(match)}: paused: {', '.join(paused) or 'nothing'}")
    output.result(told)
    return DONE
