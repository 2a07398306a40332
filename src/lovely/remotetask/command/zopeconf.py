# SPDX-License-Identifier: ZPL-2.1
"""Zope without a web server: the database, the products and the ZCML that a ``zope.conf`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lovely.remotetask.command.output import describe_kind
from lovely.remotetask.errors import RemoteTaskError


def open_zope(path: str) -> Any:
    """Start Zope as its console does, and return its database.

    No service is started: `IProcessStarting` tells servers, and this is none.

    :param path: that of ``zope.conf``.
    :raises RemoteTaskError: there is no Zope, or it cannot be started.
    """
    if not Path(path).is_file():
        raise RemoteTaskError(f"there is no file {path}")
    try:
        import Zope2
        from Zope2.Startup.run import configure_wsgi
    except ImportError:
        raise RemoteTaskError("there is no Zope in this environment") from None
    from lovely.remotetask.hosts import zope

    try:
        configure_wsgi(path)
        Zope2.startup_wsgi()
    except Exception as error:  # of ZConfig, of ZCML, and of all products
        raise RemoteTaskError(
            f"Zope cannot be started by {path}: {describe_kind(error)}"
        ) from error
    zope.set_up()  # its ZCML may not include ours
    return Zope2.DB
