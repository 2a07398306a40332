# SPDX-License-Identifier: ZPL-2.1
"""Running jobs in the caller's transaction: what is kept, what is raised, what is taken."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import transaction
from transaction.interfaces import TransientError
from zope.component import getGlobalSiteManager
from zope.interface import Interface, implementer

from lovely.remotetask.remote.interfaces import IJob, IJobErrorMessage
from lovely.remotetask.remote.job import JobError
from remotejobs import Note, Refuse, Stumble

PAST = datetime(2000, 1, 1, tzinfo=timezone.utc)
LATER = datetime(2080, 1, 1, tzinfo=timezone.utc)


def messages(remote: Any, jobid: str) -> list[str]:
    return [error.split("] ", 1)[1] for error in remote.getJobErrors(jobid)]


# -- one job after the other ---------------------------------------------------------------


def test_jobs_run_in_the_order_in_which_they_were_added(
    store: Any, remote: Any, attempt: Any, done: list[Any]
) -> None:
    jobids = [remote.addJob("note", number) for number in range(3)]
    store.commit()
    assert attempt(remote) is True
    assert done == [0]
    assert [remote.getJobStatus(jobid) for jobid in jobids] == ["completed", "queued", "queued"]
    assert remote.getJobResult(jobids[0]) == 0
    assert remote.processJobs() is True
    assert done == [0, 1, 2]
    assert remote.processJobs() is False
    assert attempt(remote) is False


def test_a_job_that_was_added_just_now_runs(remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("note", "bread")
    assert remote.processNextJob() is True
    assert remote.getJobResult(jobid) == "bread"


def test_of_two_who_run_a_job_one_keeps_what_it_came_to(store: Any, remote: Any) -> None:
    jobid = remote.addJob("keep")
    store.commit()
    with suppress(TransientError):
        with store.elsewhere(remote) as other:
            other.processNextJob()
            remote.processNextJob()
        store.commit()
    store.abort()
    assert remote.getJobResult(jobid) == {"count": 1}
    assert remote._jobs[jobid].count == 1


def test_what_the_caller_aborts_has_not_been_run(store: Any, remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("keep")
    store.commit()
    assert remote.processNextJob() is True
    assert remote.getJobStatus(jobid) == "completed"
    store.abort()
    assert remote.getJobStatus(jobid) == "queued"
    assert remote._jobs[jobid].count == 0
    assert attempt(remote) is True
    assert remote.getJobResult(jobid) == {"count": 1}


def test_what_a_job_writes_is_kept_with_its_output(store: Any, remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("keep")
    store.commit()
    attempt(remote)
    with store.elsewhere(remote) as other:
        assert other._jobs[jobid].count == 1
        assert other.getJobResult(jobid) == {"count": 1}
    spread = remote.addJob("spread", ["flour", "water"])
    attempt(remote)
    added = remote.getJobResult(spread)
    assert [remote._jobs[each].input for each in added] == ["flour", "water"]


# -- failures --------------------------------------------------------------------------------


def test_a_remote_exception_is_the_end_and_is_not_raised(
    store: Any, remote: Any, attempt: Any, done: list[Any]
) -> None:
    jobid = remote.addJob("refuse")
    store.commit()
    assert attempt(remote) is True
    job = remote._jobs[jobid]
    assert (job.status, job.output, job.retryCounter, job.retryTime) == ("error", None, 1, None)
    assert job.completed is not None
    assert messages(remote, jobid) == ["it will not"]
    assert attempt(remote, callTime=LATER) is False
    assert done == ["refuse"]


def test_any_other_exception_is_raised_and_repeated(
    store: Any, remote: Any, attempt: Any, done: list[Any]
) -> None:
    jobid = remote.addJob("stumble", "as given")
    job = remote._jobs[jobid]
    store.commit()
    for runs in (1, 2):
        before = datetime.now(timezone.utc)
        with pytest.raises(ValueError, match="it stumbled"):
            remote.processNextJob(callTime=LATER)
        store.commit()
        assert (job.status, job.retryCounter) == ("queued", runs)
        assert before < job.retryTime - timedelta(seconds=10) <= datetime.now(timezone.utc)
        assert messages(remote, jobid) == ["it stumbled"] * runs
        assert attempt(remote) is False
    assert attempt(remote, callTime=LATER) is True
    assert (job.status, job.retryCounter, job.retryTime) == ("error", 3, None)
    assert messages(remote, jobid) == ["it stumbled"] * 3
    assert attempt(remote, callTime=LATER) is False
    assert done == ["stumble"] * 3


def test_nothing_of_a_run_that_failed_is_kept(store: Any, remote: Any, attempt: Any) -> None:
    remote.addJobFactory("careful", Stumble({"notes": ["from the factory"]}))
    jobid = remote.addJob("careful", "as given")
    store.commit()
    assert isinstance(attempt(remote), ValueError)
    for check in (lambda: None, store.abort):
        check()
        job = remote._jobs[jobid]
        assert (job.input, job.seen, job.notes) == ("as given", None, ["from the factory"])
        assert list(remote._jobs) == [jobid]
    with store.elsewhere(remote) as other:
        job = other._jobs[jobid]
        assert (job.input, job.seen, job.notes) == ("as given", None, ["from the factory"])
        assert (job.status, job.retryCounter) == ("queued", 1)


@pytest.mark.parametrize("name", ["drain", "seep"])
def test_what_a_job_changes_in_place_is_not_there_for_the_next_run(
    store: Any, remote: Any, attempt: Any, done: list[Any], name: str
) -> None:
    jobid = remote.addJob(name, [1, 2])
    job = remote._jobs[jobid]
    job.parts = ["a", "b"]
    job.retryDelay = 0
    store.commit()
    for _ in range(2):
        assert isinstance(attempt(remote), ValueError)
        assert (job.input, job.parts) == ([1, 2], ["a", "b"])
    assert remote.processNextJob() is True
    assert done == [([1, 2], ["a", "b"])] * 3
    for end in (lambda: None, store.commit):
        end()
        job = remote._jobs[jobid]
        assert (job.status, job.input, job.parts) == ("completed", [1, 2], ["a", "b"])
    with store.elsewhere(remote) as other:
        assert (other._jobs[jobid].input, other._jobs[jobid].parts) == ([1, 2], ["a", "b"])


@pytest.mark.parametrize("is_new", [True, False])
def test_nor_is_it_in_the_transaction_that_has_set_it(
    store: Any, remote: Any, done: list[Any], is_new: bool
) -> None:
    jobid = remote.addJob("drain", [0])
    if not is_new:
        store.commit()
    remote._jobs[jobid].input = [1, 2]
    remote._jobs[jobid].parts = ["a", "b"]
    remote._jobs[jobid].retryDelay = 0
    for _ in range(2):
        with pytest.raises(ValueError, match="it stumbled"):
            remote.processNextJob()
    assert remote.processNextJob() is True
    assert done == [([1, 2], ["a", "b"])] * 3
    assert remote.getJobStatus(jobid) == "completed"


def test_a_result_is_a_copy(store: Any, remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("note", {"bread": [1]})
    attempt(remote)
    remote.getJobResult(jobid)["bread"].append(2)
    assert remote.getJobResult(jobid) == {"bread": [1]}


def test_what_the_caller_has_written_before_is_kept(store: Any, remote: Any, attempt: Any) -> None:
    first = remote.addJob("stumble")
    second = remote.addJob("note")
    assert isinstance(attempt(remote), ValueError)
    assert remote.getJobStatus(first) == "queued"
    assert remote.getJobStatus(second) == "queued"


def test_a_job_that_raises_stops_those_that_follow(store: Any, remote: Any) -> None:
    jobids = [remote.addJob(name) for name in ("note", "refuse", "stumble", "note")]
    with pytest.raises(ValueError, match="it stumbled"):
        remote.processJobs()
    store.commit()
    statuses = [remote.getJobStatus(jobid) for jobid in jobids]
    assert statuses == ["completed", "error", "queued", "queued"]
    assert remote.processJobs() is True


def test_the_settings_of_a_job_hold_for_its_repeats(store: Any, remote: Any, attempt: Any) -> None:
    remote.addJobFactory("impatient", Stumble({"maxRetries": 2, "retryDelay": 0}))
    jobid = remote.addJob("impatient")
    store.commit()
    assert isinstance(attempt(remote), ValueError)
    assert attempt(remote) is True
    assert remote.getJobStatus(jobid) == "error"
    once = remote.addJob("impatient")
    remote._jobs[once].maxRetries = 1
    assert attempt(remote) is True
    assert remote.getJobStatus(once) == "error"
    assert remote._jobs[once].retryCounter == 1


def test_all_errors_of_many_runs_are_kept(store: Any, remote: Any, attempt: Any) -> None:
    remote.addJobFactory("stubborn", Stumble({"maxRetries": 30, "retryDelay": 0}))
    jobid = remote.addJob("stubborn")
    for _ in range(30):
        attempt(remote)
    assert remote.getJobStatus(jobid) == "error"
    assert len(remote.getJobErrors(jobid)) == 30


@pytest.mark.parametrize("name", ["commit", "abort"])
def test_a_job_that_meddles_with_the_transaction_is_an_error_at_once(
    store: Any, remote: Any, attempt: Any, done: list[Any], name: str
) -> None:
    jobid = remote.addJob("meddle", name)
    store.commit()
    txn = transaction.get()
    assert remote.processNextJob() is True
    assert transaction.get() is txn
    store.commit()
    assert remote.getJobStatus(jobid) == "error"
    assert len(remote.getJobErrors(jobid)) == 1
    assert attempt(remote, callTime=LATER) is False
    assert done == ["meddle"]


@pytest.mark.parametrize("name", ["exit", "unfit"])
def test_what_a_job_does_is_its_own_failure(
    store: Any, remote: Any, attempt: Any, name: str
) -> None:
    jobid = remote.addJob(name)
    store.commit()
    attempt(remote)
    assert len(remote.getJobErrors(jobid)) == 1
    assert remote.getJobResult(jobid) is None
    assert remote.getJobStatus(jobid) in ("queued", "error")


# -- errors ----------------------------------------------------------------------------------


def test_an_error_reads_as_a_text(remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("refuse")
    before = datetime.now(timezone.utc)
    attempt(remote)
    [error] = remote.getJobErrors(jobid)
    assert isinstance(error, str)
    assert error == f"[{error.created.isoformat()}] it will not"
    assert repr(remote.getJobErrors(jobid)) == f"['[{error.created.isoformat()}] it will not']"
    assert error.created.isoformat().endswith("+00:00")
    assert before <= error.created + timedelta(milliseconds=1)
    assert error.created <= datetime.now(timezone.utc)
    assert error.tb.startswith("Traceback")
    assert "RemoteException: it will not" in error.tb
    assert "def __call__" not in error.tb
    assert remote._jobs[jobid].errors == [error]


def test_errors_can_be_stored_elsewhere(store: Any, remote: Any, attempt: Any) -> None:
    import pickle

    jobid = remote.addJob("refuse")
    attempt(remote)
    [error] = remote.getJobErrors(jobid)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, JobError)
    assert (again, again.created, again.tb) == (error, error.created, error.tb)


def test_a_list_of_errors_is_a_copy(remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("refuse")
    attempt(remote)
    remote.getJobErrors(jobid).clear()
    assert len(remote.getJobErrors(jobid)) == 1


@implementer(IJobErrorMessage)
class Polite:
    """Says whose fault it was."""

    def __init__(self, job: Any, error: BaseException) -> None:
        self.text = f"{job.jobName} begs your pardon: {error}"

    def __str__(self) -> str:
        return self.text


@implementer(IJobErrorMessage)
class Rude:
    """Fails itself."""

    def __init__(self, job: Any, error: BaseException) -> None:
        raise KeyError("none of your business")


def test_an_adapter_words_the_message(remote: Any, attempt: Any) -> None:
    registry = getGlobalSiteManager()
    registry.registerAdapter(Polite, (IJob, Interface), IJobErrorMessage)
    jobid = remote.addJob("refuse")
    attempt(remote)
    assert messages(remote, jobid) == ["refuse begs your pardon: it will not"]


def test_an_adapter_that_fails_does_not_hide_the_error(remote: Any, attempt: Any) -> None:
    registry = getGlobalSiteManager()
    registry.registerAdapter(Rude, (IJob, Interface), IJobErrorMessage)
    jobid = remote.addJob("refuse")
    assert attempt(remote) is True
    assert messages(remote, jobid) == ["it will not"]


def test_a_job_can_note_errors_of_its_own(store: Any, remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("note")
    remote._jobs[jobid].setError(KeyError("flour"))
    store.commit()
    assert messages(remote, jobid) == ["'flour'"]
    assert remote.getJobStatus(jobid) == "queued"
    assert attempt(remote) is True
    assert messages(remote, jobid) == ["'flour'"]


# -- when and whether they are taken -----------------------------------------------------------


def test_a_job_is_taken_from_its_retry_time_on(remote: Any, attempt: Any) -> None:
    job = remote._jobs[remote.addJob("note")]
    job.retryTime = LATER
    assert attempt(remote, callTime=LATER - timedelta(seconds=1)) is False
    assert attempt(remote, callTime=LATER) is True
    assert job.status == "completed"


def test_the_time_of_a_call_says_nothing_about_when_a_job_ran(remote: Any, attempt: Any) -> None:
    job = remote._jobs[remote.addJob("note")]
    attempt(remote, callTime=LATER)
    assert job.picked < LATER
    assert job.completed < LATER


def test_an_early_call_leaves_the_times_of_other_jobs(remote: Any, attempt: Any) -> None:
    job = remote._jobs[remote.addJob("stumble")]
    attempt(remote)
    retryTime = job.retryTime
    assert attempt(remote, callTime=PAST) is False
    assert job.retryTime == retryTime


def test_setting_a_retry_time_holds_at_once_and_for_others_from_the_commit(
    store: Any, remote: Any, attempt: Any
) -> None:
    jobid = remote.addJob("stumble")
    attempt(remote)
    job = remote._jobs[jobid]
    assert attempt(remote) is False
    job.retryTime = PAST
    assert job.retryTime == PAST
    with store.elsewhere(remote) as other:
        assert other._jobs[jobid].retryTime > PAST
        assert other.pullNextJob() is None
    store.commit()
    with store.elsewhere(remote) as other:
        assert other._jobs[jobid].retryTime == PAST
    assert isinstance(attempt(remote), ValueError)
    job.retryTime = None
    assert isinstance(remote.pullNextJob(), Stumble)
    store.abort()
    assert job.retryTime > PAST
    assert attempt(remote) is False


def test_a_job_that_is_not_active_is_left_alone(store: Any, remote: Any, attempt: Any) -> None:
    jobid = remote.addJob("note")
    job = remote._jobs[jobid]
    store.commit()
    job.active = False
    assert job.status == "queued"
    assert remote.pullNextJob() is None
    with store.elsewhere(remote) as other:
        assert other._jobs[jobid].active is True
    store.commit()
    assert attempt(remote, callTime=LATER) is False
    with store.elsewhere(remote) as other:
        assert other._jobs[jobid].active is False
    job.active = True
    assert attempt(remote) is True
    assert job.status == "completed"


def test_a_job_can_rest_from_the_beginning(store: Any, remote: Any, attempt: Any) -> None:
    remote.addJobFactory("resting", Note({"active": False}))
    jobid = remote.addJob("resting")
    store.commit()
    assert remote.getJobStatus(jobid) == "queued"
    assert attempt(remote) is False
    remote._jobs[jobid].active = True
    assert attempt(remote) is True


def test_a_job_that_rests_keeps_its_retry_time(store: Any, remote: Any, attempt: Any) -> None:
    job = remote._jobs[remote.addJob("note")]
    job.retryTime = LATER
    job.active = False
    store.commit()
    assert attempt(remote, callTime=LATER) is False
    job.active = True
    assert job.retryTime == LATER
    assert attempt(remote) is False
    assert attempt(remote, callTime=LATER) is True


def test_a_job_that_rests_can_be_cancelled_and_removed(store: Any, remote: Any) -> None:
    jobids = [remote.addJob("note"), remote.addJob("note")]
    for jobid in jobids:
        remote._jobs[jobid].active = False
    store.commit()
    remote.cancelJob(jobids[0])
    assert remote.removeJobs(["cancelled", "queued"], ["cancelled", "queued"]) == {
        "cancelled": 1,
        "queued": 1,
    }
    assert len(remote._jobs) == 0


@pytest.mark.parametrize(
    "time",
    [datetime(2030, 1, 1), 5, "now"],
    ids=["naive", "number", "text"],
)
def test_a_call_time_is_an_aware_datetime(remote: Any, time: Any) -> None:
    remote.addJob("note")
    for call in (remote.processNextJob, remote.processJobs, remote.pullNextJob):
        with pytest.raises(ValueError, match="callTime"):
            call(callTime=time)
    assert [job.status for job in remote._jobs.values()] == ["queued"]


# -- queries -------------------------------------------------------------------------------------


INPUTS = [
    {"queue": "day", "size": 1, "of": {"shop": "main"}},
    {"queue": "night", "size": 2, "tags": ["large", "dark"]},
    "plain",
    None,
]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (None, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
        ({"input.queue": "night"}, [1]),
        ({"input.queue": {"$in": ["night", "day"]}}, [0, 1]),
        ({"input.queue": {"$in": []}}, []),
        ({"input.of.shop": "main"}, [0]),
        ({"input.of": {"shop": "main"}}, [0]),
        ({"input.tags": "dark"}, [1]),
        ({"input.queue": "day", "input.size": 1}, [0]),
        ({"input.queue": "day", "input.size": 2}, []),
        ({"input": "plain"}, [2]),
        ({"input.queue": None}, [2, 3]),
        ({"jobName": "note"}, [0, 1, 2, 3]),
        ({"jobName": {"$in": ["refuse", "stumble"]}}, []),
        ({"retryCounter": 0}, [0, 1, 2, 3]),
    ],
)
def test_a_query_limits_what_is_taken(
    store: Any, remote: Any, query: Any, numbers: list[int], done: list[Any]
) -> None:
    for input in INPUTS:
        remote.addJob("note", input)
    store.commit()
    assert remote.processJobs(query) is bool(numbers)
    assert done == [INPUTS[number] for number in numbers]
    store.abort()
    pulled = []
    while (job := remote.pullNextJob(jobQuery=query)) is not None:
        pulled.append(job.input)
    assert pulled == [INPUTS[number] for number in numbers]


@pytest.mark.parametrize("query", [5, "input", {1: 2}, {"": 1}])
def test_what_is_no_query_is_refused(remote: Any, query: Any) -> None:
    remote.addJob("note")
    for call in (remote.processNextJob, remote.processJobs, remote.pullNextJob):
        with pytest.raises(ValueError, match="jobQuery"):
            call(query)


# -- pulled first, run then --------------------------------------------------------------------


def test_a_job_that_was_pulled_is_run_by_its_id(store: Any, remote: Any, done: list[Any]) -> None:
    jobid = remote.addJob("note", "bread")
    store.commit()
    job = remote.pullNextJob()
    assert (job.__name__, job.status) == (jobid, "processing")
    assert remote.pullNextJob() is None
    assert done == []
    store.commit()
    assert remote.processNextJob() is False
    assert remote.processJob(jobid) is True
    store.commit()
    assert (job.status, job.output, done) == ("completed", "bread", ["bread"])


def test_a_job_that_was_pulled_runs_in_the_same_transaction(store: Any, remote: Any) -> None:
    remote.addJob("note")
    job = remote.pullNextJob()
    assert remote.processJob(job.__name__) is True
    assert job.status == "completed"


def test_what_was_pulled_in_another_transaction_is_run_here(store: Any, remote: Any) -> None:
    jobid = remote.addJob("note")
    store.commit()
    with store.elsewhere(remote) as other:
        assert other.pullNextJob().__name__ == jobid
    store.abort()
    assert remote.processJob(jobid) is True


def test_a_pull_that_was_aborted_has_taken_nothing(store: Any, remote: Any) -> None:
    jobid = remote.addJob("note")
    store.commit()
    remote.pullNextJob()
    store.abort()
    assert remote.getJobStatus(jobid) == "queued"
    assert remote.pullNextJob().__name__ == jobid


def test_a_job_that_was_pulled_raises_as_others_do(store: Any, remote: Any) -> None:
    remote.addJob("stumble")
    remote.addJob("refuse")
    first, second = remote.pullNextJob(), remote.pullNextJob()
    store.commit()
    with pytest.raises(ValueError, match="it stumbled"):
        remote.processJob(first.__name__)
    store.commit()
    assert (first.status, first.retryCounter) == ("queued", 1)
    assert remote.processJob(second.__name__) is True
    assert isinstance(second, Refuse)
    assert second.status == "error"


@pytest.mark.parametrize("status", ["queued", "completed", "cancelled"])
def test_what_is_not_being_processed_cannot_be_processed(
    store: Any, remote: Any, status: str
) -> None:
    jobid = remote.addJob("note")
    if status == "completed":
        remote.processNextJob()
    elif status == "cancelled":
        remote.cancelJob(jobid)
    store.commit()
    with pytest.raises(TypeError, match=status):
        remote.processJob(jobid)
    assert remote.getJobStatus(jobid) == status
