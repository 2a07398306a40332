# SPDX-License-Identifier: ZPL-2.1
"""What is told of jobs, by way of `zope.event`, when it has been committed.

An event holds plain data, as what it is about may have changed by the time it is heard, and the
connection that knew it may be closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zope.component.event
import zope.event
from zope.component import getGlobalSiteManager
from zope.interface import implementedBy, implementer

from lovely.remotetask.base.isolation import call_isolated
from lovely.remotetask.interfaces import (
    IJobAdded,
    IJobAttemptFailed,
    IJobCancelled,
    IJobCompleted,
    IJobEvent,
    IJobFailed,
    IJobRescued,
    IJobStarted,
)

log = logging.getLogger("lovely.remotetask")

#: Subscribers of `zope.event` that no event of a job reaches, or only by way of handlers.
_deaf: list[Callable[[Any], Any]] = [zope.component.event.dispatch]


@implementer(IJobEvent)
@dataclass(frozen=True)
class JobEvent:
    """Something has happened to a job.  See `IJobEvent`."""

    service: str
    database_name: str
    service_oid: bytes | None
    jobid: int
    name: str
    task: str
    attempt: int
    status: str
    time: float


@implementer(IJobAdded)
class JobAdded(JobEvent):
    """See `IJobAdded`."""


@implementer(IJobStarted)
class JobStarted(JobEvent):
    """See `IJobStarted`."""


@implementer(IJobCompleted)
@dataclass(frozen=True)
class JobCompleted(JobEvent):
    """See `IJobCompleted`."""

    seconds: float


@dataclass(frozen=True)
class _Failed(JobEvent):
    seconds: float
    failure: Any


@implementer(IJobAttemptFailed)
class JobAttemptFailed(_Failed):
    """See `IJobAttemptFailed`."""


@implementer(IJobFailed)
class JobFailed(_Failed):
    """See `IJobFailed`."""


@implementer(IJobCancelled)
class JobCancelled(JobEvent):
    """See `IJobCancelled`."""


@implementer(IJobRescued)
@dataclass(frozen=True)
class JobRescued(JobEvent):
    """See `IJobRescued`."""

    failure: Any


def pass_over(subscriber: Callable[[Any], Any]) -> None:
    """Take note that a subscriber of `zope.event` has no interest in jobs."""
    _deaf.append(subscriber)


def is_heard(kind: type) -> bool:
    """Say whether anybody hears events of a class: a subscriber, or a global handler."""
    for subscriber in zope.event.subscribers:
        if subscriber not in _deaf:
            return True
    adapters = getGlobalSiteManager().adapters
    kinds = (implementedBy(kind),)  # type: ignore[no-untyped-call]
    return bool(adapters.subscriptions(kinds, None))


def notify(events: Iterable[JobEvent]) -> None:
    """Let all subscribers hear events, whatever one of them does."""
    for event in events:
        for subscriber in list(zope.event.subscribers):
            try:
                call_isolated(subscriber, event)
            except (Exception, SystemExit):
                text = "a subscriber has failed to hear of job %s (%s)"
                log.exception(text, event.name, type(event).__name__)
