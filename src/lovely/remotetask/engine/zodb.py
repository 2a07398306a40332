# SPDX-License-Identifier: ZPL-2.1
"""The engine of services in ZODB."""

from __future__ import annotations

from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.execution import Execution
from lovely.remotetask.engine.finishing import Finishing
from lovely.remotetask.engine.session import is_closed
from lovely.remotetask.engine.upkeep import Upkeep


class Engine:
    """What is done for one worker.  See `protocol.Engine`.

    :param claims: what the worker has in hand.
    """

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.execution = Execution(claims)
        self.execution.finishing = Finishing(claims, self.execution.fail)
        self.news = claims.news
        self.upkeep = Upkeep(claims)

    @property
    def is_closed(self) -> bool:
        """See `protocol.Engine`."""
        return is_closed(self.claims.db)

    def wait_for_storage(self, error: BaseException, faults: int) -> None:
        """See `protocol.Engine`."""
        self.claims.transact.wait_for_storage(error, faults)
