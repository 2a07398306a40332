# SPDX-License-Identifier: ZPL-2.1
"""Open databases by URI, and import what their jobs need."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from zc.lockfile import LockError
from ZODB import DB
from ZODB.FileStorage.FileStorage import FileStorageFormatError

from lovely.remotetask.command.output import describe_kind
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

#: What can stand behind the ``?`` of a URI of PostgreSQL, beside the options of RelStorage.
POSTGRES_OPTIONS = ("host", "port", "user", "password", "connect_timeout", "sslmode", "service")


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a database, and the code of what is in it."""
    parser.add_argument(
        "uri",
        metavar="URI",
        help="the database: file:///path/Data.fs, zeo://host:port, postgresql://user@host/name, "
        "or zconfig:///path/zodb.conf with several",
    )
    parser.add_argument(
        "--import",
        metavar="MODULE",
        dest="modules",
        action="append",
        default=[],
        help="import this module first, for the tasks it registers; may be repeated",
    )


def import_modules(names: list[str]) -> None:
    """Import modules, for the tasks they register.

    :raises RemoteTaskError: one cannot be imported.
    """
    if os.getcwd() not in sys.path:  # as `python -m` has it
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a module does
            raise RemoteTaskError(f"cannot import {name}: {describe_kind(error)}") from error


def open_database(uri: str) -> Any:
    """Open the database that a URI names; of a file that configures several, all of them.

    :raises InvalidArgument: the URI is malformed.
    :raises RemoteTaskError: the database is in use, or cannot be opened.
    """
    opener = _resolve(uri)
    shown = without_password(uri)
    try:
        return opener()
    except LockError as error:
        raise RemoteTaskError(f"{shown} is in use by another process") from error
    except RemoteTaskError as error:
        raise RemoteTaskError(f"{shown} cannot be opened: {error}") from error
    except FileStorageFormatError as error:
        raise RemoteTaskError(f"{shown} cannot be opened: {_why_no_format(str(error))}") from error
    except Exception as error:  # storages have no error in common
        raise RemoteTaskError(f"{shown} cannot be opened: {describe_kind(error)}") from error


def close_database(db: Any) -> None:
    """Close a database, and those that were opened together with it."""
    for opened in (db, *db.databases.values()):
        opened.close()


def _resolve(uri: str) -> Callable[[], Any]:
    try:
        import zodburi
    except ImportError:
        raise RemoteTaskError(
            "naming databases by URI takes zodburi: pip install 'lovely.remotetask[cli]'"
        ) from None
    shown = without_password(uri)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        raise InvalidArgument(f"{shown!r} is no URI such as file:///path/Data.fs")
    path = Path(re.split("[?#]" if scheme == "zconfig" else "[?]", rest)[0])
    if scheme == "file" and not path.is_file():  # it would be made, and hold no service
        raise RemoteTaskError(f"there is no database file {path}")
    try:
        if scheme == "zconfig" and (opener := _resolve_configuration(path, urlsplit(uri).fragment)):
            return opener
        # As the whole world calls it, and RelStorage does not.
        is_postgres = scheme in ("postgresql", "postgres")
        resolve = _resolve_postgres if is_postgres else zodburi.resolve_uri
        factory, options = resolve(uri)
    except RemoteTaskError:
        raise
    except zodburi.NoResolverForScheme:
        raise InvalidArgument(f"no storage is known for {scheme}://") from None
    except Exception as error:  # each storage has a resolver of its own
        raise InvalidArgument(f"{shown} is malformed: {describe_kind(error)}") from error
    return lambda: DB(factory(), **options)


# -- several databases in one file ----------------------------------------------------------


