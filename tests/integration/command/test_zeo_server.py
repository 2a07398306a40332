# SPDX-License-Identifier: ZPL-2.1
"""ZEO servers that the command reaches by URI: with certificates, and by a Unix socket."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lovely.remotetask.command.database import open_database
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from servers import ZeoServer

CERTIFICATES = Path(__file__).parents[3] / "docs" / "examples" / "deploy" / "certificates.sh"

pytestmark = pytest.mark.usefixtures("zeo_leftovers")

SHOP = """
    from pathlib import Path
    from lovely.remotetask.task import task

    @task("note")
    def note(input):
        Path("noted").write_text(repr(input))
"""

CLIENT = """
%import ZEO
<zodb>
  <clientstorage>
    server {server}
    wait-timeout 3
    <ssl>
      certificate {0}/worker.pem
      key {0}/worker.key
      authenticate {0}/ca.pem
    </ssl>
  </clientstorage>
</zodb>
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the certificates of a server and a worker."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with certificates of the same names, of another authority."""
    return make_certificates(tmp_path_factory.mktemp("foreign"))


def make_certificates(directory: Path) -> Path:
    subprocess.run(
        ["sh", str(CERTIFICATES), "localhost", "worker"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture
def server(tmp_path: Path, certificates: Path) -> Iterator[ZeoServer]:
    """A server that takes certificates of one authority."""
    (tmp_path / "server").mkdir()
    server = ZeoServer(tmp_path / "server", certificates=certificates)
    server.start()
    yield server
    server.stop()


def uri_of(server: ZeoServer, certificates: Path, trusted: Path | None = None, **more: str) -> str:
    given = {
        "ssl_certificate": f"{certificates}/worker.pem",
        "ssl_key": f"{certificates}/worker.key",
        "ssl_authenticate": f"{trusted or certificates}/ca.pem",
        "ssl_server_hostname": "localhost",
        "wait_timeout": "3",
        **more,
    }
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return f"zeo://{place_of(server)}?{query}"


def place_of(server: ZeoServer) -> str:
    return f"{server.address[0]}:{server.address[1]}"


def test_a_worker_with_a_certificate_runs_what_another_one_adds(
    tmp_path: Path,
    server: ZeoServer,
    certificates: Path,
    remotetask: Any,
    started: Callable[..., AbstractContextManager[Any]],
    until: Callable[..., None],
) -> None:
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    by_uri = uri_of(server, certificates, connection_pool_size="3")
    text = CLIENT.format(certificates, server=f"localhost:{server.address[1]}")
    (tmp_path / "zodb.conf").write_text(text)
    by_file = f"zconfig://{tmp_path}/zodb.conf"
    assert remotetask("init", by_uri, cwd=tmp_path).returncode == 0
    with started("run", by_uri, "--import", "shop", cwd=tmp_path) as worker:
        words = ("note", "--input", "7", "--import", "shop")
        ended = remotetask("add", by_file, *words, cwd=tmp_path)
        assert ended.returncode == 0, ended
        until((tmp_path / "noted").exists, "the job")
        worker.terminate()
        assert worker.wait(30) == 0
    with closing(open_database(by_uri)) as database:
        assert database.getPoolSize() == 3


def test_who_has_no_certificate_is_refused(server: ZeoServer) -> None:
    with pytest.raises(RemoteTaskError, match=r"no ZEO server lets us in: .* does it take TLS"):
        open_database(f"zeo://{place_of(server)}?wait_timeout=1")


def test_a_certificate_of_another_authority_is_refused(
    server: ZeoServer, certificates: Path, foreign: Path
) -> None:
    with pytest.raises(RemoteTaskError, match="no ZEO server lets us in"):
        open_database(uri_of(server, foreign, certificates, wait_timeout="1"))


def test_a_server_of_another_authority_is_not_believed(
    server: ZeoServer, certificates: Path, foreign: Path
) -> None:
    with pytest.raises(RemoteTaskError, match="certificate verify failed"):
        open_database(uri_of(server, certificates, foreign, wait_timeout="1"))


def test_a_server_of_another_name_is_not_believed(server: ZeoServer, certificates: Path) -> None:
    uri = uri_of(server, certificates, wait_timeout="1", ssl_server_hostname="elsewhere")
    with pytest.raises(RemoteTaskError, match="not valid for 'elsewhere'"):
        open_database(uri)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("username=shop&password=secret", "ZEO does not look at a username"),
        ("ssl_key=worker.key", "TLS takes ssl_certificate"),
        ("ssl_server_hostname=localhost", "takes ssl_certificate beside it"),
        ("ssl_certificate=gone.pem", "there is no file gone.pem, which ssl_certificate names"),
        ("ssl_certificate=shop.py", "the certificates cannot be used"),
        ("ssl_cert=worker.pem", "Unrecognized database keyword.*ssl_cert"),
    ],
)
def test_what_is_said_of_tls_and_makes_no_sense_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text("no certificate")
    with pytest.raises(InvalidArgument, match=told):
        open_database(f"zeo://localhost:1?{query}")


def test_a_socket_in_the_file_system(tmp_path: Path, remotetask: Any, error_of: Any) -> None:
    server = ZeoServer(tmp_path, socket_path=tmp_path / "zeo.sock")
    server.start()
    try:
        uri = f"zeo://{tmp_path}/zeo.sock?wait_timeout=3"
        assert remotetask("init", uri, cwd=tmp_path).returncode == 0
        assert remotetask("status", uri, cwd=tmp_path).returncode == 0
    finally:
        server.stop()


def test_where_nobody_listens_is_told(tmp_path: Path, remotetask: Any, error_of: Any) -> None:
    line = error_of(remotetask("status", f"zeo://{tmp_path}/s?wait_timeout=1", cwd=tmp_path), 1)
    assert f"no ZEO server lets us in: Connection to '{tmp_path}/s' failed" in line
    line = error_of(remotetask("status", "zeo://127.0.0.1:1?wait_timeout=1", cwd=tmp_path), 1)
    assert "no ZEO server lets us in: Connection to ('127.0.0.1', 1) failed" in line
