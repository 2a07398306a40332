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


ADD_MANY = "add_many, 100 a commit"
PROCRASTINATE_HERE = "Procrastinate: drain"  # in the same rounds as ours on PostgreSQL
PROCRASTINATE_ADD = "Procrastinate: add"
ASYNC = "Procrastinate, tasks of a loop, 10 at once: drain"
PGQUEUER = "PgQueuer, batches of 100: drain"


TOLD = "other process, PostgreSQL, told"  # by the trigger of ``remotetask init --notify``
POLLED = "other process, PostgreSQL, polled"


def floor_row(count: int) -> str:
    """Name the row of what ZODB alone does where jobs are added, so many in a commit."""
    return f"ZODB alone, {count} new in a BTree and a queue a commit"


def on(storage: str, name: str) -> str:
    """Name the row of what runs on a server."""
    return f"{storage}: {name}"


def threads_row(threads: int, seconds: float) -> str:
    """Name the row of a processor with so many threads, whose jobs take so long."""
    return f"{threads or 'own'} thread{'s' * (threads > 1)}, {_length(seconds)}"


def peer_row(name: str, seconds: float) -> str:
    """Name the row of a peer that runs so many jobs at once, whose jobs take so long."""
    return f"{name} at once, {_length(seconds)}"


def plan_row(storage: str, plan: Any) -> str:
    """Name the row of processes that work at a time."""
    threads = f" x {plan.threads}" if plan.threads else ""
    storages = f" on {plan.storages} storages" if plan.storages > 1 else ""
    return f"{storage}: {plan.processes}{threads}{storages}, {_length(plan.job_ms / 1000)}"


