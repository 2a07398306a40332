# SPDX-License-Identifier: ZPL-2.1
"""What jobs log is kept with them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import transaction
from BTrees.IOBTree import IOBTree
from ZODB.POSException import ConflictError

from lovely.remotetask.base import loglines
from lovely.remotetask.engine.joblogs import NOTE_SECONDS
from lovely.remotetask.engine.maintenance import Maintenance
from lovely.remotetask.errors import InvalidArgument, JobNotFound, RetryLater, TaskError
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, PROCESSING, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.joblog import kept_lines, note_lines

log = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def tasks(register: Any) -> None:
    def fail(input: Any) -> None:
        log.info("about to fail")
        raise TaskError("no")

    def stumble(input: Any) -> None:
        log.info("about to stumble")
        raise ValueError("not yet")

    register("tell", lambda input: [log.info("line %s", number) for number in range(input)])
    register("fail", fail)
    register("stumble", stumble, retry=RetryPolicy(3, 0.0))


def lines_of(workshop: Any, jobid: int) -> list[tuple[str, int, str]]:
    with workshop.service() as service:
        return [(level, attempt, text) for _, level, attempt, text in service.getLog(jobid)]


def check_books(workshop: Any) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        assert not service.lines


def note(workshop: Any) -> None:
    """Let the maintenance note what is logged."""
    with workshop.engine.claims.open_beside() as session:
        workshop.engine.execution.logs.note(session)


# -- with what becomes of a run ----------------------------------------------------------------


def test_what_a_job_logs_is_written_in_the_commit_of_its_run(file_workshop: Any) -> None:
    jobid = file_workshop.add("tell", 2)
    [claim] = file_workshop.claim()
    before = file_workshop.count_transactions()
    file_workshop.run(claim)
    assert file_workshop.count_transactions() == before + 1
    assert lines_of(file_workshop, jobid) == [("INFO", 1, "line 0"), ("INFO", 1, "line 1")]


def test_a_job_that_logs_nothing_has_no_object_for_it(file_workshop: Any) -> None:
    jobid = file_workshop.add("echo")
    [claim] = file_workshop.claim()
    file_workshop.run(claim)
    assert [len(list(txn)) for txn in file_workshop.db.storage.iterator()][-1] == 1  # the job
    assert lines_of(file_workshop, jobid) == []
    assert file_workshop.get(jobid, "log") is None


def test_what_a_failed_attempt_logs_is_kept(file_workshop: Any) -> None:
    jobid = file_workshop.add("fail")
    [claim] = file_workshop.claim()
    before = file_workshop.count_transactions()
    file_workshop.run(claim)
    assert file_workshop.count_transactions() == before + 1  # nothing but the failure
    assert file_workshop.get(jobid, "status") == ERROR
    assert lines_of(file_workshop, jobid) == [("INFO", 1, "about to fail")]


def test_attempts_follow_each_other_in_the_log(workshop: Any) -> None:
    jobid = workshop.add("stumble")
    for _ in range(3):
        workshop.work()
        workshop.now += 10
    assert [attempt for _, attempt, _ in lines_of(workshop, jobid)] == [1, 2, 3]


def test_a_run_that_is_repeated_after_a_conflict_leaves_its_last_lines(
    workshop: Any, fail_commits: Any
) -> None:

    jobid = workshop.add("tell", 1)
    [claim] = workshop.claim()
    fail_commits(ConflictError(), ConflictError())
    workshop.run(claim)
    assert workshop.get(jobid, "status") == COMPLETED
    assert lines_of(workshop, jobid) == [("INFO", 1, "line 0")]


def test_jobs_that_share_a_commit_have_logs_of_their_own(workshop: Any, register: Any) -> None:
    register("share", lambda input: log.info("it is %s", input), shared_commit=True)
    jobids = [workshop.add("share", number) for number in range(3)]
    workshop.run_together(workshop.reserve())
    assert [lines_of(workshop, jobid) for jobid in jobids] == [
        [("INFO", 1, f"it is {number}")] for number in range(3)
    ]


def test_inline_runs_keep_what_is_logged(workshop: Any) -> None:
    told, failed = workshop.add("tell", 1), workshop.add("fail")
    with workshop.service() as service:
        service.process(workshop.now)
    assert lines_of(workshop, told) == [("INFO", 1, "line 0")]
    assert lines_of(workshop, failed) == [("INFO", 1, "about to fail")]


def test_of_a_long_log_the_last_lines_are_kept_and_the_first_says_so(workshop: Any) -> None:
    jobid = workshop.add("tell", 1000)
    workshop.work()
    found = lines_of(workshop, jobid)
    left_out = 1000 - loglines.MAX_LINES
    assert found[0] == ("INFO", 1, f"({left_out} earlier lines are left out)")
    assert found[-1] == ("INFO", 1, "line 999")
    assert len(found) == loglines.MAX_LINES + 1


def test_the_log_of_a_schedule_is_that_of_its_last_runs(workshop: Any) -> None:
    jobid = workshop.add_cron_job("tell", 80, minute=(0,))
    for _ in range(5):
        workshop.now += 3600
        workshop.work()
    found = lines_of(workshop, jobid)
    assert found[0][2] == f"({400 - loglines.MAX_LINES} earlier lines are left out)"
    assert {attempt for _, attempt, _ in found} == {3, 4, 5}


def test_the_log_goes_with_its_job(workshop: Any) -> None:
    jobid = workshop.add("tell", 1)
    workshop.work()
    with workshop.service() as service:
        service.clean()
        with pytest.raises(JobNotFound):
            service.getLog(jobid)
    check_books(workshop)


def test_the_log_of_the_context_is_kept_whatever_its_level(workshop: Any, register: Any) -> None:
    register("tell it", lambda context, input: context.log.info("half of %d", 4), context=True)
    jobid = workshop.add("tell it")
    logging.getLogger("remotetask.job").setLevel(logging.ERROR)
    workshop.work()
    assert lines_of(workshop, jobid) == [("INFO", 1, "half of 4")]
    again = workshop.add("tell it")
    logging.getLogger("remotetask.job").setLevel(logging.INFO)
    workshop.work()
    assert lines_of(workshop, again) == [("INFO", 1, "half of 4")]


# -- the setting -------------------------------------------------------------------------------


def test_a_service_says_from_which_level_on_lines_are_kept(workshop: Any) -> None:
    with workshop.service() as service:
        service.log_level = "warning"
        assert service.log_level == logging.WARNING
    jobid = workshop.add("tell", 1)
    workshop.work()
    assert lines_of(workshop, jobid) == []


def test_a_service_can_keep_no_lines(workshop: Any) -> None:
    with workshop.service() as service:
        service.log_level = None
    jobid = workshop.add("tell", 1)
    workshop.work()
    assert lines_of(workshop, jobid) == []


@pytest.mark.parametrize("value", ["loud", -1, 1.5, True, b"INFO"])
def test_what_is_no_level_is_refused(service: TaskService, value: Any) -> None:
    with pytest.raises(InvalidArgument, match="log_level must be a level of logging"):
        service.log_level = value


def test_of_a_run_that_has_ended_nothing_stays_in_memory(workshop: Any) -> None:
    workshop.add("tell", 1)
    workshop.add("fail")
    workshop.work()
    assert workshop.engine.execution.logs._runs == {}


# -- while a job runs --------------------------------------------------------------------------


def watch(workshop: Any, register: Any, seconds: float) -> list[list[tuple[str, int, str]]]:
    """Run a job that logs, goes on for some seconds, logs, and sees what others see of it."""
    seen: list[list[tuple[str, int, str]]] = []

    def look(input: Any) -> None:
        log.info("first")
        workshop.now += seconds
        log.info("second")
        note(workshop)
        seen.append(lines_of(workshop, jobid))
        log.info("third")

    register("look", look)
    jobid = workshop.add("look")
    workshop.work()
    seen.append(lines_of(workshop, jobid))
    return seen


def test_what_a_long_run_has_logged_can_be_read_meanwhile(workshop: Any, register: Any) -> None:
    during, after = watch(workshop, register, NOTE_SECONDS)
    assert during == [("INFO", 1, "first"), ("INFO", 1, "second")]
    assert after == [("INFO", 1, "first"), ("INFO", 1, "second"), ("INFO", 1, "third")]
    workshop.claim()
    check_books(workshop)


def test_of_a_quick_run_nothing_is_noted(workshop: Any, register: Any) -> None:
    during, after = watch(workshop, register, NOTE_SECONDS / 2)
    assert (during, len(after)) == ([], 3)


def test_the_maintenance_is_told_when_a_long_run_logs(workshop: Any, register: Any) -> None:
    heard: list[float] = []

    def tell(input: Any) -> None:
        for _ in range(4):
            log.info("a line")
            workshop.now += NOTE_SECONDS / 2

    workshop.engine.execution.logs.on_news = lambda: heard.append(workshop.now)
    register("tell slowly", tell)
    workshop.add("tell slowly")
    begun = workshop.now
    workshop.work()
    assert heard == [begun + NOTE_SECONDS]


def test_the_maintenance_notes_what_was_logged_at_each_tick(workshop: Any, register: Any) -> None:
    seen = []

    def tell_and_wait(input: Any) -> None:
        log.info("the last word")
        workshop.now += NOTE_SECONDS
        maintenance = Maintenance(workshop.engine, lambda: True, lambda: None, lambda thread: None)
        with workshop.engine.claims.open_beside() as session:
            maintenance.tick(session)
        seen.append(lines_of(workshop, jobid))

    register("wait", tell_and_wait)
    jobid = workshop.add("wait")
    workshop.work()
    assert seen == [[("INFO", 1, "the last word")]]


class Killed(BaseException):
    """Nothing is kept of what raises this: the process is gone."""


def die_while_running(workshop: Any, register: Any) -> int:
    """Let a process die with a job that has logged, and others free it; return its id."""

    def die(input: Any) -> None:
        log.info("the last word")
        workshop.now += NOTE_SECONDS
        note(workshop)
        log.info("never seen")
        raise Killed

    register("die", die)
    jobid: int = workshop.add("die")
    [claim] = workshop.claim()
    execution = workshop.engine.execution
    execution.record = lambda session, claim, error, told: "lost"
    workshop.run(claim)
    workshop.session.abort()
    dead = workshop.engine.claims.identity.id
    workshop.engine = workshop.new_engine()
    workshop.engine.upkeep.free(workshop.session, [dead])
    return jobid


def test_what_was_noted_stays_when_the_process_dies(workshop: Any, register: Any) -> None:
    jobid = die_while_running(workshop, register)
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)
    assert lines_of(workshop, jobid) == [("INFO", 1, "the last word")]
    check_books(workshop)


def test_a_note_about_a_run_that_has_just_ended_is_not_written(
    workshop: Any, register: Any
) -> None:
    register("tell late", lambda input: log.info("done"))
    jobid = workshop.add("tell late")
    [claim] = workshop.claim()
    with workshop.service() as late:
        job = late.jobs[jobid]
        assert job.status == PROCESSING
        note_lines(late, job, ((1.0, "INFO", 1, "done"),), 1)
        workshop.run(claim)

        with pytest.raises(ConflictError):
            late._p_jar.transaction_manager.commit()
        late._p_jar.transaction_manager.abort()
    workshop.claim()
    check_books(workshop)


def test_a_job_that_was_given_up_keeps_what_it_has_logged(workshop: Any, register: Any) -> None:
    def hang(input: Any) -> None:
        log.info("about to hang")
        with workshop.engine.claims.open_beside() as session:
            assert workshop.engine.execution.expire(session, claim, 5.0)

    register("hang", hang, retry=RetryPolicy(1))
    jobid = workshop.add("hang")
    [claim] = workshop.claim()
    workshop.run(claim)
    assert workshop.get(jobid, "status") == ERROR
    assert lines_of(workshop, jobid) == [("INFO", 1, "about to hang")]


def test_a_job_that_is_cancelled_while_it_runs_keeps_what_it_has_logged(
    workshop: Any, register: Any
) -> None:
    def heed(context: Any, input: Any) -> None:
        log.info("at work")
        with workshop.service() as service:
            service.cancel(jobid)
        context.check_cancelled()

    register("heed", heed, context=True)
    jobid = workshop.add("heed")
    workshop.work()
    assert workshop.get(jobid, "status") == CANCELLED
    assert lines_of(workshop, jobid) == [("INFO", 1, "at work")]


# -- a log that is lost ------------------------------------------------------------------------


def lose_log(workshop: Any, jobid: int) -> None:
    """Take the record of a job's log out of the storage."""
    with workshop.service() as service:
        oid = service.jobs[jobid].log._p_oid
    del workshop.db.storage.changes._data[oid]
    workshop.db.cacheMinimize()
    gc.collect()


