# SPDX-License-Identifier: ZPL-2.1
"""The server of the web ends in order."""

from __future__ import annotations

import socket
import time

import pytest

from lovely.remotetask.web.server import Server


def test_it_ends_while_others_wake_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(lambda environ, start: [], "127.0.0.1", 0)
    trigger = server._server.trigger
    pull = trigger._physical_pull

    def pull_twice() -> None:
        pull()  # as a thread does that answers a request
        time.sleep(0.1)
        pull()

    monkeypatch.setattr(trigger, "_physical_pull", pull_twice)
    server.stop()
    assert not server._thread.is_alive()


def test_what_waitress_refuses_leaves_the_port_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(ValueError, match="no_such_setting"):
        Server(lambda environ, start: [], "127.0.0.1", port, no_such_setting=1)
    Server(lambda environ, start: [], "127.0.0.1", port).stop()
