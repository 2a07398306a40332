# SPDX-License-Identifier: ZPL-2.1
"""Jobs that share commits, with rivals, cancellers and rescuers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lovely.remotetask.interfaces import CANCELLED, COMPLETED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor

pytestmark = pytest.mark.race


@pytest.fixture
def share(arena: Any, register: Any) -> Callable[..., None]:
    """Let the task *share* do the same as one of the arena's, and share its commits."""

    def share(task: str) -> None:
        function = {"count": arena._count, "linger": arena._linger}[task]
        register("share", function, context=True, shared_commit=True)

    return share


@pytest.mark.parametrize(
    "factories",
    [
        [SimpleProcessor, SimpleProcessor, SimpleProcessor],
        [MultiProcessor],
        [MultiProcessor, SimpleProcessor],
    ],
)
def test_rivals_keep_the_effect_of_each_job_once(
    arena: Any, share: Any, factories: list[Any]
) -> None:
    share("count")
    arena.add(300, "share")
    for factory in factories:
        arena.work(factory)
    for start in range(300, 600, 50):
        arena.add(25, "share", start)
        arena.add(25, "count", start + 25)
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys(range(600), 1)
    assert set(arena.statuses().values()) == {COMPLETED}
    arena.check_books()
    arena.check_clean()


@pytest.mark.parametrize("factory", [SimpleProcessor, MultiProcessor])
def test_of_cancelling_and_a_shared_commit_exactly_one_wins(
    arena: Any, share: Any, factory: Any
) -> None:
    share("linger")
    jobids = arena.add(200, "share")
    cancelled: set[int] = set()
    chosen = iter(random.sample(jobids, 100))
    lock = threading.Lock()

    def cancel_one(root: Any, jobid: int) -> str:
        root["tasks"].cancel(jobid)
        status: str = root["tasks"].getStatus(jobid)
        return status

    def cancel() -> None:
        while True:
            with lock:
                jobid = next(chosen, None)
            if jobid is None:
                return
            if arena.retried(lambda root, jobid=jobid: cancel_one(root, jobid)) == CANCELLED:
                cancelled.add(jobid)

    arena.work(factory)
    for _ in range(2):
        arena.spawn(cancel)
    arena.join()
    arena.wait_until_done()
    arena.rest()
    statuses = arena.statuses()
    # One that was claimed alone after a collision may be told to cancel later than that.
    assert cancelled <= {jobid for jobid, status in statuses.items() if status == CANCELLED}
    done = [jobids.index(jobid) for jobid, status in statuses.items() if status == COMPLETED]
    assert arena.effects() == dict.fromkeys(done, 1)
    arena.check_books()


def test_of_rescue_and_a_shared_commit_exactly_one_wins(arena: Any, share: Any) -> None:
    share("count")
    for number in range(30):
        arena.add(3, "share", number * 3)
        worker, rescuer = arena.engine(), arena.engine()
        barrier = threading.Barrier(2)
        with arena.session() as session:
            claims = worker.claims.claim(session, 3, may_reserve=True)
            kept: list[bool] = []

            def run(
                worker: Any = worker, claims: Any = claims, barrier: Any = barrier, kept: Any = kept
            ) -> None:
                with arena.session() as session:
                    barrier.wait()
                    kept.append(worker.execution.run_together(session, claims) is not None)

            arena.spawn(run)
            barrier.wait()
            time.sleep(0.0002 * (number % 10))
            freed = arena.rescue(rescuer, session, worker)
            arena.join()
            assert (kept, freed) in (([True], 0), ([False], 3))
            while claims := rescuer.claims.claim(session, 10, may_reserve=True):
                for claim in claims:
                    rescuer.execution.run(session, claim)
            arena.give_up(rescuer, session)
    assert arena.effects() == dict.fromkeys(range(90), 1)
    arena.check_books()


def test_threads_of_one_processor_divide_jobs_that_share_commits(arena: Any, share: Any) -> None:
    share("linger")
    arena.add(200, "share")
    arena.work(MultiProcessor, maxThreads=3)
    arena.wait_until_done()
    arena.rest()
    assert arena.most_at_once == 3
    assert arena.effects() == dict.fromkeys(range(200), 1)


def test_stops_and_starts_lose_no_job_that_shares_commits(arena: Any, share: Any) -> None:
    share("linger")
    arena.add(150, "share")
    for factory in [SimpleProcessor, MultiProcessor] * 3:
        arena.work(factory)
        time.sleep(random.uniform(0.0, 0.04))
        arena.rest()
        arena.check_books()
    arena.work()
    arena.wait_until_done()
    arena.rest()
    assert arena.effects() == dict.fromkeys(range(150), 1)
    with arena.connected() as (_, root):
        assert {job.deaths for job in root["tasks"].jobs.values()} == {0}
