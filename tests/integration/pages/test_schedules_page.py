# SPDX-License-Identifier: ZPL-2.1
"""The page Schedules, and the form of a schedule, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from browsing import Browser, words
from workplace import Workplace, wait_until

#: The fields with numbers: the name, that in the API, and what ``*`` stands for.
SETS = [
    ("Minutes", "minute", tuple(range(60))),
    ("Hours", "hour", tuple(range(24))),
    ("Days of the month", "dayOfMonth", tuple(range(1, 32))),
    ("Months", "month", tuple(range(1, 13))),
    ("Days of the week", "dayOfWeek", tuple(range(7))),
]


def add(place: Workplace, task: str = "echo", input: Any = None, **fields: Any) -> int:
    with place.service() as service:
        return service.addCronJob(task, input, **fields)


def only_schedule(place: Workplace) -> Any:
    """Return the facts of the only schedule."""
    with place.service() as service:
        [jobid] = list(service.jobs)
        job = service.job(jobid)
        names = ("minute", "hour", "dayOfMonth", "month", "dayOfWeek", "delay", "timezone", "cron")
        facts = {name: getattr(job, name) for name in names}
        given = {name: value for name, value in facts.items() if value not in ((), None)}
        return job.task, job.status, job.input, given


def test_a_schedule_is_added(browser: Browser, place: Workplace) -> None:
    browser.open("/schedules").follow("Add schedule")
    browser.fill(Task="echo", Minutes="0 30", Hours="3,15", Days_of_the_week="*")
    browser.fill(Time_zone="Europe/Berlin", Input='{"a": 1}').press("Add")
    assert browser.heading.startswith("Schedules")
    assert "added" in browser.status
    columns, [row] = browser.table()
    assert {"Id", "Task"} <= set(columns)
    assert row["Task"] == "echo"
    assert only_schedule(place) == (
        "echo",
        "cronjob",
        {"a": 1},
        {
            "minute": (0, 30),
            "hour": (3, 15),
            "dayOfWeek": tuple(range(7)),
            "timezone": "Europe/Berlin",
        },
    )


@pytest.mark.parametrize(("label", "name", "all_values"), SETS)
def test_a_star_stores_all_values_and_shows_as_a_star_again(
    browser: Browser, place: Workplace, label: str, name: str, all_values: tuple[int, ...]
) -> None:
    browser.open("/schedules/add").fill(Task="echo").type(label, "*").press("Add")
    assert only_schedule(place)[3] == {name: all_values}
    browser.follow("Edit schedule")
    assert browser.value(label) == "*"
    for other, _, _ in SETS:
        if other != label:
            assert browser.value(other) == ""


@pytest.mark.parametrize("typed", ["5 10", "5,10", " 10 , 5 ", "5, 10", "10\t5,"])
def test_values_are_separated_by_blanks_or_commas(
    browser: Browser, place: Workplace, typed: str
) -> None:
    browser.open("/schedules/add").fill(Task="echo", Minutes=typed).press("Add")
    assert only_schedule(place)[3] == {"minute": (5, 10)}
    assert browser.follow("Edit schedule").value("Minutes") == "5 10"


def test_a_delayed_job_is_added(browser: Browser, place: Workplace) -> None:
    browser.open("/schedules/add").fill(Task="echo", Delay="90").press("Add")
    assert "added" in browser.status
    assert only_schedule(place)[1:] == ("delayed", None, {"delay": 90.0})
    [row] = browser.all("tbody")[1].find_all("tr")
    assert "delayed" in words(row)


def test_a_cron_expression_is_added(browser: Browser, place: Workplace) -> None:
    browser.open("/schedules/add").fill(Task="echo", Cron_expression="*/5 8-18 * * 1-5")
    browser.press("Add")
    assert only_schedule(place)[3] == {"cron": "*/5 8-18 * * 1-5"}
    assert browser.follow("Edit schedule").value("Cron expression") == "*/5 8-18 * * 1-5"


REFUSED = [
    ("Minutes", "61"),
    ("Minutes", "soon"),
    ("Minutes", "-1"),
    ("Minutes", "1.5"),
    ("Minutes", "\u0663"),
    ("Minutes", "1" * 5000),
    ("Hours", "24"),
    ("Days of the month", "0"),
    ("Days of the month", "32"),
    ("Months", "0"),
    ("Months", "13"),
    ("Days of the week", "7"),
    ("Delay", "soon"),
    ("Delay", "-5"),
    ("Delay", "nan"),
    ("Time zone", "Mars/Olympus"),
    ("Cron expression", "never"),
    ("Input", "{"),
]


@pytest.mark.parametrize(("label", "typed"), REFUSED)
def test_what_is_refused_keeps_what_was_typed_and_stores_nothing(
    browser: Browser, place: Workplace, label: str, typed: str
) -> None:
    browser.open("/schedules/add").fill(Task="fail", Hours="3").type(label, typed).press("Add")
    assert browser.code == 200
    assert label in browser.alert
    assert browser.value(label) == typed
    assert browser.value("Task") == "fail"
    if label != "Hours":
        assert browser.value("Hours") == "3"
    assert browser.field(label)["aria-invalid"] == "true"
    with place.service() as service:
        assert not list(service.jobs)


@pytest.mark.parametrize(
    "typed",
    [
        {"Days_of_the_month": "31", "Months": "2"},
        {"Delay": "5", "Hours": "3"},
        {"Cron_expression": "@daily", "Hours": "3"},
    ],
)
def test_what_does_not_go_together_is_refused(
    browser: Browser, place: Workplace, typed: dict[str, str]
) -> None:
    browser.open("/schedules/add").fill(Task="echo", **typed).press("Add")
    assert browser.alert
    with place.service() as service:
        assert not list(service.jobs)


def test_a_task_has_to_be_chosen(browser: Browser, place: Workplace) -> None:
    browser.open("/schedules/add").press("Add")
    assert "Task" in browser.alert
    with place.service() as service:
        assert not list(service.jobs)


def test_a_schedule_is_changed_and_counted_anew(browser: Browser, place: Workplace) -> None:
    jobid = add(place, hour=(3,), input="x")
    browser.open("/schedules").follow(f"Edit schedule {jobid}")
    assert browser.value("Task") == "echo"
    assert browser.value("Hours") == "3"
    browser.fill(Task="fail", Hours="", Minutes="*").press("Apply")
    assert "changed" in browser.status
    task, status, given, fields = only_schedule(place)
    assert (task, status, given) == ("fail", "cronjob", "x")
    assert fields == {"minute": tuple(range(60))}
    with place.service() as service:
        job = service.job(jobid)
        assert job.scheduledFor.timestamp() == job.timeOfNextCall(job.slot)
    assert browser.rows[0]["Task"] == "fail"


def test_a_schedule_becomes_a_delayed_job_and_back(browser: Browser, place: Workplace) -> None:
    jobid = add(place, hour=(3,))
    browser.open(f"/schedules/{jobid}").fill(Hours="", Delay="60").press("Apply")
    assert only_schedule(place)[1] == "delayed"
    browser.open(f"/schedules/{jobid}").fill(Hours="4", Delay="").press("Apply")
    assert only_schedule(place)[1:] == ("cronjob", None, {"hour": (4,)})


def test_a_change_that_is_refused_changes_nothing(browser: Browser, place: Workplace) -> None:
    jobid = add(place, hour=(3,))
    before = place.last_transaction()
    browser.open(f"/schedules/{jobid}").fill(Task="fail", Hours="61").press("Apply")
    assert "Hours" in browser.alert
    assert browser.value("Hours") == "61"
    assert browser.value("Task") == "fail"
    assert place.last_transaction() == before


def test_a_running_schedule_takes_other_times_but_no_other_task(
    browser: Browser, place: Workplace
) -> None:
    jobid = add(place, "hang", hour=(3,))
    with place.service() as service:
        service.run_now(jobid)
    place.start()
    wait_until(lambda: place.hanging)
    assert browser.open("/schedules").rows[0]["Status"] == "processing"
    browser.follow("Edit schedule").fill(Task="echo").press("Apply")
    assert "task can be changed when it waits" in browser.alert
    browser.fill(Task="hang", Hours="4").press("Apply")
    assert "changed" in browser.status
    place.gate.set()

    def hours() -> Any:
        with place.service() as service:
            return service.job(jobid).hour

    wait_until(lambda: hours() == (4,))


def test_cancel_leads_back(browser: Browser, place: Workplace) -> None:
    browser.open("/schedules/add").follow("Cancel")
    assert browser.heading.startswith("Schedules")


def test_the_next_runs_are_shown_without_scripts(browser: Browser, place: Workplace) -> None:
    browser.open("/schedules/add").fill(Hours="3", Time_zone="Europe/Berlin")
    browser.press("Show next runs")
    runs = [words(item) for item in browser.all("ol")[0].find_all("li")]
    assert len(runs) == 5
    assert all(" 03:00:00 CE" in run for run in runs)
    assert browser.value("Hours") == "3"
    with place.service() as service:
        assert not list(service.jobs)


def test_the_next_runs_are_shown_while_somebody_types(browser: Browser) -> None:
    browser.open("/schedules/next?minute=0+30&hour=12", HX_Request="true")
    assert [" 12:00:00 UTC" in words(item) for item in browser.all("li")].count(True) >= 2
    browser.open("/schedules/next?minute=soon", HX_Request="true")
    assert "soon" in words(browser.all("p")[0])


def test_a_schedule_runs_now_and_once_more(browser: Browser, place: Workplace) -> None:
    jobid = add(place, hour=(3,))
    browser.open("/schedules").press(f"Run now: {jobid}")
    assert "due now" in browser.status
    with place.service() as service:
        assert service.hasJobsWaiting()


def test_a_schedule_is_paused_and_goes_on(browser: Browser, place: Workplace) -> None:
    jobid = add(place, minute=tuple(range(60)))
    browser.open("/schedules").press(f"Pause {jobid}")
    assert "paused" in browser.status
    assert browser.rows[0]["Status"] == "paused"
    assert not browser.buttons(f"Pause {jobid}")
    browser.open("/jobs")
    assert browser.rows == []
    browser.open("/schedules").press(f"Resume {jobid}")
    assert "goes on" in browser.status
    assert place.statuses([jobid]) == ["cronjob"]


def test_a_schedule_is_removed(browser: Browser, place: Workplace) -> None:
    jobid = add(place, hour=(3,))
    browser.open("/schedules").press(f"Remove {jobid}")
    assert "removed" in browser.status
    with place.service() as service:
        assert not list(service.jobs)


def test_what_has_gone_meanwhile_is_said(browser: Browser, place: Workplace) -> None:
    jobid = add(place, hour=(3,))
    browser.open("/schedules")
    with place.service() as service:
        service.cancel(jobid)
    browser.press(f"Pause {jobid}")
    assert "no schedule" in browser.alert


def test_schedules_of_many_are_on_several_pages(browser: Browser, place: Workplace) -> None:
    jobids = {str(add(place, hour=(3,))) for _ in range(60)}
    browser.open("/schedules")
    first = {row["Id"] for row in browser.rows}
    assert len(first) == 50
    browser.follow("Next")
    assert first | {row["Id"] for row in browser.rows} == jobids
    assert not browser.links("Next")


def test_a_task_that_is_not_registered_here_stays_what_it_is(
    browser: Browser, place: Workplace, register: Callable[..., Any]
) -> None:
    from zope.component import getGlobalSiteManager

    from lovely.remotetask.interfaces import ITask

    register("gone", lambda input: None)
    jobid = add(place, "gone", hour=(3,))
    getGlobalSiteManager().unregisterUtility(provided=ITask, name="gone")
    browser.open(f"/schedules/{jobid}")
    assert browser.value("Task") == "gone"
    browser.fill(Hours="4").press("Apply")
    assert only_schedule(place)[::3] == ("gone", {"hour": (4,)})


def test_a_schedule_tells_its_key_and_that_it_may_be_set_again(
    browser: Browser, place: Workplace
) -> None:
    with place.service() as service:
        jobid = service.ensure("<nightly>", "echo", hour=(3,))
        other = service.addCronJob("echo", hour=(4,))
    rows = browser.open("/schedules").all("tbody")
    assert "key <nightly>" in words(rows[0])
    assert words(rows[0]).count("key ") == 1
    browser.open(f"/schedules/{jobid}")
    assert "under the key “<nightly>”" in words(browser.all("main")[0])
    browser.open(f"/schedules/{other}")
    assert "under the key" not in words(browser.all("main")[0])


@pytest.mark.parametrize(
    ("label", "typed", "told"),
    [
        ("", {"Days of the month": "31", "Months": "2"}, "There is no such day."),
        ("Time zone", {"Time zone": "Nowhere/Land"}, "there is no such time zone"),
        ("Cron expression", {"Cron expression": "* *"}, "must be five fields"),
        ("Cron expression", {"Cron expression": "* * * * *", "Hours": "3"}, "in place of the numb"),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_form(
    browser: Browser, place: Workplace, label: str, typed: dict[str, str], told: str
) -> None:
    browser.open("/schedules/add").type("Task", "echo")
    for name, value in typed.items():
        browser.type(name, value)
    browser.press("Add")
    begin = f"Nothing was added. {label}: " if label else "Nothing was added. "
    assert browser.alert.startswith(begin)
    assert told in browser.alert
    assert "=" not in browser.alert
