# SPDX-License-Identifier: ZPL-2.1
"""Notebooks and other sessions: a bar for a job that is waited for.

It takes rich, which the extra ``cli`` has; a notebook needs no widgets for it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lovely.remotetask.errors import JobNotDone, seconds_of
from lovely.remotetask.interfaces import FINAL_STATUSES

#: Seconds between two looks at the progress.
LOOK_SECONDS = 0.2


def follow(service: Any, jobid: int, timeout_seconds: float | None = None) -> Any:
    """Wait for a job with a bar that shows how far it is; return its result.

    The job goes on where this is interrupted.

    :param service: it has to be stored, and the job committed.
    :param timeout_seconds: wait no longer than this; None is without bound.
    :raises JobNotDone: it has not ended in time.
    :raises JobFailed: it has ended otherwise than completed.
    :raises JobNotFound: there is none; a KeyError.
    :raises TransactionInProgress: the caller's transaction has changes: commit them first.

    Transaction: reads only; the caller's sees afterwards what there is then.
    """
    end = math.inf
    if timeout_seconds is not None:
        end = time.monotonic() + seconds_of(timeout_seconds, "timeout_seconds")
    with _bar(f"job {jobid}") as show:
        while True:
            rest = max(0.0, end - time.monotonic())
            status = service.wait(jobid, min(LOOK_SECONDS, rest))
            show(status, service.getProgress(jobid))
            if status in FINAL_STATUSES:
                break
            if not rest:
                raise JobNotDone(
                    f"job {jobid} has not ended in {timeout_seconds} seconds, it is {status}"
                )
    return service.wait_result(jobid, 0)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[str, Any], None]]:
    """Yield a function that shows a status and a progress."""
    console = Console(file=sys.stderr)
    message = TextColumn("{task.fields[message]}", markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), message)
    bar = Progress(*columns, console=console, auto_refresh=not console.is_jupyter)
    row = bar.add_task(name, total=None, message="")

    def update(status: str, progress: Any) -> None:
        known: dict[str, Any] = {}
        message = ""
        if progress is not None:
            known = {"completed": progress.done, "total": progress.total}
            of = f"of {progress.total:g} " if progress.total else ""
            message = f"{progress.done:g} {of}{progress.message}".strip()
        elif status == "completed":
            known = {"completed": 1, "total": 1}
        bar.update(row, description=f"{name}: {status}", message=message, **known)

    if not console.is_jupyter:
        with bar:
            yield update
        return
    from IPython import display

    display_one: Any = display.display
    # rich itself draws a bar that moves by a widget, which is one more thing to be installed.
    shown = display_one(bar, display_id=True)

    def update_display(status: str, progress: Any) -> None:
        update(status, progress)
        shown.update(bar)

    yield update_display
