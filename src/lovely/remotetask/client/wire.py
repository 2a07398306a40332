# SPDX-License-Identifier: ZPL-2.1
"""How the API of a service is called, and what it tells is read."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from lovely.remotetask import errors
from lovely.remotetask.base.loglines import LogLine
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    RemoteTaskError,
    ServerAway,
    describe,
    seconds_of,
    shown,
)
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.job import Failure, Progress

#: A task, or a task and its input.
FollowUp = str | tuple[str, Any]


class Wire:
    """Calls the API of one service.

    :param url: its address.
    :param token: what is shown as ``Authorization: Bearer``.
    :param user: in place of a token a name, by HTTP Basic.
    :param password: and its password.
    :param timeout_seconds: how long one call may take.
    :raises InvalidArgument: they make no sense.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        user: str | None,
        password: str | None,
        timeout_seconds: float,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidArgument(f"url must begin with http:// or https://, not {shown(url)}")
        if token is not None and user is not None:
            raise InvalidArgument("there is a token or a user, not both")
        self.url = url.rstrip("/")
        self._timeout = seconds_of(timeout_seconds, "timeout_seconds")
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif user is not None:
            known = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {known}"
        # Not elsewhere: what is shown here is for nobody else.
        self._opener = build_opener(_NoRedirects)

    def call(self, method: str, path: str, given: Mapping[str, Any] | None = None) -> Any:
        """Call the API; return what it answers.

        :raises RemoteTaskError: what it tells of, of its own kind.
        :raises ServerAway: nobody answers.
        """
        headers = dict(self._headers)
        body = None
        if given is not None:
            headers["Content-Type"] = "application/json"
            body = _json(given)
        request = Request(f"{self.url}/api/v1{path}", body, headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return json.loads(response.read() or b"null")
        except HTTPError as error:
            with error:
                raise _error_of(error) from None
        except (URLError, HTTPException, OSError) as error:
            raise ServerAway(f"{self.url} does not answer: {describe(error)}") from error
        except ValueError as error:
            raise RemoteTaskError(f"{self.url} does not answer in JSON: {error}") from error


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *arguments: Any) -> None:
        """See `HTTPRedirectHandler`."""
        return None


def _error_of(error: HTTPError) -> RemoteTaskError:
    """Return the error of the package that an answer tells of."""
    try:
        problem = json.loads(error.read())
        detail, name = str(problem["detail"]), problem.get("error")
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        detail, name = str(error.reason), None
    kind = getattr(errors, name, None) if isinstance(name, str) else None
    if isinstance(kind, type) and issubclass(kind, RemoteTaskError):
        return kind(detail)
    if error.code in (502, 503, 504):
        return ServerAway(detail)
    return RemoteTaskError(f"{error.code}: {detail}")


def path_of(jobid: Any, rest: str = "") -> str:
    """Return the path of a call about a job.

    :raises JobNotFound: it can be no job's id.
    """
    if type(jobid) is bool or not re.fullmatch("[0-9a-f]{1,24}", str(jobid)):
        raise JobNotFound(f"there is no job {shown(jobid)}")
    return f"/jobs/{jobid}{rest}"


def follow_up(given: FollowUp | None) -> dict[str, Any] | None:
    """Return a task, or (task, input), as the API takes it."""
    if given is None:
        return None
    task, input = (given, None) if isinstance(given, str) else given
    return {"task": task, "input": input}


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are given."""
    return {name: value for name, value in values.items() if value is not None}


def _json(given: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(given, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"JSON cannot have it: {describe(error)}") from error


def time_text(moment: datetime | None, name: str) -> str | None:
    """Return a time as the API takes it.

    :raises InvalidArgument: it is no aware datetime.
    """
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidArgument(f"{name} must be an aware datetime, not {shown(moment)}")
    return moment.astimezone(timezone.utc).isoformat()


def moment_text(seconds: float | None) -> str | None:
    """Return a time, in seconds since the epoch, as the API takes it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(errors.moment_of(seconds, "before"), timezone.utc).isoformat()


def time_of(text: str | None) -> datetime | None:
    """Return a time that the API tells."""
    return None if text is None else datetime.fromisoformat(text)