def _length(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds else "no-op"


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


def _idle(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda data: float(data["values"][f"idle transactions a second, {name}"])


def _fleet(processes: int, threads: int, job_ms: int) -> Callable[[dict[str, Any]], float]:
    """Return the jobs a second of processes on ZEO."""

    def measure(data: dict[str, Any]) -> float:
        return float(_chosen(data["fleets"], "ZEO", processes, threads, job_ms)["per_second"])

    return measure


def _fleets(job_ms: int) -> Callable[[dict[str, Any]], float]:
    """Compare four processes on ZEO with one."""
    return lambda data: _fleet(4, 0, job_ms)(data) / _fleet(1, 0, job_ms)(data)


def _workers_conflicts(processes: int) -> Callable[[dict[str, Any]], float]:
    """Return the conflicts in a thousand commits of workers on ZEO, with jobs of 5 ms."""

    def measure(data: dict[str, Any]) -> float:
        return float(_chosen(data["fleets"], "ZEO", processes, 0, 5)["conflicts_per_thousand"])

    return measure


def _chosen(fleets: Any, storage: str, processes: int, threads: int, job_ms: int) -> Any:
    wanted = {"storage": storage, "processes": processes, "threads": threads, "job_ms": job_ms}
    return next(
        fleet for fleet in fleets if fleet["storages"] == 1 and wanted.items() <= fleet.items()
    )


def _adders(storage: str, together: int) -> Callable[[dict[str, Any]], float]:
    """Compare four adding processes with one."""

    def measure(data: dict[str, Any]) -> float:
        rates = {
            found["adders"]: found["per_second"]
            for found in data["adders"]
            if (found["storage"], found["together"]) == (storage, together)
        }
        return float(rates[4] / rates[1])

    return measure


def _failures(data: dict[str, Any]) -> float:
    return float(max(found["failures_per_thousand"] for found in data["adders"]))


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
    Goal(
        "16 threads / huey with 16, 5 ms",
        0.8,
        False,
        _ratio(threads_row(16, 0.005), peer_row("huey, 16", 0.005)),
    ),
    Goal("ZEO: drain / tiny commit", 3, False, _ratio(on("ZEO", DRAIN), on("ZEO", BASE))),
    Goal(
        "PostgreSQL: drain / Procrastinate",
        3,
        False,
        _ratio(on("PostgreSQL", DRAIN), PROCRASTINATE_HERE),
    ),
    Goal("FileStorage: drain / Procrastinate", 6, False, _ratio(DRAIN, PROCRASTINATE)),
    Goal("shared drain / huey drain", 3, False, _ratio(SHARED, HUEY_DRAIN)),
    Goal("FileStorage: shared drain / Procrastinate", 25, False, _ratio(SHARED, PROCRASTINATE)),
    Goal("add / tiny commit", 0.5, False, _ratio(ADD, BASE)),
    Goal("add / ZODB alone", 0.95, False, _ratio(ADD, floor_row(1))),
    Goal("add_many / ZODB alone", 0.85, False, _ratio(ADD_MANY, floor_row(100))),
    Goal("remote drain / drain, piped=False", 0.8, False, _ratio(REMOTE_DRAIN, ALONE)),
    Goal("remote add / add", 0.8, False, _ratio(REMOTE_ADD, ADD)),
    Goal("add_many / huey add", 3, False, _ratio(ADD_MANY, HUEY_ADD)),
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
    Goal("idle to start, PostgreSQL, p50", 5, True, _latency(TOLD, "p50"), "ms", 1e3),
    Goal("idle to start, PostgreSQL, p99", 15, True, _latency(TOLD, "p99"), "ms", 1e3),
    Goal("idle transactions a second, PostgreSQL", 2, True, _idle(TOLD), ""),
    Goal("the same, polled", 2, True, _idle(POLLED), ""),
    Goal("bytes of a job's life", 2000, True, _value("bytes a job, default"), "B"),
    Goal("bytes of a job's life, shared", 1000, True, _value("bytes a job, shared"), "B"),
    Goal("the same, added 100 a commit", 1000, True, _value("bytes a job, shared, added"), "B"),
    Goal("memory above an idle worker", 60, True, _value("memory at"), "MB", 1e-6),
    Goal("memory after ten times as many jobs", 10, True, _value("memory after"), "MB", 1e-6),
    Goal("tick, 10,000 cron jobs / 10", 1.3, True, _value("tick with many")),
    Goal("ZEO: 4 processes / 1, 20 ms", 3.7, False, _fleets(20)),
    Goal("ZEO: 4 processes / 1, 5 ms", 3.6, False, _fleets(5)),
    Goal("ZEO: conflicts in 1,000 commits, 4 processes", 30, True, _workers_conflicts(4), ""),
    Goal("ZEO: conflicts in 1,000 commits, 8 processes", 80, True, _workers_conflicts(8), ""),
    Goal("ZEO: 2 x 16 threads, 20 ms", 1100, False, _fleet(2, 16, 20), "jobs/s"),
    *(
        Goal(f"{storage}: 4 adders / 1, {name}", bound, False, _adders(storage, together))
        for storage, bound in (("ZEO", 0.9), ("PostgreSQL", 0.8))
        for together, name in ((1, "add"), (100, "add_many(100)"))
    ),
    Goal("adders: failures in 1,000 commits", 0, True, _failures, ""),
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
        *(_rates_table(data["rates"], part) for part in COLUMNS),
        _threads_table(data["rates"]),
        _fleets_table(data["fleets"]),
        _commits_table(data["commits"]),
        _adders_table(data["adders"]),
        _starts_table(data["starts_seconds"]),
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
            ("skipped or failed", "because", "command"),
            [(item["name"], item["reason"], item["command"]) for item in data["skipped"]],
        ),
    ]
    return "\n\n".join(part for part in parts if part)


#: The parts with tables of rates -> what their rows are compared with: (head, row).
COLUMNS = {
    "rates": (("x tiny", BASE), ("x huey", HUEY_DRAIN)),
    "zeo": (("x tiny", on("ZEO", BASE)),),
    "postgresql": (
        ("x tiny", on("PostgreSQL", BASE)),
        ("x Procrastinate", PROCRASTINATE_HERE),
        ("x its loop", ASYNC),
        ("x PgQueuer", PGQUEUER),
    ),
}

#: What rows that add are compared with instead.
ADDING = {
    HUEY_DRAIN: HUEY_ADD,
    PROCRASTINATE_HERE: PROCRASTINATE_ADD,
    ASYNC: "",
    PGQUEUER: "PgQueuer: add",
}


