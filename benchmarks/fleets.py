# SPDX-License-Identifier: ZPL-2.1
"""Several processes of ours at a time: that work, that add jobs, or that only commit.

While others are measured their processes have no database open: a ZEO server would tell them
about each commit.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import payload
import transaction
from interleave import Contender
from ours import EXACTLY_ONCE, FSYNC, WARM_SECONDS
from peer import DRY, TRIES
from places import PostgresPlace, ZeoPlace
from processes import Worker

ServerPlace = ZeoPlace | PostgresPlace

#: Seconds that a worker needs to open its database and to claim the first jobs.
START_SECONDS = 0.4


class Plan(NamedTuple):
    """What is measured of a fleet.

    :ivar storages: how many storages, on servers of their own, the processes share out.
    :ivar threads: in each process; 0 for the thread of the service itself.
    :ivar job_ms: how long a job takes, without using the processor.
    """

    processes: int
    threads: int
    job_ms: int
    storages: int = 1

    @property
    def at_once(self) -> int:
        """How many jobs can run at a time."""
        return self.processes * max(1, self.threads)


class Crew(NamedTuple):
    """The processes that belong to one storage, and their slots."""

    place: ServerPlace
    workers: list[Worker]
    slots: list[int]


@contextmanager
def crews(places: Sequence[tuple[ServerPlace, int]]) -> Iterator[list[Crew]]:
    """Start so many processes for each place."""
    with ExitStack() as stack:
        found: list[Crew] = []
        slots = iter(range(1, payload.FIRST_PEER))
        for place, processes in places:
            crew = Crew(place, [], [])
            for _ in range(processes):
                crew.slots.append(next(slots))
                crew.workers.append(Worker(place.uri, crew.slots[-1]))
                stack.callback(crew.workers[-1].close)
            found.append(crew)
        yield found


class Fleet(Contender):
    """Processes that work on jobs of one length.

    :ivar costs: of each slice, the milliseconds of a core that a job took: (server, workers).
    :ivar met: what the workers met in all slices: commits, conflicts.
    """

    durability = "fsync each 16 or 10 ms"
    guarantee = EXACTLY_ONCE

    def __init__(self, name: str, plan: Plan, found: list[Crew]) -> None:
        self.name = name
        self.plan = plan
        self.costs: list[tuple[float, float]] = []
        self.met: Counter[str] = Counter()
        each = plan.processes // plan.storages
        self._crews = [
            Crew(crew.place, crew.workers[:each], crew.slots[:each])
            for crew in found[: plan.storages]
        ]
        self._slots = [slot for crew in self._crews for slot in crew.slots]
        self._rate = min(6000.0, 1000 * plan.at_once / max(plan.job_ms, 0.2))

    def prepare(self, seconds: float) -> None:
        for slot in self._slots:
            payload.board().close_gate(slot)
        wanted = 100 * self.plan.at_once + int(self._rate * (seconds + WARM_SECONDS) * 1.5)
        for crew in self._crews:
            transaction.begin()
            crew.place.renew()  # nothing of another length waits
            for _ in range(0, wanted // len(self._crews) + 1, 1000):
                crew.place.service.add_many("nap", [self.plan.job_ms / 1000] * 1000)
                transaction.commit()
            for worker in crew.workers:
                worker.ask(f"start {self.plan.threads}" if self.plan.threads else "start")
        time.sleep(START_SECONDS)
        payload.measured(WARM_SECONDS, *self._slots)

    def work(self, seconds: float) -> float:
        for _ in range(TRIES):
            before, met = self._used(), self._met()
            rate = payload.measured(seconds, *self._slots)
            used = [_gone(*both) for both in zip(before, self._used(), strict=True)]
            met = self._met() - met
            is_dry = any(crew.place.waiting() == 0 for crew in self._crews)
            self._end()
            if not is_dry:
                jobs = rate * seconds / 1000
                self.costs.append((used[0] / jobs, used[1] / jobs))
                self.met += met
                self._rate = max(self._rate, rate)
                return rate
            self._rate = 4 * max(self._rate, rate)
            self.prepare(seconds)
        raise TimeoutError(DRY)

    def _met(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for crew in self._crews:
            for worker in crew.workers:
                found.update(worker.ask("met"))
        return found

    def _used(self) -> tuple[dict[int, float], dict[int, float]]:
        """Return the seconds of a core, by process: (of servers, of workers)."""
        servers: dict[int, float] = {}
        for crew in self._crews:
            servers |= crew.place.server_seconds()
        workers = (worker for crew in self._crews for worker in crew.workers)
        return servers, {number: worker.ask("processor") for number, worker in enumerate(workers)}

    def _end(self) -> None:
        for slot in self._slots:
            payload.board().open_gate(slot)  # they wait there, and are to stop
        for crew in self._crews:
            for worker in crew.workers:
                worker.tell("stop")
        for crew in self._crews:
            for worker in crew.workers:
                worker.answer()


class Committers(Contender):
    """Processes that commit, each an object of its own: what no queue can be faster than.

    :ivar costs: of each slice, the milliseconds of a core that a commit took from a ZEO server.
    """

    durability = FSYNC
    guarantee = "-"

    def __init__(self, name: str, processes: int, crew: Crew) -> None:
        self.name = name
        self.processes = processes
        self.costs: list[float] = []
        self._place = crew.place
        self._workers = crew.workers[:processes]

    def work(self, seconds: float) -> float:
        before = self._place.server_seconds()
        rate = sum(_at_a_time(self._workers, f"commit {seconds}")) / seconds
        if isinstance(self._place, ZeoPlace):  # sessions of PostgreSQL have ended by now
            used = _gone(before, self._place.server_seconds())
            self.costs.append(1000 * used / (rate * seconds))
        return rate


class Adders(Contender):
    """Processes that add jobs, while nobody works.

    :ivar met: what they met in all slices: commits, conflicts, failures.
    """

    guarantee = EXACTLY_ONCE

    def __init__(self, name: str, adders: int, together: int, crew: Crew) -> None:
        self.name = name
        self.adders = adders
        self.together = together
        self.durability = FSYNC if together == 1 else f"fsync each {together}"
        self.met: Counter[str] = Counter()
        self._place = crew.place
        self._workers = crew.workers[:adders]

    def prepare(self, seconds: float) -> None:
        transaction.begin()
        self._place.renew()

    def work(self, seconds: float) -> float:
        counts: Counter[str] = Counter()
        for answer in _at_a_time(self._workers, f"add {seconds} {self.together}"):
            counts.update(answer)
        self.met += counts
        return (counts["commits"] - counts["failures"]) * self.together / seconds


def _at_a_time(workers: list[Worker], command: str) -> list[Any]:
    for worker in workers:
        worker.tell(command)
    return [worker.answer() for worker in workers]


def _gone(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def median(values: Sequence[float]) -> float:
    """Return the median; 0 of nothing."""
    return statistics.median(values) if values else 0.0
