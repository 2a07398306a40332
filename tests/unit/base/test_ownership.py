# SPDX-License-Identifier: ZPL-2.1
"""Object ids that are handed out again, and records that are gone: all is stored, or nothing.

A ZEO client that has lost its server may give a new object an id that is in use.  That is
brought about here by handing such an id out; see the text of `lovely.remotetask.base.ownership`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError
from ZODB.POSException import ConflictError, InvalidObjectReference

from lovely.remotetask.base import ownership
from lovely.remotetask.engine.rescue import rescue
from lovely.remotetask.errors import StrayObject
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store import tree
from lovely.remotetask.store.memory import MAX_CLOSED
from lovely.remotetask.store.timeindex import _SHIFTS, _spans
from lovely.remotetask.store.tree import lane_of

#: Enough for pages, segments and entries that fill several leaves of their trees.
MANY = 110


def page_of(service: Any, jobid: int) -> Any:
    [page] = [page for page in service.jobs._pages() if jobid in page.entries]
    return page


def lane_of_line(service: Any, jobid: int) -> Any:
    return service.queue.ready.lanes[lane_of(jobid)]


def generation(service: Any, jobid: int) -> Any:
    entries = lane_of_line(service, jobid).generations.entries
    return entries[max(entries)]


def segment(service: Any, jobid: int) -> Any:
    entries = generation(service, jobid).entries
    return entries[max(entries)]


def page_of_times(service: Any) -> Any:
    *_, (page,) = _spans(service.queue.indexes["delayed"].pages, _SHIFTS, 0, 2**60)
    return page


def node_of_times(service: Any) -> Any:
    nodes = service.queue.indexes["delayed"].pages.entries
    return nodes[max(nodes)]


KINDS: dict[str, Callable[[Any, int], Any]] = {
    "the service": lambda service, jobid: service,
    "the jobs": lambda service, jobid: service.jobs,
    "a lane of jobs": lambda service, jobid: service.jobs.lanes[lane_of(jobid)],
    "a page": page_of,
    "a job": lambda service, jobid: service.jobs[jobid],
    "the queue": lambda service, jobid: service.queue,
    "the line": lambda service, jobid: service.queue.ready,
    "a lane of the line": lane_of_line,
    "the generations": lambda service, jobid: lane_of_line(service, jobid).generations,
    "a generation": generation,
    "a segment": segment,
    "a counter": lambda service, jobid: lane_of_line(service, jobid).added,
    "an index": lambda service, jobid: service.queue.indexes["delayed"],
    "the pages of an index": lambda service, jobid: service.queue.indexes["delayed"].pages,
    "a node of an index": lambda service, jobid: node_of_times(service),
    "a page of an index": lambda service, jobid: page_of_times(service),
    "the index of ended jobs": lambda service, jobid: service.queue.indexes["completed"],
    "a lane of ended jobs": lambda service, jobid: service.queue.indexes["completed"].lanes[0],
    "the tree of workers": lambda service, jobid: service.workers,
    "the cancel requests": lambda service, jobid: service.requests,
    "the edited schedules": lambda service, jobid: service.edits,
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def full(workshop: Any) -> Any:
    """A workshop with many jobs that wait for their time, and one that may run."""
    with workshop.service() as service:
        for number in range(MANY):
            service._v_next_id = 1 + 16 * number  # on a page of its own
            service.addCronJob("echo", delay=10**6 + 100 * number)
        workshop.jobid = service.add("echo", 0)
    return workshop


def oid_of(workshop: Any, kind: str) -> bytes:
    with workshop.service() as service:
        oid: bytes = KINDS[kind](service, workshop.jobid)._p_oid
    return oid


def know_all(service: Any, jobid: int) -> None:
    """Load everything that may be meant."""
    for find in KINDS.values():
        find(service, jobid)._p_activate()


def hand_out(connection: Any, *oids: bytes) -> list[bytes]:
    """Let a connection give ids that are in use to its next new objects."""
    left = list(oids)
    fresh = type(connection).new_oid

    connection.new_oid = lambda: left.pop() if left else fresh(connection)
    return left


class Application:
    """A connection of an application's own, which repeats what is transient."""

    def __init__(self, workshop: Any) -> None:
        self.manager = transaction.TransactionManager()
        self.connection = workshop.db.open(self.manager)
        self.attempts = 0

    def __call__(self, change: Callable[[Any], Any]) -> Any:
        for attempt in self.manager.attempts(5):
            with attempt:
                self.attempts += 1
                result = change(self.connection.root())
        return result

    def fail_with_id_again(
        self, oid: bytes, step: Callable[[], Any], error: type[Exception]
    ) -> None:
        """Let a step of a transaction meet an id that is in use, and abort."""
        left = hand_out(self.connection, oid)
        make_new_object(self.connection.root())
        with pytest.raises(error, match=r"same oid|conflict"):
            step()
        self.manager.abort()
        assert not left

    def close(self) -> None:
        self.manager.abort()
        self.connection.close()


