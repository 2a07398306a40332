# SPDX-License-Identifier: ZPL-2.1
"""The calls by JSON."""

from __future__ import annotations

import itertools
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from zope.component import provideAdapter
from zope.interface import Interface

from lovely.remotetask.interfaces import IJob, IJobDetail
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import TaskError
from lovely.remotetask.web.api.face import CALLS
from remotejobs import Note
from workplace import Workplace


def run_all(workplace: Workplace) -> None:
    with workplace.service() as service:
        service.process()


def add(site: Any, task: str = "echo", **given: Any) -> Any:
    response = site.post("/jobs", {"task": task, **given})
    assert response.status_int == 202, response.text
    return response.json["id"]


def ids(page: Any) -> list[Any]:
    return [job["id"] for job in page["jobs"]]


@pytest.fixture
def fail(register: Any) -> None:
    def fail(input: Any) -> None:
        raise TaskError(f"no {input}")

    register("fail", fail)


# -- jobs ------------------------------------------------------------------------------------


def test_a_job_is_added_and_told_of_at_its_address(site: Any, workplace: Workplace) -> None:
    response = site.post("/jobs", {"task": "echo", "input": {"a": [1, None]}, "note": "by hand"})
    assert response.status_int == 202
    address = response.headers["Location"]
    assert address.endswith(response.json["status_url"])
    run_all(workplace)
    job = site.ask(response.json["status_url"]).json
    assert (job["status"], job["result"], job["note"]) == ("completed", {"a": [1, None]}, "by hand")
    assert datetime.fromisoformat(job["created"]).tzinfo is not None


