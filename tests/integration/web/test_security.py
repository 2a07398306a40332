# SPDX-License-Identifier: ZPL-2.1
"""Who may do what, and what no request may do."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from xmlrpc.client import dumps

import pytest
from webob import Request, Response

from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.web import credentials, security
from lovely.remotetask.web.app import Application
from lovely.remotetask.web.authorizers import (
    AnyOf,
    BasicPasswords,
    BearerTokens,
    PyramidPolicy,
    RemoteUser,
    ZopeUsers,
    from_files,
)
from lovely.remotetask.web.pages import FACE as PAGES
from lovely.remotetask.web.routing import Context, Route
from workplace import Workplace

JSON = "application/json"
CALL = b'{"task": "echo"}'
XML = dumps(("echo",), "add").encode()


def all_routes() -> list[tuple[str, str]]:
    from lovely.remotetask.web.app import FACES

    return sorted(
        {
            (route.method, route.pattern)
            for face in FACES
            for route in (*face.routes, *face.top_routes)
        }
    )


# -- who may ---------------------------------------------------------------------------------


@pytest.mark.parametrize("authorize", [None, lambda request, permission: False])
def test_nobody_is_let_in_unless_the_host_says_so(
    make_site: Any, workplace: Workplace, authorize: Any
) -> None:
    site = make_site(authorize=authorize)
    before = workplace.last_transaction()
    for method, pattern in all_routes():
        for prefix in ("", "/@tasks"):
            path = prefix + pattern.replace("{", "").replace("}", "")
            for body, media_type in ((CALL, JSON), (XML, "text/xml"), (b"a=b", None)):
                has_body = method not in ("GET", "DELETE")
                response = site.ask(
                    path,
                    method,
                    body=body if has_body else None,
                    content_type=media_type if has_body else None,
                )
                assert response.status_int in (401, 403), (method, path)
    assert site.ask("/nowhere").status_int == 403
    assert site.ask("/jobs", "PATCH").status_int == 403  # nor that there is such an address
    assert site.ask("/@tasks/jobs", "PATCH").status_int == 403
    assert workplace.last_transaction() == before


def test_what_is_always_true_lets_nobody_in(make_site: Any) -> None:
    async def authorize(request: Request, permission: str) -> bool:
        return False

    for wrong in (ZopeUsers, authorize):
        with pytest.raises(InvalidArgument):
            make_site(authorize=wrong)


def test_each_permission_is_needed_for_what_it_is_for(make_site: Any) -> None:
    def only(*permissions: str) -> Any:
        return make_site(authorize=lambda request, permission: permission in permissions)

    viewer, adder, manager = only("view"), only("add"), only("manage")
    assert viewer.ask("/api/v1/jobs").status_int == 200
    assert viewer.post("/jobs", {"task": "echo"}).status_int == 403
    assert viewer.post("/clean").status_int == 403
    jobid = adder.post("/jobs", {"task": "echo"}).json["id"]
    assert adder.ask(f"/api/v1/jobs/{jobid}").status_int == 403
    assert adder.post(f"/jobs/{jobid}/cancel").status_int == 403
    assert manager.post(f"/jobs/{jobid}/cancel").status_int == 200
    assert manager.ask("/api/v1/jobs").status_int == 403

    def call(site: Any, *arguments: Any) -> int:
        name, *rest = arguments
        body = dumps(tuple(rest), name).encode()
        status: int = site.ask("/xmlrpc", "POST", body=body, content_type="text/xml").status_int
        return status

    assert call(viewer, "getStatus", jobid) == call(viewer, "system.listMethods") == 200
    assert call(viewer, "add", "echo") == call(viewer, "cancel", jobid) == 403
    assert call(adder, "add", "echo") == 200
    assert call(adder, "getStatus", jobid) == call(adder, "cancel", jobid) == 403
    assert call(manager, "cancel", jobid) == 200


def test_a_site_that_is_read_only_changes_nothing(make_site: Any, workplace: Workplace) -> None:
    with workplace.service() as service:
        jobid = service.add("echo")
    before = workplace.last_transaction()
    site = make_site(read_only=True)
    assert site.get(f"/jobs/{jobid}")["status"] == "queued"
    assert site.post("/next-times", {"minute": [1]}).status_int == 200
    for path in ("/jobs", "/clean", f"/jobs/{jobid}/cancel", "/service/pause", "/service/start"):
        response = site.post(path, {"task": "echo"})
        assert (response.status_int, "read-only" in response.json["detail"]) == (403, True)
    assert site.ask("/xmlrpc", "POST", body=XML, content_type="text/xml").status_int == 403
    assert workplace.last_transaction() == before


def test_what_is_read_is_never_committed(
    workplace: Workplace, make_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def view(context: Context) -> Response:
        context.service.add("echo")
        return Response("added?")

    routes = [Route("GET", "/careless", "manage", view), Route("POST", "/careful", "view", view)]
    import lovely.remotetask.web.app as app

    face = PAGES._replace(routes=routes, check_write=lambda context: None)
    monkeypatch.setattr(app, "FACES", (face,))
    site = make_site()
    assert site.ask("/careless").text == "added?"
    assert site.ask("/careful", "POST").text == "added?"
    with workplace.service() as service:
        assert service.countJobs()["queued"] == 0


def test_a_view_that_requires_nothing_is_not_answered(
    make_site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import lovely.remotetask.web.app as app

    route = Route("GET", "/open", "by call", lambda context: Response("secret"))
    monkeypatch.setattr(app, "FACES", (PAGES._replace(routes=[route]),))
    response = make_site().ask("/open")
    assert response.status_int == 500
    assert "secret" not in response.text


# -- where it comes from ---------------------------------------------------------------------

OWN, FOREIGN = "http://localhost", "http://evil.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://[x"},
        {"Origin": ""},
        {"Referer": f"{FOREIGN}/page"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Cookie": "session=1"},
        {"Cookie": "session=1", "Origin": FOREIGN, "X-Requested-With": "XMLHttpRequest"},
        {"Authorization": "Basic eDp5", "Origin": FOREIGN},
    ],
    ids=str,
)
def test_calls_that_another_site_may_have_sent_change_nothing(
    site: Any, workplace: Workplace, headers: dict[str, str]
) -> None:
    before = workplace.last_transaction()
    for path, body, media_type in (("/api/v1/jobs", CALL, JSON), ("/xmlrpc", XML, "text/xml")):
        response = site.ask(path, "POST", body=body, content_type=media_type, headers=headers)
        assert response.status_int == 403
    assert site.ask("/api/v1/jobs/1", "DELETE", headers=headers).status_int == 403
    assert workplace.last_transaction() == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": OWN},
        {"Origin": "https://localhost"},
        {"Origin": "https://jobs.example.com"},
        {"Referer": f"{OWN}/page"},
        {"Cookie": "session=1", "Origin": OWN},
        {"Cookie": "session=1", "X-Requested-With": "client"},
        {"Cookie": "session=1", "Authorization": "Bearer x"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_calls_that_come_from_here_or_from_programs_are_answered(
    make_site: Any, headers: dict[str, str]
) -> None:
    site = make_site(origins=["https://jobs.example.com"])
    assert site.ask("/api/v1/jobs", "POST", {"task": "echo"}, headers=headers).status_int == 202
    response = site.ask("/xmlrpc", "POST", body=XML, content_type="text/xml", headers=headers)
    assert response.status_int == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_call_that_needs_no_leave_of_the_browser_is_none(
    site: Any, workplace: Workplace, media_type: str
) -> None:
    before = workplace.last_transaction()
    for path, body in (("/api/v1/jobs", CALL), ("/xmlrpc", XML)):
        assert site.ask(path, "POST", body=body, content_type=media_type).status_int == 415
    assert workplace.last_transaction() == before


def check_form(**headers: str) -> None:
    request = Request.blank("/", POST={"token": headers.pop("token", "")}, headers=headers)
    security.check_form(request, (), b"secret")


def test_a_form_needs_the_token_of_its_cookie_and_its_origin() -> None:
    token = security.token_of("cookie", b"secret")
    cookie = f"{security.COOKIE}=cookie"
    check_form(token=token, Cookie=cookie, Origin=OWN)
    check_form(token=token, Cookie=cookie, Referer=f"{OWN}/page")
    check_form(**{"X-CSRF-Token": token}, Cookie=cookie, Origin=OWN)
    for wrong in (
        {"token": token, "Cookie": cookie},
        {"token": token, "Cookie": cookie, "Origin": FOREIGN},
        {"token": token, "Cookie": cookie, "Origin": "null", "Referer": f"{OWN}/"},
        {"token": token, "Origin": OWN},
        {"token": token[:-1], "Cookie": cookie, "Origin": OWN},
        {"token": "", "Cookie": cookie, "Origin": OWN},
        {"token": "\N{SNOWMAN}", "Cookie": cookie, "Origin": OWN},
        {"token": token, "Cookie": f"{security.COOKIE}=other", "Origin": OWN},
        {"token": security.token_of("", b"secret"), "Cookie": f"{security.COOKIE}=", "Origin": OWN},
        {"token": security.token_of("cookie", b"other"), "Cookie": cookie, "Origin": OWN},
    ):
        with pytest.raises(security.Refusal):
            check_form(**wrong)


def test_another_name_of_this_machine_is_not_served_where_names_are_told(make_site: Any) -> None:
    site = make_site(hosts=["localhost", "::1"])
    assert site.ask("/api/v1/jobs").status_int == 200
    assert site.ask("/api/v1/jobs", headers={"Host": "LOCALHOST:80"}).status_int == 200
    assert site.ask("/api/v1/jobs", headers={"Host": "[::1]:8080"}).status_int == 200
    for name in ("evil.example", "localhost.evil.example:8080", "", "[x", "a@localhost:b"):
        assert site.ask("/api/v1/jobs", headers={"Host": name}).status_int == 400


def test_every_answer_has_the_headers_that_keep_browsers_from_harm(make_site: Any) -> None:
    for site in (make_site(), make_site(authorize=None)):
        for path in ("/api/v1/jobs", "/nowhere", "/xmlrpc"):
            headers = site.ask(path).headers
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in headers


# -- shipped authorizers ---------------------------------------------------------------------


def shows(scheme: str, text: str) -> Request:
    return Request.blank("/", headers={"Authorization": f"{scheme} {text}"})


def basic(name: str, password: str) -> Request:
    return shows("Basic", base64.b64encode(f"{name}:{password}".encode()).decode())


def permissions(authorize: Any, request: Request) -> set[str]:
    return {name for name in security.PERMISSIONS if authorize(request, name)}


def test_tokens_let_in_for_what_they_are_made_for(tmp_path: Path) -> None:
    token = credentials.new_token()
    path = tmp_path / "tokens"
    line = credentials.line_of("shop", ["view", "add"], credentials.hash_token(token))
    path.write_text(f"# of the shop\n\n{line}  # until May\n")
    assert token not in path.read_text()
    for authorize in (BearerTokens({token: ("view", "add")}), BearerTokens.from_file(path)):
        assert permissions(authorize, shows("Bearer", token)) == {"view", "add"}
        assert permissions(authorize, shows("bearer", token)) == {"view", "add"}
        for wrong in ("", token[:-1], token + "x", token.swapcase(), "\N{SNOWMAN}"):
            assert permissions(authorize, shows("Bearer", wrong)) == set()
        assert permissions(authorize, Request.blank("/")) == set()
        assert permissions(authorize, shows("Basic", token)) == set()


def test_passwords_let_in_and_are_hashed_anew_only_if_they_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "passwords"
    lines = [
        credentials.line_of("alice", ["view", "manage"], credentials.hash_password("gr\xfcn:1")),
        credentials.line_of("bob", ["view"], credentials.hash_password("blue")),
    ]
    path.write_text("\n".join(lines))
    authorize = BasicPasswords.from_file(path)
    assert permissions(authorize, basic("alice", "gr\xfcn:1")) == {"view", "manage"}
    assert permissions(authorize, basic("bob", "blue")) == {"view"}
    for name, password in (
        ("alice", "blue"),
        ("alice", ""),
        ("bob", "blue "),
        ("", "nobody"),
        ("carol", "nobody"),
        ("carol", "blue"),
    ):
        assert permissions(authorize, basic(name, password)) == set()
    for wrong in ("x", "eDp5eQ", base64.b64encode(b"nocolon").decode(), "\xff\xff"):
        assert permissions(authorize, shows("Basic", wrong)) == set()

    def refuse(*arguments: Any) -> bool:
        raise AssertionError("it was hashed anew")

    monkeypatch.setattr("lovely.remotetask.web.authorizers.is_password", refuse)
    assert permissions(authorize, basic("alice", "gr\xfcn:1")) == {"view", "manage"}


def test_a_wrong_password_is_hashed_once_for_a_request(
    make_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(authorize=BasicPasswords([]))
    hashed = []

    def is_password(password: str, hash: str) -> bool:
        hashed.append(password)
        return False

    monkeypatch.setattr("lovely.remotetask.web.authorizers.is_password", is_password)
    headers = dict(basic("alice", "guess").headers)
    assert site.ask("/jobs", headers=headers).status_int == 401
    assert hashed == ["guess"]


def test_a_file_that_makes_no_sense_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in (
        "alice view",
        "alice view secret",
        "alice all sha256$" + "0" * 64,
        "alice view scrypt$3$8$1$AAAA$AAAA",
        "alice view scrypt$16384$8$1$!$!",
    ):
        path.write_text(f"# comment\n{text}\n")
        for read in (BearerTokens.from_file, BasicPasswords.from_file):
            with pytest.raises(RemoteTaskError, match="line 2"):
                read(path)
    with pytest.raises(RemoteTaskError, match="cannot be read"):
        from_files(tokens=tmp_path / "nowhere")
    for name in ("", "a b", "a:b", "#a"):
        with pytest.raises(InvalidArgument):
            credentials.line_of(name, ["view"], "")
    with pytest.raises(InvalidArgument, match="'all'"):
        credentials.line_of("a", ["all"], "")
    assert from_files() is None


def test_the_server_in_front_tells_who_asks() -> None:
    authorize = RemoteUser({"alice": ("view", "manage"), "*": ("view",)})

    def user(name: str | None, **headers: str) -> Request:
        request = Request.blank("/", headers=headers)
        if name is not None:
            request.environ["REMOTE_USER"] = name
        return request

    assert permissions(authorize, user("alice")) == {"view", "manage"}
    assert permissions(authorize, user("bob")) == {"view"}
    assert permissions(authorize, user("*")) == set()
    assert permissions(authorize, user("")) == set()
    assert permissions(authorize, user(None, **{"Remote-User": "alice"})) == set()
    assert permissions(RemoteUser({"alice": ("view",)}), user("bob")) == set()


def test_a_request_that_nobody_knows_is_asked_who_it_is(make_site: Any) -> None:
    authorize = AnyOf(BearerTokens({"t": ("view",)}), BasicPasswords([]))
    site = make_site(authorize=authorize)
    for headers in ({}, {"Authorization": "Bearer x"}):
        response = site.ask("/api/v1/jobs", headers=headers)
        assert response.status_int == 401
        # Two headers: Chromium asks for no password if both are in one.
        challenges = response.headers.getall("WWW-Authenticate")
        assert [one.partition(" ")[0] for one in challenges] == ["Bearer", "Basic"]
    known = {"Authorization": "Bearer t"}
    assert site.ask("/api/v1/jobs", headers=known).status_int == 200
    assert site.ask("/api/v1/jobs", "POST", {"task": "echo"}, headers=known).status_int == 403
    body = dumps((), "getAvailableTasks").encode()
    response = site.ask("/xmlrpc", "POST", body=body, content_type="text/xml")
    assert response.status_int == 401


class _User:
    def __init__(self, *roles: str) -> None:
        self.roles = roles

    def getRoles(self) -> tuple[str, ...]:
        return self.roles


class _Folder:
    """A user folder of Zope, as far as it is asked."""

    def authenticate(self, name: str, password: str, request: Any) -> Any:
        roles = {("admin", "secret"): ("Manager",), ("joe", "pw"): ("Member", "Authenticated")}
        found = roles.get((name, password))
        return None if found is None else _User(*found)


class _Connection:
    def root(self) -> Any:
        application = type("Application", (), {"acl_users": _Folder()})()
        return {"Application": application}


def test_the_users_of_a_zope_are_let_in_by_their_roles() -> None:
    authorize = ZopeUsers({"view": ("Manager", "Member")})

    def ask(request: Request) -> set[str]:
        request.environ["lovely.remotetask.connection"] = _Connection()
        return permissions(authorize, request)

    assert ask(basic("admin", "secret")) == {"view", "add", "manage"}
    assert ask(basic("joe", "pw")) == {"view"}
    assert ask(basic("joe", "secret")) == ask(Request.blank("/")) == set()


def test_the_policy_of_a_pyramid_application_decides(make_site: Any) -> None:
    from pyramid.config import Configurator
    from pyramid.wsgi import wsgiapp2

    class Policy:
        def identity(self, request: Any) -> Any:
            return request.headers.get("X-User")

        authenticated_userid = identity

        def permits(self, request: Any, context: Any, permission: str) -> bool:
            return bool(self.identity(request) and permission == "remotetask.view")

        def remember(self, request: Any, userid: str, **kw: Any) -> list[Any]:
            return []

        def forget(self, request: Any, **kw: Any) -> list[Any]:
            return []

    app: Application = make_site(authorize=PyramidPolicy()).app
    assert make_site(authorize=PyramidPolicy()).ask("/api/v1/jobs").status_int == 403
    with Configurator() as configuration:
        configuration.set_security_policy(Policy())
        configuration.add_route("jobs", "/jobs*subpath")
        configuration.add_view(wsgiapp2(app), route_name="jobs")
        site = type(make_site())(configuration.make_wsgi_app())
    known = {"X-User": "alice"}
    response = site.ask("/jobs/api/v1/jobs", headers=known)
    assert (response.status_int, response.json["jobs"]) == (200, [])
    response = site.ask("/jobs/api/v1/jobs", "POST", {"task": "echo"}, headers=known)
    assert response.status_int == 403
    assert site.ask("/jobs/api/v1/jobs").status_int == 403
    response = site.ask("/jobs/api/v1/services", headers=known)
    assert response.json["services"][0]["url"] == "/jobs/@tasks/api/v1/service"


# -- the files of the documentation ----------------------------------------------------------

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "web"


def test_the_pyramid_application_of_the_documentation_works(workplace: Workplace) -> None:
    found: dict[str, Any] = {}
    exec((EXAMPLES / "in_pyramid.py").read_text(), found)
    app = found["main"](workplace.db)

    def ask(user: str, **options: Any) -> int:
        request = Request.blank("/jobs/api/v1/jobs", headers={"X-User": user}, **options)
        status: int = request.get_response(app).status_int
        return status

    call = {"POST": b'{"task": "echo"}', "content_type": JSON}
    assert (ask("alice"), ask("bob"), ask("carol")) == (200, 200, 403)
    assert (ask("alice", **call), ask("bob", **call), ask("carol", **call)) == (202, 403, 403)


def test_the_files_of_pastedeploy_name_what_there_is() -> None:
    from configparser import ConfigParser
    from inspect import signature

    from lovely.remotetask.command.pastedeploy import app_factory

    for name in ("jobs.ini", "zope.ini"):
        file = ConfigParser(interpolation=None)
        file.read(EXAMPLES / name)
        [section] = [s for s in file if file[s].get("use") == "egg:lovely.remotetask"]
        assert set(file[section]) - {"use"} <= set(signature(app_factory).parameters)