@pytest.fixture
def application(full: Any) -> Any:
    """An application that has everything in its cache."""
    made = Application(full)
    made(lambda root: know_all(root["tasks"], full.jobid))
    yield made
    made.close()


def make_new_object(root: Any) -> None:
    root[f"new-{time.monotonic()}"] = PersistentMapping()


# -- in the application's own connection -------------------------------------------------------


@kinds
def test_no_job_is_acknowledged_that_is_not_stored_when_adding_meets_an_id_again(
    full: Any, application: Any, kind: str
) -> None:
    left = hand_out(application.connection, oid_of(full, kind))
    jobids = [application(lambda root, n=n: root["tasks"].add("echo", n)) for n in range(20)]
    assert not left
    assert {full.get(jobid, "input") for jobid in jobids} == set(range(20))
    assert set(full.work()) == {full.jobid, *jobids}


@kinds
def test_no_job_is_acknowledged_that_is_not_stored_after_a_transaction_of_the_application(
    full: Any, application: Any, kind: str
) -> None:
    application.fail_with_id_again(oid_of(full, kind), application.manager.commit, ConflictError)
    jobids = []
    for n in range(20):
        jobids.append(application(lambda root, n=n: root["tasks"].add("echo", n)))
        jobids.append(application(lambda root, n=n: root["tasks"].addCronJob("echo", n, delay=0)))
    for jobid in jobids:
        assert full.get(jobid, "status") in ("queued", "delayed")
    full.now += 1
    assert set(full.work()) == {full.jobid, *jobids}


@kinds
def test_what_is_changed_is_stored_after_a_savepoint_that_met_an_id_again(
    full: Any, application: Any, kind: str
) -> None:
    application.fail_with_id_again(oid_of(full, kind), application.manager.savepoint, ValueError)
    application(lambda root: root["tasks"].cancel(full.jobid))
    assert full.get(full.jobid, "status") == "cancelled"


