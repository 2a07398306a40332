# SPDX-License-Identifier: ZPL-2.1
"""``remotetask add``: adds one job."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, cast

from lovely.remotetask.base.site import entered
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.services import add_service_arguments, opened_services, pattern_of
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.hosts.autostart import match_site
from lovely.remotetask.interfaces import ITaskService
from lovely.remotetask.web.facts import moment_of
from lovely.remotetask.web.operations import check_outside

#: What is given to `ITaskService.add` besides, if it is given.
OPTIONS = ("delay", "at", "after", "priority", "unique_key", "lock", "expires")

DESCRIPTION = """\
Adds one job to a service, commits, and prints the id of the job.  The input is at most 1 MB
large and nested 100 levels deep, unless the service sets limits of its own.

examples:
  remotetask add zeo://localhost:8100 thumbnail --input '{"size": 128}' --import shop.tasks
  remotetask add zeo://localhost:8100 shop.report --at 2030-01-31T06:00:00+01:00
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask add`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
    parser.add_argument("task", metavar="TASK", help="the name of the task, or of the job factory")
    parser.add_argument(
        "--input",
        metavar="JSON",
        default="null",
        help="the input; - reads it from stdin (default: %(default)s)",
    )
    parser.add_argument(
        "--delay", metavar="SECONDS", type=float, help="the job waits so long before it runs"
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="the job waits until then; a time and its offset, such as 2030-01-31T12:00:00+01:00,"
        " or Z for UTC",
    )
    parser.add_argument(
        "--after",
        metavar="ID",
        type=int,
        action="append",
        help="the job waits until the job with this id is completed; may be repeated",
    )
    parser.add_argument(
        "--priority",
        metavar="N",
        type=int,
        help="jobs with a higher priority run first (default: 0)",
    )
    parser.add_argument(
        "--unique-key",
        metavar="KEY",
        help="add nothing while a job with this key waits or runs, and print that job's id",
    )
    parser.add_argument(
        "--lock", metavar="NAME", help="of the jobs with the same lock one runs at a time"
    )
    parser.add_argument(
        "--expires",
        metavar="SECONDS",
        type=float,
        help="cancel the job if it has not started by then",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Add one job, and print its id.

    What comes from outside is bounded, also where the service sets no bounds of its own.

    Transaction: must not run in one; commits.
    """
    try:
        value = json.loads(sys.stdin.read() if arguments.input == "-" else arguments.input)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"--input is no JSON: {error}") from error
    with opened_services(arguments) as (manager, matches):
        if len(matches) > 1:
            names = ", ".join(pattern_of(match) for match in matches)
            raise InvalidArgument(f"--service must name one of {names}")
        service = matches[0].service
        check_outside(service, value)
        with entered(match_site(matches[0])):
            jobid = _add(service, arguments, value)
        manager.commit()
    output.tell(str(jobid))
    output.result({"job": jobid})
    return DONE


def _add(service: Any, arguments: argparse.Namespace, value: Any) -> int | str:
    options = {name: option for name in OPTIONS if (option := getattr(arguments, name)) is not None}
    if "at" in options:
        options["at"] = moment_of(arguments.at, "--at")
    jobid: int | str
    if not options:
        jobid = service.addNamed(arguments.task, value)
    elif ITaskService.providedBy(service):
        jobid = cast(Any, service).add(arguments.task, value, **options)
    else:
        names = ", ".join("--" + name.replace("_", "-") for name in options)
        raise InvalidArgument(f"a remote processor takes no {names}")
    return jobid
