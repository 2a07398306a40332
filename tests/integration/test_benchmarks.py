# SPDX-License-Identifier: ZPL-2.1
"""The benchmarks still run; what they find here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"


def test_a_tiny_run_measures_rates_depth_bytes_and_schedules(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    parts = ("rates", "depth", "bytes", "schedule")
    only = [word for part in parts for word in ("--only", part)]
    done = subprocess.run(
        [sys.executable, str(RUN), "--tiny", "--json", str(found), *only],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(found.read_text(encoding="utf-8"))
    assert all(rate["per_second"] > 0 for rate in data["rates"].values())
    assert set(data["depth"]) == {
        *("drain", "drain shared", "add", "add_many"),
        *("drain, priorities and locks", "add, priorities and locks"),
    }
    assert data["values"]["bytes a job, default"] > 0
    assert "drain / tiny commit" in done.stdout
