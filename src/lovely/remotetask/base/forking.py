# SPDX-License-Identifier: ZPL-2.1
"""Forked children that come out of somebody's code, which are to end there.

What comes behind that code is for the process that has called it, and for no other.  A child has
the same files open, and would do once more, and into the same file, what its parent does.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType

_forks = 0  # between the first process and this one


def _count() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(after_in_child=_count)


class unforked:
    """Let nobody but the process that has entered a ``with`` block go on behind it.

    A child that was forked inside ends where it would leave the block, as a process of its own
    would: with 0, with what it has given to `sys.exit`, or with 1 and a traceback.  No exit
    functions are called.  One that stays inside is left alone.
    """

    def __init__(self) -> None:
        self._forks = _forks

    def check(self, error: BaseException | None = None) -> None:
        """End this process if it was forked since; `error` is what has brought it here."""
        if _forks != self._forks:
            _end(error)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.check(error)


def _end(error: BaseException | None) -> None:
    status = 1
    try:
        status = _told(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # there is none, or it was closed
                stream.flush()
    finally:
        os._exit(status)


def _told(error: BaseException | None) -> int:
    """Return the exit status of a process that ends so, and write what Python would."""
    code = error.code if isinstance(error, SystemExit) else error
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    if code is error:
        traceback.print_exception(error)
    else:
        sys.stderr.write(f"{code}\n")
    return 1
