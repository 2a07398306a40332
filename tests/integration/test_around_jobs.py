# SPDX-License-Identifier: ZPL-2.1
"""What surrounds jobs that run in threads."""

from __future__ import annotations

import contextvars
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zope.event

from lovely.remotetask.around import forget_around, register_around
from lovely.remotetask.events import JobAdded, JobCompleted, JobEvent, JobStarted
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.processor import MultiProcessor

JOBS = 40

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=-1)
log = logging.getLogger("shop")


@contextmanager
def numbered(job: Any, context: Any) -> Iterator[None]:
    assert number.get() == -1
    number.set(job.input)
    log.warning("begin %d", job.input)
    yield


def test_threads_keep_their_jobs_apart(workplace: Any, register: Any) -> None:
    register("tell", lambda input: log.warning("run %d as %d", input, number.get()))
    heard: list[Any] = []
    zope.event.subscribers.append(heard.append)
    register_around("numbered", numbered)
    try:
        with workplace.service() as service:
            service.processorFactory = MultiProcessor
        workplace.start(waitTime=0.05, maxThreads=4)
        jobids = workplace.add("tell", *range(JOBS))
        assert workplace.wait_for(jobids) == [COMPLETED] * JOBS
        workplace.stop()
    finally:
        forget_around("numbered")
        zope.event.subscribers.remove(heard.append)
    with workplace.service() as service:
        for n, jobid in enumerate(jobids):
            texts = [line.text for line in service.getLog(jobid)]
            assert texts == [f"begin {n}", f"run {n} as {n}"]
    told = Counter((type(e), e.jobid) for e in heard if isinstance(e, JobEvent))
    kinds = (JobAdded, JobStarted, JobCompleted)
    assert told == Counter((kind, jobid) for kind in kinds for jobid in jobids)


def test_what_a_long_run_logs_is_seen_while_it_runs(
    workplace: Any, register: Any, until: Any
) -> None:
    def tell_until_it_is_heard(input: Any) -> None:
        log.warning("begun")
        while not workplace.gate.wait(0.02):
            log.warning("going on")

    register("tell on", tell_until_it_is_heard)
    workplace.start(waitTime=0.05)
    [jobid] = workplace.add("tell on", None)

    def seen() -> list[str]:
        with workplace.service() as service:
            return [line.text for line in service.getLog(jobid)]

    until(lambda: "begun" in seen(), "what the job has logged")
    workplace.gate.set()
    assert workplace.wait_for([jobid]) == [COMPLETED]
    assert "going on" in seen()
    workplace.stop()
