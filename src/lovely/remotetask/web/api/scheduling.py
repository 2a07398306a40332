# SPDX-License-Identifier: ZPL-2.1
"""The calls about schedules."""

from __future__ import annotations

from typing import Any

from webob import Response

from lovely.remotetask.web import schedules
from lovely.remotetask.web.api import schemas
from lovely.remotetask.web.api.call import PREFIX, Answer, Call, answer
from lovely.remotetask.web.facts import time_text
from lovely.remotetask.web.operations import is_remote
from lovely.remotetask.web.routing import Context
from lovely.remotetask.web.schedules import Fields
from lovely.remotetask.web.security import MANAGE, VIEW


def _fields(given: dict[str, Any]) -> Fields:
    return Fields(**{name: given[name] for name in Fields._fields if name in given})


def _list(context: Context, given: dict[str, Any]) -> Response:
    page = schedules.list_schedules(context.service, **given)
    told = [schedules.schedule_told(schedule) for schedule in page.schedules]
    return answer({"schedules": told, "next": page.next})


def _one(context: Context, given: dict[str, Any]) -> Response:
    schedule = schedules.find_schedule(context.service, context.values["schedule"])
    return answer(schedules.schedule_told(schedule))


def _add(context: Context, given: dict[str, Any]) -> Response:
    schedule_id = schedules.add_schedule(
        context.service, given["task"], given.get("input"), _fields(given)
    )
    address = context.url(f"{PREFIX}/schedules/{schedule_id}")
    told = {"id": schedule_id, "status_url": address}
    return answer(told, 201, {"Location": address})


def _ensure(context: Context, given: dict[str, Any]) -> Response:
    jobid = schedules.ensure_schedule(
        context.service, given["key"], given["task"], given.get("input"), _fields(given)
    )
    return answer({"id": jobid, "status_url": context.url(f"{PREFIX}/schedules/{jobid}")})


def _remove_key(context: Context, given: dict[str, Any]) -> Response:
    return answer({"removed": schedules.remove_key(context.service, given["key"])})


def _edit(context: Context, given: dict[str, Any]) -> Response:
    schedule_id = context.values["schedule"]
    schedules.edit_schedule(context.service, schedule_id, given["task"], _fields(given))
    return _one(context, given)


def _remove(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, schedules.remove_schedule(context.service, context.values["schedule"]))


def _tell(context: Context, given: dict[str, Any]) -> Response:
    verb = schedules.VERBS[context.request.path_info.rpartition("/")[2]]
    return _told(context, verb(context.service, context.values["schedule"]))


def _told(context: Context, outcome: str) -> Response:
    return answer({"id": context.values["schedule"], "outcome": outcome})


def _times(context: Context, given: dict[str, Any]) -> Response:
    schedule = schedules.find_schedule(context.service, context.values["schedule"])
    return _times_of(context, schedules.fields_of(schedule))


def _preview(context: Context, given: dict[str, Any]) -> Response:
    return _times_of(context, _fields(given))


def _times_of(context: Context, fields: Fields) -> Response:
    times = schedules.next_times(fields, is_remote(context.service))
    return answer({"times": list(map(time_text, times))})


OUTCOME = {200: Answer("What has come of it.", schemas.OUTCOME)}
TIMES = {200: Answer("The next ten times, in the time zone of the schedule.", schemas.TIMES)}
ERRORS = (404, 409)

CALLS = [
    Call(
        "listSchedules",
        "GET",
        "/schedules",
        VIEW,
        "List schedules, those first that are due first.",
        _list,
        {200: Answer("A page of schedules.", schemas.SCHEDULES)},
        query={"after": schemas.AFTER, "limit": schemas.LIMIT},
    ),
    Call(
        "addSchedule",
        "POST",
        "/schedules",
        MANAGE,
        "Add a schedule, or a job with a delay.",
        _add,
        {201: Answer("It is added; `Location` is where it is told.", schemas.ADDED)},
        body=schemas.NEW_SCHEDULE,
    ),
    Call(
        "ensureSchedule",
        "PUT",
        "/schedule-keys",
        MANAGE,
        "Let there be a schedule with a key: it is added, changed, or left as it is.",
        _ensure,
        {200: Answer("It is there.", schemas.ADDED)},
        body=schemas.KEYED_SCHEDULE,
        errors=(409,),
    ),
    Call(
        "removeScheduleKey",
        "POST",
        "/schedule-keys/remove",
        MANAGE,
        "Remove the schedule with a key, if there is one.",
        _remove_key,
        {200: Answer("Whether there was one.", schemas.REMOVED)},
        body=schemas.OF_KEY,
    ),
    Call(
        "getSchedule",
        "GET",
        "/schedules/{schedule}",
        VIEW,
        "Tell what is known of a schedule.",
        _one,
        {200: Answer("The schedule.", schemas.SCHEDULE)},
        errors=ERRORS,
    ),
    Call(
        "editSchedule",
        "PUT",
        "/schedules/{schedule}",
        MANAGE,
        "Let a schedule run another task, or at other times; what is not given becomes free.",
        _edit,
        {200: Answer("The schedule as it is now.", schemas.SCHEDULE)},
        body=schemas.CHANGED_SCHEDULE,
        errors=ERRORS,
    ),
    Call(
        "removeSchedule",
        "DELETE",
        "/schedules/{schedule}",
        MANAGE,
        "Remove a schedule; one that runs is asked to stop.",
        _remove,
        OUTCOME,
        errors=ERRORS,
    ),
    *(
        Call(
            f"{name}Schedule",
            "POST",
            f"/schedules/{{schedule}}/{verb}",
            MANAGE,
            summary,
            _tell,
            OUTCOME,
            errors=ERRORS,
        )
        for name, verb, summary in (
            ("pause", "pause", "Let a schedule rest."),
            ("resume", "resume", "Let a schedule that rests go on."),
            ("run", "run-now", "Let a schedule run once more, at once."),
        )
    ),
    Call(
        "getNextTimes",
        "GET",
        "/schedules/{schedule}/next-times",
        VIEW,
        "Tell the next times of a schedule.",
        _times,
        TIMES,
        errors=ERRORS,
    ),
    Call(
        "previewTimes",
        "POST",
        "/next-times",
        VIEW,
        "Tell the next times of a schedule that is not added; nothing is changed.",
        _preview,
        TIMES,
        body=schemas.made_of(schemas.FIELDS, []),
    ),
]
