# SPDX-License-Identifier: ZPL-2.1
"""Measure everything; print one table, and how near the goals are.  See README.rst."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import adders
import how_far
import payload
import report
import sharing
import single
import starting
import threads
from interleave import (
    SLICE_SECONDS,
    Contender,
    Rates,
    Unavailable,
    at_most,
    describe,
    interleave,
)
from ours import Add, AddMany, Drain, Enlist, Rewrite, TinyCommit
from peer import Peer
from peers import PEERS
from places import ChosenPlace, Place, PostgresPlace, RemotePlace, ZeoPlace, register_tasks

from lovely.remotetask.engine import registry

#: The parts, by the names that `--only` takes.
PARTS = (
    *("rates", "threads", "zeo", "postgresql", "depth", "latency", "bytes", "cron", "scaling"),
    *("idle", "schedule", "memory", "conflicts", "adders", "start"),
)


class Extent:
    """How much is measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        tiny, quick = arguments.tiny, arguments.quick
        self.is_full = not (tiny or quick)
        self.has_peers = not tiny
        self.is_quick = quick
        # As many as of those take long together.
        self.matrix_rounds = 1 if tiny or quick else 3
        self.threads = [0, 5] if tiny else [0, 16] if quick else [0, 1, 2, 5, 16]
        self.job_ms = [0, 5] if tiny or quick else [0, 1, 5, 20]
        self.slice_seconds = 0.1 if tiny else 0.35 if quick else SLICE_SECONDS
        self.rounds = 1 if tiny else 2 if quick else 11
        self.depths = (
            [100] if tiny else [1000, 10_000] if quick else [1000, 10_000, 100_000, 1_000_000]
        )
        self.samples = 5 if tiny else 30 if quick else 200
        self.jobs = 20 if tiny else 200 if quick else 2000
        self.memory_jobs = 100 if tiny else 5000 if quick else 100_000
        self.cron_jobs = 50 if tiny else 10_000
        self.starts = 1 if tiny else 3 if quick else 11
        self.adding_seconds = 0.2 if tiny else 0.3 if quick else 3.0
        self.idle_seconds = 0.2 if tiny else 2.0 if quick else 10.0
        # Until sessions of PostgreSQL have told what they did before, and looks are as rare as they
        # get; and several ticks of the maintenance, which come each ten seconds.
        self.settle_seconds = 0.2 if tiny else 12.0 if quick else 25.0
        self.count_seconds = 0.2 if tiny else 10.0 if quick else 60.0