def test_many_jobs_are_added_or_none(site: Any) -> None:
    response = site.post("/job-batches", {"task": "echo", "inputs": [1, 2, 3]})
    assert response.status_int == 202
    assert len(set(response.json["ids"])) == 3
    response = site.post("/job-batches", {"task": "echo", "inputs": [1, "x" * 2_000_000]})
    assert response.status_int == 413
    assert site.get("/service")["jobs"]["queued"] == 3


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/jobs", "after"),
        ("/job-batches", "inputs"),
        ("/schedules", "minute"),
        ("/next-times", "dayOfWeek"),
        ("/clean", "status"),
    ],
)
def test_of_a_list_that_is_too_long_no_member_is_looked_at(
    site: Any, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    def refuse(*given: Any) -> None:
        raise AssertionError("its members are looked at")

    monkeypatch.setattr("lovely.remotetask.web.api.call.best_match", refuse)
    task = {} if path in ("/next-times", "/clean") else {"task": "echo"}
    response = site.post(path, {**task, name: [0] * 5_000})
    assert response.status_int == 422
    assert "members at the most" in response.json["detail"]
    assert name in response.json["detail"]


def test_every_list_of_the_api_has_an_end() -> None:
    for call in CALLS:
        for name, form in (call.body or {}).get("properties", {}).items():
            assert form.get("type") != "array" or "maxItems" in form, (call.name, name)


def test_jobs_are_listed_by_status_task_text_and_time(
    site: Any, workplace: Workplace, fail: None
) -> None:
    echo, one, two = add(site), add(site, "fail", input="Milk"), add(site, "fail", input="tea")
    run_all(workplace)
    assert set(ids(site.get("/jobs"))) == {echo, one, two}
    assert ids(site.get("/jobs?status=completed")) == [echo]
    assert set(ids(site.get("/jobs?task=fail"))) == {one, two}
    assert ids(site.get("/jobs?text=no+mil")) == [one]
    later = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat().replace("+", "%2B")
    assert ids(site.get(f"/jobs?since={later}")) == []
    assert set(ids(site.get(f"/jobs?until={later}"))) == {echo, one, two}
    assert set(ids(site.get(f"/jobs?order=oldest&until={later}"))) == {echo, one, two}
    assert ids(site.get("/jobs?until=2001-01-01T00:00:00Z&order=oldest")) == []
    assert len(ids(site.get("/jobs?since=2001-01-01T00:00:00.5-02:00&order=oldest"))) == 3


def test_a_time_cuts_a_list_exactly(site: Any, workplace: Workplace, register: Any) -> None:
    with workplace.service() as service:
        jobids = [
            service.add("echo", at=datetime(2040, 1, day, tzinfo=timezone.utc))
            for day in range(1, 10)
        ]
    cut = "/jobs?status=delayed&since=2040-01-02T23:59:59Z&until=2040-01-06T00:00:01Z"
    assert ids(site.get(cut)) == jobids[2:6][::-1]
    assert ids(site.get(f"{cut}&order=oldest")) == jobids[2:6]
    first = site.get(f"{cut}&order=oldest&limit=3")
    assert ids(first) == jobids[2:5]
    assert ids(site.get(f"{cut}&order=oldest&after={first['next']}")) == jobids[5:6]


def test_pages_follow_each_other(site: Any) -> None:
    site.post("/job-batches", {"task": "echo", "inputs": list(range(7))})
    seen: list[Any] = []
    address = "/jobs?limit=3"
    for size in (3, 3, 1):
        page = site.get(address)
        assert len(page["jobs"]) == size
        seen += ids(page)
        address = f"/jobs?limit=3&after={page['next']}"
    assert page["next"] is None
    assert len(set(seen)) == 7


def test_a_job_tells_its_failures_its_values_and_its_detail(
    site: Any, workplace: Workplace, fail: None
) -> None:
    class Detail:
        def __init__(self, job: Any, request: Any) -> None:
            self.job = job

        def __call__(self) -> str:
            return f"<b>{self.job.input}</b>"

    provideAdapter(Detail, (IJob, Interface), IJobDetail, "fail_detail")
    jobid = add(site, "fail", input="milk")
    run_all(workplace)
    job = site.get(f"/jobs/{jobid}")
    assert job["error"] == "no milk"
    assert job["failures"][0]["type"] == "TaskError"
    assert "Traceback" in job["failures"][0]["traceback"]
    assert job["input"] == "milk"
    assert job["detail"] == "<b>milk</b>"
    assert site.get(f"/jobs/{add(site)}")["detail"] is None


def test_a_detail_that_fails_is_logged_and_left_out(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Detail:
        def __init__(self, job: Any, request: Any) -> None:
            raise SystemError("broken")

    provideAdapter(Detail, (IJob, Interface), IJobDetail, "detail")
    jobid = add(site)
    assert site.get(f"/jobs/{jobid}")["detail"] is None
    assert f"job {jobid}: its detail cannot be shown" in caplog.text


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ((1, {2}), [1, [2]]),
        (b"\0", {"$bytes": "AA=="}),
        (float("nan"), {"$float": "nan"}),
        ({1: 2}, {"$dict": [[1, 2]]}),
        ({"$bytes": 1}, {"$dict": [["$bytes", 1]]}),
        (datetime(2030, 1, 2), "2030-01-02T00:00:00"),
        (2**70, 2**70),
        (1j, {"$repr": "1j"}),
        ("\0\ud800", "\0\ud800"),
    ],
)
def test_a_result_is_told_in_its_form(
    site: Any, workplace: Workplace, register: Any, result: Any, told: Any
) -> None:
    register("give", lambda input: result)
    jobid = add(site, "give")
    run_all(workplace)
    assert site.get(f"/jobs/{jobid}")["result"] == told


