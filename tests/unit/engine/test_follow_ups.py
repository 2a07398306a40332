# SPDX-License-Identifier: ZPL-2.1
"""Jobs that follow by ``on_success`` and ``on_error``."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    RetryLater,
    TaskError,
    TaskNotFound,
)
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all


@pytest.fixture(autouse=True)
def calls(register: Any) -> list[Any]:
    """What the task *tell* was called with; beside it there is *fail*, for good and *stumble*."""
    calls: list[Any] = []

    def tell(context: Any, input: Any) -> Any:
        calls.append((context.job.cause, input))
        cause = context.cause
        return None if cause is None else (cause.status, cause.output, cause.error)

    def fail(input: Any) -> None:
        raise TaskError("no")

    def stumble(input: Any) -> None:
        raise ValueError("not yet")

    register("tell", tell, context=True)
    register("fail", fail)
    register("stumble", stumble, retry=RetryPolicy(2, 0.0))
    return calls


def check(service: Any) -> None:
    assert check_all(service, time.time(), repair=False) == []


def test_on_success_runs_when_a_job_is_completed(workshop: Any, calls: list[Any]) -> None:
    jobid = workshop.add("echo", 5, on_success=("tell", "done"), on_error=("tell", "failed"))
    ran = workshop.work()
    assert calls == [(jobid, "done")]
    assert ran[0] == jobid
    assert workshop.get(ran[1], "cause", "output") == (jobid, (COMPLETED, 5, None))
    with workshop.service() as service:
        check(service)


def test_on_error_runs_after_the_last_attempt(workshop: Any, calls: list[Any]) -> None:
    jobid = workshop.add("stumble", on_success=("tell", 1), on_error=("tell", 2))
    ran = workshop.work()
    assert ran[:2] == [jobid, jobid]
    assert calls == [(jobid, 2)]
    assert workshop.get(ran[2], "output") == (ERROR, None, "not yet")


def test_a_task_alone_has_no_input(workshop: Any, calls: list[Any]) -> None:
    jobid = workshop.add("fail", on_error="tell")
    workshop.work()
    assert calls == [(jobid, None)]


def test_it_is_given_as_the_function_of_its_task(workshop: Any, register: Any) -> None:
    def answer(input: Any) -> Any:
        return input

    register("named otherwise", answer)
    workshop.add("echo", on_success=(answer, 7))
    workshop.add("echo", on_success=answer)
    ran = workshop.work()
    found = sorted(workshop.get(jobid, "task") for jobid in ran)
    assert found == ["echo", "echo", "named otherwise", "named otherwise"]


def test_it_is_there_with_the_outcome_or_not_at_all(
    workshop: Any, fail_commits: Any, calls: list[Any]
) -> None:
    jobid = workshop.add("echo", on_success="tell")
    [claim] = workshop.claim()
    fail_commits(*[RuntimeError("this commit has failed")])
    workshop.run(claim)
    with workshop.service() as service:
        assert list(service.jobs) == [jobid]
        assert service.job(jobid).status == QUEUED
    workshop.now += 3600.0
    workshop.work()
    assert calls == [(jobid, None)]


def test_it_is_added_once_although_the_reply_to_the_commit_was_lost(
    workshop: Any, lose_the_reply: Any, calls: list[Any]
) -> None:
    jobid = workshop.add("echo", on_success="tell")
    [claim] = workshop.claim()
    lose_the_reply()
    workshop.run(claim)
    workshop.work()
    assert calls == [(jobid, None)]


def test_a_cancelled_job_is_followed_by_neither(workshop: Any, calls: list[Any]) -> None:
    waiting, running = (workshop.add("echo", on_success="tell", on_error="tell") for _ in "ab")
    with workshop.service() as service:
        service.cancel(waiting)
    [claim] = workshop.claim()
    with workshop.service() as service:
        service.cancel(running)
    workshop.run(claim)
    assert workshop.get(running, "status") == CANCELLED
    assert workshop.work() == []
    assert calls == []


def test_jobs_that_share_a_commit_have_their_followers_in_it(
    workshop: Any, register: Any, calls: list[Any]
) -> None:
    register("shared", lambda input: input, shared_commit=True)
    jobids = [workshop.add("shared", n, on_success=("tell", n)) for n in range(3)]
    outcomes = workshop.run_together(workshop.reserve())
    assert [outcome.status for outcome in outcomes] == [COMPLETED] * 3
    assert workshop.get(jobids[0], "status") == COMPLETED
    workshop.work()
    assert sorted(calls) == sorted(zip(jobids, range(3), strict=True))


def test_deaths_without_end_are_an_error_too(workshop: Any, calls: list[Any]) -> None:
    jobid = workshop.add("echo", on_error="tell")
    with workshop.service() as service:
        service.max_deaths = 1
    dead = workshop.new_engine()
    assert dead.claims.claim(workshop.session, 1)
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    assert workshop.get(jobid, "status") == ERROR
    workshop.work()
    assert calls == [(jobid, None)]


def test_inline_they_run_in_the_same_call(service: Any, calls: list[Any]) -> None:
    good = service.add("echo", on_success=("tell", "good"))
    bad = service.add("fail", on_error=("tell", "bad"))
    service.process()
    assert sorted(calls) == sorted([(good, "good"), (bad, "bad")])


def test_one_that_asks_for_another_run_has_not_ended(workshop: Any, register: Any) -> None:
    def later(input: Any) -> None:
        raise RetryLater(60.0)

    register("later", later)
    jobid = workshop.add("later", on_success="tell", on_error="tell")
    assert workshop.work() == [jobid]


def test_a_repeated_job_is_followed_each_time_that_it_ends(
    workshop: Any, register: Any, calls: list[Any]
) -> None:
    jobid = workshop.add("fail", on_success=("tell", "good"), on_error=("tell", "bad"))
    workshop.work()
    register("fail", lambda input: input)
    with workshop.service() as service:
        service.retry(jobid)
    workshop.work()
    assert calls == [(jobid, "bad"), (jobid, "good")]


def test_what_follows_is_checked_when_it_is_given(service: Any, register: Any) -> None:
    with pytest.raises(TaskNotFound):
        service.add("echo", on_success="unknown")
    with pytest.raises(TaskNotFound):
        service.add("echo", on_error=(["tell"], 1))
    with pytest.raises(InvalidArgument, match=r"a task, or \(task, input\), not"):
        service.add("echo", on_success=("tell", 1, 2))
    with pytest.raises(InvalidInput):
        service.add("echo", on_error=("tell", lambda: None))
    assert not service.jobs


def test_a_delayed_job_can_be_followed(workshop: Any, calls: list[Any]) -> None:
    jobid = workshop.add("echo", delay=0.0, on_success="tell")
    workshop.work()
    assert calls == [(jobid, None)]


def test_a_cause_that_is_gone_is_none(workshop: Any, calls: list[Any]) -> None:
    jobid = workshop.add("echo", on_success="tell")
    workshop.step()
    workshop.claim(0)
    with workshop.service() as service:
        service.clean()
        assert jobid not in service.jobs
    [following] = workshop.work()
    assert workshop.get(following, "status", "output") == (COMPLETED, None)
    assert calls == [(jobid, None)]


def test_what_is_done_to_the_result_of_the_cause_is_not_there_for_the_next_attempt(
    workshop: Any, register: Any
) -> None:
    seen: list[Any] = []

    def empty(context: Any, input: Any) -> None:
        result = context.cause.output
        seen.append(list(result))
        result.clear()
        if len(seen) < 3:
            raise ValueError("not yet")

    register("empty", empty, context=True, retry=RetryPolicy(3, 0.0, jitter=0.0))
    jobid = workshop.add("echo", [1, 2], on_success="empty")
    workshop.work()
    assert seen == [[1, 2]] * 3
    assert workshop.get(jobid, "output") == [1, 2]