@pytest.fixture
def again(workshop: Any, register: Any) -> int:
    """A job that has logged, waits for its next attempt, and has lost its log."""

    def tell_again(context: Any, input: Any) -> None:
        log.info("attempt %s", context.attempt)
        if context.attempt < 3:
            raise RetryLater(0.0)

    def stop_waiting() -> None:  # one that waits for the record
        workshop.is_stopping = len(workshop.pauses) > 20

    workshop.while_pausing = stop_waiting
    register("tell again", tell_again, context=True)
    jobid: int = workshop.add("tell again")
    workshop.step()
    workshop.claim(0)  # files it
    lose_log(workshop, jobid)
    return jobid


def test_a_lost_log_keeps_neither_its_job_nor_others_waiting(
    workshop: Any, again: int, caplog: pytest.LogCaptureFixture
) -> None:
    other = workshop.add("tell", 1)
    workshop.work()
    assert workshop.get(again, "status", "attempt") == (COMPLETED, 3)
    assert workshop.get(other, "status") == COMPLETED
    assert lines_of(workshop, again) == [("INFO", 2, "attempt 2"), ("INFO", 3, "attempt 3")]
    assert [r.getMessage() for r in caplog.records if r.name == "remotetask.job"][:1] == [
        f"job {again}: the record of its log is missing, or cannot be read; it has a new one"
    ]
    check_books(workshop)