def _resolve_configuration(path: Path, name: str) -> Callable[[], Any] | None:
    """Return what opens all databases of a configuration file, as one multi-database.

    What refers from one to another could not be loaded otherwise.  Zodburi would open one.

    :param name: which of them is returned; empty for the first one.
    :returns: None where the name is that of a storage by itself, or there is no database.
    """
    if not path.is_file():
        raise RemoteTaskError(f"there is no file {path}")
    import ZConfig  # zodburi needs it too

    schema = ZConfig.loadSchemaFile(StringIO(_SCHEMA))
    configuration, _ = ZConfig.loadConfig(schema, str(path))
    sections = {_name_of(section): section for section in configuration.databases}
    if len(sections) < len(configuration.databases):
        raise InvalidArgument(f"the databases in {path} need names of their own, as in <zodb NAME>")
    if not sections or name in [storage.name for storage in configuration.storages]:
        return None
    if name and name not in sections:
        known = ", ".join(map(repr, sections))
        raise InvalidArgument(f"there is no database {name!r} in {path}, which has {known}")
    return lambda: _open_all(sections)[name or next(iter(sections))]


_SCHEMA = """
<schema>
  <import package="ZODB"/>
  <multisection type="ZODB.storage" name="*" attribute="storages"/>
  <multisection type="ZODB.database" name="*" attribute="databases"/>
</schema>
"""


def _name_of(section: Any) -> str:
    return str(section.config.database_name or section.name or "")


def _open_all(sections: dict[str, Any]) -> dict[str, Any]:
    databases: dict[str, Any] = {}
    try:
        for section in sections.values():
            section.open(databases)
    except BaseException:
        for database in databases.values():
            database.close()
        raise
    return databases


# -- PostgreSQL -----------------------------------------------------------------------------


def _resolve_postgres(uri: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Do as RelStorage does, but leave to PostgreSQL what the URI does not say.

    RelStorage would ask for the port, and for the password, "None".
    """
    import zodburi

    try:
        from relstorage.zodburi_resolver import RelStorageURIResolver
    except ImportError:
        raise InvalidArgument("PostgreSQL takes lovely.remotetask[relstorage]") from None
    factory, left = RelStorageURIResolver(_postgres_adapter)(
        f"postgres://{uri.partition('://')[2]}"
    )
    _, options = zodburi.resolve_uri(f"memory://?{urlencode(left)}")  # those of the database
    return factory, options


def _postgres_adapter(
    parsed: SplitResult, keywords: dict[str, str]
) -> tuple[Callable[[Any], Any], dict[str, str]]:
    """Return what makes the adapter, and the keywords that are left for others."""
    given: dict[str, Any] = {
        "dbname": parsed.path[1:],
        "user": parsed.username,
        "password": parsed.password,
        "host": parsed.hostname,
        "port": parsed.port,
    }
    given = {name: unquote(str(value)) for name, value in given.items() if value}
    left = dict(keywords)
    for name in POSTGRES_OPTIONS:
        if name in left:
            given[name] = left.pop(name)
    dsn = " ".join(f"{name}={_quoted(value)}" for name, value in given.items())

    def make(options: Any) -> Any:
        from relstorage.adapters.postgresql import PostgreSQLAdapter

        adapter = PostgreSQLAdapter(dsn=dsn, options=options)
        _check_is_zodb(adapter)
        return adapter

    return make, left


def _check_is_zodb(adapter: Any) -> None:
    """Refuse a database without the tables of RelStorage, which would be made, and hold no service.

    It may be another application's: one that a URI does not name is the user's own.
    """

    def tables(connection: Any, cursor: Any) -> list[str]:
        return list(adapter.schema.list_tables(cursor))

    if "object_state" not in adapter.connmanager.open_and_call(tables):
        raise RemoteTaskError("RelStorage has stored nothing in it")


def _quoted(value: str) -> str:
    escaped = re.sub(r"(['\\])", r"\\\1", value)
    return f"'{escaped}'"


def _why_no_format(path: str) -> str:
    with open(path, "rb") as file:
        is_of_python_2 = file.read(4) == b"FS21"
    if is_of_python_2:
        return (
            "Python 2 has written it.  First zodbupdate has to convert it, then 'remotetask "
            "upgrade' the services of lovely.remotetask 0.5: see 'Coming from 0.5' in the "
            "documentation"
        )
    return f"{path} is no FileStorage"


def without_password(uri: str) -> str:
    """Return a URI as it may be shown."""
    uri = re.sub(r"(//[^/@:]*:)[^/@]*@", r"\1***@", uri)
    return re.sub(r"(\bpassword=)[^&]*", r"\1***", uri)
