# SPDX-License-Identifier: ZPL-2.1
"""Commands that look after the services of a database: ``check``, ``clean`` and ``add``."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transaction

from lovely.remotetask.base.site import entered
from lovely.remotetask.base.storable import OUTSIDE_MAX_BYTES, OUTSIDE_MAX_DEPTH, check_limits
from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import Screen, set_up_logging
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.hosts.autostart import Match, find_services, match_site, split_patterns
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.setting import read
from lovely.remotetask.store.check import Problem, check_all

#: ``remotetask clean`` removes no more jobs than this in one transaction.
BATCH_SIZE = 500

#: A batch that meets so many write conflicts ends the command.  More than ZODB's usual three, for
#: workers remove old jobs at the same end.
BATCH_TRIES = 10

#: Seconds of the units of an age; a number without one counts seconds.
UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


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


def add_clean_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``remotetask clean``."""
    _add_service_arguments(parser)
    parser.add_argument(
        "--status",
        dest="statuses",
        metavar="STATUS",
        action="append",
        choices=FINAL_STATUSES,
        help="remove jobs with this status: completed, error or cancelled; may be repeated "
        "(default: all three)",
    )
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        type=_age,
        help="remove only jobs that ended at least this long ago: seconds, or a number with a "
        "unit, as in 90s, 15m, 12h and 7d (default: of any age)",
    )


def _age(text: str) -> float:
    """Return the seconds of an age such as 7d."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 90, 90s, 15m, 12h or 7d")
    return float(found[1]) * UNIT_SECONDS[found[2]]


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
    set_up_logging(arguments.verbose, package=logging.ERROR, jobs=logging.ERROR)
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
        close_database(db)


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
            {**_names(match), "job": problem.jobid, "problem": problem.text}
            for match, problem in found
        ]
    )
    if not found:
        screen.tell(f"{len(matches)} service(s) checked: jobs and indexes agree.")
        return 0
    lines = [
        f"{_title(match)}: "
        + (problem.text if problem.jobid is None else f"job {problem.jobid}: {problem.text}")
        for match, problem in found
    ]
    left = sum(not problem.is_mendable for _, problem in found)
    what = "mended" if arguments.repair else "found; --repair mends them"
    but = f", but for {left}, whose records cannot be read or written here" if left else ""
    screen.tell_list(f"{len(found)} problem(s) {what}{but}:", lines)
    return 0 if arguments.repair and not left else 1


def clean_services(arguments: argparse.Namespace, screen: Screen) -> int:
    """Remove jobs that have ended from services, and tell how many there were.

    Transaction: must not run in one; commits, a batch at a time.
    """
    age = arguments.older_than
    before = None if age is None else time.time() - age
    wanted = arguments.statuses or FINAL_STATUSES
    cleaned = []
    with _services(arguments) as (manager, matches):
        for match in matches:
            removed = {
                status: _remove_all(manager, match.service, status, before)
                for status in FINAL_STATUSES
                if status in wanted
            }
            cleaned.append({**_names(match), "removed": removed})
            counts = ", ".join(f"{count:,} {status}" for status, count in removed.items())
            # At once, not at the end: what was removed stays so, whatever comes of the next.
            screen.tell(f"{_title(match)}: removed {counts}")
    screen.result(cleaned)
    return 0


def _remove_all(manager: Any, service: Any, status: str, before: float | None) -> int:
    """Remove the jobs with a status, a batch at a time; return their number."""
    removed = 0
    while True:
        batch = _remove_batch(manager, service, status, before)
        removed += batch
        # Not until there is none: workers that go on ending jobs must not keep us here.
        if batch < BATCH_SIZE:
            return removed


def _remove_batch(manager: Any, service: Any, status: str, before: float | None) -> int:
    removed = 0
    for attempt in manager.attempts(BATCH_TRIES):
        with attempt:
            removed = service.remove_oldest(status, BATCH_SIZE, before)
    # A removed job is loaded once and never again, however large its input and its result.
    service._p_jar.cacheMinimize()
    return removed


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
        max_bytes, max_depth = read(service, "max_input_bytes"), read(service, "max_input_depth")
        check_limits(
            value,
            OUTSIDE_MAX_BYTES if max_bytes is None else max_bytes,
            OUTSIDE_MAX_DEPTH if max_depth is None else max_depth,
        )
        with entered(match_site(matches[0])):
            jobid = service.add(arguments.task, value)
        manager.commit()
    screen.tell(str(jobid))
    screen.result({"job": jobid})
    return 0


def _names(match: Match) -> dict[str, Any]:
    """Return what names a service to programs."""
    return {"site": match.site_name, "service": match.service_name}


def _title(match: Match) -> str:
    """Return what names a service to people."""
    return f"{match.service_name} on {match.site_name}"


def _pattern(match: Match) -> str:
    site_name = "" if match.site_name == "root" else match.site_name
    return f"{site_name}@{match.service_name}"
