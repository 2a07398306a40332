# SPDX-License-Identifier: ZPL-2.1
"""Counts in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import Any

from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.web.facts import pattern_of
from lovely.remotetask.web.overview import oldest_waiting, workers_told

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Name -> what it is.
GAUGES = {
    "remotetask_jobs": "Jobs, by status.",
    "remotetask_oldest_waiting_seconds": "Age of the job that has waited longest to be run.",
    "remotetask_workers": "Workers that hold jobs.",
    "remotetask_workers_silent": "Those of them that have given no sign of life for a lease.",
    "remotetask_claimed_jobs": "Jobs that workers hold.",
}


def metrics_text(services: Iterable[Match], now: float | None = None) -> str:
    """Return the counts of services.

    Transaction: reads only.
    """
    now = time() if now is None else now
    lines: dict[str, list[str]] = {name: [] for name in GAUGES}
    for match in services:
        for name, labels, value in _samples(match.service, now):
            labels = {"service": pattern_of(match), **labels}
            told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            lines[name].append(f"{name}{{{told}}} {value}")
    parts = []
    for name, text in GAUGES.items():
        parts += [f"# HELP {name} {text}", f"# TYPE {name} gauge", *lines[name]]
    return "\n".join(parts) + "\n"


def _samples(service: Any, now: float) -> Iterable[tuple[str, dict[str, str], float]]:
    for status, count in count_jobs(service).items():
        yield "remotetask_jobs", {"status": status}, count
    oldest = oldest_waiting(service)
    waited = 0.0 if oldest is None else max(0.0, now - oldest.timestamp())
    yield "remotetask_oldest_waiting_seconds", {}, waited
    workers = workers_told(service, now)
    yield "remotetask_workers", {}, len(workers)
    yield "remotetask_workers_silent", {}, sum(not worker["alive"] for worker in workers)
    yield "remotetask_claimed_jobs", {}, sum(len(worker["held"]) for worker in workers)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
