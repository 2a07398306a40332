# SPDX-License-Identifier: ZPL-2.1
"""The add-on in a real Plone: its profiles, its pages, what it answers programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plone_server import Plone

PAGES = ("controlpanel", "schedules", "workers", "settings")


def failed_job(plone: Plone) -> int:
    gone = "content.Content('/Plone/nowhere')"
    jobid: int = plone.run("jane", f"result = service.add('show', {gone}, note='<b>bold</b>')")
    assert plone.ended(jobid)[0] == "error"
    return jobid


# -- the profile ---------------------------------------------------------------------------------


def test_the_add_on_is_offered_and_its_removal_is_not(plone: Plone) -> None:
    found = plone.ask("/Plone/@addons", "admin").json()["items"]
    [addon] = [item for item in found if item["id"] == "lovely.remotetask.hosts.plone"]
    assert addon["title"] == "Remote tasks"
    assert addon["is_installed"]
    assert addon["uninstall_profile_id"] == "lovely.remotetask.hosts.plone:uninstall"


def test_the_control_panel_has_an_entry(plone: Plone) -> None:
    assert "@@remotetask-controlpanel" in plone.get("/Plone/@@overview-controlpanel", "jane")


def test_permissions_are_given_to_roles(plone: Plone) -> None:
    code = """
result = {
    name: sorted(r["name"] for r in portal.rolesOfPermission(name) if r["selected"])
    for name in ("View remote tasks", "Add remote tasks", "Manage remote tasks")
}
"""
    assert plone.run("jane", code) == {
        "View remote tasks": ["Manager", "Site Administrator"],
        "Add remote tasks": ["Contributor", "Editor", "Manager", "Site Administrator"],
        "Manage remote tasks": ["Manager", "Site Administrator"],
    }


def test_a_service_that_is_made_in_a_running_server_works_at_once(plone: Plone) -> None:
    code = """
