# SPDX-License-Identifier: ZPL-2.1
"""What surrounds the runs of job objects: the same as for tasks."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import transaction
import ZODB
import zope.event

from lovely.remotetask.around import (
    forget_around,
    forget_context,
    register_around,
    register_context,
)
from lovely.remotetask.engine.undoing import undo
from lovely.remotetask.events import JobAdded, JobCompleted, JobStarted
from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.store.joblog import log_of

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Note(Job):
    """Notes who runs it."""

    def __call__(self, processor: Any) -> str:
        logging.getLogger("shop").warning("run for %s", user.get())
        processor._p_jar.root()["noted"] = user.get()
        return user.get()


@pytest.fixture
def processor(file_db: ZODB.DB) -> Iterator[Any]:
    connection = file_db.open()
    processor = connection.root()["remote"] = RemoteProcessor()
    processor.addJobFactory("note", Note())
    transaction.commit()
    yield processor
    transaction.abort()
    connection.close()


def run(processor: Any) -> str:
    """Add a job as Ada, run it as nobody, and return its id."""
    token = user.set("Ada")
    jobid: str = processor.addJob("note")
    user.reset(token)
    transaction.commit()
    assert processor.processNextJob()
    transaction.commit()
    return jobid


@contextmanager
def acting(name: str) -> Iterator[None]:
    user.set(name)
    yield


def test_what_travels_and_what_is_put_around_and_what_is_logged(processor: Any) -> None:
    entered: list[str] = []

    @contextmanager
    def look(job: Any, context: Any) -> Iterator[None]:
        entered.append(f"{job.__name__} for {user.get()}")
        yield

    register_context("user", user.get, acting)
    register_around("look", look)
    try:
        jobid = run(processor)
    finally:
        forget_context("user")
        forget_around("look")
    assert processor.getJobResult(jobid) == "Ada"
    assert entered == [f"{jobid} for Ada"]
    [line] = log_of(processor, processor._jobs.record(jobid))
    assert line.text == "run for Ada"


def test_what_happens_is_told(processor: Any) -> None:
    heard: list[Any] = []
    zope.event.subscribers.append(heard.append)
    try:
        jobid = run(processor)
    finally:
        zope.event.subscribers.remove(heard.append)
    kinds = [type(event) for event in heard if getattr(event, "name", None) == jobid]
    assert kinds == [JobAdded, JobStarted, JobCompleted]


def test_what_a_job_has_done_is_undone(processor: Any) -> None:
    jobid = run(processor)
    root = processor._p_jar.root()
    assert root["noted"] == "nobody"
    undo(processor, processor._jobs.record(jobid).id, "Ada")
    assert "noted" not in root
    assert processor.getJobStatus(jobid) == "cancelled"
    assert not processor.processNextJob()
