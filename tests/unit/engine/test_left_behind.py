# SPDX-License-Identifier: ZPL-2.1
"""Nothing is left behind: no record of a worker, no job that is lost, none that runs for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import transaction
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.base.site import path_to
from lovely.remotetask.engine import claims, registry
from lovely.remotetask.engine.rivals import RIVAL_SECONDS
from lovely.remotetask.engine.session import Session
from lovely.remotetask.errors import RetryLater, ServiceGone
from lovely.remotetask.interfaces import COMPLETED, ERROR, FINAL_STATUSES, PROCESSING, QUEUED, ITask
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store import memory, quarantine
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.level import START_SIZE
from lovely.remotetask.store.queue import JobQueue
from workplace import wait_until

PATIENCE_SECONDS = 20.0
KINDS = [SimpleProcessor, MultiProcessor]
ONCE = RetryPolicy(attempts=1)


def has_left_nothing(workshop: Any) -> bool:
    """Say whether no worker has a record, and all jobs stand where they should."""
    with workshop.service() as service:
        return not len(service.workers) and check_all(service, time.time(), repair=False) == []


def has_ended(workshop: Any, *jobids: int) -> bool:
    return all(workshop.get(jobid, "status") in FINAL_STATUSES for jobid in jobids)


class Crew:
    """Processors in threads of their own, all stopped when the test ends."""

    def __init__(self, workshop: Any) -> None:
        self.workshop = workshop
        self.threads: list[threading.Thread] = []
        self.processors: list[Any] = []

    def hire(self, kind: Any = SimpleProcessor) -> Any:
        """Return a processor that does not run yet."""
        with self.workshop.service() as service:
            processor = kind(self.workshop.db, path_to(service))
        self.processors.append(processor)
        return processor

    def start(self, kind: Any = SimpleProcessor) -> tuple[Any, threading.Thread]:
        """Return a processor and the thread that it runs in."""
        processor = self.hire(kind)
        thread = threading.Thread(target=processor, daemon=True)
        self.threads.append(thread)
        thread.start()
        return processor, thread

    def end(self) -> None:
        for processor in self.processors:
            processor.stop()
        maintaining = [
            p.maintenance_thread for p in self.processors if p.maintenance_thread is not None
        ]
        for thread in (*self.threads, *maintaining):
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def crew(workshop: Any) -> Iterator[Crew]:
    crew = Crew(workshop)
    yield crew
    crew.end()


class Gate:
    """What the task *hang* waits for."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.has_come = threading.Event()

    def hang(self, input: Any) -> Any:
        self.has_come.set()
        assert self.is_open.wait(PATIENCE_SECONDS)
        return input


@pytest.fixture
def gate(workshop: Any, register: Any) -> Iterator[Gate]:
    gate = Gate()
    register("hang", gate.hang)
    yield gate
    gate.is_open.set()


@pytest.fixture
def start(workshop: Any, gate: Gate) -> Iterator[Callable[..., None]]:
    """Return ``start(kind, **arguments)``, which starts the service's own thread."""

    def start(kind: Any = SimpleProcessor, **arguments: Any) -> None:
        with workshop.service() as service:
            service.processorFactory = kind
            service.processorArguments = arguments
        with workshop.service() as service:
            service.startProcessing()

    yield start
    gate.is_open.set()
    assert registry.stop_all(PATIENCE_SECONDS)


def is_processing(workshop: Any) -> bool:
    with workshop.service() as service:
        return bool(service.isProcessing())


def stop(workshop: Any) -> None:
    with workshop.service() as service:
        service.stopProcessing(PATIENCE_SECONDS)


# -- records of workers ------------------------------------------------------------------------


def claim_inline(workshop: Any) -> int:
    """Claim a job in a transaction of the caller's own, and commit."""
    with workshop.service() as service:
        jobid: int = service.claimNextJob()
    return jobid


def test_a_job_that_the_caller_claimed_and_a_processor_ran_leaves_no_record(
    workshop: Any, crew: Crew
) -> None:
    workshop.add("echo", "hello")
    jobid = claim_inline(workshop)
    assert crew.hire().processNext(jobid)
    assert workshop.get(jobid, "status", "output") == (COMPLETED, "hello")
    assert has_left_nothing(workshop)


