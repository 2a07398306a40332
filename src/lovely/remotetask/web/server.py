# SPDX-License-Identifier: ZPL-2.1
"""A web server in a thread of this process: waitress."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import waitress
from waitress import wasyncore

from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

#: Seconds that requests which are being answered are waited for when the server stops.
GRACE_SECONDS = 5.0

#: Seconds between two looks whether they are.
LOOK_SECONDS = 0.05

#: How many requests are answered at the same time.
THREADS = 4


def addresses_of(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return what a host stands for: families and addresses to listen at.

    :raises InvalidArgument: there is no such host here.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(f"there is no host {host!r}: {error}") from error
    return [(family, address) for family, _, _, _, address in found]


def is_loopback(host: str) -> bool:
    """Say whether a host can be reached from this machine alone.

    :raises InvalidArgument: there is no such host here.
    """
    found = addresses_of(host, 0)
    return all(ipaddress.ip_address(address[0].split("%")[0]).is_loopback for _, address in found)


class Server:
    """Serves a WSGI application, from when it is made until `stop`.

    :param host: a name or an address of this machine.
    :param port: 0 takes any that is free.
    :raises InvalidArgument: there is no such host here.
    :raises RemoteTaskError: the port cannot be had.

    :ivar url: where it answers.
    """

    def __init__(self, app: Callable[..., Any], host: str, port: int, **options: Any) -> None:
        family, address = addresses_of(host, port)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            listener.close()
            raise RemoteTaskError(f"cannot listen at {host}, port {port}: {error}") from error
        port = listener.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{port}/"
        self._sockets: dict[int, Any] = {}
        # The last is the default from Waitress 3 on, which those before warn of.
        defaults = {"threads": THREADS, "ident": None, "clear_untrusted_proxy_headers": True}
        try:
            self._server = waitress.create_server(
                app, map=self._sockets, sockets=[listener], _start=True, **(defaults | options)
            )
        except BaseException:
            listener.close()
            raise
        # At a port of its own it is the one that waits for requests.
        self._thread = threading.Thread(target=self._server.run, name="remotetask web", daemon=True)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._thread.start()

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Take no more requests, answer those that are here, and end; once is enough."""
        if not self._thread.is_alive():
            return
        self._call(lambda: wasyncore.dispatcher.close(self._server))
        pause = threading.Event()
        for _ in range(int(grace_seconds / LOOK_SECONDS)):
            if not any(map(_is_busy, list(self._server.active_channels.values()))):
                break
            pause.wait(LOOK_SECONDS)
        self._call(lambda: wasyncore.close_all(self._sockets))
        self._thread.join(grace_seconds)

    def _call(self, action: Callable[[], Any]) -> None:
        """Call something in the thread that has the sockets."""
        trigger = self._server.trigger
        with trigger.lock:  # or what closes the trigger is called before that is pulled
            trigger.thunks.append(action)
            trigger.pull_trigger()


def _is_busy(channel: Any) -> bool:
    return bool(channel.requests or channel.total_outbufs_len)
