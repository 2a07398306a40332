# SPDX-License-Identifier: ZPL-2.1
"""Measure everything; print one table, and how near the goals are.  See README.rst."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import adders
import payload
import report
import single
from interleave import SLICE_SECONDS, Contender, Rates, Unavailable, interleave
from ours import Add, AddMany, Drain, Rewrite, TinyCommit
from peers import PEERS, Peer
from places import (
    ChosenPlace,
    Place,
    PostgresPlace,
    RemotePlace,
    ThreadsPlace,
    ZeoPlace,
    register_tasks,
)

from lovely.remotetask.engine import registry

#: The parts, by the names that `--only` takes.
PARTS = (
    *("rates", "threads", "depth", "latency", "bytes", "cron", "scaling", "idle", "schedule"),
    *("memory", "conflicts"),
)


class Extent:
    """How much is measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        tiny, quick = arguments.tiny, arguments.quick
        self.is_full = not (tiny or quick)
        self.has_peers = not tiny
        self.threads = [0, 5] if tiny else [0, 1, 5, 16]
        self.slice_seconds = 0.1 if tiny else 0.35 if quick else SLICE_SECONDS
        self.rounds = 1 if tiny else 3 if quick else 11
        self.depths = (
            [100] if tiny else [1000, 10_000] if quick else [1000, 10_000, 100_000, 1_000_000]
        )
        self.samples = 5 if tiny else 30 if quick else 200
        self.jobs = 20 if tiny else 200 if quick else 2000
        self.memory_jobs = 100 if tiny else 5000 if quick else 100_000
        self.cron_jobs = 50 if tiny else 10_000
        self.scaling_rounds = 1 if quick or tiny else 5
        self.adding_seconds = 0.2 if tiny else 0.5 if quick else 3.0
        self.idle_seconds = 0.2 if tiny else 2.0 if quick else 10.0


