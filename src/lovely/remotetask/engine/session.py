# SPDX-License-Identifier: ZPL-2.1
"""One thread's place at the database: a connection and its transactions."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import transaction
from transaction.interfaces import TransientError
from ZODB.Connection import noop
from ZODB.POSException import POSKeyError

from lovely.remotetask.base.forking import unforked
from lovely.remotetask.base.guard import asked, commit_whole, guarded
from lovely.remotetask.base.isolation import call_isolated
from lovely.remotetask.base.ownership import check_parts, is_id_again
from lovely.remotetask.base.site import ROOT_NAME, ServicePath, is_reachable, site_of, traverse
from lovely.remotetask.engine.telling import Notes, taken_over
from lovely.remotetask.engine.wakeup import drop_ids
from lovely.remotetask.errors import (
    OldRecord,
    ServiceGone,
    StrayObject,
    TransactionInProgress,
    check_honest,
    is_kind,
)

log = logging.getLogger("lovely.remotetask")

Result = TypeVar("Result")


class SessionBase:
    """One thread's place at a store, and its transactions.

    It is of one process: a forked child that comes to the end of a transaction here ends itself.

    :param manager: the transaction manager; by default the thread's own, so that what
        tasks find as ``transaction.get()`` is the transaction they run in.
    :ivar in_begin: the last transaction has not come further than its begin.
    :ivar in_commit: the last transaction has come to its commit: what fails is no task.
    """

    def __init__(self, manager: Any = None) -> None:
        self.manager = transaction.manager.manager if manager is None else manager
        self.in_begin = self.in_commit = False
        self._process = unforked()

    #: Where the service is, for events: path, name of the database, object id; None: no events.
    place: tuple[str, str, bytes | None] | None = None

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Whether the store was closed."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether what leads to the store is still this session's."""

    @abstractmethod
    def begin(self) -> Any:
        """Begin a transaction and return the service.

        :raises ServiceGone: it is not there.
        """

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has come of the transaction that was begun last: it can go on."""
        return False

    def go_on(self) -> Any:
        """Return the service in that transaction, if it is untouched; else begin one.

        It is for what only looks at first: a transaction takes a round trip or two.

        :raises ServiceGone: it is not there.
        """
        return self.begin()

    @abstractmethod
    def site(self, service: Any) -> Any:
        """Return the site that tasks of the service run in, or None."""

    @abstractmethod
    def check_reachable(self, service: Any) -> None:
        """Check that the service is still there.

        :raises ServiceGone: it is not.
        """

    @abstractmethod
    def empty_cache(self) -> None:
        """Forget what was loaded."""

    @abstractmethod
    def close(self) -> None:
        """End the session."""

    def commit(self) -> None:
        """Commit, and tell what has happened.

        :raises TransactionMeddled: a hook or a data manager would have ended the transaction.
        """
        self._process.check()
        self.in_commit = True
        notes: Notes | None = None
        try:
            self.call_hooks()
            txn = self.manager.get()
            if hooks_of(txn):
                notes = taken_over(txn)
                txn.addBeforeCommitHook(self._process.check)  # the last one, before all is stored
                call_isolated(commit_whole, txn)  # the task's hooks are the task's code
            else:
                self.commit_changes(txn)
        except BaseException as error:
            check_honest(error)
            raise
        if notes is not None:
            notes.tell()

    def call_hooks(self) -> None:
        """Call what is to be called before the commit, under the guard: the rest calls it no more.

        :raises TransactionMeddled: a hook would have ended the transaction.
        """
        txn = self.manager.get()
        if next(txn.getBeforeCommitHooks(), None) is not None:
            self.in_commit = True
            try:
                with guarded(self.manager):
                    call_isolated(txn._callBeforeCommitHooks)
            except BaseException as error:
                check_honest(error)
                raise

    def commit_changes(self, txn: Any) -> None:
        """Commit a transaction that has no hooks."""
        commit_whole(txn)

    def abort(self, error: BaseException | None = None) -> None:
        """Abort, and let nothing that goes wrong with it hide what went wrong before.

        :param error: what went wrong.
        """
        self._process.check(error)
        try:
            call_isolated(self.manager.abort)
        except KeyboardInterrupt:
            raise
        except BaseException:  # of the task's hooks and data managers
            log.debug("abort failed", exc_info=True)

    def ask(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call what asks somebody's code, and return its answer.

        The transaction ends with that: nothing that was done to it is kept.
        """
        answer = asked(self.manager, function, *arguments)
        self.abort()
        return answer

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and not self.is_closed:
            self.abort()
            self.empty_cache()  # whoever has the place next must not stumble over the same
        self.close()


