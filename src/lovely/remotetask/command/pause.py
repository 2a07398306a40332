# SPDX-License-Identifier: ZPL-2.1
"""``remotetask pause``: holds back all jobs, or those of a task."""

from __future__ import annotations

import argparse

from lovely.remotetask.command.output import Output
from lovely.remotetask.command.pausing import add_pause_arguments, change_pauses
from lovely.remotetask.engine import control

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
    add_pause_arguments(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Pause services, or a task of theirs.

    Transaction: must not run in one; commits, a service at a time.
    """
    return change_pauses(arguments, output, control.pause)
