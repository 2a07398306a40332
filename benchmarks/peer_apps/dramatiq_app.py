# SPDX-License-Identifier: ZPL-2.1
"""The job as an actor of Dramatiq."""

from __future__ import annotations

import os

import dramatiq
import payload
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ["BENCHMARK_REDIS"], namespace=os.environ["BENCHMARK_QUEUE"])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(value: object = None) -> None:
    """Do nothing."""
    payload.noop(value)
