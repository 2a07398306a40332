# SPDX-License-Identifier: ZPL-2.1
"""The page on which a job is added, with a form made of what its task takes."""

from __future__ import annotations

from typing import Any

from webob import Response

from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    TaskNotFound,
    text_of,
)
from lovely.remotetask.web import operations
from lovely.remotetask.web.pages import inputform, rendering
from lovely.remotetask.web.pages.inputform import Shown
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.security import ADD


def task_of(context: Context, name: str) -> Any:
    """Return what is registered under the name of a task.

    :raises TaskNotFound: nothing is.
    """
    if name not in operations.task_names(context.service):
        raise TaskNotFound(f"no task is registered here under the name {name[:80]}")
    if operations.is_remote(context.service):
        return context.service.getJobFactory(name)
    return context.service.find_task(name)


def show(
    context: Context,
    fields: list[Shown] | None = None,
    refusals: tuple[str, ...] = (),
    typed: dict[str, str] | None = None,
) -> Response:
    """Show the form.

    :param fields: as somebody has filled it in.
    :param typed: what was typed into the fields that each job has.
    """
    name = context.request.GET.get("task", "")
    schema = inputform.schema_of(task_of(context, name))
    return rendering.page(
        context,
        "add",
        title="Add a job",
        refusals=refusals,
        task=name,
        fields=inputform.empty_form(schema) if fields is None else fields,
        typed=typed or {},
        is_remote=operations.is_remote(context.service),
    )


def add(context: Context) -> Response:
    """Add the job, or show the form again with what is wrong."""
    context.require(ADD)
    posted = context.request.POST
    name = context.request.GET.get("task", "")
    schema = inputform.schema_of(task_of(context, name))
    read = inputform.read_form(schema, posted)
    typed = {field: str(posted.get(field, "")) for field in ("delay", "note")}
    refusals = [*read.wrong]
    options: dict[str, Any] = {"note": typed["note"].strip() or None}
    if typed["delay"].strip():
        try:
            options["delay"] = float(typed["delay"])
        except ValueError:
            refusals.append("Delay must be a number of seconds.")
    if not read.is_good and not refusals:
        refusals.append("No job was added: see what is said beside the fields.")
    if not refusals:
        given = {key: value for key, value in options.items() if value is not None}
        try:
            jobid = operations.add(context.service, name, read.value, **given)
        except (InvalidInput, InvalidArgument, TaskNotFound) as error:
            refusals.append(text_of(error))
        else:
            return rendering.redirect(context, context.url("/jobs"), "job added", jobid)
    return show(context, read.fields, tuple(refusals), typed)


routes = [
    Route("GET", "/add", ADD, show),
    Route("POST", "/add", ADD, add),
]
