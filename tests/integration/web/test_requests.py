# SPDX-License-Identifier: ZPL-2.1
"""Requests and their transactions: conflicts, faults, and bodies that make no sense."""

from __future__ import annotations

import io
import json
import random
import threading
import tracemalloc
from typing import Any
from xmlrpc.client import dumps

import pytest
from webob import Request
from ZODB.POSException import ConflictError, ReadConflictError

from lovely.remotetask.web import app as application
from lovely.remotetask.web import operations
from workplace import Workplace

JSON = "application/json"


def counts(workplace: Workplace) -> dict[str, int]:
    with workplace.service() as service:
        return service.countJobs()


# -- transactions ----------------------------------------------------------------------------


def test_a_request_is_one_transaction_and_leaves_no_connection_open(
    site: Any, workplace: Workplace
) -> None:
    before = workplace.last_transaction()
    assert site.post("/job-batches", {"task": "echo", "inputs": [1, 2]}).status_int == 202
    after = workplace.last_transaction()
    assert after != before
    for path in ("/jobs", "/nowhere", "/jobs/5", "/jobs?limit=x"):
        site.ask(f"/api/v1{path}")
    assert workplace.last_transaction() == after
    opened = [info for info in workplace.db.connectionDebugInfo() if info["opened"]]
    assert opened == []