from lovely.remotetask.interfaces import ITaskService
service = portal.getSiteManager().queryUtility(ITaskService, name="another")
"""
    made = 'service = zope.install(portal, "another"); result = service.add("mark")'
    jobid = plone.run("jane", made)
    assert plone.run("jane", f"{code}result = service.isProcessing()")
    status = f"{code}result = service.getStatus({jobid})"
    plone.until(lambda: plone.run("jane", status) == "completed")
    assert plone.run("jane", "result = zope.uninstall(portal, 'another')")
    assert plone.run("jane", f"{code}result = service") is None


# -- the control panel ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_who_has_no_permission_sees_no_page(plone: Plone, page: str) -> None:
    assert plone.ask(f"/Plone/@@remotetask-{page}", "jane").status == 200
    answer = plone.ask(f"/Plone/@@remotetask-{page}", "joe")
    assert answer.url.endswith("/insufficient-privileges")


def test_jobs_are_listed_by_status_and_task(plone: Plone) -> None:
    jobid = failed_job(plone)
    page = "/Plone/@@remotetask-controlpanel"
    link = f'remotetask-job?id={jobid}"'
    assert link in plone.get(f"{page}?status=error&task=show", "jane")
    assert link not in plone.get(f"{page}?status=completed", "jane")
    assert link not in plone.get(f"{page}?status=error&task=look", "jane")


def test_a_job_is_shown_with_input_error_and_log(plone: Plone) -> None:
    jobid = plone.run("jane", "result = service.add('count', 3)")
    plone.ended(jobid)
    page = plone.get(f"/Plone/@@remotetask-job?id={jobid}", "jane")
    assert "counted 3" in page
    page = plone.get(f"/Plone/@@remotetask-job?id={failed_job(plone)}", "jane")
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "/Plone/nowhere is not there any more" in page
    assert plone.ask("/Plone/@@remotetask-job?id=12345", "jane").status == 404


def test_a_failed_job_is_retried_by_a_button(plone: Plone) -> None:
    jobid = failed_job(plone)
    page = plone.ask(f"/Plone/@@remotetask-job?id={jobid}", "jane")
    form = {"verb": "retry", "id": str(jobid), "_authenticator": page.token()}
    answer = plone.ask("/Plone/@@remotetask-act", "jane", form)
    assert answer.url.endswith(f"@@remotetask-job?id={jobid}")
    assert f"Job {jobid} is queued" in answer.text
    plone.ended(jobid)
    assert plone.run("jane", f"result = len(service.job({jobid}).failures)") == 2


def test_buttons_need_a_post_the_authenticator_and_the_permission(plone: Plone) -> None:
    jobid = failed_job(plone)
    form = {"verb": "retry", "id": str(jobid)}
    act = "/Plone/@@remotetask-act"
    assert plone.ask(act, "jane", form).status == 403
    token = plone.ask(f"/Plone/@@remotetask-job?id={jobid}", "jane").token()
    query = f"?verb=retry&id={jobid}&_authenticator={token}"
    assert plone.ask(act + query, "jane").status == 403
    answer = plone.ask(act, "joe", {**form, "_authenticator": token})
    assert answer.url.endswith("/insufficient-privileges")
    assert plone.run("jane", f"result = service.getStatus({jobid})") == "error"


def test_jobs_are_paused_cancelled_and_let_go_by_buttons(plone: Plone) -> None:
    page = plone.ask("/Plone/@@remotetask-controlpanel", "jane")
    act, token = "/Plone/@@remotetask-act", page.token()
    answer = plone.ask(act, "jane", {"verb": "pause", "_authenticator": token})
    assert "Resume all tasks" in answer.text
    jobid = plone.run("jane", "result = service.add('mark')")
    form = {"verb": "cancel", "id": str(jobid), "_authenticator": token}
    assert f"Job {jobid} is cancelled" in plone.ask(act, "jane", form).text
    answer = plone.ask(act, "jane", {"verb": "resume", "_authenticator": token})
    assert "Resume all tasks" not in answer.text


def test_a_delayed_job_and_a_schedule_are_run_now_by_buttons(plone: Plone) -> None:
    jobid = plone.run("jane", "result = service.add('mark', delay=9999)")
    schedule = plone.run("jane", "result = service.ensure('weekly', 'mark', cron='0 0 * * 1')")
    page = plone.ask("/Plone/@@remotetask-schedules", "jane")
    assert "weekly" in page.text
    act, token = "/Plone/@@remotetask-act", page.token()
    for number in (jobid, schedule):
        plone.ask(act, "jane", {"verb": "run_now", "id": str(number), "_authenticator": token})
    assert plone.ended(jobid)[0] == "completed"
    code = f"result = service.job({schedule}).started is not None"
    plone.until(lambda: plone.run("jane", code))
    plone.run("jane", "service.remove_schedule('weekly')")


# -- programs ------------------------------------------------------------------------------------


def test_a_job_is_added_and_followed_by_its_address(plone: Plone) -> None:
    answer = plone.ask("/Plone/@remotetasks", "jane", data={"task": "echo", "input": {"a": [1]}})
    assert answer.status == 202
    told = answer.json()
    assert answer.headers["Location"] == told["@id"]
    assert told["user"] == "jane"
    plone.ended(told["id"])
    path = f"/Plone/@remotetasks/{told['id']}"
    found = plone.ask(path, "jane").json()
    assert (found["status"], found["result"]) == ("completed", {"a": [1]})
    listed = plone.ask("/Plone/@remotetasks?task=echo&limit=1", "jane").json()["items"]
    assert [item["@id"] for item in listed] == [told["@id"]]


def test_what_json_cannot_have_is_told_as_text(plone: Plone) -> None:
    jobid = plone.run("jane", "result = service.add('echo', {1, 2})")
    plone.ended(jobid)
    assert plone.ask(f"/Plone/@remotetasks/{jobid}", "jane").json()["result"] == "{1, 2}"


def test_who_may_only_add_jobs_adds_those_that_are_offered_and_sees_his_own(plone: Plone) -> None:
    def post(user: str | None, task: str) -> int:
        return plone.ask("/Plone/@remotetasks", user, data={"task": task}).status

    offer = "api.portal.set_registry_record('lovely.remotetask.offered_tasks', {})"
    assert post("edith", "echo") == 401
    plone.run("jane", offer.format("('echo',)"))
    try:
        answer = plone.ask("/Plone/@remotetasks", "edith", data={"task": "echo", "input": 1})
        assert answer.status == 202
        assert [post("edith", "mark"), post("joe", "echo"), post(None, "echo")] == [401, 401, 401]
    finally:
        plone.run("jane", offer.format("()"))
    own = f"/Plone/@remotetasks/{answer.json()['id']}"
    assert plone.ask(own, "edith").status == 200
    assert plone.ask(own, "joe").status == 401
    assert plone.ask("/Plone/@remotetasks", "edith").status == 401
    other = plone.run("jane", "result = service.add('mark')")
    assert plone.ask(f"/Plone/@remotetasks/{other}", "edith").status == 401
    assert plone.ask(f"/Plone/@remotetasks/{other}/cancel", "edith", method="POST").status == 401


def test_a_task_that_calls_any_function_is_never_offered(plone: Plone) -> None:
    data = {"task": "lovely.remotetask.function", "input": [["/", None], "os.getcwd", [], {}]}
    assert plone.ask("/Plone/@remotetasks", "admin", data=data).status == 401


def test_nonsense_is_a_clear_error_of_the_client(plone: Plone) -> None:
    def post(path: str, data: object = None) -> tuple[int, str]:
        answer = plone.ask(f"/Plone/@remotetasks{path}", "jane", data=data, method="POST")
        return answer.status, answer.json()["message"]

    assert post("", {"task": "nothing"}) == (
        400,
        "no task is registered under the name 'nothing'",
    )
    assert post("", {"task": "echo", "run_as": "admin"})[0] == 400
    assert post("", {"task": ["echo"]})[0] == 400
    assert post("/99999/retry")[0] == 404
    assert post("/abc/retry")[0] == 404
    assert plone.ask("/Plone/@remotetasks?limit=x", "jane").status == 400


def test_a_job_is_retried_and_cancelled_by_its_address(plone: Plone) -> None:
    jobid = failed_job(plone)
    answer = plone.ask(f"/Plone/@remotetasks/{jobid}/retry", "jane", method="POST")
    assert (answer.status, answer.json()["status"]) == (200, "queued")
    later = plone.run("jane", "result = service.add('mark', delay=9999)")
    answer = plone.ask(f"/Plone/@remotetasks/{later}/cancel", "jane", method="POST")
    assert answer.json()["status"] == "cancelled"


# -- what users see ------------------------------------------------------------------------------


def test_users_see_their_own_running_jobs_and_nobody_elses(plone: Plone, tmp_path: Path) -> None:
    path = tmp_path / "go"
    jobid = plone.run("joe", f"result = service.add('slow', {str(path)!r}, note='A long one')")
    plone.until(path.with_suffix(".begun").exists)
    try:
        assert "A long one" in plone.get("/Plone", "joe")
        assert "A long one" not in plone.get("/Plone", "jane")
        assert "remotetask-own" not in plone.get("/Plone")
        [own] = json.loads(plone.get("/Plone/@@remotetask-own", "joe"))["jobs"]
        assert (own["id"], own["is_final"], own["done"], own["total"]) == (jobid, False, 1, 4)
    finally:
        path.touch()
    plone.ended(jobid)
    assert "remotetask-own" not in plone.get("/Plone", "joe")
    [own] = json.loads(plone.get(f"/Plone/@@remotetask-own?ids={jobid},77777,x", "joe"))["jobs"]
    assert (own["id"], own["status"]) == (jobid, "completed")
    asked = plone.get(f"/Plone/@@remotetask-own?ids={jobid}", "jane")
    assert json.loads(asked) == {"jobs": []}
    assert "fetch(" in plone.get("/Plone/++resource++lovely.remotetask/progress.js")


# -- failures ------------------------------------------------------------------------------------


def test_failures_are_told_by_mail(plone: Plone) -> None:
    code = """
