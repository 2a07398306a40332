# SPDX-License-Identifier: ZPL-2.1
"""Lists of jobs that are too long to be looked at as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from browsing import Browser, words
from lovely.remotetask.web.pages import joblist, jobs
from workplace import Workplace


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all lists be long, and few jobs be looked at."""
    monkeypatch.setattr(joblist, "SHORT", 5)
    monkeypatch.setattr(joblist, "LOOK_SIZE", 20)


def ids(browser: Browser) -> list[int]:
    return [int(row["Id"]) for row in browser.rows]


def all_pages(browser: Browser, link: str) -> list[list[int]]:
    """Return the ids of this page and of those behind it."""
    pages = [ids(browser)]
    while browser.links(link):
        browser.follow(link)
        pages.append(ids(browser))
    return pages


@pytest.mark.parametrize("query", ["", "&status=queued", "&task=echo"])
def test_a_long_list_is_walked_to_its_end_and_back(
    browser: Browser, place: Workplace, query: str
) -> None:
    jobids = place.add("echo", *range(35))[::-1]
    browser.open(f"/jobs?size=10{query}")
    forwards = all_pages(browser, "Next")
    assert forwards == [jobids[:10], jobids[10:20], jobids[20:30], jobids[30:]]
    assert all_pages(browser, "Previous") == forwards[::-1]
    assert all_pages(browser, "Next") == forwards


def test_a_long_list_says_in_which_order_it_is(browser: Browser, place: Workplace) -> None:
    place.add("echo", *range(8))
    browser.open("/jobs")
    assert browser.sorting() == {}
    assert "8 jobs" in words(browser.all("nav")[1])
    assert "newest first" in words(browser.all("nav")[1])


def test_a_long_list_is_sorted_at_one_end_and_says_so(browser: Browser, place: Workplace) -> None:
    jobids = place.add("echo", *range(30))
    browser.open("/jobs?size=10").follow("Task")
    assert browser.sorting() == {"Task": "ascending"}
    assert "too many to sort" in words(browser.all("nav")[1])
    shown = [jobid for page in all_pages(browser, "Next") for jobid in page]
    assert sorted(shown) == sorted(jobids[-20:])


def test_a_long_list_of_what_has_ended_is_sorted_as_a_whole(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    jobids = place.add("echo", *range(30))
    run_jobs()
    browser.open("/jobs?size=10&status=completed").follow("Completed")
    assert browser.sorting() == {"Completed": "descending"}
    assert [jobid for page in all_pages(browser, "Next") for jobid in page] == jobids[::-1]
    browser.open("/jobs?size=10&status=completed").follow("Completed").follow("Completed")
    assert browser.sorting() == {"Completed": "ascending"}
    forwards = all_pages(browser, "Next")
    assert [jobid for page in forwards for jobid in page] == jobids
    assert all_pages(browser, "Previous") == forwards[::-1]


def test_a_page_costs_what_it_shows(
    browser: Browser, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ZODB.Connection import Connection

    loaded = []
    setstate = Connection.setstate

    def counting(connection: Any, stored: Any) -> None:
        loaded.append(type(stored).__name__)
        setstate(connection, stored)

    with place.service() as service:
        service.add_many("echo", range(3000))
    monkeypatch.setattr(joblist, "SHORT", 500)
    monkeypatch.setattr(joblist, "LOOK_SIZE", 1000)
    monkeypatch.setattr(Connection, "setstate", counting)
    place.db.cacheMinimize()
    browser.open("/jobs?size=20")
    assert len(browser.rows) == 20
    assert loaded.count("Job") <= 200
    [part] = browser.all(**{"data-live": "yes"})
    place.db.cacheMinimize()
    loaded.clear()
    assert browser.open(str(part["hx-get"]), HX_Request="true").code == 204
    assert "Job" not in loaded
    assert len(loaded) < 100


def test_what_takes_too_long_goes_on_with_the_next_press(
    browser: Browser, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.batches, "REMOVE_SIZE", 10)
    place.add("echo", *range(25))
    clock = iter([0.0, 1.0, 2.0, 99.0])
    monkeypatch.setattr(jobs, "_clock", lambda: next(clock))
    browser.open("/jobs").press("Cancel all")
    assert browser.status == "20 jobs cancelled. There are more: press the button again."
    monkeypatch.setattr(jobs, "_clock", lambda: 0.0)
    browser.press("Cancel all")
    assert browser.status == "5 jobs cancelled"
    browser.press("Remove all")
    assert browser.status == "25 jobs removed"


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/jobs?size=10",
        "/jobs?size=10&sort=detail",
        "/jobs?task=fail",
        "/api/v1/jobs?limit=100",
        "/api/v1/jobs?text=nowhere",
    ],
)
def test_large_inputs_do_not_stay_in_memory(
    browser: Browser, place: Workplace, address: str
) -> None:
    with place.service() as service:
        service.add_many("echo", ["x" * 50_000] * 100)
        service.process()  # some of them are in another index
        service.add_many("echo", ["x" * 50_000] * 100)
    place.db.cacheMinimize()
    assert browser.open(address).code == 200
    held = [told for told in place.db.cacheExtremeDetail() if told["klass"].endswith(".Job")]
    assert sum(told["state"] is not None for told in held) <= 20