def test_jobs_are_cancelled_repeated_hurried_and_removed(
    site: Any, workplace: Workplace, fail: None
) -> None:
    jobid = add(site, delay=3600)
    assert site.post(f"/jobs/{jobid}/run-now").json["outcome"] == "is due now"
    assert site.post(f"/jobs/{jobid}/cancel").json["outcome"] == "is cancelled"
    assert site.post(f"/jobs/{jobid}/retry", {"input": "anew"}).json["outcome"] == "runs again"
    run_all(workplace)
    assert site.get(f"/jobs/{jobid}")["result"] == "anew"
    assert site.post(f"/jobs/{jobid}/retry").json["error"] == "InvalidArgument"
    assert site.ask(f"/api/v1/jobs/{jobid}", "DELETE").status_int == 204
    assert site.ask(f"/api/v1/jobs/{jobid}").status_int == 404
    waiting = add(site)
    response = site.ask(f"/api/v1/jobs/{waiting}", "DELETE")
    assert (response.status_int, response.json["error"]) == (409, "JobIsLive")
    later = add(site, start_later=True)
    assert site.post(f"/jobs/{later}/start").json["outcome"] == "is queued"


def test_many_jobs_are_cleaned_repeated_and_cancelled(
    site: Any, workplace: Workplace, fail: None
) -> None:
    for number in range(3):
        add(site, "fail", input=number)
        add(site)
    run_all(workplace)
    assert site.post("/clean", {"status": ["completed"], "limit": 2}).json == {
        "removed": {"completed": 2}
    }
    assert site.post("/retry", {"task": "fail", "limit": 2}).json == {"count": 2}
    schedule = site.post("/schedules", {"task": "echo", "cron": "0 0 1 1 *"}).json["id"]
    add(site, delay=50)
    assert site.post("/cancel").json == {"count": 3}
    counts = site.get("/service")["jobs"]
    assert (counts["cancelled"], counts["error"], counts["completed"]) == (3, 1, 1)
    assert site.get(f"/jobs/{schedule}")["status"] == "cronjob"
    assert site.post("/clean").json == {"removed": {"cancelled": 3, "error": 1, "completed": 1}}


def test_a_whole_number_may_have_a_point(site: Any) -> None:
    assert site.post("/clean", body=b'{"limit": 5.0}', content_type="application/json").json
    body = b'{"task": "echo", "minute": [5.0]}'
    response = site.post("/schedules", body=body, content_type="application/json")
    assert site.get(f"/schedules/{response.json['id']}")["minute"] == [5]


# -- schedules -------------------------------------------------------------------------------


def test_a_schedule_is_added_edited_paused_and_removed(site: Any, workplace: Workplace) -> None:
    response = site.post("/schedules", {"task": "echo", "hour": [3], "timezone": "Europe/Zurich"})
    assert response.status_int == 201
    address = f"/schedules/{response.json['id']}"
    schedule = site.get(address)
    assert (schedule["task"], schedule["hour"], schedule["status"]) == ("echo", [3], "cronjob")
    times = site.get(f"{address}/next-times")["times"]
    assert len(times) == 10
    assert times[0][11:19] == "03:00:00"
    assert datetime.fromisoformat(times[0]) == datetime.fromisoformat(schedule["next"])

    changed = site.ask(f"/api/v1{address}", "PUT", {"task": "hang", "minute": [5]}).json
    assert (changed["task"], changed["hour"], changed["minute"]) == ("hang", [], [5])
    assert datetime.fromisoformat(changed["next"]).minute == 5

    assert site.post(f"{address}/pause").json["outcome"] == "is paused"
    assert site.get(address)["paused"] is True
    assert site.get("/schedules")["schedules"][0]["paused"] is True
    with workplace.service() as service:
        service.process(time.time() + 10_000)
        assert check_all(service, time.time(), False) == []  # it rests where its record says
    assert site.ask(f"/api/v1{address}", "PUT", {"task": "echo", "minute": [6]}).status_int == 200
    assert site.post(f"{address}/resume").json["outcome"] == "goes on"
    assert site.post(f"{address}/resume").status_int == 422
    schedule = site.get(address)
    assert (schedule["status"], schedule["next"][14:16]) == ("cronjob", "06")

    assert site.post(f"{address}/run-now").json["outcome"] == "is due now"
    run_all(workplace)
    assert site.get(address)["last"] is not None
    assert site.ask(f"/api/v1{address}", "DELETE").json["outcome"] == "is removed"
    assert site.ask(f"/api/v1{address}").status_int == 404
    assert site.get("/schedules") == {"schedules": [], "next": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"minute": [61]},
        {"month": [0]},
        {"cron": "soon"},
        {"dayOfMonth": [31], "month": [2]},
        {"delay": 5, "minute": [1]},
        {"timezone": "Nowhere/Land"},
        {"minute": "5"},
    ],
)
def test_a_schedule_that_makes_no_sense_changes_nothing(
    site: Any, workplace: Workplace, fields: dict[str, Any]
) -> None:
    jobid = site.post("/schedules", {"task": "echo", "minute": [7]}).json["id"]
    before = workplace.last_transaction()
    assert site.post("/schedules", {"task": "echo", **fields}).status_int == 422
    response = site.ask(f"/api/v1/schedules/{jobid}", "PUT", {"task": "hang", **fields})
    assert response.status_int == 422
    assert site.post("/next-times", fields).status_int == 422
    assert workplace.last_transaction() == before