from lovely.remotetask.hosts.plone import failures
from lovely.remotetask.hosts.plone.jobs import user_of
set = api.portal.set_registry_record
set("lovely.remotetask.failure_mail", "ops@example.com")
[schedule] = [s for s in service.schedules() if s.key == failures.TASK]
users = user_of(service.job(schedule.id))
failures.LAG_SECONDS = -60
set("lovely.remotetask.failures_told", 0.0)
sent = []
Host = type(portal.MailHost.aq_base)
Host.send, send = lambda self, *message: sent.append(message), Host.send
told = failures.tell_failures(None), failures.tell_failures(None)
Host.send = send
failures.LAG_SECONDS = 60
set("lovely.remotetask.failure_mail", "")
left = [s for s in service.schedules() if s.key == failures.TASK]
result = [schedule.schedule, users, told, sent, left]
"""
    jobid = failed_job(plone)
    schedule, user, told, sent, left = plone.run("jane", code)
    assert (schedule, user, left) == ("*/5 * * * *", None, [])
    assert told[0] >= 1
    assert told[1] == 0
    [[text, recipient, _]] = sent
    assert recipient == "ops@example.com"
    assert f"Job {jobid}, show, of jane: " in text


# -- plone.protect -------------------------------------------------------------------------------


def test_a_job_that_plone_protect_throws_away_is_warned_of(plone: Plone) -> None:
    before = len(plone.log())
    jobid = int(plone.get("/Plone/@@add-by-get", "jane"))
    assert plone.run("jane", f"result = {jobid} in service.jobs") is False
    logged = plone.log()[before:]
    assert "/Plone/@@add-by-get has added jobs (calls: 1), but its transaction was abort" in logged


def test_a_request_that_fails_says_so_by_itself(plone: Plone) -> None:
    before = len(plone.log())
    assert plone.ask("/Plone/@@add-by-get?fail=1", "jane").status == 500
    assert "has added jobs" not in plone.log()[before:]


# -- its end -------------------------------------------------------------------------------------


def test_the_uninstall_profile_leaves_a_site_that_works_without_the_package(
    plone: Plone, tmp_path: Path
) -> None:
    plone.stop()
    with plone.set_back():
        remove = tmp_path / "remove.py"
        remove.write_text(
            "import transaction\n"
            "from zope.component.hooks import setSite\n"
            "setSite(app.Plone)\n"
            "setup = app.Plone.portal_setup\n"
            "for name in 'reindexing', 'lovely.remotetask.hosts.plone':\n"
            "    setup.runAllImportStepsFromProfile(f'{name}:uninstall')\n"
            "transaction.commit()\n"
        )
        plone.run_script(remove)
        ask = tmp_path / "ask.py"
        ask.write_text(
            "import sys\n"
            "for name in [n for n in sys.modules if n.startswith(('lovely', 'reindexing'))]:\n"
            "    sys.modules[name] = None\n"
            "app._p_jar.cacheMinimize()\n"
            "from zope.component.hooks import setSite\n"
            "setSite(app.Plone)\n"
            "names = [u.name for u in app.Plone.getSiteManager().registeredUtilities()]\n"
            "ids = [action.id for action in app.Plone.portal_controlpanel.listActions()]\n"
            "records = [r for r in app.Plone.portal_registry.records if 'remotetask' in r]\n"
            "print(len(names) > 10, 'tasks' in names, 'remotetasks' in ids, records)\n"
            "print(len(app.Plone.portal_catalog()) > 0)\n"
            "app._p_jar.db().pack()\n"
        )
        assert plone.run_script(ask).splitlines()[-2:] == ["True False False []", "True"]
        assert b"clovely.remotetask" not in plone.data.read_bytes()