@kinds
def test_the_inline_form_runs_a_job_once(full: Any, application: Any, kind: str) -> None:
    application.fail_with_id_again(oid_of(full, kind), application.manager.commit, ConflictError)
    for _ in range(MANY // MAX_CLOSED + 1):  # each closes so many empty segments
        application(lambda root: root["tasks"].process())
    assert full.get(full.jobid, "status", "attempt") == (COMPLETED, 1)


def test_a_transient_error_tells_of_a_job_that_belongs_to_no_database(
    full: Any, application: Any
) -> None:
    connection = application.connection
    connection._invalidate_creating([oid_of(full, "a job")])
    service = connection.root()["tasks"]
    with pytest.raises(StrayObject):
        service.jobs[full.jobid]
    with pytest.raises(StrayObject):
        application.manager.commit()
    application.manager.abort()
    assert connection.root()["tasks"].jobs[full.jobid]._p_jar is connection


def test_a_new_service_whose_jobs_are_in_no_database_yet_is_sound(full: Any) -> None:
    with full.transaction() as root:
        root["other"] = type(root["tasks"])()
        first = root["other"].add("echo", 1)
        assert root["other"].getStatus(first) == "queued"
        root._p_jar.transaction_manager.savepoint()
        second = root["other"].add("echo", 2)
    with full.transaction() as root:
        assert set(root["other"].jobs) == {first, second}


def test_a_job_that_is_rolled_back_is_not_missed(full: Any) -> None:
    with full.service() as service:
        manager = service._p_jar.transaction_manager
        first = service.add("echo", 1)
        savepoint = manager.savepoint()
        second = service.add("echo", 2)
        savepoint.rollback()
        third = service.add("echo", 3)
    with full.service() as service:
        assert second not in service.jobs
        assert [service.jobs[jobid].input for jobid in (first, third)] == [1, 3]


def test_what_is_added_and_removed_in_one_transaction_need_not_be_stored(full: Any) -> None:
    with full.service() as service:
        kept = service.add("echo", 1)
        for _ in range(100):  # enough to open and empty pages and segments
            service.cancel(service.add("echo", 2))
        savepoint = service._p_jar.transaction_manager.savepoint()
        service.clean()
        savepoint.rollback()
        service.cancel(service.add("echo", 3))
        service.clean()
        claimed = service.claimNextJob()
        service.process()
        service.clean()
    with full.service() as service:
        assert claimed in service.jobs
        assert kept not in service.jobs
        assert len(service.jobs) == MANY + 1


def test_a_savepoint_from_before_the_first_job_takes_the_job_back(full: Any) -> None:
    with full.transaction() as root:
        make_new_object(root)
        savepoint = root._p_jar.transaction_manager.savepoint()
        first = root["tasks"].add("echo", 1)
        savepoint.rollback()
        second = root["tasks"].add("echo", 2)
    with full.service() as service:
        assert first not in service.jobs
        assert second in service.jobs


def test_what_was_written_before_it_was_disowned_does_not_commit(
    full: Any, application: Any
) -> None:
    service = application.connection.root()["tasks"]
    service.cancel(full.jobid)
    application.connection._invalidate_creating([service.jobs[full.jobid]._p_oid])
    with pytest.raises((AssertionError, InvalidObjectReference)):
        application.manager.commit()
    application.manager.abort()
    application(lambda root: root["tasks"].cancel(full.jobid))
    assert full.get(full.jobid, "status") == "cancelled"


# -- in a worker ---------------------------------------------------------------------------------


@kinds
def test_a_claim_that_meets_an_id_again_is_repeated(full: Any, kind: str) -> None:
    know_all(full.session.begin(), full.jobid)
    left = hand_out(full.session.connection, oid_of(full, kind))
    assert [outcome.status for outcome in [full.step()]] == [COMPLETED]
    assert not left
    assert full.get(full.jobid, "status", "attempt") == (COMPLETED, 1)


@kinds
def test_a_run_that_meets_an_id_again_is_repeated(full: Any, register: Any, kind: str) -> None:
    def make(context: Any, input: Any) -> None:
        root = context.service._p_jar.root()
        root["effects"] = root.get("effects", 0) + 1
        root["new"] = PersistentMapping()

    register("make", make, context=True)
    jobid = full.jobid = full.add("make")
    claims = full.claim(2)
    know_all(full.session.begin(), jobid)
    left = hand_out(full.session.connection, oid_of(full, kind))
    outcomes = [full.run(claim) for claim in claims]
    assert {outcome.status for outcome in outcomes} == {COMPLETED}
    assert not left
    assert full.get(jobid, "status", "attempt") == (COMPLETED, 1)
    with full.transaction() as root:
        assert root["effects"] == 1


@kinds
def test_jobs_that_share_a_commit_run_once(full: Any, register: Any, kind: str) -> None:
    def make(context: Any, input: Any) -> None:
        root = context.service._p_jar.root()
        root["effects"] = root.get("effects", 0) + 1
        root["new"] = PersistentMapping()

    register("share", make, context=True, shared_commit=True)
    full.work()
    jobids = [full.add("share") for _ in range(3)]
    full.jobid = jobids[0]
    know_all(full.session.begin(), full.jobid)
    claims = full.reserve()
    left = hand_out(full.session.connection, oid_of(full, kind))
    if full.run_together(claims) is None:
        for claim in full.claim_reserved(claims):
            full.run(claim)
    assert not left
    assert {full.get(jobid, "status") for jobid in jobids} == {COMPLETED}
    with full.transaction() as root:
        assert root["effects"] == 3


def test_a_worker_that_meets_its_own_record_again_goes_on(full: Any) -> None:
    [claim] = full.claim()
    full.add("echo")
    with full.service() as service:
        oid = service.workers[full.engine.claims.identity.id]._p_oid
    full.session.begin().workers[full.engine.claims.identity.id]._p_activate()
    full.session.connection._invalidate_creating([oid])
    full.engine.claims.beat(full.session)
    with full.service() as service:
        assert service.workers[full.engine.claims.identity.id].beats == 1
    assert full.run(claim).status == COMPLETED


@kinds
def test_a_run_whose_task_meets_an_id_again_at_a_savepoint_is_no_attempt(
    full: Any, register: Any, kind: str
) -> None:
    def make(context: Any, input: Any) -> None:
        root = context.service._p_jar.root()
        root["effects"] = root.get("effects", 0) + 1
        root["new"] = PersistentMapping()
        try:
            transaction.savepoint()
        except ValueError as error:
            raise RuntimeError("something else") from error

    register("make", make, context=True)
    jobid = full.jobid = full.add("make", retry=None)
    claims = full.claim(2)
    know_all(full.session.begin(), jobid)
    left = hand_out(full.session.connection, oid_of(full, kind))
    outcomes = [full.run(claim) for claim in claims]
    assert {outcome.status for outcome in outcomes} <= {COMPLETED, "queued"}
    assert not left
    full.now += 10**4
    full.work()
    assert full.get(jobid, "status") == COMPLETED
    with full.transaction() as root:
        assert root["effects"] == 1


def test_a_hundred_ids_that_are_in_use_use_up_no_budget(full: Any, register: Any) -> None:
    def make(context: Any, input: Any) -> None:
        context.service._p_jar.root()["new"] = PersistentMapping()

    register("make", make, context=True)
    full.work()
    jobid = full.add("make")
    [claim] = full.claim()
    with full.service() as service:
        oids = [job._p_oid for job in list(service.jobs.values())[:100]]
    loaded = [job._p_activate() for job in full.session.begin().jobs.values()]
    assert len(loaded) > 100
    left = hand_out(full.session.connection, *oids)
    assert full.run(claim).status == COMPLETED
    assert not left
    assert full.get(jobid, "attempt") == 1


# -- records that are gone -----------------------------------------------------------------------


@pytest.fixture
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "LOOK_SECONDS", -1.0)


