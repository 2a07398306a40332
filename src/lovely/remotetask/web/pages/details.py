# SPDX-License-Identifier: ZPL-2.1
"""What stands in the column Detail: what the application tells of a job, or else what we know."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.errors import text_of
from lovely.remotetask.interfaces import CRONJOB
from lovely.remotetask.job import CronJob
from lovely.remotetask.web.detail import detail_of
from lovely.remotetask.web.facts import input_of
from lovely.remotetask.web.pages import scheduleform, wording
from lovely.remotetask.web.schedules import fields_of


def line_of(service: Any, job: Any, request: Any) -> str:
    """Return what stands in the column Detail of a job."""
    told = detail_of(job, request)
    if told is not None:
        return wording.shortened(told)
    waits_for = job.waits_for
    known = _known(service, job)
    if waits_for is None:
        return wording.shortened(known)
    # Of both something has to be seen.
    short = wording.shortened(known, wording.MAX_DETAIL // 2)
    return wording.shortened(
        " \N{MIDDLE DOT} ".join(filter(None, (short, f"waits for {waits_for}")))
    )


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
