# SPDX-License-Identifier: ZPL-2.1
"""Where the results of the command go: to people, or as JSON to programs; and its exit codes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lovely.remotetask.command.logformat import JSON, TEXT, JsonFormatter, log_as_json
from lovely.remotetask.errors import RemoteTaskError, describe

#: Exit codes.  To the last one the number of the signal is added.
DONE, FAILED, WRONG_USAGE, TIME_IS_OVER, DIED = 0, 1, 2, 3, 4
BY_SIGNAL = 128

#: Seconds between two lines of progress where there is no terminal.
PROGRESS_SECONDS = 1.0

#: How the names of the package's own loggers begin.
SHOWN = ("lovely.remotetask", "remotetask.job")

#: Of a long list of problems this many are shown.
MAX_SHOWN = 10


def _rich_console(stream: Any) -> Any:
    """Return a console of rich, or None: it is not installed, or nobody looks."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, markup=False, highlight=False, emoji=False)


def replace_closed_streams() -> None:
    """Let the standard streams that were closed lead nowhere.

    The next file that is opened would have the number of one, a database say, and what is
    printed on stderr would go to stdout.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.  Processes that are started have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def give_up_broken_streams() -> None:
    """Let streams that cannot be written lead nowhere: Python flushes them when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Print on stdout.

    :raises BrokenPipeError: nobody reads any more.
    :raises RemoteTaskError: it cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RemoteTaskError(f"the result cannot be written: {error}") from error


_is_logged = False  # whether what people would be told is a line of a log


def tell_as_json() -> None:
    """Let all that people would be told be lines for programs, as those of the log."""
    global _is_logged
    _is_logged = True


def complain(text: str, level: int = logging.ERROR) -> None:
    """Print on stderr, if that is possible; the command's end does not depend on it.

    :param level: that of the line, where it is one of a log.
    """
    if _is_logged:
        message = text.strip().removeprefix("remotetask: ")
        line = logging.LogRecord("lovely.remotetask", level, "", 0, message, (), None)
        text = f"{JsonFormatter().format(line)}\n"
    with suppress(OSError, ValueError):
        print(text, end="", file=sys.stderr, flush=True)


def describe_kind(error: BaseException) -> str:
    """Return the kind and the message of an exception, in one line or more."""
    name = type(error).__name__
    return name if describe(error) == name else f"{name}: {describe(error)}"


def set_up_logging(is_verbose: bool, package: int, jobs: int, log_format: str = TEXT) -> bool:
    """Let the loggers of the package write to stderr, or where an application lets them write.

    It comes after the imports: a module of the application may set up the logging too, which
    can disable all loggers that are there by then.

    :param package: the level of ``lovely.remotetask``, unless the application has set one.
    :param jobs: the same of ``remotetask.job``.
    :param log_format: `TEXT` or `JSON`, where an application has not said otherwise.
    :returns: whether the root logger writes by this alone.
    """
    loggers = {logging.getLogger("lovely.remotetask"): package}
    loggers[logging.getLogger("remotetask.job")] = jobs
    served = {logger.name for logger in loggers if logger.hasHandlers()}
    for logger, level in loggers.items():
        logger.disabled = False
        if is_verbose or logger.level == logging.NOTSET:
            logger.setLevel(logging.DEBUG if is_verbose else level)
    root = logging.getLogger()
    if root.handlers:
        return False
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.ERROR)
    if log_format == JSON:
        log_as_json(root.handlers[0])
    root.handlers[0].addFilter(lambda record: record.name not in served)  # no line comes twice
    return True


def show_from(level: int) -> None:
    """Let the root logger, which `set_up_logging` has made write, show lines from a level on.

    Lines of tasks are made from ``INFO`` on, as they are kept with their jobs.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers[0].addFilter(
        lambda record: record.levelno >= level or record.name.startswith(SHOWN)
    )


class Output:
    """Shows results to people or, as JSON, to programs.

    :param is_json: print no texts and tables, only what is given to `result`.
    """

    def __init__(self, is_json: bool) -> None:
        self.is_json = is_json
        self._console = _rich_console(sys.stdout)

    def note(self, text: str) -> None:
        """Print a line that is no result."""
        complain(f"{text}\n", logging.INFO)

    def tell(self, text: str = "") -> None:
        """Print a line for people."""
        if _is_logged:
            self.note(text)
        elif not self.is_json:
            say(text)

    def result(self, value: Any) -> None:
        """Print a value for programs."""
        if self.is_json:
            say(json.dumps(value, indent=2))

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Print a table of names and values for people."""
        if self.is_json:
            return
        if self._console is None:
            width = max(len(name) for name, _ in rows)
            say("\n".join([f"\n{title}", *(f"  {name:{width}}  {value}" for name, value in rows)]))
            return
        from rich import box
        from rich.table import Table

        table = Table(title=title, title_justify="left", show_header=False, box=box.ROUNDED)
        table.add_column(style="cyan")
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def columns(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table for people, in a terminal no wider than that.

        :param titles: what stands above the columns; empty for nothing.
        """
        if self.is_json:
            return
        lines = [list(map(_printable, line)) for line in ([titles, *rows] if titles else rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in lines:
            cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
            text = f"  {'  '.join(cells)}".rstrip()
            if room is not None and len(text) > room:
                text = f"{text[: room - 3]}..."
            say(text)

    def tell_list(self, title: str, lines: Sequence[str]) -> None:
        """Print lines under a title for people, of many only the first ones."""
        self.tell(title)
        for line in lines[:MAX_SHOWN]:
            self.tell(f"  {line}")
        if len(lines) > MAX_SHOWN:
            self.tell(f"  and {len(lines) - MAX_SHOWN} more")

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Yield a function that is told, again and again, how many of how many are done."""
        console = _rich_console(sys.stderr)
        if console is None:
            yield _plain_progress(what, self.note)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), what, TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            row = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(row, completed=done, total=total)


def _printable(text: str) -> str:
    """Return a text without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _plain_progress(what: str, note: Callable[[str], None]) -> Callable[[int, int], None]:
    told = -PROGRESS_SECONDS

    def show(done: int, total: int) -> None:
        nonlocal told
        if total and time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            note(f"{done} of {total} {what}")

    return show
