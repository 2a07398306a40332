# SPDX-License-Identifier: ZPL-2.1
"""The storages that this package is for: the same tests are run over each of them.

A `Kind` says what a storage can do by itself, a `Storage` is one that a test has got.  The fixture
``storage`` is one of each kind; a test that is for some of them says so by `over`.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ZODB
from ZODB.FileStorage import FileStorage

from servers import ZeoServer, open_zeo, postgres_storage, sqlite_storage


class Kind(NamedTuple):
    """A kind of storages.

    :ivar scheme: of its URLs; see `open_url`.
    :ivar is_shared: several processes can have it open.
    :ivar is_undone: the storage can undo a transaction.
    :ivar is_merged: what two have written to one object is merged, where its class can do that.
    :ivar is_told: who has it open is told of the commits of others, and has not to ask.
    """

    scheme: str
    is_shared: bool = True
    is_undone: bool = False
    is_told: bool = False
    is_merged: bool = True


KINDS = {
    "file": Kind("file", is_shared=False, is_undone=True, is_told=True),
    "zeo": Kind("zeo", is_undone=True, is_told=True),
    # Its server has ZEO and ZODB, and nothing of this package: it merges BTrees alone.
    "bare zeo": Kind("zeo", is_undone=True, is_told=True, is_merged=False),
    "postgresql": Kind("postgresql"),
    "postgresql with history": Kind("postgresql+history", is_undone=True),
    "sqlite": Kind("sqlite"),
    "sqlite with history": Kind("sqlite+history", is_undone=True),
}

#: Those that several processes can have open.
SHARED = tuple(name for name, kind in KINDS.items() if kind.is_shared)


class Storage:
    """One storage, empty at first.

    :ivar url: see `open_url`.
    :ivar server: of ZEO.
    """

    def __init__(self, name: str, place: object, server: ZeoServer | None = None) -> None:
        self.name = name
        self.kind = KINDS[name]
        self.url = f"{self.kind.scheme}:{place}"
        self.server = server

    def open(self, **options: Any) -> ZODB.DB:
        """Open it, as one more client; the options are those of the database."""
        return open_url(self.url, **options)


def open_url(url: str, **options: Any) -> ZODB.DB:
    """Open what a URL names.

    It is ``file:PATH``, ``zeo:PORT``, ``postgresql:DSN`` or ``sqlite:DIRECTORY``; the schemes of
    the last two end with ``+history`` where transactions are kept.

    :param options: of the database.
    """
    scheme, _, place = url.partition(":")
    kind, _, history = scheme.partition("+")
    if kind == "zeo":
        return open_zeo(("127.0.0.1", int(place)), **options)
    if kind == "postgresql":
        storage: Any = postgres_storage(place, keep_history=bool(history))
    elif kind == "sqlite":
        storage = sqlite_storage(Path(place), keep_history=bool(history))
    else:
        storage = FileStorage(place)
    return ZODB.DB(storage, **options)


def storing_in(room: list[int], store: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stores records for which there is room."""

    def store_if_small(oid: bytes, serial: bytes, data: bytes, *arguments: Any) -> Any:
        if room and len(data) > room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return store(oid, serial, data, *arguments)

    return store_if_small


@contextmanager
def room_for(n_bytes: int, path: Path) -> Iterator[None]:
    """Let no file of this process get larger than one is, and some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def over(*names: str) -> pytest.MarkDecorator:
    """Run a test over these kinds alone."""
    return pytest.mark.parametrize("storage", names, indirect=True)


def make_storage(name: str, request: pytest.FixtureRequest) -> Storage:
    """Return a new storage of a kind, which goes with the test."""
    directory: Path = request.getfixturevalue("tmp_path")
    scheme = KINDS[name].scheme
    if scheme == "zeo":
        server = request.getfixturevalue("zeo_server")(is_bare=name == "bare zeo")
        return Storage(name, server.address[1], server)
    if scheme.startswith("postgresql"):
        request.getfixturevalue("relstorage")
        return Storage(name, request.getfixturevalue("postgres_dsn"))
    if scheme.startswith("sqlite"):
        request.getfixturevalue("relstorage")
        return Storage(name, directory / "sqlite")
    return Storage(name, directory / "Data.fs")


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest) -> Storage:
    """A storage of each kind."""
    return make_storage(request.param, request)