class Run:
    """One run, and what it found."""

    def __init__(self, extent: Extent, note: Callable[[str], None]) -> None:
        self.extent = extent
        self.note = note
        self.rates: dict[str, dict[str, Rates]] = {}  # part -> name -> rates
        self.depth: dict[str, dict[int, float]] = {}
        self.latencies: dict[str, dict[str, float]] = {}
        self.values: dict[str, float] = {}
        self.conflicts: dict[str, dict[str, dict[str, float]]] = {}
        self.fleets: list[dict[str, Any]] = []
        self.commits: list[dict[str, Any]] = []
        self.adders: list[dict[str, Any]] = []
        self.starts: dict[str, float] = {}
        self.skipped: list[tuple[str, str, str]] = []

    def measure(self, part: str) -> None:
        """Measure one part; what cannot run here, or is stuck, is noted as skipped."""
        self.note(part)
        own = {"threads": threads.measure, "zeo": sharing.measure_zeo}
        own |= {"postgresql": sharing.measure_postgresql, "scaling": sharing.measure_scaling}
        own |= {"adders": sharing.measure_adders}
        try:
            if part in own:
                own[part](self)
            else:
                getattr(self, f"_measure_{part}")()
        except Unavailable as error:
            self.skip(part, error, error.command)
        except TimeoutError as error:
            self.skip(part, error)

    def skip(self, name: str, error: BaseException, command: str = "") -> None:
        """Note what was not measured, and why."""
        self.skipped.append((name, str(error) if command else describe(error), command))

    @contextmanager
    def opened(self, contenders: Iterable[Contender]) -> Iterator[list[Contender]]:
        """Open contenders; give those that could be, and close them."""
        with ExitStack() as stack:
            opened = []
            for contender in contenders:
                self.note(f"starting {contender.name}")
                try:
                    with at_most():
                        contender.open()
                except Unavailable as error:
                    self.skip(contender.name, error, error.command)
                except Exception as error:  # whatever a queue, or a server, does when it fails
                    self.skip(contender.name, error)
                else:
                    opened.append(contender)
                    stack.callback(self._close, contender)
            yield opened

    def _close(self, contender: Contender) -> None:
        self.note(f"ending {contender.name}")
        try:
            with at_most():
                contender.close()
        except Exception as error:
            self.skip(f"{contender.name}, its end", error)

    def compare(self, contenders: list[Contender], rounds: int | None = None) -> dict[str, Rates]:
        """Give slices to contenders that are open; return the rates, see `Rates.failure`.

        :param rounds: by default those of the extent.
        """
        rounds = self.extent.rounds if rounds is None else rounds
        found = interleave(contenders, rounds, self.extent.slice_seconds, self.note)
        for name, rates in found.items():
            if rates.failure:
                self.skipped.append((name, rates.failure, ""))
        return found

    # -- rates ------------------------------------------------------------------------

    def _measure_rates(self) -> None:
        with closing(Place()) as place, closing(RemotePlace()) as remote:
            contenders: list[Contender] = [
                TinyCommit(),
                Rewrite(),
                Drain(report.DRAIN, place),
                Drain(report.ALONE, place, is_piped=False),
                Drain(report.REMOTE_DRAIN, remote, is_piped=False),
                Drain(report.SHARED, place, is_shared=True),
                Add(report.ADD),
                Add(report.REMOTE_ADD, make_place=RemotePlace),
                AddMany(report.ADD_MANY),
                Enlist(1),
                Enlist(100),
                *(peer() for peer in PEERS if self.extent.has_peers),
            ]
            with self.opened(contenders) as opened:
                self.rates["rates"] = self.compare(opened)
                for contender in opened:
                    if isinstance(contender, Peer) and contender.has_worker:
                        self.measure_peer_latency(contender)

    def measure_peer_latency(self, peer: Peer) -> bool:
        """Measure how soon an idle worker of a peer starts a job; say whether it did."""
        self.note(f"latency of {peer.name}")
        name = peer.name.partition(":")[0]
        samples = max(5, self.extent.samples // 5)
        try:
            with at_most():
                peer.be_idle()
                found = [peer.latency() for _ in range(samples)]
        except Exception as error:  # whatever a queue, or a server, does when it fails
            self.skip(f"latency of {name}", error)
            return False
        self.latencies[name] = single.percentiles(found)
        return True

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
            opened = stack.enter_context(self.opened(contenders))
            for name, rates in self.compare(opened).items():
                line, _, depth_text = name.partition("|")
                if rates.rates:
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

    def _measure_start(self) -> None:
        self.starts = starting.starts(self.extent.starts)

    def as_data(self) -> dict[str, Any]:
        """Return what was found as JSON can take it."""
        return {
            "rates": {
                name: {
                    "part": part,
                    "per_second": rates.median if rates.rates else None,
                    "spread": rates.spread,
                    "failure": rates.failure,
                    "slices": rates.rates,
                    "durability": rates.contender.durability,
                    "guarantee": rates.contender.guarantee,
                }
                for part, found in self.rates.items()
                for name, rates in found.items()
            },
            "depth": {
                name: {str(depth): rate for depth, rate in line.items()}
                for name, line in self.depth.items()
            },
            "latencies_seconds": self.latencies,
            "values": self.values,
            "conflicts_per_thousand": self.conflicts,
            "fleets": self.fleets,
            "commits": self.commits,
            "adders": self.adders,
            "starts_seconds": self.starts,
            "skipped": [
                {"name": name, "reason": reason, "command": command}
                for name, reason, command in self.skipped
            ],
        }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of all, about five minutes")
    parser.add_argument("--tiny", action="store_true", help="only see whether it all runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw rates against depth")
    parser.add_argument("--plot-far", type=Path, metavar="FILE", help="draw how far it goes")
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
    pictures = Path(__file__).parents[1] / "docs" / "_static"
    plots = [(options.plot, report.plot), (options.plot_far, how_far.plot)]
    if run.extent.is_full and not options.only:
        names = ("benchmark-depth.svg", "how-far.svg")
        plots = [
            (path or pictures / name, draw) for (path, draw), name in zip(plots, names, strict=True)
        ]
    for path, draw in plots:
        if path is not None:
            try:
                draw(data, path)
            except Unavailable as error:
                print(f"No picture {path}: {error}; {error.command}")
