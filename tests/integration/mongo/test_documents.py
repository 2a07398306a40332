# SPDX-License-Identifier: ZPL-2.1
"""How jobs, factories and items stand in documents."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction

from lovely.remotetask.errors import InvalidInput
from lovely.remotetask.remote.interfaces import IJobError
from lovely.remotetask.remote.scheduler import Cron, Delay
from lovely.remotetask.remote.testing import EchoJob

JOB_FIELDS = (
    "_id _type _version __name__ jobName active status input output errors retryTime retryDelay"
    " retryCounter maxRetries created modified queued picked started completed"
)
ITEM_FIELDS = (
    "_id _type _version __name__ modified"
    " jobName title description input active nextCallTime retryTime retryDelay"
)
CRON_FIELDS = " minute hour dayOfMonth month dayOfWeek"


def test_a_job_has_these_fields(processor: Any, mongo_database: Any) -> None:
    jobid = processor.addJob("echo", {"queue": "night"})
    transaction.commit()
    [document] = mongo_database.rjobs.find()
    assert set(document) == set(JOB_FIELDS.split())
    assert document["__name__"] == str(document["_id"]) == jobid
    assert (document["_type"], document["jobName"]) == ("EchoJob", "echo")
    assert (document["status"], document["active"], document["retryTime"]) == ("queued", True, None)
    assert (document["_version"], document["retryCounter"], document["maxRetries"]) == (1, 0, 3)
    assert (document["input"], document["retryDelay"]) == ({"queue": "night"}, 10)


def test_a_job_that_has_ended_has_no_other_fields(processor: Any, mongo_database: Any) -> None:
    processor.addJob("echo", "x")
    transaction.commit()
    assert processor.processNextJob()
    transaction.commit()
    [document] = mongo_database.rjobs.find()
    assert set(document) == set(JOB_FIELDS.split())
    assert (document["status"], document["output"]) == ("completed", "x")
    assert document["retryCounter"] == 1
    assert document["created"] <= document["picked"] <= document["started"]
    assert document["completed"] is not None
    assert document["retryTime"] is None


@pytest.mark.parametrize(
    ("item", "fields"),
    [(Delay({"delay": 5}), " delay"), (Cron({"minute": [5]}), CRON_FIELDS)],
    ids=["Delay", "Cron"],
)
def test_an_item_has_these_fields(
    processor: Any, mongo_database: Any, item: Any, fields: str
) -> None:
    item.jobName = "echo"
    itemid = processor.addScheduler(item)
    transaction.commit()
    [document] = mongo_database.rscheduler.find()
    assert set(document) == set((ITEM_FIELDS + fields).split())
    assert document["__name__"] == str(document["_id"]) == itemid
    assert document["_type"] == type(item).__name__


def test_what_users_set_is_there_again(processor: Any, other: Any) -> None:
    factory = EchoJob({"colour": "red", "maxRetries": 7, "retryDelay": 0.5})
    processor.addJobFactory("red", factory)
    jobid = processor.addJob("red", [1, {"a": 2}])
    transaction.commit()
    found = other.processor._jobFactories["red"]
    assert (type(found), found.colour, found.__name__) == (EchoJob, "red", "red")
    job = other.processor._jobs[jobid]
    assert (type(job), job.colour, job.maxRetries, job.retryDelay) == (EchoJob, "red", 7, 0.5)
    assert (job.input, job.jobName, job.__name__) == ([1, {"a": 2}], "red", jobid)
    assert job.__parent__ is other.processor


def test_an_item_is_there_again(processor: Any, other: Any) -> None:
    at = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    item = Cron({"jobName": "echo", "hour": [3, 2], "active": True, "nextCallTime": at})
    itemid = processor.addScheduler(item)
    transaction.commit()
    found = other.processor._scheduler[itemid]
    assert (type(found), found.hour, found.minute) == (Cron, [2, 3], [])
    assert (found.nextCallTime, found.active, found.retryDelay) == (at, True, 300)
    assert found.__parent__ is other.processor._scheduler
    assert found.dump() == item.dump()


def test_times_are_aware_and_in_utc_whatever_the_client_says(processor: Any, other: Any) -> None:
    jobid = processor.addJob("echo")
    transaction.commit()
    created = other.processor._jobs[jobid].created
    assert repr(created.tzinfo) == "datetime.timezone.utc"
    assert abs(datetime.now(timezone.utc) - created) < timedelta(minutes=5)


def test_errors_are_subdocuments(processor: Any, mongo_database: Any, other: Any) -> None:
    jobid = processor.addJob("fatal")
    transaction.commit()
    with pytest.raises(ValueError, match="An error occurred"):
        processor.processNextJob()
    transaction.commit()
    [document] = mongo_database.rjobs.find()
    [entry] = document["errors"]
    assert set(entry) == {"created", "message", "tb"}
    assert entry["message"] == "An error occurred."
    [error] = other.processor.getJobErrors(jobid)
    assert IJobError.providedBy(error)
    assert error == f"[{error.created.isoformat()}] An error occurred."
    assert "ValueError" in error.tb


def test_an_input_that_cannot_be_stored_is_refused_where_it_is_given(processor: Any) -> None:
    for input in ({1, 2}, {1: "a number"}, 2**70, "x" * 17_000_000):
        with pytest.raises(InvalidInput):
            processor.addJob("echo", input)
    with pytest.raises(InvalidInput):
        processor.addScheduler(Delay({"jobName": "echo", "delay": 5, "input": {1, 2}}))
    transaction.commit()
    assert list(processor._jobs) == list(processor._scheduler) == []


def test_a_result_that_cannot_be_stored_is_the_error_of_its_job(processor: Any, call: Any) -> None:
    call(lambda job, processor: {1, 2})
    jobid = processor.addJob("call")
    transaction.commit()
    assert processor.processNextJob()
    transaction.commit()
    assert processor.getJobStatus(jobid) == "error"
    assert "cannot be stored" in processor.getJobErrors(jobid)[0]


def test_a_class_that_is_not_known_is_a_type_error(processor: Any, mongo_database: Any) -> None:
    jobid = processor.addJob("echo")
    transaction.commit()
    mongo_database.rjobs.update_one({}, {"$set": {"_type": "Strange"}})
    with pytest.raises(TypeError, match="Strange"):
        processor._jobs[jobid]


def test_a_class_that_is_not_known_is_passed_over_and_logged_once(
    processor: Any, mongo_database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    strange = processor.addJob("echo", 1)
    jobid = processor.addJob("echo", 2)
    transaction.commit()
    mongo_database.rjobs.update_one({"__name__": strange}, {"$set": {"_type": "Strange"}})
    caplog.set_level(logging.ERROR, "lovely.remotetask.remote")
    assert processor.processNextJob()
    assert not processor.processNextJob()
    transaction.commit()
    assert processor.getJobStatus(jobid) == "completed"
    assert [r.getMessage() for r in caplog.records] == [
        f"TypeError: job {strange} is a Strange, which is not known here; it is passed over"
    ]


def test_indexes_are_made(processor: Any, mongo_database: Any) -> None:
    names = {tuple(index["key"]) for index in mongo_database.rjobs.list_indexes()}
    assert names == {("_id",), ("status", "active", "_id"), ("status", "retryTime")}
    assert len(list(mongo_database.rscheduler.list_indexes())) == 2
