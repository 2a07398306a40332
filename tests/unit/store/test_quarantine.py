# SPDX-License-Identifier: ZPL-2.1
"""Jobs whose records cannot be read or written here wait quarantine, and keep nobody waiting."""

from __future__ import annotations

import enum
import gc
import logging
import math
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError
from ZODB.mvccadapter import MVCCAdapterInstance
from ZODB.POSException import ConflictError, POSError, StorageError
from zope.component import getGlobalSiteManager

from lovely.remotetask.base.storable import why_unstorable
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.engine.retention import prune
from lovely.remotetask.errors import InvalidInput, JobNotFound, JobUnusable, TaskError
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    PROCESSING,
    QUEUED,
    STARTLATER,
    ICronJob,
    ITask,
)
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store import memory, quarantine
from lovely.remotetask.store.check import check_all, check_jobs
from lovely.remotetask.store.lots import AWAITING

APP = "app_of_the_tests"


class Code:
    """The module of an application, whose classes come and go."""

    def __init__(self, db: ZODB.DB, monkeypatch: pytest.MonkeyPatch) -> None:
        self._db = db
        self._monkeypatch = monkeypatch
        self.module = types.ModuleType(APP)
        monkeypatch.setitem(sys.modules, APP, self.module)
        here = {"__module__": APP}
        self.names: dict[str, Any] = {
            "Order": type("Order", (), dict(here)),
            "Kept": type("Kept", (Persistent,), dict(here)),
            "Bad": type("Bad", (Exception,), dict(here)),
            "Kind": enum.Enum("Kind", {"A": 1}, module=APP),
            "total": types.FunctionType((lambda x: x).__code__, {"__name__": APP}, "total"),
        }
        self.names["total"].__qualname__ = "total"
        self.come()

    def come(self) -> None:
        vars(self.module).update(self.names)
        self._forget()

    def go(self) -> None:
        for name in self.names:
            delattr(self.module, name)
        self._forget()

    def _forget(self) -> None:
        # As another process, or a minute later.
        self._monkeypatch.setattr(quarantine, "_quarantine", WeakKeyDictionary())
        self._monkeypatch.setattr(memory, "MEMORY_SECONDS", 0.0)
        self._db.cacheMinimize()
        gc.collect()


@pytest.fixture
def code(db: ZODB.DB, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    code = Code(db, monkeypatch)
    yield code
    db.cacheMinimize()


OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "an instance": lambda app: {"input": app.Order()},
    "one in a list": lambda app: {"input": [{"order": app.Order()}]},
    "a class": lambda app: {"input": app.Order},
    "a function": lambda app: {"input": app.total},
    "an enum": lambda app: {"input": app.Kind.A},
    "a persistent object": lambda app: {"input": app.Kept()},
    "a retry policy": lambda app: {"retry": RetryPolicy(retry_on=(app.Bad,))},
}


@pytest.fixture
def add(workshop: Any, code: Code) -> Callable[..., int]:
    """Return ``add(where, kind)``, which adds a job that needs the application's code."""

    def add(where: str = QUEUED, kind: str = "an instance", task: str = "ignore") -> int:
        with workshop.service() as service:
            options = OPTIONS[kind](code.module)
            if where == CRONJOB:
                return int(service.addCronJob(task, minute=(0,), **options))
            if where == DELAYED:
                return int(service.addCronJob(task, delay=0, **options))
            return int(service.add(task, startLater=where == STARTLATER, **options))

    return add


@pytest.fixture(autouse=True)
def _tasks(workshop: Any, register: Any) -> None:
    def crash(input: Any) -> None:
        raise RuntimeError("try again")

    register("ignore", lambda input: None)
    register("crash", crash, retry=RetryPolicy(first_wait_seconds=0))
    register("share", lambda input: None, shared_commit=True)

    def stop_waiting() -> None:  # one that waits for a record to be mended
        workshop.is_stopping = len(workshop.pauses) > 20

    workshop.while_pausing = stop_waiting


@pytest.mark.parametrize("where", [QUEUED, DELAYED, CRONJOB])
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_job_waits_aside_until_its_code_is_there(
    workshop: Any, code: Code, add: Any, where: str, kind: str
) -> None:
    jobid = add(where, kind)
    others = [workshop.add("echo", 1), workshop.add_cron_job("echo", delay=0)]
    with workshop.service() as service:
        counts = service.countJobs()
    code.go()
    workshop.now += 7200.0
    assert sorted(workshop.work()) == sorted(others)
    assert workshop.get(jobid, "status", "attempt") == (where, 0)
    with workshop.service() as service:
        assert service.countJobs()[where] == counts[where] - (where in (QUEUED, DELAYED))
    code.come()
    assert workshop.work() == [jobid]