def remove_and_pack(workshop: Any, jobid: int) -> None:
    """Do what happens while a process stands still: its job is freed, ended, and removed."""
    with workshop.service() as service:
        for worker_id in list(service.workers):
            rescue(service, worker_id, workshop.now)
        service.cancel(jobid)
    with workshop.service() as service:
        service.clean()
        assert jobid not in service.jobs
    workshop.db.pack()


@pytest.fixture
def file_workshop(file_db: Any, workshop: Any) -> Any:
    """A workshop in a file, which can be packed."""
    made = type(workshop)(file_db)
    yield made
    made.session.close()


def test_a_run_is_not_kept_whose_job_is_removed_and_packed_away_meanwhile(
    file_workshop: Any, register: Any, look_always: None
) -> None:
    def pay(context: Any, input: Any) -> None:
        context.service._p_jar.root()["paid"] = True
        remove_and_pack(file_workshop, jobid)

    register("pay", pay, context=True)
    jobid = file_workshop.add("pay")
    assert file_workshop.step().status is None
    with file_workshop.transaction() as root:
        assert "paid" not in root


def test_nor_is_a_run_kept_that_has_added_many(
    file_workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "LOOK_SECONDS", 0.05)

    def spread(context: Any, input: Any) -> None:
        for _ in range(100):  # a second would be quick for so many
            context.service.add("echo")
        remove_and_pack(file_workshop, jobid)
        time.sleep(0.06)

    register("spread", spread, context=True)
    jobid = file_workshop.add("spread")
    assert file_workshop.step().status is None
    with file_workshop.service() as service:
        assert len(service.jobs) == 0


def test_a_group_is_not_kept_of_which_a_job_is_removed_and_packed_away_meanwhile(
    file_workshop: Any, register: Any, look_always: None
) -> None:
    def pay(context: Any, input: Any) -> None:
        context.service._p_jar.root()["paid"] = True
        if not done:
            done.append(True)
            remove_and_pack(file_workshop, jobids[1])

    done: list[bool] = []
    register("pay", pay, context=True, shared_commit=True)
    jobids = [file_workshop.add("pay") for _ in range(3)]
    claims = file_workshop.reserve()
    assert len(claims) == 3
    assert file_workshop.run_together(claims) is None
    with file_workshop.transaction() as root:
        assert "paid" not in root


def test_inline_a_run_is_not_kept_whose_job_is_removed_and_packed_away_meanwhile(
    file_workshop: Any, register: Any, look_always: None
) -> None:
    def pay(context: Any, input: Any) -> None:
        context.service._p_jar.root()["paid"] = True
        remove_and_pack(file_workshop, jobid)

    register("pay", pay, context=True)
    jobid = file_workshop.add("pay")
    with pytest.raises(TransientError), file_workshop.service() as service:
        service.process()
    with file_workshop.transaction() as root:
        assert "paid" not in root


