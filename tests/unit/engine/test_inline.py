# SPDX-License-Identifier: ZPL-2.1
"""The inline form in a database: jobs run in the caller's transaction."""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from transaction.interfaces import DoomedTransaction, NoTransaction
from ZODB.DemoStorage import DemoStorage
from ZODB.POSException import ConflictError

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.identity import claimed_by_callers
from lovely.remotetask.errors import CannotTakeBack, TaskError, TransactionMeddled
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import TaskContext
from meddling import ENDING, MEDDLING, change_owner, change_status, raise_fenced


@pytest.fixture
def root(db: ZODB.DB, register: Any) -> Iterator[Any]:
    """The root of a database with a service at *tasks*, in the thread's own transaction."""
    register("echo", lambda input: input)
    connection = db.open()
    connection.root()["tasks"] = TaskService()
    transaction.commit()
    yield connection.root()
    transaction.abort()
    connection.close()


def write(context: TaskContext, input: Any) -> Any:
    context.service._p_jar.root()["written"] = input
    return input


def test_what_jobs_do_is_committed_by_the_caller(root: Any, register: Any) -> None:
    register("write", write, context=True)
    jobid = root["tasks"].add("write", "something")
    transaction.commit()
    root["tasks"].process()
    assert root["written"] == "something"
    transaction.abort()
    assert "written" not in root
    assert root["tasks"].getStatus(jobid) == QUEUED
    assert root["tasks"].jobs[jobid].attempt == 0
    root["tasks"].process()
    transaction.commit()
    assert root["written"] == "something"
    assert root["tasks"].getStatus(jobid) == COMPLETED


def test_of_a_job_that_fails_nothing_is_kept_but_its_error(root: Any, register: Any) -> None:
    def fail(context: TaskContext, input: Any) -> None:
        write(context, input)
        raise TaskError("no")

    register("fail", fail, context=True)
    register("write", write, context=True)
    root["mine"] = "the caller's own change"
    jobid = root["tasks"].add("fail", "bad")
    root["tasks"].add("write", "good")
    root["tasks"].process()
    transaction.commit()
    assert root["tasks"].getStatus(jobid) == ERROR
    assert root["written"] == "good"
    assert root["mine"] == "the caller's own change"


def test_a_repeat_starts_from_where_the_first_run_started(root: Any, register: Any) -> None:
    seen = []

    def stumble(context: TaskContext, input: Any) -> None:
        seen.append("written" in context.service._p_jar.root())
        write(context, input)
        if len(seen) < 3:
            raise ValueError("no luck")

    register("stumble", stumble, context=True)
    jobid = root["tasks"].add("stumble")
    transaction.commit()
    root["tasks"].process(1000)
    assert seen == [False, False, False]
    assert root["tasks"].getStatus(jobid) == COMPLETED
    assert root["tasks"].jobs[jobid].attempt == 3


def test_a_conflict_is_the_callers_affair(root: Any, register: Any) -> None:
    def conflict(input: Any) -> None:
        raise ConflictError("somebody was faster")

    register("conflict", conflict)
    jobid = root["tasks"].add("conflict")
    transaction.commit()
    with pytest.raises(ConflictError):
        root["tasks"].process()
    transaction.abort()
    assert root["tasks"].getStatus(jobid) == QUEUED


def be_away(oid: bytes, version: str = "") -> Any:
    raise OSError("the storage is away")


@pytest.mark.parametrize("is_away", [False, True])
def test_who_commits_although_a_run_was_broken_off_keeps_nothing_of_it(
    root: Any, register: Any, is_away: bool
) -> None:
    def break_off(context: TaskContext, input: Any) -> None:
        context.service._p_jar.root()["written"] = True
        if not is_away:
            raise ConflictError("somebody was faster")
        context.service._p_jar._storage.load = be_away
        root["other"]._p_deactivate()
        try:
            root["other"]["x"] = 1
        finally:
            del context.service._p_jar._storage.load

    register("break off", break_off, context=True)
    root["other"] = PersistentMapping()
    jobid = root["tasks"].add("break off")
    transaction.commit()
    with pytest.raises(OSError if is_away else ConflictError):
        root["tasks"].process()
    with pytest.raises(DoomedTransaction):
        transaction.commit()
    transaction.abort()
    assert "written" not in root
    assert root["tasks"].getStatus(jobid) == QUEUED
    assert check_all(root["tasks"], time.time(), repair=False) == []


