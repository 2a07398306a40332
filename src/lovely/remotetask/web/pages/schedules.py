# SPDX-License-Identifier: ZPL-2.1
"""The page Schedules, and the form of a schedule."""

from __future__ import annotations

import time
from typing import Any
from zoneinfo import available_timezones

from webob import Response

from lovely.remotetask.errors import RemoteTaskError, text_of
from lovely.remotetask.interfaces import DELAYED
from lovely.remotetask.web import operations
from lovely.remotetask.web import schedules as operating
from lovely.remotetask.web.pages import inputform, rendering, scheduleform, wording
from lovely.remotetask.web.pages.scheduleform import SETS, Times
from lovely.remotetask.web.pages.state import state_of
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.schedules import Fields
from lovely.remotetask.web.security import MANAGE, VIEW

#: How many schedules a page has, and how many delayed jobs are shown beside them.
SIZE = 50

#: How many of the next times are shown while somebody types.
NEXT_TIMES = 5

#: The names of what is typed into the form.
NAMES = ("task", *(field.name for field in SETS), "delay", "cron", "timezone", "input")


# -- the list ----------------------------------------------------------------------------------


def show(context: Context, refusals: tuple[str, ...] = ()) -> Response:
    """Show the page, or its list alone."""
    service = context.service
    after = context.request.GET.get("after")
    more: list[Any] = []
    if operations.is_remote(service):
        more = [service.scheduler.items_by_id, *service.scheduler.items_by_id.values()]
    return rendering.live_page(
        context,
        "schedules",
        title="Schedules",
        state=state_of(service, *more),
        names=lambda: _list(context, after),
        address=context.url("/schedules", after=after),
        refusals=refusals,
    )


def _list(context: Context, after: str | None) -> dict[str, Any]:
    service, now = context.service, time.time()
    page = operating.list_schedules(service, after, SIZE)
    delayed: list[Any] = []
    if not operations.is_remote(service) and after is None:
        delayed = operations.list_jobs(service, DELAYED, order="oldest", limit=SIZE).jobs
    return {
        "tables": [
            {
                "name": "Schedules",
                "rows": [_row(schedule, now) for schedule in page.schedules],
            },
            {
                "name": "Delayed jobs",
                "rows": [_row(job, now) for job in delayed],
            },
        ],
        "next": None if page.next is None else context.url("/schedules", after=page.next),
        "first": None if after is None else context.url("/schedules"),
        "more_delayed": len(delayed) == SIZE,
    }


def _row(schedule: Any, now: float) -> dict[str, Any]:
    told = operating.schedule_told(schedule)
    due = getattr(schedule, "scheduledFor", None) or getattr(schedule, "nextCallTime", None)
    started = getattr(schedule, "started", None)
    return {
        "id": str(told["id"]),
        "task": told["task"],
        "key": _key_of(told),
        "is_job": hasattr(schedule, "attempt"),
        "is_delayed": told["status"] == DELAYED,
        "times": scheduleform.told(operating.fields_of(schedule), not hasattr(schedule, "attempt")),
        "status": "paused" if told["paused"] else told["status"],
        "is_paused": told["paused"],
        "error": wording.shortened(told["error"] or ""),
        "next": None if told["paused"] else wording.due_of(due, now),
        "last": wording.moment_of(started, now),
    }


def _key_of(told: dict[str, Any]) -> str:
    """Return the key of a schedule, and who has made it, in words."""
    if told["key"] is None:
        return ""
    if told["declared"]:
        return "declared by its task"
    return f"key {wording.shortened(told['key'])}"


def act(context: Context) -> Response:
    """Do what a button of the list says."""
    context.require(MANAGE)
    schedule_id = context.values["schedule"]
    verbs = {**operating.VERBS, "remove": operating.remove_schedule}
    verb = verbs.get(context.request.POST.get("do", ""))
    if verb is None:
        return show(context, ("This button is not known here: load the page again.",))
    try:
        outcome = verb(context.service, schedule_id)
    except RemoteTaskError as error:  # it has moved on meanwhile
        return show(context, (wording.sentence(text_of(error)),))
    address = context.url("/schedules")
    return rendering.redirect(context, address, "schedule", schedule_id, outcome)


# -- the form ------------------------------------------------------------------------------------


def show_new(context: Context) -> Response:
    """Show the form of a schedule that is to be added."""
    return _form(context, None, _typed({}))


def show_edit(context: Context) -> Response:
    """Show the form of a schedule that there is."""
    schedule = operating.find_schedule(context.service, context.values["schedule"])
    typed = scheduleform.typed_of(operating.fields_of(schedule))
    return _form(context, schedule, {**typed, "task": _task_of(schedule)})


def _task_of(schedule: Any) -> str:
    return str(operating.schedule_told(schedule)["task"])


def _typed(given: Any) -> dict[str, str]:
    return {name: str(given.get(name, "")) for name in NAMES}


