# SPDX-License-Identifier: ZPL-2.1
"""Plain Zope: the example, made and used as its README says, and the page of the ZMI."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zope_server import Answer, Zope

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[2] / "docs" / "examples" / "zope"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ADMIN, JANE = "admin:secret", "jane:jane"


def commands() -> Iterator[str]:
    """Yield the commands of the README, but for the server."""
    for line in (EXAMPLE / "README.rst").read_text().splitlines():
        if line.startswith("   $ ") and not line.startswith("   $ runwsgi"):
            yield line.removeprefix("   $ ")


@pytest.fixture(scope="module")
def python(need: Callable[[object, str, str], None]) -> Path:
    """That of an environment with Zope."""
    path = os.environ.get("REMOTETASK_ZOPE_PYTHON") or os.environ.get("REMOTETASK_PLONE_PYTHON")
    need(
        path,
        "neither REMOTETASK_ZOPE_PYTHON nor REMOTETASK_PLONE_PYTHON names a Python with Zope and "
        "this package",
        "python3 -m venv zope && zope/bin/pip install 'Zope[wsgi]' -e . && "
        "export REMOTETASK_ZOPE_PYTHON=$PWD/zope/bin/python",
    )
    return Path(str(path))


def make(python: Path, directory: Path, with_service: bool = True) -> Zope:
    """Make an instance as the README says, with a view that runs Python."""
    zope = Zope(python, EXAMPLE, directory)
    zope.call("\n".join(line for line in commands() if with_service or "zconsole" not in line))
    includes = zope.instance / "etc" / "package-includes"
    shutil.copy(HERE / "zope_run.py", zope.directory)
    shutil.copy(HERE / "zope_run.zcml", includes / "run-configure.zcml")
    return zope


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[Zope]:
    zope = make(python, tmp_path_factory.mktemp("zope") / "example")
    conf = zope.instance / "etc" / "zope.conf"
    conf.write_text(conf.read_text().replace("autostart @tasks", "autostart @*, shop@*"))
    zope.console(
        "import transaction\n"
        "app.acl_users._doAddUser('jane', 'jane', ['Manager'], [])\n"
        "app.acl_users._doAddUser('joe', 'joe', [], [])\n"
        "app.manage_addFolder('texts')\n"
        "transaction.commit()\n"
        "print('made')\n"
    )
    yield zope
    zope.stop()


@pytest.fixture
def zope(instance: Zope) -> Zope:
    """A Zope that serves."""
    if instance.is_down:
        instance.start()
    return instance


def run(zope: Zope, code: str) -> Any:
    """Run Python in a request of the manager, and return what it has put into ``result``."""
    answer = zope.ask("/run", ADMIN, code=code)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


FIND = """
from lovely.remotetask.interfaces import ITaskService
service = app.getSiteManager().getUtility(ITaskService, "tasks")
"""


def begin(zope: Zope, text: str, user: str = JANE) -> tuple[int, str]:
    """Let the example work on a text; return the id of the job, and the address of its page."""
    page = zope.ask("/texts/@@import", user, text=text).url
    return int(page.rpartition("=")[2]), page


def end(zope: Zope, page: str) -> str:
    """Wait until the page says that its job has ended, and return what it says."""
    is_final = re.compile('role="status">(completed|error|cancelled)')
    answer: Answer = zope.until(
        lambda: (found := zope.ask(page, JANE)) and is_final.search(found.text) and found
    )
    return answer.text


# -- the example ---------------------------------------------------------------------------------


def test_the_example_works_as_the_user_and_goes_on_after_a_restart(zope: Zope) -> None:
    jobid, page = begin(zope, "\n".join(LETTERS))
    zope.until(lambda: re.search(r"document +\d", zope.ask(page, JANE).text))
    zope.stop()
    zope.start()
    text = end(zope, page)
    assert 'role="status">completed' in text
    assert "26 documents" in text
    assert "/texts/manage_main" in text
    found = run(
        zope,
        "result = [[str(item.data), item.getOwner().getId(), item.absolute_url_path()] "
        "for item in app.texts.objectValues()]",
    )
    assert [data for data, _, _ in found] == [
        repr(c.encode()) for c in "abcdefghijklmnopqrstuvwxyz"
    ]
    assert {owner for _, owner, _ in found} == {"jane"}
    assert found[0][2] == f"/texts/line-{jobid}-1"


def test_the_example_does_not_find_what_is_not_there(zope: Zope) -> None:
    assert zope.ask("/texts/@@import?job=1", JANE).status == 404
    assert zope.ask("/texts/@@import?job=x", JANE).status == 404
    assert zope.ask("/texts/@@import", "joe:joe").status == 401


# -- services that are made while the server runs ------------------------------------------------

MAKE_SHOP = """
from Products.Five.component import enableSite
from zope.component import getGlobalSiteManager
from zope.component.persistentregistry import PersistentComponents
from lovely.remotetask.hosts.zope import install, uninstall
from lovely.remotetask.interfaces import ITaskService
if "shop" not in app.objectIds():
    app.manage_addFolder("shop")
    enableSite(app.shop)
    app.shop.setSiteManager(PersistentComponents(bases=(getGlobalSiteManager(),)))
