# SPDX-License-Identifier: ZPL-2.1
"""Pages of jobs, in the order of a time, without a walk over all jobs."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest
from zope.component import getGlobalSiteManager

from lovely.remotetask.errors import InvalidArgument, JobNotFound, TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
    STATUSES,
    ITask,
)
from lovely.remotetask.service import TaskService
from lovely.remotetask.store import listing
from lovely.remotetask.store.ready import SEGMENT_SIZE


def all_pages(service: TaskService, limit: int = 50, **filters: Any) -> list[int]:
    """Return the ids of a list, of all its pages."""
    ids: list[int] = []
    after = None
    while True:
        page = service.list(limit=limit, after=after, **filters)
        assert len(page.jobs) <= limit
        ids += [job.id for job in page.jobs]
        after = page.next
        if after is None:
            return ids


@pytest.fixture
def busy(workshop: Any, register: Any) -> Any:
    """A workshop with jobs wherever jobs can be."""

    def fail(input: Any) -> None:
        raise TaskError("no")

    def stumble(input: Any) -> None:
        raise ValueError("not yet")

    register("fail", fail)
    register("stumble", stumble)
    register("gone", lambda input: input)
    for _ in range(3):
        workshop.add("echo")
        workshop.add("fail")
        workshop.work()
    with workshop.service() as service:
        service.cancel(service.add("echo"))
        service.addCronJob("echo", delay=3600)
        service.addCronJob("gone", delay=0)
        service.addCronJob("echo", minute=(0,))
        service.add("echo", startLater=True)
        service.add("gone")
        service.add("stumble")
    assert getGlobalSiteManager().unregisterUtility(provided=ITask, name="gone")
    workshop.work()
    for _ in range(3):
        workshop.add("echo")
    [claim] = workshop.claim()
    workshop.run(claim)  # ended, and not filed yet
    workshop.add("echo")
    ended, running = workshop.new_engine(), workshop.new_engine()
    [claim] = ended.claims.claim(workshop.session, 1)
    ended.execution.run(workshop.session, claim)
    running.claims.claim(workshop.session, 1)
    for _ in range(20):
        with workshop.service() as service:
            service.add_many("echo", range(40))
            service._v_next_id = None  # elsewhere
    return workshop


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_each_job_is_on_one_page(busy: Any, order: str, limit: int) -> None:
    with busy.service() as service:
        limit = max(limit, len(service.jobs) // 100)
        ids = all_pages(service, limit, order=order)
        assert sorted(ids) == list(service.jobs)
        assert ids == all_pages(service, order=order)
        other = {"newest": "oldest", "oldest": "newest"}[order]
        assert ids[::-1] == all_pages(service, 33, order=other)


def test_the_jobs_of_each_status_are_as_many_as_are_counted(busy: Any) -> None:
    with busy.service() as service:
        counts = service.countJobs()
        assert min(counts.values()) > 0
        for status in STATUSES:
            ids = all_pages(service, 10, status=status)
            assert len(ids) == counts[status]
            assert {service.getStatus(jobid) for jobid in ids} == {status}
            assert all_pages(service, 9, status=status, order="oldest") == ids[::-1]


def test_jobs_that_have_ended_are_in_the_order_of_their_ends(busy: Any) -> None:
    with busy.service() as service:
        for status in (COMPLETED, ERROR):
            times = [service.job(i).completed for i in all_pages(service, 2, status=status)]
            assert times == sorted(times, reverse=True)  # type: ignore[type-var]


def test_jobs_that_wait_for_a_time_are_in_the_order_of_that_time(workshop: Any) -> None:
    with workshop.service() as service:
        ids = [service.addCronJob("echo", delay=seconds) for seconds in (300, 1e6, 100, 100)]
        late, last, *first = ids
        assert all_pages(service, status=DELAYED, order="oldest") == [*sorted(first), late, last]


def test_ready_jobs_are_in_the_order_in_which_they_came(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    now = time.time() - 1000
    for number in range(200):
        monkeypatch.setattr(time, "time", lambda number=number: now + number)
        with workshop.service() as service:
            ids.append(service.add("echo"))
    monkeypatch.undo()
    with workshop.service() as service:
        assert all_pages(service, 17, order="oldest") == ids
        assert all_pages(service, 17, status=QUEUED) == ids[::-1]


def test_a_job_that_became_ready_late_stands_where_it_became_so(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workshop.service() as service:
        waiting = service.add("echo", startLater=True)
    later = time.time() + 1000
    monkeypatch.setattr(time, "time", lambda: later)
    with workshop.service() as service:
        first = [service.add("echo") for _ in range(40)]
        service.startJob(waiting)
        ids = all_pages(service, 3, order="oldest")
        assert sorted(ids) == sorted([*first, waiting])
        assert ids.index(waiting) >= 32  # in the last segment that it could have come into


@pytest.mark.parametrize("bits", [(1023, 0), (0, 1023), (0, 0)], ids=str)
def test_segments_that_are_opened_at_one_moment_are_apart_in_lists(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, bits: tuple[int, int]
) -> None:
    chances = itertools.cycle(bits)
    monkeypatch.setattr(random, "getrandbits", lambda count: next(chances))
    with workshop.service() as service:
        early = service.add("echo", startLater=True)
    later = time.time() + 1000
    monkeypatch.setattr(time, "time", lambda: later)
    with workshop.service() as service:
        ids = [service.add("echo") for _ in range(SEGMENT_SIZE)]
        service.startJob(early)  # it counts as if it had come when its segment was opened
        ids += [early, *(service.add("echo") for _ in range(SEGMENT_SIZE))]
        for limit in (1, 3):
            assert sorted(all_pages(service, limit, order="oldest")) == sorted(ids)
            assert sorted(all_pages(service, limit)) == sorted(ids)


def test_a_page_of_a_task_has_only_its_jobs(busy: Any) -> None:
    with busy.service() as service:
        for task in ("fail", "gone", "stumble", "nobody's"):
            ids = all_pages(service, 2, task=task)
            assert sorted(ids) == [job.id for job in service.jobs.values() if job.task == task]


def test_a_page_looks_at_so_many_entries_and_no_more(
    busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOK_SIZE", 100)
    with busy.service() as service:
        page = service.list(task="nobody's")
        assert page.jobs == []
        assert page.next is not None
        ids = all_pages(service, 1000)
        assert sorted(ids) == list(service.jobs)
        assert all_pages(service, task="nobody's") == []


def test_entries_that_no_job_stands_by_are_passed_over(busy: Any) -> None:
    with busy.service() as service:
        for jobid in all_pages(service, status=QUEUED)[5:700]:
            service.cancel(jobid)
        service.clean([CANCELLED])
        assert sorted(all_pages(service, 20)) == list(service.jobs)
        assert not service.list(CANCELLED).jobs


def test_a_page_does_not_load_all_jobs(workshop: Any) -> None:
    with workshop.service() as service:
        ids = service.add_many("echo", range(5000))
        for jobid in ids[:2500]:
            service.cancel(jobid)
    for filters in ({}, {"status": QUEUED}, {"status": CANCELLED}):
        for order in ("newest", "oldest"):
            with workshop.service() as service:
                service._p_jar.cacheMinimize()
                service.list(order=order, limit=20, **filters)
                loaded = [job for job in service.jobs.values() if job._p_changed is not None]
                assert len(loaded) < 1200


def test_errors_are_listed_by_themselves(busy: Any) -> None:
    with busy.service() as service:
        assert service.errors() == service.list(ERROR)
        page = service.errors("fail", "oldest", limit=1)
        assert [job.id for job in page.jobs] == all_pages(service, status=ERROR, order="oldest")[:1]
        assert service.errors("echo").jobs == []


def test_what_runs_is_listed_with_who_runs_it(busy: Any) -> None:
    with busy.service() as service:
        [job] = service.list(PROCESSING).jobs
        held = [worker for worker in service.list_workers() if job.id in worker.held]
        assert [worker.id for worker in held] == [job.owner]
        [worker] = held
        record = service.workers[job.owner]
        assert (worker.host, worker.pid, worker.is_inline) == (record.host, record.pid, False)
        assert worker.last_sign is not None
        assert abs(worker.last_sign.timestamp() - time.time()) < 3600


def test_a_worker_that_was_not_committed_has_given_no_sign_yet(service: TaskService) -> None:
    assert service.list_workers() == []
    jobid = service.add("echo")
    service.claimNextJob()
    [worker] = service.list_workers()
    assert (worker.held, worker.is_inline, worker.last_sign) == ((jobid,), True, None)


def test_a_service_in_no_database_has_lists_too(service: TaskService) -> None:
    ids = [
        service.add("echo"),
        service.addCronJob("echo", minute=(0,)),
        service.add("echo", startLater=True),
    ]
    assert sorted(all_pages(service, 1)) == sorted(ids)
    assert [job.id for job in service.list(CRONJOB).jobs] == ids[1:2]
    assert [job.id for job in service.list(STARTLATER).jobs] == ids[2:]
    assert TaskService().list() == ([], None)


def test_the_last_page_says_so(service: TaskService) -> None:
    service.add_many("echo", range(4))
    first = service.list(limit=2)
    second = service.list(limit=2, after=first.next)
    assert first.next is not None
    assert second.next is None


def test_a_job_is_found_by_its_id(service: TaskService) -> None:
    jobid = service.add("echo")
    assert service.job(jobid) is service.jobs[jobid]
    with pytest.raises(JobNotFound):
        service.job(jobid + 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"status": "done"},
        {"status": ["queued"]},
        {"task": 5},
        {"order": "up"},
        {"order": None},
        {"limit": 0},
        {"limit": 1001},
        {"limit": None},
        {"limit": True},
        {"limit": 1.5},
        {"after": 5},
        {"after": ""},
        {"after": "zz"},
        {"after": "-5"},
        {"after": " 5"},
        {"after": "0x5"},
        {"after": "5_5"},
        {"after": "f" * 50},
    ],
)
def test_what_makes_no_sense_is_refused(service: TaskService, arguments: Any) -> None:
    with pytest.raises(InvalidArgument):
        service.list(**arguments)
