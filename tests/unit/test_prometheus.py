# SPDX-License-Identifier: ZPL-2.1
"""What is told to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import STATUSES

pytest.importorskip("prometheus_client")

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from lovely.remotetask.hosts.prometheus import (
    count_events,
    count_no_events,
    metrics_text,
    register,
)

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def counted() -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    count_events(registry)
    yield registry
    count_no_events(registry)


def samples_of(text: str) -> Samples:
    """Return the values of samples by their names and the values of their labels."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def told(workshop: Any) -> Samples:
    with workshop.service() as service:
        return samples_of(metrics_text(service))


def test_jobs_are_told_by_status(workshop: Any) -> None:
    for _ in range(2):
        workshop.add("echo")
    workshop.add("echo", delay=3600)
    workshop.step()
    found = told(workshop)
    jobs = {status: found["remotetask_jobs", "tasks", status] for status in STATUSES}
    assert {status: count for status, count in jobs.items() if count} == {
        "queued": 1,
        "completed": 1,
        "delayed": 1,
    }
    assert found["remotetask_workers", "tasks"] == 1
    assert 0 <= found["remotetask_worker_silence_seconds", "tasks"] < 3600


def test_the_age_of_the_oldest_job_that_waits_is_told(workshop: Any) -> None:
    assert told(workshop)["remotetask_oldest_waiting_seconds", "tasks"] == 0.0
    old, _ = workshop.add("echo"), workshop.add("echo")
    with workshop.service() as service:
        service.jobs[old].created_at -= 500.0
    assert 500.0 <= told(workshop)["remotetask_oldest_waiting_seconds", "tasks"] < 4000.0


def test_what_this_process_does_is_counted(
    workshop: Any, counted: CollectorRegistry, register: Any
) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    workshop.add("echo")
    workshop.add("echo")
    workshop.add("fail")
    workshop.work()
    with workshop.service() as service:
        service.cancel(service.add("echo", delay=3600))
    found = told(workshop)
    assert found["remotetask_jobs_added_total", "tasks", "echo"] == 3
    attempts = {
        key[1:]: value for key, value in found.items() if key[0] == "remotetask_attempts_total"
    }
    assert attempts == {
        ("completed", "tasks", "echo"): 2,
        ("error", "tasks", "fail"): 1,
        ("cancelled", "tasks", "echo"): 1,
    }
    assert found["remotetask_attempt_seconds_count", "tasks", "echo"] == 2
    labels = {"service": "tasks", "task": "echo"}
    assert counted.get_sample_value("remotetask_jobs_added_total", labels) == 3


def test_counting_twice_counts_once(workshop: Any, counted: CollectorRegistry) -> None:
    count_events(counted)
    workshop.add("echo")
    assert told(workshop)["remotetask_jobs_added_total", "tasks", "echo"] == 1


def test_where_nothing_is_counted_there_are_no_counters(workshop: Any) -> None:
    workshop.add("echo")
    assert not [key for key in told(workshop) if key[0].endswith("_total")]


def test_a_registry_collects_by_a_connection_of_its_own(workshop: Any) -> None:
    workshop.new_service("other")
    workshop.add("echo")
    registry = CollectorRegistry()
    register(workshop.db, "@tasks", registry)
    workshop.add("echo")
    labels = {"service": "tasks", "status": "queued"}
    assert registry.get_sample_value("remotetask_jobs", labels) == 2
    assert registry.get_sample_value("remotetask_jobs", {**labels, "service": "other"}) is None
    everywhere = register(workshop.db)
    try:
        labels = {"service": "other", "status": "queued"}
        assert REGISTRY.get_sample_value("remotetask_jobs", labels) == 0
    finally:
        REGISTRY.unregister(everywhere)
    assert not [c for c in workshop.db.connectionDebugInfo() if c["opened"]][1:]