class Session(SessionBase):
    """One thread's connection to a service in ZODB."""

    def __init__(self, db: Any, path: ServicePath | list[str], manager: Any = None) -> None:
        super().__init__(manager)
        self.db = db
        self.path = path
        self.connection = db.open(self.manager)
        self.place = (".".join(path), db.database_name, getattr(path, "oid", None))
        self._own_room: int | None = None  # of the connection's cache, before it got more
        self._begun: Any = None  # the last transaction that has come further than its begin

    @property
    def is_closed(self) -> bool:
        """Whether the database was closed."""
        return is_closed(self.db)

    @property
    def is_open(self) -> bool:
        """Whether the connection, and those to other databases beside it, are this session's.

        One that a task has closed may be somebody else's by now.
        """
        connections = self.connection.connections
        if len(connections) == 1:
            return self._is_mine(self.connection)
        return all(map(self._is_mine, connections.values()))

    def _is_mine(self, connection: Any) -> bool:
        return connection.opened is not None and connection.transaction_manager is self.manager

    def begin(self) -> Any:
        """Begin a transaction and return the service.

        :raises ServiceGone: it is not there.
        """
        self.in_commit = False
        self.in_begin = True
        self.renew()
        if not self.is_open:
            self._open_anew()
        service = self.service()
        try:
            check_parts(service)
        except OldRecord as error:  # no service that anybody could work on
            raise ServiceGone(str(error)) from error
        self.in_begin = False
        self._begun = self.manager.get()
        return service

    @property
    def is_untouched(self) -> bool:
        """See `SessionBase`."""
        txn = self.manager.get()
        return txn is self._begun and self.is_open and not (txn._resources or hooks_of(txn))

    def go_on(self) -> Any:
        """See `SessionBase`."""
        return self.service() if self.is_untouched else self.begin()

    def renew(self) -> None:
        """Begin a transaction, in which what others have committed can be seen."""
        if self._is_mine(self.connection):
            with _begun_by_us(self.connection):
                self.manager.begin()
        else:
            self.manager.begin()

    def make_room(self, objects: int) -> None:
        """Let the connection keep at least so many objects loaded, until the session is closed."""
        cache: Any = getattr(self.connection, "_cache", None)
        before = getattr(cache, "cache_size", objects)
        if before < objects:
            cache.cache_size = objects
            if self._own_room is None:
                self._own_room = before

    def _give_room_back(self) -> None:
        if self._own_room is not None:
            self.connection._cache.cache_size = self._own_room
            self._own_room = None

    def _open_anew(self) -> None:
        self._own_room = None
        if self.connection.transaction_manager is self.manager:
            self.connection.close()  # of those beside it one was closed
        self.connection = self.db.open(self.manager)

    def empty_cache(self) -> None:
        """Forget what was loaded: it may be no longer what is stored; see `ownership`.

        Emptied, a connection is as good as a new one: each object is a ghost, and ghosts
        refer to nothing.
        """
        if self.is_open:
            self.connection.cacheMinimize()

    def commit_changes(self, txn: Any) -> None:
        """See `SessionBase`."""
        with _begun_by_us(self.connection):
            commit_whole(txn)

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
        if oid is None:
            return site_of(service)
        name = self.path.site_database  # type: ignore[union-attr]
        # Not `get_connection` for its own database: where both databases are opened by themselves,
        # ZODB mixes up the connections that belong together, and it returns another one.
        if name in (None, self.db.database_name):
            return self.connection.get(oid)
        return self.connection.get_connection(name).get(oid)

    def abort(self, error: BaseException | None = None) -> None:
        """See `SessionBase`."""
        super().abort(error)
        if error is not None and (is_kind(error, StrayObject) or is_id_again(error)):
            drop_ids(self.db.storage)
            self.empty_cache()

    def close(self) -> None:
        """Give the connection back."""
        if is_closed(self.db):
            return  # whoever closes it is at this connection too
        if self._is_mine(self.connection):
            with _begun_by_us(self.connection):  # whoever has it next begins
                self.abort()
        else:
            self.abort()
        if self.connection.transaction_manager is self.manager:
            self._give_room_back()
            self.connection.close()


def hooks_of(txn: Any) -> list[Any]:
    """Return what is to be called before and after a commit."""
    return [*txn.getBeforeCommitHooks(), *txn.getAfterCommitHooks()]


class _begun_by_us:
    """Let a connection not look for what others have changed when its transaction ends.

    ZODB does, for those who do not begin the next one.  A session does, and reads nothing before.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._before = connection.explicit_transactions

    def __enter__(self) -> None:
        self._connection.explicit_transactions = True

    def __exit__(self, *raised: object) -> None:
        self._connection.explicit_transactions = self._before


def is_closed(db: Any) -> bool:
    """Say whether a database was closed, or just is."""
    attributes = vars(db)  # its class has attributes of these names
    return "storage" not in attributes or attributes.get("close") is noop


def check_no_transaction() -> None:
    """Refuse to go on in a thread whose current transaction has changes.

    :raises TransactionInProgress: beginning another one would lose them.
    """
    manager = transaction.manager.manager
    txn = getattr(manager, "_txn", None)
    if txn is not None and txn._resources:
        raise TransactionInProgress


def is_transient(session: SessionBase, error: BaseException) -> bool:
    """Say whether the transaction may succeed when it is repeated; ask before abort."""
    if is_id_again(error) or is_kind(error, TransientError):
        return True
    try:
        return bool(session.manager.get().isRetryableError(error))
    except Exception:  # a data manager of somebody's, or no transaction
        return False
