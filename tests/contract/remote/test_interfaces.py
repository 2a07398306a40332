# SPDX-License-Identifier: ZPL-2.1
"""What the second door shows to the outside: interfaces, names, defaults."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from zope.component import getGlobalSiteManager
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject
from zope.location.interfaces import ILocation

from lovely.remotetask import remote
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.remote import exceptions, interfaces, testing
from lovely.remotetask.remote.job import Job, JobError
from lovely.remotetask.remote.scheduler import Cron, Delay
from lovely.remotetask.remote.worker import MultiJobWorker, SchedulerWorker, SimpleJobWorker


@pytest.mark.parametrize(
    ("name", "find"),
    [
        ("IRemoteProcessor", lambda remote: remote),
        ("IJobFactories", lambda remote: remote._jobFactories),
        ("IJobs", lambda remote: remote._jobs),
        ("IScheduler", lambda remote: remote._scheduler),
        ("IJob", lambda remote: remote._jobs[remote.addJob("note")]),
        ("IJob", lambda remote: remote.getJobFactory("note")),
        ("IJob", lambda remote: Job()),
        ("IWorker", SimpleJobWorker),
        ("ISimpleJobWorker", SimpleJobWorker),
        ("IWorker", MultiJobWorker),
        ("IMultiJobWorker", MultiJobWorker),
        ("IWorker", SchedulerWorker),
        ("ISchedulerWorker", SchedulerWorker),
        ("ISchedulerItem", lambda remote: Delay({"delay": 5})),
        ("IDelay", lambda remote: Delay({"delay": 5})),
        ("ISchedulerItem", lambda remote: Cron()),
        ("ICron", lambda remote: Cron()),
    ],
)
def test_objects_keep_what_their_interfaces_promise(remote: Any, name: str, find: Any) -> None:
    interface = getattr(interfaces, name)
    assert name in interfaces.__all__
    assert verifyObject(interface, find(remote))


def test_an_error_in_a_job_keeps_what_its_interface_promises(remote: Any) -> None:
    jobid = remote.addJob("refuse")
    remote.processJobs()
    [error] = remote.getJobErrors(jobid)
    assert isinstance(error, JobError)
    assert verifyObject(interfaces.IJobError, error)


def test_the_adapter_for_messages_keeps_what_its_interface_promises() -> None:
    testing.setUpJobErrorMessageAdapter()
    message = getGlobalSiteManager().queryMultiAdapter(
        (Job(), ValueError("no")), interfaces.IJobErrorMessage
    )
    assert verifyObject(interfaces.IJobErrorMessage, message)
    assert str(message) == "no"


def test_every_interface_is_exported() -> None:
    found = [name for name, value in vars(interfaces).items() if isinstance(value, InterfaceClass)]
    own = [name for name in found if getattr(interfaces, name).__module__ == interfaces.__name__]
    assert sorted(own) == sorted(name for name in interfaces.__all__ if name.startswith("I"))


def test_jobs_have_five_statuses() -> None:
    names = ["queued", "processing", "cancelled", "completed", "error"]
    assert names == interfaces.JOB_STATUS_NAMES
    for name in names:
        assert getattr(interfaces, name.upper()) == name


def test_a_remote_exception_is_an_error_of_the_package() -> None:
    assert issubclass(exceptions.RemoteException, RemoteTaskError)


@pytest.mark.parametrize("name", ["job", "processor", "scheduler", "worker", "testing"])
def test_the_rooms_are_told_in_the_docstring_of_the_folder(name: str) -> None:
    assert f"``{name}``" in (remote.__doc__ or "")


# -- processors --------------------------------------------------------------------------


def test_a_processor_takes_no_arguments_and_has_no_name(store: Any) -> None:
    processor = store.new_processor()
    assert ILocation.providedBy(processor)
    assert processor.__name__ is None
    assert processor.__parent__ is None
    assert repr(processor) == f"<{type(processor).__name__} None>"
    processor.__name__ = "first"
    assert repr(processor) == f"<{type(processor).__name__} 'first'>"


def test_a_processor_has_workers_and_their_arguments(remote: Any) -> None:
    kinds = type(remote).__mro__
    kind = next(each for each in kinds if each.__name__.endswith("RemoteProcessor"))
    assert kind.jobWorkerFactory is SimpleJobWorker
    assert set(kind.jobWorkerArguments) == {"jobQuery", "waitTime", "maxThreads"}
    assert kind.jobWorkerArguments["jobQuery"] is None
    assert kind.jobWorkerArguments["waitTime"] == 1.0
    assert kind.jobWorkerArguments["maxThreads"] >= 1
    assert kind.schedulerWorkerFactory is SchedulerWorker
    assert kind.schedulerWorkerArguments == {"waitTime": 1.0}


def test_what_is_set_on_a_processor_is_its_own(store: Any, remote: Any) -> None:
    remote.jobWorkerArguments = {"waitTime": 3.0}
    store.commit()
    with store.elsewhere(remote) as other:
        assert other.jobWorkerArguments == {"waitTime": 3.0}
    assert type(remote).jobWorkerArguments != {"waitTime": 3.0}


def test_a_new_processor_does_nothing(remote: Any) -> None:
    assert remote.isProcessing is False
    assert remote.isScheduling is False
    assert remote.processorStartTime is None
    assert remote.schedulerStartTime is None
    assert len(remote._jobs) == 0
    assert len(remote._scheduler) == 0
    assert remote.processNextJob() is False
    assert remote.processJobs() is False
    assert remote.scheduleNextJob() is None
    assert remote.pullNextJob() is None


# -- jobs of the testing module ------------------------------------------------------------


def test_jobs_to_test_with(
    store: Any, attempt: Any, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "testCounter", 0)
    remote = store.processor()
    remote.addJobFactory("echo", testing.EchoJob())
    remote.addJobFactory("error", testing.ErrorJob())
    remote.addJobFactory("fatal", testing.FatalErrorJob())
    remote.addJobFactory("sleep", testing.SleepJob())
    remote.addJobFactory("abort", testing.TransactionAbortJob())
    echo = remote.addJob("echo", "hello")
    assert attempt(remote) is True
    assert remote.getJobResult(echo) == "hello"
    error = remote.addJob("error")
    assert attempt(remote) is True
    assert remote.getJobStatus(error) == "error"
    fatal = remote.addJob("fatal")
    raised = attempt(remote)
    assert not isinstance(raised, exceptions.RemoteException)
    assert str(raised) == "An error occurred."
    assert remote.getJobStatus(fatal) == "queued"
    assert [message.split("] ")[1] for message in remote.getJobErrors(error)] == [str(raised)]
    remote.addJob("sleep", (0, 7))
    assert attempt(remote) is True
    assert "Job: 7" in logged()
    abort = remote.addJob("abort", 8)
    assert attempt(remote) is True
    assert remote.getJobStatus(abort) == "error"
    assert testing.testCounter == 1


def test_setting_up_the_adapter_twice_does_no_harm() -> None:
    testing.setUpJobErrorMessageAdapter()
    testing.setUpJobErrorMessageAdapter()


def test_times_are_in_utc(remote: Any) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    job = remote._jobs[remote.addJob("note")]
    assert job.created.tzinfo is timezone.utc
    assert before <= job.created <= datetime.now(timezone.utc)
