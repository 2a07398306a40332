# SPDX-License-Identifier: ZPL-2.1
"""Open databases by URI, and import what their jobs need."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zc.lockfile import LockError
from ZODB import DB
from ZODB import config as zodb_config
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageFormatError

from lovely.remotetask.command import sql, zeo
from lovely.remotetask.command.output import describe_kind
from lovely.remotetask.command.sql import NoDatabase
from lovely.remotetask.engine.identity import is_exclusive
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError


def add_database_arguments(parser: argparse.ArgumentParser, how_many: str | None = None) -> None:
    """Add the arguments that name a database, and the code of what is in it.

    :param how_many: as the ``nargs`` of argparse; None for one that must be there.
    """
    parser.add_argument(
        "uri",
        metavar="URI",
        nargs=how_many,
        help="the database: a file such as Data.fs, zeo://host:port, "
        "postgresql://user@host/name, or zconfig:///path/zodb.conf, which may have several",
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


def open_database(uri: str, is_made: bool = False) -> Any:
    """Open the database that a URI names; of a file that configures several, all of them.

    :param uri: or the path of a file.
    :param is_made: make the file, or the tables, if they are not there.
    :raises InvalidArgument: the URI is malformed.
    :raises NoDatabase: there is none.
    :raises RemoteTaskError: the database is in use, or cannot be opened.
    """
    opener = _resolve(uri, is_made)
    shown = without_password(uri)
    try:
        return opener()
    except NoDatabase as error:
        text = f"{shown} cannot be opened: {error}{_how_to_make(uri)}"
        raise NoDatabase(text, error.what) from error
    except LockError as error:
        raise RemoteTaskError(f"{shown} is in use by another process") from error
    except InvalidArgument as error:
        raise InvalidArgument(f"{shown} cannot be opened: {error}") from error
    except RemoteTaskError as error:
        raise RemoteTaskError(f"{shown} cannot be opened: {error}") from error
    except FileStorageFormatError as error:
        raise RemoteTaskError(f"{shown} cannot be opened: {_why_no_format(str(error))}") from error
    except Exception as error:  # storages have no error in common
        raise RemoteTaskError(f"{shown} cannot be opened: {describe_kind(error)}") from error


def close_database(db: Any) -> None:
    """Close a database, and those that were opened together with it."""
    for opened in (db, *db.databases.values()):
        try:
            opened.close()
        except KeyError:
            # ZODB keeps a connection that could not be opened as the storage was away, and stumbles
            # over it here, before it closes the storage.
            opened.storage.close()


def check_shareable(db: Any, shown: str) -> None:
    """Check that several processes can open a database, and those opened together with it.

    :param shown: what it is called.
    :raises InvalidArgument: one of them belongs to one process.
    """
    others = [opened for opened in db.databases.values() if opened is not db]
    # One in memory beside it, as Zope has for sessions, is each process's own.
    files = [opened for opened in others if opened.storage.getName().endswith(".fs")]
    for opened in (db, *files):
        if is_exclusive(opened.storage):
            raise InvalidArgument(
                f"{shown} can be opened by one process at a time, so --processes takes a ZEO "
                "server (zeo://host:port) or RelStorage (postgresql://user@host/name); "
                "--threads runs several jobs in one process"
            )


def _resolve(uri: str, is_made: bool) -> Callable[[], Any]:
    shown = without_password(uri)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if re.match("[a-z]{2,}:", uri):  # one letter is a drive
            raise InvalidArgument(f"{shown!r} is no URI such as zeo://localhost:8100")
        path = Path(uri).absolute()
        _check_file(path, uri, is_made)
        return lambda: DB(FileStorage(str(path)))
    try:
        import zodburi
    except ImportError:
        raise RemoteTaskError(
            "naming databases by URI takes zodburi: pip install 'lovely.remotetask[cli]'"
        ) from None
    path = Path(re.split("[?#]" if scheme == "zconfig" else "[?]", rest)[0])
    if scheme == "file":
        _check_file(path, uri, is_made)
    try:
        if scheme == "zconfig" and (
            opener := _resolve_configuration(path, urlsplit(uri).fragment, uri, is_made)
        ):
            return zeo.told(opener)
        if scheme in sql.SCHEMES:
            factory, options = sql.resolve(uri, is_made)
        elif scheme == "zeo":
            factory, options = zeo.resolve(uri)
        else:
            factory, options = zodburi.resolve_uri(uri)
    except RemoteTaskError:
        raise
    except zodburi.NoResolverForScheme:
        raise InvalidArgument(f"no storage is known for {scheme}://") from None
    except Exception as error:  # each storage has a resolver of its own
        raise InvalidArgument(f"{shown} is malformed: {describe_kind(error)}") from error
    return zeo.told(lambda: DB(factory(), **options))


def _check_file(path: Path, uri: str, is_made: bool) -> None:
    """Refuse a file that is no database: FileStorage would make one, and it would hold no service.

    :param uri: what the user has called the database.
    """
    if path.is_dir():
        raise RemoteTaskError(f"{path} is a directory; the database is a file, often Data.fs in it")
    if path.is_file() and path.stat().st_size:
        return
    if not is_made:
        is_empty = path.is_file()
        text = f"the file {path} is empty" if is_empty else f"there is no database file {path}"
        raise NoDatabase(f"{text}{_how_to_make(uri)}", f"the file {path}")
    if not path.parent.is_dir():
        raise RemoteTaskError(f"there is no directory {path.parent}")


def _how_to_make(uri: str) -> str:
    return f"; to make a database there: remotetask init {shlex.quote(without_password(uri))}"


# -- several databases in one file ----------------------------------------------------------


def _resolve_configuration(
    path: Path, name: str, uri: str, is_made: bool
) -> Callable[[], Any] | None:
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
    for section in [*configuration.databases, *configuration.storages]:
        _check_section(section, uri, is_made)
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


def _check_section(section: Any, uri: str, is_made: bool) -> None:
    """Let the storages of a section make no database, unless they are to."""
    for storage in _storages(section):
        if isinstance(storage, zodb_config.FileStorage):
            _check_file(Path(storage.config.path), uri, is_made)
        elif type(storage).__module__ == "relstorage.config" and not is_made:
            adapter = storage.config.adapter
            data_dir = getattr(adapter.config, "data_dir", None)
            adapter.create = sql.checked(adapter.create, data_dir)


def _storages(section: Any) -> Iterator[Any]:
    """Yield the sections of storages in a section, itself among them.

    Not those of a DemoStorage: its changes may be in a file that is new each time.
    """
    if isinstance(section, zodb_config.DemoStorage):
        return
    if not isinstance(section, zodb_config.ZODBDatabase):
        yield section
    for name in section.config.getSectionAttributes():
        inner = getattr(section.config, name)
        if hasattr(inner, "config") and name != "adapter":
            yield from _storages(inner)


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
