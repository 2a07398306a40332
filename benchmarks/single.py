# SPDX-License-Identifier: ZPL-2.1
"""What is no rate: latencies, bytes, memory, the cost of doing nothing."""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import payload
import transaction
from interleave import percentile
from places import NOOP, Place, PostgresPlace, ZeoPlace, wait_until_filed
from processes import Worker

from lovely.remotetask.base.site import path_to
from lovely.remotetask.job import CronJob
from lovely.remotetask.processor import SimpleProcessor

#: Schedules from the simplest to the one that is furthest away.
SCHEDULES: dict[str, dict[str, Any]] = {
    "each minute": {},
    "03:00": {"hour": (3,)},
    "each quarter of an hour": {"minute": (0, 15, 30, 45)},
    "working days, 8 to 17, Zurich": {
        "minute": (0,),
        "hour": tuple(range(8, 18)),
        "dayOfWeek": (0, 1, 2, 3, 4),
        "timezone": "Europe/Zurich",
    },
    "a Friday the 13th": {"hour": (0,), "dayOfMonth": (13,), "dayOfWeek": (4,)},
    "29 February": {"hour": (0,), "dayOfMonth": (29,), "month": (2,)},
    "29 February, a Monday": {
        "hour": (0,),
        "dayOfMonth": (29,),
        "month": (2,),
        "dayOfWeek": (0,),
    },
    "a text": {"cron": "*/5 9-17 * * mon-fri"},
}


def time_of_next_call(samples: int) -> dict[str, float]:
    """Return the median seconds of each of some schedules, by their names."""
    medians = {}
    for name, fields in SCHEDULES.items():
        call = CronJob(1, "noop", None, **fields).timeOfNextCall
        start = 1_767_225_600.0
        times = [_timed(partial(call, start + day * 86_413)) for day in range(samples)]
        medians[name] = statistics.median(times)
    return medians


