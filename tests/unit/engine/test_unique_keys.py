# SPDX-License-Identifier: ZPL-2.1
"""Unique keys: one job that waits or runs with each."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ZODB.POSException import ConflictError, ReadConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.errors import InvalidArgument, TaskError, UniqueKeyTaken
from lovely.remotetask.interfaces import COMPLETED, ERROR, ITask
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.names import FEW, MANY, NameTable


@pytest.fixture(autouse=True)
def tasks(register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    register("stumble", lambda input: 1 / 0)


def find(workshop: Any, key: str = "key") -> int | None:
    with workshop.service() as service:
        found: int | None = service.find(key)
        return found


def check(workshop: Any, repair: bool = False) -> list[str]:
    with workshop.service() as service:
        return [problem.text for problem in check_all(service, time.time(), repair)]


def test_a_job_that_waits_is_added_once(service: TaskService) -> None:
    jobid = service.add("echo", 1, unique_key="key")
    assert service.add("echo", 2, unique_key="key") == jobid
    assert service.find("key") == jobid
    assert [job.input for job in service.jobs.values()] == [1]
    assert service.job(jobid).unique_key == "key"


def test_other_keys_and_no_key_are_in_nobodys_way(service: TaskService) -> None:
    keys = [None, None, "one", "two", "Ünïcödé", " ", "\0"]
    ids = [service.add("echo", unique_key=key) for key in keys]
    assert len(set(ids)) == len(keys)
    assert [service.find(key) for key in keys if key] == ids[2:]
    assert service.find("three") is None


@pytest.mark.parametrize(
    "options", [{"delay": 1000}, {"startLater": True}, {"lock": "l"}, {"priority": 3}]
)
def test_a_job_that_waits_in_any_way_is_found(workshop: Any, options: dict[str, Any]) -> None:
    jobid = workshop.add("echo", unique_key="key", **options)
    assert workshop.add("echo", unique_key="key") == jobid == find(workshop)


def test_a_job_of_an_unknown_or_paused_task_is_found(workshop: Any, register: Any) -> None:
    register("other", lambda input: input)
    unknown = workshop.add("other", unique_key="unknown")
    paused = workshop.add("echo", unique_key="paused")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="other")
    with workshop.service() as service:
        service.pause("echo")
    assert workshop.work() == []
    assert (find(workshop, "unknown"), find(workshop, "paused")) == (unknown, paused)


def test_a_job_that_runs_is_found_and_one_that_waits_to_run_again(workshop: Any) -> None:
    retry = RetryPolicy(retry_on=(Exception,))
    jobid = workshop.add("stumble", unique_key="key", retry=retry)
    [claim] = workshop.claim()
    assert workshop.add("echo", unique_key="key") == jobid
    workshop.run(claim)
    assert workshop.add("echo", unique_key="key") == jobid
    workshop.claim(0)
    assert workshop.add("echo", unique_key="key") == jobid


@pytest.mark.parametrize("is_filed", [True, False])
@pytest.mark.parametrize(("task", "status"), [("echo", COMPLETED), ("fail", ERROR)])
def test_the_key_of_a_job_that_has_ended_is_free(
    workshop: Any, task: str, status: str, is_filed: bool
) -> None:
    first = workshop.add(task, unique_key="key")
    workshop.run(*workshop.claim())
    if is_filed:
        workshop.claim(0)
    assert workshop.get(first, "status") == status
    assert find(workshop) is None
    second = workshop.add("echo", unique_key="key")
    assert second != first
    workshop.claim(0)  # files the first one, which is to take nothing from the second
    assert find(workshop) == second
    workshop.work()
    workshop.claim(0)
    with workshop.service() as service:
        assert not list(service.queue.keys)
    assert check(workshop) == []


def test_the_key_of_a_cancelled_job_is_free(service: TaskService) -> None:
    first = service.add("echo", unique_key="key")
    service.cancel(first)
    assert service.find("key") is None
    assert service.add("echo", unique_key="key") != first


def test_the_key_of_a_job_that_is_cleaned_before_it_is_filed_is_freed(workshop: Any) -> None:
    workshop.add("echo", unique_key="key")
    workshop.run(*workshop.claim())
    with workshop.service() as service:
        service.clean()
    workshop.claim(0)
    with workshop.service() as service:
        assert not list(service.jobs)
        assert not list(service.queue.keys)


def test_removing_a_job_frees_no_key_that_is_not_its_own(workshop: Any) -> None:
    workshop.add("echo", unique_key="key")
    workshop.work()
    second = workshop.add("echo", unique_key="key", delay=1000)
    with workshop.service() as service:
        service.retention = {COMPLETED: Retention(max_count=0)}
    assert workshop.engine.upkeep.prune(workshop.session, 10) is False
    workshop.claim(0)
    with workshop.service() as service:
        assert list(service.jobs) == [second]
        service.clean()
    assert find(workshop) == second


def test_two_who_add_at_once_get_one_job(workshop: Any) -> None:
    with pytest.raises(ConflictError), workshop.service() as service:  # noqa: PT012
        service.add("echo", unique_key="key")
        winner = workshop.add("echo", unique_key="key")
    assert workshop.add("echo", unique_key="key") == winner
    assert check(workshop) == []


def test_two_who_add_with_other_keys_at_once_do_not_collide(workshop: Any) -> None:
    workshop.add("echo", unique_key="key 0")
    for number in range(1, 40):
        with workshop.service() as service:
            service._v_next_id = 5
            service.add("echo", unique_key=f"key {number}")
            workshop.add("echo", unique_key=f"key -{number}")


def test_who_gets_the_id_of_a_job_commits_only_if_it_has_not_gone_on(workshop: Any) -> None:
    jobid = workshop.add("echo", unique_key="key")
    with pytest.raises(ReadConflictError), workshop.transaction() as root:  # noqa: PT012
        assert root["tasks"].add("echo", unique_key="key") == jobid
        root["changed"] = True  # what the job may have read by now
        workshop.work()


def test_ending_a_job_collides_with_nobody_who_adds(workshop: Any) -> None:
    workshop.add("echo", unique_key="key")
    [claim] = workshop.claim()
    with workshop.service() as service:
        service.add("echo", unique_key="other")
        assert workshop.run(claim).status == COMPLETED
    assert workshop.get(claim.jobid, "conflicts") == 0


def test_a_job_runs_again_with_its_key_if_nobody_else_has_it(workshop: Any) -> None:
    first = workshop.add("fail", unique_key="key")
    workshop.work()
    second = workshop.add("echo", unique_key="key")
    with workshop.service() as service:
        with pytest.raises(UniqueKeyTaken, match=f"job {second} has the unique key 'key'"):
            service.retry(first)
        assert service.retry_all() == 0
        assert service.getStatus(first) == ERROR
    workshop.work()
    with workshop.service() as service:
        service.retry(first)
        assert service.find("key") == first
    assert check(workshop) == []


def test_of_a_retry_and_adding_with_the_same_key_one_commits(workshop: Any) -> None:
    first = workshop.add("fail", unique_key="key")
    workshop.run(*workshop.claim())
    with pytest.raises(ConflictError), workshop.service() as service:  # noqa: PT012
        service.retry(first)  # files the job too
        workshop.add("echo", unique_key="key")
    assert find(workshop) not in (None, first)


def test_a_job_that_goes_on_by_a_new_schedule_keeps_its_key_if_it_can(workshop: Any) -> None:
    for others in (0, 1):
        jobid = workshop.add("echo", unique_key="key", delay=0)
        [claim] = workshop.claim()
        with workshop.service() as service:
            service.jobs[jobid].update(minute=(5,))
        workshop.run(claim)
        rivals = [workshop.add("echo", unique_key="key") for _ in range(others)]
        workshop.claim(0)
        assert workshop.get(jobid, "status") == "cronjob"
        assert find(workshop) == [jobid, *rivals][-1]
        assert workshop.get(jobid, "unique_key") == (None if others else "key")
        with workshop.service() as service:
            service.cancel(jobid)
    assert check(workshop) == []


@pytest.mark.parametrize("key", ["", "x" * 201, 5, b"key", "\ud800", ["key"]])
def test_keys_that_make_no_sense_are_refused(service: TaskService, key: Any) -> None:
    with pytest.raises(InvalidArgument, match="unique_key"):
        service.add("echo", unique_key=key)
    with pytest.raises(InvalidArgument, match="unique_key"):
        service.find(key)
    assert not service.jobs


def test_nothing_is_found_by_no_key(service: TaskService) -> None:
    with pytest.raises(InvalidArgument):
        service.find(None)  # type: ignore[arg-type]


def test_keys_that_are_lost_are_found_and_mended(workshop: Any) -> None:
    jobid = workshop.add("echo", unique_key="key")
    with workshop.service() as service:
        service.queue.keys.drop("key")
        service.queue.keys.put("nobody's", (12345,))
    assert check(workshop) == [
        "it is not found by its unique key",
        'the unique key "nobody\'s" is that of no live job',
    ]
    check(workshop, repair=True)
    assert check(workshop) == []
    assert find(workshop) == jobid


def test_two_jobs_with_a_key_are_told_and_left_alone(workshop: Any) -> None:
    workshop.add("echo", unique_key="key")
    other = workshop.add("echo")
    with workshop.service() as service:
        service.jobs[other].unique_key = "key"
    assert len(check(workshop, repair=True)) == 1
    assert "has the same unique key" in check(workshop)[0]
    assert len(workshop.work()) == 2


def test_a_job_that_deaths_have_ended_frees_its_key(workshop: Any) -> None:
    workshop.add("echo", unique_key="key")
    with workshop.service() as service:
        service.max_deaths = 1
    workshop.claim()
    workshop.engine.claims.retire()
    rival = workshop.new_engine()
    rival.upkeep.free(workshop.session, [workshop.engine.claims.identity.id])
    assert find(workshop) is None
    assert check(workshop) == []


# -- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("shifts", [FEW, MANY])
def test_a_table_keeps_what_is_put_into_it(shifts: tuple[int, ...]) -> None:
    table = NameTable(shifts)
    rows = {f"name {number}": (number, -number) for number in range(1000)}
    for name, numbers in rows.items():
        table.put(name, (0,))
        table.put(name, numbers)
    assert dict(table) == rows
    for name in list(rows)[::2]:
        table.drop(name)
        table.drop(name)
        assert table.get(name) == ()
        del rows[name]
    assert dict(table) == rows


def test_who_writes_a_row_again_as_it_was_collides_too(db: Any) -> None:
    with db.transaction() as connection:
        table = connection.root()["table"] = NameTable(FEW)
        table.put("a", (1,))
        table.put("c", (1,))
        table.drop("c")
    with pytest.raises(ConflictError), db.transaction() as connection:  # noqa: PT012
        connection.root()["table"].put("a", (1,))
        with db.transaction() as other:
            other.root()["table"].put("a", (2,))
    with pytest.raises(ConflictError), db.transaction() as connection:  # noqa: PT012
        connection.root()["table"].put("c", (1,))
        connection.root()["table"].drop("c")
        with db.transaction() as other:
            other.root()["table"].put("c", (2,))


def test_who_writes_other_rows_of_a_page_does_not_collide(db: Any) -> None:
    names = [str(number) for number in range(400)]
    with db.transaction() as connection:
        table = connection.root()["table"] = NameTable(FEW)
        for name in names[:200]:
            table.put(name, (1,))
    with db.transaction() as connection:
        table = connection.root()["table"]
        table.drop(names[0])
        table.put(names[1], (2,))
        table.put(names[200], (3,))
        with db.transaction() as other:
            for name in names[2:100]:
                other.root()["table"].drop(name)
            for name in names[201:]:
                other.root()["table"].put(name, (4,))
    with db.transaction() as connection:
        rows = dict(connection.root()["table"])
    assert set(rows) == {names[1], *names[100:]}
    assert (rows[names[1]], rows[names[200]], rows[names[300]]) == ((2,), (3,), (4,))