def _form(
    context: Context,
    schedule: Any,
    typed: dict[str, str],
    times: Times | None = None,
    refusals: tuple[str, ...] = (),
    wrong: dict[str, str] | None = None,
) -> Response:
    """Show the form, as it was filled in.

    :param schedule: None is one that is to be added.
    :param times: what was typed, as far as that has been read.
    :param wrong: what is wrong with it.
    """
    read = scheduleform.read_times(typed) if times is None else times
    tasks = operations.task_names(context.service)
    if typed["task"] and typed["task"] not in tasks:  # it is not registered here
        tasks = sorted([*tasks, typed["task"]])
    is_new = schedule is None
    schedule_id = "" if is_new else str(operating.schedule_told(schedule)["id"])
    is_remote = operations.is_remote(context.service)
    key = None if is_new else operating.schedule_told(schedule)["key"]
    return rendering.page(
        context,
        "schedule",
        title="Add a schedule" if is_new else f"Edit schedule {schedule_id}",
        refusals=refusals,
        is_new=is_new,
        address=context.url("/schedules/add" if is_new else f"/schedules/{schedule_id}"),
        tasks=tasks,
        sets=SETS,
        typed=typed,
        wrong=wrong or {},
        zones=_zones(),
        takes_zone=not is_remote,
        takes_input=is_new,
        key=key,
        preview=_preview(context, read),
    )


def _zones() -> list[str]:
    return sorted(name for name in available_timezones() if "/" in name or name == "UTC")


def _preview(context: Context, read: Times) -> str:
    return rendering.render(context, "schedule_next", **_next(context, read))


def _next(context: Context, read: Times) -> dict[str, Any]:
    """Return the next times of what was typed, or what is wrong with it."""
    now = time.time()
    is_remote = operations.is_remote(context.service)
    wrong = [*read.wrong.values()]
    times: list[Any] = []
    if not wrong:
        try:
            times = operating.next_times(Fields(**read.given), is_remote, now, NEXT_TIMES)
        except RemoteTaskError as error:
            wrong = [text_of(error)]
    return {
        "times": [wording.moment_of(at, now) for at in times],
        "wrong": wrong,
        "words": "" if wrong else scheduleform.told(Fields(**read.given), is_remote),
    }


def show_next(context: Context) -> Response:
    """Show the next times of what was typed, alone."""
    return rendering.html(_preview(context, scheduleform.read_times(_typed(context.request.GET))))


def _is_preview(context: Context) -> bool:
    """Say whether somebody only wants to see the next times, in a browser without scripts."""
    return bool(context.request.POST.get("do") == "preview")


def add(context: Context) -> Response:
    """Add a schedule, or show the form again with what is wrong."""
    context.require(MANAGE)
    service, typed = context.service, _typed(context.request.POST)
    times = scheduleform.read_times(typed)
    if _is_preview(context):
        return _form(context, None, typed, times)
    wrong = _all_wrong(context, typed, times)
    given: Any = None
    if typed["input"].strip():
        try:
            given = inputform.parse_json(typed["input"])
        except ValueError as error:
            wrong["input"] = str(error)
    if not wrong:
        try:
            jobid = operating.add_schedule(service, typed["task"], given, Fields(**times.given))
        except RemoteTaskError as error:
            wrong[""] = text_of(error)
        else:
            return rendering.redirect(context, context.url("/schedules"), "schedule added", jobid)
    return _form(context, None, typed, times, _refusals("added", wrong), wrong)


def edit(context: Context) -> Response:
    """Change a schedule, or show the form again with what is wrong."""
    context.require(MANAGE)
    service, typed = context.service, _typed(context.request.POST)
    schedule_id = context.values["schedule"]
    schedule = operating.find_schedule(service, schedule_id)
    times = scheduleform.read_times(typed)
    if _is_preview(context):
        return _form(context, schedule, typed, times)
    wrong = _all_wrong(context, typed, times, _task_of(schedule))
    if not wrong:
        try:
            operating.edit_schedule(service, schedule_id, typed["task"], Fields(**times.given))
        except RemoteTaskError as error:
            wrong[""] = text_of(error)
        else:
            address = context.url("/schedules")
            return rendering.redirect(context, address, "schedule changed", schedule_id)
    return _form(context, schedule, typed, times, _refusals("changed", wrong), wrong)


def _all_wrong(
    context: Context, typed: dict[str, str], times: Times, otherwise: str | None = None
) -> dict[str, str]:
    """Return what is wrong with the form, by the names of its fields.

    :param otherwise: the task that it has, which need not be registered here.
    """
    wrong = dict(times.wrong)
    if typed["task"] not in (*operations.task_names(context.service), otherwise):
        wrong["task"] = "choose a task"
    return wrong


def _refusals(what: str, wrong: dict[str, str]) -> tuple[str, ...]:
    words = [f"{LABELS[name]}: {text}" if name else text for name, text in wrong.items()]
    return (f"Nothing was {what}. {wording.sentence('; '.join(words))}",)


LABELS = {
    "task": "Task",
    **{field.name: field.label for field in SETS},
    "delay": "Delay",
    "cron": "Cron expression",
    "timezone": "Time zone",
    "input": "Input",
}

routes = [
    Route("GET", "/schedules", VIEW, show),
    Route("GET", "/schedules/add", VIEW, show_new),
    Route("POST", "/schedules/add", MANAGE, add),
    Route("GET", "/schedules/next", VIEW, show_next),
    Route("GET", "/schedules/{schedule}", VIEW, show_edit),
    Route("POST", "/schedules/{schedule}", MANAGE, edit),
    Route("POST", "/schedules/{schedule}/do", MANAGE, act),
]
