# SPDX-License-Identifier: ZPL-2.1
"""What the integration tests share: a look at the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest


def threads_named(prefix: str) -> list[threading.Thread]:
    """Return the living threads whose names start so."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


@pytest.fixture
def threads() -> Callable[[str], list[threading.Thread]]:
    """Return `threads_named`."""
    return threads_named
