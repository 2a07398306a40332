# SPDX-License-Identifier: ZPL-2.1
"""One thread's place at the database: a connection and its transactions."""

from __future__ import annotations

import logging
from typing import Any

import transaction
from transaction.interfaces import TransientError
from ZODB.POSException import POSKeyError

from lovely.remotetask.errors import (
    ServiceGone,
    TransactionInProgress,
    describe,
)
from lovely.remotetask.site import ROOT_NAME, ServicePath, is_reachable, site_of, traverse
from lovely.remotetask.surroundings import call_apart

log = logging.getLogger("lovely.remotetask")


class Seat:
    """One thread's connection to the service.

    :param manager: the transaction manager; by default the thread's own, so that what
        tasks find as ``transaction.get()`` is the transaction they run in.
    :ivar in_begin: the last transaction has not come further than its begin.
    :ivar in_commit: the last transaction has come to its commit: what fails is no task.
    """

    def __init__(self, db: Any, path: ServicePath | list[str], manager: Any = None) -> None:
        self.db = db
        self.path = path
        self.manager = transaction.manager.manager if manager is None else manager
        self.connection = db.open(self.manager)
        self.in_begin = self.in_commit = False

    @property
    def is_closed(self) -> bool:
        """Whether the database was closed."""
        return self.connection.opened is None or is_closed(self.db)

    def begin(self) -> Any:
        """Begin a transaction and return the service.

        :raises ServiceGone: it is not there.
        """
        self.in_commit = False
        self.in_begin = True
        self.manager.begin()
        service = self.service()
        self.in_begin = False
        return service

    def commit(self) -> None:
        """Commit."""
        self.in_commit = True
        txn = self.manager.get()
        if any((*txn.getBeforeCommitHooks(), *txn.getAfterCommitHooks())):
            call_apart(txn.commit)  # the task's hooks are the task's code
        else:
            txn.commit()

    def service(self) -> Any:
        """Return the service, in the current transaction."""
        oid = getattr(self.path, "oid", None)
        try:
            if oid is not None:
                service = self.connection.get(oid)
                service._p_activate()
                return service
            root = self.connection.root()
            return traverse(root.get(ROOT_NAME, root), self.path)
        except (POSKeyError, KeyError, AttributeError) as error:
            if self.is_closed:
                raise
            raise ServiceGone(f"there is no service at {'.'.join(self.path)}") from error

    def check_reachable(self, service: Any) -> None:
        """Check that the service was not taken out of the object tree.

        Its record can be loaded by oid until the database is packed.

        :raises ServiceGone: it was.
        """
        if getattr(self.path, "is_reachable", False) and not is_reachable(service):
            raise ServiceGone(f"there is no service at {'.'.join(self.path)}")

    def site(self, service: Any) -> Any:
        """Return the site that tasks of the service run in, or None."""
        oid = getattr(self.path, "site_oid", None)
        return site_of(service) if oid is None else self.connection.get(oid)

    def abort(self) -> None:
        """Abort, and let nothing that goes wrong with it hide what went wrong before."""
        try:
            call_apart(self.manager.abort)
        except Exception:
            log.debug("abort failed", exc_info=True)

    def close(self) -> None:
        """Give the connection back."""
        if is_closed(self.db):
            return  # whoever closes it is at this connection too
        self.abort()
        if not self.is_closed:
            self.connection.close()


def is_closed(db: Any) -> bool:
    """Say whether a database was closed."""
    return "storage" not in vars(db)  # its class has an attribute of the name


def check_no_transaction() -> None:
    """Refuse to go on in a thread whose current transaction has changes.

    :raises TransactionInProgress: beginning another one would lose them.
    """
    manager = transaction.manager.manager
    txn = getattr(manager, "_txn", None)
    if txn is not None and txn._resources:
        raise TransactionInProgress


def is_transient(seat: Seat, error: BaseException) -> bool:
    """Say whether the transaction may succeed when it is repeated; ask before abort."""
    if isinstance(error, TransientError):
        return True
    if isinstance(error, ValueError) and "already has the same oid" in describe(error):
        # After a crash of its server a ZEO client may use an oid again.
        return True
    try:
        return bool(seat.manager.get().isRetryableError(error))
    except Exception:  # a data manager of somebody's, or no transaction
        return False
