# SPDX-License-Identifier: ZPL-2.1
"""Open databases by URI, and import what their jobs need."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zc.lockfile import LockError
from ZODB import DB
from ZODB.FileStorage.FileStorage import FileStorageFormatError

from lovely.remotetask.errors import InvalidArgument, RemoteTaskError, describe


def describe_kind(error: BaseException) -> str:
    """Return the kind and the message of an exception, in one line or more."""
    name = type(error).__name__
    return name if describe(error) == name else f"{name}: {describe(error)}"


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a database, and the code of what is in it."""
    parser.add_argument(
        "uri",
        metavar="URI",
        help="the database: file:///path/Data.fs, zeo://host:port, postgresql://user@host/name",
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
    """Open the database that a URI names.

    :raises InvalidArgument: the URI is malformed.
    :raises RemoteTaskError: the database is in use, or cannot be opened.
    """
    factory, options = _resolve(uri)
    shown = without_password(uri)
    try:
        return DB(factory(), **options)
    except LockError as error:
        raise RemoteTaskError(f"{shown} is in use by another process") from error
    except FileStorageFormatError as error:
        raise RemoteTaskError(f"{shown} cannot be opened: {_why_no_format(str(error))}") from error
    except Exception as error:  # storages have no error in common
        raise RemoteTaskError(f"{shown} cannot be opened: {describe_kind(error)}") from error


def _resolve(uri: str) -> tuple[Callable[[], Any], dict[str, Any]]:
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
    path = Path(rest.partition("?")[0])
    if scheme == "file" and not path.is_file():  # it would be made, and hold no service
        raise RemoteTaskError(f"there is no database file {path}")
    if scheme == "postgresql":  # as the whole world calls it, and RelStorage does not
        uri = f"postgres://{rest}"
    try:
        resolved: tuple[Callable[[], Any], dict[str, Any]] = zodburi.resolve_uri(uri)
    except zodburi.NoResolverForScheme:
        hint = " (it needs lovely.remotetask[relstorage])" if scheme.startswith("postgres") else ""
        raise InvalidArgument(f"no storage is known for {scheme}://{hint}") from None
    except Exception as error:  # each storage has a resolver of its own
        raise InvalidArgument(f"{shown} is malformed: {describe_kind(error)}") from error
    return resolved


def _why_no_format(path: str) -> str:
    with open(path, "rb") as file:
        is_of_python_2 = file.read(4) == b"FS21"
    if is_of_python_2:
        return (
            "Python 2 has written it.  What is in it can be converted by zodbupdate, but jobs of "
            "lovely.remotetask 0.5 are not read even then: see 'Coming from 0.5' in the "
            "documentation"
        )
    return f"{path} is no FileStorage"


def without_password(uri: str) -> str:
    """Return a URI as it may be shown."""
    uri = re.sub(r"(//[^/@:]*:)[^/@]*@", r"\1***@", uri)
    return re.sub(r"(\bpassword=)[^&]*", r"\1***", uri)