def test_of_two_jobs_that_the_caller_claimed_the_other_one_stays_claimed(
    workshop: Any, crew: Crew
) -> None:
    for _ in range(2):
        workshop.add("echo")
    first, second = claim_inline(workshop), claim_inline(workshop)
    processor = crew.hire()
    assert processor.processNext(second)
    with workshop.service() as service:
        [record] = service.workers.values()
        assert record.held == (first,)
        assert check_all(service, time.time(), repair=False) == []
    assert processor.processNext(first)
    assert has_left_nothing(workshop)


def test_a_job_that_the_caller_claimed_leaves_no_record_although_a_commit_has_failed(
    workshop: Any, crew: Crew, fail_commits: Any
) -> None:
    workshop.add("echo")
    jobid = claim_inline(workshop)
    fail_commits(OSError("no space left"))
    assert crew.hire().processNext(jobid)
    assert workshop.get(jobid, "status") == COMPLETED
    assert has_left_nothing(workshop)


@pytest.mark.parametrize("kind", KINDS)
def test_a_processor_that_is_stopped_while_its_last_job_runs_leaves_no_record(
    workshop: Any, crew: Crew, gate: Any, kind: Any
) -> None:
    jobid = workshop.add("hang")
    processor, thread = crew.start(kind)
    assert gate.has_come.wait(PATIENCE_SECONDS)
    processor.stop()
    gate.is_open.set()
    thread.join(PATIENCE_SECONDS)
    assert workshop.get(jobid, "status") == COMPLETED
    assert has_left_nothing(workshop)


@pytest.mark.parametrize("kind", KINDS)
def test_a_processor_that_has_run_single_steps_leaves_no_record(
    workshop: Any, crew: Crew, kind: Any
) -> None:
    processor = crew.hire(kind)
    for _ in range(3):
        workshop.add("echo")
    while processor.processNext():
        assert has_left_nothing(workshop)
    assert sum(workshop.get(jobid, "attempt") for jobid in _ids(workshop)) == 3


def _ids(workshop: Any) -> list[int]:
    with workshop.service() as service:
        return list(service.jobs)


# -- the inline form ends ----------------------------------------------------------------------


def test_jobs_that_want_to_run_again_at_once_run_once_a_call(
    service: TaskService, register: Any
) -> None:
    runs: list[Any] = []

    def again(input: Any) -> None:
        runs.append(input)
        raise RetryLater(0)

    register("again", again)
    for number in range(3):
        service.add("again", number)
    for call in range(1, 4):
        service.process(1_000.0 * call)
        assert sorted(runs) == sorted([0, 1, 2] * call)


def test_however_many_want_to_run_again_at_once_each_runs_once_a_call(
    service: TaskService, register: Any
) -> None:
    runs: list[int] = []

    def again(input: int) -> None:
        runs.append(input)
        raise RetryLater(0)

    register("again", again)
    inputs = range(START_SIZE + 10)
    service.add_many("again", inputs)
    for _ in range(2):
        runs.clear()
        service.process(1_000.0)
        assert sorted(runs) == list(inputs)


def test_a_cron_job_whose_slots_pass_during_a_call_runs_once(
    service: TaskService, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    register("tick", runs.append)
    service.addCronJob("tick", 1)
    clock = [time.time()]

    def an_hour_later(now: float | None) -> float:
        clock[0] += 3600.0
        return clock[0]

    monkeypatch.setattr("lovely.remotetask.service._time", an_hour_later)
    for call in range(1, 4):
        service.process()
        assert len(runs) == call


def test_a_cron_job_runs_once_however_many_slots_were_missed(
    service: TaskService, register: Any
) -> None:
    runs: list[int] = []
    register("tick", runs.append)
    service.addCronJob("tick", 1)
    service.process(time.time() + 86_400.0)
    assert runs == [1]


def test_parked_jobs_run_whatever_the_time_once_their_task_is_there(
    service: TaskService, register: Any
) -> None:
    register("late", lambda input: input)
    jobids = service.add_many("late", range(3))
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="late")
    service.process()
    assert {service.jobs[jobid].place for jobid in jobids} == {"late"}
    service.process(0)
    assert {service.getStatus(jobid) for jobid in jobids} == {QUEUED}
    register("late", lambda input: input)
    service.process(0)
    assert [service.getResult(jobid) for jobid in jobids] == [0, 1, 2]
    assert check_all(service, time.time(), repair=False) == []


