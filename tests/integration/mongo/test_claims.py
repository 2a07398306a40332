# SPDX-License-Identifier: ZPL-2.1
"""Claims that all see at once, fences, leases, rescue and crash counting."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import transaction
from bson import ObjectId
from transaction.interfaces import TransientError

from lovely.remotetask.remote.mongo.engine import Claims, Engine
from lovely.remotetask.remote.mongo.session import Session


class Bench:
    """Workers on one database, whose clock moves only when the test says so."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.now = 4_000_000_000.0
        self.is_stopping = False
        self.session = Session(processor)

    def worker(self, query: Any = None) -> Engine:
        """Return one more worker."""

        def clock() -> float:
            return self.now

        claims = Claims(self.processor, lambda seconds: self.is_stopping, query or {}, clock, clock)
        return Engine(claims)

    def add(self, name: str, *inputs: Any) -> list[str]:
        """Add jobs."""
        jobids = [self.processor.addJob(name, input) for input in inputs]
        transaction.commit()
        return jobids

    def document(self, jobid: str) -> Any:
        """Return the document of a job."""
        return self.processor.database.find_one("rjobs", {"_id": ObjectId(jobid)})

    def end_lease(self, jobid: str) -> None:
        """Let the lease of a claim be over."""
        lease = self.document(jobid)["retryTime"] - timedelta(days=30_000)
        jobs = self.processor.database.client[self.processor.database.name].rjobs
        jobs.update_one({"_id": ObjectId(jobid)}, {"$set": {"retryTime": lease}})


@pytest.fixture
def bench(processor: Any) -> Iterator[Bench]:
    bench = Bench(processor)
    yield bench
    bench.session.abort()


def listener() -> Any:
    """Return what keeps the names of the commands that a client sends."""
    from pymongo.monitoring import CommandListener

    class Listener(CommandListener):
        names: tuple[str, ...] = ()

        def started(self, event: Any) -> None:
            self.names += (event.command_name,)

        def succeeded(self, event: Any) -> None: ...

        def failed(self, event: Any) -> None: ...

    return Listener()


def test_a_claim_is_seen_by_all_before_anything_commits(
    processor: Any, other: Any, bench: Bench
) -> None:
    [jobid] = bench.add("echo", 1)
    assert processor.pullNextJob().__name__ == jobid
    document = bench.document(jobid)
    assert (document["status"], document["_version"]) == ("processing", 2)
    assert document["retryTime"] > document["picked"]  # the lease
    assert other.processor.pullNextJob() is None
    assert other.processor.getJobStatus(jobid) == "processing"
    transaction.abort()
    document = bench.document(jobid)
    assert (document["status"], document["retryTime"]) == ("queued", None)
    assert "_claim" not in document
    other.abort()
    assert other.processor.pullNextJob().__name__ == jobid


def test_a_job_that_was_pulled_and_committed_is_run_by_its_process_alone(
    processor: Any, other: Any, bench: Bench
) -> None:
    [jobid] = bench.add("echo", 1)
    assert processor.pullNextJob().__name__ == jobid
    transaction.commit()
    with pytest.raises(TypeError, match="another worker"):
        other.processor.processJob(jobid)
    assert processor.processJob(jobid)
    transaction.commit()
    other.abort()
    assert other.processor.getJobResult(jobid) == 1


def test_the_oldest_jobs_come_first_and_a_query_limits_them(processor: Any, bench: Bench) -> None:
    day, night = bench.add("echo", {"queue": "day"}, {"queue": "night"})
    for query, found in (
        ({"input.queue": "night"}, [night]),
        ({"input.queue": {"$in": ["day", "night"]}}, [day, night]),
        (None, [day, night]),
    ):
        late = processor.addJob("echo", {"queue": "night"})  # not committed
        pulled = []
        while (job := processor.pullNextJob(query)) is not None:
            pulled.append(job.__name__)
        assert pulled == [*found, late]
        transaction.abort()


def test_a_query_is_any_query_of_mongodb(processor: Any, bench: Bench) -> None:
    _, large = bench.add("echo", 1, 100)
    assert processor.pullNextJob({"input": {"$gt": 10}}).__name__ == large
    assert processor.pullNextJob({"status": "completed"}) is None
    with pytest.raises(ValueError, match="jobQuery"):
        processor.pullNextJob("night")


def test_a_claim_is_one_find_and_modify(processor: Any, bench: Bench, mongo_uri: str) -> None:
    import pymongo

    from lovely.remotetask.remote.mongo import MongoRemoteProcessor
    from lovely.remotetask.remote.testing import EchoJob

    bench.add("echo", 1)
    sent = listener()
    with pymongo.MongoClient(mongo_uri, event_listeners=[sent]) as client:
        watched = MongoRemoteProcessor(client[processor.database.name], [EchoJob])
        assert watched.pullNextJob() is not None
        assert sent.names.count("findAndModify") == 1
        assert not {"update", "insert", "delete"} & set(sent.names)
        transaction.abort()


