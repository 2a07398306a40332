# SPDX-License-Identifier: ZPL-2.1
"""Metrics for Prometheus: what the services of a database have, and what this process has done.

It needs ``prometheus-client``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import transaction
import zope.event
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine.finding import list_page
from lovely.remotetask.events import (
    JobAdded,
    JobAttemptFailed,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobRescued,
)
from lovely.remotetask.hosts.autostart import find_services, split_patterns
from lovely.remotetask.interfaces import QUEUED
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.worker import list_workers

#: The type of what `metrics_text` returns, for a response.
CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Upper bounds of the buckets that runs are counted in, in seconds.
BUCKETS = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)

#: What a run can come to, by the kind of the event that tells of it.
OUTCOMES: dict[type[JobEvent], str] = {
    JobCompleted: "completed",
    JobAttemptFailed: "failed",
    JobFailed: "error",
    JobCancelled: "cancelled",
    JobRescued: "rescued",
}

#: Gives the services that are to be looked at, for as long as that takes.
Services = Callable[[], AbstractContextManager[Iterable[Any]]]


class JobCollector(Collector):
    """What services have at the moment it is asked; the cost does not grow with their jobs.

    :param services: gives the services.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, so that no database is opened for that."""
        return _gauges().values()

    def collect(self) -> Iterator[Metric]:
        """Look at the services.

        Transaction: reads only.
        """
        gauges = _gauges()
        with self._services() as services:
            for service in services:
                _look(service, gauges)
        yield from gauges.values()


def _gauges() -> dict[str, GaugeMetricFamily]:
    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"remotetask_{name}", text, labels=("service", *labels))

    return {
        "jobs": gauge("jobs", "Jobs by status.", "status"),
        "oldest": gauge("oldest_waiting_seconds", "Age of the oldest job that is ready to run."),
        "workers": gauge("workers", "Workers that hold jobs."),
        "silence": gauge("worker_silence_seconds", "Since the last sign of the quietest worker."),
    }


def _look(service: Any, gauges: dict[str, GaugeMetricFamily]) -> None:
    name = ".".join(path_to(service))
    now = time.time()
    for status, count in count_jobs(service).items():
        gauges["jobs"].add_metric((name, status), count)
    waiting = list_page(service, QUEUED, None, "oldest", None, 1).jobs
    age = max((now - (job.due or job.created_at) for job in waiting), default=0.0)
    gauges["oldest"].add_metric((name,), max(0.0, age))
    workers = list_workers(service)
    gauges["workers"].add_metric((name,), len(workers))
    signs = [worker.last_sign for worker in workers if worker.last_sign is not None]
    silence = now - min(signs).timestamp() if signs else 0.0
    gauges["silence"].add_metric((name,), max(0.0, silence))


def register(
    db: Any, patterns: str = "*@*", registry: CollectorRegistry = REGISTRY
) -> JobCollector:
    """Let a registry collect what the services of a database have, by a connection of its own.

    :param patterns: the services, as ``site@service`` patterns with commas between them.
    :returns: what was registered, for ``registry.unregister``.

    Transaction: none.
    """

    @contextmanager
    def services() -> Iterator[Iterable[Any]]:
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        try:
            matches = find_services(connection.root(), split_patterns(patterns))
            yield (match.service for match in matches)
        finally:
            manager.abort()
            connection.close()

    collector = JobCollector(services)
    registry.register(collector)
    return collector


# -- what this process has done ----------------------------------------------------------------


class _Counted:
    """The metrics that events are counted in."""

    def __init__(self) -> None:
        labels = ("service", "task")
        self.added = Counter(
            "remotetask_jobs_added", "Jobs added by this process.", labels, registry=None
        )
        self.attempts = Counter(
            "remotetask_attempts",
            "What attempts of this process have come to.",
            (*labels, "outcome"),
            registry=None,
        )
        self.seconds = Histogram(
            "remotetask_attempt_seconds",
            "Seconds from the claim of a job to the end of its attempt.",
            labels,
            buckets=BUCKETS,
            registry=None,
        )
        self.metrics: tuple[Collector, ...] = (self.added, self.attempts, self.seconds)

    def hear(self, event: Any) -> None:
        """Count an event."""
        kind = type(event)
        if kind is JobAdded:
            self.added.labels(event.service, event.task).inc()
        elif kind in OUTCOMES:
            self.attempts.labels(event.service, event.task, OUTCOMES[kind]).inc()
            if hasattr(event, "seconds"):
                self.seconds.labels(event.service, event.task).observe(event.seconds)


_counted: _Counted | None = None


def count_events(registry: CollectorRegistry | None = REGISTRY) -> None:
    """Count the jobs that this process adds, and what its attempts come to.

    :param registry: where that is collected too; None leaves it to `metrics_text`.

    Transaction: none.
    """
    global _counted
    if _counted is not None:
        return
    _counted = _Counted()
    zope.event.subscribers.append(_counted.hear)
    for metric in _counted.metrics if registry is not None else ():
        registry.register(metric)  # type: ignore[union-attr]


def count_no_events(registry: CollectorRegistry | None = REGISTRY) -> None:
    """Take back `count_events`.

    Transaction: none.
    """
    global _counted
    if _counted is None:
        return
    zope.event.subscribers.remove(_counted.hear)
    for metric in _counted.metrics if registry is not None else ():
        registry.unregister(metric)  # type: ignore[union-attr]
    _counted = None


def metrics_text(*services: Any) -> str:
    """Return the metrics of services, and what this process has counted, as `CONTENT_TYPE`.

    Transaction: reads only.
    """

    @contextmanager
    def given() -> Iterator[Iterable[Any]]:
        yield services

    registry = CollectorRegistry()
    registry.register(JobCollector(given))
    for metric in () if _counted is None else _counted.metrics:
        registry.register(metric)
    return generate_latest(registry).decode()
