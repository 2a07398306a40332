# SPDX-License-Identifier: ZPL-2.1
"""A real browser goes through all pages: wide and narrow, with scripts and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import chromium
from browsing import Browser
from lovely.remotetask.web.authorizers import AnyOf, BasicPasswords, BearerTokens
from lovely.remotetask.web.credentials import Entry, hash_password
from workplace import Workplace, wait_until

pytest.importorskip("selenium")

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

#: How long a page may take, in seconds, until it shows what it is to show.
SECONDS = 30

WAYS = [
    pytest.param(chromium.WIDE, True, id="wide"),
    pytest.param(chromium.NARROW, True, id="narrow"),
    pytest.param(chromium.WIDE, False, id="wide without scripts"),
    pytest.param(chromium.NARROW, False, id="narrow without scripts"),
]


class Window:
    """What somebody sees and does, by the names of things."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver = driver
        self.base = base

    def open(self, path: str) -> None:
        self.driver.get(self.base + path)

    def named(self, tags: str, name: str) -> list[Any]:
        """Return what can be seen with a name, as a screen reader would call it."""
        text = f"concat({', '.join(repr(part) for part in (name, ''))})"
        labels = f"@id = //label[normalize-space() = {text}]/@for"
        is_called = f"normalize-space() = {text} or @aria-label = {text} or {labels}"
        kinds = " or ".join(f"self::{tag}" for tag in tags.split(", "))
        found = self.driver.find_elements(By.XPATH, f"//*[{kinds}][{is_called}]")
        return [one for one in found if one.is_displayed() and one.accessible_name == name]

    def click(self, name: str) -> None:
        """Click on the link or button with a name."""

        def is_clicked() -> bool:
            found = self.named("a, button", name)
            for one in found[:1]:
                one.click()
            return bool(found)

        self.expect(is_clicked, f"a link or button {name!r}")

    def expect(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something can be seen, in spite of pages that come and parts that change."""

        def holds() -> object:
            try:
                return condition()
            except (WebDriverException, AssertionError):  # the page is about to be another one
                return False

        wait_until(holds, f"{what} on {self.driver.current_url}", SECONDS)

    def field(self, name: str) -> Any:
        found = self.named("input, select, textarea", name)
        assert len(found) == 1, f"{len(found)} fields are called {name!r}"
        return found[0]

    def fill(self, name: str, value: str) -> None:
        self.expect(lambda: self.field(name), f"a field {name!r}")
        field = self.field(name)
        if field.tag_name == "select":
            Select(field).select_by_visible_text(value)
            return
        field.clear()
        field.send_keys(value)

    def text(self, selector: str = "main") -> str:
        return " ".join(self.driver.find_element(By.CSS_SELECTOR, selector).text.split())

    def shows(self, text: str, selector: str = "main") -> None:
        """Wait until a text stands in a part of the page."""
        self.expect(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def tells(self, text: str) -> None:
        """Wait until a message has a text."""
        self.shows(text, "main [role=status]")

    def lists(self, ids: list[int]) -> None:
        """Wait until the list has some ids, in this order."""
        self.expect(lambda: self.ids() == ids, f"the ids {ids}")

    def has(self, name: str, value: str) -> None:
        """Wait until a value stands in a field."""
        value_of = lambda: self.field(name).get_attribute("value")  # noqa: E731
        self.expect(lambda: value_of() == value, f"{value!r} in {name!r}")

    def ids(self) -> list[int]:
        found = self.driver.find_elements(By.CSS_SELECTOR, "tbody a.id")
        return [int(one.text) for one in found]

    def tick(self, name: str) -> None:
        """Tick what has a name."""

        def is_ticked() -> bool:
            if not self.field(name).is_selected():
                self.field(name).click()
            return bool(self.field(name).is_selected())

        self.expect(is_ticked, f"a tick at {name!r}")

    def check(self) -> None:
        """See to it that nothing sticks out, and that the browser complains of nothing."""
        wide, room = (
            self.driver.find_element(By.TAG_NAME, "html").get_property(name)
            for name in ("scrollWidth", "clientWidth")
        )
        assert wide <= room, f"{self.driver.current_url} is {wide} wide, and has {room}"
        # When a page is left while it asks whether something has changed, htmx complains.
        complaints = [one["message"] for one in self.driver.get_log("browser")]
        assert [one for one in complaints if "htmx:afterRequest" not in one] == []


@pytest.fixture
def look(
    need: Callable[..., None], place: Workplace, browser: Browser
) -> Iterator[Callable[..., Window]]:
    """Return a function that opens a window; its arguments are those of `chromium`."""
    need(chromium.is_there(), "Chromium or Selenium is not installed", chromium.COMMAND)
    with ExitStack() as stack:

        def look(width: int = chromium.WIDE, has_scripts: bool = True) -> Window:
            driver = stack.enter_context(chromium.chromium(width, has_scripts=has_scripts))
            return Window(driver, browser.base)

        yield look


@pytest.mark.parametrize(("width", "has_scripts"), WAYS)
def test_somebody_walks_through_all_pages(
    look: Callable[..., Window],
    place: Workplace,
    run_jobs: Callable[[], None],
    width: int,
    has_scripts: bool,
) -> None:
    jobids = place.add("echo", *range(12))
    window = look(width, has_scripts)
    window.open("/")
    window.shows("All is well", "h1")
    window.check()

    # The list of jobs: pages, sorting, filters, what is selected, what is all.
    window.click("Jobs")
    window.shows("Jobs", "h1")
    window.fill("Jobs per page", "10")
    window.click("Show")
    window.lists(jobids[:1:-1])
    window.check()
    window.click("Next page")
    window.lists(jobids[1::-1])
    window.click("Previous page")
    window.click("Id")
    window.lists(sorted(jobids)[:10])
    header = window.driver.find_element(By.CSS_SELECTOR, "th[aria-sort]")
    assert (header.text[:2], header.get_attribute("aria-sort")) == ("Id", "ascending")
    window.tick(f"Select job {jobids[0]}")
    window.click("Cancel selected")
    window.tells("1 job cancelled")
    window.click("Cancel selected")
    window.tells("No jobs were selected")
    window.fill("Status", "cancelled")
    window.click("Show")
    window.lists(jobids[:1])
    window.click("Remove cancelled")
    window.tells("1 job removed")
    window.fill("Status", "any")
    window.click("Show")
    window.click("Cancel all")
    window.tells("11 jobs cancelled")
    window.click("Remove all")
    window.tells("11 jobs removed")
    window.check()

    # A job: it is added, fails, is looked at, repeated and cancelled.
    window.click("fail")
    window.fill("Input", '"the card"')
    window.check()
    window.click("Add")
    window.tells("added")
    [jobid] = window.ids()
    run_jobs()
    window.click(str(jobid))
    window.shows(str(jobid), "h1")
    if not has_scripts:
        window.driver.refresh()
    window.shows("no luck with the card")
    window.check()
    window.click("Retry")
    window.tells("queued again")
    assert place.statuses([jobid]) == ["queued"]
    window.click("Cancel")
    window.tells("cancelled")
    assert place.statuses([jobid]) == ["cancelled"]

    # A schedule: it is refused, added, changed, run, paused and removed.
    window.click("Schedules")
    window.check()
    window.click("Add schedule")
    window.fill("Task", "echo")
    window.fill("Minutes", "61")
    window.click("Add")
    window.shows("61", "[role=alert]")
    window.has("Minutes", "61")
    window.fill("Minutes", "*")
    window.fill("Hours", "3, 4")
    window.check()
    window.click("Add")
    window.tells("added")
    [scheduled] = window.ids()
    window.check()
    window.click(f"Edit schedule {scheduled}")
    window.has("Minutes", "*")
    window.has("Hours", "3 4")
    window.fill("Hours", "5")
    window.click("Show next runs")
    window.shows("05:00:00", "#next-runs")
    window.click("Apply")
    window.tells("changed")
    window.click(f"Pause {scheduled}")
    window.tells("is paused")
    window.click(f"Resume {scheduled}")
    window.click(f"Run now: {scheduled}")
    window.tells("due now")
    window.click(f"Remove {scheduled}")
    window.lists([])

    # Services and workers.
    window.click("Services")
    window.check()
    window.click("Start processing")
    window.tells("started")
    assert place.is_processing()
    window.click("Stop processing")
    window.tells("stopped")
    wait_until(lambda: not place.is_processing())
    window.click("Pause")
    window.tells("paused")
    window.click("Resume")
    window.click("Workers")
    window.shows("Workers", "h1")
    window.check()


def test_the_list_keeps_itself_up_to_date_and_what_is_selected(
    look: Callable[..., Window], place: Workplace
) -> None:
    [first] = place.add("echo", 1)
    window = look()
    window.open("/jobs")
    window.tick(f"Select job {first}")
    [second] = place.add("echo", 2)
    window.lists([second, first])
    assert window.field(f"Select job {first}").is_selected()
    assert not window.field(f"Select job {second}").is_selected()
    focused = window.driver.switch_to.active_element
    assert focused.get_attribute("id") == f"select-{first}"
    window.click("Cancel selected")
    window.tells("1 job cancelled")
    assert place.statuses([first, second]) == ["cancelled", "queued"]
    window.check()


def test_what_was_opened_stays_open_when_the_page_changes(
    look: Callable[..., Window], place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("fail", 1)
    run_jobs()
    with place.service() as service:
        service.retry(jobid)
    run_jobs()
    window = look()
    window.open(f"/jobs/{jobid}")
    older = window.driver.find_element(By.ID, "failure-1")
    older.find_element(By.TAG_NAME, "summary").click()
    with place.service() as service:
        service.retry(jobid)
    window.shows("queued")
    assert window.driver.find_element(By.ID, "failure-1").get_attribute("open")


def test_all_jobs_of_a_page_are_selected_by_one_tick(
    look: Callable[..., Window], place: Workplace
) -> None:
    jobids = place.add("echo", 1, 2, 3)
    window = look()
    window.open("/jobs")
    window.tick("Select all jobs of this page")
    window.click("Cancel selected")
    window.tells("3 jobs cancelled")
    assert place.statuses(jobids) == ["cancelled"] * 3


def test_the_next_runs_follow_what_is_typed(look: Callable[..., Window]) -> None:
    window = look()
    window.open("/schedules/add")
    window.fill("Hours", "7")
    window.shows("07:00:00 UTC", "#next-runs")
    window.fill("Hours", "soon")
    window.shows("soon", "#next-runs")
    window.check()


def test_the_pages_can_be_used_by_the_keyboard(
    look: Callable[..., Window], place: Workplace
) -> None:
    place.add("echo", 1)
    window = look()
    window.open("/jobs")
    body = window.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert window.driver.switch_to.active_element.text == "Skip to the content"
    window.driver.switch_to.active_element.send_keys(Keys.ENTER)
    seen = []
    for _ in range(30):
        window.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(window.driver.switch_to.active_element.accessible_name)
        if seen[-1] == "Cancel all":
            break
    assert seen[0] == "echo"
    window.driver.switch_to.active_element.send_keys(Keys.ENTER)
    window.tells("1 job cancelled")


@pytest.mark.parametrize("width", [chromium.WIDE, chromium.NARROW], ids=["wide", "narrow"])
def test_no_page_is_hard_to_use_light_or_dark(
    look: Callable[..., Window], place: Workplace, run_jobs: Callable[[], None], width: int
) -> None:
    [failed] = place.add("fail", 1)
    run_jobs()
    place.add("echo", 1, delay=60)
    with place.service() as service:
        scheduled = service.addCronJob("echo", hour=(3,))
    [running] = place.add("hang", None)
    place.start()
    wait_until(lambda: place.hanging)
    pages = ["/", "/jobs", f"/jobs/{failed}", f"/jobs/{running}", "/add?task=echo", "/schedules"]
    pages += ["/schedules/add", f"/schedules/{scheduled}", "/services", "/workers", "/nothing"]
    window = look(width)
    found = {}
    for page in pages:
        window.open(page)
        for is_dark in (False, True):
            chromium.show_in(window.driver, is_dark)
            found[page, is_dark] = chromium.violations(window.driver)
    assert {where: what for where, what in found.items() if what} == {}
    place.gate.set()
    place.wait_for([running])


def test_nothing_is_loaded_from_elsewhere(look: Callable[..., Window], place: Workplace) -> None:
    place.add("echo", 1)
    window = look()
    for page in ("/", "/jobs", "/schedules/add", "/services"):
        window.open(page)
        loaded = window.driver.execute_script(
            "return performance.getEntriesByType('resource').map(one => one.name)"
        )
        assert loaded
        assert [one for one in loaded if not one.startswith(f"{window.base}/")] == []


def test_somebody_with_a_password_is_asked_for_it_also_where_there_are_tokens(
    need: Callable[..., None], place: Workplace, serve: Callable[..., Browser]
) -> None:
    need(chromium.is_there(), "Chromium or Selenium is not installed", chromium.COMMAND)
    passwords = BasicPasswords([Entry("alice", frozenset(["view"]), hash_password("s3cret"))])
    authorize = AnyOf(BearerTokens({"t": ("view",)}), passwords)
    base = serve(place.db, authorize=authorize).base
    with chromium.chromium() as driver:
        # It is sent when it is asked for, and not before.
        driver.get(f"{base.replace('://', '://alice:s3cret@')}/jobs")
        assert driver.find_element(By.CSS_SELECTOR, "h1").text == "Jobs"
