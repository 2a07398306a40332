# SPDX-License-Identifier: ZPL-2.1
"""Starting and stopping services, also those that the current transaction is to store first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import transaction
from transaction.interfaces import NoTransaction

from lovely.remotetask.engine import registry
from lovely.remotetask.errors import InvalidArgument, ServiceNotStored, number_of, shown

log = logging.getLogger("lovely.remotetask")

Start = Callable[[Any], Any]


class _LaterStart:
    """A service that is to be started when the transaction is committed that stores it.

    It is a data manager, and so a rollback to a savepoint takes it back too.
    """

    def __init__(self, service: Any, role: str, start: Start) -> None:
        self.service = service
        self.role = role
        self._start = start
        self.is_wanted = True

    def run(self, is_committed: bool) -> None:
        """Start the service, through another connection: as it is stored."""
        if not (is_committed and self.is_wanted):
            return
        jar = self.service._p_jar
        if jar is None:
            log.error("a service was not started: the transaction has not stored it")
            return
        try:
            with closing(jar.db().open(transaction.TransactionManager())) as connection:
                self._start(connection.get(self.service._p_oid))
        except Exception:  # nobody is there any more who could be told
            log.exception("service %s could not be started", self.service.__name__)

    def sortKey(self) -> str:
        """See `IDataManager`."""
        return f"~remotetask:{id(self)}"

    def abort(self, txn: Any) -> None:
        """See `IDataManager`."""
        self.is_wanted = False

    tpc_abort = abort

    def tpc_begin(self, txn: Any) -> None:
        """See `IDataManager`."""

    commit = tpc_vote = tpc_finish = tpc_begin

    def savepoint(self) -> _LaterStart:
        """See `ISavepointDataManager`."""
        return self

    def rollback(self) -> None:
        """See `IDataManagerSavepoint`: it was to be started before."""


def start_now_or_later(service: Any, role: str = "", start: Start = registry.start) -> None:
    """Start a service, or let the commit do it that stores it.

    :param role: see `registry.start`.
    :param start: called with the service.
    :raises ServiceNotStored: no transaction is to store it.
    """
    try:
        start(service)
    except ServiceNotStored:
        start_later(service, role, start)


def start_later(service: Any, role: str = "", start: Start = registry.start) -> None:
    """Start a service when the transaction is committed that stores it.

    :raises ServiceNotStored: there is no such transaction.
    """
    txn = _storing(service)
    later = _LaterStart(service, role, start)
    txn.join(later)
    txn.addAfterCommitHook(later.run)
    try:
        laters = txn.data(_LaterStart)
    except KeyError:
        laters = []
        txn.set_data(_LaterStart, laters)
    laters.append(later)


def _storing(service: Any) -> Any:
    """Return the transaction that is to store a new service.

    :raises ServiceNotStored: there is none.
    """
    around = service
    while around is not None and getattr(around, "_p_jar", None) is None:
        around = getattr(around, "__parent__", None)
    manager = transaction.manager.manager if around is None else around._p_jar.transaction_manager
    if manager is None:  # of a connection that was closed
        raise ServiceNotStored
    try:
        txn = manager.get()
    except NoTransaction:
        raise ServiceNotStored from None
    if not txn._resources:  # nothing was changed in it, so that it stores nothing
        raise ServiceNotStored
    return txn


def stop(service: Any, timeout_seconds: float | None, role: str = "") -> bool:
    """Stop a service, and do not start it later; say whether it was started, or was to be.

    :param timeout_seconds: how long to wait for its threads; None is as long as it takes.
    """
    seconds = None if timeout_seconds is None else number_of(timeout_seconds)
    if seconds is not None and not seconds >= 0:
        raise InvalidArgument(
            f"timeout_seconds must be 0 or more seconds, not {shown(timeout_seconds)}"
        )
    was_wanted = _forget(service, role)
    return registry.stop(service, seconds, role) or was_wanted


def _forget(service: Any, role: str) -> bool:
    was_wanted = False
    with suppress(ServiceNotStored, KeyError):
        for later in _storing(service).data(_LaterStart):
            if later.service is service and later.role == role:
                was_wanted = was_wanted or later.is_wanted
                later.is_wanted = False
    return was_wanted
