# SPDX-License-Identifier: ZPL-2.1
"""What the verbs that pause and resume share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.engine.finding import task_name
from lovely.remotetask.web.batches import TRIES
from lovely.remotetask.web.overview import paused_names


def add_pause_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name services, and a task."""
    add_service_arguments(parser)
    parser.add_argument("--task", metavar="NAME", help="the task (default: all tasks)")


def change_pauses(
    arguments: argparse.Namespace, output: Output, change: Callable[[Any, str | None], None]
) -> int:
    """Change what is paused, and tell what is paused then.

    :param change: called with each service and the name of the task, or None.

    Transaction: must not run in one; commits, a service at a time.
    """
    task = task_name(arguments.task)
    told = []
    with opened_services(arguments) as (manager, matches):
        for match in matches:
            for attempt in manager.attempts(TRIES):
                with attempt:
                    change(match.service, task)
            paused = paused_names(match.service)
            told.append({**names_of(match), "paused": paused})
            output.tell(f"{title_of(match)}: paused: {', '.join(paused) or 'nothing'}")
    output.result(told)
    return DONE
