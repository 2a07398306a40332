# SPDX-License-Identifier: ZPL-2.1
"""``remotetask resume``: lets jobs be claimed again."""

from __future__ import annotations

import argparse

from lovely.remotetask.command.output import Output
from lovely.remotetask.command.pausing import add_pause_arguments, change_pauses
from lovely.remotetask.engine import control

DESCRIPTION = """\
Lets jobs be claimed again, after ``pause``.  Without --task it takes back each pause, of whatever
tasks.

examples:
  remotetask resume zeo://localhost:8100 --service '@tasks'
  remotetask resume zeo://localhost:8100 --task shop.charge
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask resume`` takes."""
    parser.description = DESCRIPTION
    add_pause_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Resume services, or a task of theirs.

    Transaction: must not run in one; commits, a service at a time.
    """
    return change_pauses(arguments, output, control.resume)
