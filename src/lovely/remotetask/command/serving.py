# SPDX-License-Identifier: ZPL-2.1
"""What the verbs that serve the web application share."""

from __future__ import annotations

import argparse
from typing import Any

from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

#: Where it is served if nobody says otherwise.
HOST, PORT = "127.0.0.1", 8080

#: How this machine is called by itself.
OWN_NAMES = ("localhost", "127.0.0.1", "::1")


def add_place_arguments(parser: argparse.ArgumentParser, port: int = PORT) -> None:
    """Add the arguments that say where pages are served."""
    parser.add_argument(
        "--host",
        metavar="HOST",
        default=HOST,
        help="serve at this name or address (default: %(default)s, for this machine alone)",
    )
    parser.add_argument(
        "--port",
        metavar="PORT",
        type=_port,
        default=port,
        help="serve at this port; 0 takes one that is free (default: %(default)s)",
    )


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not the number of a port")


def make_server(database: Any, host: str, port: int, authorize: Any, **options: Any) -> Any:
    """Serve a database; return the `Server`.

    Without `authorize` all who can reach it may do all: so only this machine can.

    :param options: those of `make_app`.
    :raises InvalidArgument: others could reach it; or there is no such host here.
    :raises RemoteTaskError: it cannot be served there, or what it takes is not installed.
    """
    try:
        from lovely.remotetask.web.app import MAX_BODY_BYTES, make_app
        from lovely.remotetask.web.server import Server, is_loopback
    except ImportError as error:
        raise RemoteTaskError(
            f"{error}: serving pages takes pip install 'lovely.remotetask[web]'"
        ) from error
    if authorize is None:
        if not is_loopback(host):
            raise InvalidArgument(
                f"{host} can be reached by others: say who may do what, by --tokens or --passwords"
            )
        # Another name may be that of a site that leads a browser here.
        options = {"hosts": (*OWN_NAMES, host), **options}
        authorize = _let_in
    app = make_app(database, authorize=authorize, **options)
    return Server(app, host, port, max_request_body_size=MAX_BODY_BYTES + 1)


def _let_in(request: Any, permission: str) -> bool:
    return True