def test_the_inline_form_goes_on_without_a_lost_log(workshop: Any, again: int) -> None:
    workshop.now += 10.0
    with workshop.service() as service:
        service.process(workshop.now)
    with workshop.service() as service:
        service.process(workshop.now)
    assert workshop.get(again, "status") == COMPLETED
    assert [text for _, _, text in lines_of(workshop, again)] == ["attempt 2", "attempt 3"]


def test_a_lost_log_is_empty_for_who_reads_it(workshop: Any, again: int) -> None:
    assert lines_of(workshop, again) == []
    with workshop.service() as service:
        assert kept_lines(service.jobs[again]) is None


def test_who_frees_a_job_puts_what_was_noted_into_a_new_log(workshop: Any, again: int) -> None:
    workshop.claim()
    with workshop.service() as service:
        note_lines(service, service.jobs[again], ((1.0, "INFO", 2, "the last word"),), 1)
    assert lines_of(workshop, again) == [("INFO", 2, "the last word")]
    dead = workshop.engine.claims.identity.id
    workshop.engine = workshop.new_engine()
    workshop.engine.upkeep.free(workshop.session, [dead])
    assert workshop.get(again, "status", "deaths") == (QUEUED, 1)
    assert lines_of(workshop, again) == [("INFO", 2, "the last word")]
    check_books(workshop)


