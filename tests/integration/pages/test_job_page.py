# SPDX-License-Identifier: ZPL-2.1
"""The page of one job, and the form that adds one, over HTTP."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from zope.interface import Interface
from zope.schema import Bool, Choice, Datetime, Dict, Float, Int, List, Text, TextLine

from browsing import Browser, words
from lovely.remotetask import TaskError
from workplace import Workplace, wait_until


def button_names(browser: Browser) -> list[str]:
    return [words(button) for button in browser.buttons()]


def job_of(place: Workplace, jobid: int) -> Any:
    with place.service() as service:
        job = service.job(jobid)
        return job.task, job.status, job.input, job.note


def only_job(place: Workplace) -> Any:
    with place.service() as service:
        [jobid] = list(service.jobs)
    return job_of(place, jobid)


# -- one job -----------------------------------------------------------------------------------


def test_a_completed_job_shows_its_input_and_its_result(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("echo", {"order": 12, "to": "Ada"})
    run_jobs()
    browser.open(f"/jobs/{jobid}")
    assert str(jobid) in browser.heading
    text = words(browser.all("main")[0])
    assert "completed" in text
    assert text.count('{ "order": 12, "to": "Ada" }') == 2
    assert button_names(browser) == ["Remove"]


def test_an_error_shows_its_traceback_and_can_be_repeated(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("fail", 12)
    run_jobs()
    browser.open(f"/jobs/{jobid}")
    text = words(browser.all("main")[0])
    assert "Traceback (most recent call last)" in text
    assert "TaskError: no luck with 12" in text
    assert "attempt 1 failed: TaskError" in text
    browser.press("Retry")
    assert browser.status == f"Job {jobid} is queued again"
    assert place.statuses([jobid]) == ["queued"]
    assert "Traceback" in words(browser.all("main")[0])


def test_a_waiting_job_can_be_cancelled(browser: Browser, place: Workplace) -> None:
    [jobid] = place.add("echo", 1)
    browser.open(f"/jobs/{jobid}").press("Cancel")
    assert "cancelled" in browser.status
    assert place.statuses([jobid]) == ["cancelled"]
    assert button_names(browser) == ["Retry", "Remove"]


def test_a_running_job_is_asked_to_stop(browser: Browser, place: Workplace) -> None:
    [jobid] = place.add("hang", None)
    place.start()
    wait_until(lambda: place.hanging)
    browser.open(f"/jobs/{jobid}").press("Cancel")
    assert "asked to stop" in browser.status
    assert button_names(browser) == []
    place.gate.set()
    place.wait_for([jobid])


def test_a_delayed_job_can_run_now(browser: Browser, place: Workplace) -> None:
    [jobid] = place.add("echo", 1, delay=3600)
    browser.open(f"/jobs/{jobid}").press("Run now")
    assert "due now" in browser.status
    with place.service() as service:
        assert service.hasJobsWaiting()


def test_a_job_that_is_to_be_started_later_can_be_started(
    browser: Browser, place: Workplace
) -> None:
    [jobid] = place.add("echo", 1, startLater=True)
    browser.open(f"/jobs/{jobid}").press("Start")
    assert place.statuses([jobid]) == ["queued"]


def test_a_job_that_has_ended_can_be_removed(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("echo", 1)
    run_jobs()
    browser.open(f"/jobs/{jobid}").press("Remove")
    assert browser.status == f"Job {jobid} is removed"
    assert browser.heading.startswith("Jobs")
    assert browser.open(f"/jobs/{jobid}").code == 404


def test_what_comes_too_late_is_refused(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("fail", 1)
    run_jobs()
    browser.open(f"/jobs/{jobid}")
    with place.service() as service:
        service.retry(jobid)
    browser.press("Retry")
    assert "nothing to repeat" in browser.alert
    assert place.statuses([jobid]) == ["queued"]


def test_the_progress_of_a_job_is_a_bar_with_its_words(
    browser: Browser, place: Workplace, register: Callable[..., Any]
) -> None:
    def count(context: Any, input: Any) -> None:
        context.progress(3, 10, "three of the ten")
        place.hang(input)

    register("count", count, context=True)
    [jobid] = place.add("count", None)
    place.start()
    wait_until(lambda: place.hanging)
    browser.open(f"/jobs/{jobid}")
    [bar] = browser.all("progress")
    assert (bar["value"], bar["max"]) == ("3", "10")
    assert "3 of 10: three of the ten" in words(browser.all("main")[0])
    assert browser.open("/jobs").rows[0]["Detail"] == "3 of 10: three of the ten"
    place.gate.set()
    place.wait_for([jobid])


@pytest.mark.parametrize("jobid", ["1", "no", "99999999999999999999", "-1", "%00", "%2e%2e"])
def test_a_job_that_is_not_there_is_not_found(browser: Browser, jobid: str) -> None:
    assert browser.open(f"/jobs/{jobid}").code == 404
    assert browser.alert


def test_odd_values_are_shown(
    browser: Browser, place: Workplace, register: Callable[..., Any], run_jobs: Callable[[], None]
) -> None:
    register("odd", lambda input: {1: {2, 3}, b"\xff": float("nan"), "n": 10**5000})
    [jobid] = place.add("odd", ("\x00<&>\ud800", object, datetime.now(timezone.utc)))
    run_jobs()
    assert browser.open(f"/jobs/{jobid}").code == 200


# -- adding ------------------------------------------------------------------------------------


class IMail(Interface):
    to = TextLine(title="Recipient")
    copies = Int(title="Copies", min=1, max=5, default=1)
    weight = Float(title="Weight", required=False)
    text = Text(title="Text", required=False)
    is_urgent = Bool(title="Urgent", default=False)
    kind = Choice(title="Kind", values=["news", "bill"])
    at = Datetime(title="Not before", required=False)
    tags = List(title="Tags", value_type=TextLine(), required=False)
    extra = Dict(title="Extra", key_type=TextLine(), value_type=Int(), required=False)


@pytest.fixture
def mail(register: Callable[..., Any], place: Workplace) -> None:
    """A task with a schema."""
    register("mail", lambda input: "sent").inputSchema = IMail


def test_a_job_is_added_with_an_input_in_json(browser: Browser, place: Workplace) -> None:
    browser.open("/jobs").follow("echo")
    browser.fill(Input='{"order": [1, 2]}', Note="for Ada").press("Add")
    assert re.fullmatch(r"Job \d+ added", browser.status)
    assert only_job(place) == ("echo", "queued", {"order": [1, 2]}, "for Ada")


def test_a_job_is_added_without_input(browser: Browser, place: Workplace) -> None:
    browser.open("/add?task=echo").press("Add")
    assert only_job(place) == ("echo", "queued", None, None)


def test_a_job_is_added_with_a_delay(browser: Browser, place: Workplace) -> None:
    browser.open("/add?task=echo").fill(Delay="90").press("Add")
    assert only_job(place)[1] == "delayed"


@pytest.mark.parametrize(
    ("name", "value"),
    [("Input", "{no"), ("Input", "[" * 20_000), ("Delay", "soon"), ("Delay", "-1")],
)
def test_what_is_no_input_is_refused_and_kept_as_it_was_typed(
    browser: Browser, place: Workplace, name: str, value: str
) -> None:
    browser.open("/add?task=echo").type(name, value).press("Add")
    assert browser.code == 200
    assert browser.alert
    assert browser.value(name) == value
    with place.service() as service:
        assert not list(service.jobs)


def test_the_form_of_a_task_has_the_fields_of_its_schema(
    browser: Browser, place: Workplace, mail: None
) -> None:
    browser.open("/jobs").follow("mail")
    browser.type("Recipient (needed)", "ada@example.com")
    browser.type("Copies (needed)", "2").type("Weight", "1.5").type("Text", "Hello,\nAda")
    browser.type("Urgent", True).type("Kind (needed)", "bill")
    browser.type("Not before", "2030-01-02T03:04:05").type("Tags", "a\nb\n")
    browser.type("Extra", '{"x": 1}').press("Add")
    assert browser.alert == ""
    assert only_job(place)[2] == {
        "to": "ada@example.com",
        "copies": 2,
        "weight": 1.5,
        "text": "Hello,\nAda",
        "is_urgent": True,
        "kind": "bill",
        "at": datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "tags": ["a", "b"],
        "extra": {"x": 1},
    }


def test_what_is_wrong_is_said_beside_the_fields(
    browser: Browser, place: Workplace, mail: None
) -> None:
    browser.open("/add?task=mail")
    browser.type("Copies (needed)", "9").type("Extra", "{}").type("Weight", "heavy").press("Add")
    assert "No job was added" in browser.alert
    for name, text in (
        ("Recipient (needed)", "this is needed"),
        ("Copies (needed)", "this must be 5 or less"),
        ("Weight", "this is no number"),
        ("Kind (needed)", "this is needed"),
    ):
        field = browser.field(name)
        assert field["aria-invalid"] == "true"
        described = str(field["aria-describedby"]).split()
        assert text in [words(tag) for part in described for tag in browser.all(id=part)]
    assert browser.value("Copies (needed)") == "9"
    assert browser.value("Weight") == "heavy"
    assert not browser.field("Extra").has_attr("aria-invalid")
    with place.service() as service:
        assert not list(service.jobs)


def test_no_job_can_be_added_of_a_task_that_nobody_has_registered(browser: Browser) -> None:
    assert browser.open("/add?task=os.system").code == 422
    assert browser.open("/add").code == 422


# -- what most jobs do not have ----------------------------------------------------------------


def facts_told(browser: Browser) -> dict[str, str]:
    [facts] = browser.all("dl")
    names = [words(tag) for tag in facts.find_all("dt")]
    return dict(zip(names, [words(tag) for tag in facts.find_all("dd")], strict=True))


def test_a_plain_job_tells_nothing_of_what_it_does_not_have(
    browser: Browser, place: Workplace
) -> None:
    [jobid] = place.add("echo", 1)
    browser.open(f"/jobs/{jobid}")
    assert set(facts_told(browser)) == {"Status", "Task", "Attempts"}


def test_a_job_tells_what_it_was_added_with(browser: Browser, place: Workplace) -> None:
    with place.service() as service:
        jobid = service.add(
            "echo", priority=7, lock="<b>printer", unique_key="k&1", expires=3600, on_error="fail"
        )
    told = facts_told(browser.open(f"/jobs/{jobid}"))
    assert told["Priority"] == "7"
    assert told["Lock"] == "<b>printer"
    assert told["Unique key"] == "k&1"
    assert told["Expires"].startswith("in ")
    assert told["If it fails"] == "adds a job of fail"
    assert "If completed" not in told


def test_a_job_that_waits_for_others_leads_to_them(browser: Browser, place: Workplace) -> None:
    with place.service() as service:
        first = service.add("echo")
        second = service.add("echo", {"order": 12}, after=first)
    told = facts_told(browser.open(f"/jobs/{second}"))
    assert told["Waits for"] == f"job {first} to be completed"
    assert told["After"] == f"{first} queued"
    browser.open("/jobs")
    assert f'{{"order": 12}} · waits for job {first} to be completed' in words(
        browser.all("tbody")[0]
    )
    browser.open(f"/jobs/{second}").follow(str(first))
    assert str(first) in browser.heading


def test_a_job_at_a_lock_tells_who_has_it(browser: Browser, place: Workplace) -> None:
    with place.service() as service:
        first = service.add("echo", lock="printer")
        second = service.add("echo", lock="printer")
        service.claimNextJob()
    told = facts_told(browser.open(f"/jobs/{second}"))
    assert told["Waits for"] == f"the lock 'printer', after job {first}"


def test_a_group_tells_how_far_it_is(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    with place.service() as service:
        last = service.add_group("fail", [1, 2], then="echo")
        member, *_ = [job.id for job in service.list(task="fail").jobs]
    told = facts_told(browser.open(f"/jobs/{last}"))
    assert told["Group"] == "0 of 2 jobs ended; this job ends it"
    assert told["Waits for"] == "the end of its group"
    run_jobs()
    told = facts_told(browser.open(f"/jobs/{member}"))
    assert told["Group"] == f"{last} ends it 2 of 2 jobs ended, 2 errors"


def test_a_job_that_has_followed_tells_what_has_added_it(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    with place.service() as service:
        first = service.add("echo", on_success="fail")
    run_jobs()
    with place.service() as service:
        [second] = [job.id for job in service.list(task="fail").jobs]
    assert facts_told(browser.open(f"/jobs/{second}"))["Added by"] == f"{first} completed"
    assert "UTC" in facts_told(browser.open(f"/jobs/{first}"))["Transaction"]


def test_of_many_others_some_are_named(browser: Browser, place: Workplace) -> None:
    with place.service() as service:
        before = [service.add("echo") for _ in range(12)]
        jobid = service.add("echo", after=before)
    told = facts_told(browser.open(f"/jobs/{jobid}"))
    assert told["After"].endswith("and 2 others")


def test_the_page_of_a_schedule_leads_to_its_form(browser: Browser, place: Workplace) -> None:
    with place.service() as service:
        jobid = service.ensure("nightly", "echo", hour=(3,))
    told = facts_told(browser.open(f"/jobs/{jobid}"))
    assert told["Schedule key"] == "nightly"
    browser.follow(f"Edit schedule {jobid}")
    assert browser.heading == f"Edit schedule {jobid}"


def log_told(browser: Browser) -> str:
    [log] = browser.all("pre", **{"aria-labelledby": "log-heading"})
    return log.get_text()


def test_a_job_shows_the_lines_that_it_has_logged(
    browser: Browser,
    place: Workplace,
    register: Callable[..., Any],
    run_jobs: Callable[[], None],
) -> None:
    def work(input: Any) -> None:
        logging.getLogger("shop").warning("no <b>%s</b>\nat all", input)
        raise TaskError("no luck")

    register("work", work)
    [jobid] = place.add("work", "milk")
    run_jobs()
    log = log_told(browser.open(f"/jobs/{jobid}"))
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING"
    assert re.search(rf"^{at} no <b>milk</b>\nat all$", log, re.MULTILINE)
    browser.press("Retry")
    run_jobs()
    log = log_told(browser.open(f"/jobs/{jobid}"))
    for attempt in (1, 2):
        assert re.search(rf"^{at} attempt {attempt}: no <b>milk</b>$", log, re.MULTILINE)
