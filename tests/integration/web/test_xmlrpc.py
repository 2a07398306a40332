# SPDX-License-Identifier: ZPL-2.1
"""XML-RPC, as the clients of the standard library see it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from xmlrpc.client import (
    Binary,
    DateTime,
    Fault,
    ProtocolError,
    ServerProxy,
    Transport,
    dumps,
    loads,
)

import pytest

from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.task import TaskError
from remotejobs import Note
from workplace import Workplace

MEDIA_TYPE = "text/xml"


class InProcess(Transport):
    """Sends what a proxy asks to an application in this process."""

    def __init__(self, site: Any, headers: dict[str, str]) -> None:
        super().__init__(use_builtin_types=True)
        self._site = site
        self._given = headers

    def request(self, host: Any, handler: Any, request_body: Any, verbose: Any = False) -> Any:
        response = self._site.ask(
            handler, "POST", body=request_body, content_type=MEDIA_TYPE, headers=self._given
        )
        if response.status_int != 200:
            raise ProtocolError(handler, response.status_int, response.text, {})
        parser, target = self.getparser()
        parser.feed(response.body)
        parser.close()
        return target.close()


def proxy(site: Any, path: str = "/xmlrpc", **headers: str) -> Any:
    transport = InProcess(site, headers)
    return ServerProxy(f"http://localhost{path}", transport, allow_none=True)


@pytest.fixture
def server(site: Any) -> Any:
    return proxy(site)


def run_all(workplace: Workplace) -> None:
    with workplace.service() as service:
        service.process()


# -- the methods -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/xmlrpc", "/", "/@tasks/xmlrpc", "/@tasks/"])
def test_a_job_is_added_run_and_asked_for(site: Any, workplace: Workplace, path: str) -> None:
    server = proxy(site, path)
    assert server.getAvailableTasks() == ["echo", "hang"]
    jobid = server.add("echo", {"foo": "bar"})
    with workplace.service() as service:  # it is committed when it returns
        assert service.getStatus(jobid) == "queued"
    assert server.getStatus(jobid) == "queued"
    assert server.getResult(jobid) is None
    assert server.getError(jobid) == "None"
    run_all(workplace)
    assert server.getStatus(jobid) == "completed"
    assert server.getResult(jobid) == {"foo": "bar"}


def test_a_job_that_fails_tells_its_error(server: Any, workplace: Workplace, register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError("An error occurred.")

    register("fail", fail)
    jobid = server.add("fail")
    run_all(workplace)
    assert server.getStatus(jobid) == "error"
    assert server.getError(jobid) == "An error occurred."
    assert server.getResult(jobid) is None


def test_a_job_is_cancelled_and_so_is_one_that_is_gone(server: Any) -> None:
    jobid = server.add("echo")
    assert server.cancel(jobid) is True
    assert server.getStatus(jobid) == "cancelled"
    assert server.cancel(jobid) is True
    assert server.cancel(4711) is True


def test_methods_are_listed_and_explained(server: Any) -> None:
    names = server.listMethods()
    assert names == server.system.listMethods() == sorted(names)
    assert {"add", "cancel", "getStatus", "system.methodHelp"} <= set(names)
    for name in names:
        assert server.methodHelp(name) == server.system.methodHelp(name)
        assert server.system.methodHelp(name).endswith(".")
        assert all(server.system.methodSignature(name))
    assert server.methodSignature("getStatus") == [["string", "int"], ["string", "string"]]
    assert ["int", "string", "struct"] in server.methodSignature("add")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda server: server.getStatus(4711), "4711"),
        (lambda server: server.getResult("x" * 9), "xxxxxxxxx"),
        (lambda server: server.getError(None), "None"),
        (lambda server: server.getStatus(True), "True"),
        (lambda server: server.add("nix"), "'nix'"),
        (lambda server: server.add(5), "5"),
        (lambda server: server.add(""), "''"),
        (lambda server: server.add(), "add takes 1 or 2 arguments, not 0"),
        (lambda server: server.add("echo", 1, 2), "add takes 1 or 2 arguments, not 3"),
        (lambda server: server.pickle(1), "'pickle'"),
        (lambda server: server.__getattr__("service.clean")(), "'service.clean'"),
        (lambda server: server.methodHelp("nope"), "'nope'"),
        (lambda server: server.system.methodSignature([1]), "[1]"),
    ],
)
def test_a_fault_names_what_is_wrong(
    site: Any, call: Callable[[Any], Any], text: str, workplace: Workplace
) -> None:
    before = workplace.last_transaction()
    with pytest.raises(Fault) as raised:
        call(proxy(site))
    assert text in raised.value.faultString
    assert workplace.last_transaction() == before


# -- values ----------------------------------------------------------------------------------

ZONE = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("result", "sent"),
    [
        (None, None),
        (True, True),
        (2**31 - 1, 2**31 - 1),
        (2**40, 2**40),
        (-(2**63), -(2**63)),
        (2**100, 2**100),
        (1.5, 1.5),
        (float("inf"), float("inf")),
        ("text \N{SNOWMAN} <&>]]>", "text \N{SNOWMAN} <&>]]>"),
        ("a\r\nb\tc\rd", "a\r\nb\tc\rd"),
        ("nul\0", b"nul\0"),
        ("\ud800", "\ud800".encode("utf-8", "surrogatepass")),
        ("\ufffe", "\ufffe".encode()),
        (b"\0\xff", b"\0\xff"),
        (bytearray(b"x"), b"x"),
        ((1, (2,)), [1, [2]]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"a"}), ["a"]),
        ({"a": {"b": [None, {}]}}, {"a": {"b": [None, {}]}}),
        ({1: "a", None: "b", 2.5: "c"}, {"1": "a", "None": "b", "2.5": "c"}),
        ({"\r": 1}, {"\r": 1}),
        (datetime(2030, 1, 2, 3, 4, 5, 6), datetime(2030, 1, 2, 3, 4, 5)),
        (datetime(2030, 1, 2, 3, 4, 5, tzinfo=ZONE), datetime(2030, 1, 2, 1, 4, 5)),
        (datetime(33, 1, 2), datetime(33, 1, 2)),
        (date(2030, 1, 2), "2030-01-02"),
        (Decimal("1.10"), "1.10"),
    ],
)
def test_a_result_gets_through_in_its_form(
    server: Any, workplace: Workplace, register: Any, result: Any, sent: Any
) -> None:
    register("give", lambda input: result)
    jobid = server.add("give")
    run_all(workplace)
    found = server.getResult(jobid)
    assert found == sent
    assert type(found) is type(sent)


class Odd:
    """Has no form in XML-RPC."""


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "result",
    [Odd, {"a": {(1, 2): 3}}, {1: "a", "1": "b"}, {"a\0": 1}, 2**20_000, nested(150), 1j],
    ids=["class", "key", "same-keys", "control", "huge", "deep", "complex"],
)
def test_a_result_without_a_form_is_a_fault_that_names_the_job(
    server: Any, workplace: Workplace, register: Any, result: Any
) -> None:
    register("give", lambda input: result)
    jobid = server.add("give")
    run_all(workplace)
    with pytest.raises(Fault) as raised:
        server.getResult(jobid)
    assert f"getResult({jobid}) returns cannot be sent" in raised.value.faultString


def test_inputs_of_all_kinds_arrive(server: Any, workplace: Workplace) -> None:
    given = {
        "int": 1,
        "nil": None,
        "list": [1.5, True, "x"],
        "bytes": Binary(b"\0"),
        "time": DateTime("20300102T03:04:05"),
    }
    jobid = server.add("echo", given)
    with workplace.service() as service:
        found = service.jobs[jobid].input
    assert found == {
        "int": 1,
        "nil": None,
        "list": [1.5, True, "x"],
        "bytes": b"\0",
        "time": datetime(2030, 1, 2, 3, 4, 5),
    }


# -- what is no call -------------------------------------------------------------------------

BOMB = b"""<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "ec"><!ENTITY c "&a;ho">]>
<methodCall><methodName>add</methodName><params><param><value>&c;</value></param></params>
</methodCall>"""
FILE = b"""<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<methodCall><methodName>&a;</methodName></methodCall>"""
DEEP = (
    b"<methodCall><methodName>add</methodName><params><param><value>echo</value></param><param>"
    + b"<value><array><data>" * 20_000
    + b"</data></array></value>" * 20_000
    + b"</param></params></methodCall>"
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"<a/>",
        b"<methodCall>",
        b"<methodCall><methodName/></methodCall>",
        BOMB,
        FILE,
        DEEP,
        dumps((1,), "add").encode()[:-20],
        dumps(({"a": 1},), "add").replace("<name>a</name>", "").encode(),
        dumps((1,), "add").replace("<int>1", "<int>one").encode(),
        dumps((1,), "add").replace("<int>1</int>", "<boolean>7</boolean>").encode(),
        dumps((1,), "add").replace("<int>1</int>", f"<int>{'9' * 5000}</int>").encode(),
        dumps((Fault(1, "x"),), methodresponse=True).encode(),
        dumps(Fault(1, "x")).encode(),
        b"\xff\xfe" * 20,
    ],
    ids=lambda body: body[:20].decode("latin-1") + str(len(body)),
)
def test_what_is_no_call_is_a_fault_and_changes_nothing(
    site: Any, workplace: Workplace, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = workplace.last_transaction()
    response = site.ask("/xmlrpc", "POST", body=body, content_type=MEDIA_TYPE)
    assert response.status_int == 200
    with pytest.raises(Fault):
        loads(response.body)
    assert workplace.last_transaction() == before
    assert not caplog.records


@pytest.mark.parametrize("media_type", ["text/plain", "application/json", ""])
def test_a_call_is_xml_or_none(site: Any, media_type: str) -> None:
    body = dumps(("echo",), "add").encode()
    response = site.ask("/xmlrpc", "POST", body=body, content_type=media_type)
    assert response.status_int == 415


# -- the second door -------------------------------------------------------------------------


def test_remote_processors_answer_too(workplace: Workplace, make_site: Any) -> None:
    with workplace.transaction() as root:
        root["remote"] = processor = RemoteProcessor()
        processor.addJobFactory("note", Note())
    server = proxy(make_site(services="@remote"))
    assert server.getAvailableTasks() == ["note"]
    jobid = server.add("note", [1])
    assert len(jobid) == 24
    assert server.getStatus(jobid) == "queued"
    with workplace.transaction() as root:
        root["remote"].processJobs()
    assert server.getResult(jobid) == [1]
    assert server.getError(jobid) == "None"
    other = server.add("note")
    assert server.cancel(other) is True
    assert server.getStatus(other) == "cancelled"
