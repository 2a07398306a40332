# SPDX-License-Identifier: ZPL-2.1
"""Jobs in a real Plone see what requests see."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from plone_server import SECONDS, Plone

#: Where the site is at home, by the rules of its web server.
VIRTUAL = "/VirtualHostBase/https/shop.example.com:443/Plone/VirtualHostRoot/_vh_shop"


def test_a_job_sees_what_a_request_of_the_user_who_added_it_sees(plone: Plone) -> None:
    status, seen, error = plone.add("jane", "service.add('look', '')", VIRTUAL)
    assert (status, error) == ("completed", None)
    assert seen["url"] == seen["portal"] == "https://shop.example.com/shop"
    assert seen["user"] == "jane"
    assert seen["roles"] == ["Authenticated", "Member", "Site Administrator"]
    assert "IThemingLayer" in seen["layers"]
    assert "IPloneFormLayer" in seen["layers"]
    assert seen["translated"] == "Bearbeiten"
    assert seen["form"] == {}


def test_the_next_job_sees_nothing_of_the_one_before(plone: Plone) -> None:
    plone.add("jane", "service.add('mark')")
    _, seen, _ = plone.add(None, "service.add('look', '')")
    assert (seen["mark"], seen["user"], seen["roles"]) == (None, None, ["Anonymous"])


def test_a_job_of_no_request_has_the_configured_address(plone: Plone) -> None:
    code = "from zope.globalrequest import setRequest; setRequest(None); "
    jobid = plone.run("jane", f"{code}result = service.add('look', '')")
    assert plone.ended(jobid)[1]["url"] == "http://configured.example.com/Plone"


def test_what_a_job_makes_is_in_the_catalog_as_if_a_request_had_made_it(plone: Plone) -> None:
    _, by_job, error = plone.add("jane", "service.add('make', 'By a job')")
    assert error is None
    entry = """
def entry(path):
    [brain] = portal.portal_catalog(path=path)
    names = ("Title", "Creator", "review_state", "portal_type", "is_folderish", "Type")
    provided = portal.portal_catalog.getIndexDataForRID(brain.getRID())["object_provides"]
    roles = portal.portal_catalog.getIndexDataForRID(brain.getRID())["allowedRolesAndUsers"]
    return [*(getattr(brain, name) for name in names), sorted(provided), sorted(roles)]
"""
    made = "api.content.create(portal, 'Document', title='By a request').getPhysicalPath()"
    code = f"{entry}\nresult = [entry({by_job!r}), entry('/'.join({made}))]"
    job, request = plone.run("jane", code)
    assert job[0] == "By a job"
    assert job[1:] == request[1:]
    assert job[1] == "jane"


def test_a_job_can_run_as_somebody_else(plone: Plone) -> None:
    code = "with zope.run_as('joe'): result = service.add('look', '')"
    assert plone.ended(plone.run("jane", code))[1]["user"] == "joe"


def test_a_user_who_is_gone_is_a_clear_error(plone: Plone) -> None:
    code = "with zope.run_as('nobody-here'): result = service.add('look', '')"
    status, _, error = plone.ended(plone.run("jane", code))
    assert status == "error"
    assert "'nobody-here', as whom the job is to run, is not there any more" in error


def test_an_object_is_given_to_the_task_as_traversal_gives_it(plone: Plone) -> None:
    code = """
page = api.content.create(portal, "Document", title="To visit")
folder = api.content.create(portal, "Folder", title="Another place")
result = service.add("visit", [page, portal])
api.content.move(page, folder)
"""
    status, seen, error = plone.ended(plone.run("jane", code, f"{VIRTUAL}"))
    assert (status, error) == ("completed", None)
    url = "https://shop.example.com/shop"
    assert seen == [["To visit", f"{url}/another-place/to-visit", "Plone"], ["Shop", url, "Plone"]]


def test_what_is_stored_of_an_object_is_where_it_is(plone: Plone) -> None:
    code = """
page = api.content.create(portal, "Document", title="To be stored")
[jobid] = service.add_many("visit", [(page, {"again": [page]})])
from plone.uuid.interfaces import IUUID
result = [str(service.job(jobid).input), IUUID(page)]
"""
    stored, uid = plone.run("jane", code)
    content = f"Content(path='/Plone/to-be-stored', uid='{uid}')"
    assert stored == f"({content}, {{'again': [{content}]}})"


def test_an_object_without_its_containers_is_refused(plone: Plone) -> None:
    code = """
from Acquisition import aq_base
page = aq_base(api.content.create(portal, "Document", title="Bare"))
page.__parent__ = None
transaction.savepoint()
try:
    result = service.add("visit", [page])
except ValueError as error:
    result = str(error)
"""
    text = "has no path from the root of Zope: give it as traversal does, wrapped"
    assert plone.run("jane", code).endswith(text)


def test_a_new_object_that_stands_nowhere_goes_with_the_job(plone: Plone) -> None:
    code = """