# -- whose fault: the storage's or the task's --------------------------------------------------


def test_one_fault_of_the_storage_is_no_attempt(
    workshop: Any, register: Any, fail_commits: Any
) -> None:
    runs: list[int] = []
    register("once", runs.append, retry=ONCE)
    jobid = workshop.add("once", 1)
    [claim] = workshop.claim()
    fail_commits(OSError("no space left"))
    assert workshop.run(claim).status == COMPLETED
    assert workshop.get(jobid, "attempt", "errors", "failures") == (1, 0, ())
    assert len(runs) == 2


def test_a_fault_that_outlasts_the_first_sign_of_life_is_no_attempt_either(
    workshop: Any, register: Any, fail_commits: Any
) -> None:
    register("once", lambda input: input, retry=ONCE)
    jobid = workshop.add("once")
    [claim] = workshop.claim()
    waiting = fail_commits(*(OSError("no space left") for _ in range(5)))
    assert workshop.run(claim).status == COMPLETED
    assert waiting == []
    assert workshop.get(jobid, "attempt", "errors") == (1, 0)


class Refuser:
    """A data manager of a task's own, that can never be committed."""

    transaction_manager = transaction.manager

    def abort(self, txn: Any) -> None: ...

    tpc_begin = commit = tpc_finish = tpc_abort = abort

    def tpc_vote(self, txn: Any) -> None:
        raise OSError("the mail server refuses")

    def sortKey(self) -> str:
        return "~refuser"


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_job_whose_own_commit_always_fails_is_an_error_after_some_runs(
    workshop: Any, register: Any, attempts: int
) -> None:
    runs: list[int] = []

    def refuse(input: int) -> None:
        runs.append(input)
        transaction.get().join(Refuser())

    register("refuse", refuse, retry=RetryPolicy(attempts=attempts, first_wait_seconds=0))
    jobid = workshop.add("refuse", 1)
    workshop.work()
    assert workshop.get(jobid, "status", "error") == (ERROR, "the mail server refuses")
    assert workshop.get(jobid, "errors") == attempts
    assert attempts <= len(runs) <= 2 * attempts
    workshop.claim(0)
    assert has_left_nothing(workshop)


def test_a_task_that_says_the_service_is_gone_is_just_an_error(
    workshop: Any, register: Any
) -> None:
    def vanish(input: Any) -> None:
        raise ServiceGone("the mail service is gone")

    register("vanish", vanish, retry=ONCE)
    jobid = workshop.add("vanish")
    other = workshop.add("echo")
    workshop.work()
    assert workshop.get(jobid, "status", "error") == (ERROR, "the mail service is gone")
    assert workshop.get(other, "status") == COMPLETED


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_outlives_a_task_that_says_the_service_is_gone(
    workshop: Any, register: Any, start: Any, kind: Any
) -> None:
    def vanish(input: Any) -> None:
        raise ServiceGone

    register("vanish", vanish, retry=ONCE)
    jobids = [workshop.add(name) for name in ("vanish", "echo", "vanish", "echo")]
    start(kind)
    wait_until(lambda: has_ended(workshop, *jobids))
    assert is_processing(workshop)
    statuses = [workshop.get(jobid, "status") for jobid in jobids]
    assert statuses == [ERROR, COMPLETED, ERROR, COMPLETED]


# -- records that cannot be read ---------------------------------------------------------------


