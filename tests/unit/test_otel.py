# SPDX-License-Identifier: ZPL-2.1
"""The trace of who adds a job goes on in its runs, by the SDK of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ZODB.POSException import ConflictError

from lovely.remotetask.errors import RetryLater, TaskError
from lovely.remotetask.interfaces import COMPLETED

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from lovely.remotetask.hosts import otel


class Tracing:
    """A provider, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    tracing = Tracing()
    otel.instrument(tracing.provider)
    yield tracing
    otel.uninstrument()
    tracing.provider.shutdown()


def test_the_trace_of_the_adder_goes_on_in_the_run(workshop: Any, tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("request") as request:
        jobid = workshop.add("echo", 5)
    workshop.work()
    _, run = tracing.spans
    assert run.parent is not None
    assert run.parent.span_id == request.get_span_context().span_id
    assert run.context.trace_id == request.get_span_context().trace_id
    assert (run.name, run.kind, run.status.status_code) == (
        *("process echo", SpanKind.CONSUMER, StatusCode.UNSET),
    )
    assert dict(run.attributes or {}) == {
        "messaging.system": "lovely.remotetask",
        "messaging.operation.type": "process",
        "messaging.destination.name": "tasks",
        "messaging.message.id": str(jobid),
        "remotetask.task": "echo",
        "remotetask.attempt": 1,
    }


def test_a_job_of_no_trace_begins_one(workshop: Any, tracing: Tracing) -> None:
    jobid = workshop.add("echo")
    assert workshop.get(jobid, "carried") is None
    workshop.work()
    [run] = tracing.spans
    assert run.parent is None


def test_the_span_is_current_in_the_task_and_no_longer_behind_it(
    workshop: Any, tracing: Tracing, register: Any
) -> None:
    seen: list[Any] = []
    register("look", lambda input: seen.append(trace.get_current_span().get_span_context()))
    workshop.add("look")
    workshop.work()
    [run] = tracing.spans
    assert [context.span_id for context in seen] == [run.context.span_id]
    assert not trace.get_current_span().get_span_context().is_valid


def test_what_a_run_adds_belongs_to_the_same_trace(
    workshop: Any, tracing: Tracing, register: Any
) -> None:
    register("add", lambda context, input: context.service.add("echo"), context=True)
    workshop.add("add")
    workshop.work()
    first, second = tracing.spans
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id


def test_a_failure_is_recorded(workshop: Any, tracing: Tracing, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no luck")

    register("fail", fail)
    workshop.add("fail")
    workshop.work()
    [run] = tracing.spans
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "no luck")
    [event] = run.events
    assert (event.name, (event.attributes or {})["exception.message"]) == ("exception", "no luck")


def test_each_attempt_has_a_span(workshop: Any, tracing: Tracing, register: Any) -> None:
    def later(input: Any) -> None:
        if len(tracing.spans) < 2:
            raise RetryLater(1.0)

    register("later", later)
    workshop.add("later")
    for _ in range(3):
        workshop.work()
        workshop.now += 5
    told = [
        (dict(run.attributes or {})["remotetask.attempt"], run.status.status_code)
        for run in tracing.spans
    ]
    assert told == [(1, StatusCode.UNSET), (2, StatusCode.UNSET), (3, StatusCode.UNSET)]
    assert [(run.attributes or {}).get("remotetask.end") for run in tracing.spans] == [
        *("retry later", "retry later", None),
    ]


def test_a_conflict_in_the_task_is_no_error(workshop: Any, tracing: Tracing, register: Any) -> None:
    def collide(input: Any) -> None:
        if not tracing.spans:
            raise ConflictError

    register("collide", collide)
    jobid = workshop.add("collide")
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED
    assert [(run.attributes or {}).get("remotetask.end") for run in tracing.spans] == [
        *("conflict", None),
    ]


class Hostile(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_exception_that_cannot_be_printed_ends_the_span_all_the_same(
    workshop: Any, tracing: Tracing, register: Any
) -> None:
    def fail(input: Any) -> None:
        raise Hostile

    register("fail", fail)
    workshop.add("fail")
    workshop.step()
    [run] = tracing.spans
    assert run.status.status_code == StatusCode.ERROR
