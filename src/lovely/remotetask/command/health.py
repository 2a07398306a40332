# SPDX-License-Identifier: ZPL-2.1
"""Tells whoever asks whether the worker is well: by a file, by HTTP, and systemd."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import Any

from lovely.remotetask.command.systemd import Systemd
from lovely.remotetask.errors import RemoteTaskError

#: Who has not looked after his work for so many seconds hangs.
HANG_SECONDS = 15.0

#: Seconds between two times that the file is written, if nothing has changed.
FILE_SECONDS = 5.0

#: Seconds that whoever asks by HTTP may take.
REQUEST_SECONDS = 5.0


def add_health_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where health is told."""
    parser.add_argument(
        "--health-file",
        metavar="PATH",
        type=Path,
        help="keep a file that says what is wrong; as long as nothing is it is never older than "
        f"{FILE_SECONDS:.0f} seconds or so",
    )
    parser.add_argument(
        "--health-address",
        metavar="HOST:PORT",
        type=_address,
        help="answer HTTP requests there by 200, or by 503 with what is wrong; for /live only if "
        "a process hangs; port 0 takes one that is free",
    )


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if separator and host and port.isdecimal() and int(port) < 2**16:
        return host.removeprefix("[").removesuffix("]"), int(port)
    raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")


class Health:
    """What is known of the health of a worker.

    :param path: the file; None is none.
    :param address: host and port; None is none.
    :ivar url: where it is told by HTTP, or None.
    :raises RemoteTaskError: it cannot be told there.
    """

    def __init__(
        self, path: Path | None, address: tuple[str, int] | None, systemd: Systemd
    ) -> None:
        self._path = None if path is None else path.absolute()
        self._systemd = systemd
        self._looked = self._written = -float("inf")
        self._well = 0.0  # when all was, in seconds since the epoch
        self._hangs: list[str] = []
        self._problems = ["starting"]
        self._processes: list[dict[str, Any]] = []
        self.url: str | None = None
        self._server = None if address is None else _Server(address, self)
        if self._server is not None:
            host, port = self._server.server_address[:2]
            self.url = f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/"
            thread = threading.Thread(
                target=self._server.serve_forever, name="remotetask-health", daemon=True
            )
            thread.start()
        self._write()

    def look(self, hangs: list[str], problems: list[str], processes: list[dict[str, Any]]) -> None:
        """Take note of what is wrong now, and tell it; to be called again and again.

        :param hangs: of processes that do not go on, which only a new start mends.
        :param problems: of all else, which may pass.
        :param processes: what is told of each one.
        """
        before = self._hangs + self._problems
        self._looked = time.monotonic()
        self._hangs, self._problems, self._processes = hangs, problems, processes
        if not hangs:
            self._systemd.alive()
        if not (hangs or problems):
            self._well = time.time()
        if before != hangs + problems or self._looked - self._written >= FILE_SECONDS:
            self._write()

    def told(self) -> tuple[list[str], list[str], list[dict[str, Any]]]:
        """Return hangs and other problems, and the processes; also from other threads."""
        hangs = self._hangs
        silent = time.monotonic() - self._looked
        if HANG_SECONDS < silent < float("inf"):
            hangs = [*hangs, f"process {os.getpid()} has not looked around for {silent:.0f} s"]
        return hangs, self._problems, self._processes

    def _write(self) -> None:
        """Write the file; the time of its last change is when all was well."""
        self._written = self._looked
        if self._path is None:
            return
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            draft.write_text(json.dumps(_body(*self.told())) + "\n", encoding="utf-8")
            os.utime(draft, (self._well, self._well))
            os.replace(draft, self._path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            if self._well == 0.0:  # at the start; later a disk may be full for a while
                raise RemoteTaskError(f"the file of --health-file: {error}") from error

    def close(self) -> None:
        """Tell no more; the file goes."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


def _body(hangs: list[str], problems: list[str], processes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "healthy": not (hangs or problems),
        "problems": [*hangs, *problems],
        "processes": processes,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], health: Health) -> None:
        if ":" in address[0]:
            self.address_family = AF_INET6
        self.health = health
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            host, port = address
            raise RemoteTaskError(f"--health-address {host}:{port}: {error}") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over whoever has gone in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Say how it is."""
        path = self.path.partition("?")[0]
        if path not in ("/", "/live"):
            self.send_error(404)
            return
        hangs, problems, processes = self.server.health.told()
        told = _body(hangs, [] if path == "/live" else problems, processes)
        body = json.dumps(told, indent=2).encode() + b"\n"
        self.send_response(200 if told["healthy"] else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def version_string(self) -> str:
        """Say no more than it takes."""
        return "remotetask"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: who asks for health does so all the time."""
