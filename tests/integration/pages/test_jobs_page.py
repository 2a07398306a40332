# SPDX-License-Identifier: ZPL-2.1
"""The page Jobs, over HTTP, by the names that are on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from zope.component import getGlobalSiteManager
from zope.interface import Interface, implementer

from browsing import Browser
from lovely.remotetask.interfaces import IJob, IJobDetail
from workplace import Workplace

COLUMNS = ["Id", "Task", "Status", "Detail", "Created", "Started", "Completed"]


def ids(browser: Browser) -> list[int]:
    return [int(row["Id"]) for row in browser.rows]


def statuses(place: Workplace) -> dict[str, int]:
    with place.service() as service:
        return {status: count for status, count in service.countJobs().items() if count}


@pytest.fixture
def some(place: Workplace, run_jobs: Callable[[], None]) -> dict[str, int]:
    """A job of each kind: what it is -> its id, in the order in which they were added."""
    jobs = {}
    [jobs["completed"]] = place.add("echo", {"a": 1})
    [jobs["error"]] = place.add("fail", 12)
    run_jobs()
    [jobs["start later"]] = place.add("echo", 3, startLater=True)
    [jobs["delayed"]] = place.add("echo", 4, delay=3600)
    [jobs["queued"]] = place.add("echo", 5)
    [jobs["cancelled"]] = place.add("echo", 6)
    with place.service() as service:
        service.cancel(jobs["cancelled"])
        jobs["cronjob"] = service.addCronJob("echo", 7, hour=(3,))
    return jobs


def test_the_page_has_its_heading_and_the_links_to_all_pages(browser: Browser) -> None:
    browser.open("/jobs")
    assert browser.code == 200
    assert browser.heading.startswith("Jobs")
    navigation = browser.all("nav")[0]
    assert [link.get_text() for link in navigation.find_all("a")] == [
        "Jobs",
        "Schedules",
        "Services",
        "Workers",
    ]
    for name in ("Jobs", "Schedules", "Services", "Workers"):
        assert browser.follow(name).heading.startswith(name)


def test_the_available_tasks_are_listed(browser: Browser) -> None:
    assert browser.open("/jobs").list_named("Available tasks") == ["echo", "fail", "hang"]


def test_the_table_has_all_jobs_but_schedules_the_newest_first(
    browser: Browser, some: dict[str, int]
) -> None:
    columns, rows = browser.open("/jobs").table()
    assert columns == COLUMNS
    wanted = [(status, jobid) for status, jobid in some.items() if status != "cronjob"]
    assert [(row["Status"], int(row["Id"])) for row in rows] == wanted[::-1]
    assert browser.sorting() == {"Created": "descending"}


def test_an_id_is_a_link_to_the_job(browser: Browser, some: dict[str, int]) -> None:
    browser.open("/jobs").follow(str(some["error"]))
    assert str(some["error"]) in browser.heading


def test_only_jobs_of_a_status_can_be_shown(browser: Browser, some: dict[str, int]) -> None:
    for status in ("completed", "error", "start later", "delayed", "queued", "cancelled"):
        browser.open("/jobs").fill(Status=status).press("Show")
        assert ids(browser) == [some[status]]
        assert browser.value("Status") == status


def test_only_jobs_of_a_task_can_be_shown(browser: Browser, some: dict[str, int]) -> None:
    browser.open("/jobs").fill(Task="fail").press("Show")
    assert ids(browser) == [some["error"]]


def test_a_long_list_has_pages_that_end(browser: Browser, place: Workplace) -> None:
    jobids = place.add("echo", *range(25))[::-1]
    browser.open("/jobs").fill(Jobs_per_page="10").press("Show")
    assert ids(browser) == jobids[:10]
    assert not browser.links("Previous")
    browser.follow("Next")
    assert ids(browser) == jobids[10:20]
    browser.follow("Next")
    assert ids(browser) == jobids[20:]
    assert not browser.links("Next")
    browser.follow("Previous")
    assert ids(browser) == jobids[10:20]
    browser.follow("Previous")
    assert ids(browser) == jobids[:10]
    assert not browser.links("Previous")


@pytest.mark.parametrize("column", COLUMNS)
def test_each_column_sorts_and_turns_round(
    browser: Browser, some: dict[str, int], column: str
) -> None:
    browser.open("/jobs").follow(column)
    [(name, first)] = browser.sorting().items()
    assert name == column
    once = browser.rows
    browser.follow(column)
    [(_, second)] = browser.sorting().items()
    assert {first, second} == {"ascending", "descending"}
    assert [row["Id"] for row in browser.rows] == [row["Id"] for row in once][::-1]


def test_ids_are_sorted_as_numbers_and_tasks_as_texts(
    browser: Browser, some: dict[str, int]
) -> None:
    browser.open("/jobs").follow("Id")
    assert ids(browser) == sorted(ids(browser))
    browser.follow("Task")
    assert [row["Task"] for row in browser.rows] == ["echo"] * 5 + ["fail"]


def test_sorting_keeps_the_filter_and_the_size(browser: Browser, place: Workplace) -> None:
    place.add("echo", *range(12))
    place.add("echo", *range(12), startLater=True)
    browser.open("/jobs").fill(Status="start later", Jobs_per_page="10").press("Show")
    browser.follow("Id")
    assert {row["Status"] for row in browser.rows} == {"start later"}
    assert len(browser.rows) == 10
    browser.follow("Next")
    assert len(browser.rows) == 2
    assert browser.sorting() == {"Id": "ascending"}


def test_selected_jobs_are_cancelled(browser: Browser, place: Workplace) -> None:
    first, second, third = place.add("echo", 1, 2, 3)
    browser.open("/jobs")
    browser.type(f"Select job {first}", True).type(f"Select job {third}", True)
    browser.press("Cancel selected")
    assert browser.status == "2 jobs cancelled"
    assert place.statuses([first, second, third]) == ["cancelled", "queued", "cancelled"]


def test_one_job_is_told_as_one(browser: Browser, place: Workplace) -> None:
    [jobid] = place.add("echo", 1)
    browser.open("/jobs").type(f"Select job {jobid}", True).press("Cancel selected")
    assert browser.status == "1 job cancelled"


def test_a_message_is_told_once(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1)
    browser.open("/jobs").press("Cancel all")
    assert browser.status == "1 job cancelled"
    assert browser.open("/jobs").status == ""


def test_a_message_that_somebody_else_has_written_is_not_told(browser: Browser) -> None:
    browser.sent = {"Cookie": "remotetask-message=WyJyZW1vdmVkIiwxMl0=.0123"}
    browser.open("/jobs")
    assert browser.status == ""


def test_nothing_happens_when_no_job_was_selected(browser: Browser, place: Workplace) -> None:
    jobids = place.add("echo", 1)
    browser.open("/jobs").press("Cancel selected")
    assert browser.alert == "No jobs were selected"
    assert place.statuses(jobids) == ["queued"]


def test_what_has_ended_meanwhile_is_not_counted(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    first, second = place.add("echo", 1, 2)
    browser.open("/jobs").type(f"Select job {first}", True)
    run_jobs()
    browser.press("Cancel selected")
    assert browser.status == "0 jobs cancelled"
    assert place.statuses([first, second]) == ["completed", "completed"]


def test_selected_errors_are_repeated(browser: Browser, some: dict[str, int]) -> None:
    browser.open("/jobs").type(f"Select job {some['error']}", True).press("Retry selected")
    assert browser.status == "1 job queued again"


def test_all_jobs_are_cancelled_also_on_other_pages_but_no_schedule(
    browser: Browser, place: Workplace
) -> None:
    place.add("echo", *range(25))
    with place.service() as service:
        service.addCronJob("echo", hour=(3,))
    browser.open("/jobs?size=10").press("Cancel all")
    assert browser.status == "25 jobs cancelled"
    assert statuses(place) == {"cancelled": 25, "cronjob": 1}


def test_jobs_are_removed_by_how_they_have_ended(
    browser: Browser, place: Workplace, some: dict[str, int]
) -> None:
    browser.open("/jobs").press("Remove completed")
    assert browser.status == "1 job removed"
    assert "completed" not in statuses(place)
    browser.press("Remove cancelled")
    assert "cancelled" not in statuses(place)
    browser.press("Remove errors")
    assert "error" not in statuses(place)
    browser.press("Remove errors")
    assert browser.status == "0 jobs removed"
    assert statuses(place) == {"queued": 1, "delayed": 1, "start later": 1, "cronjob": 1}


def test_all_jobs_that_have_ended_are_removed(browser: Browser, place: Workplace) -> None:
    place.add("echo", *range(25))
    browser.open("/jobs?size=10").press("Cancel all")
    place.add("echo", 1)
    browser.press("Remove all")
    assert browser.status == "25 jobs removed"
    assert statuses(place) == {"queued": 1}


def test_all_means_the_list_that_is_shown(
    browser: Browser, place: Workplace, some: dict[str, int]
) -> None:
    browser.open("/jobs").fill(Status="error").press("Show").press("Remove all")
    assert browser.status == "1 job removed"
    assert statuses(place)["completed"] == 1
    assert browser.value("Status") == "error"


def test_nothing_changes_by_following_links(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1)
    before = place.last_transaction()
    browser.open("/jobs?do=cancel-all")
    assert place.last_transaction() == before


def test_what_is_no_parameter_is_passed_over(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1)
    for query in ("status=no", "size=-1", "size=x", "page=x", "after=zz", "sort=no", "before=%00"):
        assert browser.open(f"/jobs?{query}").code == 200
        assert len(browser.rows) == 1


# -- details -----------------------------------------------------------------------------------


@implementer(IJobDetail)
class Detail:
    def __init__(self, job: object, request: object) -> None:
        self.job = job
        self.request = request

    def __call__(self) -> str:
        return f"<b>{self.job.task}</b> at {self.request.path}"  # type: ignore[attr-defined]


def test_an_application_tells_details_of_a_task_which_are_escaped(
    browser: Browser, place: Workplace
) -> None:
    [jobid] = place.add("echo", 1)
    [other] = place.add("fail", 2)
    getGlobalSiteManager().registerAdapter(Detail, (IJob, Interface), IJobDetail, "echo_detail")
    details = {row["Id"]: row["Detail"] for row in browser.open("/jobs").rows}
    assert details == {str(jobid): "<b>echo</b> at /jobs", str(other): "2"}
    assert "<b>echo</b> at" not in browser.text
    browser.follow(str(jobid))
    assert f"<b>echo</b> at /jobs/{jobid}" in browser.all("main")[0].get_text()


def test_details_of_all_tasks_have_a_name_of_their_own(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1)
    getGlobalSiteManager().registerAdapter(Detail, (IJob, Interface), IJobDetail, "detail")
    assert browser.open("/jobs").rows[0]["Detail"] == "<b>echo</b> at /jobs"


def test_details_that_fail_spoil_no_page(browser: Browser, place: Workplace) -> None:
    def fail(job: object, request: object) -> Detail:
        raise RuntimeError("no detail")

    place.add("echo", 1)
    getGlobalSiteManager().registerAdapter(fail, (IJob, Interface), IJobDetail, "detail")
    assert browser.open("/jobs").rows[0]["Detail"] == "1"


def test_what_is_known_of_a_job_stands_in_its_detail(
    browser: Browser, place: Workplace, some: dict[str, int]
) -> None:
    place.add("echo", 8, note="for Ada")
    details = [row["Detail"] for row in browser.open("/jobs").rows]
    assert details == ["for Ada", "6", "5", "4", "3", "no luck with 12", '{"a": 1}']


def test_markup_in_jobs_is_shown_as_it_is(browser: Browser, place: Workplace) -> None:
    place.add("echo", "<script>alert(1)</script>")
    browser.open("/jobs")
    assert "<script>alert" not in browser.text
    assert browser.rows[0]["Detail"] == "<script>alert(1)</script>"
