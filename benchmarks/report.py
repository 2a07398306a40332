# SPDX-License-Identifier: ZPL-2.1
"""Tables, goals, JSON and the picture of one run."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from interleave import Unavailable

BASE = "one tiny ZODB commit"
HUEY_ADD = "huey on SQLite: add"
HUEY_DRAIN = "huey on SQLite: drain"
PROCRASTINATE = "Procrastinate on PostgreSQL: drain"
DRAIN = "drain, by default"
ALONE = "drain, piped=False"
SHARED = "drain, shared_commit=True"
ADD = "add, a commit for each"
CHOSEN = "priorities and locks"
REMOTE_DRAIN = "RemoteProcessor: drain"
REMOTE_ADD = "RemoteProcessor: add"


def threads_row(threads: int, seconds: float) -> str:
    """Name the row of a processor with so many threads, whose jobs take so long."""
    jobs = f"{seconds * 1e3:.0f} ms" if seconds else "no-op"
    return f"{threads or 'own'} thread{'s' * (threads > 1)}, {jobs}"


class Goal(NamedTuple):
    """One line of the table of goals.

    :ivar bound: what is to be reached; less is better where `is_upper`.
    :ivar measure: finds the figure in what a run has found; KeyError when it did not
        measure it.
    """

    name: str
    bound: float
    is_upper: bool
    measure: Callable[[dict[str, Any]], float]
    unit: str = "x"
    scale: float = 1.0


def _ratio(name: str, base: str) -> Callable[[dict[str, Any]], float]:
    def measure(data: dict[str, Any]) -> float:
        rates = data["rates"]
        return float(rates[name]["per_second"] / rates[base]["per_second"])

    return measure


def _flatness(line: str) -> Callable[[dict[str, Any]], float]:
    def measure(data: dict[str, Any]) -> float:
        rates = data["depth"][line].values()
        return float(max(rates) / min(rates))

    return measure


def _as_deep(line: str, base: str) -> Callable[[dict[str, Any]], float]:
    """Compare two lines at the greatest depth."""

    def measure(data: dict[str, Any]) -> float:
        last = list(data["depth"][base])[-1]
        return float(data["depth"][base][last] / data["depth"][line][last])

    return measure


def _value(start: str) -> Callable[[dict[str, Any]], float]:
    def measure(data: dict[str, Any]) -> float:
        return float(next(v for name, v in data["values"].items() if name.startswith(start)))

    return measure


def _latency(name: str, percent: str) -> Callable[[dict[str, Any]], float]:
    return lambda data: float(data["latencies_seconds"][name][percent])


def _conflicts(data: dict[str, Any]) -> float:
    """Return the conflicts and failures in 1,000 commits of all kinds of adders."""
    lines = [found for line in data["conflicts_per_thousand"].values() for found in line.values()]
    if not lines:
        raise KeyError
    met = sum(found["commits"] * (found["conflicts"] + found["failures"]) for found in lines)
    return float(met / sum(found["commits"] for found in lines))


_SAME = "same process, FileStorage"

GOALS = (
    Goal("drain / tiny commit", 1.2, False, _ratio(DRAIN, BASE)),
    Goal("drain, piped=False / tiny commit", 0.6, False, _ratio(ALONE, BASE)),
    Goal(
        "5 threads / the service's own, no-op",
        1.0,
        False,
        _ratio(threads_row(5, 0), threads_row(0, 0)),
    ),
    Goal(
        "16 threads / the service's own, no-op",
        1.0,
        False,
        _ratio(threads_row(16, 0), threads_row(0, 0)),
    ),
    Goal("drain / Procrastinate", 6, False, _ratio(DRAIN, PROCRASTINATE)),
    Goal("shared drain / huey drain", 3, False, _ratio(SHARED, HUEY_DRAIN)),
    Goal("shared drain / Procrastinate", 25, False, _ratio(SHARED, PROCRASTINATE)),
    Goal("add / tiny commit", 0.5, False, _ratio(ADD, BASE)),
    Goal("remote drain / drain, piped=False", 0.8, False, _ratio(REMOTE_DRAIN, ALONE)),
    Goal("remote add / add", 0.8, False, _ratio(REMOTE_ADD, ADD)),
    Goal("add_many / huey add", 3, False, _ratio("add_many, 100 a commit", HUEY_ADD)),
    *(
        Goal(f"{line}: fastest / slowest depth", 1.3, True, _flatness(line))
        for line in ("drain", "drain shared", "add", "add_many")
    ),
    *(
        Goal(f"{line}: plain / {CHOSEN}", 1.5, True, _as_deep(f"{line}, {CHOSEN}", line))
        for line in ("drain", "add")
    ),
    *(
        Goal(f"{name} at the greatest depth", 5, True, _value(f"{name} at"), "ms", 1e3)
        for name in ("cancel", "status", "page of 50", "counts by status")
    ),
    Goal("idle to start, same process, p50", 1, True, _latency(_SAME, "p50"), "ms", 1e3),
    Goal("idle to start, same process, p99", 5, True, _latency(_SAME, "p99"), "ms", 1e3),
    Goal(
        "idle to start, other process, p50",
        5,
        True,
        _latency("other process, ZEO", "p50"),
        "ms",
        1e3,
    ),
    Goal("bytes of a job's life", 2000, True, _value("bytes a job, default"), "B"),
    Goal("bytes of a job's life, shared", 1000, True, _value("bytes a job, shared"), "B"),
    Goal("the same, added 100 a commit", 1000, True, _value("bytes a job, shared, added"), "B"),
    Goal("memory above an idle worker", 60, True, _value("memory at"), "MB", 1e-6),
    Goal("memory after ten times as many jobs", 10, True, _value("memory after"), "MB", 1e-6),
    Goal("tick, 10,000 cron jobs / 10", 1.3, True, _value("tick with many")),
    Goal("4 processes / 1, jobs of 20 ms", 3.5, False, _value("4 processes, ratio")),
    Goal("conflicts in 1,000 commits of adders", 1, True, _conflicts, ""),
    Goal("idle share, FileStorage", 0.5, True, _value("idle share of a core, File"), "%", 100),
    Goal("idle share, ZEO", 0.5, True, _value("idle share of a core, ZEO"), "%", 100),
    Goal("timeOfNextCall, slowest", 0.5, True, _value("timeOfNextCall"), "ms", 1e3),
)


def note(text: str) -> None:
    """Tell what is going on, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "ZODB": version("ZODB"),
        "BTrees": version("BTrees"),
        "ZEO": _version("ZEO"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def tables(data: dict[str, Any]) -> str:
    """Return all that was found as text."""
    here = data["machine"]
    parts = [
        f"{here['processor']}, {here['cores']} cores, {here['system']}, "
        f"Python {here['python']}, ZODB {here['ZODB']}",
        _rates_table(data["rates"]),
        _depth_table(data["depth"]),
        _table(
            ("idle, commit to start", "p50 ms", "p99 ms"),
            [
                (name, f"{found['p50'] * 1e3:.2f}", f"{found['p99'] * 1e3:.2f}")
                for name, found in data["latencies_seconds"].items()
            ],
        ),
        _table(("value", ""), [(name, f"{value:.6g}") for name, value in data["values"].items()]),
        _conflicts_table(data["conflicts_per_thousand"]),
        _table(("goal", "bound", "measured", ""), [*_goal_rows(data)]),
        _table(
            ("skipped", "because", "command"),
            [(item["name"], item["reason"], item["command"]) for item in data["skipped"]],
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _rates_table(rates: dict[str, Any]) -> str:
    def ratio(rate: float, base: str) -> str:
        return f"{rate / rates[base]['per_second']:.2f}" if base in rates else "-"

    return _table(
        ("what", "a second", "spread", "x tiny", "x huey", "durability", "guarantee"),
        [
            (
                name,
                f"{found['per_second']:,.0f}",
                f"{found['spread']:.0%}",
                ratio(found["per_second"], BASE),
                ratio(found["per_second"], HUEY_ADD if "add" in name else HUEY_DRAIN),
                found["durability"],
                found["guarantee"],
            )
            for name, found in rates.items()
        ],
    )


def _depth_table(depth: dict[str, Any]) -> str:
    if not depth:
        return ""
    depths = list(next(iter(depth.values())))
    return _table(
        ("a second, at so many waiting", *(f"{int(n):,}" for n in depths), "max/min"),
        [
            (
                name,
                *(f"{line[n]:,.0f}" for n in depths),
                f"{max(line.values()) / min(line.values()):.2f}",
            )
            for name, line in depth.items()
        ],
    )


def _conflicts_table(found: dict[str, Any]) -> str:
    places = list(dict.fromkeys(where for line in found.values() for where in line))
    return _table(
        ("adders: conflicts + failures in 1,000 commits", *places),
        [
            (
                name,
                *(
                    f"{line[where]['conflicts']:.1f} + {line[where]['failures']:.1f}"
                    for where in places
                ),
            )
            for name, line in found.items()
        ],
    )


def _goal_rows(data: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for goal in GOALS:
        try:
            measured = goal.measure(data) * goal.scale
        except (KeyError, StopIteration):
            continue
        is_met = measured <= goal.bound if goal.is_upper else measured >= goal.bound
        sign = "<=" if goal.is_upper else ">="
        rows.append(
            (
                goal.name,
                f"{sign} {goal.bound:g} {goal.unit}",
                f"{measured:.3g} {goal.unit}" if measured < 1000 else f"{measured:.0f} {goal.unit}",
                "met" if is_met else "MISSED",
            )
        )
    return rows


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(data: dict[str, Any]) -> str:
    """Return all that was found as JSON."""
    return json.dumps(data, indent=2) + "\n"


def plot(data: dict[str, Any], path: Path) -> None:
    """Draw the rates against the number of waiting jobs.

    :raises Unavailable: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("matplotlib is not installed", "pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, line in data["depth"].items():
        axes.plot([int(depth) for depth in line], list(line.values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="waiting jobs", ylabel="jobs a second")
    here = data["machine"]
    axes.set_title(
        f"{here['processor']}, {here['cores']} cores, Python {here['python']}", fontsize=9
    )
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
