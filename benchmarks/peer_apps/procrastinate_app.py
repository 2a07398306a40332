# SPDX-License-Identifier: ZPL-2.1
"""The job as a task of Procrastinate."""

from __future__ import annotations

import os

import payload
from procrastinate import App, PsycopgConnector

# As many connections as it has jobs at once, and some for itself.
connector = PsycopgConnector(
    conninfo=os.environ["BENCHMARK_POSTGRES"],
    min_size=1,
    max_size=int(os.environ["BENCHMARK_AT_ONCE"]) + 3,
)
app = App(connector=connector)


@app.task(name="noop")
def noop(value: object = None) -> None:
    """Do nothing."""
    payload.noop(value)


@app.task(name="nap")
async def nap(value: float) -> None:
    """Take a while."""
    await payload.nap_in_loop(value)
