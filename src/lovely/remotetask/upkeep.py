# SPDX-License-Identifier: ZPL-2.1
"""Commands that look after the services of a database: ``check`` and ``add``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transaction

from lovely.remotetask.autostart import Match, find_services, match_site, split_patterns
from lovely.remotetask.check import Problem, check_all
from lovely.remotetask.database import (
    add_database_arguments,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.job import OUTSIDE_MAX_BYTES, OUTSIDE_MAX_DEPTH, check_limits
from lovely.remotetask.screen import Screen
from lovely.remotetask.site import entered


def _add_service_arguments(parser: argparse.ArgumentParser) -> None:
    add_database_arguments(parser)
    parser.add_argument(
        "--service",
        metavar="PATTERNS",
        default="*@*",
        help="the services, as site@service patterns with commas between them "
        "(default: %(default)s, all)",
    )


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``remotetask check``."""
    _add_service_arguments(parser)
    parser.add_argument("--repair", action="store_true", help="mend what is wrong")


def add_add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``remotetask add``."""
    _add_service_arguments(parser)
    parser.add_argument("task", metavar="TASK", help="the name of the task")
    parser.add_argument(
        "--input",
        metavar="JSON",
        default="null",
        help="the input; - reads it from stdin (default: %(default)s)",
    )


@contextmanager
def _services(arguments: argparse.Namespace) -> Iterator[tuple[Any, list[Match]]]:
    """Give the transaction manager and the services that are named."""
    import_modules(arguments.modules)
    db = open_database(arguments.uri)
    manager = transaction.TransactionManager()
    try:
        connection = db.open(manager)
        try:
            matches = list(find_services(connection.root(), split_patterns(arguments.service)))
            if not matches:
                shown = without_password(arguments.uri)
                raise RemoteTaskError(f"no service in {shown} matches {arguments.service!r}")
            yield manager, matches
        finally:
            manager.abort()
            connection.close()
    finally:
        db.close()


def check_services(arguments: argparse.Namespace, screen: Screen) -> int:
    """Check the jobs of services against their indexes, and mend what is wrong.

    Transaction: must not run in one; commits, a step at a time, if it is to mend.
    """
    found: list[tuple[Match, Problem]] = []
    with _services(arguments) as (manager, matches):
        for match in matches:
            end = manager.commit if arguments.repair else manager.abort
            problems = check_all(match.service, time.time(), arguments.repair, end)
            found.extend((match, problem) for problem in problems)
    screen.result(
        [
            {
                "site": match.site_name,
                "service": match.service_name,
                "job": problem.jobid,
                "problem": problem.text,
            }
            for match, problem in found
        ]
    )
    if not found:
        screen.tell(f"{len(matches)} service(s) checked: jobs and indexes agree.")
        return 0
    lines = [
        f"{match.service_name} on {match.site_name}: "
        + (problem.text if problem.jobid is None else f"job {problem.jobid}: {problem.text}")
        for match, problem in found
    ]
    what = "mended" if arguments.repair else "found; --repair mends them"
    screen.tell_list(f"{len(found)} problem(s) {what}:", lines)
    return 0 if arguments.repair else 1


def add_job(arguments: argparse.Namespace, screen: Screen) -> int:
    """Add one job, and print its id.

    What comes from outside is bounded, also where the service sets no bounds of its own.

    Transaction: must not run in one; commits.
    """
    try:
        value = json.loads(sys.stdin.read() if arguments.input == "-" else arguments.input)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"--input is no JSON: {error}") from error
    with _services(arguments) as (manager, matches):
        if len(matches) > 1:
            names = ", ".join(_pattern(match) for match in matches)
            raise InvalidArgument(f"--service must name one of {names}")
        service = matches[0].service
        check_limits(
            value,
            service.max_input_bytes or OUTSIDE_MAX_BYTES,
            service.max_input_depth or OUTSIDE_MAX_DEPTH,
        )
        with entered(match_site(matches[0])):
            jobid = service.add(arguments.task, value)
        manager.commit()
    screen.tell(str(jobid))
    screen.result({"job": jobid})
    return 0


def _pattern(match: Match) -> str:
    site_name = "" if match.site_name == "root" else match.site_name
    return f"{site_name}@{match.service_name}"
