"""Tests of the tasks in shelf.py; ``pytest`` runs them."""

from datetime import datetime, timezone

import pytest
import shelf
from persistent.mapping import PersistentMapping

from lovely.remotetask import TaskContext
from lovely.remotetask.errors import JobFailed
from lovely.remotetask.testing import assert_added, eager, run_all

pytest_plugins = ["lovely.remotetask.testing.fixtures"]


@pytest.fixture
def root(remotetask_root):
    """A shelf in a database in memory."""
    remotetask_root["texts"] = PersistentMapping()
    remotetask_root["words"] = PersistentMapping()
    return remotetask_root


@pytest.fixture
def service(remotetask_service):
    """The service beside it, as ``root["tasks"]``."""
    return remotetask_service


def test_a_task_is_a_function_that_can_be_called():
    assert shelf.proofread(TaskContext(service=None, jobid=1), 2) == "no mistakes"


def test_a_text_on_the_shelf_is_to_be_indexed(root, service):
    shelf.put(root, "poem", "the rain in the night")
    assert_added(service, "index", input="poem", times=1)
    assert not root["words"]


def test_the_job_indexes_it(root, service):
    jobid = shelf.put(root, "poem", "the rain in the night")
    run_all(service)
    assert service.getResult(jobid) == 5
    assert root["words"]["rain"] == ("poem",)


def test_a_task_that_adds_jobs_has_them_run(root, service):
    root["texts"].update(poem="the rain in the night", prose="a dark and stormy night")
    service.add("index all")
    ran = run_all(service)
    assert [job.task for job in ran] == ["index all", "index", "index"]
    assert set(root["words"]["night"]) == {"poem", "prose"}


def test_what_fails_is_raised(root, service):
    service.add("index", "song")
    with pytest.raises(JobFailed, match="There is no text called song"):
        run_all(service)


def test_jobs_can_run_when_they_are_added(root, service):
    with eager():
        shelf.put(root, "poem", "the rain in the night")
    assert root["words"]["rain"] == ("poem",)


def test_the_index_is_made_anew_at_night(root, service, remotetask_clock):
    remotetask_clock.set(datetime(2027, 3, 1, 22, 0, tzinfo=timezone.utc))
    service.ensure("nightly", shelf.index_all, cron="0 3 * * *")
    root["texts"]["poem"] = "the rain in the night"
    remotetask_clock.move(hours=4)
    assert run_all(service) == []
    remotetask_clock.move(hours=1)
    run_all(service)
    assert root["words"]["rain"] == ("poem",)