def test_a_job_is_not_acknowledged_whose_page_is_removed_and_packed_away_meanwhile(
    file_workshop: Any, look_always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "FRESH_SECONDS", -1.0)  # the page does not stay for others
    with file_workshop.service() as service:
        first = service.add("echo")
        first_page = first // 16
        file_workshop.jobid = first
    application = Application(file_workshop)
    service = application.connection.root()["tasks"]
    service._v_next_id = next(n for n in (first + 1, first - 1) if n // 16 == first_page)
    service.add("echo")
    remove_and_pack(file_workshop, first)
    with pytest.raises(StrayObject):
        application.manager.commit()
    application.close()


def test_a_quick_transaction_opens_no_other_connection(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "LOOK_SECONDS", 10.0)
    monkeypatch.setattr(ownership.Ownership, "_look", lambda *_: pytest.fail("it looked"))
    workshop.add("echo")
    assert workshop.step().status == COMPLETED


def test_a_transaction_that_has_left_a_connection_takes_nothing_back(db: ZODB.DB) -> None:
    former, manager = transaction.TransactionManager(), transaction.TransactionManager()
    root = db.open(former).root()
    ownership.wrote(root, root)
    root._p_jar.close()
    assert db.open(manager) is root._p_jar
    ownership.wrote(root, PersistentMapping())  # nothing refers to it
    former.abort()
    with pytest.raises(StrayObject):
        manager.commit()


def test_a_connection_that_has_refused_a_transaction_takes_the_next_one(db: ZODB.DB) -> None:
    manager = transaction.TransactionManager()
    root = db.open(manager).root()
    ownership.wrote(root, PersistentMapping())
    with pytest.raises(StrayObject):
        manager.commit()
    manager.begin()
    root["new"] = new = PersistentMapping()
    ownership.wrote(root, root, new)
    manager.commit()
    manager.begin()
    assert "new" in root


# -- connections that a task closes --------------------------------------------------------------


def close(context: Any) -> None:
    context.service._p_jar.close()


def close_and_fail(context: Any) -> None:
    context.service._p_jar.close()
    raise ValueError("too bad")


def close_and_read(context: Any) -> None:
    context.service._p_jar.close()
    context.service.jobs[context.jobid].task  # noqa: B018


def write_and_close(context: Any) -> None:
    context.service._p_jar.root()["written"] = True
    context.service._p_jar.close()


def close_for_another(context: Any) -> None:
    connection = context.service._p_jar
    db = connection.db()
    connection.close()
    others.append(db.open(transaction.TransactionManager()))
    assert others[-1] is connection


others: list[Any] = []


@pytest.mark.parametrize(
    "misdeed", [close, close_and_fail, close_and_read, write_and_close, close_for_another]
)
@pytest.mark.parametrize("shared_commit", [False, True])
def test_a_task_that_closes_its_connection_fails_and_the_next_job_runs(
    workshop: Any, register: Any, misdeed: Any, shared_commit: bool
) -> None:
    register(
        "close",
        lambda context, input: misdeed(context),
        context=True,
        shared_commit=shared_commit,
        retry=RetryPolicy(attempts=1),
    )
    bad, good = workshop.add("close"), workshop.add("echo")
    claims = workshop.reserve()
    reserved = [claim for claim in claims if claim.is_reserved]
    if reserved:
        assert workshop.run_together(reserved) is None
        workshop.claim_reserved(reserved)
    for claim in list(workshop.engine.claims.in_hand.values()):
        workshop.run(claim)
    workshop.work()
    assert workshop.get(bad, "status") == ERROR
    assert workshop.get(good, "status") == COMPLETED
    with workshop.transaction() as root:
        assert "written" not in root
    while others:
        others.pop().close()


@pytest.mark.parametrize("writes_before", [False, True])
def test_a_task_that_closes_a_connection_to_another_database_fails(
    workshop: Any, register: Any, writes_before: bool
) -> None:
    other = ZODB.DB(None, database_name="other", databases=workshop.db.databases)

    def misuse(context: Any, input: Any) -> None:
        connection = context.service._p_jar
        if writes_before:
            connection.root()["written"] = True
        connection.get_connection("other").close()

    def use(context: Any, input: Any) -> int:
        connection = context.service._p_jar.get_connection("other")
        connection.root()["there"] = True
        return len(connection.root())

    register("misuse", misuse, context=True, retry=RetryPolicy(attempts=1))
    register("use", use, context=True)
    workshop.db.databases.setdefault("other", other)
    bad, good = workshop.add("misuse"), workshop.add("use")
    assert workshop.work() == [bad, good]
    assert workshop.get(bad, "status") == ERROR
    assert workshop.get(good, "status", "output") == (COMPLETED, 1)
    other.close()
