# SPDX-License-Identifier: ZPL-2.1
"""The service of a site, whose a job is, and what is told of it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from AccessControl.SecurityManagement import getSecurityManager
from zope.component import queryUtility
from zope.component.hooks import getSite

from lovely.remotetask.errors import shown
from lovely.remotetask.hosts import jobs
from lovely.remotetask.hosts.jobs import MANAGE, VIEW, find_job, user_of
from lovely.remotetask.interfaces import ITaskService

__all__ = ["ADD", "MANAGE", "SERVICE", "VIEW", "find_job", "find_service", "user_of"]

#: The name of the service that the profile makes.
SERVICE = "tasks"

#: The title of the permission to add jobs, by which Zope knows it; see `hosts.jobs` for others.
ADD = "Add remote tasks"


def find_service() -> Any:
    """Return the service of the current site, or None where the add-on is not installed.

    Transaction: reads only.
    """
    return queryUtility(ITaskService, name=SERVICE)


def current_user() -> str | None:
    """Return the id of the user of the request; None is nobody."""
    user = getSecurityManager().getUser()
    found: str | None = None if user is None else user.getId()
    return found


def may(permission: str) -> bool:
    """Say whether the user of the request has a permission in the current site."""
    return jobs.may(permission, getSite())


def is_own(job: Any) -> bool:
    """Say whether a job is one of the user of the request."""
    return current_user() is not None and user_of(job) == current_user()


# -- as plain data -------------------------------------------------------------------------------


def told_of(service: Any, job: Any) -> dict[str, Any]:
    """Return what programs are told of a job in a list."""
    progress = service.progress.get(job.id)
    return {
        "id": job.id,
        "task": job.task,
        "status": job.status,
        "user": user_of(job),
        "note": job.note,
        "attempt": job.attempt,
        "error": job.error,
        "created": _text(job.created),
        "started": _text(job.started),
        "completed": _text(job.completed),
        "scheduled_for": _text(job.scheduledFor),
        "cancel_requested": job.is_cancel_requested,
        "progress": None if progress is None else progress._asdict(),
    }


def all_of(service: Any, job: Any) -> dict[str, Any]:
    """Return all that programs are told of a job."""
    return {
        **told_of(service, job),
        "input": plain(job.input),
        "result": plain(job.output),
        "failures": [failure._asdict() for failure in job.failures],
        "log": [line._asdict() for line in service.getLog(job.id)],
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can have it; one that it cannot, as its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return shown(value)
    return value


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
