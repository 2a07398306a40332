# SPDX-License-Identifier: ZPL-2.1
"""What a transaction writes, and what it does not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
from transaction.interfaces import TransientError

from lovely.remotetask.remote.scheduler import Delay
from lovely.remotetask.remote.testing import EchoJob, ErrorJob

PAST = datetime(2000, 1, 1, tzinfo=timezone.utc)
FUTURE = datetime(2100, 1, 1, tzinfo=timezone.utc)


def test_nothing_is_written_before_the_commit(processor: Any, mongo_database: Any) -> None:
    processor.addJobFactory("error", ErrorJob())
    jobid = processor.addJob("error", 1)
    itemid = processor.addScheduler(Delay({"jobName": "error", "delay": 5}))
    assert list(processor._jobs) == [jobid]
    assert list(processor._scheduler) == [itemid]
    assert sorted(processor._jobFactories) == ["call", "echo", "error", "fatal"]
    assert mongo_database.rjobs.count_documents({}) == 0
    assert mongo_database.rscheduler.count_documents({}) == 0
    assert mongo_database.rfactories.count_documents({}) == 3
    transaction.commit()
    assert mongo_database.rjobs.count_documents({}) == 1
    assert mongo_database.rscheduler.count_documents({}) == 1
    assert mongo_database.rfactories.count_documents({}) == 4


def test_nothing_is_written_after_an_abort(processor: Any, mongo_database: Any) -> None:
    kept = processor.addJob("echo", 0)
    item = Delay({"jobName": "echo", "delay": 5})
    transaction.commit()
    before = mongo_database.rjobs.find_one()
    processor.addJob("echo", 1)
    processor.addScheduler(item)
    processor._jobs[kept].retryTime = FUTURE
    processor.cancelJob(kept)
    processor.removeJobs("cancelled")
    transaction.abort()
    transaction.commit()
    assert list(mongo_database.rjobs.find()) == [before]
    assert mongo_database.rscheduler.count_documents({}) == 0
    assert list(processor._jobs) == [kept]
    assert item.__parent__ is None
    processor.addScheduler(item)  # as if it had never been added
    transaction.commit()
    assert mongo_database.rscheduler.count_documents({}) == 1


def test_an_object_of_an_earlier_transaction_goes_on(processor: Any, other: Any) -> None:
    jobid = processor.addJob("echo")
    item = Delay({"jobName": "echo", "delay": 5, "active": True})
    itemid = processor.addScheduler(item)
    transaction.commit()
    job = processor._jobs[jobid]
    transaction.commit()
    other.processor._jobs[jobid].retryTime = FUTURE
    other.processor._scheduler[itemid].title = "of others"
    other.commit()
    assert job.retryTime == FUTURE  # loaded anew
    assert item.title == "of others"
    job.retryTime = PAST
    item.nextCallTime = PAST
    transaction.commit()
    other.abort()
    assert other.processor._jobs[jobid].retryTime == PAST
    assert other.processor._scheduler[itemid].nextCallTime == PAST
    assert processor._jobs[jobid] is job


def test_of_two_who_change_a_document_one_commits(processor: Any, other: Any) -> None:
    jobid = processor.addJob("echo")
    transaction.commit()
    processor._jobs[jobid].retryTime = FUTURE
    other.processor.cancelJob(jobid)
    other.commit()
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()
    assert processor.getJobStatus(jobid) == "cancelled"


def test_what_fails_writes_nothing_at_all_where_the_server_has_transactions(
    processor: Any, other: Any, mongo_database: Any
) -> None:
    if not processor.database.has_transactions:
        pytest.skip("this server has no transactions")
    first, second = processor.addJob("echo"), processor.addJob("echo")
    transaction.commit()
    processor.addJob("echo", "new")
    processor.cancelJob(first)
    processor.cancelJob(second)
    other.processor._jobs[second].retryTime = FUTURE
    other.commit()
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()
    assert [d["status"] for d in mongo_database.rjobs.find()] == ["queued", "queued"]


def test_an_active_flag_and_a_retry_time_count_at_once_and_after_the_commit(
    processor: Any, other: Any
) -> None:
    jobid = processor.addJob("echo")
    transaction.commit()
    job = processor._jobs[jobid]
    job.active = False
    assert not processor.processNextJob()
    transaction.commit()
    assert not other.processor.processNextJob()
    job.active = True
    job.retryTime = FUTURE
    assert not processor.processNextJob()
    assert processor.processNextJob(callTime=FUTURE)
    transaction.abort()
    job.active = True
    transaction.commit()
    other.abort()
    assert other.processor.processNextJob()


def test_a_rollback_takes_back_what_came_after_the_savepoint(
    processor: Any, mongo_database: Any
) -> None:
    kept = processor.addJob("echo", {"list": [1]})
    stored = processor.addJob("echo", "stored")
    transaction.commit()
    job = processor._jobs[kept]
    job.colour = "red"
    new = processor.addJob("echo", "new")
    savepoint = transaction.savepoint()
    job.colour = "blue"
    job.input["list"].append(2)
    job._p_changed = True
    late = processor.addJob("echo", "late")
    processor._jobs[stored].retryTime = FUTURE
    processor.cancelJob(new)
    processor.removeJobs("cancelled")
    assert sorted(processor._jobs) == sorted([kept, stored, late])
    savepoint.rollback()
    assert (job.colour, job.input) == ("red", {"list": [1]})
    assert processor.getJobStatus(new) == "queued"
    assert processor._jobs[stored].retryTime is None
    assert sorted(processor._jobs) == sorted([kept, stored, new])
    transaction.commit()
    documents = {str(d["_id"]): d for d in mongo_database.rjobs.find()}
    assert set(documents) == {kept, stored, new}
    assert documents[kept]["colour"] == "red"
    assert documents[stored]["_version"] == 1


def test_a_rollback_to_before_the_first_change_takes_back_all(
    processor: Any, mongo_database: Any
) -> None:
    stored = processor.addJob("echo", "stored")
    transaction.commit()
    savepoint = transaction.savepoint(optimistic=True)
    assert processor.pullNextJob().__name__ == stored
    processor.addJob("echo", "new")
    assert mongo_database.rjobs.find_one()["status"] == "processing"
    savepoint.rollback()
    assert mongo_database.rjobs.find_one()["status"] == "queued"
    assert list(processor._jobs) == [stored]
    assert processor.getJobStatus(stored) == "queued"
    processor.addJob("echo", "another")
    transaction.commit()
    assert [d["input"] for d in mongo_database.rjobs.find()] == ["stored", "another"]


def test_a_claim_that_came_after_a_savepoint_is_given_back_by_its_rollback(
    processor: Any, mongo_database: Any
) -> None:
    stored = processor.addJob("echo", "stored")
    transaction.commit()
    new = processor.addJob("echo", "new")
    savepoint = transaction.savepoint()
    assert processor.pullNextJob().__name__ == stored
    savepoint.rollback()
    assert mongo_database.rjobs.find_one()["status"] == "queued"
    assert processor.getJobStatus(stored) == "queued"
    transaction.commit()
    assert [str(d["_id"]) for d in mongo_database.rjobs.find({"status": "queued"})] == [stored, new]


def test_jobs_are_removed_by_status(processor: Any, other: Any, mongo_database: Any) -> None:
    done, queued, cancelled = (processor.addJob("echo", n) for n in range(3))
    transaction.commit()
    assert processor.processNextJob()
    processor.cancelJob(cancelled)
    transaction.commit()
    assert processor.removeJobs() == {"cancelled": 1, "completed": 1, "error": 0}
    assert list(processor._jobs) == [queued]
    assert processor.removeJobs() == {"cancelled": 0, "completed": 0, "error": 0}
    with pytest.raises(KeyError):
        processor.getJobStatus(done)
    assert mongo_database.rjobs.count_documents({}) == 3
    with pytest.raises(ValueError, match="queued"):
        processor.removeJobs("queued")
    assert processor.removeJobs(["queued"], allowed=["queued"]) == {"queued": 1}
    assert other.processor.pullNextJob().__name__ == queued  # somebody is quicker
    other.commit()
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()
    assert processor.removeJobs() == {"cancelled": 1, "completed": 1, "error": 0}
    transaction.commit()
    assert [str(d["_id"]) for d in mongo_database.rjobs.find()] == [queued]


def test_a_factory_is_replaced_by_one_of_the_same_class(processor: Any, other: Any) -> None:
    processor.addJobFactory("echo", EchoJob({"input": 5}))
    processor.addJobFactory("echo", EchoJob({"input": 6}))
    transaction.commit()
    assert other.processor.getJobFactory("echo").input == 6
    with pytest.raises(ValueError, match="EchoJob"):
        other.processor.addJobFactory("echo", ErrorJob())
    factory = processor.getJobFactory("echo")
    factory.input = 7
    transaction.commit()
    other.abort()
    assert other.processor._jobs[other.processor.addJob("echo")].input == 7


def test_a_job_that_fails_inline_leaves_its_error_and_nothing_else(
    processor: Any, call: Any, mongo_database: Any
) -> None:
    def fail(job: Any, processor: Any) -> None:
        job.colour = "blue"
        processor.addJob("echo", "of the job")
        raise ValueError("no")

    call(fail)
    jobid = processor.addJob("call")
    transaction.commit()
    with pytest.raises(ValueError, match="no"):
        processor.processNextJob()
    transaction.commit()
    [document] = mongo_database.rjobs.find()
    assert str(document["_id"]) == jobid
    assert (document["status"], document["retryCounter"]) == ("queued", 1)
    assert "colour" not in document
    assert document["retryTime"] > datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(
        seconds=5
    )
    assert "_claim" not in document


def test_a_job_writes_with_its_completion(processor: Any, call: Any, mongo_database: Any) -> None:
    call(lambda job, processor: setattr(job, "child", processor.addJob("echo", "of the job")))
    jobid = processor.addJob("call")
    transaction.commit()
    assert processor.processNextJob()
    transaction.abort()
    [document] = mongo_database.rjobs.find()
    assert (document["status"], document["retryCounter"]) == ("queued", 0)
    assert processor.processNextJob()
    transaction.commit()
    documents = {str(d["_id"]): d for d in mongo_database.rjobs.find()}
    assert documents[jobid]["status"] == "completed"
    assert documents[documents[jobid]["child"]]["input"] == "of the job"


def test_a_change_in_place_is_written_when_it_is_told(processor: Any, other: Any) -> None:
    jobid = processor.addJob("echo", {"list": [1]})
    transaction.commit()
    job = processor._jobs[jobid]
    job.input["list"].append(2)
    job._p_changed = True
    transaction.commit()
    assert other.processor._jobs[jobid].input == {"list": [1, 2]}


def test_a_job_that_is_removed_in_this_transaction_is_not_pulled_in_it(processor: Any) -> None:
    processor.addJob("echo", 1)
    transaction.commit()
    assert processor.removeJobs("queued", "queued") == {"queued": 1}
    assert processor.pullNextJob() is None
    transaction.commit()
    assert len(processor._jobs) == 0
