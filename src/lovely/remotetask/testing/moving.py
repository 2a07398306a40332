# SPDX-License-Identifier: ZPL-2.1
"""A clock that a test moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from unittest import mock

from lovely.remotetask.errors import InvalidArgument, is_kind, shown


class Clock:
    """What ``time.time()`` is asked for while a test moves the time.

    It goes on as the real one does, from where it was moved to.
    """

    def __init__(self) -> None:
        self._real = time.time
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._real() + self._ahead

    @property
    def now(self) -> datetime:
        """The time, as an aware datetime in UTC."""
        return datetime.fromtimestamp(self(), timezone.utc)

    def move(self, seconds: float = 0.0, **units: float) -> None:
        """Let so much time pass at once: ``move(30)``, ``move(hours=3)``, ``move(days=-1)``.

        :param seconds: seconds.
        :param units: further arguments of `datetime.timedelta`.
        """
        self._ahead += timedelta(seconds=seconds, **units).total_seconds()

    def set(self, moment: datetime) -> None:
        """Let it be this moment, and go on from there.

        :param moment: an aware datetime.
        :raises InvalidArgument: it is none.
        """
        if not is_kind(moment, datetime) or moment.utcoffset() is None:
            raise InvalidArgument(f"moment must be an aware datetime, not {shown(moment)}")
        self._ahead += moment.timestamp() - self()


@contextmanager
def moving_clock() -> Iterator[Clock]:
    """Give a clock that this process goes by in the ``with`` block.

    It takes the place of ``time.time``, which this package asks for the time, and ZODB, and
    whoever else calls it so; ``datetime.now()`` does not ask it.
    """
    clock = Clock()
    with mock.patch.object(time, "time", clock):
        yield clock
