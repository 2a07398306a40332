# SPDX-License-Identifier: ZPL-2.1
"""The job as a task of Procrastinate."""

from __future__ import annotations

import os

import payload
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCHMARK_POSTGRES"]))


@app.task(name="noop")
def noop(value: object = None) -> None:
    """Do nothing."""
    payload.noop(value)
