# SPDX-License-Identifier: ZPL-2.1
"""Workers that are woken by what others commit: as their storage tells them, or as they ask it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.Connection import Connection

from lovely.remotetask.base import ownership
from lovely.remotetask.engine import waiting
from lovely.remotetask.engine.crew import OwnThread
from lovely.remotetask.engine.news import PREFETCH_SIZE
from lovely.remotetask.engine.wakeup import _ids_in_advance, drop_ids, listener_of
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from servers import ZeoServer
from storages import Storage, over
from workplace import PATIENCE_SECONDS, catch_up

#: Whether transactions are kept does not matter here.
PLAIN = ("file", "zeo", "postgresql", "sqlite")

#: Nobody looks for jobs by himself in the time of a test.
NEVER_SECONDS = 600.0


def server_of(storage: Storage) -> ZeoServer:
    """Return the server of a storage of ZEO."""
    assert storage.server is not None
    return storage.server


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each claim has got."""
    found: list[int] = []
    work: Callable[..., bool] = OwnThread.work

    def counting(processor: SimpleProcessor, session: Any) -> bool:
        is_found = work(processor, session)
        found.append(int(is_found))
        return is_found

    monkeypatch.setattr(OwnThread, "work", counting)
    return found


@over(*PLAIN, "bare zeo")
@pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])
def test_jobs_of_other_clients_are_started_at_once(here: Any, elsewhere: Any, kind: Any) -> None:
    with here.service() as service:
        service.processorFactory = kind
    here.start(waitTime=NEVER_SECONDS)
    for number in range(5):
        jobids = elsewhere.add("echo", number)
        assert elsewhere.wait_for(jobids) == [COMPLETED]
        with elsewhere.service() as service:
            assert service.getResult(jobids[0]) == number


@over(*PLAIN)
def test_jobs_that_wait_in_places_that_are_new_are_started_at_once(
    here: Any, elsewhere: Any
) -> None:
    here.start(waitTime=NEVER_SECONDS)
    for options in ({"priority": 5}, {"lock": "desk"}, {"priority": 4, "lock": "table"}):
        for number in range(2):
            jobids = elsewhere.add("echo", number, **options)
            assert elsewhere.wait_for(jobids) == [COMPLETED]


@over(*PLAIN)
def test_whoever_waits_for_a_lock_of_others_is_woken_when_it_is_free(
    here: Any, elsewhere: Any, register: Any
) -> None:
    with elsewhere.service() as service:
        first = service.add("echo", lock="desk")
        assert service.claimNextJob() == first
    here.start(waitTime=NEVER_SECONDS)
    waiting = elsewhere.add("echo", 1, lock="desk")
    plain = elsewhere.add("echo", 2)
    assert elsewhere.wait_for(plain) == [COMPLETED]
    with elsewhere.connected() as (manager, root):
        for attempt in manager.attempts(10):  # who works here files what it has run meanwhile
            with attempt:
                assert root["tasks"].processNext(jobid=first)
    assert elsewhere.wait_for(waiting) == [COMPLETED]


@over(*PLAIN)
@pytest.mark.parametrize("way", ["startLater", "delayed"])
def test_whatever_makes_a_job_ready_elsewhere_wakes(here: Any, elsewhere: Any, way: str) -> None:
    with elsewhere.service() as service:
        if way == "startLater":
            jobid = service.add("echo", 1, startLater=True)
        else:
            jobid = service.addCronJob("echo", 1, delay=3600)
    here.start(waitTime=NEVER_SECONDS)
    with elsewhere.service() as service:
        if way == "startLater":
            assert service.startJob(jobid)
        else:
            job = service.jobs[jobid]
            job.delay = 0
            service.reschedule(jobid)
    assert elsewhere.wait_for([jobid]) == [COMPLETED]


# Not within one process: there one worker of a service has all, and gives back to nobody.
@over(*(kind for kind in PLAIN if kind != "file"))
def test_a_job_that_is_given_back_elsewhere_wakes(here: Any, elsewhere: Any) -> None:
    with elsewhere.service() as service:
        jobid = service.add("echo", 1)
    processor = SimpleProcessor(elsewhere.db, ["tasks"])
    transaction.abort()
    processor.claimNextJob()
    here.start(waitTime=NEVER_SECONDS)
    claims = processor.engine.claims
    with claims.open() as session:
        claims.give_back(session, list(claims.in_hand.values()))
    assert elsewhere.wait_for([jobid]) == [COMPLETED]


@over("zeo")
def test_commits_that_are_none_of_its_business_wake_nobody(
    here: Any, elsewhere: Any, until: Any, claims: list[int]
) -> None:
    with elsewhere.transaction() as root:
        root["mine"] = PersistentMapping()
    here.start(waitTime=NEVER_SECONDS)
    until(lambda: claims)
    before = list(claims)
    for number in range(20):
        with elsewhere.transaction() as root:
            root["mine"]["number"] = number
    with here.transaction() as root:  # it has heard of them all
        until(lambda: root._p_jar.sync() or root["mine"]["number"] == 19)
    assert claims == before
    elsewhere.wait_for(elsewhere.add("echo", 1))
    until(lambda: len(claims) > len(before))


