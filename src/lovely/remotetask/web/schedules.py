# SPDX-License-Identifier: ZPL-2.1
"""What can be asked of the schedules of a service, and told to them.

Those of a `TaskService` are jobs that wait for a time; those of a remote processor are items of its
scheduler.  A job that waits for one time only, with a delay, can be told the same, but is not
listed here.  Nothing here commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from time import time
from typing import Any, NamedTuple

from lovely.remotetask.engine import control
from lovely.remotetask.engine.finding import Filter, list_page
from lovely.remotetask.errors import InvalidArgument, JobNotFound, TaskNotFound, plain, shown
from lovely.remotetask.interfaces import CRONJOB, PROCESSING, STARTLATER
from lovely.remotetask.job import CronJob
from lovely.remotetask.remote.calltime import next_call_time, next_delay_time
from lovely.remotetask.remote.scheduler import CRON_FIELDS, Cron, Delay
from lovely.remotetask.schedule import zone_named
from lovely.remotetask.web.facts import id_of, plain_value, time_text
from lovely.remotetask.web.operations import check_outside, find_job, is_remote, is_schedule

#: Schedules that rest are looked for on so many pages of jobs that are to be started later.
LOOKS = 10

#: So many next times are told.
NEXT_TIMES = 10

Numbers = Iterable[int]


class Fields(NamedTuple):
    """When a schedule runs; see `ITaskService.addCronJob`."""

    minute: Numbers = ()
    hour: Numbers = ()
    dayOfMonth: Numbers = ()
    month: Numbers = ()
    dayOfWeek: Numbers = ()
    delay: float | None = None
    timezone: str | None = None
    cron: str | None = None


def _for_items(fields: Fields) -> dict[str, Any]:
    """Return the attributes of a scheduler item.

    :raises InvalidArgument: items have no such fields.
    """
    if fields.timezone is not None or fields.cron is not None:
        raise InvalidArgument("the schedules of a remote processor have neither zone nor cron")
    sets = {name: list(getattr(fields, name)) for name in CRON_FIELDS}
    if fields.delay is None:
        return sets
    if any(sets.values()):
        raise InvalidArgument("a schedule has a delay or fields, not both")
    return {"delay": fields.delay}


# -- finding -------------------------------------------------------------------------------


class SchedulePage(NamedTuple):
    """Some schedules: jobs or items, those first that are due first; ``next`` as in a `Page`."""

    schedules: list[Any]
    next: str | None


def list_schedules(service: Any, after: str | None = None, limit: int = 50) -> SchedulePage:
    """Return a page of schedules; those that run and those that rest are on the first one.

    :param after: the ``next`` of the page before.
    :raises InvalidArgument: one of them makes no sense.
    """
    if is_remote(service):
        return _list_items(service, after, limit)
    chosen = Filter(is_schedule)
    waiting = list_page(service, CRONJOB, None, "oldest", after, limit, chosen)
    others: list[Any] = []
    if after is None:
        for status in (PROCESSING, STARTLATER):
            others += _look_through(service, status, chosen, limit)
    return SchedulePage([*others, *waiting.jobs], waiting.next)


def _look_through(service: Any, status: str, chosen: Filter, limit: int) -> list[Any]:
    """Return schedules that stand among other jobs, of which no more than some are looked at."""
    found: list[Any] = []
    after: str | None = None
    for _ in range(LOOKS):
        page = list_page(service, status, None, "newest", after, limit, chosen)
        found += page.jobs
        after = page.next
        if after is None:
            break
    return found


def _list_items(service: Any, after: str | None, limit: int) -> SchedulePage:
    # Their ids are in the order in which they were added.
    items = [item for itemid, item in service.scheduler.items() if after is None or itemid > after]
    found = items[:limit]
    return SchedulePage(found, found[-1].__name__ if len(items) > limit else None)


def find_schedule(service: Any, schedule_id: Any) -> Any:
    """Return a schedule, or a job with a delay.

    :raises JobNotFound: there is none.
    """
    if is_remote(service):
        item = service.scheduler.get(schedule_id)
        if item is None:
            raise JobNotFound(f"there is no schedule {shown(schedule_id)}")
        return item
    job = find_job(service, schedule_id)
    if not isinstance(job, CronJob) or job.is_final:
        raise JobNotFound(f"job {schedule_id} is no schedule")
    return job


def fields_of(schedule: Any) -> Fields:
    """Return when a schedule runs."""
    sets: dict[str, Any] = {name: list(getattr(schedule, name, ())) for name in CRON_FIELDS}
    others: dict[str, Any] = {
        name: getattr(schedule, name, None) for name in ("delay", "timezone", "cron")
    }
    return Fields(**sets, **others)


def schedule_told(schedule: Any) -> dict[str, Any]:
    """Return what programs are told of a schedule."""
    told = {**fields_of(schedule)._asdict(), "input": plain_value(schedule.input)}
    if not isinstance(schedule, CronJob):
        return {
            "id": schedule.__name__,
            "key": None,
            "declared": False,
            "task": schedule.jobName,
            "status": CRONJOB if schedule.active else STARTLATER,
            "paused": not schedule.active,
            "next": time_text(schedule.nextCallTime),
            "last": None,
            "error": None,
            "missed": None,
            **told,
        }
    return {
        "id": id_of(schedule),
        "key": schedule.key,
        "declared": schedule.is_declared,
        "task": schedule.task,
        "status": schedule.status,
        "paused": schedule.status == STARTLATER,
        "next": time_text(schedule.scheduledFor),
        "last": time_text(schedule.started),
        "error": schedule.error,
        "missed": schedule.missed,
        **told,
    }


# -- when they run -------------------------------------------------------------------------


def next_times(
    fields: Fields, is_of_remote: bool = False, now: float | None = None, count: int = NEXT_TIMES
) -> list[datetime]:
    """Return the next times of a schedule, in its time zone; of a delay there is one.

    :param is_of_remote: as a remote processor counts them.
    :param now: seconds since the epoch; None is the present.
    :raises InvalidSchedule: it makes no sense.
    """
    now = time() if now is None else now
    if is_of_remote:
        return _next_calls(fields, datetime.fromtimestamp(now, timezone.utc), count)
    job = CronJob(1, "", **fields._asdict())
    if job.delay is not None:
        return [datetime.fromtimestamp(now + job.delay, timezone.utc)]
    zone = timezone.utc if job.timezone is None else zone_named(job.timezone)
    times = []
    for _ in range(count):
        now = job.schedule.next_time(now)
        times.append(datetime.fromtimestamp(now, zone))
    return times


def _next_calls(fields: Fields, now: datetime, count: int) -> list[datetime]:
    attributes = _for_items(fields)
    times: list[datetime] = []
    if fields.delay is not None:
        delay = Delay(attributes).delay
        for _ in range(count):
            now = next_delay_time(delay, now)
            times.append(now)
        return times
    item = Cron(attributes)
    for _ in range(count):
        now = next_call_time(item, now, now)
        times.append(now)
    return times


# -- telling them --------------------------------------------------------------------------


def _check_task(service: Any, task: str) -> None:
    """Refuse the name of what nobody runs here.

    :raises TaskNotFound: there is no such task, or factory.
    """
    known = service.getJobFactory(task) if is_remote(service) else service.find_task(task)
    if known is None:
        raise TaskNotFound(f"no task is registered under the name {shown(task)}")


def add_schedule(service: Any, task: str, input: Any, fields: Fields) -> Any:
    """Add a schedule, or a job with a delay; return its id.

    :raises TaskNotFound: there is no such task.
    :raises InvalidSchedule: it makes no sense, or can never come true.
    """
    check_outside(service, input)
    if not is_remote(service):
        return service.addCronJob(task, input, **fields._asdict())
    _check_task(service, task)
    attributes = _for_items(fields)
    kind = Cron if fields.delay is None else Delay
    return service.addScheduler(
        kind({**attributes, "jobName": task, "input": input, "active": True})
    )


def ensure_schedule(service: Any, key: str, task: str, input: Any, fields: Fields) -> int:
    """Let there be a schedule with a key; return its id.  See `ITaskService.ensure`.

    :raises InvalidArgument: it is a remote processor.
    """
    if is_remote(service):
        raise InvalidArgument("the schedules of a remote processor have no keys")
    check_outside(service, input)
    jobid: int = service.ensure(key, task, input, **fields._asdict())
    return jobid


def remove_key(service: Any, key: str) -> bool:
    """Remove the schedule with a key; say whether there was one."""
    return bool(not is_remote(service) and service.remove_schedule(key))


def edit_schedule(service: Any, schedule_id: Any, task: str, fields: Fields) -> None:
    """Let a schedule run at other times, or another task, and count its next time from now.

    :raises JobNotFound: there is no such schedule.
    :raises InvalidSchedule: it makes no sense, or can never come true; nothing is changed.
    :raises InvalidArgument: another task is told to one that runs.
    """
    schedule = find_schedule(service, schedule_id)
    if is_remote(service):
        _edit_item(service, schedule, task, fields)
        return
    if task != schedule.task:
        _check_task(service, task)
        if schedule.status == PROCESSING:
            raise InvalidArgument(f"job {schedule_id} runs: its task can be changed when it waits")
    schedule.update(**fields._asdict())  # refuses what makes no sense before it changes anything
    if task != schedule.task:
        schedule.task = plain(task)
    if schedule.status != STARTLATER:  # it is counted when it goes on
        control.reschedule(service, schedule.id)


def _edit_item(service: Any, item: Any, task: str, fields: Fields) -> None:
    _check_task(service, task)
    attributes = _for_items(fields)
    if isinstance(item, Delay) is (fields.delay is None):
        kind = "a delay" if fields.delay is None else "no delay"
        raise InvalidArgument(f"schedule {item.__name__} has {kind}: add another one in its place")
    type(item)({**attributes, "jobName": task})  # refuses what makes no sense
    item.jobName = task
    for name, value in attributes.items():
        setattr(item, name, value)
    service.reScheduleItem(item)


def pause_schedule(service: Any, schedule_id: Any) -> str:
    """Let a schedule rest; return what has come of it.

    :raises InvalidArgument: it runs just now, or is no schedule that waits.
    """
    schedule = find_schedule(service, schedule_id)
    if is_remote(service):
        schedule.active = False
    else:
        control.rest(service, schedule.id)
    return "is paused"


def resume_schedule(service: Any, schedule_id: Any) -> str:
    """Let a schedule that rests wait for its next time; return what has come of it.

    :raises InvalidArgument: it does not rest.
    """
    schedule = find_schedule(service, schedule_id)
    if not is_remote(service):
        control.go_on(service, schedule.id)
    elif schedule.active:
        raise InvalidArgument(f"schedule {schedule_id} is not paused")
    else:
        schedule.active = True
        service.reScheduleItem(schedule)
    return "goes on"


def run_schedule(service: Any, schedule_id: Any) -> str:
    """Let a schedule run once more, at once; return what has come of it."""
    schedule = find_schedule(service, schedule_id)
    if is_remote(service):
        return f"has added job {service.addJob(schedule.jobName, schedule.input)}"
    control.run_now(service, schedule.id)
    return "is due now"


def remove_schedule(service: Any, schedule_id: Any) -> str:
    """Remove a schedule; one that runs is asked to stop.  Return what has come of it."""
    schedule = find_schedule(service, schedule_id)
    if is_remote(service):
        service.scheduler.remove(schedule)
        return "is removed"
    if schedule.status == PROCESSING:
        control.cancel_job(service, schedule)
        return "is asked to stop"
    control.discard(service, schedule.id)
    return "is removed"


#: What a schedule can be told: the verb -> called with the service and the id.
VERBS: dict[str, Callable[[Any, Any], str]] = {
    "pause": pause_schedule,
    "resume": resume_schedule,
    "run-now": run_schedule,
}
