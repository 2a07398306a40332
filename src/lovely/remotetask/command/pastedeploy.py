# SPDX-License-Identifier: ZPL-2.1
"""The web application for PasteDeploy: ``use = egg:lovely.remotetask``."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from lovely.remotetask.command.database import import_modules, open_database
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.web.app import make_app
from lovely.remotetask.web.authorizers import from_files

#: What a text can say for true and false.
_FLAGS = {"true": True, "yes": True, "on": True, "1": True}
_FLAGS |= {"false": False, "no": False, "off": False, "0": False}


def app_factory(
    global_config: dict[str, str],
    uri: str | None = None,
    database: str | None = None,
    services: str = "*@*",
    modules: str = "",
    tokens: str | None = None,
    passwords: str | None = None,
    authorize: str | None = None,
    read_only: str = "false",
    origins: str = "",
    secret: str | None = None,
) -> Any:
    """Return the application of a section; see `make_app`.

    :param uri: names the database, as for the command.
    :param database: in its place one that is open in this process, as ``module:name``.
    :param modules: to be imported first, with blanks between them.
    :param tokens: the path of a file; see `credentials`.
    :param passwords: the same.
    :param authorize: in their place a function, or a class that can be made without arguments, as
        ``module:name``.
    :param origins: with blanks between them.
    :raises InvalidArgument: nobody is let in, or a value makes no sense.
    """
    import_modules(modules.split())
    who: Any
    if authorize is not None:
        who = _named(authorize)
        if isinstance(who, type):
            who = who()
    else:
        who = from_files(tokens, passwords)
    if who is None:
        raise InvalidArgument("nobody is let in: set tokens, passwords or authorize")
    if read_only.lower() not in _FLAGS:
        raise InvalidArgument(f"read_only must be true or false, not {read_only!r}")
    if (uri is None) == (database is None):
        raise InvalidArgument("there is either uri or database")
    opened: Any = partial(_named, database) if uri is None else open_database(uri)
    return make_app(
        opened,
        services,
        who,
        _FLAGS[read_only.lower()],
        origins=origins.split(),
        secret=secret,
    )


def _named(text: Any) -> Any:
    """Return what a text such as ``module:name`` names."""
    module, _, name = text.partition(":")
    return getattr(import_module(module), name)
