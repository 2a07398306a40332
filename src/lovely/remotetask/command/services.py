# SPDX-License-Identifier: ZPL-2.1
"""The services of a database that patterns name, for commands that look after them."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from difflib import get_close_matches
from typing import Any

import transaction
from ZODB.broken import PersistentBroken

from lovely.remotetask.base.site import ROOT_NAME
from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import set_up_logging
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.hosts.autostart import Match, find_services, split_patterns
from lovely.remotetask.web.facts import names_of, pattern_of, title_of

__all__ = [
    "add_service_arguments",
    "named_services",
    "names_of",
    "opened_services",
    "pattern_of",
    "title_of",
]


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a database, and services in it."""
    add_database_arguments(parser)
    parser.add_argument(
        "--service",
        metavar="PATTERNS",
        default="*@*",
        help="the services, as site@service patterns with commas between them "
        "(default: %(default)s, all)",
    )


@contextmanager
def opened_services(arguments: argparse.Namespace) -> Iterator[tuple[Any, list[Match]]]:
    """Open the database, and give the transaction manager and the services that are named.

    :raises RemoteTaskError: the database cannot be opened, or there is no such service.
    """
    import_modules(arguments.modules)
    set_up_logging(arguments.verbose, package=logging.ERROR, jobs=logging.ERROR)
    db = open_database(arguments.uri)
    try:
        with named_services(db, arguments.uri, arguments.service) as found:
            yield found
    finally:
        close_database(db)


@contextmanager
def named_services(db: Any, uri: str, patterns: str) -> Iterator[tuple[Any, list[Match]]]:
    """Give the transaction manager of a connection, and the services that patterns name.

    :raises RemoteTaskError: there is none.
    """
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    try:
        root = connection.root()
        check_readable(root)
        matches = list(find_services(root, split_patterns(patterns)))
        if not matches:
            raise RemoteTaskError(why_none(root, uri, patterns))
        yield manager, matches
    finally:
        manager.abort()
        connection.close()


def why_none(root: Any, uri: str, patterns: str) -> str:
    """Return why patterns name no service, and which services there are."""
    shown = without_password(uri)
    names = [pattern_of(match) for match in find_services(root, ["*@*"])]
    if not names:
        is_mine = ROOT_NAME not in root
        how = f"; to make one: remotetask init {shlex.quote(shown)}" if is_mine else ""
        return f"no service in {shown} matches {patterns!r}: it has none{how}"
    text = f"no service in {shown} matches {patterns!r}: it has {', '.join(names)}"
    near = [
        name
        for pattern in split_patterns(patterns)
        for name in get_close_matches(pattern, names, n=1)
    ]
    return f"{text}; did you mean {near[0]!r}?" if near and len(names) > 1 else text


def check_readable(root: Any) -> None:
    """Refuse a database whose application cannot be loaded here.

    :raises RemoteTaskError: it is so.
    """
    application = root.get(ROOT_NAME)
    if isinstance(application, PersistentBroken):
        kind = f"{type(application).__module__}.{type(application).__name__}"
        raise RemoteTaskError(
            f"the {ROOT_NAME} of this database is a {kind}, which cannot be imported here: "
            "install lovely.remotetask beside it, and run the command there"
        )


def check_can_work(db: Any) -> None:
    """Refuse a database whose jobs need more than is there outside their application server.

    :raises RemoteTaskError: it is so.
    """
    with closing(db.open(transaction.TransactionManager())) as connection:
        root = connection.root()
        check_readable(root)
        if type(root.get(ROOT_NAME)).__module__.partition(".")[0] == "OFS":
            raise RemoteTaskError(
                "this is a database of Zope, whose jobs need Zope's configuration (ZCML): without "
                "it they would store broken data.  Name it: remotetask run --zope-conf "
                "etc/zope.conf"
            )
