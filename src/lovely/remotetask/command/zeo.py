# SPDX-License-Identifier: ZPL-2.1
"""ZEO servers, named by URI: with TLS, for which zodburi has no words."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

#: Parameters of a URI -> what they are called in an ``<ssl>`` section of ZEO.
FILES = {
    "ssl_certificate": "certificate",
    "ssl_key": "key",
    "ssl_authenticate": "authenticate",
}
HOST_NAME = "ssl_server_hostname"

#: ZEO takes them and looks at none of them, since it has version 5.
NOT_HEEDED = ("username", "password", "realm")


def resolve(uri: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return what opens the storage that a URI names, and the options of the database.

    :raises InvalidArgument: what the URI says of TLS makes no sense, or would not be heeded.
    """
    import zodburi
    from zodburi.resolvers import ClientStorageURIResolver

    class Resolver(ClientStorageURIResolver):
        def interpret_kwargs(self, kw: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
            left = dict(kw)
            secured = _tls(left)
            given, left = super().interpret_kwargs(left)
            return {**given, **secured}, left

    factory, left = Resolver()(uri)
    _, options = zodburi.resolve_uri(f"memory://?{urlencode(left)}")  # those of the database
    return factory, options


def _tls(keywords: dict[str, str]) -> dict[str, Any]:
    """Take out what is said of TLS, and return what ZEO's client takes for it."""
    for name in NOT_HEEDED:
        if name in keywords:
            raise InvalidArgument(
                f"ZEO does not look at a {name}: certificates (ssl_certificate) or the rights on a "
                "Unix socket say who may come in"
            )
    given = {inner: keywords.pop(name, None) for name, inner in FILES.items()}
    host_name = keywords.pop(HOST_NAME, None)
    if not any(given.values()):
        if host_name:
            raise InvalidArgument(f"{HOST_NAME} takes ssl_certificate beside it")
        return {}
    if not given["certificate"]:  # as ZEO's own configuration has it
        raise InvalidArgument("TLS takes ssl_certificate, the client's own certificate")
    for name, inner in FILES.items():
        path = given[inner]
        if path and not Path(path).exists():
            raise InvalidArgument(f"there is no file {path}, which {name} names")
    from ZEO.zconfig import client_ssl

    section = SimpleNamespace(
        **given, password_function=None, check_hostname=True, server_hostname=host_name
    )
    try:
        context, server_name = client_ssl(section)
    except ssl.SSLError as error:
        raise InvalidArgument(f"the certificates cannot be used: {error}") from error
    return {"ssl": context, "ssl_server_hostname": server_name}


# -- why a server does not answer -----------------------------------------------------------


def told(opener: Callable[[], Any]) -> Callable[[], Any]:
    """Return what opens a database, but says why no server answers, which ZEO only logs.

    :raises RemoteTaskError: by what is returned, if none does within its ``wait_timeout``.
    """

    def open_told() -> Any:
        from ZEO.Exceptions import ClientDisconnected

        with _heard() as failures:
            try:
                return opener()
            except ClientDisconnected as error:
                why = failures[-1] if failures else HANGS_UP
                raise RemoteTaskError(f"no ZEO server lets us in: {why}") from error

    return open_told


HANGS_UP = (
    "it answers and hangs up, or says nothing: does it take TLS, or a client's certificate of "
    "another authority?"
)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Give the list of what ZEO's client says of connections that fail."""
    failures: list[str] = []
    logger = logging.getLogger("ZEO.asyncio.client")
    level, shown_from = logger.level, logger.getEffectiveLevel()

    def hear(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text.startswith("Connection to") and " failed, " in text:
            failures.append(text)
        return record.levelno >= shown_from

    logger.addFilter(hear)
    logger.setLevel(min(shown_from, logging.INFO))
    try:
        yield failures
    finally:
        logger.setLevel(level)
        logger.removeFilter(hear)
