# SPDX-License-Identifier: ZPL-2.1
"""``remotetask clean``: removes jobs that have ended."""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from lovely.remotetask.command.asking import add_yes_argument, is_agreed
from lovely.remotetask.command.output import DONE, FAILED, Output
from lovely.remotetask.command.services import (
    add_service_arguments,
    names_of,
    opened_services,
    title_of,
)
from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.interfaces import ERROR, FINAL_STATUSES
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.web.batches import clean

#: Seconds of the units of an age; a number without one counts seconds.
UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

DESCRIPTION = """\
Removes jobs that are completed, an error or cancelled, those that ended first, some hundreds
in one transaction.  It may run beside workers, except on a file, which only one process can
open.  The file gets smaller when the database is packed.

It asks before it removes errors; where there is no terminal it takes --yes.

examples:
  remotetask clean /srv/shop/Data.fs
  remotetask clean zeo://localhost:8100 --service '@tasks' --status completed --older-than 7d
  remotetask clean zeo://localhost:8100 --yes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask clean`` takes."""
    parser.description = DESCRIPTION
    add_service_arguments(parser)
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
    add_yes_argument(parser)


def _age(text: str) -> float:
    """Return the seconds of an age such as 7d."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 90, 90s, 15m, 12h or 7d")
    return float(found[1]) * UNIT_SECONDS[found[2]]


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Remove jobs that have ended from services, and tell how many there were.

    Transaction: must not run in one; commits, a batch at a time.
    """
    age = arguments.older_than
    before = None if age is None else time.time() - age
    wanted = arguments.statuses or FINAL_STATUSES
    cleaned: list[dict[str, Any]] = []
    with opened_services(arguments) as (manager, matches):
        if ERROR in wanted and not _may_remove_errors(matches, arguments.yes):
            output.note("remotetask: nothing was removed; --status completed keeps the errors")
            return FAILED
        for match in matches:
            statuses = [status for status in FINAL_STATUSES if status in wanted]
            removed = clean(manager, match.service, statuses, before)
            cleaned.append({**names_of(match), "removed": removed})
            counts = ", ".join(f"{count:,} {status}" for status, count in removed.items())
            # At once, not at the end: what was removed stays so, whatever comes of the next.
            output.tell(f"{title_of(match)}: removed {counts}")
    output.result(cleaned)
    return DONE


def _may_remove_errors(matches: list[Match], is_yes: bool) -> bool:
    """Ask whether errors may be removed, if there are any: nobody may have looked at them yet."""
    counts = [(match, count_jobs(match.service)[ERROR]) for match in matches]
    errors = ", ".join(f"{count:,} of {title_of(match)}" for match, count in counts if count)
    return not errors or is_agreed(f"Remove errors too ({errors}), as far as they match?", is_yes)
