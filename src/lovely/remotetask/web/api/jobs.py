# SPDX-License-Identifier: ZPL-2.1
"""The calls about jobs."""

from __future__ import annotations

from time import time
from typing import Any

from webob import Response

from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.web import batches, operations
from lovely.remotetask.web.api import schemas
from lovely.remotetask.web.api.call import PREFIX, Answer, Call, answer
from lovely.remotetask.web.detail import detail_of
from lovely.remotetask.web.facts import moment_of
from lovely.remotetask.web.routing import Context
from lovely.remotetask.web.security import ADD, MANAGE, VIEW


def address_of(context: Context, jobid: Any) -> str:
    """Return the address of a job."""
    return context.url(f"{PREFIX}/jobs/{jobid}")


def _list(context: Context, given: dict[str, Any]) -> Response:
    for name in ("since", "until"):
        given[name] = moment_of(given.get(name), name)
    return answer(operations.list_told(context.service, **given))


def _add(context: Context, given: dict[str, Any]) -> Response:
    given["at"] = moment_of(given.get("at"), "at")
    if isinstance(given.get("expires"), str):
        given["expires"] = moment_of(given["expires"], "expires")
    for name in ("on_success", "on_error"):
        if name in given:
            given[name] = given[name]["task"], given[name].get("input")
    jobid = operations.add(context.service, **given)
    address = address_of(context, jobid)
    return answer({"id": jobid, "status_url": address}, 202, {"Location": address})


def _add_many(context: Context, given: dict[str, Any]) -> Response:
    ids = operations.add_many(context.service, **given)
    addresses = [address_of(context, jobid) for jobid in ids]
    return answer({"ids": ids, "status_urls": addresses}, 202)


def _add_group(context: Context, given: dict[str, Any]) -> Response:
    then = given["then"]["task"], given["then"].get("input")
    groupid = operations.add_group(context.service, **{**given, "then": then})
    address = context.url(f"{PREFIX}/groups/{groupid}")
    return answer({"id": groupid, "status_url": address}, 202, {"Location": address})


def _group(context: Context, given: dict[str, Any]) -> Response:
    return answer(operations.group_told(context.service, context.values["group"]))


def _find(context: Context, given: dict[str, Any]) -> Response:
    return answer({"id": operations.find(context.service, given["key"])})


def _one(context: Context, given: dict[str, Any]) -> Response:
    job = operations.find_job(context.service, context.values["job"])
    told = operations.all_of(context.service, job)
    return answer({**told, "detail": detail_of(job, context.request)})


def _remove(context: Context, given: dict[str, Any]) -> Response:
    operations.remove(context.service, context.values["job"])
    return Response(status=204, content_type=None, charset=None)


def _cancel(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, operations.cancel(context.service, context.values["job"]))


def _retry(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, operations.retry(context.service, context.values["job"], **given))


def _run_now(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, operations.run_now(context.service, context.values["job"]))


def _undo(context: Context, given: dict[str, Any]) -> Response:
    by = given.get("by") or context.request.remote_user or "a user of the web service"
    return _told(context, operations.undo(context.service, context.values["job"], by))


def _reschedule(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, operations.reschedule(context.service, context.values["job"]))


def _start(context: Context, given: dict[str, Any]) -> Response:
    return _told(context, operations.start(context.service, context.values["job"]))


def _told(context: Context, outcome: str) -> Response:
    return answer({"id": context.values["job"], "outcome": outcome})


# -- many ----------------------------------------------------------------------------------


def _seconds(given: dict[str, Any]) -> float | None:
    before = moment_of(given.get("before"), "before")
    return None if before is None else before.timestamp()


def _clean(context: Context, given: dict[str, Any]) -> Response:
    statuses = given.get("status", FINAL_STATUSES)
    removed = batches.clean(
        context.manager, context.service, statuses, _seconds(given), given.get("limit")
    )
    return answer({"removed": removed})


def _retry_all(context: Context, given: dict[str, Any]) -> Response:
    before = _seconds(given)
    before = time() if before is None else before
    count = batches.retry_all(
        context.manager, context.service, given.get("task"), before, given.get("limit")
    )
    return answer({"count": count})


def _cancel_all(context: Context, given: dict[str, Any]) -> Response:
    count = batches.cancel_all(context.manager, context.service, given.get("task"))
    return answer({"count": count})


OUTCOME = {200: Answer("What has come of it.", schemas.OUTCOME)}