def test_a_worker_runs_what_it_has_claimed(processor: Any, bench: Bench) -> None:
    jobids = bench.add("echo", 1, 2, 3)
    worker = bench.worker()
    claims = worker.claims.claim(bench.session, 2)
    assert [claim.jobid for claim in claims] == jobids[:2]
    assert bench.worker().claims.claim(bench.session, 5)[0].jobid == jobids[2]
    for claim in claims:
        assert worker.execution.run(bench.session, claim).status == "completed"
    assert worker.claims.in_hand == {}
    assert processor.getJobResult(jobids[1]) == 2
    assert bench.document(jobids[1])["_version"] == 3


def test_a_worker_that_has_lost_a_job_keeps_nothing_of_its_run(
    processor: Any, bench: Bench, call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def lose(job: Any, processor: Any) -> str:
        processor.addJob("echo", "of the lost run")
        bench.end_lease(job.__name__)
        rescuer = bench.worker()
        with rescuer.claims.open_beside() as beside:
            assert rescuer.upkeep.free_dead(beside, 60.0) == 1
        return "lost"

    call(lose)
    [jobid] = bench.add("call", None)
    worker = bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    assert worker.execution.run(bench.session, claim).status is None
    document = bench.document(jobid)
    assert (document["status"], document["output"], document["_deaths"]) == ("queued", None, 1)
    assert list(processor._jobs) == [jobid]
    assert "no longer held" in caplog.text


def test_a_lease_that_is_over_counts_a_death_and_the_last_is_an_error(
    processor: Any, bench: Bench
) -> None:
    [jobid] = bench.add("echo", 1)
    for deaths in (1, 2, 3):
        [claim] = bench.worker().claims.claim(bench.session, 1)
        assert claim.is_suspect == (deaths > 1)
        bench.end_lease(jobid)
        assert bench.worker().upkeep.free_dead(bench.session, 60.0) == 1
        assert bench.worker().upkeep.free_dead(bench.session, 60.0) == 0
        assert bench.document(jobid)["_deaths"] == deaths
        bench.now += 60.0
    document = bench.document(jobid)
    assert (document["status"], document["retryCounter"]) == ("error", 0)
    assert "3 processes died" in document["errors"][-1]["message"]
    assert "_claim" not in document


def test_a_sign_of_life_extends_the_lease_and_disturbs_no_run(processor: Any, bench: Bench) -> None:
    [jobid] = bench.add("echo", 1)
    worker = bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    bench.end_lease(jobid)
    before = bench.document(jobid)
    worker.claims.beat(bench.session)
    after = bench.document(jobid)
    assert after["retryTime"] > before["retryTime"]
    assert after["_version"] == before["_version"]
    assert worker.execution.run(bench.session, claim).status == "completed"


def test_what_users_set_of_a_running_job_leaves_its_claim_and_its_lease(
    processor: Any, bench: Bench, other: Any
) -> None:
    [jobid] = bench.add("echo", 1)
    worker = bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    before = bench.document(jobid)
    other.processor._jobs[jobid].colour = "blue"
    other.commit()
    after = bench.document(jobid)
    assert after.pop("colour") == "blue"
    assert {**before, "modified": after["modified"]} == after
    assert worker.execution.run(bench.session, claim).status == "completed"
    assert bench.document(jobid)["colour"] == "blue"


def test_who_was_given_life_between_a_look_and_the_rescue_is_left_alone(
    processor: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lovely.remotetask.remote.mongo import engine

    [jobid] = bench.add("echo", 1)
    worker, rescuer = bench.worker(), bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    bench.end_lease(jobid)
    free_job = engine.free_job

    def beat_and_free(*arguments: Any) -> None:
        with worker.claims.open_beside() as beside:
            worker.claims.beat(beside)
        free_job(*arguments)

    monkeypatch.setattr(engine, "free_job", beat_and_free)
    bench.now -= 3_000_000_000.0
    rescuer.upkeep.free_dead(bench.session, 60.0)
    monkeypatch.undo()
    assert bench.document(jobid)["status"] == "processing"
    assert worker.execution.run(bench.session, claim).status == "completed"


def test_who_was_given_life_before_the_rescue_is_looked_at_is_left_alone(
    processor: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    [jobid] = bench.add("echo", 1)
    worker, rescuer = bench.worker(), bench.worker()
    worker.claims.claim(bench.session, 1)
    bench.end_lease(jobid)
    bench.now -= 3_000_000_000.0
    find = processor.database.find

    def find_and_beat(*arguments: Any, **keywords: Any) -> Any:
        found = find(*arguments, **keywords)
        monkeypatch.undo()
        with worker.claims.open_beside() as beside:
            worker.claims.beat(beside)
        return found

    monkeypatch.setattr(processor.database, "find", find_and_beat)
    assert rescuer.upkeep.free_dead(bench.session, 60.0) == 0
    assert bench.document(jobid)["status"] == "processing"


def test_a_caller_that_never_ran_what_it_pulled_is_no_death(processor: Any, bench: Bench) -> None:
    [jobid] = bench.add("echo", 1)
    processor.pullNextJob()
    transaction.commit()
    bench.end_lease(jobid)
    assert bench.worker().upkeep.free_dead(bench.session, 60.0) == 1
    document = bench.document(jobid)
    assert (document["status"], document["retryCounter"]) == ("queued", 0)
    assert "has not run it" in document["errors"][0]["message"]
    assert "_deaths" not in document


def test_a_caller_that_runs_what_it_pulled_has_a_new_lease(processor: Any, bench: Bench) -> None:
    [jobid] = bench.add("echo", 1)
    processor.pullNextJob()
    transaction.commit()
    bench.end_lease(jobid)
    assert processor.processJob(jobid)
    bench.now -= 3_000_000_000.0
    rescuer = bench.worker()
    with rescuer.claims.open_beside() as beside:
        assert rescuer.upkeep.free_dead(beside, 60.0) == 0
    transaction.commit()
    assert processor.getJobStatus(jobid) == "completed"


def test_the_run_of_a_caller_that_has_lost_its_job_does_not_commit(
    processor: Any, bench: Bench
) -> None:
    [jobid] = bench.add("echo", 1)
    assert processor.processNextJob()
    bench.end_lease(jobid)
    rescuer = bench.worker()
    with rescuer.claims.open_beside() as beside:
        assert rescuer.upkeep.free_dead(beside, 60.0) == 1
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()
    assert processor.getJobStatus(jobid) == "queued"


def test_who_leaves_gives_back_what_it_has_in_hand(processor: Any, bench: Bench) -> None:
    running, waiting = bench.add("echo", 1, 2)
    worker = bench.worker()
    claims = worker.claims.claim(bench.session, 2)
    worker.claims.leave(bench.session, [claims[0]])
    assert not worker.claims.holds
    for jobid in (running, waiting):
        document = bench.document(jobid)
        assert (document["status"], document["retryCounter"]) == ("queued", 0)
        assert "_claim" not in document
    assert "was stopped while it ran" in bench.document(running)["errors"][0]["message"]
    assert worker.execution.run(bench.session, claims[0]).status is None


def test_a_claim_whose_answer_was_lost_is_found_again(
    processor: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lovely.remotetask.errors import ServerAway
    from lovely.remotetask.remote.mongo.connection import Connection

    [jobid] = bench.add("echo", 1)
    worker = bench.worker()
    swap = processor.database.swap
    faults = [1]

    def lose(*arguments: Any, **keywords: Any) -> Any:
        found = swap(*arguments, **keywords)
        if faults:
            faults.pop()
            raise ServerAway
        return found

    monkeypatch.setattr(processor.database, "swap", lose)
    monkeypatch.setattr(Connection, "abort", lambda self, txn: None)
    [claim] = worker.claims.claim(bench.session, 1)
    assert claim.jobid == jobid
    monkeypatch.undo()
    assert bench.document(jobid)["_version"] == 2
    assert worker.execution.run(bench.session, claim).status == "completed"


def test_a_running_job_that_is_cancelled_is_not_repeated(
    processor: Any, bench: Bench, other: Any, call: Any
) -> None:
    def cancel(job: Any, processor: Any) -> None:
        other.processor.cancelJob(job.__name__)
        other.commit()
        raise ValueError("no")

    call(cancel)
    [jobid] = bench.add("call", None)
    worker = bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    assert worker.execution.run(bench.session, claim).status == "cancelled"
    assert "_cancel" not in bench.document(jobid)


def test_a_retry_time_that_is_set_while_a_job_runs_counts_after_the_run(
    processor: Any, bench: Bench, other: Any, call: Any
) -> None:
    from datetime import datetime, timezone

    at = datetime(2150, 1, 1, tzinfo=timezone.utc)

    def put_off(job: Any, processor: Any) -> None:
        other.processor._jobs[job.__name__].retryTime = at
        other.commit()
        raise ValueError("no")

    call(put_off)
    [jobid] = bench.add("call", None)
    worker = bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    assert worker.execution.run(bench.session, claim).status == "queued"
    document = bench.document(jobid)
    assert document["retryTime"] == at
    assert "_due" not in document


def test_a_server_that_is_away_is_waited_for_and_is_no_attempt(
    processor: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lovely.remotetask.errors import ServerAway

    caplog.set_level(logging.INFO, "lovely.remotetask")
    [jobid] = bench.add("echo", 1)
    worker = bench.worker()
    [claim] = worker.claims.claim(bench.session, 1)
    faults = [1, 2, 3, 4, 5]

    def failing(method: Any) -> Any:
        def fail(*arguments: Any) -> None:
            if faults:
                faults.pop()
                raise ServerAway
            method(*arguments)

        return fail

    for name in ("write", "update_each"):
        monkeypatch.setattr(processor.database, name, failing(getattr(processor.database, name)))
    assert worker.execution.run(bench.session, claim).status == "completed"
    assert bench.document(jobid)["retryCounter"] == 1
    assert not faults
    assert "works again" in caplog.text
