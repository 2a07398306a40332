# SPDX-License-Identifier: ZPL-2.1
"""Schedules by their keys: made, changed, left alone, declared by tasks, removed and listed."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError

from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidSchedule,
    JobUnusable,
    TaskError,
    TaskNotFound,
    UnknownZone,
)
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    ITask,
)
from lovely.remotetask.job import CronJob
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store import quarantine
from lovely.remotetask.store.check import check_all, check_jobs
from lovely.remotetask.store.schedulekeys import drop, holder_id
from lovely.remotetask.store.worker import LEFT
from lovely.remotetask.task import SimpleTask


@pytest.fixture
def ensure(workshop: Any) -> Callable[..., int]:
    """Return ``ensure(key, task, ...)``, which commits; as each deployment does."""

    def ensure(*arguments: Any, **keywords: Any) -> int:
        with workshop.service() as service:
            return service.ensure(*arguments, **keywords)

    return ensure


@pytest.fixture
def running(workshop: Any, ensure: Callable[..., int]) -> tuple[int, Any]:
    """A schedule that runs right now, and the claim."""
    jobid = ensure("nightly", "echo", "old", cron="* * * * *")
    workshop.now += 120.0
    [claim] = workshop.claim()
    return jobid, claim


# -- ensure ------------------------------------------------------------------------------------


def test_a_schedule_is_made_once_and_then_left_alone(
    file_workshop: Any, register: Any, ensure: Any
) -> None:
    def deploy() -> int:
        with file_workshop.service() as service:
            return service.ensure("nightly", "echo", {"a": [1]}, cron="0 3 * * *", timezone="UTC")

    jobid = deploy()
    last = file_workshop.last_transaction()
    assert [deploy() for _ in range(3)] == [jobid] * 3
    assert file_workshop.last_transaction() == last
    assert file_workshop.get(jobid, "key", "cron", "status") == ("nightly", "0 3 * * *", CRONJOB)


@pytest.mark.parametrize(
    "changed",
    [
        {"task": "other"},
        {"input": {"a": 2}},
        {"input": {"a": True}},
        {"cron": "0 4 * * *"},
        {"cron": None, "hour": (3,)},
        {"timezone": "Europe/Vienna"},
        {"retry": RetryPolicy(attempts=2)},
    ],
    ids=str,
)
def test_what_is_told_otherwise_is_changed(
    workshop: Any, register: Any, ensure: Any, changed: dict[str, Any]
) -> None:
    register("other", lambda input: input)
    told = {"task": "echo", "input": {"a": 1}, "cron": "0 3 * * *"}
    jobid = ensure("nightly", **told)
    assert ensure("nightly", **{**told, **changed}) == jobid
    names = list(changed)
    values = workshop.get(jobid, *names)
    assert dict(zip(names, [values] if len(names) == 1 else values, strict=True)) == changed
    assert ensure("nightly", **told) == jobid
    assert workshop.get(jobid, "task", "input", "cron") == ("echo", {"a": 1}, "0 3 * * *")


def test_a_schedule_is_counted_anew_if_its_times_change_and_only_then(
    workshop: Any, register: Any, ensure: Any
) -> None:
    jobid = ensure("later", "echo", delay=1000)
    due = workshop.get(jobid, "due")
    ensure("later", "echo", "another input", delay=1000)
    assert workshop.get(jobid, "due") == due
    ensure("later", "echo", "another input", delay=500)
    assert workshop.get(jobid, "due") < due


def test_persistent_inputs_are_the_same_if_they_are_the_same_objects(workshop: Any) -> None:
    with workshop.transaction() as root:
        root["one"], root["other"] = PersistentMapping(), PersistentMapping()
    with workshop.transaction() as root:
        root["tasks"].ensure("key", "echo", [root["one"]], cron="0 3 * * *")
    last = workshop.last_transaction()
    with workshop.transaction() as root:
        root["tasks"].ensure("key", "echo", [root["one"]], cron="0 3 * * *")
    assert workshop.last_transaction() == last
    with workshop.transaction() as root:
        jobid = root["tasks"].ensure("key", "echo", [root["other"]], cron="0 3 * * *")
        assert root["tasks"].jobs[jobid].input[0] is root["other"]


def test_an_error_of_the_caller_changes_nothing(workshop: Any, ensure: Any) -> None:
    jobid = ensure("nightly", "echo", "input", cron="0 3 * * *")
    last = workshop.last_transaction()
    for error, arguments, keywords in [
        (TaskNotFound, ("nightly", "nobody's"), {"cron": "0 4 * * *"}),
        (InvalidSchedule, ("nightly", "echo"), {"cron": "0 25 * * *"}),
        (InvalidSchedule, ("nightly", "echo"), {"delay": 5, "hour": (1,)}),
        (InvalidInput, ("nightly", "echo", lambda: 1), {"cron": "0 4 * * *"}),
        (InvalidArgument, ("nightly", "echo"), {"retry": 5}),
        (InvalidArgument, ("", "echo"), {}),
        (InvalidArgument, (5, "echo"), {}),
        (InvalidArgument, ("x" * 1001, "echo"), {}),
        (InvalidArgument, ("\ud800", "echo"), {}),
    ]:
        with pytest.raises(error):
            ensure(*arguments, **keywords)
    assert workshop.last_transaction() == last
    assert workshop.get(jobid, "input") == "input"


def test_a_schedule_that_runs_is_changed_when_its_run_has_ended(
    workshop: Any, register: Any, ensure: Any, running: tuple[int, Any]
) -> None:
    register("other", lambda input: input)
    jobid, claim = running
    told = {"task": "other", "input": "new", "cron": "0 5 * * *", "retry": RetryPolicy(attempts=2)}
    assert ensure("nightly", **told) == jobid
    assert workshop.get(jobid, "task", "input", "cron") == ("echo", "old", "* * * * *")
    last = workshop.last_transaction()
    assert ensure("nightly", **told) == jobid
    assert workshop.last_transaction() == last
    assert workshop.run(claim).status == CRONJOB
    workshop.claim()
    names = ("task", "input", "cron", "retry")
    assert workshop.get(jobid, *names) == ("other", "new", "0 5 * * *", told["retry"])
    assert workshop.get(jobid, "output") == "old"
    with workshop.service() as service:
        assert not service.edits
        assert not check_all(service, workshop.now, repair=False)


def test_an_update_of_a_running_schedule_keeps_what_ensure_has_changed(
    workshop: Any, ensure: Any, running: tuple[int, Any]
) -> None:
    jobid, claim = running
    ensure("nightly", "echo", "new", cron="0 5 * * *")
    with workshop.service() as service:
        service.jobs[jobid].update(cron="0 6 * * *", timezone="UTC")
    workshop.run(claim)
    workshop.claim()
    assert workshop.get(jobid, "input", "cron", "timezone") == ("new", "0 6 * * *", "UTC")


def test_a_running_schedule_can_be_changed_twice_in_a_transaction(
    workshop: Any, running: tuple[int, Any]
) -> None:
    jobid, claim = running
    with workshop.service() as service:
        service.ensure("nightly", "echo", "first", cron="0 4 * * *")
        service.jobs[jobid].update(cron="0 6 * * *", timezone="UTC")
        service.ensure("nightly", "echo", "second", cron="0 5 * * *")
        service.ensure("nightly", "echo", "third", cron="0 5 * * *")
    workshop.run(claim)
    workshop.claim()
    assert workshop.get(jobid, "input", "cron") == ("third", "0 5 * * *")


def test_ensure_can_take_back_the_update_of_a_running_schedule(
    workshop: Any, ensure: Any, running: tuple[int, Any]
) -> None:
    jobid, claim = running
    with workshop.service() as service:
        service.jobs[jobid].update(cron="0 6 * * *")
    ensure("nightly", "echo", "old", cron="* * * * *")
    workshop.run(claim)
    workshop.claim()
    assert workshop.get(jobid, "input", "cron") == ("old", "* * * * *")


def test_a_change_of_a_run_that_has_just_ended_collides_with_its_end(
    workshop: Any, ensure: Any, running: tuple[int, Any]
) -> None:
    _, claim = running
    with workshop.connected() as (manager, root):
        root["tasks"].ensure("nightly", "echo", "new", cron="0 5 * * *")
        workshop.run(claim)
        with pytest.raises(ConflictError):
            manager.commit()
    ensure("nightly", "echo", "new", cron="0 5 * * *")
    workshop.claim()
    assert workshop.get(claim.jobid, "input", "cron") == ("new", "0 5 * * *")


class Unknown:
    """A class that is not everywhere."""


def test_a_worker_that_lacks_the_class_of_a_new_input_goes_on(
    workshop: Any,
    ensure: Any,
    running: tuple[int, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobid, claim = running
    ensure("nightly", "echo", Unknown(), cron="0 5 * * *")
    workshop.db.cacheMinimize()
    with monkeypatch.context() as elsewhere:
        elsewhere.delattr(f"{__name__}.Unknown")
        workshop.run(claim)
        workshop.session.connection.cacheMinimize()
        other = workshop.add("echo", "next")
        workshop.now += 3600.0
        assert workshop.work() == [other]
        assert workshop.get(jobid, "input", "cron") == ("old", "* * * * *")
        assert "what it is to be from now on: its record cannot be written" in caplog.text
        with workshop.service() as service:
            [problem] = check_all(service, workshop.now, repair=True)
            assert (problem.jobid, problem.is_mendable) == (jobid, False)
            with pytest.raises(JobUnusable, match="what it is to be from now on"):
                service.run_now(jobid)
        workshop.engine.upkeep.free(workshop.session, [LEFT])
        assert workshop.work() == []
    free_left(workshop)
    assert isinstance(workshop.get(jobid, "input"), Unknown)
    assert workshop.get(jobid, "cron", "status") == ("0 5 * * *", CRONJOB)
    with workshop.service() as service:
        assert (len(service.workers), len(service.edits)) == (0, 0)
        assert check_all(service, workshop.now, repair=False) == []


def free_left(workshop: Any) -> None:
    """Free what was left to who has the code, as a process does that has it."""
    workshop.db.cacheMinimize()
    gc.collect()
    quarantine._quarantine.clear()
    workshop.new_engine().upkeep.free(workshop.session, [LEFT])


@pytest.fixture
def left(
    workshop: Any, ensure: Any, running: tuple[int, Any], monkeypatch: pytest.MonkeyPatch
) -> int:
    """A schedule that was edited while it ran, and left by a worker that cannot write that."""
    jobid, claim = running
    ensure("nightly", "echo", Unknown(), cron="0 5 * * *")
    workshop.db.cacheMinimize()
    with monkeypatch.context() as elsewhere:
        elsewhere.delattr(f"{__name__}.Unknown")
        workshop.run(claim)
        workshop.session.connection.cacheMinimize()
        workshop.claim(0)
        workshop.db.cacheMinimize()
    gc.collect()
    with workshop.service() as service:
        assert service.workers[LEFT].held == (jobid,)
    return jobid


def test_what_is_set_before_an_edit_counts_takes_its_place(
    workshop: Any, ensure: Any, left: int
) -> None:
    assert ensure("nightly", "echo", "newer", cron="0 6 * * *") == left
    with workshop.service() as service:
        service.jobs[left].update(cron="0 7 * * *")
        service.reschedule(left)
    free_left(workshop)
    assert workshop.get(left, "input", "cron", "status") == ("newer", "0 7 * * *", CRONJOB)
    with workshop.service() as service:
        assert (len(service.workers), len(service.edits)) == (0, 0)
        assert check_all(service, workshop.now, repair=False) == []


def test_an_edit_that_waits_can_be_cancelled_with_its_job(workshop: Any, left: int) -> None:
    with workshop.service() as service:
        service.cancel(left)
    free_left(workshop)
    assert workshop.get(left, "status") == CANCELLED
    with workshop.service() as service:
        assert (len(service.workers), len(service.edits)) == (0, 0)
        assert check_all(service, workshop.now, repair=False) == []


def test_who_edits_a_schedule_before_its_run_was_filed_is_not_overruled(
    workshop: Any, ensure: Any, running: tuple[int, Any]
) -> None:
    jobid, claim = running
    ensure("nightly", "echo", "new", cron="0 5 * * *")
    workshop.run(claim)
    ensure("nightly", "echo", "newer", cron="0 6 * * *")
    workshop.claim(0)
    assert workshop.get(jobid, "input", "cron") == ("newer", "0 6 * * *")
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def test_a_delay_that_was_over_can_be_ensured_again(workshop: Any, ensure: Any) -> None:
    jobid = ensure("once", "echo", "x", delay=5)
    assert ensure("once", "echo", "x", delay=5) == jobid
    assert workshop.get(jobid, "status") == DELAYED
    workshop.now += 20
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status") == COMPLETED
    again = ensure("once", "echo", "x", delay=5)
    assert again != jobid
    assert workshop.get(again, "status") == DELAYED


def test_a_schedule_that_waits_for_its_task_can_be_given_another(
    workshop: Any, ensure: Any, register: Any
) -> None:
    from zope.component import getGlobalSiteManager

    register("gone", lambda input: input)
    jobid = ensure("nightly", "gone", cron="* * * * *")
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="gone")
    workshop.now += 120
    assert workshop.work() == []
    assert isinstance(workshop.get(jobid, "place"), str)
    ensure("nightly", "echo", cron="* * * * *")
    workshop.now += 120
    assert workshop.work() == [jobid]


def test_of_two_that_make_the_same_schedule_at_once_one_commits(workshop: Any) -> None:
    for key in ("first", "second"):  # without and with an index of keys
        with workshop.connected() as (one, root), workshop.connected() as (other, other_root):
            jobid = root["tasks"].ensure(key, "echo", cron="0 3 * * *")
            other_root["tasks"].ensure(key, "echo", cron="0 3 * * *")
            one.commit()
            with pytest.raises(ConflictError):
                other.commit()
            other.abort()
            assert other_root["tasks"].ensure(key, "echo", cron="0 3 * * *") == jobid
    with workshop.service() as service:
        assert [state.key for state in service.schedules()] == ["first", "second"]


def test_schedules_with_different_keys_are_made_beside_each_other(
    workshop: Any, ensure: Any
) -> None:
    ensure("index", "echo", cron="0 3 * * *")
    with workshop.connected() as (one, root), workshop.connected() as (other, other_root):
        # Not at random: one time in hundreds they would make the same part of the tree of jobs.
        root["tasks"]._v_next_id, other_root["tasks"]._v_next_id = 1 << 20, 1 << 29
        root["tasks"].ensure("one", "echo", cron="0 3 * * *")
        other_root["tasks"].ensure("other", "echo", cron="0 3 * * *")
        one.commit()
        other.commit()


def test_a_service_in_no_database_has_schedules_too(service: TaskService) -> None:
    jobid = service.ensure("nightly", "echo", cron="0 3 * * *")
    assert service.ensure("nightly", "echo", cron="0 4 * * *") == jobid
    assert service.jobs[jobid].cron == "0 4 * * *"
    assert service.remove_schedule("nightly")
    assert service.schedules() == []


# -- the key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["cancel", "remove_schedule"])
def test_a_schedule_that_was_ended_frees_its_key(workshop: Any, ensure: Any, end: str) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        getattr(service, end)(jobid if end == "cancel" else "nightly")
    assert workshop.get(jobid, "status") == CANCELLED
    with workshop.service() as service:
        assert not service.queue.schedules
        assert not service.remove_schedule("nightly")
        assert service.schedules() == []
    assert ensure("nightly", "echo", cron="0 3 * * *") != jobid


def test_a_schedule_that_runs_is_asked_to_stop_and_frees_its_key(
    workshop: Any, ensure: Any, running: tuple[int, Any]
) -> None:
    jobid, claim = running
    with workshop.service() as service:
        assert service.remove_schedule("nightly")
        assert not service.remove_schedule("nightly")
    new = ensure("nightly", "echo", cron="0 3 * * *")
    assert new != jobid
    with workshop.service() as service:
        assert check_jobs(service, workshop.now, repair=False) == ([], 0)
    assert workshop.run(claim).status == CANCELLED
    workshop.claim()
    with workshop.service() as service:
        assert dict(service.queue.schedules) == {"nightly": new}
        assert check_all(service, workshop.now, repair=False) == []


def test_a_schedule_whose_cancelling_was_asked_for_frees_its_key_when_it_has_ended(
    workshop: Any, running: tuple[int, Any]
) -> None:
    jobid, claim = running
    with workshop.service() as service:
        service.cancel(jobid)
    workshop.run(claim)
    workshop.claim()
    with workshop.service() as service:
        assert not service.queue.schedules


def test_cleaning_frees_the_key_of_a_schedule_that_has_failed_for_good(
    workshop: Any, ensure: Any
) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    _break(workshop, jobid)
    with workshop.service() as service:
        assert service.getStatus(jobid) == ERROR
        assert service.queue.schedules
        assert check_all(service, workshop.now, repair=False) == []
        service.clean([ERROR])
        assert not service.queue.schedules


def _break(workshop: Any, jobid: int) -> None:
    """Let a schedule fail for good."""
    with workshop.service() as service:
        service.jobs[jobid].cron = "no schedule"
        service.queue.refile(service.jobs[jobid], workshop.now - 1)
    workshop.work()


def test_an_id_that_was_given_again_has_no_key(service: TaskService) -> None:
    jobid = service.ensure("nightly", "echo", cron="0 3 * * *")
    service.queue.remove(service.jobs[jobid])
    del service.jobs[jobid]
    service.jobs[jobid] = CronJob(jobid, "echo", cron="0 4 * * *")
    assert service.ensure("nightly", "echo", cron="0 3 * * *") != jobid


def test_a_cancelled_schedule_that_runs_again_has_its_key_again(workshop: Any, ensure: Any) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        service.cancel(jobid)
    with workshop.service() as service:
        service.retry(jobid)
    assert ensure("nightly", "echo", cron="0 3 * * *") == jobid


def test_a_cancelled_schedule_does_not_run_again_beside_its_successor(
    workshop: Any, ensure: Any
) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    _break(workshop, jobid)
    new = ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        with pytest.raises(InvalidArgument, match=f"job {new} is the schedule with its key now"):
            service.retry(jobid)
        assert service.retry_all() == 0


def test_a_schedule_that_its_key_does_not_find_is_noticed_and_mended(
    workshop: Any, ensure: Any
) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        drop(service.queue, "nightly", jobid)
    with workshop.service() as service:
        [problem] = check_all(service, workshop.now, repair=True)
        assert "which is not found by this key" in problem.text
        assert holder_id(service.queue, "nightly") == jobid
        assert check_all(service, workshop.now, repair=False) == []


def test_two_schedules_with_one_key_are_named_and_left_alone(workshop: Any, ensure: Any) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        drop(service.queue, "nightly", jobid)
        new = service.ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        [problem] = check_all(service, workshop.now, repair=True)
        assert (problem.jobid, problem.is_mendable) == (jobid, False)
        assert f"as job {new} is" in problem.text
        service.cancel(jobid)
        assert holder_id(service.queue, "nightly") == new
        assert check_all(service, workshop.now, repair=True) == []


def test_a_key_that_stands_for_no_schedule_is_noticed_and_mended(
    workshop: Any, ensure: Any
) -> None:
    jobid = ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        service.queue.remove(service.jobs[jobid])
        del service.jobs[jobid]
        [problem] = check_all(service, workshop.now, repair=True)
        assert "stands for none" in problem.text
        assert not service.queue.schedules


# -- declared by tasks -------------------------------------------------------------------------


def test_a_declared_schedule_is_there_after_the_start_of_a_worker(
    workplace: Any, register: Any, until: Any
) -> None:
    register("nightly", lambda input: input, cron="0 3 * * *", timezone="Europe/Vienna")

    def states() -> list[Any]:
        with workplace.service() as service:
            found: list[Any] = service.schedules()
            return found

    workplace.start()
    until(states, "the schedule")
    [state] = states()
    assert (state.key, state.task, state.is_declared) == ("nightly", "nightly", True)
    assert (state.schedule, state.timezone) == ("0 3 * * *", "Europe/Vienna")
    workplace.stop()
    last = workplace.last_transaction()
    workplace.start()
    [jobid] = workplace.add("echo", 1)
    workplace.wait_for([jobid])
    workplace.stop()
    assert states() == [state]
    assert workplace.last_transaction() > last


def test_a_worker_without_declared_schedules_writes_nothing_when_it_starts(
    workshop: Any,
) -> None:
    last = workshop.last_transaction()
    workshop.engine.upkeep.ensure_declared(workshop.session)
    assert workshop.last_transaction() == last
    with workshop.service() as service:
        assert "schedules" not in vars(service.queue)


def test_a_dozen_workers_that_start_at_once_make_one_schedule(workshop: Any, register: Any) -> None:
    for number in range(3):
        register(f"nightly {number}", lambda input: input, cron="0 3 * * *")
    ready = threading.Barrier(12)

    def start() -> None:
        engine = workshop.new_engine()
        with engine.claims.open() as session:
            ready.wait()
            engine.upkeep.ensure_declared(session)

    threads = [threading.Thread(target=start) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with workshop.service() as service:
        assert [state.key for state in service.schedules()] == [f"nightly {n}" for n in range(3)]
        assert service.countJobs()[CRONJOB] == 3


def test_a_declaration_that_changes_changes_the_schedule(workshop: Any, register: Any) -> None:
    with workshop.service() as service:
        assert service.ensure_declared() == {}
        register("nightly", lambda input: input, cron="0 3 * * *")
        first = service.ensure_declared()
    register("nightly", lambda input: input, cron="0 4 * * *")
    with workshop.service() as service:
        assert service.ensure_declared() == first
        assert service.jobs[first["nightly"]].cron == "0 4 * * *"


def test_a_declared_schedule_that_failed_for_good_is_left_until_it_changes(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    register("nightly", lambda input: 1 / 0, cron="0 3 * * *")
    with workshop.service() as service:
        jobid = service.ensure_declared()["nightly"]
        job = service.jobs[jobid]
        service.queue.remove(job)
        job.status, job.completed_at = ERROR, workshop.now
        service.queue.file(job)
    last = workshop.last_transaction()
    with workshop.service() as service:
        assert service.ensure_declared() == {"nightly": jobid}
    assert workshop.last_transaction() == last
    assert "is an error, and is not made anew" in caplog.text
    register("nightly", lambda input: 1, cron="0 4 * * *")
    with workshop.service() as service:
        assert service.ensure_declared()["nightly"] != jobid


def test_a_declaration_can_name_the_service_that_is_to_have_it(
    workshop: Any, register: Any
) -> None:
    workshop.new_service("mail")
    register("post", lambda input: input, cron="0 3 * * *", service="mail")
    with workshop.transaction() as root:
        assert list(root["mail"].ensure_declared()) == ["post"]
        assert root["tasks"].ensure_declared() == {}
    with workshop.transaction() as root:
        root["tasks"].__name__ = "mail"
        assert list(root["tasks"].ensure_declared()) == ["post"]


def test_one_declaration_that_cannot_be_keeps_no_other_from_being(
    workshop: Any, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = register("a broken one", lambda input: input)
    task.cron = "never"
    register("nightly", lambda input: input, cron="0 3 * * *")
    with caplog.at_level(logging.ERROR), workshop.service() as service:
        assert list(service.ensure_declared()) == ["nightly"]
    assert "schedule 'a broken one', which is declared here, cannot be" in caplog.text


def test_the_second_door_declares_nothing(db: Any, register: Any) -> None:
    register("nightly", lambda input: input, cron="0 3 * * *")
    assert RemoteProcessor().ensure_declared() == {}


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidSchedule, {"cron": "0 25 * * *"}),
        (UnknownZone, {"cron": "0 3 * * *", "timezone": "Mars/Olympus"}),
        (InvalidArgument, {"timezone": "UTC"}),
        (InvalidArgument, {"service": "mail"}),
        (InvalidArgument, {"cron": 5}),
    ],
    ids=str,
)
def test_a_declaration_that_makes_no_sense_is_refused(
    error: type[Exception], options: dict[str, Any]
) -> None:
    with pytest.raises(error):
        SimpleTask(lambda input: input, **options)


def test_a_declaration_is_refused_whose_task_takes_no_empty_input() -> None:
    from zope.interface import Interface
    from zope.schema import Int

    class INumbers(Interface):
        number = Int()

    with pytest.raises(InvalidInput):
        SimpleTask(lambda input: input, inputSchema=INumbers, cron="0 3 * * *")


# -- the list ----------------------------------------------------------------------------------


def test_all_schedules_are_listed_with_what_has_come_of_them(
    workshop: Any, ensure: Any, register: Any
) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    good = ensure("good", "echo", minute=(0, 30), timezone="Europe/Vienna")
    bad = ensure("bad", "fail", cron="* * * * *")
    once = ensure("once", "echo", delay=1e6)
    plain = workshop.add_cron_job("echo")
    workshop.add("echo", delay=1e6)
    with workshop.service() as service:
        service.pause("fail")
        states = {state.id: state for state in service.schedules()}
        assert list(states) == [bad, good, once, plain]
        assert states[bad].is_paused
        assert not states[good].is_paused
        assert states[good].schedule == "minute=0,30"
        assert (states[plain].schedule, states[plain].key) == ("every minute", None)
        assert (states[once].schedule, states[once].status) == ("once, after 1e+06 s", DELAYED)
        assert states[bad].outcome is states[bad].last_run is None
        assert states[bad].next_run == service.jobs[bad].scheduledFor
        service.resume()
    workshop.now += 3700
    workshop.work()
    with workshop.service() as service:
        states = {state.id: state for state in service.schedules()}
    assert (states[bad].outcome, states[bad].error) == (ERROR, "no")
    assert states[good].outcome == COMPLETED
    assert states[good].last_run == datetime.fromtimestamp(workshop.now, timezone.utc)
    workshop.now += 60
    workshop.claim(3)
    with workshop.service() as service:
        runs = {state.id: state for state in service.schedules()}[bad]
    assert (runs.status, runs.next_run, runs.outcome, runs.error) == (PROCESSING, None, None, None)


def test_a_service_that_was_stored_without_keys_can_have_some(workshop: Any) -> None:
    with workshop.service() as service:
        assert "schedules" not in vars(service.queue)
        assert service.schedules() == []
        assert not service.remove_schedule("nightly")
        assert check_all(service, workshop.now, repair=False) == []
    with workshop.service() as service:
        service.ensure("nightly", "echo", cron="0 3 * * *")
    with workshop.service() as service:
        assert dict(service.queue.schedules) != {}
        assert dict(type(service.queue).schedules) == {}