@pytest.mark.parametrize("where", [QUEUED, DELAYED, CRONJOB])
@pytest.mark.parametrize("was_read", [False, True])
def test_the_inline_form_passes_over_it(
    workshop: Any, code: Code, add: Any, where: str, was_read: bool
) -> None:
    jobid = add(where)
    other = workshop.add("echo", 1)
    code.go()
    with workshop.service() as service:
        if was_read:
            assert service.getStatus(jobid) == where
        service.process(workshop.now + 7200.0)
        assert not service.hasJobsWaiting(workshop.now + 7200.0)
    assert workshop.get(other, "status") == COMPLETED
    assert workshop.get(jobid, "status", "attempt") == (where, 0)


def test_a_retry_waits_aside_too(workshop: Any, code: Code, add: Any) -> None:
    jobid = add(task="crash")
    workshop.step()
    code.go()
    other = workshop.add("echo")
    assert workshop.work() == [other]
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 1)


def test_a_last_result_counts(workshop: Any, code: Code, register: Any) -> None:
    register("order", lambda input: code.module.Order())
    jobid = workshop.add_cron_job("order", minute=(0,))
    workshop.now += 3600.0
    workshop.work()
    code.go()
    workshop.now += 3600.0
    other = workshop.add("echo")
    assert workshop.work() == [other]
    assert workshop.get(jobid, "status", "attempt") == (CRONJOB, 1)


def test_a_job_of_an_unknown_task_is_not_parked_with_it(
    workshop: Any, code: Code, add: Any, register: Any
) -> None:
    jobid = add()
    code.go()
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="ignore")
    workshop.work()
    assert isinstance(workshop.get(jobid, "place"), int)


def test_it_is_not_reserved_either(workshop: Any, code: Code, add: Any) -> None:
    add(task="share")
    other = workshop.add("share")
    code.go()
    assert [claim.jobid for claim in workshop.reserve()] == [other]