# -- what is told of jobs -------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteJob:
    """What is known of a job; the attributes of an `IJob`.

    Those of a list have only the first nine.
    """

    id: Any
    task: str
    status: str
    attempt: int
    error: str | None
    created: datetime | None
    started: datetime | None
    completed: datetime | None
    scheduledFor: datetime | None
    input: Any = None
    output: Any = None
    failures: tuple[Failure, ...] = ()
    note: str | None = None
    deaths: int = 0
    conflicts: int = 0
    is_cancel_requested: bool = False
    progress: Progress | None = None
    log: tuple[LogLine, ...] = ()
    waits_for: str | None = None
    priority: int = 0
    unique_key: str | None = None
    lock: str | None = None
    expires: datetime | None = None
    after: tuple[int, ...] = ()
    awaits: tuple[int, ...] = ()
    cause: int | None = None

    @property
    def __name__(self) -> str:
        """The id as a str."""
        return str(self.id)

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to the job any more."""
        return self.status in FINAL_STATUSES


class RemoteGroup(NamedTuple):
    """How far a group is; see `ITaskService.group`."""

    id: int
    total: int
    completed: int
    errors: int
    cancelled: int
    is_ended: bool

    @property
    def done(self) -> int:
        """How many of its jobs have ended."""
        return self.completed + self.errors + self.cancelled


class RemoteSchedule(NamedTuple):
    """A schedule: a part of what `ITaskService.schedules` tells, and its fields."""

    id: Any
    key: str | None
    task: str
    status: str
    next_run: datetime | None
    last_run: datetime | None
    error: str | None
    is_declared: bool
    fields: dict[str, Any]


#: What says when a schedule runs.
FIELDS = ("minute", "hour", "dayOfMonth", "month", "dayOfWeek", "delay", "timezone", "cron")


def schedule_of(told: Mapping[str, Any]) -> RemoteSchedule:
    """Return a schedule that the API tells of."""
    return RemoteSchedule(
        told["id"],
        told["key"],
        told["task"],
        told["status"],
        time_of(told["next"]),
        time_of(told["last"]),
        told["error"],
        told["declared"],
        {name: told[name] for name in FIELDS},
    )


class RemotePage(NamedTuple):
    """A page of jobs; see `ITaskService.list`."""

    jobs: list[RemoteJob]
    next: str | None


def job_of(told: Mapping[str, Any]) -> RemoteJob:
    """Return a job that the API tells of."""
    progress = told.get("progress")
    return RemoteJob(
        told["id"],
        told["task"],
        told["status"],
        told["attempt"],
        told["error"],
        time_of(told["created"]),
        time_of(told["started"]),
        time_of(told["completed"]),
        time_of(told["scheduled_for"]),
        value_of(told.get("input")),
        value_of(told.get("result")),
        tuple(Failure(**failure) for failure in told.get("failures", ())),
        told.get("note"),
        told.get("deaths", 0),
        told.get("conflicts", 0),
        told.get("cancel_requested", False),
        None if progress is None else Progress(*progress),
        tuple(LogLine(**line) for line in told.get("log", ())),
        told.get("waits_for"),
        told.get("priority", 0),
        told.get("unique_key"),
        told.get("lock"),
        time_of(told.get("expires")),
        tuple(told.get("after", ())),
        tuple(told.get("awaits", ())),
        told.get("cause"),
    )


def value_of(told: Any) -> Any:
    """Return the value that the API tells of; see `lovely.remotetask.web.facts.plain_value`."""
    if isinstance(told, list):
        return [value_of(part) for part in told]
    if not isinstance(told, dict):
        return told
    if len(told) == 1:
        [(kind, content)] = told.items()
        if kind == "$bytes":
            return base64.b64decode(content)
        if kind == "$float":
            return float(content)
        if kind == "$repr":
            return content
        if kind == "$dict":
            return {_key_of(key): value_of(part) for key, part in content}
    return {key: value_of(part) for key, part in told.items()}


def _key_of(told: Any) -> Any:
    key = value_of(told)
    return tuple(key) if isinstance(key, list) else key
