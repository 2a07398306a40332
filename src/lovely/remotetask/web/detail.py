# SPDX-License-Identifier: ZPL-2.1
"""What an application tells of its jobs: see `IJobDetail`."""

from __future__ import annotations

import logging
from typing import Any

from transaction.interfaces import TransientError
from zope.component import queryMultiAdapter

from lovely.remotetask.errors import is_storage_fault, plain
from lovely.remotetask.interfaces import IJobDetail
from lovely.remotetask.remote.record import JobRecord

log = logging.getLogger("lovely.remotetask.web")

#: Characters of a detail that are shown.
MAX_DETAIL = 2_000


def detail_of(job: Any, request: Any) -> str | None:
    """Return what the application tells of a job; None where it has nothing to say.

    What its code raises is logged, and shown as nothing: a list must not fail for one of its jobs.

    Transaction: reads only.
    """
    pair = (job.input if isinstance(job, JobRecord) else job, request)
    try:
        for name in (f"{job.task}_detail", "detail"):
            detail = queryMultiAdapter(pair, IJobDetail, name=name)
            if detail is not None:
                return plain(str(detail()))[:MAX_DETAIL]
    except TransientError:
        raise
    except Exception as error:  # whatever the application's code raises
        if is_storage_fault(error):
            raise
        log.exception("job %s: its detail cannot be shown", job.__name__)
    return None
