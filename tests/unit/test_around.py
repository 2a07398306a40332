# SPDX-License-Identifier: ZPL-2.1
"""What is put around jobs, and what travels with them."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from typing import Any

import pytest
from transaction.interfaces import TransientError
from ZODB.POSException import ConflictError
from zope.component.hooks import getSite, setSite, siteinfo

from lovely.remotetask import around
from lovely.remotetask.around import (
    forget_around,
    forget_context,
    register_around,
    register_context,
)
from lovely.remotetask.errors import InvalidArgument, TaskError
from lovely.remotetask.interfaces import COMPLETED, CRONJOB, ERROR, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService

language: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="none")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for name in list(around._arounds):
        forget_around(name)
    for name in list(around._contexts):
        forget_context(name)
    around._missing = frozenset()


@pytest.fixture
def told(register: Any) -> list[str]:
    """What has happened, in order: the tasks *tell* and *fail* say what they do."""
    told: list[str] = []

    def fail(input: Any) -> None:
        told.append("fail")
        raise TaskError("no")

    register("tell", lambda input: told.append(f"run {input}"))
    register("fail", fail)
    return told


def telling(told: list[str], name: str) -> Any:
    @contextmanager
    def tell(job: Any, context: Any) -> Iterator[None]:
        told.append(f"enter {name}")
        try:
            yield
        finally:
            told.append(f"leave {name}")

    return tell


def failing(*, entering: bool) -> Any:
    @contextmanager
    def fail(job: Any, context: Any) -> Iterator[None]:
        if entering:
            raise ValueError("in vain")
        yield
        raise ValueError("in vain")

    return fail


# -- around a run ------------------------------------------------------------------------------


def test_the_first_that_was_registered_is_outermost(workshop: Any, told: list[str]) -> None:
    register_around("one", telling(told, "one"))
    register_around("two", telling(told, "two"))
    workshop.add("tell", 1)
    workshop.work()
    assert told == ["enter one", "enter two", "run 1", "leave two", "leave one"]


def test_a_service_names_what_is_around_its_jobs_within_what_is_around_all(
    workshop: Any, told: list[str]
) -> None:
    register_around("inner", telling(told, "inner"), everywhere=False)
    register_around("middle", telling(told, "middle"), everywhere=False)
    register_around("outer", telling(told, "outer"))
    with workshop.service() as service:
        service.around = ["middle", "outer", "inner"]
        assert service.around == ("middle", "outer", "inner")
    workshop.add("tell", 1)
    workshop.work()
    entered = [what for what in told if what.startswith("enter")]
    assert entered == ["enter outer", "enter middle", "enter inner"]


def test_what_is_not_for_all_is_around_no_others(workshop: Any, told: list[str]) -> None:
    register_around("one", telling(told, "one"), everywhere=False)
    workshop.add("tell", 1)
    workshop.work()
    assert told == ["run 1"]


def test_who_is_registered_again_takes_the_place_of_who_was(workshop: Any, told: list[str]) -> None:
    register_around("one", telling(told, "old"))
    register_around("two", telling(told, "two"))
    register_around("one", telling(told, "new"))
    workshop.add("tell", 1)
    workshop.work()
    assert told[:2] == ["enter new", "enter two"]


def test_it_is_given_the_job_and_the_context_of_the_task(workshop: Any, register: Any) -> None:
    seen: list[Any] = []

    def see(job: Any, context: Any) -> Any:
        seen.append((job.id, job.task, job.attempt, context.job is job))
        seen.append(context)
        return nullcontext()

    register("see", lambda context, input: seen.append(context), context=True)
    register_around("see", see)
    jobid = workshop.add("see")
    workshop.work()
    assert seen[0] == (jobid, "see", 1, True)
    assert seen[1] is seen[2]


def test_what_it_writes_is_kept_with_the_job_or_dropped_with_it(
    workshop: Any, told: list[str]
) -> None:
    @contextmanager
    def write(job: Any, context: Any) -> Iterator[None]:
        context.root[job.task] = "begun"
        yield
        context.root[job.task] = "done"

    register_around("write", write)
    workshop.add("tell")
    workshop.add("fail")
    workshop.work()
    with workshop.transaction() as root:
        assert (root["tell"], root.get("fail")) == ("done", None)


def test_a_repeat_after_a_conflict_enters_it_anew(
    workshop: Any, told: list[str], fail_commits: Any
) -> None:
    register_around("one", telling(told, "one"))
    jobid = workshop.add("tell", 1)
    [claim] = workshop.claim()
    fail_commits(ConflictError())
    workshop.run(claim)
    assert told == ["enter one", "run 1", "leave one"] * 2
    assert workshop.get(jobid, "attempt") == 1


def test_inline_runs_and_shared_commits_have_it_around_each_job(
    workshop: Any, told: list[str], register: Any
) -> None:
    register("share", lambda input: told.append(f"run {input}"), shared_commit=True)
    register_around("one", telling(told, "one"))
    for number in range(2):
        workshop.add("share", number)
    workshop.run_together(workshop.reserve())
    expected = ["enter one", "run 0", "leave one", "enter one", "run 1", "leave one"]
    assert told == expected
    told.clear()
    for number in range(2):
        workshop.add("tell", number)
    with workshop.service() as service:
        service.process(workshop.now)
    assert told == expected


def test_it_is_around_a_task_in_another_process_too(
    workshop: Any, told: list[str], register: Any
) -> None:
    register("abs", abs, executor="process")
    threads = []

    @contextmanager
    def note(job: Any, context: Any) -> Iterator[None]:
        threads.append(threading.current_thread())
        yield

    register_around("note", note)
    jobid = workshop.add("abs", -5)
    workshop.work()
    assert workshop.get(jobid, "status", "output") == (COMPLETED, 5)
    assert threads == [threading.current_thread()]


# -- what fails --------------------------------------------------------------------------------


@pytest.mark.parametrize("entering", [True, False])
def test_what_it_raises_is_the_failure_of_the_attempt(
    workshop: Any, told: list[str], entering: bool
) -> None:
    register_around("outer", telling(told, "outer"))
    register_around("fail", failing(entering=entering))
    jobid = workshop.add("tell", 1, retry=RetryPolicy(1))
    workshop.work()
    assert workshop.get(jobid, "status", "error") == (ERROR, "in vain")
    assert told == ["enter outer", *(["run 1"] if not entering else []), "leave outer"]


def test_what_the_task_raises_counts_although_it_is_swallowed(
    workshop: Any, told: list[str]
) -> None:
    register_around("swallow", lambda job, context: suppress(BaseException))
    jobid = workshop.add("fail")
    workshop.work()
    assert workshop.get(jobid, "status", "error") == (ERROR, "no")


def test_it_can_make_another_error_of_it(workshop: Any, register: Any) -> None:
    @contextmanager
    def translate(job: Any, context: Any) -> Iterator[None]:
        try:
            yield
        except ZeroDivisionError as error:
            raise TaskError("never again") from error

    register("divide", lambda input: 1 / 0)
    register_around("translate", translate)
    jobid = workshop.add("divide")
    workshop.work()
    assert workshop.get(jobid, "status", "error") == (ERROR, "never again")
    [failure] = workshop.get(jobid, "failures")
    assert "ZeroDivisionError" in failure.traceback


def test_a_conflict_stays_one_whatever_comes_behind_it(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def clean_up(job: Any, context: Any) -> Iterator[None]:
        try:
            yield
        finally:
            if len(runs) == 1:
                raise ValueError("in vain")

    runs: list[int] = []

    def collide(input: Any) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise TransientError

    register("collide", collide)
    register_around("clean up", clean_up)
    jobid = workshop.add("collide")
    workshop.work()
    assert workshop.get(jobid, "status", "failures", "conflicts") == (COMPLETED, (), 1)
    assert f"job {jobid}: what is around it failed" in caplog.text


def test_what_is_not_registered_here_keeps_its_jobs_waiting(workshop: Any, told: list[str]) -> None:
    with workshop.service() as service:
        service.around = "one"
    jobid = workshop.add("tell", 1)
    workshop.work()
    assert workshop.get(jobid, "status", "errors") == (QUEUED, 0)
    assert workshop.get(jobid, "error") == "'one', around its jobs, is not registered here"
    register_around("one", telling(told, "one"), everywhere=False)
    workshop.now += around.MISSING_SECONDS
    workshop.work()
    assert told == ["enter one", "run 1", "leave one"]


def test_nothing_that_it_leaves_in_the_thread_is_there_for_the_next_job(
    workshop: Any, register: Any
) -> None:
    found: list[Any] = []

    @contextmanager
    def litter(job: Any, context: Any) -> Iterator[None]:
        found.append((language.get(), getSite(), dict(vars(siteinfo)).get("mark")))
        language.set("German")
        setSite(None)
        siteinfo.mark = "left"
        yield
        raise ValueError("in vain")

    register_around("litter", litter)
    register("litter", lambda input: None, retry=RetryPolicy(1))
    for _ in range(2):
        workshop.add("litter")
    workshop.work()
    assert found == [("none", None, None)] * 2
    assert language.get() == "none"


@pytest.mark.parametrize("value", [["one", 5], [""], 7, None])
def test_what_are_no_names_is_refused(service: TaskService, value: Any) -> None:
    with pytest.raises(InvalidArgument, match="around"):
        service.around = value


@pytest.mark.parametrize(("name", "factory"), [("", print), (5, print), ("one", "print")])
def test_what_cannot_be_registered_is_refused(name: Any, factory: Any) -> None:
    with pytest.raises(InvalidArgument):
        register_around(name, factory)
    with pytest.raises(InvalidArgument):
        register_context(name, factory, factory)


# -- what travels ------------------------------------------------------------------------------


@contextmanager
def speaking(value: str) -> Iterator[None]:
    token = language.set(value)
    yield
    language.reset(token)


@pytest.fixture
def spoken(register: Any) -> list[str]:
    """The languages that runs of the task *speak* had."""
    spoken: list[str] = []

    def speak(input: Any) -> None:
        spoken.append(language.get())

    register("speak", speak)
    register_context(
        "language", lambda: None if language.get() == "none" else language.get(), speaking
    )
    return spoken


def test_what_was_current_at_add_is_current_around_the_run(
    workshop: Any, spoken: list[str]
) -> None:
    with speaking("Czech"):
        jobid = workshop.add("speak")
        with workshop.service() as service:
            service.add_many("speak", [1, 2])
    workshop.add("speak")
    workshop.work()
    assert spoken == ["Czech", "Czech", "Czech", "none"]
    assert workshop.get(jobid, "carried") == {"language": "Czech"}


def test_a_job_that_takes_nothing_along_stores_nothing_of_it(
    workshop: Any, spoken: list[str]
) -> None:
    jobid = workshop.add("speak")
    with workshop.service() as service:
        service.jobs[jobid]._p_activate()
        assert "carried" not in vars(service.jobs[jobid])


def test_a_schedule_keeps_what_was_current_when_it_was_added(
    workshop: Any, spoken: list[str]
) -> None:
    with speaking("Czech"):
        jobid = workshop.add_cron_job("speak", minute=(0,))
    for _ in range(2):
        workshop.now += 3600
        workshop.work()
    assert spoken == ["Czech", "Czech"]
    assert workshop.get(jobid, "status") == CRONJOB


def test_what_a_run_adds_inherits_it(workshop: Any, spoken: list[str], register: Any) -> None:
    register("add", lambda context, input: context.service.add("speak"), context=True)
    with speaking("Czech"):
        workshop.add("add")
    workshop.work()
    assert spoken == ["Czech"]


def test_it_is_entered_around_all_else(workshop: Any, spoken: list[str]) -> None:
    @contextmanager
    def look(job: Any, context: Any) -> Iterator[None]:
        spoken.append(f"around: {language.get()}")
        yield

    register_around("look", look)
    with speaking("Czech"):
        workshop.add("speak")
    workshop.work()
    assert spoken == ["around: Czech", "Czech"]


def test_a_value_that_nobody_knows_here_is_told_of_once(
    workshop: Any, spoken: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with speaking("Czech"):
        jobids = [workshop.add("speak") for _ in range(2)]
    forget_context("language")
    workshop.work()
    assert spoken == ["none", "none"]
    told = [text for text in caplog.messages if "'language' is not registered here" in text]
    assert told == [
        f"job {jobids[0]}: its context 'language' is not registered here; it runs without"
    ]


WHO = {"user": "bob", "roles": ["baker"]}


@pytest.fixture
def restored(register: Any) -> list[Any]:
    """What the runs of the task *falter* were given, who take it apart; the third one works."""
    restored: list[Any] = []

    def restore(value: Any) -> None:
        restored.append(deepcopy(value))
        value["roles"].clear()
        del value["user"]

    def falter(input: Any) -> None:
        if len(restored) < 3:
            raise ValueError("not yet")

    register("falter", falter, retry=RetryPolicy(3, 0.0, jitter=0.0))
    register_context("who", lambda: WHO, restore)
    return restored


def test_what_is_done_to_it_is_not_there_for_the_next_attempt(
    workshop: Any, restored: list[Any]
) -> None:
    jobid = workshop.add("falter", on_success="falter")
    ran = workshop.work()
    assert restored == [WHO] * 4
    assert ran[:3] == [jobid] * 3
    for each in ran[-2:]:
        assert workshop.get(each, "status", "carried") == (COMPLETED, {"who": WHO})


def test_nor_is_it_where_jobs_run_inline(
    workshop: Any, service: TaskService, restored: list[Any]
) -> None:
    jobid = workshop.add("falter")
    with workshop.service() as stored:
        stored.process()
    assert workshop.get(jobid, "status", "carried") == (COMPLETED, {"who": WHO})
    assert restored == [WHO] * 3
    restored.clear()
    jobid = service.add("falter")  # in no database, where nothing is taken back
    service.process()
    assert restored == [WHO] * 3
    assert service.jobs[jobid].carried == {"who": WHO}


def test_it_travels_as_it_was_when_the_job_was_added(workshop: Any, spoken: list[str]) -> None:
    roles = ["baker"]
    register_context("roles", lambda: {"roles": roles}, lambda value: None)
    with workshop.service() as service:
        jobids = [service.add("speak"), *service.add_many("speak", [1, 2])]
        jobids.append(service.addCronJob("speak", minute=(0,)))
        roles.append("thief")
    for jobid in jobids:
        assert workshop.get(jobid, "carried") == {"roles": {"roles": ["baker"]}}


def test_restoring_may_need_no_context_manager(workshop: Any, spoken: list[str]) -> None:
    restored: list[Any] = []
    register_context("number", lambda: {"one": [1, 2.5, True, b"bytes"]}, restored.append)
    workshop.add("speak")
    workshop.work()
    assert restored == [{"one": [1, 2.5, True, b"bytes"]}]


class Text(str):
    """Not plain."""


@pytest.mark.parametrize(
    "value",
    [object(), Text("x"), {"key": object()}, "x" * 4001, [["x" * 2001]] * 2, 2**64, [[[[[[1]]]]]]],
)
def test_what_is_no_small_plain_data_is_refused_and_nothing_is_added(
    service: TaskService, value: Any
) -> None:
    register_context("odd", lambda: value, lambda value: None)
    with pytest.raises(InvalidArgument, match="the context 'odd' must be plain data"):
        service.add("echo")
    with pytest.raises(InvalidArgument, match="the context 'odd' must be plain data"):
        service.add_many("echo", [1])
    assert not service.jobs


def test_what_capturing_raises_reaches_who_adds(service: TaskService) -> None:
    register_context("broken", lambda: 1 / 0, lambda value: None)
    with pytest.raises(ZeroDivisionError):
        service.add("echo")
    assert not service.jobs


def test_lines_that_are_logged_around_a_job_are_kept_with_it(workshop: Any) -> None:
    @contextmanager
    def log(job: Any, context: Any) -> Iterator[None]:
        logging.getLogger("shop").warning("before")
        yield

    register_around("log", log)
    jobid = workshop.add("echo")
    workshop.work()
    with workshop.service() as service:
        assert [line.text for line in service.getLog(jobid)] == ["before"]
