# SPDX-License-Identifier: ZPL-2.1
"""``remotetask init``: makes a service, and the database too if there is none."""

from __future__ import annotations

import argparse
from typing import Any

import transaction

from lovely.remotetask import TaskService
from lovely.remotetask.base.site import ROOT_NAME
from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.command.sql import NoDatabase
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.interfaces import IService
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.web.batches import TRIES

#: ``--door`` -> what is made.
DOORS = {"tasks": TaskService, "remote": RemoteProcessor}

DESCRIPTION = """\
Makes a service, as an item of the root of the database, and commits it.  Where there is no database
yet, it makes the file, or in SQL the tables; no other command does.  What is there already stays as
it is.

examples:
  remotetask init Data.fs
  remotetask init 'postgresql://shop@localhost/shop?keep_history=0' mail
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask init`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser)
    parser.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        default="tasks",
        type=_name,
        help="the name of the service in the root (default: %(default)s)",
    )
    parser.add_argument(
        "--door",
        choices=sorted(DOORS),
        default="tasks",
        help="tasks: a TaskService; remote: a RemoteProcessor, without factories as yet "
        "(default: %(default)s)",
    )


def _name(text: str) -> str:
    name = text.removeprefix("@")
    if not name or set("@*,") & set(name):
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a service of the root")
    return name


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Make a service, and say what was made.

    Transaction: must not run in one; commits.
    """
    import_modules(arguments.modules)
    made = []
    try:
        db = open_database(arguments.uri)
    except NoDatabase as error:
        db = open_database(arguments.uri, is_made=True)
        made.append(error.what)
    try:
        manager = transaction.TransactionManager()
        root = db.open(manager).root()
        for attempt in manager.attempts(TRIES):
            with attempt:
                is_new = _make(root, arguments.service, DOORS[arguments.door])
    finally:
        close_database(db)
    if is_new:
        made.append(f"the service {arguments.service}")
    shown = without_password(arguments.uri)
    output.tell(f"{shown}: made {' and '.join(made)}" if made else f"{shown}: all is there already")
    output.result({"database": shown, "service": arguments.service, "made": made})
    return DONE


def _make(root: Any, name: str, factory: Any) -> bool:
    """Put a service into the root, unless it is there; say whether it was not.

    :raises RemoteTaskError: something else is there.
    """
    there = root.get(name)
    if there is not None:
        if isinstance(there, factory):
            return False
        kind = type(there).__name__
        if IService.providedBy(there):
            raise InvalidArgument(f"{name} is a {kind}, and no {factory.__name__}")
        raise RemoteTaskError(f"{name} in the root of the database is a {kind}, and no service")
    if ROOT_NAME in root:
        raise RemoteTaskError(
            f"this database has an {ROOT_NAME}, where services are registered in sites: see "
            "'How do I start services in Zope and Plone?' in the documentation"
        )
    root[name] = factory()
    return True
