# SPDX-License-Identifier: ZPL-2.1
"""The example add-on for Plone, installed by pip and driven by its buttons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plone_server import Plone


@pytest.fixture
def folder(plone: Plone) -> Any:
    """A folder whose pages have titles that the catalog does not know; its address, and UID."""
    code = """
folder = api.content.create(portal, "Folder", title="Stale", safe_id=True)
for number in range(3):
    page = api.content.create(folder, "Document", title=f"Page {number}")
transaction.commit()
for page in folder.objectValues():
    page.title = "Written behind the back of the catalog"
result = ["/".join(folder.getPhysicalPath()), folder.UID()]
"""
    return plone.run("jane", code)


def is_known(plone: Plone, path: str) -> bool:
    """Say whether the catalog knows the titles that the pages have."""
    code = f"""
brains = portal.portal_catalog(path={{"query": {path!r}, "depth": 1}})
result = {{brain.Title for brain in brains}} == {{"Written behind the back of the catalog"}}
"""
    known: bool = plone.run("jane", code)
    return known


def last_job(plone: Plone) -> Any:
    """Return the id and the note of the job that was added last."""
    [job] = plone.ask("/Plone/@remotetasks?task=reindexing.below&limit=1", "jane").json()["items"]
    return job["id"], job["note"]


def test_the_button_in_the_menu_of_an_object_adds_a_job(plone: Plone, folder: Any) -> None:
    path, _ = folder
    assert f"{path}/@@reindex-below" in plone.get(path, "jane")
    form = plone.ask(f"{path}/@@reindex-below", "jane")
    assert not is_known(plone, path)
    posted = {"_authenticator": form.token()}
    answer = plone.ask(f"{path}/@@reindex-below", "jane", posted)
    assert "Stale is re-indexed in the background." in answer.text
    jobid, note = last_job(plone)
    assert note == "Re-index Stale"
    assert plone.ended(jobid) == ["completed", 4, None]
    assert is_known(plone, path)


def test_what_is_selected_in_the_contents_of_a_folder_is_one_job(plone: Plone, folder: Any) -> None:
    path, uid = folder
    assert "@@fc-reindex" in plone.get("/Plone/folder_contents", "jane")
    form = {
        "_authenticator": plone.ask(f"{path}/@@reindex-below", "jane").token(),
        "folder": "/",
        "selection": json.dumps([uid]),
    }
    answer = plone.ask("/Plone/@@fc-reindex", "jane", form)
    assert answer.json()["status"] == "success"
    jobid, note = last_job(plone)
    assert note == "Re-index 1 selected"
    assert plone.ended(jobid) == ["completed", 4, None]
    assert is_known(plone, path)


def test_a_button_without_the_authenticator_adds_nothing(plone: Plone, folder: Any) -> None:
    path, _ = folder
    assert plone.ask(f"{path}/@@reindex-below", "jane", {"a": "b"}).status == 403
    assert not is_known(plone, path)


def test_the_job_of_a_user_who_may_not_modify_the_object_fails(plone: Plone, folder: Any) -> None:
    path, _ = folder
    code = f"""
folder = portal.unrestrictedTraverse({path!r})
api.user.grant_roles("joe", roles=["Reader"], obj=folder)
folder.reindexObjectSecurity()
with zope.run_as("joe"):
    result = service.add("reindexing.below", [folder])
"""
    status, _, error = plone.ended(plone.run("jane", code))
    assert (status, error) == ("error", "you may not modify Stale")
