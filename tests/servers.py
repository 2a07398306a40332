# SPDX-License-Identifier: ZPL-2.1
"""Real servers, and databases that are opened on them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ZODB

SECONDS_TO_START = 30.0
SECONDS_TO_END = 5.0  # for a server that has been told to stop


# -- ZEO -------------------------------------------------------------------------------------


class ZeoServer:
    """A ZEO server in a process of its own, with a FileStorage.

    - ``address``: (host, port) for clients; it stays the same when the server starts again
    - ``process``: the running server, or None

    :param is_bare: it cannot import this package, nor what this package needs beside ZODB.
    :param certificates: where ``localhost.pem``, its key and ``ca.pem`` are: the server takes TLS.
    :param socket_path: of a Unix socket, on which it listens instead.
    :param text: the whole configuration; ``PORT`` stands for the port.
    """

    def __init__(
        self,
        directory: Path,
        *,
        client_conflict_resolution: bool = False,
        is_bare: bool = False,
        certificates: Path | None = None,
        socket_path: Path | None = None,
        text: str | None = None,
    ) -> None:
        self.directory = directory
        self.client_conflict_resolution = client_conflict_resolution
        self.certificates = certificates
        self.socket_path = socket_path
        self.text = text
        self.environment = _bare_environment(directory) if is_bare else dict(os.environ)
        self.address = ("127.0.0.1", _free_port())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return as soon as it takes connections."""
        configuration = self.directory / "zeo.conf"
        configuration.write_text(self._configuration())
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ZEO.runzeo", "-C", str(configuration)],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if not _has_started(self.process, self.socket_path or self.address):
            self.kill()
            raise RuntimeError(f"the ZEO server did not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Ask the server to end, and make it end if it does not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _configuration(self) -> str:
        if self.text is not None:
            return self.text.replace("PORT", str(self.address[1]))
        return (
            f"<zeo>\n"
            f"  address {self.socket_path or ':'.join(map(str, self.address))}\n"
            f"  client-conflict-resolution {str(self.client_conflict_resolution).lower()}\n"
            f"{self._tls()}"
            f"</zeo>\n"
            f"<filestorage>\n"
            f"  path {self.directory / 'Data.fs'}\n"
            f"</filestorage>\n"
        )

    def _tls(self) -> str:
        if self.certificates is None:
            return ""
        return (
            f"  <ssl>\n"
            f"    certificate {self.certificates}/localhost.pem\n"
            f"    key {self.certificates}/localhost.key\n"
            f"    authenticate {self.certificates}/ca.pem\n"
            f"  </ssl>\n"
        )

    @property
    def _log(self) -> Path:
        return self.directory / "zeo.log"


def open_zeo(address: tuple[str, int], **options: Any) -> ZODB.DB:
    """Open what a ZEO server serves; the options are those of the database."""
    return ZODB.DB(zeo_storage(address), **options)


def zeo_storage(address: tuple[str, int]) -> Any:
    """Return the storage that a ZEO server serves."""
    from ZEO.ClientStorage import ClientStorage

    return ClientStorage(address, wait_timeout=60)


#: Is imported by each Python that starts with it in its path.
BARE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lovely" or name == "zc.queue":
            raise ModuleNotFoundError(f"there is no {name} on this server", name=name)

sys.meta_path.insert(0, Refuse())
"""


def _bare_environment(directory: Path) -> dict[str, str]:
    """Return an environment whose Pythons lack this package."""
    (directory / "sitecustomize.py").write_text(BARE)
    paths = [str(directory), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _has_started(server: subprocess.Popen[bytes], address: tuple[str, int] | Path) -> bool:
    """Say whether a server takes connections, as soon as it does; not if it has ended before."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not _takes_connections(address):
        if server.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _takes_connections(address: tuple[str, int] | Path) -> bool:
    try:
        if isinstance(address, Path):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(address))
        else:
            socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


# -- PostgreSQL, and SQLite --------------------------------------------------------------------


def open_postgres(
    dsn: str, cache_local_mb: int | None = None, keep_history: bool = False, **options: Any
) -> ZODB.DB:
    """Open a database in PostgreSQL; the options are those of the database.

    :param cache_local_mb: how much is kept on this side; None is RelStorage's default.
    :param keep_history: whether transactions can be undone.
    """
    return ZODB.DB(postgres_storage(dsn, cache_local_mb, keep_history), **options)