def test_it_is_logged_once(
    workshop: Any, code: Code, add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobid = add()
    code.go()
    now = time.monotonic()
    with caplog.at_level(logging.WARNING, "remotetask.job"), pytest.MonkeyPatch.context() as patch:
        for later in (0.0, 61.0, 200.0, 4000.0):
            patch.setattr(time, "monotonic", lambda later=later: now + later)
            workshop.work()
    assert caplog.messages == [
        f"job {jobid}: its record cannot be written: there is no {APP}.Order here; "
        "it is passed over"
    ]


def test_two_that_meet_it_at_the_same_time_log_it_once(
    workshop: Any, code: Code, add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class MeetIt(logging.Handler):
        """While one logs it, another one finds it."""

        def emit(self, record: logging.LogRecord) -> None:
            if len(caplog.messages) < 5:
                with workshop.db.transaction() as connection:
                    assert connection.root()["tasks"].hasJobsWaiting() is False

    add()
    code.go()
    log = logging.getLogger("remotetask.job")
    handler = MeetIt()
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.WARNING, "remotetask.job"):
            workshop.work()
    finally:
        log.removeHandler(handler)
    assert len(caplog.messages) == 1


def test_hundreds_of_them_hide_nobody(workshop: Any, code: Code) -> None:
    with workshop.service() as service:
        hidden = service.add_many("ignore", [code.module.Order() for _ in range(300)])
    others = [workshop.add("echo") for _ in range(3)]
    code.go()
    assert workshop.work() == others
    with workshop.service() as service:
        assert service.countJobs()[QUEUED] == 300
        problems = check_all(service, workshop.now, repair=True)
        assert {problem.jobid for problem in problems} == set(hidden)
    code.come()
    assert sorted(workshop.work()) == sorted(hidden)


@pytest.mark.parametrize("where", [QUEUED, DELAYED])
def test_one_that_is_no_longer_in_the_cache_is_loaded_now_and_then(
    workshop: Any, code: Code, add: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = add(where)
    oid = workshop.get(jobid, "_p_oid")
    code.go()
    workshop.now += 10.0
    assert workshop.work() == []
    workshop.db.cacheMinimize()
    assert workshop.work() == []
    assert workshop.session.connection.get(oid)._p_changed is None
    monkeypatch.setattr(quarantine, "LOAD_SECONDS", 0.0)
    assert workshop.work() == []
    assert workshop.session.connection.get(oid)._p_changed is False
    with workshop.service() as service:  # as who has the code can
        service.jobs[jobid].input = None
    assert workshop.work() == [jobid]


def test_a_segment_with_one_of_them_is_not_closed(workshop: Any, code: Code, add: Any) -> None:
    jobid = add()
    others = [workshop.add("echo") for _ in range(40)]
    code.go()
    memory.MEMORY_SECONDS = 60.0
    for _ in range(3):
        workshop.work()
    assert {workshop.get(other, "status") for other in others} == {COMPLETED}
    with workshop.service() as service:
        assert service.queue.stands_by(service.jobs[jobid])


def test_an_idle_worker_does_not_turn_around_one_that_is_due(
    workshop: Any, code: Code, add: Any
) -> None:
    add(DELAYED)
    code.go()
    later = workshop.add_cron_job("echo", delay=500)
    workshop.now += 100.0
    assert workshop.claim() == []
    assert workshop.engine.news.next_due(workshop.session) == workshop.get(later, "due")


def test_users_are_told(workshop: Any, code: Code, add: Any) -> None:
    queued, later, cron = add(), add(STARTLATER), add(CRONJOB)
    code.go()
    for act, jobid in (("cancel", queued), ("startJob", later), ("reschedule", cron)):
        with workshop.service() as service, pytest.raises(JobUnusable, match="there is no"):
            getattr(service, act)(jobid)
    assert workshop.get(queued, "status") == QUEUED
    assert workshop.get(later, "status") == STARTLATER
    with workshop.service() as service:  # what is left to do
        del service.jobs[queued]
        check_all(service, workshop.now, repair=True)
        assert queued not in service.jobs
        assert service.countJobs()[QUEUED] == 0


def test_a_check_names_it_and_leaves_it(workshop: Any, code: Code, add: Any) -> None:
    jobids = [add(where) for where in (QUEUED, DELAYED, CRONJOB, STARTLATER)]
    code.go()
    for repair in (False, True, False):
        with workshop.service() as service:
            problems = check_all(service, workshop.now, repair)
        assert sorted(p.jobid for p in problems) == sorted(jobids)
        assert not any(problem.is_mendable for problem in problems)
        assert all(f"there is no {APP}.Order" in problem.text for problem in problems)
    code.come()
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


@pytest.mark.parametrize("is_reserved", [False, True])
def test_the_rescue_frees_the_others(
    workshop: Any, code: Code, add: Any, is_reserved: bool
) -> None:
    task = "share" if is_reserved else "ignore"
    jobid = add(task=task)
    other = workshop.add(task)
    dead = workshop.new_engine()
    claims = dead.claims.claim(workshop.session, 10, may_reserve=is_reserved)
    assert [claim.jobid for claim in claims] == [jobid, other]
    code.go()
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    assert workshop.work() == [other]
    assert workshop.get(jobid, "status") == (QUEUED if is_reserved else PROCESSING)
    with workshop.service() as service:
        assert service.workers[dead.claims.identity.id].held == (jobid,)
    before = workshop.last_transaction()
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    assert workshop.last_transaction() == before
    code.come()
    workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    workshop.now += 10.0
    assert jobid in workshop.work()
    with workshop.service() as service:
        assert dead.claims.identity.id not in service.workers


def test_an_ended_job_with_a_lost_result_is_filed_and_removed(
    workshop: Any, code: Code, register: Any
) -> None:
    register("order", lambda input: code.module.Order())
    jobid = workshop.add("order")
    workshop.step()
    code.go()
    with workshop.service() as service:
        assert rescue(service, workshop.engine.claims.identity.id, workshop.now) == 0
        assert service.countJobs()[COMPLETED] == 1
        assert check_all(service, workshop.now, repair=False) == []
        service.clean()
        assert jobid not in service.jobs


@pytest.fixture
def classify(workshop: Any, code: Code, register: Any) -> None:
    """The task *classify*, whose result cannot be written where the code is gone.

    It edits the schedule that its input names.
    """

    def classify(input: Any) -> Any:
        if input is not None:
            with workshop.service() as service:
                (job,) = filter(ICronJob.providedBy, service.jobs.values())
                job.update(**input)
        return code.module.Order

    register("classify", classify)


def test_ended_jobs_whose_results_cannot_be_written_are_cleaned(
    workshop: Any, code: Code, classify: None
) -> None:
    filed, ended = workshop.add("classify"), workshop.add("classify")
    workshop.step()
    workshop.step()  # files the first one
    code.go()
    with workshop.service() as service:
        service.clean()
    with workshop.service() as service:
        assert filed not in service.jobs
        assert service.getStatus(ended) == COMPLETED
    code.come()
    workshop.work()
    with workshop.service() as service:
        service.clean()
        assert len(service.jobs) == 0


def test_one_that_was_not_filed_is_repaired(workshop: Any, code: Code, classify: None) -> None:
    jobid = workshop.add("classify")
    workshop.work()
    with workshop.service() as service:
        service.queue.indexes[COMPLETED].remove(*service.queue.entry_of(service.jobs[jobid]))
    code.go()
    with workshop.service() as service:
        assert len(check_all(service, workshop.now, repair=True)) == 1
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def test_one_that_would_go_on_by_an_edit_waits_for_who_can_write_it(
    workshop: Any, code: Code, classify: None
) -> None:
    with workshop.service() as service:
        jobid = service.addCronJob("classify", {"minute": (0,)}, delay=0)
        other = service.add("echo")
    dead = workshop.engine.claims.identity.id
    for claim in workshop.claim(2):
        if claim.jobid == jobid:
            workshop.run(claim)
    code.go()
    workshop.new_engine().upkeep.free(workshop.session, [dead])
    assert workshop.get(other, "status") == QUEUED
    assert workshop.get(jobid, "status") == COMPLETED
    code.come()
    workshop.new_engine().upkeep.free(workshop.session, [dead])
    assert workshop.get(jobid, "status", "minute") == (CRONJOB, (0,))
    with workshop.service() as service:
        assert len(service.workers) == 0


def test_the_rescue_leaves_a_job_whose_edit_cannot_be_written(workshop: Any, code: Code) -> None:
    with workshop.service() as service:
        jobid = service.ensure("hourly", "echo", minute=(0,))
    other = workshop.add("echo")
    workshop.now = workshop.get(jobid, "due")
    dead = workshop.engine.claims.identity.id
    assert {claim.jobid for claim in workshop.claim(2)} == {jobid, other}
    with workshop.service() as service:
        service.ensure("hourly", "echo", code.module.Order(), minute=(30,))
    code.go()
    workshop.new_engine().upkeep.free(workshop.session, [dead])
    assert workshop.get(other, "status") == QUEUED
    assert workshop.get(jobid, "status", "minute") == (PROCESSING, (0,))
    with workshop.service() as service:
        assert service.workers[dead].held == (jobid,)
    code.come()
    workshop.new_engine().upkeep.free(workshop.session, [dead])
    assert workshop.get(jobid, "status", "minute") == (CRONJOB, (30,))
    assert isinstance(workshop.get(jobid, "input"), code.module.Order)
    with workshop.service() as service:
        assert (len(service.workers), len(service.edits)) == (0, 0)


def test_what_is_broken_is_not_added_anew(workshop: Any, code: Code, add: Any) -> None:
    jobid = add()
    code.go()
    with workshop.service() as service, pytest.raises(InvalidInput, match="there is no"):
        service.add("ignore", service.jobs[jobid].input)


@pytest.mark.parametrize(
    "fields",
    [{"minute": "Zero"}, {"cron": "Text.HOURLY"}, {"minute": (0,), "timezone": "Text.UTC"}],
)
@pytest.mark.parametrize("is_edit", [False, True])
def test_names_and_schedules_do_not_depend_on_the_enums_that_they_were_given_as(
    workshop: Any, code: Code, register: Any, fields: dict[str, Any], is_edit: bool
) -> None:
    class Text(str, enum.Enum):
        ECHO = "echo"
        LATER = "later"
        HOURLY = "@hourly"
        UTC = "Etc/UTC"

    code.names["Text"] = Text
    Text.__module__, Text.__qualname__ = APP, "Text"
    code.names["Number"] = enum.IntEnum("Number", {"ZERO": 0}, module=APP)
    code.come()
    given = dict(fields)
    if given.get("minute") == "Zero":
        given["minute"] = (code.names["Number"].ZERO,)
    for name, value in given.items():
        if isinstance(value, str):
            given[name] = Text[value.removeprefix("Text.")]
    with workshop.service() as service:
        register("later", lambda input: input)
        waiting = service.add(Text.LATER)
        getGlobalSiteManager().unregisterUtility(provided=ITask, name="later")
        cron = service.addCronJob(Text.ECHO, **({"delay": 0} if is_edit else given))
    if is_edit:
        workshop.now += 1.0
        for claim in workshop.claim():
            with workshop.service() as service:
                service.jobs[cron].update(**given)
            workshop.run(claim)
    assert workshop.work() == []  # parks the other one
    code.go()
    workshop.now += 7200.0
    assert workshop.work() == [cron]
    register("later", lambda input: input)
    assert workshop.work() == [waiting]


def test_progress_depends_on_no_class_of_the_application(
    workshop: Any, code: Code, register: Any
) -> None:
    class Number(float):
        pass

    Number.__module__, Number.__qualname__ = APP, "Number"
    code.names["Number"] = Number
    code.come()
    register("tell", lambda context, input: context.progress(Number(1), Number(2)), context=True)
    workshop.add("tell")
    workshop.step()
    with workshop.service() as service:
        (note,) = service.progress.values()
    assert [type(value) for value in note] == [float, float, str]


def test_the_memory_of_a_job_goes_when_nobody_asks_for_it_any_more(
    workshop: Any, code: Code, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid, other = add(), add()
    code.go()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(quarantine, "_dropped", -math.inf)
    assert workshop.claim() == []
    entries = quarantine._quarantine[workshop.db]
    assert len(entries) == 2
    with workshop.service() as service:
        del service.jobs[jobid]
    for _ in range(10):  # the other one is looked at again and again
        now += quarantine.LAST_WAIT_SECONDS + memory.MEMORY_SECONDS + 1
        assert workshop.claim() == []
    with workshop.service() as service:
        assert [*entries] == [service.jobs[other]._p_oid]


def test_the_memory_goes_with_the_database() -> None:
    assert isinstance(quarantine._quarantine, WeakKeyDictionary)


def test_plain_values_are_not_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lovely.remotetask.base.storable._pickled", None)
    assert why_unstorable([1, "a", None, (1, "b"), frozenset({2.0})]) is None


# -- whose fault it is -----------------------------------------------------------------------------


class Picky:
    """An input that can be stored, and not be loaded while there is something to raise."""

    raises: BaseException | None = None

    def __getstate__(self) -> int:
        return 1

    def __setstate__(self, state: int) -> None:
        if Picky.raises is not None:
            raise Picky.raises from KeyError("of the cause")


@pytest.mark.parametrize(
    "raised",
    [
        *(ValueError("no"), OSError("no"), RuntimeError("no"), SystemExit("no")),
        *(StorageError("no"), TransientError("no"), ConflictError("no")),
    ],
    ids=repr,
)
def test_what_the_code_of_a_record_raises_sets_it_aside(
    workshop: Any, code: Code, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    jobid = workshop.add("ignore", Picky())
    other = workshop.add("ignore")
    code._forget()
    monkeypatch.setattr(Picky, "raises", raised)
    assert workshop.work() == [other]
    with workshop.service() as service:
        reason = quarantine.why_unreadable(service.jobs[jobid], jobid)
    assert reason == "its record cannot be read: no"
    monkeypatch.setattr(Picky, "raises", None)
    code._forget()
    assert workshop.work() == [jobid]


class Curious:
    """An input that looks at a persistent object when it is loaded."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        len(self.other)


class AdapterError(Exception):
    """What an adapter of a database raises has no kind in common with others."""


storage_faults = pytest.mark.parametrize(
    "raised",
    [OSError("no"), StorageError("no"), TransientError("no"), AdapterError("no")],
    ids=repr,
)


@storage_faults
def test_a_fault_of_the_storage_stays_what_it_is(
    workshop: Any, code: Code, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise raised

    jobid = workshop.add("ignore")
    code._forget()
    with workshop.service() as service:
        job = service.jobs[jobid]
        with monkeypatch.context() as patch:
            patch.setattr(MVCCAdapterInstance, "load", fail)
            with pytest.raises(type(raised), match="no"):
                quarantine.why_unreadable(job, jobid)
        assert quarantine.why_unreadable(job, jobid) is None
    assert not quarantine._quarantine


@storage_faults
def test_nor_does_one_that_comes_while_the_code_of_a_record_loads_something_else(
    workshop: Any, code: Code, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    load = MVCCAdapterInstance.load
    with workshop.transaction() as root:
        root["other"] = PersistentMapping()
    with workshop.transaction() as root:
        oid = root["other"]._p_oid
        jobid = root["tasks"].add("ignore", Curious(root["other"]))

    def fail(storage: Any, asked: bytes) -> Any:
        if asked == oid:
            raise raised
        return load(storage, asked)

    code._forget()
    with workshop.service() as service:
        job = service.jobs[jobid]
        with monkeypatch.context() as patch:
            patch.setattr(MVCCAdapterInstance, "load", fail)
            with pytest.raises((type(raised), POSError)):  # since 6.4 it is a StateLoadError
                quarantine.why_unreadable(job, jobid)
        assert quarantine.why_unreadable(job, jobid) is None
    assert not quarantine._quarantine


# -- what comes to those that wait for something -------------------------------------------------


def go_on_inline(workshop: Any) -> None:
    with workshop.service() as service:
        service.process(workshop.now)


def go_on_in_a_worker(workshop: Any) -> None:
    workshop.work()


GOING_ON = [go_on_inline, go_on_in_a_worker]


def add_at_gate(workshop: Any, kind: str, *inputs: Any) -> list[int]:
    """Add jobs that run one at a time: because of a lock, or of a limit."""
    with workshop.service() as service:
        if kind == "limit":
            service.limits = {"ignore": 1}
        lock = "desk" if kind == "lock" else None
        return [service.add("ignore", input, lock=lock) for input in inputs]


def signals(workshop: Any) -> list[bytes]:
    with workshop.service() as service:
        for signal in service.queue.signals:
            signal._p_activate()
        return [signal._p_serial for signal in service.queue.signals]


def has_waiting(workshop: Any) -> bool:
    with workshop.service() as service:
        return bool(service.hasJobsWaiting(workshop.now))


def check_clean(workshop: Any) -> None:
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        gates, told = service.queue.gates, service.queue.words
        assert gates is None or not (gates.idle or list(gates.slots) or list(gates.lots))
        assert told is None or not list(told)


@pytest.mark.parametrize("kind", ["lock", "limit"])
@pytest.mark.parametrize("go_on", GOING_ON)
def test_a_slot_that_nobody_here_can_take_is_left_to_who_can(
    workshop: Any, code: Code, kind: str, go_on: Any
) -> None:
    add_at_gate(workshop, kind, None)
    [claim] = workshop.claim()
    waiting = add_at_gate(workshop, kind, code.module.Order(), code.module.Order())
    assert workshop.claim() == []
    code.go()
    before = signals(workshop)
    workshop.run(claim)
    assert workshop.claim() == []
    assert signals(workshop) != before  # who has the code is woken
    before = workshop.last_transaction()
    go_on(workshop)
    assert workshop.claim() == []
    assert not has_waiting(workshop)
    assert workshop.last_transaction() == before  # who has not does not turn around
    code.come()
    assert has_waiting(workshop)
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
    go_on(workshop)
    assert [workshop.get(jobid, "status") for jobid in waiting] == [COMPLETED, COMPLETED]
    workshop.claim()
    check_clean(workshop)


@pytest.mark.parametrize("kind", ["lock", "limit"])
def test_a_slot_that_was_left_is_given_once_and_in_order(
    workshop: Any, code: Code, kind: str
) -> None:
    add_at_gate(workshop, kind, None)
    [claim] = workshop.claim()
    orders = add_at_gate(workshop, kind, code.module.Order(), code.module.Order())
    [other] = add_at_gate(workshop, kind, None)
    assert workshop.claim() == []
    code.go()
    workshop.run(claim)
    assert workshop.work() == [other]  # it is kept waiting by nobody
    late = add_at_gate(workshop, kind, None)
    code.come()
    beside = workshop.new_engine()
    for jobid in (*orders, *late):
        [claim] = workshop.claim(10)
        assert claim.jobid == jobid
        assert beside.claims.claim(workshop.session, 10) == []
        workshop.run(claim)
    workshop.claim()
    check_clean(workshop)


def leave_slot(workshop: Any, code: Code) -> int:
    """Let a slot be left where the one that waits for it cannot be used; return that one's id."""
    add_at_gate(workshop, "lock", None)
    [claim] = workshop.claim()
    [order] = add_at_gate(workshop, "lock", code.module.Order())
    assert workshop.claim() == []
    code.go()
    workshop.run(claim)
    assert workshop.claim() == []
    jobid: int = order
    return jobid


def test_a_slot_is_not_given_while_somebody_has_it_who_came_after_it_was_left(
    workshop: Any, code: Code
) -> None:
    order = leave_slot(workshop, code)
    [late] = add_at_gate(workshop, "lock", None)
    [claim] = workshop.claim()
    assert claim.jobid == late
    code.come()
    assert not has_waiting(workshop)
    assert workshop.new_engine().claims.claim(workshop.session, 10) == []
    workshop.run(claim)
    assert workshop.work() == [order]
    check_clean(workshop)


def test_of_who_gives_a_slot_that_was_left_and_who_takes_it_one_commits(
    workshop: Any, code: Code
) -> None:
    order = leave_slot(workshop, code)
    [late] = add_at_gate(workshop, "lock", None)
    with pytest.raises(ConflictError), workshop.service() as service:  # noqa: PT012
        assert service.claimNextJob(workshop.now) == late
        code.come()
        [claim] = workshop.claim()
        assert claim.jobid == order


def test_what_is_given_back_goes_before_those_that_cannot_be_used_here(
    workshop: Any, code: Code
) -> None:
    [first] = add_at_gate(workshop, "lock", None)
    claims = workshop.claim()
    [order] = add_at_gate(workshop, "lock", code.module.Order())
    assert workshop.claim() == []
    code.go()
    workshop.engine.claims.give_back(workshop.session, claims)
    code.come()
    assert workshop.work() == [first, order]
    check_clean(workshop)


def test_a_slot_is_left_at_once_by_a_worker_that_has_more_in_hand(
    workshop: Any, code: Code
) -> None:
    add_at_gate(workshop, "lock", None)
    other = workshop.add("echo")
    claims = {claim.jobid: claim for claim in workshop.claim(10)}
    [order] = add_at_gate(workshop, "lock", code.module.Order())
    assert workshop.claim() == []
    code.go()
    last = claims.pop(other)
    [first] = claims.values()
    workshop.run(first)
    code.come()
    [claim] = workshop.new_engine().claims.claim(workshop.session, 10)
    assert claim.jobid == order
    workshop.run(last)


def test_a_slot_that_was_left_is_forgotten_when_nobody_waits_for_it(
    workshop: Any, code: Code
) -> None:
    order = leave_slot(workshop, code)
    code.come()
    with workshop.service() as service:
        service.cancel(order)
    assert workshop.claim() == []
    check_clean(workshop)


@pytest.mark.parametrize("go_on", GOING_ON)
@pytest.mark.parametrize("is_gone", [False, True])
def test_one_that_waits_for_another_is_told_of_its_end_by_who_can_write_it(
    workshop: Any, code: Code, go_on: Any, is_gone: bool
) -> None:
    first, other = workshop.add("ignore"), workshop.add("ignore")
    with workshop.service() as service:
        both = service.add("ignore", code.module.Order(), after=[first, other])
        order = service.add("ignore", code.module.Order(), after=first)
        plain = service.add("ignore", after=first)
    [claim] = workshop.claim()
    assert claim.jobid == first
    code.go()
    before = signals(workshop)
    workshop.run(claim)
    [claim] = workshop.claim()
    assert signals(workshop) != before  # who has the code is woken
    workshop.run(claim)
    go_on(workshop)
    assert workshop.get(plain, "status") == COMPLETED
    assert workshop.claim() == []
    before = workshop.last_transaction()
    assert workshop.claim() == []
    assert not has_waiting(workshop)
    assert workshop.last_transaction() == before
    if is_gone:  # it was completed all the same
        with workshop.service() as service:
            service.clean(COMPLETED)
            assert first not in service.jobs
    code.come()
    assert has_waiting(workshop)
    if not is_gone:
        with workshop.service() as service:
            assert check_all(service, workshop.now, repair=False) == []
    go_on(workshop)
    assert [workshop.get(jobid, "status") for jobid in (order, both)] == [COMPLETED, COMPLETED]
    workshop.claim()
    check_clean(workshop)


@pytest.mark.parametrize("go_on", GOING_ON)
def test_one_that_waits_for_another_in_vain_fails_where_it_can_be_written(
    workshop: Any, code: Code, register: Any, go_on: Any
) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no")

    register("fail", fail)
    with workshop.service() as service:
        first = service.add("fail")
        order = service.add("ignore", code.module.Order(), after=first)
        last = service.add("ignore", after=order)
    code.go()
    go_on(workshop)
    go_on(workshop)
    assert workshop.get(first, "status") == ERROR
    assert [workshop.get(jobid, "status") for jobid in (order, last)] == [QUEUED, QUEUED]
    code.come()
    go_on(workshop)
    assert [workshop.get(jobid, "status") for jobid in (order, last)] == [ERROR, ERROR]
    assert f"job {first}, task fail, which was to be completed first" in workshop.get(
        order, "error"
    )
    check_clean(workshop)


def test_one_that_was_cancelled_meanwhile_is_not_told(workshop: Any, code: Code) -> None:
    first = workshop.add("ignore")
    with workshop.service() as service:
        orders = [service.add("ignore", code.module.Order(), after=first) for _ in range(2)]
    code.go()
    assert workshop.work() == [first]
    code.come()
    with workshop.service() as service:
        service.cancel(orders[0])
        del service.jobs[orders[1]]
        service.queue.parked[AWAITING].remove(*list(service.queue.parked[AWAITING])[-1])
    assert workshop.work() == []
    assert workshop.get(orders[0], "status") == CANCELLED
    check_clean(workshop)


def test_word_that_is_lost_keeps_nobody_waiting(workshop: Any, code: Code) -> None:
    first = workshop.add("ignore")
    with workshop.service() as service:
        order = service.add("ignore", code.module.Order(), after=first)
    code.go()
    assert workshop.work() == [first]
    with workshop.service() as service:
        [part] = service.queue.words.pages.entries.values()
        lost = part._p_oid
    del workshop.db.storage.changes._data[lost]
    code.come()
    with workshop.service() as service:
        texts = [problem.text for problem in check_all(service, workshop.now, repair=True)]
    assert "the list of what jobs could not be told lacks 1 of its records" in texts
    assert f"it waits for job {first}, which is completed" in texts
    assert workshop.work() == [order]


@pytest.mark.parametrize("go_on", GOING_ON)
def test_what_ends_a_group_runs_where_it_can_be_written(
    workshop: Any, code: Code, go_on: Any
) -> None:
    with workshop.service() as service:
        groupid = service.add_group("ignore", [1, 2], ("ignore", code.module.Order()))
    code.go()
    go_on(workshop)
    assert workshop.claim() == []
    before = workshop.last_transaction()
    assert workshop.claim() == []
    assert workshop.last_transaction() == before
    code.come()
    with workshop.service() as service:
        assert service.group(groupid).is_ended
        assert check_all(service, workshop.now, repair=False) == []
    go_on(workshop)
    assert workshop.get(groupid, "status") == COMPLETED
    workshop.claim()
    check_clean(workshop)


@pytest.mark.parametrize("is_group", [False, True])
def test_one_that_waits_is_told_where_it_can_be_read(
    workshop: Any, code: Code, monkeypatch: pytest.MonkeyPatch, is_group: bool
) -> None:
    with workshop.service() as service:
        if is_group:
            jobid = service.add_group("ignore", [1, 2], ("ignore", Picky()))
        else:
            jobid = service.add("ignore", Picky(), after=service.add("ignore"))
    code._forget()
    monkeypatch.setattr(Picky, "raises", ValueError("no"))
    assert len(workshop.work()) == 1 + is_group
    monkeypatch.setattr(Picky, "raises", None)
    code._forget()
    assert workshop.work() == [jobid]
    check_clean(workshop)


# -- records that are not there ------------------------------------------------------------------


@pytest.fixture
def lose(workshop: Any, code: Code) -> Callable[[int], None]:
    """Return ``lose(jobid)``, which takes a record out of the storage."""

    def lose(jobid: int) -> None:
        oid = workshop.get(jobid, "_p_oid")
        del workshop.db.storage.changes._data[oid]
        code._forget()

    return lose


@pytest.mark.parametrize("where", [QUEUED, DELAYED, CRONJOB])
@pytest.mark.parametrize("inline", [False, True])
def test_a_missing_record_stops_nobody(
    workshop: Any, add: Any, lose: Any, where: str, inline: bool
) -> None:
    lost = add(where)
    other = workshop.add("echo")
    lose(lost)
    workshop.now += 7200.0
    if inline:
        with workshop.service() as service:
            service.process(workshop.now)
    else:
        workshop.work()
    assert workshop.get(other, "status") == COMPLETED


def test_a_missing_record_is_named_and_taken_out(workshop: Any, add: Any, lose: Any) -> None:
    lost = [add(where) for where in (QUEUED, DELAYED, STARTLATER)]
    for jobid in lost:
        lose(jobid)
    with workshop.service() as service:
        found = check_all(service, workshop.now, repair=False)
        assert {(p.jobid, p.text) for p in found} == {(i, "its record is missing") for i in lost}
        assert all(problem.is_mendable for problem in found)
        service.countJobs()
        service.cancel(lost[0])  # as for any id that no job has
        for act in (service.getStatus, service.startJob, service.getResult):
            with pytest.raises(JobNotFound):
                act(lost[0])
    with workshop.service() as service:  # the maintenance leaves it to people
        problems, _ = check_jobs(service, workshop.now, repair=True)
        assert not any(problem.is_mendable for problem in problems)
        assert lost[0] in service.jobs
    with workshop.service() as service:
        check_all(service, workshop.now, repair=True)
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []
        assert len(service.jobs) == 0
        assert set(service.countJobs().values()) == {0}


def test_a_missing_record_of_a_job_in_hand_is_let_go(workshop: Any, add: Any, lose: Any) -> None:
    jobid = add()
    claims = workshop.claim()
    lose(jobid)
    assert workshop.run(claims[0]).status is None
    other = workshop.add("echo")
    assert workshop.work() == [other]
    with workshop.service() as service:
        assert rescue(service, workshop.engine.claims.identity.id, workshop.now) == 0
        assert not len(service.workers)


def test_a_missing_record_of_an_ended_job_is_pruned(workshop: Any, add: Any, lose: Any) -> None:
    jobid = add()
    workshop.work()
    workshop.claim()
    lose(jobid)
    with workshop.service() as service:
        prune(service, workshop.now + 400 * 86_400)
        assert jobid not in service.jobs
        assert service.countJobs()[COMPLETED] == 0
