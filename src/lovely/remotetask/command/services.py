# SPDX-License-Identifier: ZPL-2.1
"""The services of a database that patterns name, for commands that look after them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transaction

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
        matches = list(find_services(connection.root(), split_patterns(patterns)))
        if not matches:
            raise RemoteTaskError(f"no service in {without_password(uri)} matches {patterns!r}")
        yield manager, matches
    finally:
        manager.abort()
        connection.close()
