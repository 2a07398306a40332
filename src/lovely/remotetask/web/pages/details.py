# SPDX-License-Identifier: ZPL-2.1
"""What is told of a job in the column Detail and on its page: see `IJobDetail`."""

from __future__ import annotations

import logging
from typing import Any

from transaction.interfaces import TransientError
from zope.component import queryMultiAdapter

from lovely.remotetask.errors import describe, is_storage_fault, text_of
from lovely.remotetask.interfaces import CRONJOB, IJobDetail
from lovely.remotetask.job import CronJob
from lovely.remotetask.web.facts import input_of
from lovely.remotetask.web.pages import scheduleform, wording
from lovely.remotetask.web.schedules import fields_of

log = logging.getLogger("lovely.remotetask.web")


def detail_of(job: Any, request: Any) -> str | None:
    """Return what an application tells of a job; None if it tells nothing."""
    try:
        for name in (f"{job.task}_detail", "detail"):
            adapter = queryMultiAdapter((job, request), IJobDetail, name)
            if adapter is not None:
                return text_of(adapter())
    except Exception as error:  # of code that is not ours: it spoils no page
        if is_storage_fault(error) or isinstance(error, TransientError):
            raise
        log.warning("the detail of job %s failed", job.__name__, exc_info=True)
        return f"(its detail cannot be told: {describe(error)})"
    return None


def line_of(service: Any, job: Any, request: Any) -> str:
    """Return what stands in the column Detail: what the application tells, or else what we know."""
    told = detail_of(job, request)
    if told is None:
        told = _known(service, job)
    return wording.shortened(told)


def _known(service: Any, job: Any) -> str:
    if job.error is not None:
        return text_of(job.error)
    progress = service.progress.get(job.id)
    if progress is not None:
        return progress_text(progress)
    if job.note:
        return str(job.note)
    if isinstance(job, CronJob) and job.status == CRONJOB:
        return scheduleform.told(fields_of(job))
    given = input_of(job)
    return "" if given is None else wording.brief(given)


def progress_text(progress: Any) -> str:
    """Return how far a job is, in words."""
    total = "" if progress.total is None else f" of {progress.total:g}"
    text = f"{progress.done:g}{total}"
    return f"{text}: {progress.message}" if progress.message else text
