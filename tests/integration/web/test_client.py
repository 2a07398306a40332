# SPDX-License-Identifier: ZPL-2.1
"""A service on another machine is used as if it were here, over real HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from inspect import signature
from typing import Any

import pytest

from lovely.remotetask import TaskService
from lovely.remotetask.client import RemoteService
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidSchedule,
    JobFailed,
    JobIsLive,
    JobNotDone,
    JobNotFound,
    RemoteTaskError,
    ServerAway,
    TaskNotFound,
)
from lovely.remotetask.interfaces import ITaskService
from lovely.remotetask.store.worker import Origin
from lovely.remotetask.task import TaskError
from lovely.remotetask.web import make_app
from lovely.remotetask.web.authorizers import BearerTokens
from lovely.remotetask.web.server import Server
from workplace import Workplace


@contextmanager
def serving(workplace: Workplace) -> Iterator[Server]:
    """Serve the service of a workplace."""
    app = make_app(
        workplace.db,
        authorize=BearerTokens({"all": ("view", "add", "manage"), "viewer": ("view",)}),
    )
    server = Server(app, "127.0.0.1", 0)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(workplace: Workplace) -> Iterator[Server]:
    with serving(workplace) as server:
        yield server


@pytest.fixture
def service(server: Server) -> RemoteService:
    return RemoteService(server.url, token="all")


def run_all(workplace: Workplace) -> None:
    with workplace.service() as service:
        service.process()


def test_a_job_goes_there_and_back(service: RemoteService, workplace: Workplace) -> None:
    assert sorted(service.getAvailableTasks()) == ["echo", "hang"]
    jobid = service.add("echo", {"a": [1, None, "\N{SNOWMAN}"]}, note="from afar")
    assert service.getStatus(jobid) == "queued"
    assert service.getResult(jobid) is None
    assert service.getError(jobid) == "None"
    run_all(workplace)
    assert service.wait(jobid, 10) == "completed"
    assert service.wait_result(jobid, 10) == {"a": [1, None, "\N{SNOWMAN}"]}
    job = service.job(jobid)
    assert (job.note, job.attempt, job.is_final) == ("from afar", 1, True)
    assert job.created is not None
    assert abs((datetime.now(timezone.utc) - job.created).total_seconds()) < 3_600


@pytest.mark.parametrize(
    "result", [b"\0", float("inf"), {1: b"x", (1, 2): None}, {"$bytes": "x"}, [[{}]], 2**70, "\0"]
)
def test_values_come_back_as_they_were(
    service: RemoteService, workplace: Workplace, register: Any, result: Any
) -> None:
    register("give", lambda input: result)
    jobid = service.add("give")
    run_all(workplace)
    assert service.getResult(jobid) == result


def test_who_waits_is_told_when_the_job_has_ended(
    service: RemoteService, workplace: Workplace
) -> None:
    jobid = service.add("hang", 5)
    workplace.start()
    assert service.wait(jobid, 0) in ("queued", "processing")
    threading.Timer(0.1, workplace.gate.set).start()
    assert service.wait_all([jobid], 60) == {jobid: "completed"}
    workplace.stop()


def test_a_group_has_a_priority_and_a_lock_there_too(
    service: RemoteService, workplace: Workplace
) -> None:
    groupid = service.add_group("echo", [1, 2], ("echo", "end"), priority=5, lock="desk")
    with workplace.service() as local:
        members = [local.jobs[member.jobid] for member in local.group(groupid)]
        assert [(job.priority, job.lock) for job in members] == [(5, "desk")] * 2
    for add in (service.add_many, partial(service.add_group, then="echo")):
        with pytest.raises(InvalidInput, match="not one text"):
            add("echo", "abc")


def test_groups_and_unique_keys_are_there_too(service: RemoteService, workplace: Workplace) -> None:
    groupid = service.add_group("echo", [1, 2], ("echo", "end"))
    group = service.group(groupid)
    assert (group.total, group.done, group.is_ended) == (2, 0, False)
    jobid = service.add("echo", unique_key="one")
    assert service.find("one") == jobid == service.add("echo", unique_key="one")
    assert service.find("another") is None
    run_all(workplace)
    run_all(workplace)
    group = service.group(groupid)
    assert (group.completed, group.errors, group.is_ended) == (2, 0, True)
    assert service.getResult(groupid) == "end"
    assert service.find("one") is None
    for wrong in (4711, jobid):
        with pytest.raises((JobNotFound, InvalidArgument)):
            service.group(wrong)


def test_schedules_are_ensured_listed_and_removed_by_their_keys(service: RemoteService) -> None:
    jobid = service.ensure("nightly", "echo", {"a": 1}, hour=[3], timezone="Europe/Vienna")
    assert service.ensure("nightly", "echo", {"a": 1}, hour=[4]) == jobid
    service.addCronJob("echo", cron="0 6 * * 1")
    listed = {schedule.key: schedule for schedule in service.schedules()}
    assert listed.keys() == {"nightly", None}
    assert listed["nightly"].id == jobid
    assert (listed["nightly"].fields["hour"], listed["nightly"].is_declared) == ([4], False)
    assert listed["nightly"].next_run is not None
    service.reschedule(jobid)
    assert service.remove_schedule("nightly")
    assert not service.remove_schedule("nightly")
    assert [schedule.key for schedule in service.schedules()] == [None]
    with pytest.raises(InvalidSchedule):
        service.ensure("never", "echo", cron="0 0 30 2 *")


def test_a_job_is_undone(file_workplace: Workplace, register: Any) -> None:
    register("write", lambda context, input: context.root.update(written=input), context=True)
    with serving(file_workplace) as server:
        service = RemoteService(server.url, token="all")
        jobid = service.add("write", 5)
        with pytest.raises(InvalidArgument, match="only a completed job"):
            service.undo(jobid)
        run_all(file_workplace)
        service.undo(jobid, "Ada")
        job = service.job(jobid)
        assert (job.status, job.output) == ("cancelled", None)
        assert job.note is not None
        assert job.note.startswith("undone by Ada at ")
        with file_workplace.transaction() as root:
            assert "written" not in root


def test_errors_are_those_of_a_service_here(
    service: RemoteService, workplace: Workplace, register: Any
) -> None:
    def fail(input: Any) -> None:
        raise TaskError("no milk")

    register("fail", fail)
    failing, waiting = service.add("fail"), service.add("echo", delay=60)
    run_all(workplace)
    with pytest.raises(JobFailed, match="no milk"):
        service.wait_result(failing, 5)
    with pytest.raises(JobNotDone):
        service.wait_result(waiting, 0)
    [failure] = service.job(failing).failures
    assert (failure.type, failure.message) == ("TaskError", "no milk")
    for error, call in (
        (JobNotFound, lambda: service.getStatus(4711)),
        (JobNotFound, lambda: service.getStatus("../service")),
        (TaskNotFound, lambda: service.add("nix")),
        (InvalidInput, lambda: service.add("echo", object())),
        (InvalidInput, lambda: service.add("echo", float("nan"))),
        (InvalidInput, lambda: service.add("echo", _nested(150))),
        (InvalidArgument, lambda: service.add("echo", delay=-1)),
        (InvalidArgument, lambda: service.add("echo", at=datetime(2030, 1, 1))),
        (InvalidArgument, lambda: service.retry(waiting)),
        (InvalidArgument, lambda: service.list(limit=0)),
        (InvalidArgument, lambda: service.list(status="done")),
        (InvalidArgument, lambda: service.wait(waiting, -1)),
        (InvalidSchedule, lambda: service.addCronJob("echo", cron="soon")),
    ):
        with pytest.raises(error):
            call()
    service.cancel(4711)  # as here


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_a_service_can_be_told(service: RemoteService, workplace: Workplace) -> None:
    first, *_ = service.add_many("echo", range(3))
    later = service.add("echo", startLater=True)
    timed = service.add("echo", at=datetime.now(timezone.utc) + timedelta(hours=1))
    assert service.startJob(later) is True
    assert service.startJob(later) is False
    service.run_now(timed)
    service.cancel(first)
    assert service.countJobs()["cancelled"] == 1
    service.retry(first, input="anew")
    service.pause("echo")
    assert service.list_paused() == ["echo"]
    service.pause()
    assert set(service.list_paused()) == {None, "echo"}
    service.resume()
    assert service.list_paused() == []
    run_all(workplace)
    page = service.list("completed", "echo", order="oldest", limit=2)
    assert len(page.jobs) == 2
    assert len(service.list("completed", after=page.next, order="oldest").jobs) == 3
    assert service.errors().jobs == []
    assert service.retry_all(before=time.time()) == 0
    assert service.remove_oldest("completed", limit=1) == 1
    service.clean(["completed"])
    assert service.list().jobs == []
    jobid = service.addCronJob("echo", hour=[3], timezone="Europe/Zurich")
    assert service.getStatus(jobid) == "cronjob"
    assert service.list_workers() == []
    assert service.isProcessing() is False
    service.startProcessing()
    assert service.isProcessing() is True
    service.stopProcessing()
    with pytest.raises((JobIsLive, InvalidArgument)):
        service.clean(["queued"])


def test_workers_are_told_with_who_has_started_them(
    service: RemoteService, workplace: Workplace, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lovely.remotetask.store.worker.origin", Origin(4711, 2, 3, "has died"))
    jobid = service.add("hang", 5)
    workplace.start()
    until(lambda: workplace.hanging, "the job")
    [worker] = service.list_workers()
    with workplace.service() as here:
        assert here.list_workers() == [worker]
    told = (worker.held, worker.supervisor, worker.child, worker.starts, worker.restarted)
    assert told == ((jobid,), 4711, 2, 3, "has died")
    workplace.gate.set()
    workplace.stop()


def test_the_methods_are_those_of_a_service_here() -> None:
    own = {name for name in dir(RemoteService) if not name.startswith("_")}
    assert own <= set(ITaskService.names(all=True))


def test_a_job_is_added_with_all_that_json_can_have(
    service: RemoteService, workplace: Workplace
) -> None:
    arguments = set(signature(TaskService.add).parameters) - {"retry"}
    assert set(signature(RemoteService.add).parameters) == arguments
    first = service.add("echo")
    assert service.job(first).waits_for is None
    jobid = service.add(
        "echo",
        priority=3,
        unique_key="k",
        lock="printer",
        expires=60,
        after=first,
        on_success=("echo", {"a": 1}),
        on_error="echo",
    )
    job = service.job(jobid)
    assert (job.priority, job.unique_key, job.lock) == (3, "k", "printer")
    assert (job.after, job.awaits) == ((first,), (first,))
    assert job.waits_for == f"job {first} to be completed"
    assert job.expires is not None
    assert service.add("echo", unique_key="k") == jobid
    until = datetime(2090, 1, 1, tzinfo=timezone.utc)
    assert service.job(service.add("echo", after=[first, jobid], expires=until)).expires == until
    [of_many] = service.add_many("echo", [1], priority=-3)
    assert service.job(of_many).priority == -3
    for error, options in (
        (JobNotFound, {"after": 4711}),
        (TaskNotFound, {"on_success": "nix"}),
        (InvalidInput, {"on_error": ("echo", _nested(150))}),
        (InvalidArgument, {"priority": 101}),
        (InvalidArgument, {"lock": ""}),
        (InvalidArgument, {"expires": -1}),
        (InvalidArgument, {"expires": datetime(2090, 1, 1)}),
        (InvalidArgument, {"after": first, "delay": 5}),
    ):
        with pytest.raises(error):
            service.add("echo", **options)
    run_all(workplace)
    followed = [service.job(found.id) for found in service.list(limit=10).jobs]
    assert [job.input for job in followed if job.cause == jobid] == [{"a": 1}]


def test_the_log_is_that_of_a_service_here(
    service: RemoteService, workplace: Workplace, register: Any
) -> None:
    register("log", lambda input: logging.getLogger("shop").warning("no %s", input))
    jobid = service.add("log", "milk")
    run_all(workplace)
    with workplace.service() as here:
        assert service.getLog(jobid) == here.getLog(jobid)
    assert [line.text for line in service.getLog(jobid)] == ["no milk"]


def test_who_may_not_is_told_so(server: Server) -> None:
    with pytest.raises(RemoteTaskError, match="401"):
        RemoteService(server.url).countJobs()
    viewer = RemoteService(server.url, token="viewer")
    assert viewer.countJobs()["queued"] == 0
    with pytest.raises(RemoteTaskError, match="403"):
        viewer.add("echo")


def test_a_server_that_is_away_is_told_so(server: Server) -> None:
    server.stop()
    with pytest.raises(ServerAway, match="does not answer"):
        RemoteService(server.url, token="all").countJobs()


@pytest.fixture
def answering() -> Iterator[Callable[[int, dict[str, str], bytes], str]]:
    """Return a function that starts a server with one answer, and returns its address."""
    servers: list[HTTPServer] = []

    def start(status: int, headers: dict[str, str], body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_is_no_answer_of_a_service_is_told(answering: Any, server: Server) -> None:
    with pytest.raises(RemoteTaskError, match="JSON"):
        RemoteService(answering(200, {}, b"<html>")).countJobs()
    with pytest.raises(RemoteTaskError, match="500"):
        RemoteService(answering(500, {}, b"<html>")).countJobs()
    with pytest.raises(ServerAway):
        RemoteService(answering(503, {}, b"[]")).countJobs()
    # A token is shown to nobody else.
    with pytest.raises(RemoteTaskError, match="302"):
        RemoteService(answering(302, {"Location": server.url}, b""), token="all").countJobs()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "jobs.example.com", "", "ftp://x"])
def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises(InvalidArgument):
        RemoteService(url)
