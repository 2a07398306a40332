# SPDX-License-Identifier: ZPL-2.1
"""Services that are to be started when the transaction is committed that stores them."""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from typing import Any

import transaction
from transaction.interfaces import NoTransaction

from lovely.remotetask.engine import registry
from lovely.remotetask.errors import ServiceNotStored

log = logging.getLogger("lovely.remotetask")


class _LaterStart:
    """A service that is to be started when the transaction is committed that stores it.

    It is a data manager, and so a rollback to a savepoint takes it back too.
    """

    def __init__(self, service: Any) -> None:
        self.service = service
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
                registry.start(connection.get(self.service._p_oid))
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


def start_later(service: Any) -> None:
    """Start a service when the transaction is committed that stores it.

    :raises ServiceNotStored: there is no such transaction.
    """
    txn = _storing(service)
    later = _LaterStart(service)
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


def forget(service: Any) -> None:
    """Do not start a service later: it was stopped before."""
    with suppress(ServiceNotStored, KeyError):
        for later in _storing(service).data(_LaterStart):
            if later.service is service:
                later.is_wanted = False
