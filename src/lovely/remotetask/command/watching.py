# SPDX-License-Identifier: ZPL-2.1
"""What ``--watch`` does: a verb that looks at a database shows it again and again."""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from lovely.remotetask.command.output import DONE, Output, say
from lovely.remotetask.command.signals import Signals
from lovely.remotetask.errors import InvalidArgument, seconds_of

#: Seconds between two looks, if not told otherwise, and at the least.
DEFAULT_SECONDS = 2.0
MIN_SECONDS = 0.1

#: To a terminal: go to the upper left corner; empty the rest of the line; and of the screen.
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def add_watch_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument to a verb that changes nothing."""
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        type=float,
        nargs="?",
        const=DEFAULT_SECONDS,
        help="show it again every so many seconds (2), until Ctrl-C; not with --json",
    )


def show_and_watch(
    arguments: argparse.Namespace, output: Output, manager: Any, show: Callable[[], Any]
) -> int:
    """Show something to people and programs, again and again if that was asked for.

    In a terminal it is drawn over what was shown before, and cut where the screen ends.

    :param manager: the transaction manager; each look begins a transaction.
    :param show: prints for people, and returns what is for programs.
    :returns: the exit code.

    Transaction: must not run in one; reads only.
    """
    if arguments.watch is None:
        output.result(show())
        return DONE
    if output.is_json:
        raise InvalidArgument("--watch is for people: not with --json")
    seconds = max(seconds_of(arguments.watch, "--watch"), MIN_SECONDS)
    with Signals() as signals:
        while True:
            shown = io.StringIO()
            with redirect_stdout(shown):
                show()
            _draw(f"{time.strftime('%H:%M:%S')}  remotetask {arguments.again}", shown.getvalue())
            if signals.wait(seconds):
                return DONE
            manager.begin()


def _draw(title: str, text: str) -> None:
    lines = [title, "", *text.splitlines()]
    if not sys.stdout.isatty():
        say("\n".join([*lines, ""]))
        return
    size = shutil.get_terminal_size()
    lines = [line[: size.columns] for line in lines]
    if len(lines) >= size.lines:
        hidden = len(lines) - (size.lines - 2)
        lines[size.lines - 2 :] = [f"... and {hidden:,} more lines"]
    say(HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in lines) + REST_OF_SCREEN)