"""
IS_PROCESSING = """
from lovely.remotetask.interfaces import ITaskService
registry = app.{place}getSiteManager()
result = registry.getUtility(ITaskService, {name!r}).isProcessing()
"""


def test_a_service_that_is_made_by_a_request_works_at_once(zope: Zope) -> None:
    run(zope, f"{MAKE_SHOP}\ninstall(app.shop, 'mail')")
    assert run(zope, IS_PROCESSING.format(place="shop.", name="mail"))
    jobid = run(
        zope,
        "from lovely.remotetask.interfaces import ITaskService\n"
        "from lovely.remotetask.hosts.content import call_view\n"
        "service = app.shop.getSiteManager().getUtility(ITaskService, 'mail')\n"
        "result = call_view(service, app.shop, 'absolute_url')",
    )
    code = (
        "from lovely.remotetask.interfaces import ITaskService\n"
        "service = app.shop.getSiteManager().getUtility(ITaskService, 'mail')\n"
        f"job = service.job({jobid}); result = [job.is_final, job.output, job.error]"
    )
    _, output, error = zope.until(lambda: (found := run(zope, code))[0] and found)
    assert error is None
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/shop", output)


def test_the_first_start_needs_no_second_one(tmp_path: Path, python: Path) -> None:
    zope = make(python, tmp_path / "example", with_service=False)
    zope.start()
    try:
        run(zope, "from lovely.remotetask.hosts.zope import install\ninstall(app)")
        lines = "\n".join(["line"] * 100)  # for longer than the end of a process waits
        order = f"{{'folder': app, 'text': {lines!r}}}"
        code = f"{FIND}result = service.add('importing.import_lines', {order})"
        jobid = run(zope, code)
        told = "[job.status, job.error, [failure.type for failure in job.failures]]"
        code = f"{FIND}job = service.job({jobid}); result = {told}"
        zope.until(lambda: run(zope, code)[0] == "processing")
        zope.stop()
        zope.start()
        assert run(zope, code)[2] == ["JobInterrupted"]  # it was given back
        zope.until(lambda: run(zope, code)[0] == "processing")
        run(zope, f"{FIND}service.cancel({jobid})")
    finally:
        zope.stop()


def test_a_service_that_no_pattern_names_is_not_started(zope: Zope) -> None:
    code = MAKE_SHOP.replace("shop", "bank")
    run(zope, f"{code}\ninstall(app.bank, 'mail')")
    assert not run(zope, IS_PROCESSING.format(place="bank.", name="mail"))


def test_a_service_that_comes_from_elsewhere_is_found(zope: Zope) -> None:
    run(
        zope,
        "from lovely.remotetask import TaskService\n"
        "from lovely.remotetask.interfaces import ITaskService\n"
        "app.getSiteManager().registerUtility(TaskService(), ITaskService, 'letters')",
    )
    zope.until(lambda: run(zope, IS_PROCESSING.format(place="", name="letters")))


# -- the page ------------------------------------------------------------------------------------


def press(zope: Zope, page: str, user: str = ADMIN, **fields: str) -> Answer:
    """Press a button of a page."""
    hidden = zope.ask(page, user).fields()
    return zope.ask("/@@remotetasks-act", user, **{**hidden, **fields})


def test_the_page_is_for_managers(zope: Zope) -> None:
    assert zope.ask("/@@remotetasks").status == 401
    assert zope.ask("/@@remotetasks", "joe:joe").status == 401
    assert zope.ask("/@@remotetasks-act", "joe:joe", verb="pause").status == 401
    assert zope.ask("/@@remotetasks", JANE).status == 200
    assert '"@@remotetasks"' in zope.ask("/manage_main", JANE).text


def test_the_page_shows_the_services_of_all_sites_or_of_one(zope: Zope) -> None:
    run(zope, f"{MAKE_SHOP}\ninstall(app.shop, 'print')")
    assert "shop@print" in zope.ask("/@@remotetasks", ADMIN).text
    text = zope.ask("/shop/@@remotetasks", ADMIN).text
    assert "shop@print" in text
    assert "@tasks" not in text
    assert zope.ask("/shop/@@remotetasks?service=@tasks", ADMIN).status == 404


def test_a_job_that_has_failed_is_seen_and_run_again(zope: Zope) -> None:
    jobid = run(zope, f"{FIND}\nresult = service.add('importing.import_lines', 'no order')")
    page = f"/@@remotetasks?service=@tasks&job={jobid}"
    zope.until(lambda: 'id="status">error' in zope.ask(page, ADMIN).text)
    listed = zope.ask("/@@remotetasks?service=@tasks&status=error", ADMIN).text
    assert f"job={jobid}" in listed
    assert "string indices must be integers" in listed
    count = zope.ask(page, ADMIN).text.count("TypeError: string indices")
    answer = press(zope, page, verb="retry")
    assert f"Job {jobid} is queued" in answer.text
    zope.until(lambda: zope.ask(page, ADMIN).text.count("TypeError: string indices") > count)


def test_all_tasks_are_paused_and_a_job_that_waits_is_cancelled(zope: Zope) -> None:
    page = "/@@remotetasks?service=@tasks"
    assert "All tasks: paused" in press(zope, page, verb="pause").text
    try:
        jobid, address = begin(zope, "never")
        assert "paused: all tasks" in zope.ask(page, ADMIN).text
        answer = press(zope, f"{page}&job={jobid}", verb="cancel")
        assert f"Job {jobid} is cancelled" in answer.text
    finally:
        assert "All tasks: resumed" in press(zope, page, verb="resume").text
    assert 'role="status">cancelled' in end(zope, address)


def test_a_running_job_shows_its_worker_and_its_progress(zope: Zope) -> None:
    jobid, address = begin(zope, "\n".join(["line"] * 20))
    zope.until(lambda: "of 20 line" in zope.ask("/@@remotetasks?service=@tasks", ADMIN).text)
    text = zope.ask("/@@remotetasks?service=@tasks", ADMIN).text
    assert f"job={jobid}" in text.partition('id="workers"')[2]
    answer = press(zope, f"/@@remotetasks?service=@tasks&job={jobid}", verb="cancel")
    assert f"Job {jobid} is asked to stop" in answer.text
    assert 'role="status">cancelled' in end(zope, address)


def test_forms_of_foreign_sites_and_of_other_users_do_nothing(zope: Zope) -> None:
    page = "/@@remotetasks?service=@tasks"
    fields = zope.ask(page, JANE).fields()
    assert zope.ask("/@@remotetasks-act", ADMIN, **fields, verb="pause").status == 403
    assert zope.ask("/@@remotetasks-act", ADMIN, verb="pause").status == 403
    mine = zope.ask(page, ADMIN).fields()
    query = "&".join(f"{name}={value}" for name, value in mine.items())
    assert zope.ask(f"/@@remotetasks-act?{query}&verb=pause", ADMIN).status == 403
    assert run(zope, f"{FIND}\nresult = service.list_paused()") == []
    zope.stop()
    zope.start()  # the secret outlives the process
    assert zope.ask(page, ADMIN).fields() == mine


def test_what_is_asked_wrongly_is_told(zope: Zope) -> None:
    page = "/@@remotetasks?service=@tasks"
    assert zope.ask(f"{page}&job=1", ADMIN).status == 404
    assert "after must be" in zope.ask(f"{page}&after=x", ADMIN).text
    assert "there is no job 1" in press(zope, page, verb="retry", job="1").text
    assert press(zope, page, verb="explode").status == 400
