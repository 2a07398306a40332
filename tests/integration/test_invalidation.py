# SPDX-License-Identifier: ZPL-2.1
"""Workers on a ZEO server, woken by what the server tells of the commits of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.Connection import Connection

from lovely.remotetask.base import ownership
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.crew import OwnThread
from lovely.remotetask.engine.news import PREFETCH_SIZE
from lovely.remotetask.engine.wakeup import _ids_in_advance, drop_ids, listener_of
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from servers import open_zeo

#: Nobody looks for jobs by himself in the time of a test.
NEVER_SECONDS = 600.0


@pytest.fixture
def server(zeo_server: Any) -> Any:
    """A ZEO server."""
    return zeo_server(client_conflict_resolution=True)


@pytest.fixture
def here(server: Any, make_workplace: Any) -> Iterator[Any]:
    """The client that works on the jobs."""
    with closing(open_zeo(server.address)) as db:
        yield make_workplace(db)
        assert registry.stop_all(20.0)


@pytest.fixture
def elsewhere(server: Any, here: Any) -> Iterator[Any]:
    """Another client, whose commits the first one knows from the server alone."""
    with closing(open_zeo(server.address)) as db:
        workplace = object.__new__(type(here))
        workplace.db = db
        yield workplace


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


@pytest.mark.parametrize(
    "options", [{"priority": 5}, {"lock": "desk"}, {"priority": 5, "lock": "desk"}]
)
def test_jobs_that_wait_in_places_that_are_new_are_started_at_once(
    here: Any, elsewhere: Any, options: dict[str, Any]
) -> None:
    here.start(waitTime=NEVER_SECONDS)
    for number in range(3):
        jobids = elsewhere.add("echo", number, **options)
        assert elsewhere.wait_for(jobids) == [COMPLETED]


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


@pytest.mark.parametrize("way", ["startLater", "delayed", "given back"])
def test_whatever_makes_a_job_ready_elsewhere_wakes(here: Any, elsewhere: Any, way: str) -> None:
    with elsewhere.service() as service:
        match way:
            case "startLater":
                jobid = service.add("echo", 1, startLater=True)
            case "delayed":
                jobid = service.addCronJob("echo", 1, delay=3600)
            case _:
                jobid = service.add("echo", 1)
    if way == "given back":
        processor = SimpleProcessor(elsewhere.db, ["tasks"])
        transaction.abort()
        processor.claimNextJob()
    here.start(waitTime=NEVER_SECONDS)
    match way:
        case "startLater":
            with elsewhere.service() as service:
                assert service.startJob(jobid)
        case "delayed":
            with elsewhere.service() as service:
                job = service.jobs[jobid]
                job.delay = 0
                service.reschedule(jobid)
        case _:
            with processor.engine.claims.open() as session:
                processor.engine.claims.give_back(
                    session, list(processor.engine.claims.in_hand.values())
                )
    assert elsewhere.wait_for([jobid]) == [COMPLETED]


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


def test_what_came_while_the_server_was_away_is_found_when_it_is_back(
    server: Any, here: Any, elsewhere: Any
) -> None:
    here.start(waitTime=NEVER_SECONDS)
    elsewhere.wait_for(elsewhere.add("echo", 1))
    server.kill()
    server.start()
    with closing(open_zeo(server.address)) as db:  # faster than the others, who have yet to notice
        elsewhere.db, lost = db, elsewhere.db
        jobids = elsewhere.add("echo", 2)
        assert elsewhere.wait_for(jobids) == [COMPLETED]
    elsewhere.db = lost


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


def test_a_processor_that_has_stopped_is_woken_no_more(here: Any, elsewhere: Any) -> None:
    listener = listener_of(here.db)
    assert listener is listener_of(here.db)
    here.start(waitTime=NEVER_SECONDS)
    elsewhere.wait_for(elsewhere.add("echo", 1))
    assert len(listener._watchers) == 1
    here.stop()
    assert len(listener._watchers) == 0


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


@pytest.mark.parametrize("count", [1, 100])
def test_little_is_fetched_beforehand_and_much_is_not(
    here: Any, elsewhere: Any, monkeypatch: pytest.MonkeyPatch, count: int
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
    jobids = elsewhere.add("echo", *range(count))
    assert set(elsewhere.wait_for(jobids)) == {COMPLETED}
    assert len(fetched) == (1 if count == 1 else 0)
    assert all(0 < size <= PREFETCH_SIZE for size in fetched)


# -- object ids that a client has in advance -----------------------------------------------------


def test_the_client_of_the_installed_zeo_keeps_its_ids_where_they_are_dropped(
    server: Any,
) -> None:
    with closing(open_zeo(server.address)) as db:
        db.storage.new_oid()
        ids = list(_ids_in_advance(db.storage))
        assert [len(some) > 0 for some in ids] == [True], "ZEO keeps them elsewhere by now"
        drop_ids(db.storage)
        assert ids == [[]]
        assert db.storage.new_oid()


def test_ids_are_dropped_when_a_server_was_lost_also_where_jobs_are_only_added(
    server: Any, here: Any, until: Any
) -> None:
    with closing(open_zeo(server.address)) as db:
        with db.transaction() as connection:
            connection.root()["tasks"].add("echo", 1)
        [ids] = _ids_in_advance(db.storage)
        assert ids
        server.kill()
        server.start()
        until(lambda: not ids, "the ids to be dropped")
