# SPDX-License-Identifier: ZPL-2.1
"""What the settings of a service can be: checked when they are set, and when they are read.

A release that did not look may have stored anything, and so may who writes past the service.
A worker must neither stumble over that nor turn around it, so it reads such a setting as if
it had not been set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from math import isnan
from typing import Any

from zope.interface.interface import InterfaceClass

from lovely.remotetask.errors import (
    MAX_WAIT_SECONDS,
    InvalidArgument,
    JobIsLive,
    RemoteTaskError,
    is_kind,
    is_true,
    list_of,
    number_of,
    plain,
    seconds_of,
    shown,
    whole_of,
)
from lovely.remotetask.interfaces import FINAL_STATUSES, STATUSES

#: Workers look at each other three times in a lease: a shorter one would keep them busy.
MIN_LEASE_SECONDS = 0.1

#: No processor runs more threads than this.
MAX_THREADS = 1_000

#: No limit of a task is higher.
MAX_LIMIT = 1_000_000

#: So many statuses are taken at once, some of them more than once.
MAX_STATUSES = 1_000

#: No more than this is put around the jobs of a service.
MAX_NAMES = 100

#: No level of `logging` is higher.
MAX_LEVEL = 1_000

#: How long jobs of one status are kept: seconds, and a number of jobs; None is no bound.
Bounds = tuple[float | None, int | None]


def check_lease_seconds(value: Any) -> float:
    """Return a lease."""
    seconds = number_of(value)
    if not MIN_LEASE_SECONDS <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidArgument(
            f"lease_seconds must be {MIN_LEASE_SECONDS} or more seconds, not {shown(value)}"
        )
    return seconds


def check_max_deaths(value: Any) -> int:
    """Return a number of deaths."""
    number = whole_of(value)
    if number is None or number < 1:
        raise InvalidArgument(f"max_deaths must be an int of 1 or more, not {shown(value)}")
    return number


def bound_of(value: Any, name: str) -> int | None:
    """Return a bound; None is no bound.

    :param name: names the value in the error's message.
    """
    number = whole_of(value)
    if value is not None and (number is None or number < 0):
        raise InvalidArgument(f"{name} must be an int of 0 or more, or None, not {shown(value)}")
    return number


def end_of(before: Any) -> float | None:
    """Return the time before which something was, in seconds since the epoch; None is no bound.

    :raises InvalidArgument: it is no number.
    """
    end = None if before is None else number_of(before)
    if end is not None and isnan(end):
        raise InvalidArgument(f"before must be seconds since the epoch, not {shown(before)}")
    return end


def check_processor_factory(value: Any) -> Any:
    """Return a factory."""
    if not callable(value):
        raise InvalidArgument(f"processorFactory must be a callable, not {shown(value)}")
    return value


def check_processor_arguments(value: Any) -> dict[str, Any]:
    """Return keywords, in a dict of their own."""
    arguments = _items(value, "processorArguments")
    for name in arguments:
        if not is_kind(name, str):
            raise InvalidArgument(f"processorArguments must have names, not {shown(name)}")
    arguments = {plain(name): argument for name, argument in arguments.items()}
    if "waitTime" in arguments:
        arguments["waitTime"] = seconds_of(arguments["waitTime"], "waitTime")
    if "maxThreads" in arguments:
        arguments["maxThreads"] = check_max_threads(arguments["maxThreads"])
    return arguments


def check_max_threads(value: Any) -> int:
    """Return a number of threads."""
    number = whole_of(value)
    if number is None or not 1 <= number <= MAX_THREADS:
        raise InvalidArgument(
            f"maxThreads must be an int of 1 to {MAX_THREADS}, not {shown(value)}"
        )
    return number


def check_limits(value: Any) -> dict[str, int]:
    """Return how many jobs of a task run at once, by the name of the task."""
    limits = {}
    for task, limit in _items(value, "limits").items():
        if not is_kind(task, str):
            raise InvalidArgument(f"limits must have names of tasks, not {shown(task)}")
        number = whole_of(limit)
        if number is None or not 1 <= number <= MAX_LIMIT:
            raise InvalidArgument(
                f"limits[{shown(task)}] must be an int of 1 to {MAX_LIMIT}, not {shown(limit)}"
            )
        limits[plain(task)] = number
    return limits


def check_task_interface(value: Any) -> Any:
    """Return an interface."""
    if not is_kind(value, InterfaceClass):
        raise InvalidArgument(f"taskInterface must be an interface, not {shown(value)}")
    return value


def check_retention(value: Any) -> dict[str, Bounds]:
    """Return how long jobs are kept, by status."""
    retention = {}
    for status, bounds in _items(value, "retention").items():
        status = check_final(status)
        retention[status] = _check_bounds(status, bounds)
    return retention


def check_final(status: Any) -> str:
    """Return a final status.

    :raises JobIsLive: it is none.
    """
    name = plain(status) if is_kind(status, str) else ""
    if name not in STATUSES:
        raise JobIsLive(f"there is no status {shown(status)}")
    if name not in FINAL_STATUSES:
        raise JobIsLive(f"jobs that are {shown(status)} are still needed; cancel them instead")
    return name


def check_finals(value: Any) -> list[str]:
    """Return final statuses; one may be given by its name alone.

    :raises JobIsLive: one of them is none.
    :raises InvalidArgument: one is no status at all, or they are too many.
    """
    return [check_final(name) for name in check_statuses(value, "status", STATUSES)]


def check_statuses(value: Any, name: str, known: Collection[str]) -> list[str]:
    """Return statuses; one may be given by its name alone.

    :param name: names the value in the error's message.
    :param known: the statuses that there are.
    :raises InvalidArgument: one is no status at all, or they are too many.
    """
    given = (value,) if is_kind(value, str) else value
    statuses = list_of(given, name, InvalidArgument, MAX_STATUSES)
    for status in statuses:
        if not is_kind(status, str) or plain(status) not in known:
            raise InvalidArgument(f"there is no status {shown(status)}")
    return list(map(plain, statuses))


def _check_bounds(status: str, value: Any) -> Bounds:
    try:
        age, count = tuple.__iter__(value)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"retention[{status!r}] must be a Retention, not {shown(value)}"
        ) from None
    seconds = None if age is None else seconds_of(age, "max_age_seconds")
    return seconds, bound_of(count, "max_count")


def check_log_level(value: Any) -> int | None:
    """Return the least level of the log lines that are kept; None keeps none."""
    if value is None:
        return None
    number = whole_of(value)
    if number is None and is_kind(value, str):
        named = logging.getLevelName(plain(value).upper())
        number = named if type(named) is int else None
    if number is None or not 0 <= number <= MAX_LEVEL:
        raise InvalidArgument(f"log_level must be a level of logging, or None, not {shown(value)}")
    return number


def check_around(value: Any) -> tuple[str, ...]:
    """Return names of what is put around jobs."""
    names = list_of(
        (value,) if is_kind(value, str) else value, "around", InvalidArgument, MAX_NAMES
    )
    for name in names:
        if not is_kind(name, str) or not plain(name):
            raise InvalidArgument(f"around must be names, not {shown(name)}")
    return tuple(map(plain, names))


def _items(value: Any, name: str) -> dict[Any, Any]:
    try:
        if issubclass(type(value), Mapping):
            return dict(value.items())
    except Exception:  # whatever somebody's mapping raises
        pass
    raise InvalidArgument(f"{name} must be a dict, not {shown(value)}")


#: By the name of the setting: what returns it as it is to be stored.
CHECKS: dict[str, Callable[[Any], Any]] = {
    "around": check_around,
    "lease_seconds": check_lease_seconds,
    "limits": check_limits,
    "log_level": check_log_level,
    "max_deaths": check_max_deaths,
    "max_input_bytes": partial(bound_of, name="max_input_bytes"),
    "max_input_depth": partial(bound_of, name="max_input_depth"),
    "piped": partial(is_true, name="piped"),
    "processorArguments": check_processor_arguments,
    "processorFactory": check_processor_factory,
    "retention": check_retention,
    "taskInterface": check_task_interface,
}


def read(service: Any, name: str) -> Any:
    """Return a setting of a service, or its default where what is stored makes no sense."""
    try:
        return CHECKS[name](getattr(service, name))
    except RemoteTaskError:
        return getattr(type(service), name)


def bounds_of(service: Any) -> Iterator[tuple[str, Bounds]]:
    """Yield how long jobs are kept, by status; where that makes no sense they are kept for ever."""
    for status in FINAL_STATUSES:
        try:
            bounds = _items(service.retention, "retention").get(status)
            if bounds is not None:
                yield status, _check_bounds(status, bounds)
        except RemoteTaskError:
            continue