class Fragile:
    """An input that can be stored, and not be loaded once ``is_broken``."""

    is_broken = False

    def __getstate__(self) -> dict[str, int]:
        return {"version": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        if Fragile.is_broken:
            raise LookupError("version 1 is known no more")


@pytest.fixture
def break_code(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets the code change under the stored jobs.

    A worker that waits for such a record to be mended is stopped soon.
    """

    def stop_waiting() -> None:
        workshop.is_stopping = len(workshop.pauses) > 20

    def break_code() -> None:
        workshop.while_pausing = stop_waiting
        monkeypatch.setattr(Fragile, "is_broken", True)
        workshop.db.cacheMinimize()

    return break_code


def add_fragile(workshop: Any, where: str) -> int:
    """Add a job that is to be unreadable in one of the places where jobs wait."""
    with workshop.service() as service:
        if where == "line":
            jobid: int = service.add("echo", Fragile())
        elif where == "delayed":
            jobid = service.addCronJob("echo", Fragile(), delay=0)
        elif where == "cron":
            jobid = service.addCronJob("echo", Fragile(), minute=(0,))
        else:
            assert where == "later"
            jobid = service.add("echo", Fragile(), startLater=True)
        return jobid


PLACES = ["line", "delayed", "cron", "later"]


@pytest.mark.parametrize("where", PLACES)
def test_a_record_that_cannot_be_read_does_not_stop_other_jobs(
    workshop: Any, break_code: Any, where: str
) -> None:
    unreadable = add_fragile(workshop, where)
    others = [workshop.add("echo") for _ in range(3)]
    others.append(workshop.add_cron_job("echo", delay=0))
    break_code()
    workshop.now += 7200.0
    ran = workshop.work()
    assert sorted(ran) == sorted(others)
    assert unreadable not in ran


@pytest.mark.parametrize("where", PLACES)
def test_a_record_that_cannot_be_read_does_not_stop_the_inline_form(
    workshop: Any, break_code: Any, where: str
) -> None:
    add_fragile(workshop, where)
    other = workshop.add("echo")
    break_code()
    with workshop.service() as service:
        service.hasJobsWaiting()
        service.process(workshop.now + 7200.0)
    assert workshop.get(other, "status") == COMPLETED


@pytest.mark.parametrize("has_worked", [False, True])
@pytest.mark.parametrize("where", PLACES)
def test_a_check_survives_a_record_that_cannot_be_read(
    workshop: Any, break_code: Any, where: str, has_worked: bool
) -> None:
    add_fragile(workshop, where)
    workshop.add("echo")
    break_code()
    if has_worked:
        workshop.work()
        workshop.db.cacheMinimize()
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
        check_all(service, workshop.now, repair=False)


@pytest.mark.parametrize("where", ["line", "delayed"])
def test_a_job_runs_when_its_record_can_be_read_again(
    workshop: Any, break_code: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    jobid = add_fragile(workshop, where)
    workshop.add("echo")
    break_code()
    workshop.work()
    monkeypatch.setattr(Fragile, "is_broken", False)
    monkeypatch.setattr(quarantine, "_quarantine", WeakKeyDictionary())  # a minute later
    monkeypatch.setattr(memory, "MEMORY_SECONDS", 0.0)
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
        assert check_all(service, workshop.now, repair=False) == []
    workshop.now += 60.0
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED


# -- jobs that run too long --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_runs_too_long_runs_once_and_the_service_goes_on(
    workshop: Any, register: Any, start: Any, gate: Any, kind: Any
) -> None:
    runs: list[Any] = []
    threads: set[int] = set()

    def slow(input: Any) -> None:
        runs.append(input)
        threads.add(threading.get_ident())
        gate.hang(input)

    def where(input: Any) -> int:
        return threading.get_ident()

    register("slow", slow, timeout_seconds=0.1)
    register("where", where)
    stuck = workshop.add("slow")
    others = [workshop.add("where") for _ in range(3)]
    start(kind)
    wait_until(lambda: has_ended(workshop, stuck, *others))
    assert is_processing(workshop)
    assert workshop.get(stuck, "status") == ERROR
    assert "longer than 0.1 s" in workshop.get(stuck, "error")
    assert {workshop.get(other, "status") for other in others} == {COMPLETED}
    assert not threads & {workshop.get(other, "output") for other in others}
    gate.is_open.set()
    late = workshop.add("where")
    wait_until(lambda: has_ended(workshop, late))
    assert is_processing(workshop)
    stop(workshop)
    assert not is_processing(workshop)
    assert runs == [None]
    assert workshop.get(stuck, "status") == ERROR
    assert has_left_nothing(workshop)


@pytest.mark.parametrize(
    ("kind", "arguments"), [(SimpleProcessor, {}), (MultiProcessor, {"maxThreads": 1})]
)
def test_a_service_can_be_stopped_and_started_while_a_job_it_gave_up_still_hangs(
    workshop: Any, register: Any, start: Any, gate: Any, kind: Any, arguments: dict[str, Any]
) -> None:
    register("slow", gate.hang, timeout_seconds=0.1)
    stuck = workshop.add("slow")
    following = workshop.add("echo")
    start(kind, **arguments)
    wait_until(lambda: has_ended(workshop, stuck, following))  # so that a thread is in its place
    begun = time.monotonic()
    stop(workshop)
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    assert not is_processing(workshop)
    wait_until(lambda: has_left_nothing(workshop))
    other = workshop.add("echo")
    start(kind, **arguments)
    wait_until(lambda: has_ended(workshop, other))
    assert workshop.get(other, "status") == COMPLETED


def test_a_service_is_processing_at_every_moment_while_a_hanging_thread_is_replaced(
    workshop: Any, register: Any, start: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool] = []
    begin = threading.Thread.start

    def look_and_begin(thread: threading.Thread) -> None:
        if thread.name.startswith("remotetasks.") and gate.has_come.is_set():
            answers.append(is_processing(workshop))
        begin(thread)

    register("slow", gate.hang, timeout_seconds=0.1)
    stuck = workshop.add("slow")
    start()
    monkeypatch.setattr(threading.Thread, "start", look_and_begin)
    wait_until(lambda: has_ended(workshop, stuck) and answers)
    assert answers == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_that_takes_too_long_starts_no_loop(
    workshop: Any, register: Any, crew: Crew, kind: Any
) -> None:
    def slow(input: Any) -> None:
        wait_until(lambda: workshop.get(stuck, "status") == ERROR)

    register("slow", slow, timeout_seconds=0.1)
    stuck = workshop.add("slow")
    processor = crew.hire(kind)
    assert processor.processNext()
    processor.maintenance_thread.join(PATIENCE_SECONDS)
    assert workshop.get(stuck, "status") == ERROR
    assert processor.loop_thread is None
    other = workshop.add("echo")
    assert processor.processNext()
    assert workshop.get(other, "status") == COMPLETED
    assert has_left_nothing(workshop)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_takes_too_long_while_its_service_stops_is_given_up(
    workshop: Any, register: Any, start: Any, gate: Any, kind: Any
) -> None:
    register("slow", gate.hang, timeout_seconds=0.3)
    stuck = workshop.add("slow")
    start(kind)
    assert gate.has_come.wait(PATIENCE_SECONDS)
    assert registry.stop_all(PATIENCE_SECONDS)
    assert workshop.get(stuck, "status") == ERROR
    assert has_left_nothing(workshop)


def test_what_waits_for_the_only_thread_runs_when_that_hangs(
    workshop: Any, register: Any, crew: Crew, gate: Any
) -> None:
    register("slow", gate.hang, timeout_seconds=0.1)
    jobids = [workshop.add(task) for task in ("slow", *["echo"] * 9)]
    processor = crew.hire(MultiProcessor)
    processor.maxThreads = 1
    processor.loop.crew.runner.batch = 10.0
    thread = threading.Thread(target=processor, daemon=True)
    crew.threads.append(thread)
    thread.start()
    wait_until(lambda: has_ended(workshop, *jobids))
    gate.is_open.set()


# -- stopped while the storage does not work ---------------------------------------------------


@pytest.fixture
def break_storage(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return ``break_storage(is_broken)``: while it is, no session can commit."""
    commit = Session.commit
    broken = threading.Event()

    def commit_or_fail(session: Session) -> None:
        if broken.is_set():
            session.in_commit = True
            raise OSError("no space left")
        commit(session)

    monkeypatch.setattr(Session, "commit", commit_or_fail)
    return lambda is_broken: broken.set() if is_broken else broken.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_stopped_while_the_storage_was_away_is_run_after_a_start(
    workshop: Any, start: Any, gate: Any, kind: Any, break_storage: Any
) -> None:
    jobids = [workshop.add(name) for name in ("hang", "echo", "hang", "echo")]
    start(kind)
    assert gate.has_come.wait(PATIENCE_SECONDS)
    break_storage(True)
    gate.is_open.set()
    stop(workshop)
    break_storage(False)
    assert PROCESSING in {workshop.get(jobid, "status") for jobid in jobids}
    start(kind)
    wait_until(lambda: has_ended(workshop, *jobids))
    assert {workshop.get(jobid, "status") for jobid in jobids} == {COMPLETED}
    stop(workshop)
    assert has_left_nothing(workshop)


# -- rivals ------------------------------------------------------------------------------------


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each pull, whether it kept the strict order."""
    orders: list[bool] = []
    pull = JobQueue.pull

    def noted(
        self: JobQueue, jobs: Any, now: float, start: float | None = None, *rest: Any, **more: Any
    ) -> Iterator[Any]:
        orders.append(start is None)
        return pull(self, jobs, now, start, *rest, **more)

    monkeypatch.setattr(JobQueue, "pull", noted)
    return orders


def keeps_order(workshop: Any, orders: list[bool]) -> bool:
    """Let the worker claim and run one job; say whether it has kept the strict order."""
    workshop.add("echo")
    workshop.step()
    return orders[-1]


def test_a_conflict_with_nobody_who_holds_jobs_leaves_the_order_alone(
    workshop: Any, orders: list[bool], fail_commits: Any
) -> None:
    assert keeps_order(workshop, orders)
    fail_commits(ConflictError("somebody has cancelled a job"))
    assert keeps_order(workshop, orders)
    assert orders == [True, True, True]


def test_after_a_conflict_with_a_rival_chance_decides_where_to_begin(
    workshop: Any, fail_commits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float | None] = []
    pull = JobQueue.pull

    def noted(
        self: JobQueue, jobs: Any, now: float, start: float | None, *rest: Any, **more: Any
    ) -> Any:
        starts.append(start)
        return pull(self, jobs, now, start, *rest, **more)

    monkeypatch.setattr(JobQueue, "pull", noted)
    monkeypatch.setattr(claims.random, "random", lambda: 0.123)
    for number in range(10):
        workshop.add("echo", number)
    rival = workshop.new_engine()
    rival.claims.claim(workshop.session, 1)
    fail_commits(ConflictError("the rival was quicker"))
    assert workshop.claim(1)
    place = sorted([workshop.engine.claims.identity.id, rival.claims.identity.id]).index(
        workshop.engine.claims.identity.id
    )
    assert starts == [None, place / 2, 0.123]


def test_after_a_rival_was_seen_the_strict_order_is_left_for_a_while(
    workshop: Any, orders: list[bool]
) -> None:
    workshop.add("echo")
    rival = workshop.new_engine()
    [claim] = rival.claims.claim(workshop.session, 1)
    assert not keeps_order(workshop, orders)
    workshop.now += 2 * RIVAL_SECONDS
    assert not keeps_order(workshop, orders)  # it is still there
    rival.execution.run(workshop.session, claim)
    rival.claims.claim(workshop.session, 0)
    assert not keeps_order(workshop, orders)
    workshop.now += RIVAL_SECONDS + 1
    assert keeps_order(workshop, orders)


def test_workers_that_know_of_each_other_take_different_jobs(workshop: Any) -> None:
    for number in range(400):
        workshop.add("echo", number)
    workers = [workshop.new_engine() for _ in range(4)]
    for worker in workers:  # each leaves a record for the others to see
        worker.claims.claim(workshop.session, 1)
    firsts: set[int] = set()
    for worker in workers:
        service = workshop.session.begin()
        start, _ = worker.claims.rivals.share(service, 10)
        firsts.add(next(service.queue.pull(service.jobs, workshop.now, start)).id)
        workshop.session.abort()
    assert len(firsts) == 4


def test_the_last_jobs_are_divided_among_the_workers(workshop: Any) -> None:
    for number in range(42):
        workshop.add("echo", number)
    rival = workshop.new_engine()
    rival.claims.claim(workshop.session, 1)
    workshop.claim(1)
    sizes = []
    while claims := workshop.claim(30):
        sizes.append(len(claims))
    assert sizes == [20, 10, 5, 2, 1, 1, 1]
    workshop.engine, alone = rival, workshop.engine
    assert not workshop.claim(1)
    assert sum(map(len, (alone.claims.in_hand, rival.claims.in_hand))) == 42


def test_a_worker_that_is_alone_takes_all_it_may(workshop: Any) -> None:
    for number in range(42):
        workshop.add("echo", number)
    assert len(workshop.claim(40)) == 40