def test_an_unknown_task_changes_no_schedule(site: Any) -> None:
    jobid = site.post("/schedules", {"task": "echo", "minute": [7]}).json["id"]
    response = site.ask(f"/api/v1/schedules/{jobid}", "PUT", {"task": "nix", "minute": [8]})
    assert (response.status_int, response.json["error"]) == (422, "TaskNotFound")
    assert site.get(f"/schedules/{jobid}")["minute"] == [7]


def test_a_preview_changes_nothing(site: Any, workplace: Workplace) -> None:
    before = workplace.last_transaction()
    times = site.post("/next-times", {"cron": "*/5 * * * *"}).json["times"]
    gaps = {
        datetime.fromisoformat(b) - datetime.fromisoformat(a) for a, b in itertools.pairwise(times)
    }
    assert gaps == {timedelta(minutes=5)}
    assert workplace.last_transaction() == before


# -- services --------------------------------------------------------------------------------


def test_a_service_is_paused_and_goes_on(site: Any) -> None:
    assert site.post("/service/pause", {"task": "echo"}).status_int == 200
    assert site.get("/service")["paused"] == ["echo"]
    assert site.post("/service/pause").status_int == 200
    assert site.ask("/api/v1/health").status_int == 503
    assert site.ask("/api/v1/health").json["problems"] == ["all tasks are paused"]
    assert site.post("/service/resume").status_int == 200
    assert site.get("/service")["paused"] == []
    assert site.get("/health")["healthy"] is True


def test_a_service_is_started_and_stopped(site: Any, until: Any) -> None:
    assert site.get("/service")["processing"] is False
    assert site.post("/service/start").json["outcome"] == "is started"
    assert site.post("/service/start").json["outcome"] == "is at work already"
    jobid = add(site)
    until(lambda: site.get(f"/jobs/{jobid}")["status"] == "completed", "the job")
    assert site.post("/service/stop").status_int == 200
    until(lambda: site.get("/service")["processing"] is False, "the end")


def test_workers_and_their_jobs_are_told(site: Any, workplace: Workplace, until: Any) -> None:
    jobid = add(site, "hang")
    workplace.start()
    until(lambda: workplace.hanging, "the job")
    [worker] = site.get("/workers")["workers"]
    assert worker["held"] == [jobid]
    assert worker["alive"] is True
    workplace.gate.set()
    workplace.stop()


