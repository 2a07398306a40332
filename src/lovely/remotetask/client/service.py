# SPDX-License-Identifier: ZPL-2.1
"""A service on another machine, as if it were here: see `RemoteService`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import datetime
from types import EllipsisType
from typing import Any
from urllib.parse import urlencode

from lovely.remotetask.base.loglines import LogLine
from lovely.remotetask.client.wire import (
    FIELDS,
    FollowUp,
    RemoteGroup,
    RemoteJob,
    RemotePage,
    RemoteSchedule,
    Wire,
    follow_up,
    job_of,
    moment_text,
    path_of,
    schedule_of,
    time_of,
    time_text,
    without_none,
)
from lovely.remotetask.errors import (
    InvalidArgument,
    JobFailed,
    JobNotDone,
    JobNotFound,
    inputs_of,
    seconds_of,
)
from lovely.remotetask.interfaces import COMPLETED, ERROR, FINAL_STATUSES
from lovely.remotetask.job import Progress
from lovely.remotetask.store.worker import WorkerState

#: Who waits looks again after so many seconds at first, and at the most.
FIRST_LOOK_SECONDS = 0.05
LAST_LOOK_SECONDS = 1.0

#: A call takes no longer, in seconds.
TIMEOUT_SECONDS = 30.0

Ids = list[Any]
Lines = list[LogLine]
Workers = list[WorkerState]
Names = list[str | None]
Schedules = list[RemoteSchedule]


class RemoteService:
    """A service that another machine serves by ``remotetask web``, or in another host.

    Its methods are those of `ITaskService`, with the same errors; each call is a transaction of its
    own on that machine, and is committed when it returns.  Inputs are what JSON can have.  Results
    come back as the API tells them: tuples and sets as lists, times and decimals as texts.

    :param url: the address of the service, such as ``https://jobs.example.com/site@tasks``.
    :param token: what is shown as ``Authorization: Bearer``.
    :param user: in place of a token a name, by HTTP Basic.
    :param password: and its password.
    :param timeout_seconds: how long one call may take.
    :raises InvalidArgument: they make no sense.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._wire = Wire(url, token, user, password, timeout_seconds)

    def __repr__(self) -> str:
        return f"<RemoteService {self._wire.url}>"

    # -- adding -------------------------------------------------------------------------

    def getAvailableTasks(self) -> dict[str, None]:
        """Return a dict whose keys are the names that jobs can be added for."""
        return dict.fromkeys(self._wire.call("GET", "/tasks")["tasks"])

    def add(
        self,
        task: str,
        input: Any = None,
        startLater: bool = False,
        delay: float | None = None,
        at: datetime | None = None,
        note: str | None = None,
        priority: int | None = None,
        unique_key: str | None = None,
        lock: str | None = None,
        expires: float | datetime | None = None,
        after: int | Iterable[int] = (),
        on_success: FollowUp | None = None,
        on_error: FollowUp | None = None,
    ) -> Any:
        """See `ITaskService`."""
        given = {
            "delay": delay,
            "at": time_text(at, "at"),
            "note": note,
            "start_later": True if startLater else None,
            "priority": priority,
            "unique_key": unique_key,
            "lock": lock,
            "expires": time_text(expires, "expires") if isinstance(expires, datetime) else expires,
            "after": ([after] if isinstance(after, int) else list(after)) or None,
            "on_success": follow_up(on_success),
            "on_error": follow_up(on_error),
        }
        return self._wire.call(
            "POST", "/jobs", {"task": task, "input": input, **without_none(given)}
        )["id"]

    def add_many(self, task: str, inputs: Iterable[Any], priority: int | None = None) -> Ids:
        """See `ITaskService`; a thousand at the most."""
        given = {"task": task, "inputs": list(inputs_of(inputs)), "priority": priority}
        ids: Ids = self._wire.call("POST", "/job-batches", without_none(given))["ids"]
        return ids

    def addCronJob(
        self,
        task: str,
        input: Any = None,
        minute: Iterable[int] = (),
        hour: Iterable[int] = (),
        dayOfMonth: Iterable[int] = (),
        month: Iterable[int] = (),
        dayOfWeek: Iterable[int] = (),
        delay: float | None = None,
        timezone: str | None = None,
        cron: str | None = None,
    ) -> Any:
        """See `ITaskService`."""
        fields = _fields((minute, hour, dayOfMonth, month, dayOfWeek), delay, timezone, cron)
        return self._wire.call("POST", "/schedules", {"task": task, "input": input, **fields})["id"]

    def add_group(
        self,
        task: str,
        inputs: Iterable[Any],
        then: FollowUp,
        priority: int | None = None,
        lock: str | None = None,
    ) -> Any:
        """See `ITaskService`; of a thousand jobs at the most."""
        given = {"task": task, "inputs": list(inputs_of(inputs)), "then": follow_up(then)}
        given |= without_none({"priority": priority, "lock": lock})
        return self._wire.call("POST", "/groups", given)["id"]

    def group(self, groupid: Any) -> RemoteGroup:
        """See `ITaskService`; the results are those of its jobs."""
        told = self._wire.call("GET", path_of(groupid).replace("/jobs/", "/groups/", 1))
        return RemoteGroup(**told)

    def find(self, unique_key: str) -> Any:
        """See `ITaskService`."""
        return self._wire.call("POST", "/unique-keys", {"key": unique_key})["id"]

    # -- schedules by their keys --------------------------------------------------------

    def ensure(
        self,
        key: str,
        task: str,
        input: Any = None,
        minute: Iterable[int] = (),
        hour: Iterable[int] = (),
        dayOfMonth: Iterable[int] = (),
        month: Iterable[int] = (),
        dayOfWeek: Iterable[int] = (),
        delay: float | None = None,
        timezone: str | None = None,
        cron: str | None = None,
    ) -> Any:
        """See `ITaskService`."""
        fields = _fields((minute, hour, dayOfMonth, month, dayOfWeek), delay, timezone, cron)
        given = {"key": key, "task": task, "input": input, **fields}
        return self._wire.call("PUT", "/schedule-keys", given)["id"]

    def remove_schedule(self, key: str) -> bool:
        """See `ITaskService`."""
        return bool(self._wire.call("POST", "/schedule-keys/remove", {"key": key})["removed"])

    def schedules(self) -> Schedules:
        """Return all schedules, those first that are due first."""
        found: Schedules = []
        after: str | None = None
        while True:
            page = self._wire.call("GET", f"/schedules?{urlencode(without_none({'after': after}))}")
            found += map(schedule_of, page["schedules"])
            after = page["next"]
            if after is None:
                return found

    # -- one job ------------------------------------------------------------------------

    def job(self, jobid: Any) -> RemoteJob:
        """See `ITaskService`."""
        return job_of(self._wire.call("GET", path_of(jobid)))

    def getStatus(self, jobid: Any) -> str:
        """See `ITaskService`."""
        return self.job(jobid).status

    def getResult(self, jobid: Any) -> Any:
        """See `ITaskService`."""
        return self.job(jobid).output

    def getError(self, jobid: Any) -> str:
        """See `ITaskService`."""
        return str(self.job(jobid).error)

    def getProgress(self, jobid: Any) -> Progress | None:
        """See `ITaskService`."""
        return self.job(jobid).progress

    def getLog(self, jobid: Any) -> Lines:
        """See `ITaskService`."""
        return [*self.job(jobid).log]

    def cancel(self, jobid: Any) -> None:
        """See `ITaskService`."""
        try:
            self._wire.call("POST", path_of(jobid, "/cancel"))
        except JobNotFound:
            return

    def retry(self, jobid: Any, input: Any | EllipsisType = ...) -> None:
        """See `ITaskService`."""
        self._wire.call(
            "POST", path_of(jobid, "/retry"), None if input is ... else {"input": input}
        )

    def run_now(self, jobid: Any) -> None:
        """See `ITaskService`."""
        self._wire.call("POST", path_of(jobid, "/run-now"))

    def reschedule(self, jobid: Any) -> None:
        """See `ITaskService`."""
        self._wire.call("POST", path_of(jobid, "/reschedule"))

    def undo(self, jobid: Any, by: str | None = None) -> None:
        """See `ITaskService`; without a name the user whom the other side knows."""
        self._wire.call("POST", path_of(jobid, "/undo"), without_none({"by": by}))

    def startJob(self, jobid: Any) -> bool:
        """See `ITaskService`."""
        try:
            self._wire.call("POST", path_of(jobid, "/start"))
        except InvalidArgument:
            return False
        return True

    # -- waiting ------------------------------------------------------------------------

    def wait(self, jobid: Any, timeout_seconds: float | None = None) -> str:
        """Wait until a job has ended, and return its status; see `ITaskService`.

        It asks again and again, once a second at the most.
        """
        return self._wait_for(jobid, _end_of(timeout_seconds)).status

    def wait_all(
        self, jobids: Iterable[Any], timeout_seconds: float | None = None
    ) -> dict[Any, str]:
        """See `ITaskService`."""
        end = _end_of(timeout_seconds)
        return {jobid: self._wait_for(jobid, end).status for jobid in jobids}

    def wait_result(self, jobid: Any, timeout_seconds: float | None = None) -> Any:
        """See `ITaskService`."""
        job = self._wait_for(jobid, _end_of(timeout_seconds))
        if job.status == COMPLETED:
            return job.output
        if job.is_final:
            raise JobFailed.of(job)
        raise JobNotDone(f"job {jobid} has not ended, it is {job.status}")

    def _wait_for(self, jobid: Any, end: float | None) -> RemoteJob:
        pause = FIRST_LOOK_SECONDS
        while True:
            job = self.job(jobid)
            rest = LAST_LOOK_SECONDS if end is None else end - time.monotonic()
            if job.is_final or rest <= 0:
                return job
            threading.Event().wait(min(pause, rest))
            pause = min(2 * pause, LAST_LOOK_SECONDS)

    # -- all jobs -----------------------------------------------------------------------

    def list(
        self,
        status: str | None = None,
        task: str | None = None,
        order: str = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> RemotePage:
        """See `ITaskService`."""
        query = {"status": status, "task": task, "order": order, "after": after, "limit": limit}
        found = self._wire.call("GET", f"/jobs?{urlencode(without_none(query))}")
        return RemotePage([job_of(told) for told in found["jobs"]], found["next"])

    def errors(
        self,
        task: str | None = None,
        order: str = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> RemotePage:
        """See `ITaskService`."""
        return self.list(ERROR, task, order, after, limit)

    def countJobs(self) -> dict[str, int]:
        """See `ITaskService`."""
        counts: dict[str, int] = self._wire.call("GET", "/service")["jobs"]
        return counts

    def clean(self, status: Iterable[str] = FINAL_STATUSES) -> None:
        """See `ITaskService`; some hundreds in one transaction."""
        self._wire.call("POST", "/clean", {"status": list(status)})

    def remove_oldest(
        self, status: str, limit: int | None = None, before: float | None = None
    ) -> int:
        """See `ITaskService`."""
        given = without_none({"limit": limit, "before": moment_text(before)})
        removed = self._wire.call("POST", "/clean", {"status": [status], **given})["removed"]
        count: int = removed[status]
        return count

    def retry_all(
        self, task: str | None = None, before: float | None = None, limit: int = 500
    ) -> int:
        """See `ITaskService`."""
        given = without_none({"task": task, "before": moment_text(before), "limit": limit})
        count: int = self._wire.call("POST", "/retry", given)["count"]
        return count

    def pause(self, task: str | None = None) -> None:
        """See `ITaskService`."""
        self._wire.call("POST", "/service/pause", without_none({"task": task}))

    def resume(self, task: str | None = None) -> None:
        """See `ITaskService`."""
        self._wire.call("POST", "/service/resume", without_none({"task": task}))

    def list_paused(self) -> Names:
        """See `ITaskService`."""
        names = self._wire.call("GET", "/service")["paused"]
        return [None if name == "all tasks" else name for name in names]

    def list_workers(self) -> Workers:
        """See `ITaskService`."""
        workers = []
        for told in self._wire.call("GET", "/workers")["workers"]:
            facts = {name: told[name] for name in WorkerState._fields if name in told}
            facts.update(held=tuple(told["held"]), last_sign=time_of(told["last_sign"]))
            workers.append(WorkerState(**facts))
        return workers

    # -- threads of the machine that serves it ------------------------------------------

    def startProcessing(self) -> None:
        """Let the process that serves it work on its jobs."""
        self._wire.call("POST", "/service/start")

    def stopProcessing(self) -> None:
        """Let that process work on its jobs no more."""
        self._wire.call("POST", "/service/stop")

    def isProcessing(self) -> bool:
        """Say whether that process works on its jobs."""
        return bool(self._wire.call("GET", "/service")["processing"])


def _fields(
    sets: tuple[Iterable[int], ...], delay: float | None, timezone: str | None, cron: str | None
) -> dict[str, Any]:
    """Return when a schedule runs, as the API takes it."""
    fields: dict[str, Any] = {
        name: list(values) for name, values in zip(FIELDS[: len(sets)], sets, strict=True)
    }
    return {**fields, **without_none({"delay": delay, "timezone": timezone, "cron": cron})}


def _end_of(timeout_seconds: float | None) -> float | None:
    if timeout_seconds is None:
        return None
    return time.monotonic() + seconds_of(timeout_seconds, "timeout_seconds")
