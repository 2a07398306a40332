# SPDX-License-Identifier: ZPL-2.1
"""Factories, the jobs that they make, and adding, cancelling and removing these."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from lovely.remotetask.remote.exceptions import RemoteException
from lovely.remotetask.remote.job import Job
from remotejobs import Keep, Lists, Note, Refuse

LATER = datetime(2080, 1, 1, tzinfo=timezone.utc)


# -- jobs without a processor ------------------------------------------------------------


def test_a_job_has_defaults() -> None:
    job = Job()
    assert job.active is True
    assert (job.retryDelay, job.maxRetries, job.retryCounter) == (10, 3, 0)
    assert job.errors == []
    for name in ("input", "output", "jobName", "status", "retryTime"):
        assert getattr(job, name) is None
    for name in ("created", "queued", "picked", "started", "completed"):
        assert getattr(job, name) is None


def test_what_a_job_is_made_with_becomes_its_attributes() -> None:
    job = Note({"input": "bread", "retryDelay": 5, "colour": "blue"})
    assert (job.input, job.retryDelay, job.colour) == ("bread", 5, "blue")
    assert Note({}).input is None
    assert Note(None).input is None


def test_a_job_can_be_called_without_a_processor(done: list[Any]) -> None:
    job = Note()
    job.input = "bread"
    assert job(None) == "bread"
    assert done == ["bread"]
    assert job.status is None


def test_a_job_that_says_nothing_to_do_is_an_error_at_once() -> None:
    with pytest.raises(RemoteException, match="Job has no __call__"):
        Job()(None)


def test_a_clone_is_like_its_factory_and_has_its_own_input() -> None:
    factory = Lists({"input": ["factory"], "colours": ["red"], "maxRetries": 7, "jobName": "paint"})
    job = factory.getJob(["own"])
    assert type(job) is Lists
    assert (job.jobName, job.maxRetries, job.colours) == ("paint", 7, ["red"])
    job.colours.append("blue")
    assert factory.colours == ["red"]
    assert job.input == ["own"]
    assert factory.getJob().input == ["factory"]
    assert factory.getJob().input is not factory.input
    assert Note().getJob().input is None


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_an_input_that_counts_as_false_is_an_input(value: Any) -> None:
    assert Note({"input": "factory"}).getJob(value).input == value


def test_an_error_can_be_set_on_a_job() -> None:
    job = Note()
    job.setError(ValueError("too hot"))
    [error] = job.errors
    assert error.endswith("] too hot")
    assert "ValueError" in error.tb


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retryDelay", -1),
        ("retryDelay", "soon"),
        ("retryDelay", float("nan")),
        ("maxRetries", 0),
        ("maxRetries", True),
        ("maxRetries", 2.5),
        ("retryTime", datetime(2030, 1, 1)),
        ("retryTime", 5),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    job = Note()
    before = getattr(job, name)
    with pytest.raises(ValueError, match=name):
        setattr(job, name, value)
    assert getattr(job, name) == before
    with pytest.raises(ValueError, match=name):
        Note({name: value})


@pytest.mark.parametrize("data", ["text", [1], 5, {1: 2}, {"_p_jar": None}])
def test_a_job_is_made_of_a_dict_of_attributes(data: Any) -> None:
    with pytest.raises(ValueError, match="data must"):
        Note(data)


# -- factories -----------------------------------------------------------------------------


def test_a_factory_is_found_by_its_name(store: Any) -> None:
    remote = store.processor()
    factory = Note()
    assert remote.addJobFactory("bake", factory) is None
    store.commit()
    found = remote.getJobFactory("bake")
    assert isinstance(found, Note)
    assert repr(found) == "<Note 'bake'>"
    assert repr(remote._jobFactories["bake"]) == "<Note 'bake'>"
    assert "bake" in remote._jobFactories
    with store.elsewhere(remote) as other:
        assert repr(other.getJobFactory("bake")) == "<Note 'bake'>"


@pytest.mark.parametrize("name", ["nothing", None, 5, ["note"]])
def test_an_unknown_name_is_no_factory(remote: Any, name: Any) -> None:
    assert remote.getJobFactory(name) is None
    with pytest.raises(ValueError, match="no job factory"):
        remote.addJob(name)


@pytest.mark.parametrize("name", ["nothing", None, 5])
def test_containers_raise_key_errors(remote: Any, name: Any) -> None:
    for container in (remote._jobFactories, remote._jobs, remote._scheduler):
        with pytest.raises(KeyError):
            container[name]
        assert container.get(name) is None
        assert name not in container


def test_a_factory_is_replaced_by_one_of_the_same_class_alone(store: Any, remote: Any) -> None:
    remote.addJobFactory("note", Note({"maxRetries": 9}))
    assert remote.getJobFactory("note").maxRetries == 9
    for other in (Refuse(), Job()):
        with pytest.raises(ValueError, match="'note'"):
            remote.addJobFactory("note", other)
    assert remote.getJobFactory("note").maxRetries == 9
    remote.addJobFactory("note", remote.getJobFactory("note"))
    store.commit()
    assert remote._jobs[remote.addJob("note")].maxRetries == 9


def test_a_factory_has_one_name(remote: Any) -> None:
    factory = Note()
    remote.addJobFactory("one", factory)
    with pytest.raises(ValueError, match="already"):
        remote.addJobFactory("two", factory)
    assert repr(remote._jobFactories["one"]) == "<Note 'one'>"
    assert "two" not in remote._jobFactories


@pytest.mark.parametrize(("name", "job"), [(None, Note()), ("", Note()), ("x", 5), ("x", Note)])
def test_what_is_no_factory_is_refused(remote: Any, name: Any, job: Any) -> None:
    with pytest.raises(ValueError, match="job factory"):
        remote.addJobFactory(name, job)


@pytest.mark.parametrize("name", ["status", "output", "errors", "retryTime", "completed"])
def test_a_class_that_hides_what_becomes_of_its_jobs_is_refused(remote: Any, name: str) -> None:
    kind = type("Hiding", (Note,), {name: "mine"})
    with pytest.raises(ValueError, match=rf"Hiding\.{name}"):
        remote.addJobFactory("hiding", kind())
    assert remote.getJobFactory("hiding") is None


def test_a_job_is_no_factory(remote: Any) -> None:
    job = remote._jobs[remote.addJob("note")]
    with pytest.raises(ValueError, match="no job factory"):
        remote.addJobFactory("again", job)


def test_a_factory_that_an_abort_has_taken_out_can_be_added_again(store: Any, remote: Any) -> None:
    factory = Note()
    remote.addJobFactory("bake", factory)
    store.abort()
    assert remote.getJobFactory("bake") is None
    remote.addJobFactory("toast", factory)
    store.commit()
    assert repr(remote._jobs[remote.addJob("toast")]).startswith("<Note 'toast' ")


# -- adding ------------------------------------------------------------------------------------


def test_a_job_that_was_added_waits(store: Any, remote: Any) -> None:
    jobid = remote.addJob("note", {"flour": [500, "g"]})
    assert type(jobid) is str
    assert list(remote._jobs) == [jobid]
    job = remote._jobs[jobid]
    assert isinstance(job, Note)
    assert repr(job) == f"<Note 'note' {jobid}>"
    assert (job.__name__, job.jobName) == (jobid, "note")
    assert job.input == {"flour": [500, "g"]}
    assert remote.getJobStatus(jobid) == job.status == "queued"
    assert remote.getJobResult(jobid) is job.output is None
    assert remote.getJobErrors(jobid) == job.errors == []
    assert job.retryTime is None
    assert job.created == job.queued
    assert (job.picked, job.started, job.completed) == (None, None, None)
    store.commit()
    with store.elsewhere(remote) as other:
        assert other._jobs[jobid].input == {"flour": [500, "g"]}


def test_ids_tell_the_order_in_which_jobs_were_added(store: Any, remote: Any) -> None:
    jobids = []
    for number in range(6):
        jobids.append(remote.addJob("note", number))
        if number % 2:
            store.commit()
    assert jobids == sorted(set(jobids))
    assert [remote._jobs[jobid].input for jobid in sorted(remote._jobs)] == list(range(6))


def test_an_input_is_stored_as_it_was(remote: Any) -> None:
    input = {"numbers": [1]}
    jobid = remote.addJob("note", input)
    input["numbers"].append(2)
    assert remote._jobs[jobid].input == {"numbers": [1]}
    remote.processJobs()
    remote.getJobResult(jobid)["numbers"].append(3)
    assert remote._jobs[jobid].input == {"numbers": [1]}


def test_an_input_that_cannot_be_stored_is_refused(remote: Any) -> None:
    with pytest.raises(ValueError, match="input"):
        remote.addJob("note", lambda: None)
    assert len(remote._jobs) == 0


def test_the_input_of_the_factory_holds_for_jobs_without_their_own(remote: Any) -> None:
    remote.addJobFactory("bread", Note({"input": "bread"}))
    assert remote._jobs[remote.addJob("bread")].input == "bread"
    assert remote._jobs[remote.addJob("bread", "cake")].input == "cake"


def test_attributes_of_a_job_go_with_it(store: Any, remote: Any, attempt: Any) -> None:
    remote.addJobFactory("paint", Lists({"colours": ["red"]}))
    jobid = remote.addJob("paint")
    remote._jobs[jobid].colours = ["green"]
    store.commit()
    assert attempt(remote) is True
    assert remote.getJobResult(jobid) == ["green"]
    assert remote.getJobFactory("paint").colours == ["red"]


def test_attributes_may_have_any_names(store: Any, remote: Any, attempt: Any) -> None:
    names = ("owner", "due", "place", "task", "id", "note", "cancel", "wait", "start", "attempt")
    remote.addJobFactory("keep", Keep(dict.fromkeys(names, "mine")))
    jobid = remote.addJob("keep")
    store.commit()
    assert attempt(remote) is True
    job = remote._jobs[jobid]
    assert [getattr(job, name) for name in names] == ["mine"] * len(names)
    assert job.status == "completed"


@pytest.mark.parametrize("name", ["status", "output", "errors", "retryCounter", "created"])
def test_what_became_of_a_job_is_not_for_others_to_say(remote: Any, name: str) -> None:
    job = remote._jobs[remote.addJob("note")]
    before = getattr(job, name)
    with pytest.raises(AttributeError, match=name):
        setattr(job, name, "completed")
    assert getattr(job, name) == before


@pytest.mark.parametrize("jobid", ["nothing", "", "0" * 24, None, 5, b"0" * 24, []])
def test_an_unknown_id_is_a_key_error(remote: Any, jobid: Any) -> None:
    remote.addJob("note")
    for ask in (remote.getJobStatus, remote.getJobResult, remote.getJobErrors, remote.processJob):
        with pytest.raises(KeyError):
            ask(jobid)
    assert remote.cancelJob(jobid) is None
    assert [job.status for job in remote._jobs.values()] == ["queued"]


def test_a_job_that_was_aborted_is_not_there(store: Any, remote: Any) -> None:
    jobid = remote.addJob("note")
    store.abort()
    assert len(remote._jobs) == 0
    with pytest.raises(KeyError):
        remote.getJobStatus(jobid)
    assert remote.processNextJob() is False


# -- cancelling --------------------------------------------------------------------------------


def test_a_job_that_waits_is_cancelled(store: Any, remote: Any, attempt: Any, done: Any) -> None:
    jobid = remote.addJob("note")
    assert remote.cancelJob(jobid) is None
    assert remote.getJobStatus(jobid) == "cancelled"
    assert remote._jobs[jobid].completed is not None
    store.commit()
    assert attempt(remote) is False
    assert done == []


def test_a_job_that_waits_for_a_repeat_is_cancelled(remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("stumble")
    attempt(remote)
    remote.cancelJob(jobid)
    assert remote.getJobStatus(jobid) == "cancelled"
    assert len(remote.getJobErrors(jobid)) == 1


@pytest.mark.parametrize(("name", "status"), [("note", "completed"), ("refuse", "error")])
def test_what_has_ended_stays_so(remote: Any, attempt: Any, name: str, status: str) -> None:
    jobid = remote.addJob(name)
    attempt(remote)
    assert remote.cancelJob(jobid) is None
    assert remote.getJobStatus(jobid) == status


# -- removing ----------------------------------------------------------------------------------


@pytest.fixture
def one_of_each(store: Any, remote: Any, attempt: Any) -> dict[str, str]:
    """A job in each status, by status."""
    jobids = {"completed": remote.addJob("note")}
    store.commit()
    assert attempt(remote) is True
    jobids["error"] = remote.addJob("refuse")
    assert attempt(remote) is True
    jobids["cancelled"] = remote.addJob("note")
    remote.cancelJob(jobids["cancelled"])
    jobids["processing"] = remote.addJob("note")
    remote.pullNextJob()
    jobids["queued"] = remote.addJob("note")
    store.commit()
    for status, jobid in jobids.items():
        assert remote.getJobStatus(jobid) == status
    return jobids


ENDED = ["cancelled", "completed", "error"]


@pytest.mark.parametrize(
    ("arguments", "removed"),
    [
        ((), {"cancelled": 1, "completed": 1, "error": 1}),
        ((None, None), {"cancelled": 1, "completed": 1, "error": 1}),
        (("error",), {"error": 1}),
        ((["error"],), {"error": 1}),
        ((("error", "completed", "error"),), {"completed": 1, "error": 1}),
        (([],), {}),
        ((None, "error"), {"error": 1}),
        ((None, ["error", "cancelled"]), {"cancelled": 1, "error": 1}),
        (("error", ["error", "cancelled"]), {"error": 1}),
        (("queued", ["queued"]), {"queued": 1}),
        ((["queued", "error"], [*ENDED, "queued"]), {"error": 1, "queued": 1}),
    ],
)
def test_jobs_are_removed_by_their_status(
    store: Any,
    remote: Any,
    one_of_each: dict[str, str],
    arguments: tuple[Any, ...],
    removed: dict[str, int],
) -> None:
    counts = remote.removeJobs(*arguments)
    assert counts == removed
    assert list(counts) == sorted(counts)
    left = {jobid for status, jobid in one_of_each.items() if status not in removed}
    assert set(remote._jobs) == left
    store.commit()
    assert set(remote._jobs) == left
    assert remote.removeJobs(*arguments) == dict.fromkeys(removed, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("queued",),
        ("processing",),
        (["completed", "queued"],),
        ("error", ["completed"]),
        ("completed", []),
        (["completed", "processing"], ["completed", "processing"]),
        (["queued", "processing"], ["queued", "processing"]),
        (["completed", "nonsense"],),
        ("completed", "nonsense"),
        (5,),
        ([5],),
    ],
)
def test_nothing_is_removed_if_not_all_may_be(
    remote: Any, one_of_each: dict[str, str], arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(ValueError, match=r"removed|no status|collection"):
        remote.removeJobs(*arguments)
    assert set(remote._jobs) == set(one_of_each.values())


def test_what_was_removed_is_unknown(
    store: Any, remote: Any, one_of_each: dict[str, str], attempt: Any, done: list[Any]
) -> None:
    done.clear()
    remote.removeJobs(["queued", "completed"], ["queued", "completed"])
    for status in ("queued", "completed"):
        with pytest.raises(KeyError):
            remote.getJobStatus(one_of_each[status])
        assert remote.cancelJob(one_of_each[status]) is None
    store.commit()
    assert attempt(remote) is False
    assert done == []


def test_a_removal_that_was_aborted_has_removed_nothing(
    store: Any, remote: Any, one_of_each: dict[str, str]
) -> None:
    remote.removeJobs()
    store.abort()
    assert set(remote._jobs) == set(one_of_each.values())


# -- times -------------------------------------------------------------------------------------


def test_a_job_tells_when_what_happened(store: Any, remote: Any, attempt: Any) -> None:
    job = remote._jobs[remote.addJob("note")]
    store.commit()
    attempt(remote)
    times = [job.created, job.queued, job.picked, job.started, job.completed]
    assert all(time.tzinfo is timezone.utc for time in times)
    assert all(one <= other + timedelta(milliseconds=1) for one, other in pairwise(times))


def test_a_running_job_sees_that_it_runs(remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("tell")
    attempt(remote)
    assert remote.getJobResult(jobid) == {
        "status": "processing",
        "runs": 1,
        "picked": True,
        "started": True,
    }


def test_a_retry_time_of_another_zone_is_the_same_time(remote: Any) -> None:
    job = remote._jobs[remote.addJob("note")]
    job.retryTime = LATER.astimezone(timezone(timedelta(hours=5)))
    assert job.retryTime == LATER
    assert job.retryTime.tzinfo is timezone.utc


Change = Callable[[Any], None]


@pytest.mark.parametrize("name", ["note", "refuse"])
def test_a_job_that_has_ended_takes_no_retry_time(remote: Any, attempt: Any, name: str) -> None:
    job = remote._jobs[remote.addJob(name)]
    attempt(remote)
    with pytest.raises(ValueError, match="has ended"):
        job.retryTime = LATER
    assert job.retryTime is None
