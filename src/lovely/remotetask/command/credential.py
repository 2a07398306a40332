# SPDX-License-Identifier: ZPL-2.1
"""``remotetask credential``: makes lines for the files of ``remotetask web``."""

from __future__ import annotations

import argparse
import getpass
import sys

from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

DESCRIPTION = """\
Makes a line for the file of remotetask web --passwords, or with --token for that of --tokens.  The
line is printed on stdout; a token, which is told only this once, on stderr.  A password is asked
for, or read from stdin where that is no terminal.

examples:
  remotetask credential alice --permissions view,add,manage >> passwords
  remotetask credential shop --token --permissions add >> tokens
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask credential`` takes."""
    parser.description = DESCRIPTION
    parser.add_argument("name", metavar="NAME", help="whose it is")
    parser.add_argument("--token", action="store_true", help="make a token, no password")
    parser.add_argument(
        "--permissions",
        metavar="LIST",
        default="view",
        help="view, add and manage, with commas between them (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Print a line for a file.

    Transaction: none.
    """
    try:
        from lovely.remotetask.web import credentials
    except ImportError as error:
        raise RemoteTaskError(
            f"{error}: this takes pip install 'lovely.remotetask[web]'"
        ) from error
    permissions = arguments.permissions.split(",")
    credentials.line_of(arguments.name, permissions, "")  # refuses before anything is asked
    told: dict[str, str] = {}
    if arguments.token:
        token = credentials.new_token()
        hash = credentials.hash_token(token)
        told["token"] = token
        output.note(f"token: {token}")
    else:
        hash = credentials.hash_password(_ask())
    line = credentials.line_of(arguments.name, permissions, hash)
    output.tell(line)
    output.result({"line": line, **told})
    return DONE


def _ask() -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass.getpass("password: ")
        if getpass.getpass("once more: ") != password:
            raise InvalidArgument("these are two different passwords")
    if not password:
        raise InvalidArgument("a password is needed")
    return password
