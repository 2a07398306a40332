# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``.

A command is one function of the arguments and the `Screen` that returns an exit code, and
one line of the table `COMMANDS`.  Results go to stdout, as JSON if that is asked for; all
else goes to stderr.  Exit codes: 0 done, 1 failed, 2 the command line is wrong, 128 + n
ended by signal n.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import queue
import re
import shlex
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zc.lockfile import LockError
from ZODB import DB

from lovely.remotetask.autostart import split_patterns, start_services
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.job import describe
from lovely.remotetask.running import stop_all

if TYPE_CHECKING:
    from lovely.remotetask.demo import Plan, Result

DONE, FAILED, WRONG_USAGE = 0, 1, 2
BY_SIGNAL = 128

#: The defaults of ``remotetask demo``.
DEMO_DIRECTORY = "remotetask-demo"
DEMO_LIMIT = 1500

#: Seconds between two lines of progress where there is no terminal.
PROGRESS_SECONDS = 1.0

#: A signal within this many seconds of the first one is its echo: ``timeout`` sends two.
ECHO_SECONDS = 0.3

#: Of a long list of problems this many are shown.
MAX_SHOWN = 10

# -- where results go ---------------------------------------------------------------------


def _rich_console(stream: Any) -> Any:
    """Return a console of rich, or None: it is not installed, or nobody looks."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, markup=False, highlight=False, emoji=False)


class Screen:
    """Shows results to people or, as JSON, to programs.

    :param is_json: print no texts and tables, only what is given to `result`.
    """

    def __init__(self, is_json: bool) -> None:
        self.is_json = is_json
        self._console = _rich_console(sys.stdout)

    def note(self, text: str) -> None:
        """Print a line that is no result."""
        print(text, file=sys.stderr, flush=True)

    def tell(self, text: str = "") -> None:
        """Print a line for people."""
        if not self.is_json:
            print(text, flush=True)

    def result(self, value: Any) -> None:
        """Print a value for programs."""
        if self.is_json:
            print(json.dumps(value, indent=2), flush=True)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Print a table of names and values for people."""
        if self.is_json:
            return
        if self._console is None:
            width = max(len(name) for name, _ in rows)
            print(f"\n{title}", *(f"  {name:{width}}  {value}" for name, value in rows), sep="\n")
            return
        from rich import box
        from rich.table import Table

        table = Table(title=title, title_justify="left", show_header=False, box=box.ROUNDED)
        table.add_column(style="cyan")
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

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


def _plain_progress(what: str, note: Callable[[str], None]) -> Callable[[int, int], None]:
    told = -PROGRESS_SECONDS

    def show(done: int, total: int) -> None:
        nonlocal told
        if total and time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            note(f"{done} of {total} {what}")

    return show


# -- signals ------------------------------------------------------------------------------


class Signals:
    """Takes SIGINT and SIGTERM in a ``with`` block: the first one asks the command to stop.

    The second one ends the process on the spot.

    :ivar received: the number of the first one, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}
        # Not an Event: a handler that sets it while the same thread is about to wait for
        # it would wait for itself.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = number
            self._since = time.monotonic()
            self._news.put(None)
        elif time.monotonic() - self._since > ECHO_SECONDS:
            _leave_now(BY_SIGNAL + number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a signal; say whether one has come.

        :param seconds: wait no longer than this; None waits for ever.
        """
        if self.received is None:
            with suppress(queue.Empty):
                self._news.get(timeout=seconds)
        return self.received is not None


def _leave_now(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(RuntimeError, OSError, ValueError):  # the signal came amid a print
            stream.flush()
    os._exit(code)


# -- remotetask demo ----------------------------------------------------------------------


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        default=sysconfig.get_path("stdlib"),
        help="the directory, or the one file, to index (default: Python's standard library)",
    )
    parser.add_argument(
        "--database",
        metavar="DIR",
        default=DEMO_DIRECTORY,
        help="the directory of the database; it is made, and kept (default: ./%(default)s)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_positive,
        default=DEMO_LIMIT,
        help="index no more than N files (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_positive,
        default=1,
        help="run N jobs at a time; in one process more are seldom faster (default: 1)",
    )


def run_demo(arguments: argparse.Namespace, screen: Screen) -> int:
    """Index text files by jobs, and prove that jobs and catalog agree.

    Transaction: must not run in one; commits.
    """
    # Not at the top: importing it registers its tasks, which no other command needs.
    from lovely.remotetask import demo

    _set_up_logging(arguments, package=logging.WARNING, jobs=logging.CRITICAL)
    directory = Path(arguments.database).absolute()
    files = demo.find_files(Path(arguments.path), arguments.limit, directory)
    try:
        with demo.opened(directory, arguments.workers) as database, Signals() as signals:
            plan = database.plan(files)
            screen.tell(f"{len(files)} text files under {arguments.path}: {_in_words(plan)}")
            screen.tell(f"database: {directory}")
            with screen.progress("jobs done") as show:
                result = database.work(plan, signals.wait, show)
    except LockError:
        raise RemoteTaskError(
            f"{directory} is in use by another process; --database names another directory"
        ) from None
    size = sum(file.stat().st_size for file in directory.iterdir())
    screen.result(
        {"path": arguments.path, "files": len(files), "database": str(directory), "bytes": size}
        | {"jobs_added": len(plan.todo), "already_indexed": plan.indexed}
        | {"failed_before": plan.failed, "waiting_before": plan.waiting}
        | {"running_before": plan.running, "interrupted": not result.checks}
        | {"agree": all(check.holds for check in result.checks) if result.checks else None}
        | asdict(result)
    )
    if not result.checks:
        screen.note(f"Stopped, {result.total - result.done} jobs are left.  Go on with:")
        screen.note(f"  {arguments.again}")
        return BY_SIGNAL + (signals.received or 0)
    return _show_demo(result, arguments, f"{directory}, {size / 1e6:.1f} MB", screen)


def _in_words(plan: Plan) -> str:
    parts = [
        (plan.indexed, "indexed already"),
        (plan.failed, "failed before"),
        (plan.waiting, "left over from the run before"),
        (plan.running, "of which were running when it was killed"),
    ]
    return ", ".join([f"{len(plan.todo)} jobs to add"] + [f"{n} {text}" for n, text in parts if n])


def _show_demo(result: Result, arguments: argparse.Namespace, screen: Screen) -> int:
    speed = f", {result.done / result.seconds:.0f} jobs a second" if result.done else ""
    due = datetime.fromtimestamp(result.next_report or 0, timezone.utc)
    screen.table("Jobs", [(status, f"{count:,}") for status, count in result.jobs.items()])
    screen.table(
        "This run",
        [
            ("jobs done", f"{result.done:,} in {result.seconds:.1f} s{speed}"),
            ("catalog", f"{result.documents:,} files, {result.words:,} words"),
            ("frequent words", ", ".join(word for word, _ in result.frequent_words)),
            ("next report", f"{due:%H:%M} UTC, by a cron job; {result.reports} so far"),
            ("database", f"{result.bytes / 1e6:.1f} MB in {result.directory}"),
        ],
    )
    screen.tell_list("Errors (one file was made to be one)", [text for _, text in result.errors])
    screen.tell("\nCatalog and completed jobs:")
    for check in result.checks:
        screen.tell_list(f"{'WRONG' if check.problems else 'ok   '}  {check.claim}", check.problems)
    if any(check.problems for check in result.checks):
        screen.note("remotetask: catalog and completed jobs do not agree")
        return FAILED
    screen.tell("They agree.")
    return DONE


