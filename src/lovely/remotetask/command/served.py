# SPDX-License-Identifier: ZPL-2.1
"""The databases that one process serves: of several URIs, and all that one file configures."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any, NamedTuple
from urllib.parse import urldefrag

import transaction

from lovely.remotetask.command.database import close_database, open_database
from lovely.remotetask.command.services import why_none
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.hosts.autostart import find_all_services, split_patterns


class Served(NamedTuple):
    """A database in whose root services are looked for.

    :ivar uri: what to call it; that of a file with several databases has the name of each.
    :ivar is_opener: what closes this one closes all that was opened with it.
    """

    uri: str
    db: Any
    is_opener: bool = True


def open_served(uris: list[str]) -> list[Served]:
    """Open what URIs name; of a file that configures several databases, serve all of them.

    Databases of several URIs have nothing to do with each other; those of one file may refer to
    each other.

    :raises InvalidArgument: one of them is named twice, or malformed.
    :raises RemoteTaskError: see `open_database`.
    """
    if twice := sorted({uri for uri in uris if uris.count(uri) > 1}):
        raise InvalidArgument(f"{twice[0]} is named twice")
    served: list[Served] = []
    with ExitStack() as stack:
        stack.callback(close_served, served)
        for uri in uris:
            db = open_database(uri)
            served.append(Served(uri, db))
            if uri.startswith("zconfig:") and not urldefrag(uri).fragment:
                others = (item for item in db.databases.items() if item[1] is not db)
                served += [Served(f"{uri}#{name}", other, False) for name, other in others]
        stack.pop_all()
    return served


def close_served(served: list[Served]) -> None:
    """Close them all."""
    for each in served:
        if each.is_opener:
            close_database(each.db)


def why_not_found(served: list[Served], patterns: str) -> list[str]:
    """Return why patterns lead to no service, one line a database; none if one leads to one.

    Transaction: reads only, through connections of its own.
    """
    lines = []
    for uri, db, _ in served:
        with closing(db.open(transaction.TransactionManager())) as connection:
            if any(find_all_services(connection.root(), split_patterns(patterns))):
                return []
            lines.append(why_none(connection.root(), uri, patterns))
    return lines