CALLS = [
    Call(
        "listJobs",
        "GET",
        "/jobs",
        VIEW,
        "List jobs, a page at a time; a page looks at 1,000 jobs at the most.",
        _list,
        {200: Answer("A page of jobs.", schemas.JOBS)},
        query=schemas.JOB_QUERY,
    ),
    Call(
        "addJob",
        "POST",
        "/jobs",
        ADD,
        "Add a job.",
        _add,
        {202: Answer("It is added; `Location` is where its status is told.", schemas.ADDED)},
        body=schemas.NEW_JOB,
        errors=(404, 409),
    ),
    Call(
        "addManyJobs",
        "POST",
        "/job-batches",
        ADD,
        "Add a job for each input, or none at all.",
        _add_many,
        {202: Answer("They are added.", schemas.ADDED_MANY)},
        body=schemas.NEW_JOBS,
    ),
    Call(
        "addGroup",
        "POST",
        "/groups",
        ADD,
        "Add a job for each input, and one that runs when all of them have ended.",
        _add_group,
        {202: Answer("They are added; `Location` is where the group is told.", schemas.ADDED)},
        body=schemas.NEW_GROUP,
    ),
    Call(
        "getGroup",
        "GET",
        "/groups/{group}",
        VIEW,
        "Tell how far a group is.",
        _group,
        {200: Answer("The numbers of its jobs.", schemas.GROUP)},
        errors=(404, 409),
    ),
    Call(
        "findJob",
        "POST",
        "/unique-keys",
        VIEW,
        "Tell which job waits or runs with a unique key; nothing is changed.",
        _find,
        {200: Answer("Its id, or null.", schemas.FOUND)},
        body=schemas.OF_KEY,
    ),
    Call(
        "getJob",
        "GET",
        "/jobs/{job}",
        VIEW,
        "Tell all that is known of a job.",
        _one,
        {200: Answer("The job.", schemas.JOB)},
        errors=(404, 409),
    ),
    Call(
        "removeJob",
        "DELETE",
        "/jobs/{job}",
        MANAGE,
        "Remove a job that has ended.",
        _remove,
        {204: Answer("It is removed.")},
        errors=(404, 409),
    ),
    Call(
        "cancelJob",
        "POST",
        "/jobs/{job}/cancel",
        MANAGE,
        "Take a job back, or ask it to stop.",
        _cancel,
        OUTCOME,
        errors=(404, 409),
    ),
    Call(
        "retryJob",
        "POST",
        "/jobs/{job}/retry",
        MANAGE,
        "Let an error, or a cancelled job, run again.",
        _retry,
        OUTCOME,
        body=schemas.made_of({"input": schemas.ANY}, []),
        is_body_needed=False,
        errors=(404, 409),
    ),
    Call(
        "runJobNow",
        "POST",
        "/jobs/{job}/run-now",
        MANAGE,
        "Let a job run at once that waits for a time.",
        _run_now,
        OUTCOME,
        errors=(404, 409),
    ),
    Call(
        "undoJob",
        "POST",
        "/jobs/{job}/undo",
        MANAGE,
        "Undo all that a completed job has written, with its result.",
        _undo,
        OUTCOME,
        body=schemas.BY,
        is_body_needed=False,
        errors=(404, 409),
    ),
    Call(
        "rescheduleJob",
        "POST",
        "/jobs/{job}/reschedule",
        MANAGE,
        "Count the schedule of a job from now.",
        _reschedule,
        OUTCOME,
        errors=(404, 409),
    ),
    Call(
        "startJob",
        "POST",
        "/jobs/{job}/start",
        MANAGE,
        "Queue a job that was added to be started later.",
        _start,
        OUTCOME,
        errors=(404, 409),
    ),
    Call(
        "cleanJobs",
        "POST",
        "/clean",
        MANAGE,
        "Remove jobs that have ended, some hundreds in one transaction.",
        _clean,
        {200: Answer("How many were removed, by status.", schemas.CLEANED)},
        body=schemas.CLEAN,
        is_body_needed=False,
    ),
    Call(
        "retryErrors",
        "POST",
        "/retry",
        MANAGE,
        "Let all errors run again, some hundreds in one transaction.",
        _retry_all,
        {200: Answer("How many there were.", schemas.NUMBER)},
        body=schemas.REPEAT,
        is_body_needed=False,
    ),
    Call(
        "cancelJobs",
        "POST",
        "/cancel",
        MANAGE,
        "Cancel all jobs that wait, and ask those that run to stop; schedules stay.",
        _cancel_all,
        {200: Answer("How many there were.", schemas.NUMBER)},
        body=schemas.OF_TASK,
        is_body_needed=False,
    ),
]
