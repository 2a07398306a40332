# SPDX-License-Identifier: ZPL-2.1
"""Spans of OpenTelemetry: the trace of who adds a job goes on in its runs.

It needs ``opentelemetry-api``; where the spans go to, an application says to the SDK.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from transaction.interfaces import TransientError

from lovely.remotetask.around import (
    forget_around,
    forget_context,
    register_around,
    register_context,
)
from lovely.remotetask.base.site import path_to
from lovely.remotetask.context import TaskContext
from lovely.remotetask.errors import JobCancelled, RetryLater, describe, is_kind

#: What both are registered as.
NAME = "opentelemetry"

#: How a run can end that is no error of the task.
ENDS: tuple[tuple[type[BaseException], str], ...] = (
    (JobCancelled, "cancelled"),
    (RetryLater, "retry later"),
    (TransientError, "conflict"),
)

# Not what the application propagates besides, as baggage: what travels with a job is small.
_propagator = TraceContextTextMapPropagator()
_provider: TracerProvider | None = None


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Let jobs that are added in this process take the trace along, and their runs make spans.

    :param tracer_provider: None is the global one.

    Transaction: none.
    """
    global _provider
    _provider = tracer_provider
    register_context(NAME, _capture, _restored)
    register_around(NAME, _spanned)


def uninstrument() -> None:
    """Take back `instrument`.

    Transaction: none.
    """
    forget_context(NAME)
    forget_around(NAME)


def _capture() -> dict[str, str] | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier or None


@contextmanager
def _restored(carrier: dict[str, str]) -> Iterator[None]:
    token = otel_context.attach(_propagator.extract(carrier))
    try:
        yield
    finally:
        otel_context.detach(token)


@contextmanager
def _spanned(job: Any, context: TaskContext) -> Iterator[None]:
    """Make a span of a run; of one that is repeated after a conflict, each has one."""
    tracer = trace.get_tracer("lovely.remotetask", tracer_provider=_provider)
    with tracer.start_as_current_span(
        f"process {job.task}",
        kind=SpanKind.CONSUMER,
        attributes={
            "messaging.system": "lovely.remotetask",
            "messaging.operation.type": "process",
            "messaging.destination.name": _name_of(context.service),
            "messaging.message.id": job.__name__,
            "remotetask.task": job.task,
            "remotetask.attempt": job.attempt,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as error:
            _record(span, error)
            raise


def _name_of(service: Any) -> str:
    if getattr(service, "_p_jar", None) is None:
        return str(getattr(service, "__name__", None) or "")
    return ".".join(path_to(service))


def _record(span: Span, error: BaseException) -> None:
    for kind, end in ENDS:
        if is_kind(error, kind):
            span.set_attribute("remotetask.end", end)
            return
    span.set_status(Status(StatusCode.ERROR, describe(error)))
    with suppress(Exception):  # of an exception that cannot be printed
        span.record_exception(error)
