# SPDX-License-Identifier: ZPL-2.1
"""Storages that several processes share: rates of one process, and many of them at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import payload
import report
import single
from fleets import Adders, Committers, Fleet, Plan, crews, median
from interleave import Contender, Unavailable, at_most
from ours import Add, AddMany, Drain, TinyCommit
from places import NOOP, PostgresPlace, ZeoPlace, query_postgres
from postgres_peers import (
    PgQueuer,
    PgQueuerAdd,
    PostgresPeer,
    Procrastinate,
    ProcrastinateAdd,
    ProcrastinateTasks,
)

from lovely.remotetask.engine import trigger

STORAGES = {"ZEO": ZeoPlace, "PostgreSQL": PostgresPlace}

#: Processes, threads in each and milliseconds of a job: of the largest run, and of the others.
PLANS = {
    "ZEO": [
        *(Plan(processes, 0, ms) for processes in (1, 2, 4, 8) for ms in (5, 20)),
        *(Plan(processes, 16, ms) for processes in (1, 2, 4) for ms in (0, 5, 20, 100)),
        *(Plan(2, 16, ms, storages=2) for ms in (0, 5, 20)),
        *(Plan(4, 16, ms, storages=2) for ms in (0, 5, 20)),
    ],
    "PostgreSQL": [
        *(Plan(processes, 0, ms) for processes in (1, 4) for ms in (5, 20)),
        *(Plan(processes, 16, ms) for processes in (1, 2, 4) for ms in (0, 5, 20, 100)),
        *(Plan(2, 16, ms, storages=2) for ms in (0, 5, 20)),
    ],
}
QUICK_PLANS = {
    "ZEO": [
        *(Plan(processes, 0, ms) for processes in (1, 4) for ms in (5, 20)),
        *(Plan(processes, 16, ms) for processes in (1, 2) for ms in (0, 20)),
        *(Plan(2, 16, ms, storages=2) for ms in (0,)),
    ],
    "PostgreSQL": [Plan(1, 0, 20), Plan(4, 0, 20), Plan(1, 16, 20), Plan(2, 16, 20)],
}
TINY_PLANS = {"ZEO": [Plan(2, 2, 5)], "PostgreSQL": [Plan(2, 0, 5)]}


# -- rates of one process --------------------------------------------------------------


def _ours(storage: str) -> Iterator[Contender]:
    """Yield our contenders on a storage, which are not open yet."""
    make = STORAGES[storage]
    yield TinyCommit(report.on(storage, report.BASE), make)
    yield Add(report.on(storage, report.ADD), make_place=make)
    yield AddMany(report.on(storage, report.ADD_MANY), make_place=make)


def _drains(storage: str, place: Any) -> list[Contender]:
    return [
        Drain(report.on(storage, report.DRAIN), place),
        Drain(report.on(storage, report.ALONE), place, is_piped=False),
        Drain(report.on(storage, report.SHARED), place, is_shared=True),
    ]


def measure_zeo(run: Any) -> None:
    """Compare with a tiny commit on ZEO.

    :param run: the `campaign.Run`, which gets the rates.
    """
    with (
        closing(ZeoPlace()) as place,
        run.opened([*_ours("ZEO"), *_drains("ZEO", place)]) as opened,
    ):
        run.rates["zeo"] = run.compare(opened)


def measure_postgresql(run: Any) -> None:
    """Compare with a tiny commit on PostgreSQL, and with others on the same server."""
    first = payload.FIRST_PEER + 8
    peers: list[Contender] = [
        ProcrastinateAdd(report.PROCRASTINATE_ADD),
        ProcrastinateAdd(f"{report.PROCRASTINATE_ADD}, 100 a commit", 100),
        Procrastinate(report.PROCRASTINATE_HERE),
        ProcrastinateTasks(10, first, report.ASYNC),
        PgQueuerAdd(),
        PgQueuerAdd(100),
        PgQueuer(10, first + 1),
        PgQueuer(100, first + 2),
    ]
    with closing(PostgresPlace()) as place:
        contenders = [*_ours("PostgreSQL"), *_drains("PostgreSQL", place)]
        if run.extent.has_peers:
            contenders += peers
        with run.opened(contenders) as opened:
            run.rates["postgresql"] = run.compare(opened)
            _measure_idle(run, place, report.POLLED)
            trigger.install(trigger.adapter_of(place.db.storage))
            _measure_idle(run, place, report.TOLD)
            for contender in opened:
                if not isinstance(contender, PostgresPeer) or not contender.has_worker:
                    continue
                if run.measure_peer_latency(contender):
                    _count_transactions(run, contender.name.partition(":")[0], contender.database)
                contender.rest()


def _measure_idle(run: Any, place: PostgresPlace, name: str) -> None:
    """Measure how soon an idle worker of ours starts, and what it asks of the server meanwhile.

    :param name: of the rows.
    """
    NOOP.shared_commit = False
    place.renew()
    with single.working(place, 1) as workers:
        payload.board().open_gate(1)
        workers[0].ask("start")
        try:
            with at_most():
                found = single.latencies_of(place, 1, run.extent.samples)
            run.latencies[name] = single.percentiles(found)
        except TimeoutError as error:
            run.skip(name, error)
        _count_transactions(run, name, place.database)


def _count_transactions(run: Any, name: str, database: str) -> None:
    """Count the transactions a second of a database where nothing happens."""
    # A session that rests tells what it did before up to ten seconds later, and all at once.
    time.sleep(run.extent.settle_seconds)
    before = _transactions(database)
    time.sleep(run.extent.count_seconds)
    count = _transactions(database) - before
    run.values[f"idle transactions a second, {name}"] = count / run.extent.count_seconds


def _transactions(database: str) -> int:
    statement = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
    return int(query_postgres(statement, database)[0][0])


# -- many processes --------------------------------------------------------------------


@contextmanager
def _places(run: Any, part: str, count: int) -> Iterator[dict[str, list[Any]]]:
    """Make so many places on each storage; give them by its name, where it is there."""
    with ExitStack() as stack:
        found: dict[str, list[Any]] = {}
        for storage, make in STORAGES.items():
            try:
                found[storage] = [stack.enter_context(closing(make())) for _ in range(count)]
            except Unavailable as error:
                run.skip(f"{part}, {storage}", error, error.command)
        yield found


def measure_scaling(run: Any) -> None:
    """Let several processes work, with threads, on jobs of several lengths; and only commit."""
    extent = run.extent
    plans = PLANS if extent.is_full else QUICK_PLANS if extent.is_quick else TINY_PLANS
    numbers = [1, 2, 4, 8] if extent.is_full else [1, 4] if extent.is_quick else [2]
    with _places(run, "scaling", 2) as places:
        for storage, here in places.items():
            most = max(numbers)
            second = max(
                plan.processes - plan.processes // plan.storages for plan in plans[storage]
            )
            with crews(list(zip(here, (most, second), strict=True))) as found:
                fleets = [
                    Fleet(report.plan_row(storage, plan), plan, found) for plan in plans[storage]
                ]
                commits = [
                    Committers(f"{storage}: commits, {number} at a time", number, found[0])
                    for number in numbers
                ]
                rates = run.compare([*fleets, *commits], extent.matrix_rounds)
            run.fleets += [
                {
                    "storage": storage,
                    **fleet.plan._asdict(),
                    "per_second": rates[fleet.name].median,
                    "spread": rates[fleet.name].spread,
                    "server_ms": median([server for server, _ in fleet.costs]),
                    "worker_ms": median([workers for _, workers in fleet.costs]),
                    "conflicts_per_thousand": 1000
                    * fleet.met["conflicts"]
                    / max(1, fleet.met["commits"]),
                }
                for fleet in fleets
                if rates[fleet.name].rates
            ]
            run.commits += [
                {
                    "storage": storage,
                    "processes": each.processes,
                    "per_second": rates[each.name].median,
                    "server_ms": median(each.costs),
                }
                for each in commits
                if rates[each.name].rates
            ]


def measure_adders(run: Any) -> None:
    """Let processes add jobs at a time, and count what they meet."""
    with _places(run, "adders", 1) as places:
        for storage, (place,) in places.items():
            with crews([(place, 4)]) as (crew,):
                contenders = [
                    Adders(f"{storage}: {count} add {together}", count, together, crew)
                    for together in (1, 100)
                    for count in (1, 4)
                ]
                rates = run.compare(list(contenders), run.extent.matrix_rounds)
            run.adders += [
                {
                    "storage": storage,
                    "adders": each.adders,
                    "together": each.together,
                    "per_second": rates[each.name].median,
                    "commits": each.met["commits"],
                    "conflicts_per_commit": each.met["conflicts"] / each.met["commits"],
                    "failures_per_thousand": 1000 * each.met["failures"] / each.met["commits"],
                }
                for each in contenders
                if rates[each.name].rates
            ]
