# SPDX-License-Identifier: ZPL-2.1
"""Whether there is nothing more to do: what ``remotetask run --drain`` waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import transaction

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.service import Service
from lovely.remotetask.hosts.autostart import find_all_services
from lovely.remotetask.interfaces import CRONJOB, DELAYED, QUEUED
from lovely.remotetask.store.count import count_jobs


def is_drained(databases: list[Any], patterns: list[str]) -> bool:
    """Say whether no job of the services that patterns name can be run, by anybody, or runs.

    Jobs that wait for another attempt are waited for.  Those that were added for a later time,
    schedules, and jobs that are held back (by a pause, a task that no worker knows, or another
    job that waits so) are not.

    Transaction: reads only, through connections of its own.
    """
    found, has_others = 0, False
    for service in _services(databases, patterns):
        found += 1
        if not isinstance(service, Service):
            has_others = True
        elif not _is_drained(service):
            return False
    return bool(found) and not (has_others and any(map(_has_work, registry.all_started())))


def _services(databases: list[Any], patterns: list[str]) -> Iterator[Any]:
    for db in databases:
        with closing(db.open(transaction.TransactionManager())) as connection:
            for match in find_all_services(connection.root(), patterns):
                yield match.service


def _is_drained(service: Any) -> bool:
    if service.workers:
        return False
    queue, now = service.queue, time.time()
    if queue.is_paused:
        return True
    if queue.awaits_attempt(now):
        return False
    return not queue.has_waiting(service.jobs, now, lambda name: service.find_task(name))


def _has_work(processor: Any) -> bool:
    """Say whether a processor, of any store, has work."""
    engine = processor.engine
    if engine.claims.in_hand:
        return True
    with engine.claims.open_beside() as session:
        return bool(engine.news.has_waiting(session))


def what_is_left(databases: list[Any], patterns: list[str]) -> str:
    """Return a text about the jobs that wait all the same.

    Transaction: reads only, through connections of its own.
    """
    left = {"delayed": 0, "schedules": 0, "held back": 0}
    for service in _services(databases, patterns):
        if isinstance(service, Service):
            counts = count_jobs(service)
            left["delayed"] += counts[DELAYED]
            left["schedules"] += counts[CRONJOB]
            left["held back"] += counts[QUEUED]
    told = ", ".join(f"{count:,} {what}" for what, count in left.items() if count)
    return told and f" (left for later: {told})"