def _timed(operation: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    operation()
    return time.perf_counter() - begun


def single_operations(place: Place, samples: int) -> dict[str, float]:
    """Return the median seconds of an operation on one job, with an empty cache.

    `place` holds as many jobs as it is to be measured with.
    """
    service = place.service
    place.connection.cacheMinimize()
    chosen = iter(random.sample(list(service.jobs.keys()), 2 * samples))

    def cold(operation: Callable[[], Any]) -> float:
        times = []
        for _ in range(samples):
            transaction.begin()
            place.connection.cacheMinimize()
            times.append(_timed(operation))
            transaction.abort()
        return statistics.median(times)

    def cancel() -> None:
        service.cancel(next(chosen))
        transaction.commit()

    return {
        "cancel": cold(cancel),
        "status": cold(lambda: service.getStatus(next(chosen))),
        "page of 50": cold(
            lambda: [
                service.jobs[jobid].status
                for _, jobid in service.queue.indexes["completed"].latest(50)
            ]
        ),
        "counts by status": cold(service.countJobs),
    }


def bytes_of_a_life(is_shared: bool, jobs: int, together: int) -> float:
    """Return how many bytes the file grows by for each job, from `add` to completed.

    :param together: how many jobs are added in one commit.
    """
    with closing(Place()) as place:
        NOOP.shared_commit = is_shared
        payload.board().open_gate()
        storage = place.db.storage
        before = storage.getSize()
        for start in range(0, jobs, together):
            place.service.add_many("noop", [1] * min(together, jobs - start))
            transaction.commit()
        place.service.startProcessing()
        wait_until_filed(place, jobs)
        return float(storage.getSize() - before) / jobs


def latency_in_process(samples: int) -> list[float]:
    """Return the seconds from the end of a commit to the start of its job, same process."""
    with closing(Place()) as place:
        NOOP.shared_commit = False
        payload.board().open_gate()
        place.service.startProcessing()
        return latencies_of(place, 0, samples)


def latency_between_processes(samples: int) -> list[float]:
    """Return the same, where the job runs in another process, on ZEO."""
    with closing(ZeoPlace()) as place, working(place, 1) as workers:
        payload.board().open_gate(1)
        workers[0].ask("start")
        return latencies_of(place, 1, samples)


def commits_when_idle(place: Place, samples: int) -> list[float]:
    """Return the seconds that a tiny commit takes after a pause: the floor of the latencies."""
    with closing(place):
        place.root["number"] = 0
        transaction.commit()
        found = []
        for number in range(samples):
            time.sleep(random.uniform(0.02, 0.06))
            transaction.begin()
            place.root["number"] = number
            found.append(_timed(transaction.commit))
        return found


def latencies_of(place: Place, slot: int, samples: int) -> list[float]:
    board = payload.board()
    found = []
    for turn in range(samples + 10):
        time.sleep(random.uniform(0.02, 0.06))  # until it is idle, and at no beat of ours
        count = board.count(slot)
        transaction.begin()
        place.service.add("noop", 1)
        transaction.commit()
        committed = time.monotonic()
        payload.wait_for(count + 1, slot)
        if turn >= 10:
            found.append(max(0.0, board.last(slot) - committed))
    return found


@contextmanager
def working(place: ZeoPlace | PostgresPlace, count: int) -> Iterator[list[Worker]]:
    workers = [Worker(place.uri, slot) for slot in range(1, count + 1)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


def idle_share(place: Place | ZeoPlace, seconds: float) -> float:
    """Return the part of a core that an idle service takes."""
    payload.board().open_gate()
    if isinstance(place, ZeoPlace):
        with working(place, 1) as workers:
            workers[0].ask("start")
            time.sleep(2.0)
            before = workers[0].ask("processor")
            time.sleep(seconds)
            return float(workers[0].ask("processor") - before) / seconds
    place.service.startProcessing()
    time.sleep(2.0)
    before = _processor_seconds()
    time.sleep(seconds)
    return (_processor_seconds() - before) / seconds


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory_with(place: Place, jobs: int = 3000) -> float:
    """Return the bytes that a worker process has after some jobs; `place` is released."""
    return memory_after(place, jobs)[0]


def memory_after(place: Place, *counts: int) -> list[float]:
    """Return the bytes that a worker process has after so many jobs; `place` is released."""
    place.release()
    worker = Worker(str(place.directory / "Data.fs"), 1)
    try:
        board = payload.board()
        before = board.count(1)
        worker.ask("start")
        found = []
        for count in counts:
            board.open_gate(1)
            payload.wait_for(before + count, 1, seconds=600.0)
            board.close_gate(1)
            found.append(float(worker.ask("memory")))
        board.open_gate(1)
        return found
    finally:
        worker.close()


class CronTick:
    """A service with cron jobs, of which one at a time is due."""

    def __init__(self, jobs: int) -> None:
        self._place = Place()
        service = self._place.service
        for number in range(jobs):
            service.addCronJob("noop", 1, minute=(number % 60,), hour=(3,), dayOfMonth=(29,))
            if number % 1000 == 999:
                transaction.commit()
        transaction.commit()
        self._processor = SimpleProcessor(self._place.db, path_to(service))
        transaction.abort()

    def tick(self) -> float:
        """Return the seconds it takes to find the due job, and to run it."""
        self._place.service.addCronJob("noop", 1, delay=0)
        transaction.commit()
        return _timed(self._processor.processNext)

    def close(self) -> None:
        """Remove it."""
        self._processor.stop()
        self._place.close()


def cron_ticks(few: int, many: int, samples: int) -> tuple[float, float]:
    """Return the median seconds of a tick with few and with many cron jobs, in turn."""
    NOOP.shared_commit = False
    payload.board().open_gate()
    with closing(CronTick(few)) as first, closing(CronTick(many)) as second:
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(samples + 3):
            for ticks, contender in zip(times, (first, second), strict=True):
                seconds = contender.tick()
                if turn >= 3:
                    ticks.append(seconds)
        return statistics.median(times[0]), statistics.median(times[1])


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    return {"p50": percentile(values, 50), "p99": percentile(values, 99)}
