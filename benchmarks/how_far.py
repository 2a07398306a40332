# SPDX-License-Identifier: ZPL-2.1
"""The picture of how far it goes: what was measured, and what the model says beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interleave import Unavailable
from model import Cost, postgresql_cost, zeo_cost

#: Threads of each process in the right picture, and the milliseconds of a job.
THREADS, JOB_MS = 16, 20

#: One storage, and several.
STORAGES = (1, 4)

#: How the left picture is drawn: processes and threads -> what they are.
WORKERS = ("1 x 1", "1 x 16", "2 x 16")
LINES = ("o:", "o-", "s--")
COLORS = {"FileStorage": "C2", "ZEO": "C0", "PostgreSQL": "C1"}
SHORTEST_MS = 0.3  # nothing has no place on the axis


def plot(data: dict[str, Any], path: Path) -> None:
    """Draw the rates against the length of jobs, and against the number of workers.

    :raises Unavailable: matplotlib is not installed, or there is nothing to draw.
    """
    if not data["fleets"]:
        raise Unavailable("processes were not measured", "--only threads --only scaling")
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("matplotlib is not installed", "pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "how-far"  # the same file for the same figures
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    _draw_lengths(left, data)
    _draw_workers(right, data)
    here = data["machine"]
    figure.suptitle(
        f"{here['processor']}, {here['cores']} cores, Python {here['python']}; "
        "points are measured, dashed lines calculated",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _draw_lengths(axes: Any, data: dict[str, Any]) -> None:
    """Draw jobs a second against how long they take: a color a storage, a line a number of them."""
    for name, points in _lines(data).items():
        storage, _, workers = name.partition(", ")
        lengths = [max(ms, SHORTEST_MS) for ms, _ in points]
        axes.plot(
            lengths,
            [rate for _, rate in points],
            LINES[WORKERS.index(workers)],
            ms=4,
            label=name,
            color=COLORS[storage],
        )
    _label(axes, "a job takes, milliseconds (0 is drawn at the left edge)")
    axes.set_title("How long jobs take", fontsize=10)


def _lines(data: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Return (milliseconds of a job, jobs a second) by storage, processes and threads."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for name, rate in data["rates"].items():
        who, _, length = name.rpartition(", ")
        if rate["part"] == "threads" and rate["per_second"] and who in ("1 thread", "16 threads"):
            ms = 0 if length == "no-op" else int(length.split()[0])
            workers = f"1 x {who.split()[0]}"
            lines.setdefault(f"FileStorage, {workers}", []).append((ms, rate["per_second"]))
    for each in data["fleets"]:
        workers = f"{each['processes']} x {each['threads'] or 1}"
        if each["storages"] == 1 and workers in WORKERS:
            point = (each["job_ms"], each["per_second"])
            lines.setdefault(f"{each['storage']}, {workers}", []).append(point)
    return {name: sorted(points) for name, points in lines.items() if len(points) > 1}


def _draw_workers(axes: Any, data: dict[str, Any]) -> None:
    """Draw jobs a second against the number of workers, measured and calculated."""
    costs = {
        "ZEO": zeo_cost(data["fleets"], data["commits"]),
        "PostgreSQL": postgresql_cost(data["fleets"], data["commits"]),
    }
    workers = [THREADS * 1.12**step for step in range(42)]
    for storage, cost in costs.items():
        measured = sorted(
            (fleet["processes"] * fleet["threads"], fleet["per_second"])
            for fleet in data["fleets"]
            if (fleet["storage"], fleet["storages"]) == (storage, 1)
            and (fleet["threads"], fleet["job_ms"]) == (THREADS, JOB_MS)
        )
        if measured:
            axes.plot(*zip(*measured, strict=True), "o", color=COLORS[storage], label=storage)
        if cost is not None:
            for storages, line in zip(STORAGES, ("--", ":"), strict=True):
                rates = [_rate(cost, count, storages) for count in workers]
                label = f"{storage}, {storages} storage{'s' * (storages > 1)}"
                axes.plot(workers, rates, line, color=COLORS[storage], label=label)
    axes.plot(
        workers,
        [1000 * count / JOB_MS for count in workers],
        color="0.8",
        label="if nothing but the jobs took time",
    )
    _label(axes, f"jobs at a time, {THREADS} in each process")
    axes.set_title(f"How many workers, jobs of {JOB_MS} ms", fontsize=10)


def _rate(cost: Cost, workers: float, storages: int) -> float:
    return cost.rate(max(1.0, workers / THREADS), THREADS, JOB_MS, storages)


def _label(axes: Any, text: str) -> None:
    from matplotlib import ticker

    axes.set(xscale="log", yscale="log", xlabel=text, ylabel="jobs a second")
    axes.grid(visible=True, which="major", alpha=0.3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(fontsize=8, ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.07))
