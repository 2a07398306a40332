# SPDX-License-Identifier: ZPL-2.1
"""What pages of Zope ask of jobs: their users, their times, and who may do what."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from AccessControl.SecurityManagement import getSecurityManager

from lovely.remotetask.errors import JobNotFound, shown
from lovely.remotetask.hosts.zope import NAME

#: The titles of the permissions, by which Zope knows them.
VIEW = "View remote tasks"
MANAGE = "Manage remote tasks"


def find_job(service: Any, jobid: Any) -> Any:
    """Return the job with an id that is a number, also as text.

    :raises JobNotFound: there is none.
    :raises JobUnusable: it cannot be read here.

    Transaction: reads only.
    """
    text = str(jobid)
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise JobNotFound(f"there is no job {shown(jobid)}")
    return service.job(int(text))


def user_of(job: Any) -> str | None:
    """Return the id of the user as whom a job runs."""
    user: str | None = ((job.carried or {}).get(NAME) or {}).get("user")
    return user


def may(permission: str, place: Any) -> bool:
    """Say whether the user of the request has a permission in a place."""
    return bool(getSecurityManager().checkPermission(permission, place))


def moment(value: datetime | float | None) -> str:
    """Return a time as it is shown; one that is a number is in seconds since the epoch."""
    if value is None:
        return ""
    if not isinstance(value, datetime):
        value = datetime.fromtimestamp(value, timezone.utc)
    return value.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