def test_health_tells_of_jobs_that_nobody_takes(
    site: Any, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lovely.remotetask.web import overview

    add(site)
    assert site.get("/health")["healthy"] is True
    monkeypatch.setattr(overview, "time", lambda: time.time() + 120)
    response = site.ask("/api/v1/health")
    assert response.status_int == 503
    assert response.json["problems"] == ["jobs wait, and nobody works"]


def test_metrics_are_in_the_format_of_prometheus(site: Any, make_site: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    add(site)
    response = site.ask("/api/v1/metrics")
    assert response.content_type == "text/plain"
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    [queued] = [
        sample.value
        for sample in families["remotetask_jobs"].samples
        if sample.labels == {"service": "tasks", "status": "queued"}
    ]
    assert queued == 1


def test_of_several_services_each_has_its_own_address(workplace: Workplace, make_site: Any) -> None:
    workplace.new_service("other")
    site = make_site()
    names = [service["name"] for service in site.get("/services")["services"]]
    assert names == ["@other", "@tasks"]
    assert site.ask("/api/v1/jobs").status_int == 404
    response = site.ask("/@other/api/v1/jobs", "POST", {"task": "echo"})
    assert response.json["status_url"].startswith("/@other/api/v1/jobs/")
    assert len(site.ask("/@other/api/v1/jobs").json["jobs"]) == 1
    assert site.ask("/@tasks/api/v1/jobs").json["jobs"] == []
    assert 'service="other"' in site.ask("/api/v1/metrics").text
    only = make_site(services="@other")
    assert only.ask("/@tasks/api/v1/jobs").status_int == 404
    assert len(only.get("/jobs")["jobs"]) == 1


# -- the second door -------------------------------------------------------------------------


def test_remote_processors_are_served_too(workplace: Workplace, make_site: Any) -> None:
    with workplace.transaction() as root:
        root["remote"] = processor = RemoteProcessor()
        processor.addJobFactory("note", Note())
    site = make_site(services="@remote")
    assert site.get("/tasks")["tasks"] == ["note"]
    jobid = add(site, "note", input=[1])
    assert site.post("/jobs", {"task": "note", "delay": 5}).status_int == 422
    with workplace.transaction() as root:
        root["remote"].processJobs()
    job = site.get(f"/jobs/{jobid}")
    assert (job["id"], job["status"], job["input"], job["result"]) == (
        jobid,
        "completed",
        [1],
        [1],
    )
    other = add(site, "note")
    assert site.post(f"/jobs/{other}/cancel").json["outcome"] == "is cancelled"
    assert site.ask(f"/api/v1/jobs/{other}", "DELETE").status_int == 204
    assert ids(site.get("/jobs")) == [jobid]
    assert site.get("/service")["door"] == "remote processor"


def test_the_items_of_a_scheduler_are_schedules(workplace: Workplace, make_site: Any) -> None:
    with workplace.transaction() as root:
        root["remote"] = processor = RemoteProcessor()
        processor.addJobFactory("note", Note())
    site = make_site(services="@remote")
    itemid = site.post("/schedules", {"task": "note", "hour": [3]}).json["id"]
    address = f"/schedules/{itemid}"
    assert site.get(address)["hour"] == [3]
    assert len(site.get(f"{address}/next-times")["times"]) == 10
    assert site.ask(f"/api/v1{address}", "PUT", {"task": "note", "hour": [4]}).json["hour"] == [4]
    assert site.post(f"{address}/pause").status_int == 200
    assert site.get(address)["paused"] is True
    assert site.post(f"{address}/resume").status_int == 200
    assert site.get(address)["next"] is not None
    assert "has added job" in site.post(f"{address}/run-now").json["outcome"]
    for wrong in ({"hour": [25]}, {"delay": 5}, {"cron": "* * * * *"}):
        response = site.ask(f"/api/v1{address}", "PUT", {"task": "note", **wrong})
        assert response.status_int == 422
    assert site.get(address)["hour"] == [4]
    delayed = site.post("/schedules", {"task": "note", "delay": 60}).json["id"]
    assert len(site.get("/schedules")["schedules"]) == 2
    page = site.get("/schedules?limit=1")
    assert site.get(f"/schedules?after={page['next']}")["schedules"][0]["id"] == delayed
    assert site.ask(f"/api/v1{address}", "DELETE").status_int == 200
    assert len(site.get("/schedules")["schedules"]) == 1
