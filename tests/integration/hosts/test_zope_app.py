# SPDX-License-Identifier: ZPL-2.1
"""The example of zope.app, served as its page says."""

from __future__ import annotations

import base64
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urljoin

import pytest

from example_server import SECONDS, copied, free_port, served, wait


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve the example; give its address."""
    port = free_port()
    script = directory / "server.py"
    script.write_text(script.read_text().replace("8080", str(port)))
    with served(directory, port, [sys.executable, str(script)]) as url:
        yield url
    script.write_text(script.read_text().replace(str(port), "8080"))


def ask(url: str, user: str | None = None, **form: str) -> tuple[int, str, str]:
    """Return the status, the text and the address of a page; with fields it is posted."""
    headers = {}
    if user is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{user}'.encode()).decode()}"
    request = urllib.request.Request(url, urlencode(form).encode() if form else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode(), answer.url
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), url


def test_a_job_runs_as_who_has_asked_for_it_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    directory = copied("zope_app", tmp_path)
    with serving(directory) as url:
        assert ask(f"{url}/count.html")[0] == 401
        _, _, address = ask(f"{url}/count.html", "joe", text="a b " * 20)
        wait(lambda: "word" in ask(address, "joe")[1].partition("status")[2])
    job = address.removeprefix(url)
    with serving(directory) as url:
        page = wait(lambda: "completed" in (text := ask(urljoin(url, job), "joe")[1]) and text)
        assert "completed for shop.joe" in page
        assert "a: 20, b: 20" in page
        assert ask(f"{url}/count.html?job=1", "joe")[0] == 404
    log = (directory / "log").read_text()
    assert log.count("service tasks on site root started") == 2
    assert "Traceback" not in log


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("joe", 401), ("jane", 200)])
def test_the_pages_of_the_jobs_are_for_managers(
    tmp_path: Path, user: str | None, status: int
) -> None:
    with serving(copied("zope_app", tmp_path)) as url:
        assert ask(f"{url}/jobs", user)[0] == status