from OFS.Image import File
jobid = service.add("length", File("notes", "", b"a few words"))
result = jobid
"""
    assert plone.ended(plone.run("jane", code))[:2] == ["completed", 11]


@pytest.mark.parametrize("given", ["page", "content.reference(page)"])
def test_content_is_found_where_it_was_moved_to(plone: Plone, given: str) -> None:
    code = f"""
page = api.content.create(portal, "Document", title="To move")
given = {given}
result = service.add("show", given)
folder = api.content.create(portal, "Folder", title="A folder")
api.content.move(page, folder)
"""
    assert plone.ended(plone.run("jane", code))[:2] == ["completed", "To move"]


@pytest.mark.parametrize("given", ["page", "content.reference(page)"])
def test_content_that_is_gone_or_not_to_be_seen_is_a_clear_error(plone: Plone, given: str) -> None:
    code = """
page = api.content.create(portal, "Document", title="Private")
path = "/".join(page.getPhysicalPath())
with zope.run_as("joe"):
    result = [service.add("show", {given}), path]
if {gone}:
    api.content.delete(page)
"""
    jobid, path = plone.run("jane", code.format(gone=True, given=given))
    assert plone.ended(jobid)[0::2] == ["error", f"{path} is not there any more"]
    jobid, path = plone.run("jane", code.format(gone=False, given=given))
    assert plone.ended(jobid)[0::2] == ["error", f"joe has no permission 'View' at {path}"]


def test_a_view_and_a_function_are_called_by_one_call_each(plone: Plone) -> None:
    code = """
page = api.content.create(portal, "Document", title="Called")
result = [
    content.call_view(service, page, "@@shop-title", **{"with": "this"}),
    content.call_function(service, page, rename, "Renamed", exclaim=True),
]
"""
    view, function = plone.run("jane", code)
    assert plone.ended(view)[:2] == ["completed", "Called this"]
    status, url, _ = plone.ended(function)
    assert status == "completed"
    assert plone.run(
        "jane", f"result = portal.restrictedTraverse({url.split('/Plone/')[1]!r}).title"
    ) == ("Renamed!")


def test_the_undo_log_names_task_and_user(plone: Plone) -> None:
    plone.add("jane", "service.add('make', 'To be undone')")
    code = """
result = [
    f"{entry['user_name']} {entry['description']}"
    for entry in portal._p_jar.db().undoInfo(0, 20)
]
"""
    assert any("jane remotetask make" in line for line in plone.run("jane", code))


def test_a_restart_in_the_middle_loses_nothing(plone: Plone, tmp_path: Path) -> None:
    path = tmp_path / "go"
    jobid = plone.run("jane", f"result = service.add('slow', {str(path)!r})")
    plone.until(path.with_suffix(".begun").exists)
    plone.stop()
    path.touch()
    plone.start()
    status, output, _ = plone.ended(jobid)
    assert (status, output) == ("completed", "done")
    code = f"result = [failure.type for failure in service.job({jobid}).failures]"
    assert plone.run("jane", code) == ["JobInterrupted"]  # it was given back


def test_a_console_leaves_the_queue_alone(plone: Plone, tmp_path: Path) -> None:
    plone.run("jane", "service.pause()")
    jobid = plone.run("jane", "result = service.add('look', '')")
    plone.stop()
    script = tmp_path / "ask.py"
    script.write_text(
        "import time, transaction\n"
        "from lovely.remotetask.interfaces import ITaskService\n"
        "service = app.Plone.getSiteManager().getUtility(ITaskService, 'tasks')\n"
        "service.resume()\n"
        "transaction.commit()\n"
        "time.sleep(1)\n"
        "transaction.begin()\n"
        f"print(service.isProcessing(), service.getStatus({jobid}))\n"
    )
    assert plone.run_script(script).splitlines()[-1] == "False queued"
    plone.start()
    assert plone.ended(jobid)[0] == "completed"


def test_the_command_works_on_jobs_without_a_web_server(plone: Plone, tmp_path: Path) -> None:
    plone.run("jane", "service.pause()")
    jobid = plone.run("jane", "result = service.add('make', 'By the command')")
    plone.stop()
    script = tmp_path / "resume.py"
    script.write_text(
        "import transaction\n"
        "from lovely.remotetask.interfaces import ITaskService\n"
        "app.Plone.getSiteManager().getUtility(ITaskService, 'tasks').resume()\n"
        "transaction.commit()\n"
    )
    plone.run_script(script)
    conf = str(plone.directory / "etc" / "zope.conf")
    with plone.begun(
        "remotetask", "run", "--zope-conf", conf, "--threads", "2", "--verbose"
    ) as worker:
        plone.until(lambda: f"job {jobid}: task make, attempt 1: completed" in plone.log("worker"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0
    plone.start()
    status, path, error = plone.ended(jobid)
    assert (status, error) == ("completed", None)
    found = f"[brain] = portal.portal_catalog(path={path!r})"
    code = f"{found}; result = [brain.Creator, brain.review_state]"
    assert plone.run("jane", code) == ["jane", "private"]
