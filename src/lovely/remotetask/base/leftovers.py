# SPDX-License-Identifier: ZPL-2.1
"""What a refused commit leaves behind in RelStorage on SQLite, and that it is taken away.

RelStorage writes what a transaction is to store into a temporary table first, and there outside of
any transaction of SQLite's.  If the commit is then refused before the database is locked, since an
object that was read has been changed, it has nothing to roll back, and does not: the rows stay, and
the next commit of that connection *stores them*.  (Or it fails with a ``KeyError``, where they have
got stale.)  Who puts something into a BTree has read its upper parts in that sense, so it is met
wherever two write at once.
"""

from __future__ import annotations

from typing import Any

from lovely.remotetask.base.layers import layers_of

_MANAGER = "relstorage.adapters.sqlite.connmanager"


def clear_leftovers(db: Any) -> None:
    """See to it that nothing is left behind by the refused commits of a database.

    There is no public means.  RelStorage asks whether a connection has something to roll back, and
    is told from now on that it has; what is rolled back empties its temporary tables.
    """
    for storage in layers_of(db.storage):
        manager: Any = getattr(getattr(storage, "_adapter", None), "connmanager", None)
        if type(manager).__module__ == _MANAGER:
            manager._may_need_rollback = _may_always
            manager._do_rollback = _roll_back


def _may_always(connection: Any) -> bool:
    return True


def _roll_back(connection: Any) -> None:
    connection.rollback()
    # To empty the tables has begun a transaction.  Whoever reads in it, as an undo does, would not
    # get the lock later on if others have written in between.
    connection.return_to_repeatable_read()
