# SPDX-License-Identifier: ZPL-2.1
"""Jobs that are put aside, as a storage has no room for what their runs have written.

It has room for less, and other databases have room of their own, so there is no reason to wait with
all.  It is no attempt of such a job.
"""

from __future__ import annotations

import logging
from typing import Any

from lovely.remotetask.base.ownership import wrote
from lovely.remotetask.engine.fence import held_job
from lovely.remotetask.engine.hand import Hand
from lovely.remotetask.engine.outcome import MAX_MESSAGE, judge, rest, settle
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.engine.session import Session
from lovely.remotetask.errors import describe, name_of
from lovely.remotetask.job import Failure, Job, job_log

#: A job for whose run there is no room is put aside for so many seconds at first, and at last.
ASIDE_SECONDS = 1.0
ASIDE_CAP_SECONDS = 15.0


def put_aside(claims: Hand, session: Session, claim: Claim, error: BaseException) -> str:
    """Put back a job for whose run a storage has no room, and commit; return its status.

    :raises Fenced: the job is no longer held.
    """

    def change(service: Any) -> tuple[str, bool]:
        job = held_job(service, claim)
        is_known = _wait_for_room(service, job, error, claims.clock())
        return job.status, is_known

    status, is_known = claims.transact(session, change)
    job_log.log(
        logging.DEBUG if is_known else logging.WARNING,
        "job %s: task %s, attempt %s cannot be stored, waiting for room: %s: %s",
        claim.name,
        claim.task,
        claim.attempt,
        name_of(error),
        describe(error),
    )
    return status


def _wait_for_room(service: Any, job: Job, error: BaseException, now: float) -> bool:
    """Put back a job, the longer the longer there has been no room for its run.

    Why is noted beside its failures, as it is when a process is stopped that runs a job.

    :returns: whether it was noted before.
    """
    wrote(service, job)
    kind = name_of(error)
    noted = [f for f in job.failures[-1:] if (f.attempt, f.type) == (job.attempt, kind)]
    if job.id in service.requests:
        settle(service, job, judge(job, None, error, now), now)
        return bool(noted)
    if not noted:
        job.note_failure(Failure(job.attempt, now, kind, describe(error)[:MAX_MESSAGE], ""))
    since = noted[0].time if noted else now
    job.postpone(now, min(ASIDE_CAP_SECONDS, max(ASIDE_SECONDS, now - since)))
    rest(service, job)
    return bool(noted)
