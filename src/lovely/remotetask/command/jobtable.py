# SPDX-License-Identifier: ZPL-2.1
"""How jobs are shown to people and to programs, and how the command finds them."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from lovely.remotetask.command.output import Output
from lovely.remotetask.command.services import names_of, pattern_of
from lovely.remotetask.errors import InvalidArgument, JobNotFound, RemoteTaskError
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.remote.record import ID_DIGITS
from lovely.remotetask.web.batches import TRIES
from lovely.remotetask.web.operations import has_job

#: What stands above the columns of `row_of`.
TITLES = ("ID", "STATUS", "WHEN", "TRY", "TASK", "ERROR")

#: The units of ages, and how many seconds the next one takes.
UNITS = (("s", 120), ("m", 7_200), ("h", 172_800), ("d", float("inf")))
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_ids(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """Add the ids of jobs to the arguments of a verb."""
    parser.add_argument("ids", metavar="ID", nargs=nargs, type=_job_id, help="the id of a job")


def _job_id(text: str) -> int | str:
    """Return the id of a job: a number, or what remote processors call it."""
    if re.fullmatch("[0-9a-f]{24}", text):
        return text
    if re.fullmatch("[0-9]{1,20}", text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not the id of a job")


def match_of(matches: list[Match], jobid: int | str) -> tuple[Match, int]:
    """Return the service that has a job, and the number of the job there.

    :raises JobNotFound: none of them has it.
    :raises InvalidArgument: several have one with this id.
    """
    number = jobid if isinstance(jobid, int) else int(jobid[ID_DIGITS:], 16)
    found = [match for match in matches if has_job(match.service, number, jobid)]
    if not found:
        raise JobNotFound(f"there is no job {jobid}")
    if len(found) > 1:
        names = ", ".join(map(pattern_of, found))
        raise InvalidArgument(f"there are several jobs {jobid}: --service must name one of {names}")
    return found[0], number


def tell_jobs(
    manager: Any,
    matches: list[Match],
    jobids: list[int | str],
    tell: Callable[[Any, int], str],
    output: Output,
) -> list[dict[str, Any]]:
    """Tell jobs something, each in a transaction of its own, and people what has come of it.

    :returns: what to print for programs.
    :param tell: called with the service and the number of a job; returns what has come of it.
    """
    told = []
    for jobid in jobids:
        outcome = ""
        for attempt in manager.attempts(TRIES):
            with attempt:
                match, number = match_of(matches, jobid)
                with refusals():
                    outcome = tell(match.service, number)
        told.append({**names_of(match), "job": jobid, "outcome": outcome})
    for one in told:
        output.tell(f"job {one['job']}: {one['outcome']}")
    return told


@contextmanager
def refusals() -> Iterator[None]:
    """Let a job that refuses what it is told be a failure: the command line is right.

    :raises RemoteTaskError: in the place of `InvalidArgument`.
    """
    try:
        yield
    except InvalidArgument as error:
        raise RemoteTaskError(str(error)) from error


def row_of(job: Any) -> list[str]:
    """Return the columns of a job for people."""
    error = "" if job.error is None else " ".join(job.error.split())
    return [job.__name__, job.status, age_of(_time_of(job)), str(job.attempt), job.task, error]


def _time_of(job: Any) -> datetime | None:
    moment: datetime | None = job.scheduledFor or job.created
    if job.is_final:
        moment = job.completed
    elif job.status == PROCESSING:
        moment = job.started
    return moment


def age_of(moment: datetime | None) -> str:
    """Return how long ago something was, or will be, in a few characters."""
    if moment is None:
        return ""
    seconds = time.time() - moment.timestamp()
    unit = next(unit for unit, end in UNITS if abs(seconds) < end)
    count = int(abs(seconds) // UNIT_SECONDS[unit])
    return f"{count}{unit} ago" if seconds >= 0 else f"in {count}{unit}"
