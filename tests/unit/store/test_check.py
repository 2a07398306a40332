# SPDX-License-Identifier: ZPL-2.1
"""Every kind of disagreement between jobs and indexes is found, and mended."""

from __future__ import annotations

import base64
import time
from collections import Counter
from typing import Any

import pytest
import transaction
from ZODB.Connection import Connection
from zope.component import getGlobalSiteManager

from lovely.remotetask.errors import TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
    ITask,
)
from lovely.remotetask.job import Progress
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store import check
from lovely.remotetask.store.ready import SEGMENT_SIZE
from lovely.remotetask.store.tree import MAX_JOB_ID, lane_of

NOW = 2_000_000_000.0

Jobs = dict[str, int]


@pytest.fixture
def jobs(service: TaskService, register: Any) -> Jobs:
    """A job in each place where one can stand: a name -> id."""

    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    register("stumble", lambda input: 1 / 0, retry=RetryPolicy(first_wait_seconds=10_000))
    register("late", lambda input: input)
    jobs = {
        COMPLETED: service.add("echo"),
        ERROR: service.add("fail"),
        CANCELLED: service.add("echo", startLater=True),
        "repeat": service.add("stumble"),
        "parked": service.add("late"),
    }
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    service.cancel(jobs[CANCELLED])
    service.process(NOW)
    jobs[PROCESSING] = service.add("echo")
    service.claimNextJob(NOW)
    jobs[QUEUED] = service.add("echo")
    jobs[STARTLATER] = service.add("echo", startLater=True)
    jobs[DELAYED] = service.addCronJob("echo", delay=10)
    jobs[CRONJOB] = service.addCronJob("echo", minute=(10,))
    return jobs


def look(service: TaskService) -> list[tuple[int | None, str]]:
    return [tuple(problem) for problem in check.check_all(service, NOW, repair=False)]


def mend(service: TaskService) -> None:
    assert check.check_all(service, NOW, repair=True)
    assert look(service) == []
    counted = {status: n for status, n in service.countJobs().items() if n}
    assert counted == dict(Counter(job.status for job in service.jobs.values()))


def test_a_healthy_service_has_no_problems(service: TaskService, jobs: Jobs) -> None:
    assert look(service) == []
    assert look(TaskService()) == []


def test_a_service_is_healthy_in_the_middle_of_work(workshop: Any, register: Any) -> None:
    register("fail", lambda input: 1 / 0, retry=RetryPolicy(first_wait_seconds=100))

    def is_healthy(context: Any, input: Any) -> None:
        with workshop.service() as service:
            service.cancel(context.jobid)
            context.progress(1, 2)
            assert look(service) == []

    register("look", is_healthy, context=True)
    for task in ("echo", "look", "fail", "echo", "look"):
        workshop.add(task)
    workshop.add_cron_job("echo", minute=(0,))
    workshop.now += 3600
    for claim in workshop.claim(4):
        workshop.run(claim)
        with workshop.service() as service:
            assert look(service) == []
    workshop.claim()
    with workshop.service() as service:
        assert look(service) == []
        assert service.countJobs()[PROCESSING] == 1


# -- jobs that were deleted by hand --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(COMPLETED, ERROR, CANCELLED, "repeat", QUEUED, STARTLATER, DELAYED, CRONJOB),
        "parked",
    ],
)
def test_what_a_deleted_job_leaves_behind_is_found(
    service: TaskService, jobs: Jobs, name: str
) -> None:
    del service.jobs[jobs[name]]
    assert look(service) != []
    mend(service)


def test_a_deleted_job_that_ran_disturbs_nothing(service: TaskService, jobs: Jobs) -> None:
    del service.jobs[jobs[PROCESSING]]
    assert look(service) == []
    assert service.countJobs()[PROCESSING] == 0


# -- jobs that stand nowhere -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("repeat", "parked", QUEUED, DELAYED, CRONJOB),
        STARTLATER,
    ],
)
def test_a_job_that_waits_nowhere_is_found(service: TaskService, jobs: Jobs, name: str) -> None:
    job = service.jobs[jobs[name]]
    status = job.status
    service.queue.remove(job)
    assert look(service) == [(job.id, f"it is {status}, but waits nowhere")]
    mend(service)
    assert job.status == status


@pytest.mark.parametrize("name", ["repeat", DELAYED, CRONJOB])
def test_a_job_whose_entry_is_gone_is_found(service: TaskService, jobs: Jobs, name: str) -> None:
    job = service.jobs[jobs[name]]
    service.queue.indexes[job.status].remove(job.place, job.id)
    assert (job.id, f"it is {job.status}, but waits nowhere") in look(service)
    mend(service)


@pytest.mark.parametrize("status", [COMPLETED, ERROR, CANCELLED])
def test_an_ended_job_that_is_not_filed_is_found(
    service: TaskService, jobs: Jobs, status: str
) -> None:
    job = service.jobs[jobs[status]]
    service.queue.remove(job)
    assert look(service) == [(job.id, f"it is {status}, but not filed")]
    mend(service)
    service.clean()
    assert job.id not in service.jobs


def test_a_mended_job_runs(service: TaskService, jobs: Jobs) -> None:
    job = service.jobs[jobs[QUEUED]]
    service.queue.remove(job)
    mend(service)
    service.process(NOW)
    assert service.getStatus(job.id) == COMPLETED


def test_a_mended_delay_keeps_its_time(service: TaskService, jobs: Jobs) -> None:
    job = service.jobs[jobs[DELAYED]]
    due = job.due
    service.queue.remove(job)
    mend(service)
    assert job.due == due


# -- other disagreements ---------------------------------------------------------------------------


