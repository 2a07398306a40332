# SPDX-License-Identifier: ZPL-2.1
"""Workers that die, and workers that say goodbye."""

from __future__ import annotations

from typing import Any

import pytest
import transaction

from lovely.remotetask.engine import upkeep
from lovely.remotetask.engine.identity import Identity, Observer, local_ids
from lovely.remotetask.engine.rescue import orphans
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    ERROR,
    PROCESSING,
    QUEUED,
)
from lovely.remotetask.retry import DEATH_WAITS_SECONDS, MAX_DEATHS
from lovely.remotetask.service import TaskService
from lovely.remotetask.store import worker
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.worker import LEASE_SECONDS, Worker


def die(workshop: Any) -> None:
    """Let the worker die with what it holds, and somebody else free that."""
    dead = workshop.engine.claims.identity.id
    workshop.engine = workshop.new_engine()
    workshop.engine.upkeep.free(workshop.session, [dead])


def check_books(workshop: Any) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


# -- rescue ------------------------------------------------------------------------------------


def test_the_jobs_of_a_dead_worker_wait_again(workshop: Any) -> None:
    jobids = [workshop.add("echo", number) for number in range(3)]
    workshop.claim(3)
    die(workshop)
    assert {workshop.get(jobid, "status", "owner") for jobid in jobids} == {(QUEUED, None)}
    with workshop.service() as service:
        assert not service.workers
    check_books(workshop)


def test_a_rescue_says_how_many_jobs_were_freed(workshop: Any) -> None:
    for number in range(3):
        workshop.add("echo", number)
    claims = workshop.claim(3)
    workshop.run(claims[0])
    rescuer = workshop.new_engine()
    assert rescuer.upkeep.free(workshop.session, [workshop.engine.claims.identity.id]) == 2
    assert rescuer.upkeep.free(workshop.session, [workshop.engine.claims.identity.id]) == 0


def test_three_deaths_are_an_error_that_tells_of_them(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobid = workshop.add("echo")
    for death in range(1, MAX_DEATHS + 1):
        workshop.now += 1000
        assert [claim.jobid for claim in workshop.claim()] == [jobid]
        assert workshop.get(jobid, "attempt") == death
        die(workshop)
    status, deaths, errors, failures = workshop.get(jobid, "status", "deaths", "errors", "failures")
    assert (status, deaths, errors) == (ERROR, 3, 0)
    assert [failure.type for failure in failures] == ["WorkerDied"] * 3
    assert failures[-1].message.startswith("3 processes died while they held the job; at last ")
    assert len(caplog.records) == 3
    check_books(workshop)
    with workshop.service() as service:
        assert service.countJobs()[ERROR] == 1


def test_the_waits_after_deaths_grow(workshop: Any) -> None:
    jobid = workshop.add("echo")
    for wait in DEATH_WAITS_SECONDS:
        workshop.claim()
        die(workshop)
        assert workshop.get(jobid, "due") == workshop.now + wait
        workshop.now += wait
    assert list(DEATH_WAITS_SECONDS) == sorted(DEATH_WAITS_SECONDS)
    assert DEATH_WAITS_SECONDS[1] > 0


def test_deaths_are_no_failures_of_the_task(workshop: Any, register: Any) -> None:
    register("fail", lambda input: 1 / 0)
    jobid = workshop.add("fail")
    workshop.claim()
    die(workshop)
    for _ in range(10):
        workshop.work()
        workshop.now += 10
    assert workshop.get(jobid, "status", "deaths", "errors", "attempt") == (ERROR, 1, 4, 5)


def test_a_job_that_completes_tells_of_the_deaths_before(workshop: Any) -> None:
    jobid = workshop.add("echo")
    workshop.claim()
    die(workshop)
    workshop.work()
    assert workshop.get(jobid, "status", "deaths", "error") == (COMPLETED, 1, None)


def test_a_success_of_a_cron_job_counts_the_deaths_in_a_row_anew(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,))
    for run in range(1, MAX_DEATHS + 3):
        workshop.now += 3600
        [claim] = workshop.claim()
        assert not claim.is_suspect
        die(workshop)
        assert workshop.get(jobid, "deaths") == run
        assert workshop.get(jobid, "due") == workshop.now + DEATH_WAITS_SECONDS[0]
        [claim] = workshop.claim()
        assert claim.is_suspect
        workshop.run(claim)
    assert workshop.get(jobid, "status", "deaths") == (CRONJOB, MAX_DEATHS + 2)
    for _ in range(MAX_DEATHS):
        workshop.now += 3600
        workshop.claim()
        die(workshop)
    assert workshop.get(jobid, "status") == ERROR
    assert f"{MAX_DEATHS} processes died" in workshop.get(jobid, "error")
    check_books(workshop)


