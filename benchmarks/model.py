# SPDX-License-Identifier: ZPL-2.1
"""What more machines would give: jobs a second, calculated from what a few processes have cost.

Three things bound the rate: how long jobs take, how much of a core a worker needs for each (a
process of Python uses one core), and what the storage does one after the other.  A ZEO server is
one thread, and tells every client about each commit: a commit costs it ``base_ms + client_ms *
clients``.  Commits of RelStorage wait for one lock: one costs ``base_ms``, however many wait.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Jobs are taken into account that are longer than a commit, of processes with several threads.
LONG_MS = 20


class Cost(NamedTuple):
    """What a job and a commit cost, in milliseconds.

    :ivar worker_ms: of a core, for a job, in the process that runs it.
    :ivar base_ms: of what a storage does one after the other, for a commit.
    :ivar client_ms: of the same, for each process that has the storage open.
    :ivar commits: for a job; less than 1 where jobs share them.
    """

    worker_ms: float
    base_ms: float
    client_ms: float = 0.0
    commits: float = 1.0

    def rate(self, processes: float, threads: int, job_ms: float, storages: int = 1) -> float:
        """Return the jobs a second of processes with a core each, which share out the storages."""
        job_bound = 1000 * processes * threads / (job_ms + self.worker_ms)
        worker_bound = 1000 * processes / self.worker_ms
        return min(job_bound, worker_bound, self.storage_bound(processes, storages))

    def storage_bound(self, processes: float, storages: int = 1) -> float:
        """Return the jobs a second that storages can write, whoever runs them."""
        commit_ms = self.base_ms + self.client_ms * processes / storages
        return 1000 * storages / (self.commits * commit_ms)


def zeo_cost(fleets: Sequence[dict[str, Any]], commits: Sequence[dict[str, Any]]) -> Cost | None:
    """Return what jobs cost on ZEO, by the processor time that was measured; None for too little.

    :param fleets: and commits, as a run gives them.
    """
    chosen = _on(fleets, "ZEO")
    points = [(each["processes"], each["server_ms"]) for each in commits if each["server_ms"]]
    if not chosen or len({processes for processes, _ in points}) < 2:
        return None
    slope, base = statistics.linear_regression(*zip(*points, strict=True))
    base, slope = max(base, 0.01), max(slope, 0.0)
    a_job = [each["server_ms"] / (base + slope * each["processes"]) for each in chosen]
    return Cost(_worker_ms(chosen), base, slope, statistics.median(a_job))


def postgresql_cost(
    fleets: Sequence[dict[str, Any]], commits: Sequence[dict[str, Any]]
) -> Cost | None:
    """Return what jobs cost on PostgreSQL, if each has a commit of its own; None for too little.

    The best rate of commits is taken that processes have reached together.
    """
    chosen = _on(fleets, "PostgreSQL")
    rates = [each["per_second"] for each in commits if each["storage"] == "PostgreSQL"]
    return Cost(_worker_ms(chosen), 1000 / max(rates)) if chosen and rates else None


def _worker_ms(fleets: Sequence[dict[str, Any]]) -> float:
    return statistics.median(each["worker_ms"] for each in fleets)


def _on(fleets: Sequence[dict[str, Any]], storage: str) -> list[dict[str, Any]]:
    return [
        each
        for each in fleets
        if (each["storage"], each["storages"]) == (storage, 1)
        and each["job_ms"] >= LONG_MS
        and each["threads"]
    ]