def postgres_storage(
    dsn: str, cache_local_mb: int | None = None, keep_history: bool = False
) -> Any:
    """Return a storage in PostgreSQL.  See `open_postgres`."""
    from relstorage.adapters.postgresql import PostgreSQLAdapter
    from relstorage.options import Options
    from relstorage.storage import RelStorage

    of_storage = Options(keep_history=keep_history)
    if cache_local_mb is not None:
        of_storage.cache_local_mb = cache_local_mb
    adapter = PostgreSQLAdapter(dsn=dsn, options=of_storage)
    return RelStorage(adapter, options=of_storage)


def sqlite_storage(directory: Path, keep_history: bool = False) -> Any:
    """Return a storage in a database of SQLite, which is made if it is not there.

    :param keep_history: whether transactions can be undone.
    """
    from relstorage.adapters.sqlite.adapter import Sqlite3Adapter
    from relstorage.options import Options
    from relstorage.storage import RelStorage

    options = Options(keep_history=keep_history)
    adapter = Sqlite3Adapter(str(directory), pragmas={}, options=options)
    return RelStorage(adapter, options=options)


def postgres_answers(dsn: str) -> bool:
    """Say whether a server lets us in."""
    import psycopg2

    try:
        psycopg2.connect(dsn, connect_timeout=5).close()
    except psycopg2.OperationalError:
        return False
    return True


def postgres_uri(dsn: str) -> str | None:
    """Return the URI of a database; URIs know no directories of sockets."""
    import psycopg2

    try:
        with closing(psycopg2.connect(dsn, host="127.0.0.1")) as connection:
            known = connection.info
            return (
                f"postgresql://{known.user}:{known.password}@127.0.0.1:{known.port}/{known.dbname}"
            )
    except psycopg2.OperationalError:
        return None


def administer_postgres(dsn: str, statement: str) -> None:
    """Let a server do what is done outside transactions."""
    import psycopg2

    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True  # databases are not made inside a transaction
        with connection.cursor() as cursor:
            cursor.execute(statement)


def find_pgbouncer() -> str | None:
    """Return the path of PgBouncer, which not everybody has in his own."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


@contextmanager
def pgbouncer(directory: Path, dsn: str, mode: str) -> Iterator[str]:
    """Give the DSN of a database as a PgBouncer shows it, in a process.

    :param mode: of its pool: ``session`` or ``transaction``.
    """
    import psycopg2

    with closing(psycopg2.connect(dsn)) as connection:
        known = connection.info
        given = {"host": known.host, "port": known.port, "user": known.user}
        given |= {"dbname": known.dbname, "password": known.password}
    port = _free_port()
    target = " ".join(f"{name}={value}" for name, value in given.items() if value)
    path = directory / "pgbouncer.ini"
    path.write_text(
        f"[databases]\n{given['dbname']} = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
    )
    command = [find_pgbouncer() or "pgbouncer", "-q", str(path)]
    if os.getuid() == 0:  # it refuses to run as root
        command[1:1] = ["-u", "nobody"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        if not _has_started(server, ("127.0.0.1", port)):
            raise RuntimeError(f"PgBouncer did not start:\n{server.communicate()[1]!r}")
        yield psycopg2.extensions.make_dsn(
            host="127.0.0.1", port=port, user=given["user"], dbname=given["dbname"]
        )
    finally:
        server.terminate()
        server.communicate()


# -- MongoDB ---------------------------------------------------------------------------------


@contextmanager
def mongo_server(directory: Path, *options: str) -> Iterator[str]:
    """Give the URI of a server that speaks MongoDB's protocol.

    It is ``REMOTETASK_MONGO_URI``, or else a SecantusDB of the tests' own, in a process.

    :param options: of SecantusDB; there is always one of the tests' own then.
    """
    given = os.environ.get("REMOTETASK_MONGO_URI")
    if given and not options:
        yield given
        return
    port = _free_port()
    place = ("--host", "127.0.0.1", "--port", str(port), "--storage-path", str(directory / "data"))
    command = [sys.executable, "-m", "secantus", *place, "--log-level", "WARNING", *options]
    path = directory / "mongo.log"
    with path.open("wb") as log:
        server = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        if not _has_started(server, ("127.0.0.1", port)):
            raise RuntimeError(f"SecantusDB did not start:\n{path.read_text()}")
        yield f"mongodb://127.0.0.1:{port}/"
    finally:
        server.terminate()
        try:
            server.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