def test_suspects_are_claimed_alone(workshop: Any) -> None:
    suspects = [workshop.add("echo", number) for number in range(3)]
    workshop.claim(3)
    die(workshop)
    innocent = [workshop.add("echo", number) for number in range(2)]
    claims = workshop.claim(10)
    assert [claim.jobid for claim in claims] == suspects[:1]
    assert claims[0].is_suspect
    # While one suspect is in hand, no other one is claimed, but the innocent ones are.
    assert [claim.jobid for claim in workshop.claim(10)] == innocent


def test_a_suspect_is_claimed_without_innocent_jobs(workshop: Any) -> None:
    suspect = workshop.add("echo")
    workshop.claim()
    die(workshop)
    innocent = workshop.add("echo")
    assert [claim.jobid for claim in workshop.claim(10)] == [suspect]
    assert [claim.jobid for claim in workshop.claim(10)] == [innocent]


def test_of_the_jobs_a_dying_process_held_only_the_killer_becomes_an_error(workshop: Any) -> None:
    killer, *others = [workshop.add("echo", number) for number in range(4)]
    for _ in range(MAX_DEATHS):
        workshop.now += 10
        while claims := workshop.claim(10):
            if killer in [claim.jobid for claim in claims]:
                break
            for claim in claims:
                workshop.run(claim)
        die(workshop)
    workshop.now += 10
    workshop.work()
    assert workshop.get(killer, "status") == ERROR
    assert {workshop.get(jobid, "status") for jobid in others} == {COMPLETED}


def test_a_cancel_request_is_honored_at_the_rescue(workshop: Any) -> None:
    jobid = workshop.add("echo")
    workshop.claim()
    with workshop.service() as service:
        service.cancel(jobid)
        assert service.jobs[jobid].is_cancel_requested
    die(workshop)
    with workshop.service() as service:
        assert service.getStatus(jobid) == CANCELLED
        assert list(service.requests) == []
    check_books(workshop)


def test_the_progress_of_a_dead_worker_is_forgotten(workshop: Any, register: Any) -> None:
    register("tell", lambda context, input: context.progress(1, 2), context=True)
    jobid = workshop.add("tell")
    workshop.step()
    with workshop.service() as service:
        assert service.getProgress(jobid) is not None
    die(workshop)
    with workshop.service() as service:
        assert service.getProgress(jobid) is None


def test_a_job_that_ended_before_the_death_is_filed_by_the_rescue(workshop: Any) -> None:
    jobid = workshop.add("echo", "something")
    workshop.step()
    die(workshop)
    with workshop.service() as service:
        assert service.getResult(jobid) == "something"
        service.clean()
        assert list(service.jobs) == []


def test_a_worker_that_was_taken_for_dead_keeps_nothing(workshop: Any, register: Any) -> None:
    calls = []

    def zombie(input: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            with workshop.service() as service:
                [worker_id] = service.workers
            workshop.new_engine().upkeep.free(workshop.rescuer, [worker_id])

    register("zombie", zombie)
    with workshop.engine.claims.open_beside() as workshop.rescuer:
        jobid = workshop.add("zombie")
        assert workshop.step().status is None
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status", "attempt") == (COMPLETED, 2)


def test_a_heartbeat_collides_with_the_rescue(workshop: Any) -> None:
    workshop.add("echo")
    workshop.claim()
    late = workshop.session.begin().workers[workshop.engine.claims.identity.id]
    late.beat()
    with workshop.engine.claims.open_beside() as session:
        workshop.new_engine().upkeep.free(session, [workshop.engine.claims.identity.id])
    with pytest.raises(transaction.interfaces.TransientError):
        workshop.session.commit()


def test_a_cron_job_that_kills_processes_has_no_further_slot(workshop: Any) -> None:
    jobid = workshop.add_cron_job("echo", minute=(0,))
    for death in range(MAX_DEATHS):
        workshop.now = max(workshop.now, workshop.get(jobid, "due"))
        assert workshop.claim()
        die(workshop)
        assert workshop.get(jobid, "status") == (CRONJOB if death < 2 else ERROR)
    workshop.now += 10_000
    assert workshop.claim() == []


# -- orphans -----------------------------------------------------------------------------------


def hold(workshop: Any, jobid: int, worker_id: str) -> None:
    """Let a worker of a process that is no more hold a job."""
    with workshop.service() as service:
        service.queue.remove(service.jobs[jobid])
        service.jobs[jobid].start(worker_id, workshop.now)
        service.workers[worker_id] = Worker()
        service.workers[worker_id].held = (jobid,)


def test_workers_of_other_processes_are_orphans(workshop: Any) -> None:
    workshop.add("echo")
    workshop.claim()
    hold(workshop, workshop.add("echo"), "former")
    with workshop.service() as service:
        assert orphans(service) == ["former"]


def test_orphans_are_freed_where_no_other_process_can_be_alive(workshop: Any) -> None:
    jobid = workshop.add("echo")
    hold(workshop, jobid, "former")
    workshop.engine.upkeep.free_orphans(workshop.session)
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)


