# SPDX-License-Identifier: ZPL-2.1
"""How many jobs a service has, by status."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.interfaces import PROCESSING, STATUSES
from lovely.remotetask.store.quarantine import load


def count_jobs(service: Any) -> dict[str, int]:
    """Return the number of jobs with each status; it takes a look at those that workers hold.

    Transaction: reads only.
    """
    counts = {status: service.queue.count(status) for status in service.queue.indexes}
    counts[PROCESSING] = 0
    for worker in service.workers.values():
        for jobid in worker.held:
            job = load(service.jobs, jobid)
            if job is None:
                continue
            if job.status == PROCESSING:
                counts[PROCESSING] += 1
            elif not job.is_unwanted and service.queue.has_to_be_filed(job):
                counts[job.status] += 1
    return {status: counts[status] for status in STATUSES}
