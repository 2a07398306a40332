# SPDX-License-Identifier: ZPL-2.1
"""The web application for PasteDeploy: ``use = egg:lovely.remotetask``."""

from __future__ import annotations

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
    uri: str,
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
    :param modules: to be imported first, with blanks between them.
    :param tokens: the path of a file; see `credentials`.
    :param passwords: the same.
    :param authorize: in their place a function, as ``module:name``.
    :param origins: with blanks between them.
    :raises InvalidArgument: nobody is let in, or a value makes no sense.
    """
    import_modules(modules.split())
    if authorize is not None:
        module, _, name = authorize.partition(":")
        who: Any = getattr(import_module(module), name)
    else:
        who = from_files(tokens, passwords)
    if who is None:
        raise InvalidArgument("nobody is let in: set tokens, passwords or authorize")
    if read_only.lower() not in _FLAGS:
        raise InvalidArgument(f"read_only must be true or false, not {read_only!r}")
    return make_app(
        open_database(uri),
        services,
        who,
        _FLAGS[read_only.lower()],
        origins=origins.split(),
        secret=secret,
    )