@over("zeo")
def test_what_came_while_the_server_was_away_is_found_when_it_is_back(
    storage: Storage, here: Any, elsewhere: Any
) -> None:
    server = server_of(storage)
    here.start(waitTime=NEVER_SECONDS)
    elsewhere.wait_for(elsewhere.add("echo", 1))
    server.kill()
    server.start()
    with closing(storage.open()) as db:  # faster than the others, who have yet to notice
        elsewhere.db, lost = db, elsewhere.db
        jobids = elsewhere.add("echo", 2)
        assert elsewhere.wait_for(jobids) == [COMPLETED]
    elsewhere.db = lost


@over(*PLAIN)
@pytest.mark.parametrize("task", [None, "echo"])
def test_a_service_that_is_resumed_elsewhere_goes_on_at_once(
    here: Any, elsewhere: Any, until: Any, claims: list[int], task: str | None
) -> None:
    with elsewhere.service() as service:
        service.pause(task)
    here.start(waitTime=NEVER_SECONDS)
    jobids = elsewhere.add("echo", 1)
    until(lambda: claims, "a claim in vain")
    with elsewhere.service() as service:
        service.resume(task)
    assert elsewhere.wait_for(jobids) == [COMPLETED]


@over("zeo")
def test_a_processor_that_has_stopped_is_woken_no_more(here: Any, elsewhere: Any) -> None:
    listener = listener_of(here.db)
    assert listener is listener_of(here.db)
    here.start(waitTime=NEVER_SECONDS)
    elsewhere.wait_for(elsewhere.add("echo", 1))
    assert len(listener.watchers) == 1
    here.stop()
    assert len(listener.watchers) == 0


@over("zeo")
def test_services_are_woken_each_by_its_own_jobs(
    here: Any, elsewhere: Any, until: Any, claims: list[int]
) -> None:
    here.new_service("other")
    here.start("tasks", waitTime=NEVER_SECONDS)
    here.start("other", waitTime=NEVER_SECONDS)
    until(lambda: len(claims) >= 2)
    before = len(claims)
    elsewhere.wait_for(elsewhere.add("echo", 1, name="other"), "other")
    until(lambda: len(claims) == before + 2)  # the job, and that there is no other


@over("zeo")
@pytest.mark.parametrize("count", [1, 100])
def test_little_is_fetched_beforehand_and_much_is_not(
    here: Any,
    elsewhere: Any,
    until: Any,
    claims: list[int],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    # A slow commit looks at what it has written, and that is fetched together too.
    monkeypatch.setattr(ownership, "MAX_LOOK_SECONDS", math.inf)
    monkeypatch.setattr(ownership, "LOOK_SECONDS", math.inf)
    fetched: list[int] = []
    prefetch: Callable[..., None] = Connection.prefetch

    def note(connection: Connection, *news: Any) -> None:
        if news and isinstance(news[0], list):  # oids, and no objects
            fetched.append(len(news[0]))
        prefetch(connection, *news)

    monkeypatch.setattr(Connection, "prefetch", note)
    here.start(waitTime=NEVER_SECONDS)
    until(lambda: len(claims) >= 1)  # else the first look would find them
    jobids = elsewhere.add("echo", *range(count))
    assert set(elsewhere.wait_for(jobids)) == {COMPLETED}
    assert len(fetched) == (1 if count == 1 else 0)
    assert all(0 < size <= PREFETCH_SIZE for size in fetched)


# -- who waits for a job -------------------------------------------------------------------------


@over(*PLAIN)
def test_who_waits_for_a_job_hears_that_another_client_has_ended_it(
    here: Any, elsewhere: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the storage tells of commits, nobody looks a third time by himself.
    monkeypatch.setattr(waiting, "LAST_LOOK_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(waiting, "LOOK_FACTOR", 1e6)
    looks: list[list[int]] = []
    look = waiting._look

    def noting(*arguments: Any) -> list[int]:
        looks.append(look(*arguments))
        return looks[-1]

    monkeypatch.setattr(waiting, "_look", noting)
    [jobid] = here.add("echo", None)
    statuses: list[str] = []

    def wait() -> None:
        with here.connected() as (_, root):
            statuses.append(root["tasks"].wait(jobid))

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    until(lambda: len(looks) >= 2, "who waits to look")
    catch_up(here.db, elsewhere.db)
    with elsewhere.service() as service:
        service.process()
    waiter.join(PATIENCE_SECONDS)
    assert statuses == [COMPLETED]


# -- object ids that a client has in advance -----------------------------------------------------


@over("zeo")
def test_the_client_of_the_installed_zeo_keeps_its_ids_where_they_are_dropped(
    storage: Storage,
) -> None:
    with closing(storage.open()) as db:
        db.storage.new_oid()
        ids = list(_ids_in_advance(db.storage))
        assert [len(some) > 0 for some in ids] == [True], "ZEO keeps them elsewhere by now"
        drop_ids(db.storage)
        assert ids == [[]]
        assert db.storage.new_oid()


@over("zeo")
def test_ids_are_dropped_when_a_server_was_lost_also_where_jobs_are_only_added(
    storage: Storage, here: Any, until: Any
) -> None:
    server = server_of(storage)
    with closing(storage.open()) as db:
        with db.transaction() as connection:
            connection.root()["tasks"].add("echo", 1)
        [ids] = _ids_in_advance(db.storage)
        assert ids
        server.kill()
        server.start()
        until(lambda: not ids, "the ids to be dropped")
