# SPDX-License-Identifier: ZPL-2.1
"""Ends of runs that are written with others, and what else there is about a job."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zope.event
from ZODB.POSException import ConflictError

from lovely.remotetask import around
from lovely.remotetask.engine.finishing import Finishing
from lovely.remotetask.engine.joblogs import NOTE_SECONDS
from lovely.remotetask.errors import CannotUndo
from lovely.remotetask.events import JobCompleted, JobEvent, JobFailed
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all

log = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look after the pipe."""
    monkeypatch.setattr(Finishing, "_is_watched", lambda self: True)


@pytest.fixture(autouse=True)
def tasks(register: Any) -> Iterator[None]:
    log.setLevel(logging.INFO)
    register("tell", lambda input: log.info("line of %s", input))
    yield
    log.setLevel(logging.NOTSET)


def run(workshop: Any, count: int) -> list[str | None]:
    """Claim jobs and run them, each with another one behind it."""
    execute = workshop.engine.execution.run
    claims = workshop.claim(count)
    assert len(claims) == count
    return [execute(workshop.session, claim, lambda: True).status for claim in claims]


def run_beside(workshop: Any, claim: Any) -> Any:
    """Run a job as a thread does whose loop has claimed it; return its status."""
    workshop.engine.claims.desk = workshop.session
    with workshop.engine.claims.open_beside() as session:
        return workshop.engine.execution.run(session, claim).status


def settle(workshop: Any) -> None:
    workshop.engine.execution.settle(workshop.session)


def statuses(workshop: Any, jobids: list[int]) -> list[str]:
    return [workshop.get(jobid, "status") for jobid in jobids]


def check_books(workshop: Any) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        assert not service.requests
        assert not service.lines


# -- undoing -----------------------------------------------------------------------------------


def test_a_job_that_has_ended_with_others_is_not_undone_and_the_error_names_them(
    file_workshop: Any,
) -> None:
    jobids = [file_workshop.add("echo", number) for number in range(3)]
    assert run(file_workshop, 3) == [PROCESSING] * 3
    settle(file_workshop)
    others = f"shared its commit with other jobs: {jobids[1]}, {jobids[2]}$"
    with file_workshop.service() as service, pytest.raises(CannotUndo, match=others):
        service.undo(jobids[0])
    assert statuses(file_workshop, jobids) == [COMPLETED] * 3
    file_workshop.claim()
    check_books(file_workshop)


def test_a_job_whose_end_was_written_alone_is_undone(file_workshop: Any) -> None:
    jobid = file_workshop.add("tell", 1)
    assert run(file_workshop, 1) == [PROCESSING]
    settle(file_workshop)
    with file_workshop.service() as service:
        service.undo(jobid)
    assert file_workshop.work() == []
    assert file_workshop.get(jobid, "status", "output") == (CANCELLED, None)
    check_books(file_workshop)


# -- events ------------------------------------------------------------------------------------


@pytest.fixture
def heard(workshop: Any) -> Iterator[list[Any]]:
    """Who listens notes what is told, and what is stored by then."""
    heard: list[Any] = []

    def hear(event: Any) -> None:
        if isinstance(event, (JobCompleted, JobFailed)):
            heard.append((event.jobid, event.status, workshop.get(event.jobid, "status")))

    zope.event.subscribers.append(hear)
    yield heard
    zope.event.subscribers.remove(hear)


def test_a_job_of_which_somebody_hears_has_a_commit_of_its_own(
    workshop: Any, heard: list[Any]
) -> None:
    jobids = [workshop.add("echo") for _ in range(3)]
    assert run(workshop, 3) == [COMPLETED] * 3
    assert heard == [(jobid, COMPLETED, COMPLETED) for jobid in jobids]
    settle(workshop)
    workshop.claim()
    assert len(heard) == 3


@pytest.mark.parametrize("conflicts", [0, 2])
def test_who_comes_to_listen_hears_of_ends_when_they_are_written_and_once(
    workshop: Any, fail_commits: Any, conflicts: int
) -> None:
    heard: list[Any] = []

    def hear(event: Any) -> None:
        if isinstance(event, JobEvent):
            told = workshop.get(event.jobid, "status")
            heard.append((type(event), event.jobid, event.attempt, event.status, told))

    jobids = [workshop.add("echo") for _ in range(3)]
    assert run(workshop, 3) == [PROCESSING] * 3
    zope.event.subscribers.append(hear)
    try:
        fail_commits(*[ConflictError("of one of them")] * conflicts)
        assert heard == []
        settle(workshop)
        workshop.claim()
    finally:
        zope.event.subscribers.remove(hear)
    assert heard == [(JobCompleted, jobid, 1, COMPLETED, COMPLETED) for jobid in jobids]