@pytest.mark.parametrize("step", ["free_orphans", "free_dead"])
def test_only_of_processes_that_a_supervisor_has_told_dead_the_jobs_are_freed_at_once(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(upkeep, "is_exclusive", lambda storage: False)
    monkeypatch.setattr(worker, "ended", {"first of one supervisor"})
    jobids = []
    # The last one is without a supervisor, or of an older database.
    for token in ("first of one supervisor", "first of another", "second of one supervisor", ""):
        told = worker.Origin(1, 1, 1, "", token) if token else None
        monkeypatch.setattr(worker, "origin", told)  # but for the token all are the same
        jobids.append(workshop.add("echo"))
        hold(workshop, jobids[-1], token or "older")
    arguments = (LEASE_SECONDS,) if step == "free_dead" else ()
    assert getattr(workshop.engine.upkeep, step)(workshop.session, *arguments) == 1
    freed, *others = [workshop.get(jobid, "status", "deaths") for jobid in jobids]
    assert freed == (QUEUED, 1)
    assert others == [(PROCESSING, 0)] * 3
    with workshop.service() as service:
        assert sorted(service.workers) == ["first of another", "older", "second of one supervisor"]


def test_the_inline_form_frees_what_a_former_process_held(workshop: Any) -> None:
    jobid = workshop.add("echo", "something")
    hold(workshop, jobid, "former")
    with workshop.service() as service:
        service.process()
        assert service.getResult(jobid) == "something"
        assert not service.workers
    check_books(workshop)


@pytest.mark.parametrize("add", ["add", "add_cron_job"])
def test_what_was_claimed_inline_is_given_back_and_no_death(workshop: Any, add: str) -> None:
    options = {"delay": 0} if add == "add_cron_job" else {}
    jobid = getattr(workshop, add)("echo", **options)
    for _ in range(MAX_DEATHS + 1):
        with workshop.service() as service:
            assert service.claimNextJob(workshop.now) == jobid
            assert service.jobs[jobid].status == PROCESSING
            [worker_id] = service.workers
        assert workshop.engine.upkeep.free(workshop.session, [worker_id]) == 1
        assert workshop.get(jobid, "attempt", "deaths") == (0, 0)
        check_books(workshop)
    assert {note.type for note in workshop.get(jobid, "failures")} == {"JobInterrupted"}
    assert workshop.step().jobid == jobid


def test_what_was_claimed_inline_and_cancelled_stays_cancelled(workshop: Any) -> None:
    jobid = workshop.add("echo")
    with workshop.service() as service:
        service.claimNextJob(workshop.now)
        service.cancel(jobid)
        [worker_id] = service.workers
    workshop.engine.upkeep.free(workshop.session, [worker_id])
    assert workshop.get(jobid, "status") == CANCELLED
    check_books(workshop)


def test_an_id_of_a_worker_is_new_for_each_one() -> None:
    first, second = Identity(), Identity()
    assert first.id != second.id
    assert first.id == first.id
    assert {first.id, second.id} <= local_ids(TaskService())


# -- the observer ------------------------------------------------------------------------------


class Record:
    """A worker's record: a ghost, whose serial is not known before it is loaded."""

    def __init__(self, serial: bytes) -> None:
        self._p_serial = b"\0" * 8
        self._stored = serial

    def _p_activate(self) -> None:
        self._p_serial = self._stored


def look(observer: Observer, workers: dict[str, Record], *times: float) -> list[str]:
    """Look several times, with a lease of 60 seconds; return who is dead at the last look."""
    dead: list[tuple[str, bytes]] = []
    for now in times:
        dead = observer.dead(workers, 60, now)
    return [worker_id for worker_id, _ in dead]


def test_a_worker_is_dead_when_its_record_has_not_moved_for_a_lease() -> None:
    observer = Observer()
    workers = {"a": Record(b"1"), "b": Record(b"1")}
    assert look(observer, workers, 1000.0, 1020.0, 1040.0, 1059.9) == []
    workers["b"] = Record(b"2")
    assert look(observer, workers, 1060.0) == ["a"]
    assert look(observer, workers, 1080.0, 1100.0, 1119.9) == ["a"]
    assert look(observer, workers, 1120.0) == ["a", "b"]


def test_the_serial_by_which_a_worker_was_found_dead_is_told() -> None:
    observer = Observer()
    workers = {"a": Record(b"1")}
    look(observer, workers, 0.0, 20.0, 40.0)
    assert observer.dead(workers, 60, 60.0) == [("a", b"1")]


def test_an_observer_counts_from_its_own_first_look() -> None:
    workers = {"a": Record(b"1")}
    first, second = Observer(), Observer()
    look(first, workers, 0.0, 20.0, 40.0, 60.0)
    assert look(second, workers, 80.0) == []
    assert look(first, workers, 80.0) == ["a"]


def test_who_has_not_looked_for_a_while_has_seen_nothing() -> None:
    observer = Observer()
    workers = {"a": Record(b"1")}
    look(observer, workers, 0.0, 20.0, 40.0)
    assert look(observer, workers, 70.1) == []
    assert look(observer, workers, 90.0, 110.0, 130.0) == []
    assert look(observer, workers, 130.1) == ["a"]


def test_looks_that_come_a_little_late_are_looks() -> None:
    observer = Observer()
    workers = {"a": Record(b"1")}
    assert look(observer, workers, 0.0, 30.0, 60.0) == ["a"]


def test_an_observer_forgets_workers_that_are_gone() -> None:
    observer = Observer()
    look(observer, {"a": Record(b"1")}, 0.0, 20.0)
    look(observer, {}, 40.0)
    assert look(observer, {"a": Record(b"1")}, 60.0) == []


# -- signs of life -----------------------------------------------------------------------------


def test_a_heartbeat_moves_the_serial_of_the_record(workshop: Any) -> None:
    workshop.add("echo")
    workshop.claim()
    with workshop.service() as service:
        before = service.workers[workshop.engine.claims.identity.id]._p_mtime
    workshop.engine.claims.beat(workshop.session)
    with workshop.service() as service:
        record = service.workers[workshop.engine.claims.identity.id]
        assert len(record.held) == 1
        assert record._p_mtime > before


def test_a_heartbeat_disturbs_no_running_job(workshop: Any, register: Any) -> None:
    def beat(input: Any) -> None:
        with workshop.engine.claims.open_beside() as session:
            workshop.engine.claims.beat(session)

    register("beat", beat)
    jobid = workshop.add("beat")
    assert workshop.step().status == COMPLETED
    assert workshop.get(jobid, "conflicts") == 0


def test_a_claim_and_a_heartbeat_are_signs_of_life(workshop: Any) -> None:
    workshop.now += 100
    workshop.add("echo")
    workshop.claim()
    assert workshop.engine.claims.last_sign == workshop.now
    workshop.now += 100
    workshop.engine.claims.beat(workshop.session)
    assert workshop.engine.claims.last_sign == workshop.now


# -- goodbye -----------------------------------------------------------------------------------


def give_back_all(workshop: Any) -> None:
    workshop.engine.claims.give_back(
        workshop.session, list(workshop.engine.claims.in_hand.values())
    )


def test_what_was_not_started_is_given_back_without_the_attempt(workshop: Any) -> None:
    jobids = [workshop.add("echo", number) for number in range(3)]
    workshop.claim(3)
    give_back_all(workshop)
    assert workshop.engine.claims.in_hand == {}
    assert {workshop.get(jobid, "status", "attempt", "owner") for jobid in jobids} == {
        (QUEUED, 0, None)
    }
    with workshop.service() as service:
        assert not service.workers
    check_books(workshop)


def test_jobs_that_are_given_back_keep_their_order(workshop: Any) -> None:
    first = [workshop.add("echo", number) for number in range(4)]
    workshop.claim(4)
    later = [workshop.add("echo", number) for number in range(2)]
    give_back_all(workshop)
    assert workshop.work() == [*first, *later]


def test_jobs_that_are_given_back_go_by_their_age_and_not_by_their_ids(workshop: Any) -> None:
    added = []
    for jobid in (500, 300, 400):
        with workshop.service() as service:
            service._v_next_id = jobid
            added.append(service.add("echo"))
    workshop.claim(3)
    give_back_all(workshop)
    assert workshop.work() == added == [500, 300, 400]


def test_a_job_that_was_taken_away_is_not_given_back(workshop: Any) -> None:
    jobid = workshop.add("echo")
    workshop.claim()
    with workshop.service() as service:
        job = service.jobs[jobid]
        job.wait(None)
        job.start("somebody else", workshop.now)
    give_back_all(workshop)
    assert workshop.get(jobid, "status", "owner", "attempt") == (PROCESSING, "somebody else", 2)


def test_a_cancel_request_is_honored_when_the_job_is_given_back(workshop: Any) -> None:
    jobid = workshop.add("echo")
    workshop.claim()
    with workshop.service() as service:
        service.cancel(jobid)
    give_back_all(workshop)
    assert workshop.get(jobid, "status") == CANCELLED
    check_books(workshop)
