# SPDX-License-Identifier: ZPL-2.1
"""The front page, Services and Workers; several services, remote processors; what all pages do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from browsing import Browser, words
from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Cron
from lovely.remotetask.remote.testing import EchoJob
from lovely.remotetask.store.joblog import note_lines
from workplace import Workplace, wait_until

PAGES = ("/", "/jobs", "/add?task=echo", "/schedules", "/schedules/add", "/services", "/workers")


def main_text(browser: Browser) -> str:
    return words(browser.all("main")[0])


# -- the front page ----------------------------------------------------------------------------


def test_the_front_page_says_that_all_is_well(browser: Browser) -> None:
    assert browser.open("/").heading == "All is well"


def test_the_front_page_counts_jobs_by_status(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    place.add("echo", 1, 2, 3)
    run_jobs()
    place.add("echo", 4, 5)
    place.add("echo", 6, delay=60)
    tiles = browser.open("/").list_named("Jobs by status")
    for text in ("2 queued", "0 processing", "1 delayed", "3 completed", "0 error"):
        assert [tile for tile in tiles if tile.startswith(text)]
    assert "In the queue 2 jobs" in main_text(browser)


def test_the_front_page_asks_to_look_at_what_has_failed(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("fail", 12)
    place.add("echo", 1)
    run_jobs()
    browser.open("/")
    assert browser.heading != "All is well"
    assert "1 job has failed in the last hour" in main_text(browser)
    [chart] = browser.all("svg", role="img")
    assert str(chart["aria-label"]).startswith("1 jobs done and 1 failed over the last hour")
    assert {str(bar["class"][0]) for bar in chart.find_all("rect")} == {"done", "failed"}
    assert browser.links("fail")[0]["href"] == f"/jobs/{jobid}"


def test_the_front_page_says_what_is_wrong(
    browser: Browser, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.service() as service:
        service.pause()
    browser.open("/")
    assert browser.heading == "Something is wrong"
    assert "All tasks are paused" in main_text(browser)


def test_the_front_page_has_the_next_schedules(browser: Browser, place: Workplace) -> None:
    with place.service() as service:
        service.addCronJob("echo", minute=tuple(range(60)))
    [panel] = [tag for tag in browser.open("/").all("section") if "Next schedules" in words(tag)]
    assert "echo" in words(panel)


# -- services ----------------------------------------------------------------------------------


def test_a_service_is_started_and_stopped(browser: Browser, place: Workplace) -> None:
    browser.open("/services")
    assert "tasks" in main_text(browser)
    assert not browser.buttons("Stop processing")
    browser.press("Start processing")
    assert "started" in browser.status
    assert place.is_processing()
    assert not browser.buttons("Start processing")
    browser.press("Stop processing")
    assert "stopped" in browser.status
    wait_until(lambda: not place.is_processing())
    assert browser.open("/services").buttons("Start processing")


def test_a_service_is_paused_and_goes_on(browser: Browser, place: Workplace) -> None:
    browser.open("/services").press("Pause")
    assert "paused" in browser.status
    assert "Paused all tasks" in main_text(browser)
    browser.press("Resume")
    with place.service() as service:
        assert service.list_paused() == []


def test_one_task_is_paused(browser: Browser, place: Workplace) -> None:
    browser.open("/services").fill(Task="echo").press("Pause")
    with place.service() as service:
        assert service.list_paused() == ["echo"]


# -- workers -----------------------------------------------------------------------------------


def test_a_worker_is_shown_with_what_it_holds(browser: Browser, place: Workplace) -> None:
    assert browser.open("/workers").rows_of("Process") == []
    [jobid] = place.add("hang", None)
    place.start()
    wait_until(lambda: place.hanging)
    browser.open("/workers")
    [row] = browser.rows_of("Process")
    assert str(jobid) in row["Holds"]
    assert "hang" in row["Holds"]
    assert row["State"] == "alive"
    assert row["Last seen"]
    place.gate.set()
    place.wait_for([jobid])


# -- several services, and remote processors ---------------------------------------------------


def test_several_services_are_listed_at_the_top(
    place: Workplace, serve: Callable[..., Browser]
) -> None:
    place.new_service("others")
    [jobid] = place.add("echo", 1, name="others")
    browser = serve(place.db)
    browser.open("/")
    assert browser.heading.startswith("Services")
    assert browser.links("tasks")
    browser.follow("others").follow("Jobs")
    assert [row["Id"] for row in browser.rows] == [str(jobid)]
    browser.press("Cancel all")
    assert browser.status == "1 job cancelled"
    assert browser.address.endswith("/@others/jobs")
    browser.follow("Services")
    browser.press("Start processing", within="tasks on root")
    assert place.is_processing("others") is False
    assert place.is_processing("tasks") is True


@pytest.fixture
def remote(place: Workplace, serve: Callable[..., Browser]) -> Browser:
    """A browser that looks at a remote processor, with a factory *echo* and one job."""
    with place.transaction() as root:
        del root["tasks"]
        processor = root["remote"] = RemoteProcessor()
        processor.addJobFactory("echo", EchoJob())
    with place.transaction() as root:
        root["remote"].addJob("echo", {"x": 1})
        root["remote"].addScheduler(Cron({"jobName": "echo", "active": True, "hour": [3]}))
    return serve(place.db)


def test_the_jobs_of_a_remote_processor_have_all_pages(remote: Browser, place: Workplace) -> None:
    remote.open("/jobs")
    assert remote.list_named("Available tasks") == ["echo"]
    [row] = remote.rows
    assert re.fullmatch("[0-9a-f]{24}", row["Id"])
    remote.follow(row["Id"])
    assert row["Id"] in remote.heading
    assert '"x": 1' in main_text(remote)
    remote.press("Cancel")
    assert "cancelled" in main_text(remote)
    for page in PAGES:
        assert remote.open(page).code == 200, page


def test_a_job_is_added_to_a_remote_processor(remote: Browser) -> None:
    remote.open("/jobs").follow("echo").fill(Input='{"y": 2}').press("Add")
    assert "added" in remote.status
    assert len(remote.rows) == 2


def test_the_items_of_a_scheduler_are_schedules(remote: Browser, place: Workplace) -> None:
    [row] = remote.open("/schedules").rows
    assert row["Task"] == "echo"
    remote.follow("Edit schedule")
    assert remote.value("Hours") == "3"
    remote.fill(Hours="4 5").press("Apply")
    assert "changed" in remote.status
    remote.press(f"Pause {row['Id']}")
    assert remote.rows[0]["Status"] == "paused"
    remote.follow("Add schedule").fill(Task="echo", Delay="60").press("Add")
    assert "added" in remote.status
    with place.transaction() as root:
        items = list(root["remote"].scheduler.values())
        assert [list(items[0].hour), items[0].active, items[1].delay] == [[4, 5], False, 60]


# -- what all pages do -------------------------------------------------------------------------


def test_a_part_that_is_up_to_date_sends_nothing(browser: Browser, place: Workplace) -> None:
    [jobid] = place.add("echo", 1)
    for page in ("/", "/jobs", f"/jobs/{jobid}", "/schedules", "/services", "/workers"):
        [part] = browser.open(page).all(**{"data-live": "yes"})
        address = str(part["hx-get"])
        browser.open(address, HX_Request="true")
        assert (browser.code, browser.text) == (204, ""), page


def test_a_part_that_has_changed_is_sent_alone(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    [jobid] = place.add("echo", 1)
    addresses = {}
    for page in ("/", "/jobs", f"/jobs/{jobid}", "/schedules", "/services", "/workers"):
        [part] = browser.open(page).all(**{"data-live": "yes"})
        addresses[page] = str(part["hx-get"])
    run_jobs()
    for page, address in addresses.items():
        browser.open(address, HX_Request="true")
        assert browser.code == 200, page
        assert not browser.all("html"), page
        [part] = browser.all(**{"data-live": "yes"})
        assert part["hx-get"] != address


def _state(browser: Browser) -> str:
    """Return what the page Jobs knows, but for the time."""
    [part] = browser.open("/jobs").all(**{"data-live": "yes"})
    return str(part["hx-get"]).rpartition("state=")[2].partition("-")[0]


def test_the_state_of_a_page_changes_with_each_step_of_a_job(
    browser: Browser, place: Workplace, run_jobs: Callable[[], None]
) -> None:
    def state() -> str:
        return _state(browser)

    states = [state()]
    [jobid] = place.add("fail", 1)
    states.append(state())
    run_jobs()
    states.append(state())
    with place.service() as service:
        service.retry(jobid)
    states.append(state())
    with place.service() as service:
        service.cancel(jobid)
    states.append(state())
    with place.service() as service:
        service.clean()
    states.append(state())
    assert len(set(states)) == len(states)
    assert state() == states[-1]


@pytest.mark.parametrize(
    "options", [{"priority": 5}, {"lock": "printer"}, {"priority": -5, "lock": "printer"}]
)
def test_the_state_changes_with_jobs_that_wait_elsewhere_too(
    browser: Browser, place: Workplace, options: dict[str, Any]
) -> None:
    states = [_state(browser)]
    for _ in range(2):  # the first one makes the place
        with place.service() as service:
            jobid = service.add("echo", **options)
        states.append(_state(browser))
    with place.service() as service:
        service.cancel(jobid)
    states.append(_state(browser))
    assert len(set(states)) == len(states)


def test_the_state_changes_when_a_job_is_set_aside_at_a_lock(
    browser: Browser, place: Workplace
) -> None:
    with place.service() as service:
        service.add("echo", lock="printer")
        service.add("echo", lock="printer")
        assert service.claimNextJob() is not None
    before = _state(browser)
    with place.service() as service:
        assert service.claimNextJob() is None
    assert _state(browser) != before


def test_the_state_changes_with_the_lines_that_a_run_logs(
    browser: Browser, place: Workplace
) -> None:
    with place.service() as service:
        service.add("echo")
        jobid = service.claimNextJob()
    before = _state(browser)
    with place.service() as service:
        note_lines(service, service.jobs[jobid], ((0.0, "INFO", 1, "a line"),), 1)
    assert _state(browser) != before


def test_looking_writes_nothing(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1)
    before = place.last_transaction()
    for page in PAGES:
        assert browser.open(page).code == 200
    assert place.last_transaction() == before


@pytest.mark.parametrize("page", PAGES)
def test_pages_need_no_other_host_and_no_script_of_their_own(browser: Browser, page: str) -> None:
    browser.open(page)
    assert "default-src 'none'" in browser.headers["Content-Security-Policy"]
    assert not browser.all(style=True)
    assert not browser.all("style")
    for tag in browser.all("script", "link", "img"):
        address = str(tag.get("src") or tag.get("href"))
        assert address.startswith("/static/")
        assert Browser(browser.address).open(address).code == 200
    assert all(tag.get("src") for tag in browser.all("script"))
    assert not [name for tag in browser.all() for name in tag.attrs if name.startswith("on")]


def test_ids_on_a_page_are_unique(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1, 2)
    for page in PAGES:
        ids = [tag["id"] for tag in browser.open(page).all(id=True)]
        assert len(set(ids)) == len(ids), page


def test_a_form_from_elsewhere_changes_nothing(browser: Browser, place: Workplace) -> None:
    place.add("echo", 1)
    browser.open("/jobs")
    token = str(browser.all("input", name="token")[0]["value"])
    before = place.last_transaction()
    good = f"do=cancel-all&token={token}".encode()
    for body, headers in (
        (good, {"Origin": "https://evil.example"}),
        (good, {}),
        (b"do=cancel-all", {"Origin": browser.base}),
        (b"do=cancel-all&token=0", {"Origin": browser.base}),
    ):
        assert browser.open("/jobs", body, **headers).code == 403
    for path in ("/schedules/add", "/add?task=echo", "/services"):
        assert browser.open(path, b"do=start", Origin=browser.base).code == 403
    assert place.last_transaction() == before
    assert browser.open("/jobs", good, Origin=browser.base).code == 200
    assert browser.status == "1 job cancelled"


def test_who_may_only_look_sees_no_buttons_and_can_change_nothing(
    place: Workplace, serve: Callable[..., Browser]
) -> None:
    [jobid] = place.add("echo", 1)
    browser = serve(place.db, authorize=lambda request, permission: permission == "view")
    for page in ("/", "/jobs", f"/jobs/{jobid}", "/schedules", "/services", "/workers"):
        browser.open(page)
        assert browser.code == 200, page
        assert [words(button) for button in browser.buttons() if words(button) != "Show"] == []
    assert browser.open("/jobs").list_named("Available tasks") == ["echo", "fail", "hang"]
    assert browser.open("/add?task=echo").code == 403
    assert not browser.open("/schedules").links("Add schedule")


def test_who_may_add_sees_the_form_but_no_buttons_for_others(
    place: Workplace, serve: Callable[..., Browser]
) -> None:
    browser = serve(place.db, authorize=lambda request, permission: permission != "manage")
    browser.open("/jobs").follow("echo").press("Add")
    assert "added" in browser.status
    assert not browser.buttons("Cancel all")


def test_a_read_only_site_shows_no_buttons(place: Workplace, serve: Callable[..., Browser]) -> None:
    browser = serve(place.db, read_only=True)
    assert not browser.open("/jobs").buttons("Cancel all")
    assert browser.open("/add?task=echo").code == 403


def test_who_may_nothing_sees_nothing(place: Workplace, serve: Callable[..., Browser]) -> None:
    browser = serve(place.db, authorize=lambda request, permission: False)
    for page in (*PAGES, "/jobs/1", "/nothing"):
        assert browser.open(page).code == 403, page


def test_an_address_below_another_one_is_kept(place: Workplace) -> None:
    from browsing import served
    from lovely.remotetask.web import make_app

    app = make_app(place.db, authorize=lambda request, permission: True)

    def mounted(environ: dict[str, Any], start_response: Any) -> Any:
        assert environ["PATH_INFO"].startswith("/mana ge/")
        environ["SCRIPT_NAME"] = "/mana ge"
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/mana ge")
        return app(environ, start_response)

    place.add("echo", 1)
    with served(mounted) as base:
        browser = Browser(base).open("/mana%20ge/")
        browser.follow("Jobs").press("Cancel all")
        assert browser.status == "1 job cancelled"
        browser.follow("Schedules").follow("Add schedule").fill(Task="echo", Hours="3")
        browser.press("Add")
        assert "added" in browser.status
        assert "/mana%20ge/schedules" in browser.address
