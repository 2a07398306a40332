# SPDX-License-Identifier: ZPL-2.1
"""``remotetask uninstall``: a database that can be read without the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage

from lovely.remotetask import RetryPolicy, TaskService
from lovely.remotetask.interfaces import COMPLETED, ITask, ITaskService
from lovely.remotetask.task import SimpleTask

READ = """
    import sys
    sys.modules["lovely.remotetask"] = None  # as if it had been removed
    import ZODB
    from zope.component.hooks import setSite
    connection = ZODB.connection("Data.fs")
    root = connection.root()
    connection.cacheMinimize()
    print(sorted(root))
    for site in [v for v in root.get("Application", root).values() if hasattr(v, "getSiteManager")]:
        registry = site.getSiteManager()
        print(len(list(registry.registeredUtilities())), sorted(registry["default"]))
"""


def read_without_the_package(directory: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", dedent(READ)], cwd=directory, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_it_is_told_what_waits(place: Any, jobs: Any) -> None:
    ended = place.run("uninstall", "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "tasks on root: 1 queued, 1 delayed, 1 cronjob, 1 start later, 1 have ended",
        f"To be taken out of {place.uri}:",
        "  tasks in the root",
    ]
    told = json.loads(place.run("uninstall", "--dry-run", "--json").stdout)
    assert told["services"][0]["jobs"][COMPLETED] == 1
    assert (told["removed"], told["left"]) == (False, None)
    assert place.statuses() == set(jobs)


def test_nothing_is_taken_out_where_nobody_can_be_asked(place: Any, jobs: Any) -> None:
    ended = place.run("uninstall")
    assert ended.returncode == 2
    assert "Take 1 service(s) out for good?" in ended.stderr
    assert place.statuses() == set(jobs)


def test_the_database_can_be_read_without_the_package(place: Any, jobs: Any) -> None:
    place.new_service("mail")
    with place.root() as root:
        root["other"] = PersistentMapping(a=1)
    ended = place.run("uninstall", "--yes")
    assert (ended.returncode, ended.stderr.splitlines()[1:]) == (0, [])
    assert "Nothing in the database needs lovely.remotetask any more." in ended.stdout
    assert read_without_the_package(place.directory) == "['other']\n"
    again = json.loads(place.run("uninstall", "--yes", "--json").stdout)
    assert again == {"services": [], "places": [], "removed": True, "left": []}


def test_one_service_is_taken_out_and_the_others_stay(place: Any, jobs: Any, error_of: Any) -> None:
    place.new_service("mail")
    assert place.run("uninstall", "mail", "--yes").returncode == 0
    assert "matches '@mail': it has @tasks" in error_of(place.run("uninstall", "mail"), 1)
    assert place.statuses() == set(jobs)


def test_what_the_application_has_stored_is_told(place: Any) -> None:
    with place.root() as root:
        root["other"] = PersistentMapping(policy=PersistentMapping(kept=RetryPolicy()))
    ended = place.run("uninstall", "--yes", "--json")
    assert ended.returncode == 1
    [left] = json.loads(ended.stdout)["left"]
    assert left["kind"] == "persistent.mapping.PersistentMapping"
    assert left["needs"] == ["lovely.remotetask.retry.RetryPolicy"]


@pytest.fixture
def site(empty_place: Any) -> Any:
    """A database with a site in which a service and a task are registered, and an other utility."""
    pytest.importorskip("zope.site")
    from zope.interface import Interface
    from zope.site import LocalSiteManager
    from zope.site.folder import Folder, rootFolder

    with empty_place.root() as root:
        app = root["Application"] = rootFolder()
        shop = app["shop"] = Folder()
        shop.setSiteManager(LocalSiteManager(shop))
        registry = shop.getSiteManager()
        service = registry["default"]["mail"] = TaskService()
        registry.registerUtility(service, ITaskService, name="mail")
        registry.registerUtility(SimpleTask(print), ITask, name="print")
        registry.registerUtility(PersistentMapping(), Interface, name="other")
    return empty_place


def test_registrations_are_taken_out_of_sites(site: Any) -> None:
    text = site.run("uninstall", "--dry-run").stdout
    assert "mail on shop: no jobs wait, 0 have ended" in text
    assert "  ITaskService 'mail', registered in the site shop\n" in text
    assert "  ITask 'print', registered in the site shop\n" in text
    assert "  mail in a " in text
    ended = site.run("uninstall", "--yes")
    assert ended.returncode == 0, ended.stdout
    assert read_without_the_package(site.directory) == "['Application']\n1 []\n"


def test_a_pattern_names_a_service_of_a_site(site: Any, opened: Any) -> None:
    assert site.run("uninstall", "shop@mail", "--yes").returncode == 0
    with opened(FileStorage(str(site.directory / "Data.fs"))) as (root, _):
        registry = root["Application"]["shop"].getSiteManager()
        assert registry.queryUtility(ITaskService, "mail") is None
        assert registry.queryUtility(ITask, "print") is not None
        assert "mail" not in registry["default"]
