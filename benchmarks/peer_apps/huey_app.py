# SPDX-License-Identifier: ZPL-2.1
"""The job as a task of huey."""

from __future__ import annotations

import os

import payload
from huey import SqliteHuey

huey = SqliteHuey("benchmark", filename=os.environ["BENCHMARK_HUEY"], fsync=True)
noop = huey.task()(payload.noop)
nap = huey.task()(payload.nap)
