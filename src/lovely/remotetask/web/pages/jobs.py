# SPDX-License-Identifier: ZPL-2.1
"""The page Jobs: the list, and what can be done with many jobs at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from webob import Response

from lovely.remotetask.engine import control
from lovely.remotetask.errors import JobNotFound, RemoteTaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    ERROR,
    FINAL_STATUSES,
)
from lovely.remotetask.store.listing import let_go, list_jobs
from lovely.remotetask.web import batches, operations
from lovely.remotetask.web.pages import details, joblist, rendering, wording
from lovely.remotetask.web.pages.joblist import COLUMNS, LISTED, SIZES, Asked, Shown
from lovely.remotetask.web.pages.state import state_of
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.security import MANAGE, VIEW

#: No more jobs than this can be selected.
MOST_SELECTED = max(SIZES)

#: A request that tells all jobs of a list something takes about so long; another one goes on.
SECONDS = 20.0

_clock = time.monotonic


def show(context: Context, refusals: tuple[str, ...] = ()) -> Response:
    """Show the page, or its list alone."""
    service, wanted = context.service, joblist.asked(context.request.GET)
    tasks = operations.task_names(service)
    known = sorted({*tasks, *([wanted.task] if wanted.task else [])})
    return rendering.live_page(
        context,
        "jobs",
        title="Jobs",
        state=state_of(service),
        names=lambda: _list(context, wanted),
        address=context.url("/jobs", **wanted.query()),
        refusals=refusals,
        tasks=tasks,
        filter_tasks=known,
        asked=wanted,
        here=_given(wanted.query()),
        statuses=LISTED,
        sizes=sorted({*SIZES, wanted.size}),
        scope=_scope(wanted),
    )


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _scope(wanted: Asked) -> str:
    """Return which jobs are in the list, as the end of a sentence."""
    parts = []
    if wanted.status is not None:
        parts.append(f"with status {wanted.status}")
    if wanted.task is not None:
        parts.append(f"of the task {wanted.task}")
    return " ".join(parts) or "of this service"


def _list(context: Context, wanted: Asked) -> dict[str, Any]:
    """Return what the list shows."""
    service, now = context.service, time.time()

    def detail(job: Any) -> str:
        return details.line_of(service, job, context.request)

    def row(job: Any) -> dict[str, Any]:
        told = _row(service, job, detail(job), now)
        let_go([job])
        return told

    shown = joblist.show(service, wanted, detail)
    return {
        "rows": [row(job) for job in shown.jobs],
        "columns": [_column(context, wanted, shown, *column) for column in COLUMNS],
        "previous": _address(context, shown.previous),
        "next": _address(context, shown.next),
        "summary": _summary(shown, wanted),
        "scope": _scope(wanted),
    }


def _address(context: Context, wanted: Asked | None) -> str | None:
    return None if wanted is None else context.url("/jobs", **wanted.query())


def _row(service: Any, job: Any, detail: str, now: float) -> dict[str, Any]:
    progress = service.progress.get(job.id)
    has_bar = progress is not None and progress.total
    return {
        "id": job.__name__,
        "task": job.task,
        "status": job.status,
        "detail": detail,
        "progress": (f"{progress.done:g}", f"{progress.total:g}") if has_bar else None,
        "created": wording.moment_of(job.created, now),
        "started": wording.moment_of(job.started, now),
        "completed": wording.moment_of(job.completed, now),
    }


def _column(context: Context, wanted: Asked, shown: Shown, name: str, title: str) -> dict[str, Any]:
    is_sorted = shown.sort == name
    # The latest first, but names from the first one on; then the other way round.
    backwards = name in joblist.TIMES
    if is_sorted:
        backwards = not shown.is_backwards
    direction = "descending" if shown.is_backwards else "ascending"
    asked = wanted.first._replace(sort=name, is_backwards=backwards)
    return {
        "name": name,
        "title": title,
        "address": context.url("/jobs", **asked.query()),
        "direction": direction if is_sorted else None,
    }


def _summary(shown: Shown, wanted: Asked) -> str:
    """Return what is to be said of how much of the list is shown, and how."""
    number = "" if shown.total is None else wording.count(shown.total, "job")
    if shown.sort is None:
        order = (
            "The newest first, by when they ended, were claimed, are due or were added."
            if wanted.is_backwards
            else ""
        )
        if shown.is_limited:
            order = "1,000 jobs were looked at: the next page goes on behind them."
        return " · ".join(filter(None, [number, order]))
    if shown.is_limited:
        return (
            f"{number or 'This list'}: too many to sort. These are the 1,000 at its "
            f"{'newest' if wanted.is_backwards or shown.sort == 'id' else 'newest or oldest'} end."
        )
    return number


# -- what can be done --------------------------------------------------------------------------


def act(context: Context) -> Response:
    """Do what a button of the page says."""
    context.require(MANAGE)
    posted = context.request.POST
    wanted = joblist.asked(context.request.GET)
    action = ACTIONS.get(posted.get("do", ""))
    if action is None:
        return show(context, ("This button is not known here: load the page again.",))
    code, *given = action(context, wanted)
    return rendering.redirect(context, context.url("/jobs", **wanted.query()), code, *given)


def _cancel_selected(context: Context, wanted: Asked) -> tuple[Any, ...]:
    return _tell_selected(context, "cancelled", _cancel)


def _retry_selected(context: Context, wanted: Asked) -> tuple[Any, ...]:
    return _tell_selected(context, "retried", control.retry)


def _tell_selected(
    context: Context, code: str, tell: Callable[[Any, int], None]
) -> tuple[Any, ...]:
    selected = context.request.POST.getall("job")[:MOST_SELECTED]
    if not selected:
        return ("none selected",)
    number = 0
    for jobid in selected:
        try:
            tell(context.service, operations.number_of(context.service, jobid))
            number += 1
        except RemoteTaskError:  # it is gone, or was too late: the others are told all the same
            continue
    return code, number


def _cancel(service: Any, number: int) -> None:
    """Cancel a job, or ask it to stop.

    :raises JobNotFound: it has ended: there is nothing to cancel.
    """
    job = control.find_job(service, number)
    if job.is_final:
        raise JobNotFound(f"job {job.__name__} has ended")
    control.cancel_job(service, job)


def _cancel_all(context: Context, wanted: Asked) -> tuple[Any, ...]:
    statuses = tuple(status for status in wanted.statuses if status not in FINAL_STATUSES)
    return _tell_all(context, "cancelled", statuses, wanted.task, _cancel_unasked)


def _cancel_unasked(service: Any, number: int) -> None:
    if control.find_job(service, number).is_cancel_requested:
        raise JobNotFound("it was asked before")
    _cancel(service, number)


def _remover(*statuses: str) -> Callable[[Context, Asked], tuple[Any, ...]]:
    """Return what removes the jobs of the list that have some statuses."""

    def remove(context: Context, wanted: Asked) -> tuple[Any, ...]:
        chosen = statuses
        if len(statuses) > 1:  # else the button says itself which ones are meant
            chosen = tuple(status for status in statuses if status in wanted.statuses)
        return _tell_all(context, "removed", chosen, wanted.task, control.remove)

    return remove


def _tell_all(
    context: Context,
    code: str,
    statuses: tuple[str, ...],
    task: str | None,
    tell: Callable[[Any, int], None],
) -> tuple[Any, ...]:
    """Tell all jobs of a list something, as many as there is time for."""
    end = _clock() + SECONDS
    is_over = False

    def change(count: int) -> int:
        nonlocal is_over
        is_over = _clock() > end
        if is_over:
            return 0
        number = 0
        for job in _all_jobs(context.service, statuses, task):
            try:
                tell(context.service, job.id)
                number += 1
            except RemoteTaskError:  # it has moved on, or its record cannot be written here
                continue
            if number == count:
                break
        return number

    number = batches.in_batches(context.manager, context.service, change, batches.REMOVE_SIZE)
    return f"partly {code}" if is_over else code, number


def _all_jobs(service: Any, statuses: tuple[str, ...], task: str | None) -> Iterator[Any]:
    """Yield the jobs of a list, the oldest first; they may be changed under way."""
    after: int | None = None
    while statuses:
        page = list_jobs(service, statuses, joblist.chooser(task), False, after, 500)
        yield from page.jobs
        if page.next is None:
            return
        after = int(page.next, 16)


ACTIONS: dict[str, Callable[[Context, Asked], tuple[Any, ...]]] = {
    "cancel-selected": _cancel_selected,
    "retry-selected": _retry_selected,
    "cancel-all": _cancel_all,
    "remove-completed": _remover(COMPLETED),
    "remove-cancelled": _remover(CANCELLED),
    "remove-errors": _remover(ERROR),
    "remove-all": _remover(*FINAL_STATUSES),
}

routes = [
    Route("GET", "/jobs", VIEW, show),
    Route("POST", "/jobs", MANAGE, act),
]