# -- the log -----------------------------------------------------------------------------------


def lines_of(workshop: Any, jobid: int) -> list[str]:
    with workshop.service() as service:
        return [line.text for line in service.getLog(jobid)]


@pytest.mark.parametrize("conflicts", [0, 2])
def test_what_jobs_log_is_written_with_their_ends(
    workshop: Any, fail_commits: Any, conflicts: int
) -> None:
    jobids = [workshop.add("tell", number) for number in range(3)]
    assert run(workshop, 3) == [PROCESSING] * 3
    fail_commits(*[ConflictError("of one of them")] * conflicts)
    settle(workshop)
    for number, jobid in enumerate(jobids):
        assert lines_of(workshop, jobid) == [f"line of {number}"]
    workshop.claim()
    check_books(workshop)


def test_what_was_noted_while_a_job_ran_is_not_written_twice(workshop: Any, register: Any) -> None:
    def work(input: Any) -> None:
        workshop.now += NOTE_SECONDS
        log.info("first")
        with workshop.engine.claims.open_beside() as session:
            workshop.engine.execution.logs.note(session)
        assert lines_of(workshop, jobid) == ["first"]
        log.info("second")

    register("work", work)
    workshop.add("echo")
    jobid = workshop.add("work")
    assert run(workshop, 2) == [PROCESSING, COMPLETED]
    assert lines_of(workshop, jobid) == ["first", "second"]
    workshop.claim()
    assert lines_of(workshop, jobid) == ["first", "second"]
    check_books(workshop)


class Fickle:
    """Can be stored as long as nobody objects."""

    objects = False

    def __reduce__(self) -> Any:
        if Fickle.objects:
            raise ValueError("not today")
        return Fickle, ()


