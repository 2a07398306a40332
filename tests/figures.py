# SPDX-License-Identifier: ZPL-2.1
"""What the acceptance tests tell in the end: what became of the jobs of killed processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

#: What a test tells its figures as: that goes with its report, from whatever process it runs in.
FIGURES = "what became of the jobs"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures of all tests, and their sums."""
    figures = [
        (report.nodeid.rpartition("::")[2], of_one)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, of_one in report.user_properties
        if name == FIGURES
    ]
    if not figures:
        return
    terminalreporter.section(FIGURES)
    sums: Counter[str] = Counter()
    for _, of_one in figures:
        sums.update(of_one)
    for name, of_one in [*figures, ("all together", dict(sums))]:
        terminalreporter.write_line(name)
        terminalreporter.write_line(
            "    " + ", ".join(f"{count} {what}" for what, count in of_one.items())
        )
