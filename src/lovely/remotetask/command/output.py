# SPDX-License-Identifier: ZPL-2.1
"""Where the results of the command go: to people, or as JSON to programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

#: Seconds between two lines of progress where there is no terminal.
PROGRESS_SECONDS = 1.0

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


def _plain_progress(what: str, note: Callable[[str], None]) -> Callable[[int, int], None]:
    told = -PROGRESS_SECONDS

    def show(done: int, total: int) -> None:
        nonlocal told
        if total and time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            note(f"{done} of {total} {what}")

    return show
