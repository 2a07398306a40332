# SPDX-License-Identifier: ZPL-2.1
"""A PostgreSQL server of the tests' own, which takes TLS and looks at certificates."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


def postgres_programs() -> Path | None:
    """Return the directory with ``initdb``, or None."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(places[-1]) if places else shutil.which("initdb")
    return Path(found).parent if found else None


class PostgresServer:
    """A server with a cluster of its own, in a directory that it makes.

    PostgreSQL does not run as root: then the server and its administrator are ``postgres``.

    - ``directory``: has ``ca.pem``, and a certificate and a key for each name in ``clients``
    - ``port``: on localhost
    """

    def __init__(self, programs: Path, certificates: Path, clients: tuple[str, ...]) -> None:
        self._programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="remotetask-postgres-"))
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._call(["sh", str(certificates), "localhost", *clients])
        self._server = self.directory / "server"
        self._server.mkdir()
        for name in ("localhost.pem", "localhost.key", "ca.pem"):
            shutil.copy2(self.directory / name, self._server)
        self.directory.chmod(0o755)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "postgres", self._server], check=True)

    def start(self, access: str) -> None:
        """Make the cluster, and start the server.

        :param access: lines for ``pg_hba.conf``; the administrator comes in by the socket.
        """
        data = self._server / "data"
        self._administer(
            [self._programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
        )
        lines = "local all postgres trust\n" + access
        (data / "pg_hba.conf").write_text(lines, encoding="utf-8")
        settings = {
            "listen_addresses": "127.0.0.1",
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": self._server / "localhost.pem",
            "ssl_key_file": self._server / "localhost.key",
            "ssl_ca_file": self._server / "ca.pem",
        }
        options = f"-p {self.port} -k {self._server} " + " ".join(
            f"-c {name}={value}" for name, value in settings.items()
        )
        log = self._server / "log"
        self._administer(
            [self._programs / "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start"]
        )

    def run_sql(self, path: Path) -> None:
        """Let the administrator run a file of statements."""
        place = ["-h", self._server, "-p", self.port, "-U", "postgres"]
        with path.open() as statements:
            self._administer(
                [self._programs / "psql", *place, "-v", "ON_ERROR_STOP=1", "-f", "-", "postgres"],
                stdin=statements.fileno(),
            )

    def uri(self, role: str, **more: str) -> str:
        """Return the URI of the database *shop*, for a role with its certificate."""
        given = {
            "keep_history": "0",
            "sslmode": "verify-full",
            "sslrootcert": f"{self.directory}/ca.pem",
            "sslcert": f"{self.directory}/{role}.pem",
            "sslkey": f"{self.directory}/{role}.key",
            **more,
        }
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"postgresql://{role}@localhost:{self.port}/shop?{query}"

    def restart(self) -> None:
        """Stop the server as an upgrade would, which ends all sessions, and start it again."""
        data = self._server / "data"
        log = self._server / "log"
        self._administer(
            [self._programs / "pg_ctl", "-D", data, "-l", log, "-m", "fast", "-w", "restart"]
        )

    def close(self) -> None:
        """Stop the server, and remove what it has."""
        data = self._server / "data"
        if (data / "postmaster.pid").exists():
            self._administer([self._programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"])
        shutil.rmtree(self.directory)

    def _administer(self, words: list[object], stdin: int = subprocess.DEVNULL) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self._call([*as_user, *map(str, words)], stdin)

    def _call(self, words: list[str], stdin: int = subprocess.DEVNULL) -> None:
        # Into a file: the server would keep a pipe open for as long as it runs.
        with (self.directory / "calls.log").open("a+") as log:
            ended = subprocess.run(
                words, cwd=self.directory, stdin=stdin, stdout=log, stderr=log, timeout=60
            )
            if ended.returncode:
                log.seek(0)
                raise RuntimeError(f"{words[0]}: {log.read()}")


@contextmanager
def running_postgres(
    programs: Path, deploy: Path, clients: tuple[str, ...]
) -> Iterator[PostgresServer]:
    """Give a server that is set up by the files to deploy."""
    server = PostgresServer(programs, deploy / "certificates.sh", clients)
    try:
        access = (deploy / "pg_hba.conf").read_text(encoding="utf-8")
        server.start(access)
        server.run_sql(deploy / "roles.sql")
        yield server
    finally:
        server.close()
