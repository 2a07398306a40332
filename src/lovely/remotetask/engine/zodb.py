# SPDX-License-Identifier: ZPL-2.1
"""The engine of services in ZODB."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lovely.remotetask.base.site import ServicePath
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.execution import Execution
from lovely.remotetask.engine.session import is_closed
from lovely.remotetask.engine.upkeep import Upkeep
from lovely.remotetask.job import Job


class Engine:
    """One worker on one service.  See `protocol.Engine`.

    Threads bring their own `Session`.

    :param pause: called with seconds; waits, and says whether the processor is to stop.
    :param accepts: says whether this worker takes a job.
    """

    def __init__(
        self,
        db: Any,
        path: ServicePath | list[str],
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        accepts: Callable[[Job], bool] = lambda job: True,
    ) -> None:
        self.db = db
        self.claims = Claims(db, path, pause, clock, monotonic, accepts)
        self.execution = Execution(self.claims)
        self.news = self.claims.news
        self.upkeep = Upkeep(self.claims)

    @property
    def is_closed(self) -> bool:
        """See `protocol.Engine`."""
        return is_closed(self.db)

    def wait_for_storage(self, error: BaseException, faults: int) -> None:
        """See `protocol.Engine`."""
        self.claims.transact.wait_for_storage(error, faults)
