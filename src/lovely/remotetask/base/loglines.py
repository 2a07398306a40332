# SPDX-License-Identifier: ZPL-2.1
"""What is logged in a thread while a job runs there.

It is seen by way of the factory of log records, which `logging` calls in the thread that logs:
not by a handler, as one on the root logger keeps `logging.basicConfig` from its work, and Python
from its last resort, and is gone when an application sets up its logging.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from lovely.remotetask.errors import plain, text_of

#: Of one job so many lines are kept, the last ones, with so many characters in all.
MAX_LINES = 200
MAX_CHARACTERS = 40_000

#: Characters of a message, and of the traceback below it (its end).
MAX_MESSAGE = 2_000
MAX_TRACEBACK = 4_000


_lock = threading.Lock()


class LogLine(NamedTuple):
    """One line that a job has logged.

    :ivar time: seconds since the epoch.
    :ivar level: the name of the level.
    :ivar attempt: the number of the attempt that has logged it.
    :ivar text: the message, and below it the traceback if there is one; shortened if need be.
    """

    time: float
    level: str
    attempt: int
    text: str


#: A line as it is stored.
Line = tuple[float, str, int, str]


def last_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return those lines that are kept of some: the last ones, within the bounds."""
    kept: deque[Line] = deque()
    room = MAX_CHARACTERS
    for line in reversed([*lines][-MAX_LINES:]):
        room -= len(line[3])
        if room < 0 and kept:
            break
        kept.appendleft(line)
    return tuple(kept)


class LogLines:
    """What one run logs, for who writes it down.

    :param level: the least level that is kept.
    :param name: what the job is called.
    :ivar count: how many lines there were.
    """

    __slots__ = ("_attempt", "_lines", "_name", "count", "level")

    def __init__(self, level: int, name: str, attempt: int) -> None:
        self.level = level
        self.count = 0
        self._name = name
        self._attempt = attempt
        self._lines: list[Line] = []

    def on_line(self) -> None:
        """Be told of a line that was kept, in the thread that has logged it."""

    def keep(self, record: logging.LogRecord) -> None:
        """Keep a record, if its level is high enough."""
        if type(record.levelno) is not int or record.levelno < self.level:
            return
        level = plain(str(record.levelname))
        line = (float(record.created), level, self._attempt, self._text_of(record))
        with _lock:
            self.count += 1
            self._lines.append(line)
            if len(self._lines) >= 2 * MAX_LINES:
                self._lines[:] = last_lines(self._lines)
        self.on_line()

    def kept(self) -> tuple[tuple[Line, ...], int]:
        """Return the lines that are kept up to now, and how many there were."""
        with _lock:
            return last_lines(self._lines), self.count

    def _text_of(self, record: logging.LogRecord) -> str:
        try:
            text = plain(str(record.getMessage()))
        except BaseException:  # of the arguments, or they do not fit; `logging` complains of that
            text = text_of(record.msg)
        text = text.removeprefix(f"job {self._name}: ")[:MAX_MESSAGE]
        if record.exc_info and record.exc_info[0] is not None:
            try:
                below = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            except BaseException:  # of an exception that cannot be printed
                below = "(the traceback cannot be printed)"
            text = f"{text}\n{below[-MAX_TRACEBACK:]}"
        return text.encode(errors="replace").decode()  # no lone surrogates


_here = threading.local()
_is_installed = False


class keeping_lines:
    """Let `lines` keep what is logged in this thread in a ``with`` block; None lets nobody."""

    def __init__(self, lines: LogLines | None) -> None:
        self._lines = lines

    def __enter__(self) -> None:
        if self._lines is not None and not _is_installed:
            _install()
        self._before = getattr(_here, "lines", None)
        _here.lines = self._lines

    def __exit__(self, *exception: object) -> None:
        _here.lines = self._before


def keep_unseen(logger: logging.Logger, level: int, text: object, arguments: Any) -> None:
    """Keep a line of a job's own log that its logger passes over."""
    lines: LogLines | None = getattr(_here, "lines", None)
    if lines is not None and not logger.isEnabledFor(level):
        lines.keep(logging.LogRecord(logger.name, level, "", 0, text, arguments, None))


def _install() -> None:
    global _is_installed
    with _lock:
        if _is_installed:
            return
        make = logging.getLogRecordFactory()

        def make_and_keep(*arguments: Any, **keywords: Any) -> logging.LogRecord:
            record = make(*arguments, **keywords)
            lines: LogLines | None = getattr(_here, "lines", None)
            if lines is not None:
                _here.lines = None  # what is logged by the arguments is no line of its own
                try:
                    lines.keep(record)
                finally:
                    _here.lines = lines
            return record

        logging.setLogRecordFactory(make_and_keep)
        _is_installed = True