@pytest.mark.parametrize("error", [ConflictError, ReadConflictError])
def test_a_conflict_repeats_the_request(
    site: Any, workplace: Workplace, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    tries: list[Any] = []

    def add(service: Any, task: str, **given: Any) -> Any:
        jobid = unpatched(service, task, **given)
        tries.append(given["input"])
        if len(tries) < 4:
            raise error
        return jobid

    unpatched = operations.add
    monkeypatch.setattr(operations, "add", add)
    jobid = site.post("/jobs", {"task": "echo", "input": [1]}).json["id"]
    assert tries == [[1]] * 4
    assert counts(workplace)["queued"] == 1
    assert site.get(f"/jobs/{jobid}")["input"] == [1]


def test_conflicts_without_end_are_told(
    site: Any, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def add(service: Any, task: str, **given: Any) -> Any:
        tries.append(1)
        raise ConflictError

    monkeypatch.setattr(operations, "add", add)
    monkeypatch.setattr(application, "_wait", lambda tries: None)
    response = site.post("/jobs", {"task": "echo"})
    assert (response.status_int, response.headers["Retry-After"]) == (503, "1")
    assert len(tries) == application.TRIES
    assert counts(workplace)["queued"] == 0


def test_threads_that_add_beside_each_other_all_succeed(site: Any, workplace: Workplace) -> None:
    added: list[Any] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for number in range(10):
            added.append(site.post("/jobs", {"task": "echo", "input": number}).json["id"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(added)) == 40
    assert counts(workplace)["queued"] == 40


def test_a_fault_is_logged_and_not_shown(
    site: Any,
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def add(service: Any, task: str, input: Any = None, **given: Any) -> Any:
        unpatched(service, task)
        raise KeyError("the secret")

    unpatched = operations.add
    monkeypatch.setattr(operations, "add", add)
    for path, body, media_type in (
        ("/api/v1/jobs", b'{"task": "echo"}', JSON),
        ("/xmlrpc", dumps(("echo",), "add").encode(), "text/xml"),
    ):
        caplog.clear()
        response = site.ask(path, "POST", body=body, content_type=media_type)
        assert response.status_int == 500
        assert "secret" not in response.text
        assert "KeyError: 'the secret'" in caplog.text
        assert f"POST {path} failed" in caplog.text
    assert counts(workplace)["queued"] == 0


def test_a_storage_that_does_not_work_is_told(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(service: Any, **given: Any) -> Any:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(operations, "list_told", fail)
    response = site.ask("/api/v1/jobs")
    assert (response.status_int, response.content_type) == (503, "application/problem+json")
    assert "the server is away" in caplog.text


# -- bodies ----------------------------------------------------------------------------------


def raw(
    site: Any, body: bytes, length: str | None, path: str = "/api/v1/jobs", **environ: Any
) -> Any:
    request = Request.blank(path, method="POST")
    request.content_type = JSON
    request.environ["wsgi.input"] = io.BytesIO(body)
    request.environ.pop("CONTENT_LENGTH", None)
    if length is not None:
        request.environ["CONTENT_LENGTH"] = length
    request.environ.update(environ)
    return request.get_response(site.app)


def test_a_body_is_as_long_as_it_says_and_no_longer_than_allowed(make_site: Any) -> None:
    site = make_site(max_body_bytes=100)
    body = b'{"task": "echo"}'
    assert raw(site, body, "16").status_int == 202
    assert raw(site, body + b"more", "16").status_int == 202
    assert raw(site, body, "50").status_int == 400
    assert raw(site, body, "101").status_int == 413
    assert raw(site, body, "-1").status_int == 400
    assert raw(site, body, "x").status_int == 400
    assert raw(site, body, None, **{"wsgi.input_terminated": True}).status_int == 202
    assert raw(site, b" " * 101, None, **{"wsgi.input_terminated": True}).status_int == 413
    assert raw(site, body, None).status_int == 400


DEEP = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"task": "echo", "input": NaN}', 400),
        (b'{"task": "echo", "input": ' + b"9" * 5_000 + b"}", 400),
        (b'{"task": "echo", "input": ' + DEEP.encode() + b"}", 400),
        (b'{"task": "echo", "input": ' + (DEEP[:150] + DEEP[-150:]).encode() + b"}", 422),
        (DEEP.encode(), 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"add"', 422),
        (b'{"task": 5}', 422),
        (b'{"task": "nix"}', 422),
        (b'{"task": ""}', 422),
        (b'{"task": "\\ud800"}', 422),
        (b'{"task": "echo\\u0000"}', 422),
        (b'{"task": "echo", "more": 1}', 422),
        (b'{"task": "echo", "delay": -1}', 422),
        (b'{"task": "echo", "delay": true}', 422),
        (b'{"task": "echo", "delay": 1e308}', 422),
        (b'{"task": "echo", "delay": 1e999}', 422),
        (b'{"task": "echo", "at": "soon"}', 422),
        (b'{"task": "echo", "at": "2030-02-30T00:00:00Z"}', 422),
        (b'{"task": "echo", "at": "9999-12-31T23:59:59-14:00"}', 422),
        (b'{"task": "echo", "at": "2030-01-01T00:00:00"}', 422),
        (b'{"task": "echo", "at": "2030-01-01T00:00:00Z", "delay": 1}', 422),
        (b'{"task": "echo", "note": "' + b"x" * 1_001 + b'"}', 422),
    ],
    ids=lambda value: value[:50].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_a_body_that_makes_no_sense_is_refused(
    site: Any, workplace: Workplace, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = workplace.last_transaction()
    response = site.ask("/api/v1/jobs", "POST", body=body, content_type=JSON)
    assert response.status_int == status, response.text
    assert response.content_type == "application/problem+json"
    assert len(response.body) < 1_000
    assert workplace.last_transaction() == before
    assert not caplog.records


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/jobs/nix",
        "/api/v1/jobs/-1",
        "/api/v1/jobs/0",
        "/api/v1/jobs/99999999999999999999999999",
        "/api/v1/jobs/%F0%9F%98%80",
        "/api/v1/jobs/%00",
        "/api/v1/jobs/%D9%A1",
        "/api/v1/jobs/" + "a" * 24,
        "/api/v1/schedules/nix",
        "/api/v1/nix",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/@nix/api/v1/jobs",
    ],
)
def test_what_is_not_there_is_not_found(site: Any, path: str) -> None:
    assert site.ask(path).status_int == 404


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1e3",
        "limit=",
        "status=done",
        "after=xyz",
        "after=00",
        "after=" + "f" * 40,
        "order=up",
        "since=soon",
        "until=2030",
        "nix=1",
        "limit=1&limit=2",
        "task=",
        "task=%00",
        "since=0001-01-01T00:00:00%2B14:00",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(site: Any, query: str) -> None:
    response = site.ask(f"/api/v1/jobs?{query}")
    assert response.status_int == 422, response.text
    assert len(response.body) < 1_000


def test_an_address_that_is_no_text_is_refused(site: Any) -> None:
    for path in ("/api/v1/jobs/%ff", "/%ff", "/api/v1/jobs?task=%ff", "/api/v1/jobs?%ff=1"):
        assert site.ask(path).status_int in (400, 422)
    for path in ("/jobs/%ff", "/<b>%ff"):
        response = site.ask(path)
        assert response.status_int == 400
        assert "not in UTF-8" in response.text
        assert "<b>" not in response.text.partition("<code>")[2]
    request = Request.blank("/jobs", environ={"SCRIPT_NAME": "/\xff"})
    assert request.get_response(site.app).status_int == 400


def test_a_method_that_is_not_known_tells_those_that_are(site: Any) -> None:
    response = site.ask("/api/v1/jobs", "PATCH")
    assert (response.status_int, response.headers["Allow"]) == (405, "GET, POST, HEAD")
    assert site.ask("/api/v1/jobs", "OPTIONS").status_int == 405
    response = site.ask("/api/v1/jobs", "HEAD")
    assert (response.status_int, response.body) == (200, b"")


def damaged(chance: random.Random, body: bytes) -> bytes:
    """Return a body with some bytes changed, taken out, or doubled."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[place : place + chance.randint(1, 10)]
            case 2:
                data[place:place] = data[place : place + chance.randint(1, 30)]
            case _:
                data[place:place] = chance.choice(
                    [b"[", b"{", b'"', b"<value>", b"&amp;", b"&x;", b"\\u", b"1e9", b"]]>"]
                )
    return bytes(data)


def test_thousands_of_damaged_bodies_do_no_harm(
    site: Any, workplace: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(5)
    job = {"task": "echo", "input": {"a": [1, 2.5, None, "x"]}, "delay": 5, "note": "n"}
    schedule = {"task": "echo", "minute": [1, 2], "cron": None, "timezone": "UTC"}
    kinds = [
        ("/api/v1/jobs", "POST", JSON, json.dumps(job).encode()),
        ("/api/v1/job-batches", "POST", JSON, b'{"task": "echo", "inputs": [1, [2]]}'),
        ("/api/v1/schedules", "POST", JSON, json.dumps(schedule).encode()),
        ("/api/v1/clean", "POST", JSON, b'{"status": ["error"], "before": "2030-01-01T00:00:00Z"}'),
        ("/xmlrpc", "POST", "text/xml", dumps(("echo", {"a": [1, "x"]}), "add").encode()),
        ("/xmlrpc", "POST", "text/xml", dumps((5,), "getResult").encode()),
    ]

    def attack(rounds: int) -> None:
        for number in range(rounds):
            path, method, media_type, body = kinds[number % len(kinds)]
            response = site.ask(path, method, body=damaged(chance, body), content_type=media_type)
            assert response.status_int < 500, (body, caplog.text)

    attack(300)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    attack(2_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not caplog.records
    # What was not damaged enough was added, and is in the database in memory.
    added = sum(counts(workplace).values())
    assert after - before < 2_000_000 + 5_000 * added
    with workplace.service() as service:
        service.process()
