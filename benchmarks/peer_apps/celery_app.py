# SPDX-License-Identifier: ZPL-2.1
"""The job as a task of Celery."""

from __future__ import annotations

import os

import payload
from celery import Celery

app = Celery(
    "benchmark", broker=os.environ["BENCHMARK_REDIS"], backend=os.environ["BENCHMARK_REDIS"]
)
app.conf.update(
    task_default_queue=os.environ["BENCHMARK_QUEUE"],
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=False,
    result_expires=600,
)


@app.task
def noop(value: object = None) -> None:
    """Do nothing."""
    payload.noop(value)