class Run:
    """One run, and what it found."""

    def __init__(self, extent: Extent, note: Callable[[str], None]) -> None:
        self.extent = extent
        self.note = note
        self.rates: dict[str, Rates] = {}
        self.depth: dict[str, dict[int, float]] = {}
        self.latencies: dict[str, dict[str, float]] = {}
        self.values: dict[str, float] = {}
        self.conflicts: dict[str, dict[str, dict[str, float]]] = {}
        self.skipped: list[tuple[str, str, str]] = []

    def measure(self, part: str) -> None:
        """Measure one part; what cannot run here is noted as skipped."""
        self.note(part)
        try:
            getattr(self, f"_measure_{part}")()
        except Unavailable as error:
            self.skipped.append((part, str(error), error.command))

    def _interleave(self, contenders: list[Contender]) -> dict[str, Rates]:
        return interleave(contenders, self.extent.rounds, self.extent.slice_seconds, self.note)

    # -- rates ------------------------------------------------------------------------

    def _measure_rates(self) -> None:
        with ExitStack() as stack:
            place = stack.enter_context(closing(Place()))
            remote = stack.enter_context(closing(RemotePlace()))
            contenders: list[Contender] = [
                TinyCommit(),
                Rewrite(),
                Drain(report.DRAIN, place),
                Drain(report.ALONE, place, is_piped=False),
                Drain(report.REMOTE_DRAIN, remote, is_piped=False),
                Drain(report.SHARED, place, is_shared=True),
                Add(report.ADD),
                Add(report.REMOTE_ADD, make_place=RemotePlace),
                AddMany("add_many, 100 a commit"),
                *(peer() for peer in PEERS if self.extent.has_peers),
            ]
            opened = []
            for contender in contenders:
                self.note(f"starting {contender.name}")
                try:
                    contender.open()
                except Unavailable as error:
                    self.skipped.append((contender.name, str(error), error.command))
                else:
                    opened.append(contender)
                    stack.callback(contender.close)
            self.rates |= self._interleave(opened)
            for contender in opened:
                if isinstance(contender, Peer) and contender.has_worker:
                    self.note(f"latency of {contender.name}")
                    self._measure_peer_latency(contender)

    def _measure_threads(self) -> None:
        with ExitStack() as stack:
            contenders: list[Contender] = [] if report.BASE in self.rates else [TinyCommit()]
            for seconds in (0.0, 0.005):
                for threads in self.extent.threads:
                    place = ThreadsPlace(threads, seconds) if threads else Place()
                    stack.enter_context(closing(place))
                    if threads or not seconds:
                        rate = max(1, threads) / seconds if seconds else 4_000.0
                        name = report.threads_row(threads, seconds)
                        contenders.append(Drain(name, place, rate=rate))
            for contender in contenders:
                contender.open()
                stack.callback(contender.close)
            self.rates |= self._interleave(contenders)

    def _measure_peer_latency(self, peer: Peer) -> None:
        peer.be_idle()
        name = peer.name.partition(":")[0]
        samples = max(5, self.extent.samples // 5)
        with suppress(TimeoutError):
            self.latencies[name] = single.percentiles([peer.latency() for _ in range(samples)])

    # -- depth ------------------------------------------------------------------------

    def _measure_depth(self) -> None:
        with ExitStack() as stack:
            contenders: list[Contender] = []
            places: list[Place] = []
            for depth in self.extent.depths:
                self.note(f"filling to {depth:,} jobs")
                place = stack.enter_context(closing(Place()))
                places.append(place)
                place.fill(depth)
                adding = place if depth > 50_000 else None  # a slice adds too much to few
                contenders += [
                    Drain(f"drain|{depth}", place, False, depth),
                    Drain(f"drain shared|{depth}", place, True, depth),
                    Add(f"add|{depth}", depth, adding),
                    AddMany(f"add_many|{depth}", depth, adding),
                ]
                chosen = stack.enter_context(closing(ChosenPlace()))
                places.insert(0, chosen)
                chosen.fill(depth)
                contenders += [
                    Drain(f"drain, {report.CHOSEN}|{depth}", chosen, False, depth),
                    Add(
                        f"add, {report.CHOSEN}|{depth}",
                        depth,
                        chosen if adding else None,
                        ChosenPlace,
                    ),
                ]
            for contender in contenders:
                contender.open()
                stack.callback(contender.close)
            for name, rates in self._interleave(contenders).items():
                line, _, depth_text = name.partition("|")
                self.depth.setdefault(line, {})[int(depth_text)] = rates.median
            for place in places:  # so that none works while others are measured
                place.service.stopProcessing()
            payload.board().open_gate()
            registry.stop_all(10.0)
            self._measure_at_depth(places[-1], self.extent.depths[-1])

    def _measure_at_depth(self, place: Place, depth: int) -> None:
        self.note(f"single operations at {depth:,} jobs")
        found = single.single_operations(place, self.extent.samples)
        self.values |= {f"{name} at {depth}, seconds": value for name, value in found.items()}
        self.note(f"memory with {depth:,} jobs")
        place.fill(depth - place.waiting())
        jobs = min(depth // 2, 3000)
        with closing(Place()) as small:
            small.fill(jobs + 100)
            few = single.memory_with(small, jobs)
        self.values[f"memory at {depth}, bytes"] = single.memory_with(place, jobs) - few

    # -- the rest ---------------------------------------------------------------------

    def _measure_latency(self) -> None:
        samples = self.extent.samples
        for name, place in (("FileStorage", Place()), ("ZEO", ZeoPlace())):
            self.latencies[f"(a tiny commit alone, {name})"] = single.percentiles(
                single.commits_when_idle(place, samples)
            )
        self.latencies["same process, FileStorage"] = single.percentiles(
            single.latency_in_process(samples)
        )
        self.latencies["other process, ZEO"] = single.percentiles(
            single.latency_between_processes(samples)
        )

    def _measure_bytes(self) -> None:
        jobs = self.extent.jobs
        for name, is_shared, together in (
            ("default", False, 1),
            ("shared", True, 1),
            ("shared, added 100 a commit", True, 100),
        ):
            self.values[f"bytes a job, {name}"] = single.bytes_of_a_life(is_shared, jobs, together)

    def _measure_cron(self) -> None:
        few, many = single.cron_ticks(10, self.extent.cron_jobs, self.extent.samples)
        self.values["tick with 10 cron jobs, seconds"] = few
        self.values[f"tick with {self.extent.cron_jobs} cron jobs, seconds"] = many
        self.values["tick with many cron jobs, ratio"] = many / few

    def _measure_scaling(self) -> None:
        one, four = single.scaling(self.extent.scaling_rounds)
        self.values["200 jobs of 20 ms, 1 process, seconds"] = one
        self.values["200 jobs of 20 ms, 4 processes, seconds"] = four
        self.values["4 processes, ratio"] = one / four

    def _measure_idle(self) -> None:
        with closing(Place()) as place:
            self.values["idle share of a core, FileStorage"] = single.idle_share(
                place, self.extent.idle_seconds
            )
        with closing(ZeoPlace()) as place:
            self.values["idle share of a core, ZEO"] = single.idle_share(
                place, self.extent.idle_seconds
            )

    def _measure_schedule(self) -> None:
        found = single.time_of_next_call(self.extent.samples)
        self.values["timeOfNextCall, slowest schedule, seconds"] = max(found.values())

    def _measure_memory(self) -> None:
        jobs = self.extent.memory_jobs
        with closing(Place()) as place:
            place.fill(jobs + 1000)
            early, late = single.memory_after(place, jobs // 10, jobs)
        self.values[f"memory after {jobs} jobs, above that after a tenth, bytes"] = late - early

    def _measure_conflicts(self) -> None:
        for where, make in (
            ("FileStorage", Place),
            ("ZEO", ZeoPlace),
            ("PostgreSQL", PostgresPlace),
        ):
            try:
                place = make()
            except Unavailable as error:
                self.skipped.append((f"conflicts, {where}", str(error), error.command))
                continue
            with closing(place):
                for name, found in adders.conflicts_of_adders(place, self.extent.adding_seconds):
                    self.note(f"{where}: {name}")
                    self.conflicts.setdefault(name, {})[where] = {
                        "commits": found["commits"],
                        **{
                            kind: 1000 * found[kind] / found["commits"]
                            for kind in ("conflicts", "failures")
                        },
                    }

    def as_data(self) -> dict[str, Any]:
        """Return what was found as JSON can take it."""
        return {
            "rates": {
                name: {
                    "per_second": rates.median,
                    "spread": rates.spread,
                    "slices": rates.rates,
                    "durability": rates.contender.durability,
                    "guarantee": rates.contender.guarantee,
                }
                for name, rates in self.rates.items()
            },
            "depth": {
                name: {str(depth): rate for depth, rate in line.items()}
                for name, line in self.depth.items()
            },
            "latencies_seconds": self.latencies,
            "values": self.values,
            "conflicts_per_thousand": self.conflicts,
            "skipped": [
                {"name": name, "reason": reason, "command": command}
                for name, reason, command in self.skipped
            ],
        }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of all, under two minutes")
    parser.add_argument("--tiny", action="store_true", help="only see whether it all runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw rates against depth")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this")
    options = parser.parse_args(arguments)
    register_tasks()
    run = Run(Extent(options), report.note)
    for part in options.only or PARTS:
        run.measure(part)
    data = {"machine": report.machine(), **run.as_data()}
    report.note("")
    print(report.tables(data))
    if options.json:
        options.json.write_text(report.as_json(data), encoding="utf-8")
    plot = options.plot
    if plot is None and run.extent.is_full and not options.only:
        plot = Path(__file__).parents[1] / "docs" / "_static" / "benchmark-depth.svg"
    if plot is not None and data["depth"]:
        try:
            report.plot(data, plot)
        except Unavailable as error:
            print(f"No plot: {error}; {error.command}")