def test_what_a_job_logs_is_kept_also_if_its_result_cannot_be(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(input: Any) -> Fickle:
        log.info("done")
        return Fickle()

    register("work", work, retry=RetryPolicy(attempts=1))
    jobids = [workshop.add("work"), workshop.add("echo")]
    assert run(workshop, 2) == [PROCESSING] * 2
    monkeypatch.setattr(Fickle, "objects", True)
    settle(workshop)
    assert statuses(workshop, jobids) == [ERROR, COMPLETED]
    assert lines_of(workshop, jobids[0]) == ["done"]


# -- what others wait for ------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["on_success", "on_error"])
def test_a_job_that_others_may_follow_is_not_handed_over(workshop: Any, outcome: str) -> None:
    first = workshop.add("echo")
    jobid = workshop.add("echo", 1, **{outcome: ("echo", 2)})
    assert run(workshop, 2) == [PROCESSING, COMPLETED]
    settle(workshop)
    assert statuses(workshop, [first, jobid]) == [COMPLETED] * 2
    expected = [2] if outcome == "on_success" else []
    workshop.claim(0)
    with workshop.service() as service:
        causes = [(job.cause, job.input) for job in service.jobs.values() if job.cause]
    assert causes == [(jobid, input) for input in expected]
    assert len(workshop.work()) == len(expected)
    check_books(workshop)


def test_a_job_with_a_lock_is_not_handed_over(workshop: Any) -> None:
    workshop.engine.claims.runs_in_turn = True
    jobids = [workshop.add("echo", lock="desk" if number % 2 else None) for number in range(4)]
    assert run(workshop, 4) == [PROCESSING, COMPLETED, PROCESSING, COMPLETED]
    assert statuses(workshop, jobids[::2]) == [PROCESSING] * 2
    settle(workshop)
    workshop.claim()
    check_books(workshop)


def limit(workshop: Any) -> None:
    with workshop.service() as service:
        service.limits = {"echo": 5}


def test_a_job_of_a_limited_task_is_not_handed_over(workshop: Any) -> None:
    limit(workshop)
    for _ in range(2):
        workshop.add("echo")
    assert run(workshop, 2) == [COMPLETED] * 2


def test_neither_is_one_whose_claim_was_not_noticed(workshop: Any) -> None:
    limit(workshop)
    jobid = workshop.add("echo")
    workshop.claim()
    workshop.engine.claims.in_hand.clear()
    assert workshop.engine.claims.find(workshop.session, jobid).has_gate
    assert run(workshop, 1) == [COMPLETED]


def test_neither_is_one_that_was_only_reserved(workshop: Any, register: Any) -> None:
    register("share", lambda input: input, shared_commit=True)
    jobid = workshop.add("share")
    reserved = workshop.reserve()
    with workshop.service() as service:
        service.limits = {"share": 1}
    [claim] = workshop.claim_reserved(reserved)
    assert workshop.engine.execution.run(workshop.session, claim, lambda: True).status == COMPLETED
    assert statuses(workshop, [jobid]) == [COMPLETED]


def test_who_waits_for_a_job_is_told_when_its_end_is_written(workshop: Any) -> None:
    first = workshop.add("echo", 1)
    second = workshop.add("echo", 2, after=first)
    assert run(workshop, 1) == [PROCESSING]
    third = workshop.add("echo", 3, after=first)  # while its end is on its way
    assert workshop.work() == [second, third]
    assert statuses(workshop, [first, second, third]) == [COMPLETED] * 3
    check_books(workshop)


def test_who_begins_to_wait_in_the_moment_of_the_commit_is_told_too(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobids = [workshop.add("echo") for _ in range(2)]
    followers: list[int] = []
    assert run(workshop, 2) == [PROCESSING] * 2
    keep = Finishing._keep

    def meanwhile(*arguments: Any) -> Any:
        kept = keep(*arguments)
        if not followers:
            followers.append(workshop.add("echo", after=jobids))
        return kept

    monkeypatch.setattr(Finishing, "_keep", meanwhile)
    settle(workshop)
    assert workshop.work() == followers
    check_books(workshop)


def test_the_members_of_a_group_are_handed_over_and_the_group_ends_once(workshop: Any) -> None:
    with workshop.service() as service:
        groupid = service.add_group("echo", [1, 2, 3], then=("echo", "all"))
    assert run(workshop, 3) == [PROCESSING] * 3
    assert workshop.get(groupid, "status") != COMPLETED
    assert workshop.work() == [groupid]
    assert workshop.get(groupid, "status", "output") == (COMPLETED, "all")
    check_books(workshop)


def test_a_key_is_free_when_the_end_of_its_job_is_written(workshop: Any) -> None:
    first = workshop.add("echo", 1, unique_key="report")
    assert run(workshop, 1) == [PROCESSING]
    assert workshop.add("echo", 2, unique_key="report") == first
    settle(workshop)
    workshop.claim(0)
    second = workshop.add("echo", 2, unique_key="report")
    assert second != first
    assert workshop.work() == [second]
    check_books(workshop)


# -- what is put around jobs, and travels with them -----------------------------------------------


@pytest.fixture
def user() -> Iterator[contextvars.ContextVar[str]]:
    """A value that travels with jobs."""
    user = contextvars.ContextVar("user", default="nobody")

    @contextmanager
    def restore(value: Any) -> Iterator[None]:
        token = user.set(value)
        yield
        user.reset(token)

    around.register_context("user", user.get, restore)
    yield user
    around.forget_context("user")


def test_what_travels_with_a_job_comes_to_threads_too(
    workshop: Any, register: Any, user: contextvars.ContextVar[str]
) -> None:
    register("who", lambda input: user.get())
    token = user.set("Ada")
    jobid = workshop.add("who", 1)
    user.reset(token)
    [claim] = workshop.claim()
    assert run_beside(workshop, claim) == COMPLETED
    assert workshop.get(jobid, "output") == "Ada"


def test_what_is_around_a_job_sees_its_record_in_threads_too(workshop: Any) -> None:
    seen: list[Any] = []

    @contextmanager
    def watch(job: Any, context: Any) -> Iterator[None]:
        seen.append((job.id, job.status, job.input, context.jobid, context.attempt))
        yield

    around.register_around("watch", watch)
    try:
        jobid = workshop.add("echo", 5)
        [claim] = workshop.claim()
        assert run_beside(workshop, claim) == COMPLETED
    finally:
        around.forget_around("watch")
    assert seen == [(jobid, PROCESSING, 5, jobid, 1)]


# -- tasks that are coroutines --------------------------------------------------------------------


def test_the_end_of_a_coroutine_is_handed_over(workshop: Any, register: Any) -> None:
    async def reply(input: Any) -> Any:
        return input

    register("reply", reply)
    jobids = [workshop.add("reply", number) for number in range(2)]
    assert run(workshop, 2) == [PROCESSING] * 2
    settle(workshop)
    assert [workshop.get(jobid, "output") for jobid in jobids] == [0, 1]
    assert QUEUED not in statuses(workshop, jobids)
