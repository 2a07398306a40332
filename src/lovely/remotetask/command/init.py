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
from lovely.remotetask.command.sql import (
    THE_TRIGGER,
    NoDatabase,
    adapter_to_notify,
    check_may_notify,
)
from lovely.remotetask.engine import trigger
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.interfaces import IService
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.web.batches import TRIES

#: ``--door`` -> what is made.
DOORS = {"tasks": TaskService, "remote": RemoteProcessor}

#: The name of a service that is not called otherwise.
DEFAULT = "tasks"

DESCRIPTION = """\
Makes a service, as an item of the root of the database, and commits it.  Where there is no database
yet, it makes the file, or in SQL the tables; no other command does.  What is there already stays as
it is.

With --notify PostgreSQL wakes idle workers, which ask it for new jobs otherwise.  This makes three
things in RelStorage's schema, and takes the rights of the owner of its tables: the table
remotetask_signals, the function remotetask_notify, and the trigger remotetask_notify on the table
of the objects.  'remotetask uninstall URI --notify' drops them again.

examples:
  remotetask init Data.fs
  remotetask init 'postgresql://shop@localhost/shop?keep_history=0' mail
  remotetask init 'postgresql://shop@localhost/shop?keep_history=0' --notify
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask init`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser)
    parser.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        type=_name,
        help=f"the name of the service in the root (default: {DEFAULT})",
    )
    parser.add_argument(
        "--door",
        choices=sorted(DOORS),
        default="tasks",
        help="tasks: a TaskService; remote: a RemoteProcessor, without factories as yet "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--notify",
        action="store_true",
        help="let PostgreSQL wake idle workers, by a trigger; in Zope, where services are those of "
        "sites, no service is made then",
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
    if arguments.notify:
        check_may_notify(arguments.uri)
    made = []
    try:
        db = open_database(arguments.uri)
    except NoDatabase as error:
        db = open_database(arguments.uri, is_made=True)
        made.append(error.what)
    name = arguments.service or DEFAULT
    try:
        adapter = adapter_to_notify(db) if arguments.notify else None
        manager = transaction.TransactionManager()
        root = db.open(manager).root()
        if arguments.service or adapter is None or ROOT_NAME not in root:
            for attempt in manager.attempts(TRIES):
                with attempt:
                    is_new = _make(root, name, DOORS[arguments.door])
            if is_new:
                made.append(f"the service {name}")
        manager.abort()
        if adapter is not None and trigger.install(adapter):
            made.append(THE_TRIGGER)
    finally:
        close_database(db)
    shown = without_password(arguments.uri)
    output.tell(f"{shown}: made {' and '.join(made)}" if made else f"{shown}: all is there already")
    output.result({"database": shown, "service": name, "made": made})
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