def test_what_a_thread_has_claimed_that_has_ended_is_free(workshop: Any) -> None:
    jobid = workshop.add("echo")
    manager = transaction.TransactionManager()
    has_claimed, goes_on = threading.Event(), threading.Event()

    def claim() -> None:
        assert connection.root()["tasks"].claimNextJob(workshop.now) == jobid
        has_claimed.set()
        goes_on.wait(60)

    with closing(workshop.db.open(manager)) as connection:
        thread = threading.Thread(target=claim)
        thread.start()
        assert has_claimed.wait(60)
        assert workshop.claim() == []  # it may still commit
        goes_on.set()
        thread.join()
        [claimed] = workshop.claim()
        assert claimed.jobid == jobid
        manager.abort()


def test_what_was_claimed_in_a_job_that_fails_is_free_in_the_end(
    root: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process_others(context: TaskContext, input: Any) -> None:
        others.process()
        raise TaskError

    register("process others", process_others, context=True)
    others = root["other"] = TaskService()
    transaction.commit()
    jobid = others.add("echo")
    root["tasks"].add("process others")
    transaction.commit()
    woken: list[bytes] = []
    monkeypatch.setattr(registry, "wake", lambda db, oid: woken.append(oid))
    root["tasks"].process()
    assert claimed_by_callers(others) == {jobid}
    transaction.commit()
    assert claimed_by_callers(others) == set()
    assert others._p_oid in woken
    assert others.getStatus(jobid) == QUEUED


def test_jobs_of_an_aborted_transaction_do_not_exist(root: Any) -> None:
    jobid = root["tasks"].add("echo")
    transaction.abort()
    assert jobid not in root["tasks"].jobs
    assert not root["tasks"].hasJobsWaiting()
    assert set(root["tasks"].countJobs().values()) == {0}


def test_a_claim_that_is_committed_can_be_run_in_the_next_transaction(root: Any) -> None:
    jobid = root["tasks"].add("echo", "something")
    assert root["tasks"].claimNextJob() == jobid
    transaction.commit()
    assert root["tasks"].processNext(jobid=jobid)
    transaction.commit()
    assert root["tasks"].getResult(jobid) == "something"
    assert check_all(root["tasks"], 0, repair=False) == []


def test_a_claimed_job_that_is_cancelled_is_not_run(root: Any, register: Any) -> None:
    calls: list[Any] = []
    register("note", calls.append)
    jobid = root["tasks"].add("note")
    root["tasks"].claimNextJob()
    transaction.commit()
    root["tasks"].cancel(jobid)
    assert root["tasks"].jobs[jobid].is_cancel_requested
    root["tasks"].processNext(jobid=jobid)
    assert calls == []
    assert root["tasks"].getStatus(jobid) == CANCELLED


# -- tasks that meddle with the caller's transaction -------------------------------------------


@pytest.mark.parametrize("is_swallowed", [False, True])
@pytest.mark.parametrize("meddle", MEDDLING)
def test_a_task_that_meddles_is_an_error_and_harms_nobody_else(
    root: Any, register: Any, meddle: Any, is_swallowed: bool
) -> None:
    calls = []

    def task(context: TaskContext, input: Any) -> None:
        calls.append(1)
        write(context, input)
        with suppress(Exception if is_swallowed else ()):
            meddle()
        context.service._p_jar.root()["after"] = 1

    register("meddle", task, context=True)
    register("write", write, context=True)
    root["mine"] = "before"
    bad = root["tasks"].add("meddle", "bad")
    good = root["tasks"].add("echo", "fine")
    txn = transaction.get()
    root["tasks"].process()
    assert calls == [1]
    assert transaction.get() is txn
    assert not txn.isDoomed()
    transaction.commit()
    root._p_jar.cacheMinimize()
    assert root["mine"] == "before"
    assert "written" not in root
    assert "after" not in root
    assert root["tasks"].getStatus(bad) == ERROR
    assert str(TransactionMeddled()) in root["tasks"].getError(bad)
    assert root["tasks"].getResult(good) == "fine"
    assert not root["tasks"].workers
    assert check_all(root["tasks"], 0, repair=False) == []


@pytest.mark.parametrize("misdeed", [hook for hook in ENDING if hook.__name__.startswith("hook")])
def test_hooks_of_a_job_do_not_end_the_transaction_of_its_caller(
    root: Any, register: Any, misdeed: Any
) -> None:
    register("meddle", lambda context, input: misdeed(context), context=True)
    root["tasks"].add("meddle")
    root["tasks"].process()
    root["mine"] = 1
    with pytest.raises(TransactionMeddled):
        transaction.commit()
    assert root["mine"] == 1  # and the caller has been told that it is not stored
    transaction.abort()
    assert "mine" not in root


@pytest.mark.parametrize("misdeed", [raise_fenced, change_status, change_owner])
def test_a_job_that_hides_itself_is_an_error(root: Any, register: Any, misdeed: Any) -> None:
    calls = []

    def task(context: TaskContext, input: Any) -> None:
        calls.append(context.jobid)
        write(context, input)
        misdeed(context)

    register("meddle", task, context=True, retry=RetryPolicy(attempts=1))
    jobid, other = root["tasks"].add("meddle"), root["tasks"].add("echo", "fine")
    for _ in range(3):
        root["tasks"].process()
    assert calls == [jobid]
    assert root["tasks"].getStatus(jobid) == ERROR
    assert "written" not in root
    assert root["tasks"].getResult(other) == "fine"
    assert not root["tasks"].workers


def test_the_caller_can_doom_its_own_transaction(root: Any) -> None:
    jobid = root["tasks"].add("echo", "fine")
    transaction.doom()
    root["tasks"].process()
    assert root["tasks"].getStatus(jobid) == COMPLETED


def test_the_guard_is_gone_after_the_job(root: Any) -> None:
    root["tasks"].add("echo")
    root["tasks"].process()
    assert not {"commit", "abort", "doom", "savepoint"}.intersection(vars(transaction.get()))


# -- transactions that are begun explicitly ----------------------------------------------------


@pytest.fixture
def explicit(db: ZODB.DB, register: Any) -> Iterator[Any]:
    """The root of a database with a service at *tasks*; its transactions are begun explicitly."""
    register("echo", lambda input: input)
    manager = transaction.TransactionManager(explicit=True)
    connection = db.open(manager)
    manager.begin()
    connection.root()["tasks"] = TaskService()
    manager.commit()
    yield connection.root()
    with suppress(NoTransaction):
        manager.abort()
    connection.close()


def enter(manager: Any) -> None:
    with manager:
        pass


@pytest.mark.parametrize(
    "meddle",
    [
        lambda manager: manager.commit(),
        lambda manager: manager.abort(),
        lambda manager: manager.begin(),
        lambda manager: manager.doom(),
        lambda manager: manager.free(manager.get()),
        enter,
    ],
    ids=["commit", "abort", "begin", "doom", "free", "enter"],
)
def test_a_task_that_meddles_with_an_explicit_transaction(
    explicit: Any, register: Any, meddle: Any
) -> None:
    manager = explicit._p_jar.transaction_manager
    register("write", write, context=True)
    register("meddle", lambda input: meddle(manager))
    service = explicit["tasks"]
    txn = manager.begin()
    bad = service.add("meddle")
    good = service.add("echo", "fine")
    service.process()
    assert manager.get() is txn
    manager.commit()
    manager.begin()
    explicit._p_jar.cacheMinimize()
    assert service.getStatus(bad) == ERROR
    assert str(TransactionMeddled()) in service.getError(bad)
    assert service.jobs[bad].attempt == 1
    assert service.getResult(good) == "fine"
    assert check_all(service, 0, repair=False) == []


WRITING = {
    "add": lambda service, jobid: service.add("echo"),
    "add_many": lambda service, jobid: service.add_many("echo", [1]),
    "addCronJob": lambda service, jobid: service.addCronJob("echo", minute=(5,)),
    "startJob": lambda service, jobid: service.startJob(jobid),
    "cancel": lambda service, jobid: service.cancel(jobid),
    "reschedule": lambda service, jobid: service.reschedule(jobid),
    "clean": lambda service, jobid: service.clean(),
    "remove_oldest": lambda service, jobid: service.remove_oldest(COMPLETED),
    "claimNextJob": lambda service, jobid: service.claimNextJob(),
    "processNext": lambda service, jobid: service.processNext(),
    "process": lambda service, jobid: service.process(),
    "update": lambda service, jobid: service.jobs[jobid].update(minute=(5,)),
    "setting": lambda service, jobid: setattr(service, "max_deaths", 5),
}


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("state", ["waiting", "running", "later"])
def test_where_no_transaction_was_begun_nothing_is_changed(
    explicit: Any, name: str, state: str
) -> None:
    manager = explicit._p_jar.transaction_manager
    service = explicit["tasks"]
    manager.begin()
    service.add("echo")
    service.process()
    jobid = service.addCronJob("echo", minute=(7,))
    if state == "later":
        jobid = service.add("echo", startLater=True)
    if state == "running":
        service.claimNextJob(time.time() + 4000)
    elif state == "waiting":
        service.add("echo")
    manager.commit()
    before = service.countJobs()
    if (state, name) != ("later", "update"):  # only cron jobs have that
        with pytest.raises(NoTransaction):
            WRITING[name](service, jobid)
    assert service.countJobs() == before
    assert not service.requests
    assert not service.edits
    manager.begin()
    added = service.add("echo")
    manager.commit()
    assert service.getStatus(added) == QUEUED
    assert check_all(service, 0, repair=False) == []


def test_a_service_in_no_database_needs_no_transaction(
    service: TaskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction.abort()
    monkeypatch.setattr(transaction.manager.manager, "explicit", True)
    jobid = service.add("echo", "fine")
    service.process()
    assert service.getResult(jobid) == "fine"


def test_a_job_within_a_job_has_a_guard_of_its_own(workshop: Any, register: Any) -> None:
    with workshop.transaction() as root:
        root["inner"] = TaskService()

    def outer(context: TaskContext, input: Any) -> str:
        inner = context.service._p_jar.root()["inner"]
        inner.add("inner")
        inner.process()
        return str(inner.getError(next(iter(inner.jobs))))

    register("inner", lambda input: transaction.commit())
    register("outer", outer, context=True)
    jobid = workshop.add("outer")
    assert workshop.step().status == COMPLETED
    with workshop.service() as service:
        assert service.getResult(jobid) == str(TransactionMeddled())


def test_hooks_of_a_job_that_fails_are_taken_back(root: Any, register: Any) -> None:
    called = []

    def fail(input: Any) -> None:
        transaction.get().addBeforeCommitHook(called.append, ("before",))
        transaction.get().addAfterCommitHook(lambda is_committed: called.append("after"))
        raise TaskError

    register("fail", fail)
    transaction.get().addBeforeCommitHook(called.append, ("the caller's",))
    root["tasks"].add("fail")
    root["tasks"].process()
    transaction.commit()
    assert called == ["the caller's"]


def test_an_add_after_a_failed_job_wakes_the_thread(
    root: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = []

    def fail(context: TaskContext, input: Any) -> None:
        context.service.add("echo")
        raise TaskError

    register("fail", fail, context=True)
    root["tasks"].add("fail")
    transaction.commit()
    monkeypatch.setattr(registry, "_wake", lambda is_committed, services: woken.append(services))
    root["tasks"].process()
    root["tasks"].add("echo")
    transaction.commit()
    assert len(woken) == 1


def test_a_task_that_exits_is_an_error(root: Any, register: Any) -> None:
    def leave(input: Any) -> None:
        raise SystemExit

    register("leave", leave)
    jobid = root["tasks"].add("leave")
    root["tasks"].process()
    assert root["tasks"].getStatus(jobid) == ERROR


@pytest.mark.parametrize("kind", [KeyboardInterrupt, CancelledError])
@pytest.mark.parametrize("is_claimed", [False, True])
def test_who_leaves_the_caller_leaves_the_job_as_it_was(
    root: Any, register: Any, kind: type[BaseException], is_claimed: bool
) -> None:
    def leave(input: Any) -> None:
        root["left"] = True
        raise kind

    register("leave", leave)
    service = root["tasks"]
    jobid = service.add("leave")
    transaction.commit()
    if is_claimed:
        assert service.claimNextJob() == jobid
    with pytest.raises(kind):
        service.processNext(jobid=jobid if is_claimed else None)
    transaction.commit()
    assert "left" not in root
    assert (service.getStatus(jobid), service.jobs[jobid].attempt) == (QUEUED, 0)
    assert check_all(service, time.time(), repair=False) == []
    register("leave", lambda input: None)
    service.process()
    transaction.commit()
    assert service.getStatus(jobid) == COMPLETED
    assert len(service.workers) == 0


# -- what cannot be pickled --------------------------------------------------------------------


def unpicklable() -> PersistentMapping:
    return PersistentMapping(function=lambda: None)


def return_it(context: TaskContext, input: Any) -> Any:
    return unpicklable()


def write_it(context: TaskContext, input: Any) -> None:
    context.service._p_jar.root()["written"] = unpicklable()


def write_it_deep(context: TaskContext, input: Any) -> None:
    root = context.service._p_jar.root()
    root["written"] = PersistentMapping(one=PersistentMapping(), two=unpicklable())
    root["mine"]["more"] = PersistentMapping()


def save_it(context: TaskContext, input: Any) -> None:
    write_it(context, input)
    transaction.savepoint()


def save_it_and_go_on(context: TaskContext, input: Any) -> None:
    write_it(context, input)
    with suppress(Exception):
        transaction.savepoint()
    del context.service._p_jar.root()["written"]


@pytest.mark.parametrize(
    "function", [return_it, write_it, write_it_deep, save_it, save_it_and_go_on]
)
def test_what_cannot_be_pickled_harms_nobody_else(root: Any, register: Any, function: Any) -> None:
    register("bad", function, context=True, retry=RetryPolicy(attempts=2, first_wait_seconds=0))
    root["mine"] = PersistentMapping(text="before")
    bad = root["tasks"].add("bad")
    good = root["tasks"].add("echo", "fine")
    root["tasks"].process()
    transaction.commit()
    root._p_jar.cacheMinimize()
    assert dict(root["mine"]) == {"text": "before"}
    assert "written" not in root
    assert root["tasks"].getStatus(bad) == ERROR
    assert root["tasks"].jobs[bad].attempt == 2
    assert root["tasks"].getResult(good) == "fine"
    assert check_all(root["tasks"], 0, repair=False) == []


def test_what_cannot_be_pickled_in_another_database(register: Any) -> None:
    databases: dict[str, Any] = {}
    first = ZODB.DB(DemoStorage(), databases=databases, database_name="first")
    second = ZODB.DB(DemoStorage(), databases=databases, database_name="second")
    connection = first.open()
    other = connection.get_connection("second").root()
    service = connection.root()["tasks"] = TaskService()
    other["mine"] = 1
    transaction.commit()

    def task(context: TaskContext, input: Any) -> None:
        context.service._p_jar.get_connection("second").root()["written"] = (
            unpicklable() if input == "bad" else input
        )

    register("write", task, context=True, retry=RetryPolicy(attempts=1))
    jobids = [service.add("write", input) for input in ("good", "bad")]
    service.process()
    transaction.commit()
    assert [service.getStatus(jobid) for jobid in jobids] == [COMPLETED, ERROR]
    assert other["written"] == "good"
    connection.close()
    first.close()
    second.close()


# -- data managers without savepoints ----------------------------------------------------------


class Mailer:
    """A data manager without savepoints, which joins the thread's transaction."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.waiting: list[str] = []

    def send(self, text: str) -> None:
        if not self.waiting:
            transaction.get().join(self)
        self.waiting.append(text)

    @property
    def savepoint(self) -> Any:
        raise AttributeError("savepoint")

    def abort(self, txn: Any) -> None:
        self.waiting.clear()

    def tpc_begin(self, txn: Any) -> None:
        pass

    def commit(self, txn: Any) -> None:
        pass

    def tpc_vote(self, txn: Any) -> None:
        pass

    def tpc_finish(self, txn: Any) -> None:
        self.sent += self.waiting
        self.waiting.clear()

    def tpc_abort(self, txn: Any) -> None:
        self.waiting.clear()

    def sortKey(self) -> str:
        return "mailer"


@pytest.fixture
def mailer(register: Any) -> Mailer:
    mailer = Mailer()

    def send(input: str) -> None:
        mailer.send(input)
        if input == "bad":
            raise TaskError("no")

    register("send", send)
    return mailer


def test_what_joins_in_a_job_that_fails_is_taken_back(root: Any, mailer: Mailer) -> None:
    bad, good = root["tasks"].add("send", "bad"), root["tasks"].add("send", "good")
    root["tasks"].process()
    transaction.commit()
    assert mailer.sent == ["good"]
    assert root["tasks"].getStatus(bad) == ERROR
    assert root["tasks"].getStatus(good) == COMPLETED


def test_with_a_data_manager_without_savepoints_one_job_is_run_a_call(
    root: Any, mailer: Mailer
) -> None:
    for text in "abc":
        root["tasks"].add("send", text)
    transaction.commit()
    for number in range(1, 4):
        root["tasks"].process()
        transaction.commit()
        assert mailer.sent == list("abc")[:number]


def test_a_job_whose_writes_cannot_be_taken_back_is_told(root: Any, mailer: Mailer) -> None:
    jobid = root["tasks"].add("send", "bad")
    transaction.commit()
    mailer.send("the caller's")
    with pytest.raises(CannotTakeBack) as caught:
        root["tasks"].process()
    for part in (str(jobid), "(no)", "Mailer", "abort"):
        assert part in str(caught.value)
    with pytest.raises(transaction.interfaces.DoomedTransaction):
        transaction.commit()
    transaction.abort()
    assert root["tasks"].getStatus(jobid) == QUEUED
    assert mailer.sent == []
    root["tasks"].process()
    assert root["tasks"].getStatus(jobid) == ERROR


def test_a_rollback_that_fails_is_told(root: Any, register: Any) -> None:
    class Broken(Mailer):
        def savepoint(self) -> None:
            raise NotImplementedError

        def abort(self, txn: Any) -> None:
            raise LookupError("it does not abort")

    def fail(input: Any) -> None:
        transaction.get().join(Broken())
        raise TaskError("no")

    register("fail", fail)
    jobid = root["tasks"].add("fail")
    transaction.commit()
    with pytest.raises(CannotTakeBack, match=rf"{jobid} failed \(no\).*it does not abort"):
        root["tasks"].process()
    with pytest.raises(transaction.interfaces.TransactionFailedError):
        transaction.commit()
    with suppress(LookupError):
        transaction.abort()
    assert root["tasks"].getStatus(jobid) == QUEUED


def test_what_cannot_be_taken_back_within_a_job_is_that_jobs_error(
    workshop: Any, register: Any, mailer: Mailer
) -> None:
    with workshop.transaction() as root:
        root["inner"] = TaskService()

    def outer(context: TaskContext, input: Any) -> None:
        mailer.send("first")
        inner = context.service._p_jar.root()["inner"]
        inner.add("send", "bad")
        inner.process()

    register("outer", outer, context=True, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("outer")
    assert workshop.step().status == ERROR
    with workshop.service() as service:
        assert "cannot be taken back" in service.getError(jobid)
    assert mailer.sent == []


def test_a_task_runs_in_the_site_around_the_service(db: ZODB.DB, root: Any, register: Any) -> None:
    from zope.component.hooks import getSite
    from zope.site.folder import rootFolder
    from zope.site.site import LocalSiteManager

    seen = []
    register("look", lambda input: seen.append(getSite()))
    site = rootFolder()
    site.setSiteManager(LocalSiteManager(site, default_folder=False))
    root["site"] = site
    service = site["tasks"] = TaskService()
    service.add("look")
    root["tasks"].add("look")
    service.process()
    root["tasks"].process()
    assert seen == [site, None]
    assert getSite() is None


def test_a_result_that_cannot_be_stored_harms_nobody_else(root: Any, register: Any) -> None:
    register("make", lambda input: lambda: None, retry=RetryPolicy(attempts=1))
    bad = root["tasks"].add("make")
    good = root["tasks"].add("echo", "fine")
    root["tasks"].process()
    transaction.commit()
    assert root["tasks"].getStatus(bad) == ERROR
    assert root["tasks"].getResult(good) == "fine"


# -- nothing is remembered that did not come to pass ---------------------------------------------


def _aborted(service: TaskService, work: Any) -> None:
    work(service)
    transaction.abort()


def _rolled_back(service: TaskService, work: Any) -> None:
    point = transaction.savepoint()
    work(service)
    point.rollback()


def _rolled_back_after_a_savepoint(service: TaskService, work: Any) -> None:
    point = transaction.savepoint()
    work(service)
    transaction.savepoint()
    work(service)
    point.rollback()
    transaction.commit()


def _aborted_after_a_savepoint(service: TaskService, work: Any) -> None:
    work(service)
    transaction.savepoint()
    work(service)
    transaction.abort()


WORKS: list[Any] = [
    lambda service: service.process(),
    lambda service: service.processNext(),
    lambda service: service.claimNextJob(),
    lambda service: service.hasJobsWaiting(),
    lambda service: [service.cancel(jobid) for jobid in list(service.jobs)],
    lambda service: service.add_many("echo", range(300)),
    lambda service: (service.add_many("echo", range(300)), service.process()),
]


@pytest.mark.parametrize("first", WORKS)
@pytest.mark.parametrize("second", WORKS)
@pytest.mark.parametrize(
    "undone", [_aborted, _rolled_back, _rolled_back_after_a_savepoint, _aborted_after_a_savepoint]
)
def test_what_is_undone_hides_no_job(root: Any, undone: Any, first: Any, second: Any) -> None:
    service = root["tasks"]
    jobids = [*service.add_many("echo", range(40)), *(service.add("echo", 1) for _ in range(40))]
    transaction.commit()
    undone(service, first)
    undone(service, second)
    jobids.append(service.add("echo", 1))  # into a segment of its own, maybe
    transaction.commit()
    assert service.countJobs()[QUEUED] == len(jobids)
    service.process()
    transaction.commit()
    assert service.countJobs()[COMPLETED] == len(jobids)
    assert service.countJobs()[QUEUED] == 0
    assert all(service.getStatus(jobid) == COMPLETED for jobid in jobids)
    assert check_all(service, 4e9, repair=False) == []


def test_a_schedule_is_counted_anew_although_a_look_at_the_clock_was_undone(root: Any) -> None:
    service = root["tasks"]
    jobid = service.addCronJob("echo", minute=(0,))
    now = service.jobs[jobid].created_at
    transaction.commit()
    ahead = now + 400 * 86_400.0
    service.queue.reschedule(service.jobs[jobid], ahead)
    transaction.commit()
    service.process(now)
    assert service.jobs[jobid].due < now + 4000
    transaction.abort()
    assert service.jobs[jobid].due > ahead
    service.process(now)
    transaction.commit()
    assert service.jobs[jobid].due < now + 4000
