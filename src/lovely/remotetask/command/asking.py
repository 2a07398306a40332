# SPDX-License-Identifier: ZPL-2.1
"""Questions before something is done that cannot be taken back."""

from __future__ import annotations

import argparse
import sys

from lovely.remotetask.command.output import complain
from lovely.remotetask.errors import InvalidArgument


def add_yes_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument that answers all questions."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def is_agreed(question: str, is_yes: bool) -> bool:
    """Ask a question in the terminal; whatever is no yes is a no.

    :param is_yes: it has been answered.
    :raises InvalidArgument: it cannot be asked.
    """
    if is_yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidArgument(f"{question}  There is no terminal to answer in: --yes says yes")
    complain(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