def test_a_check_names_a_lost_log_and_takes_it_out(workshop: Any, again: int) -> None:
    with workshop.service() as service:
        [problem] = check_all(service, workshop.now, repair=False)
        assert tuple(problem) == (again, "the record of its log is missing, or cannot be read")
        assert problem.is_mendable
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=True) == [problem]
    assert workshop.get(again, "log") is None
    check_books(workshop)


def test_a_check_leaves_the_lost_log_of_a_running_job_to_its_run(workshop: Any, again: int) -> None:
    [claim] = workshop.claim()
    with workshop.service() as service:
        [problem] = check_all(service, workshop.now, repair=True)
        assert not problem.is_mendable
    workshop.run(claim)
    workshop.work()
    check_books(workshop)


# -- what was stored before --------------------------------------------------------------------


def test_a_service_that_was_stored_without_gets_its_notes_when_they_are_needed(
    workshop: Any, register: Any
) -> None:
    with workshop.service() as service:
        del service.lines
    with workshop.service() as service:
        assert "lines" not in vars(service)
        assert service.getLog(service.add("echo")) == []
    workshop.work()
    with workshop.service() as service:
        assert "lines" not in vars(service)
    during, after = watch(workshop, register, NOTE_SECONDS)
    assert (len(during), len(after)) == (2, 3)
    with workshop.service() as service:
        assert isinstance(vars(service)["lines"], IOBTree)
        assert len(TaskService.lines) == 0


def test_lines_of_a_job_in_no_database_are_kept_too(service: TaskService) -> None:
    jobid = service.add("tell", 1)
    service.process()
    assert [line.text for line in service.getLog(jobid)] == ["line 0"]
    transaction.abort()