def _rates_table(rates: dict[str, Any], part: str) -> str:
    def ratio(name: str, rate: float | None, base: str) -> str:
        if "add" in name and base in ADDING:
            base = ADDING[base]
            if "100 a commit" in name and f"{base}, 100 a commit" in rates:
                base += ", 100 a commit"
        of = rates.get(base, {}).get("per_second")
        return f"{rate / of:.2f}" if rate and of else "-"

    columns = COLUMNS[part]
    return _table(
        ("what", "a second", "spread", *(head for head, _ in columns), "durability", "guarantee"),
        [
            (
                name,
                f"{found['per_second']:,.0f}" if found["per_second"] else "-",
                "failed" if found["failure"] else _spread(found),
                *(ratio(name, found["per_second"], base) for _, base in columns),
                found["durability"],
                found["guarantee"],
            )
            for name, found in rates.items()
            if found["part"] == part
        ],
    )


def _spread(found: dict[str, Any]) -> str:
    return f"{found['spread']:.0%}" if len(found["slices"]) > 2 else "-"


def _threads_table(rates: dict[str, Any]) -> str:
    """Return who runs how many jobs at once against how long they take; x is that of huey."""
    found: dict[str, dict[str, float | None]] = {}
    for name, rate in rates.items():
        who, _, length = name.rpartition(", ")
        if rate["part"] == "threads" and who:
            found.setdefault(who, {})[length] = rate["per_second"]
    lengths = list(dict.fromkeys(length for line in found.values() for length in line))

    def cell(who: str, length: str) -> str:
        rate = found[who].get(length)
        if rate is None:
            return "failed" if length in found[who] else "-"
        count = who.split()[0]
        peer = "huey, 1 at once" if count == "own" else f"huey, {count} at once"
        base = found.get(peer, {}).get(length)
        is_ours = "thread" in who and base
        return f"{rate:,.0f} ({rate / base:.2f})" if is_ours and base else f"{rate:,.0f}"

    return _table(
        ("jobs a second (x huey), FileStorage", *lengths),
        [(who, *(cell(who, length) for length in lengths)) for who in found],
    )


def _fleets_table(fleets: Any) -> str:
    def ideal(fleet: Any) -> str:
        if not fleet["job_ms"]:
            return "-"
        most = 1000 * fleet["processes"] * max(1, fleet["threads"]) / fleet["job_ms"]
        return f"{fleet['per_second'] / most:.0%}"

    return _table(
        (
            *("storage", "storages", "processes", "threads", "job ms", "jobs a second"),
            *("of what jobs allow", "spread", "server ms", "workers ms"),
            "conflicts in 1,000 commits",
        ),
        [
            (
                fleet["storage"],
                str(fleet["storages"]),
                str(fleet["processes"]),
                str(fleet["threads"] or "own"),
                str(fleet["job_ms"]),
                f"{fleet['per_second']:,.0f}",
                ideal(fleet),
                f"{fleet['spread']:.0%}",
                f"{fleet['server_ms']:.2f}",
                f"{fleet['worker_ms']:.2f}",
                f"{fleet['conflicts_per_thousand']:.0f}",
            )
            for fleet in fleets
        ],
    )


def _commits_table(commits: Any) -> str:
    return _table(
        ("storage", "processes that commit", "commits a second", "server ms"),
        [
            (
                found["storage"],
                str(found["processes"]),
                f"{found['per_second']:,.0f}",
                f"{found['server_ms']:.2f}" if found["server_ms"] else "-",
            )
            for found in commits
        ],
    )


def _adders_table(adders: Any) -> str:
    return _table(
        ("storage", "adders", "jobs a commit", "jobs a second", "conflicts a commit", "failures"),
        [
            (
                found["storage"],
                str(found["adders"]),
                str(found["together"]),
                f"{found['per_second']:,.0f}",
                f"{found['conflicts_per_commit']:.2f}",
                f"{found['failures_per_thousand']:.1f} of 1,000",
            )
            for found in adders
        ],
    )


def _starts_table(starts: dict[str, float]) -> str:
    bare = next(iter(starts.values()), 1.0)
    return _table(
        ("start to end", "ms", "x bare"),
        [
            (name, f"{seconds * 1e3:.0f}", f"{seconds / bare:.1f}")
            for name, seconds in starts.items()
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
        except (KeyError, StopIteration, ValueError, TypeError):  # not measured, or it failed
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
