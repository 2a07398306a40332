# SPDX-License-Identifier: ZPL-2.1
"""Transactions that are repeated after conflicts, and wait for a storage that is away."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import is_id_again
from lovely.remotetask.engine.protocol import Stopping
from lovely.remotetask.engine.session import SessionBase, is_transient
from lovely.remotetask.errors import ServiceGone, describe, is_storage_fault

log = logging.getLogger("lovely.remotetask")

#: How often one transaction is repeated after conflicts.
CONFLICT_BUDGET = 25

#: How often, if others must not be kept waiting.
QUICK_BUDGET = 5

#: How often it is repeated for ids that are in use: a ZEO client keeps a hundred in advance.
ID_BUDGET = 200

#: A repeated transaction waits up to this long, in seconds.
CONFLICT_CAP_SECONDS = 0.5

#: A storage that cannot write is asked again after this long at the most, in seconds.
FAULT_CAP_SECONDS = 15.0

#: Faults of one kind are logged once in so many seconds.
LOG_SECONDS = 60.0

Result = TypeVar("Result")


class Transactor:
    """Runs changes of a service in transactions of their own.

    :param name: the service, for the log.
    :param pause: called with seconds; waits, and says whether the processor is to stop.
    :ivar waits: how often the storage was waited for.
    :ivar has_missed: a record was missing; whoever mends that takes it back.
    """

    def __init__(
        self,
        name: str,
        pause: Callable[[float], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._pause = pause
        self._monotonic = monotonic
        self._logged: dict[str, float] = {}
        self._is_away = False  # the storage, and that was logged
        self._is_awaited = False  # by a transaction that is repeated until it comes to pass
        self.waits = 0
        self.has_missed = False
        self.on_missed: Callable[[], None] = lambda: None

    @property
    def is_away(self) -> bool:
        """Whether the storage is waited for, and that was logged."""
        return self._is_away

    def __call__(
        self,
        session: SessionBase,
        change: Callable[[Any], Result],
        gives_up: Callable[[Exception], bool] = lambda error: False,
    ) -> Result:
        """Call ``change(service)`` and commit; repeat it while the storage asks for it.

        :param gives_up: says of a fault of the storage whether it is raised, not waited for.
        :raises Stopping: the processor stops while the storage cannot write.
        :raises ServiceGone: the service was removed.
        """
        result: Result
        conflicts = faults = ids = 0
        while True:
            result, error, transient = attempt(session, change)
            if error is None:
                if self._is_away and (faults or not self._is_awaited):
                    self._say_back()
                return result
            if is_id_again(error) and ids < ID_BUDGET:
                ids += 1
            elif transient and conflicts < CONFLICT_BUDGET:
                conflicts += 1
                self.back_off(conflicts)
            elif is_storage_fault(error) or transient:
                if isinstance(error, POSKeyError):
                    _check_reachable(session)
                if gives_up(error):
                    raise error
                faults += 1
                session.empty_cache()  # in case that what is there is not what is stored
                self.wait_for_storage(error, faults, is_repeated=True)
            else:
                raise error

    def once(
        self, session: SessionBase, change: Callable[[Any], Result], goes_on: bool = False
    ) -> Result | None:
        """Call ``change(service)`` and commit; return None if that fails, but for conflicts.

        For what somebody tries again at the next look, and must not keep others waiting.

        :param goes_on: see `attempt`.
        :raises ServiceGone: the service was removed.
        """
        result: Result
        for conflicts in range(1, QUICK_BUDGET + 1):
            result, error, transient = attempt(session, change, goes_on)
            if error is None:
                return result
            if not transient:
                self.log(error)
                break
            self.back_off(conflicts)
        return None

    def back_off(self, conflicts: int) -> None:
        """Wait a little, by chance, so that two that collided do not collide again."""
        limit = min(CONFLICT_CAP_SECONDS, 0.002 * 2**conflicts)
        self._pause(random.uniform(0, limit))

    def wait_for_storage(
        self, error: BaseException, faults: int, is_repeated: bool = False
    ) -> None:
        """Wait, the longer the more faults came in a row.

        :param is_repeated: see `log`.
        :raises Stopping: the processor is to stop.
        """
        self.waits += 1
        self.log(error, is_repeated)
        if self._pause(min(FAULT_CAP_SECONDS, 0.05 * 2 ** min(faults, 20))):
            raise Stopping from error

    def log(self, error: BaseException, is_repeated: bool = False) -> None:
        """Log a fault, once a kind and minute; one of the storage once until it works again.

        :param is_repeated: the transaction is, and tells when it comes to pass; else any one does.
        """
        if isinstance(error, POSKeyError):
            self.has_missed = True
            self.on_missed()
        is_away = is_storage_fault(error)
        if is_away and self._is_away:
            self._is_awaited = self._is_awaited or is_repeated
            return
        kind = "storage" if is_away else type(error).__name__
        now = self._monotonic()
        if now - self._logged.get(kind, -LOG_SECONDS) < LOG_SECONDS:
            return
        self._logged[kind] = now
        if is_away:
            self._is_away, self._is_awaited = True, is_repeated
            text = "the storage of service %s does not work, waiting for it: %s: %s"
            message = " ".join(describe(error).split())  # drivers tell it in several lines
            log.warning(text, self._name, type(error).__name__, message[:200])
        else:
            log.error("service %s has stumbled, trying again", self._name, exc_info=error)

    def _say_back(self) -> None:
        self._is_away = self._is_awaited = False
        log.info("the storage of service %s works again", self._name)


def attempt(
    session: SessionBase, change: Callable[[Any], Any], goes_on: bool = False
) -> tuple[Any, Exception | None, bool]:
    """Call ``change(service)`` and commit, once.

    :param goes_on: go on in the transaction that was begun before, see `SessionBase.go_on`, and
        leave it to others if nothing came of it.
    :returns: what it has returned, the error with which all was aborted instead, and whether
        it may succeed when it is repeated.
    :raises ServiceGone: the service was removed.
    :raises Exception: the database was closed.
    """
    try:
        result = change(session.go_on() if goes_on else session.begin())
        if not (goes_on and session.is_untouched):
            session.commit()
    except ServiceGone:
        session.abort()
        raise
    except Exception as error:
        transient = is_transient(session, error)
        session.abort(error)
        if session.is_closed:
            raise
        return None, error, transient
    return result, None, False


def _check_reachable(session: SessionBase) -> None:
    """Raise if the service is gone: then its parts may be packed away."""
    try:
        session.check_reachable(session.begin())
    except Exception as error:
        if not is_storage_fault(error):
            raise
    session.abort()
