# SPDX-License-Identifier: ZPL-2.1
"""What a refused commit leaves behind in a storage, and that it is taken away.

There are no public means for either of these.

*RelStorage on SQLite* writes what a transaction is to store into a temporary table first, and there
outside of any transaction of SQLite's.  If the commit is then refused before the database is
locked, since an object that was read has been changed, it has nothing to roll back, and does not:
the rows stay, and the next commit of that connection *stores them*.  (Or it fails with a
``KeyError``, where they have got stale.)  Who puts something into a BTree has read its upper parts
in that sense, so it is met wherever two write at once.

*FileStorage* truncates its file if a vote fails, as it does on a full disk.  But Python first
writes what is buffered, which fails once more: the beginning of the transaction stays in the file,
and the rest in the buffer, to be written as soon as there is room.  What is then committed is
written over it, and whoever reads behind that, or from a buffer which was to be emptied, meets
remnants: a ``CorruptedDataError``, or, when the database is opened next, a file that is
``truncated, possibly due to damaged records``.  Nor does it remove the blob files of a transaction
that did not come as far as the end of its vote: of each conflict, say.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage

from lovely.remotetask.base.layers import layers_of

_MANAGER = "relstorage.adapters.sqlite.connmanager"
_OF_ABORT = {"_file", "_pos", "_nextpos", "_blob_tpc_abort"}
_IS_KNOWN = {*FileStorage._abort.__code__.co_names} >= _OF_ABORT


def clear_leftovers(db: Any) -> None:
    """See to it that nothing is left behind by the refused commits of a database.

    RelStorage asks whether a connection has something to roll back, and is told from now on that it
    has; what is rolled back empties its temporary tables.  FileStorage takes back what a vote has
    written if the transaction is then aborted, and is told so of a vote that failed, too.
    """
    _clear(db.storage)


def _clear(outermost: Any) -> None:
    for storage in layers_of(outermost):
        manager: Any = getattr(getattr(storage, "_adapter", None), "connmanager", None)
        if type(manager).__module__ == _MANAGER:
            manager._may_need_rollback = _may_always
            manager._do_rollback = _roll_back
        elif isinstance(storage, FileStorage) and _IS_KNOWN:
            storage._abort = partial(_take_back, storage)
        elif isinstance(storage, DemoStorage):  # which writes there alone
            _clear(storage.changes)


def _may_always(connection: Any) -> bool:
    return True


def _roll_back(connection: Any) -> None:
    connection.rollback()
    # To empty the tables has begun a transaction.  Whoever reads in it, as an undo does, would not
    # get the lock later on if others have written in between.
    connection.return_to_repeatable_read()


def _take_back(storage: Any) -> None:
    file = storage._file
    # Behind the end of what is committed there is only what a vote has written.
    if not storage._nextpos and not file.closed and file.tell() > storage._pos:
        file.__init__(file.raw)  # the one way to drop what is buffered
        storage._nextpos = storage._pos  # so that it is truncated, and the readers' buffers emptied
    type(storage)._abort(storage)
    storage._blob_tpc_abort()  # which else it does only where the vote has succeeded
