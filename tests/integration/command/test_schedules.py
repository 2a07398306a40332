# SPDX-License-Identifier: ZPL-2.1
"""``remotetask schedules``, and what ``remotetask run`` makes of declared schedules."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

from lovely.remotetask.remote.processor import RemoteProcessor

NIGHTLY = """
    from lovely.remotetask import task

    @task("nightly", cron="{cron}", timezone="Europe/Vienna")
    def nightly(input):
        return input
"""


def declare(place: Any, cron: str) -> None:
    (place.directory / "shop.py").write_text(dedent(NIGHTLY).format(cron=cron))


def schedules(place: Any, *arguments: str) -> list[dict[str, Any]]:
    ended = place.run("schedules", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    [one] = json.loads(ended.stdout)
    found: list[dict[str, Any]] = one["schedules"]
    return found


def test_a_worker_makes_what_is_declared_and_the_list_says_what_is_no_more(
    place: Any, started: Any, wait_for: Any
) -> None:
    declare(place, "0 3 * * *")
    [told] = schedules(place, "--import", "shop")
    assert (told["key"], told["id"], told["declared"]) == ("nightly", None, "to come")
    with place.root() as root:
        root["remote"] = RemoteProcessor()

    def work() -> None:
        arguments = ("run", place.uri, "--import", "shop", "--autostart", "@tasks")
        with started(*arguments, cwd=place.directory) as process:
            wait_for(process.stdout, lambda line: "at work" in line)
            process.terminate()
            assert process.wait(30) == 0, process.stderr.read()

    # A stop that comes before the loop has begun is heeded: so it is started until it has.
    for _ in range(5):
        work()
        [told] = schedules(place, "--import", "shop")
        if told["declared"] == "here":
            break
    assert (told["key"], told["declared"], told["status"]) == ("nightly", "here", "cronjob")
    assert told["timezone"] == "Europe/Vienna"
    assert told["next_run"].endswith("+00:00")
    [told] = schedules(place)
    assert told["declared"] == "not here"
    with place.service() as service:
        assert service.remove_schedule("nightly")
    assert schedules(place) == []


def test_schedules_are_listed_for_people(place: Any, register: Any) -> None:
    register("echo", lambda input: input)
    assert "  no schedules here" in place.run("schedules").stdout
    with place.service() as service:
        service.ensure("report", "echo", cron="0 3 * * *", timezone="Europe/Vienna")
        paused = service.addCronJob("echo")
        service.run_now(paused)
        service.process()
    lines = place.run("schedules").stdout.splitlines()
    assert lines[0] == "tasks on root:"
    assert lines[1].split() == ["ID", "KEY", "TASK", "SCHEDULE", "ZONE", "NEXT", "LAST", "DECLARED"]
    assert lines[2].split()[1:7] == ["report", "echo", "0", "3", "*", "*"]
    assert "Europe/Vienna" in lines[2]
    assert lines[3].split()[:5] == [str(paused), "echo", "every", "minute", "UTC"]
    assert lines[3].endswith("ago completed")
    with place.service() as service:
        service.pause("echo")
    assert "  paused" in place.run("schedules").stdout