def test_a_running_job_that_no_worker_holds_is_found(service: TaskService, jobs: Jobs) -> None:
    service.workers.clear()
    assert look(service) == [(jobs[PROCESSING], "it is processing, but no worker holds it")]
    mend(service)
    assert service.getStatus(jobs[PROCESSING]) == QUEUED
    service.process(NOW)
    assert service.getStatus(jobs[PROCESSING]) == COMPLETED


def test_an_unknown_status_is_found(service: TaskService, jobs: Jobs) -> None:
    service.jobs[jobs[QUEUED]].status = "done"
    assert (jobs[QUEUED], "it has the unknown status 'done'") in look(service)
    mend(service)


@pytest.mark.parametrize("status", [COMPLETED, ERROR, CANCELLED, QUEUED, STARTLATER, DELAYED])
def test_an_entry_too_many_is_found(service: TaskService, jobs: Jobs, status: str) -> None:
    service.queue.indexes[status].insert(5.0, jobs[CRONJOB])
    assert look(service) == [(jobs[CRONJOB], f"an entry of the index of {status} jobs is stale")]
    mend(service)


def test_notes_about_jobs_that_do_not_run_are_found(service: TaskService, jobs: Jobs) -> None:
    for jobid in (jobs[QUEUED], jobs[COMPLETED], 4711):
        service.requests.insert(jobid)
        service.progress[jobid] = Progress(1, 2, "")
    assert len(look(service)) == 6
    mend(service)
    assert len(service.requests) == len(service.progress) == 0


def test_notes_about_a_running_job_are_left_alone(service: TaskService, jobs: Jobs) -> None:
    service.requests.insert(jobs[PROCESSING])
    service.progress[jobs[PROCESSING]] = Progress(1, 2, "")
    assert look(service) == []


@pytest.mark.parametrize(
    "difference",
    [3, -3],
)
def test_a_wrong_count_is_found(service: TaskService, jobs: Jobs, difference: int) -> None:
    service.queue.ready.correct(-difference)
    service.queue.indexes[COMPLETED].size.change(difference)
    assert sorted(text for _, text in look(service)) == [
        f"the count of completed jobs is wrong by {difference}",
        f"the count of ready jobs is wrong by {difference}",
    ]
    mend(service)


def test_a_job_whose_segment_is_gone_is_not_counted_twice(service: TaskService) -> None:
    jobids = service.add_many("echo", range(100))
    before = len(service.queue)
    for _, segment in (entry for lane in service.queue.ready.lanes for entry in lane):
        segment._data = ()
    problems, _ = check.check_jobs(service, NOW, repair=True)
    assert {problem.jobid for problem in problems} >= set(jobids)
    assert len(service.queue) == before
    assert look(service) == []


# -- steps -----------------------------------------------------------------------------------------


def test_a_look_changes_nothing(workshop: Any) -> None:
    with workshop.service() as service:
        for number in range(5):
            service.queue.remove(service.jobs[service.add("echo", number)])
    before = workshop.last_transaction()
    with workshop.service() as service:
        assert len(look(service)) == 5
    assert workshop.last_transaction() == before


def test_many_jobs_are_checked_step_by_step(
    service: TaskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "STEP_SIZE", 10)
    jobids = sorted(service.add_many("echo", range(35)))
    for jobid in jobids:
        service.queue.remove(service.jobs[jobid])
    problems, first = check.check_jobs(service, NOW, repair=True)
    assert [problem.jobid for problem in problems] == jobids[:10]
    assert first == jobids[9] + 1
    commits: list[float] = []
    found = check.check_all(service, NOW, True, lambda: commits.append(time.time()))
    assert len(found) >= 25
    assert len(commits) == 6
    assert look(service) == []


def test_a_step_can_end_at_the_last_id(
    service: TaskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "STEP_SIZE", 1)
    service._v_next_id = MAX_JOB_ID
    assert service.add("echo") == MAX_JOB_ID
    assert look(service) == []


def test_a_step_ends_where_the_jobs_end(service: TaskService) -> None:
    service.add_many("echo", range(5))
    assert check.check_jobs(service, NOW, repair=False) == ([], 0)


def test_what_a_step_looks_at_is_asked_for_together(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server each record that is asked for by itself is a round trip."""
    jobids = [workshop.add("echo") for _ in range(10)]
    asked: list[list[Any]] = []
    with workshop.service() as service:
        service._p_jar.cacheMinimize()
        monkeypatch.setattr(Connection, "prefetch", lambda jar, *found: asked.append([*found[0]]))
        assert check.check_jobs(service, NOW, repair=False) == ([], 0)
        assert [[job.id for job in found] for found in asked] == [sorted(jobids)]


# -- transactions that are undone ----------------------------------------------------------------


def undo(db: Any, tid: bytes) -> None:
    manager = transaction.TransactionManager()
    db.undo(base64.b64encode(tid).rstrip(), manager.get())
    manager.commit()


def test_jobs_that_follow_upon_an_undone_one_are_run(file_workshop: Any, register: Any) -> None:
    workshop = file_workshop
    register("share", lambda input: input, shared_commit=True)
    workshop.add("echo")
    workshop.work()
    with workshop.service() as service:
        service.add_many("share", range(SEGMENT_SIZE))
    undone = workshop.last_transaction()
    assert workshop.reserve()  # the segment of the first job is used up
    undo(workshop.db, undone)
    jobid = workshop.add("echo")
    with workshop.service() as service:
        assert {lane_of(other) for other in service.jobs} == {lane_of(jobid)}
        assert look(service) == []
    assert workshop.work() == [jobid]
