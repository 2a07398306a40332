# SPDX-License-Identifier: ZPL-2.1
"""Templates, messages that outlive a redirect, and what keeps itself up to date."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chameleon import PageTemplateLoader
from webob import Request, Response

from lovely.remotetask.web import facts
from lovely.remotetask.web.pages import wording
from lovely.remotetask.web.routing import Context
from lovely.remotetask.web.security import ADD, MANAGE, TOKEN_FIELD, Refusal

_FOLDER = Path(__file__).parent.parent
STATIC = _FOLDER / "static"

#: How often a part of a page asks whether something has changed.
POLL_SECONDS = 3

#: The parameter in which it says what it knows.
STATE = "state"

#: The cookie with what is to be told after a redirect, and how long it is good for, in seconds.
MESSAGE_COOKIE = "remotetask-message"
_MESSAGE_SECONDS = 60

#: The links of each page: what they say, and the path.
LINKS = (
    ("Jobs", "/jobs"),
    ("Schedules", "/schedules"),
    ("Services", "/services"),
    ("Workers", "/workers"),
)

_templates = PageTemplateLoader(str(_FOLDER / "templates"), default_extension=".pt", strict=True)


def prepare() -> None:
    """Compile all templates, so that nobody has to wait for that."""
    for path in (_FOLDER / "templates").glob("*.pt"):
        _templates[path.stem].cook_check()


# -- pages ---------------------------------------------------------------------------------


def page(
    context: Context, template: str, title: str, refusals: tuple[str, ...] = (), **names: Any
) -> Response:
    """Return a page.

    :param title: its heading.
    :param refusals: why nothing was done of what was asked.
    :param names: what the template shows.
    """
    told = _told(context)
    text = render(
        context,
        template,
        title=title,
        results=[] if told is None else [told],
        refusals=list(refusals),
        links=_links(context),
        **names,
    )
    response = html(text)
    if MESSAGE_COOKIE in context.request.cookies:
        response.delete_cookie(MESSAGE_COOKIE, path=_cookie_path(context))
    return response


def live_page(
    context: Context,
    template: str,
    title: str,
    state: str,
    names: Callable[[], Mapping[str, Any]],
    address: str,
    refusals: tuple[str, ...] = (),
    **rest: Any,
) -> Response:
    """Return a page, or if that is asked for, its part that keeps itself up to date.

    The part is the template ``TEMPLATE_live``.  Of one that is up to date nothing is read but its
    state, and nothing is sent.

    :param state: changes with what the part shows.
    :param names: returns what the part shows.
    :param address: where the part asks, without its state.
    :param rest: what only the page shows.
    """
    is_part = "HX-Request" in context.request.headers and STATE in context.request.GET
    # What is told in spans of time grows old by itself.
    state = f"{state}-{int(time.time() // 30):x}"
    if is_part and context.request.GET[STATE] == state:
        return Response(status=204, content_type=None)
    mark = "&" if "?" in address else "?"
    live = render(
        context,
        f"{template}_live",
        poll_address=f"{address}{mark}{STATE}={state}",
        poll_every=f"every {POLL_SECONDS}s",
        **names(),
    )
    if is_part:
        return html(live)
    return page(context, template, title, refusals, live=live, **rest)


def html(text: str, status: int = 200) -> Response:
    """Return an answer in HTML."""
    # What jobs hold may be no text that could be sent.
    body = text.encode("utf-8", "backslashreplace")
    return Response(body, status=status, content_type="text/html", charset="utf-8")


def render(context: Context, template: str, **names: Any) -> str:
    """Return what a template makes of some names, and of those that all templates know."""
    text: str = _templates[template](
        context=context,
        url=context.url,
        asset=lambda name: asset_url(context, name),
        service_title=None if context.match is None else facts.title_of(context.match),
        token_field=TOKEN_FIELD,
        # Not at once: a page without forms needs no cookie.
        form_token=lambda: context.form_token,
        may_add=context.may(ADD),
        may_manage=context.may(MANAGE),
        layout=_templates["layout"],
        parts=_templates["parts"],
        wording=wording,
        now=time.time(),
        **names,
    )
    return text


def _links(context: Context) -> list[dict[str, Any]]:
    if context.match is None:
        return []
    here = context.request.path
    links = []
    for text, path in LINKS:
        address = context.url(path)
        is_current = here == address or here.startswith(f"{address}/")
        links.append({"text": text, "address": address, "is_current": is_current})
    return links


# -- files ---------------------------------------------------------------------------------

TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


def _read_files() -> dict[str, tuple[bytes, str]]:
    """Return the files that pages need: name -> content, and what changes with it."""
    found = {}
    for path in STATIC.iterdir():
        if path.suffix in TYPES:
            content = path.read_bytes()
            found[path.name] = content, sha256(content).hexdigest()[:12]
    return found


FILES = _read_files()


def asset_url(context: Context, name: str) -> str:
    """Return the address of a file that pages need; browsers can keep it for ever."""
    return context.top_url(f"/static/{name}", v=FILES[name][1])


def file_response(name: str) -> Response:
    """Return one of those files."""
    content, mark = FILES[name]
    response = Response(content, content_type=TYPES[Path(name).suffix], charset="utf-8")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    response.etag = mark
    return response


def refusal_page(request: Request, refusal: Refusal) -> Response:
    """Return the page that says why a request was not answered as it asks."""
    mount, rest = (_readable(request, key) for key in ("SCRIPT_NAME", "PATH_INFO"))
    top = quote(mount, safe="/@")
    text = _templates["refusal"](
        status=refusal.status,
        title=refusal.title,
        detail=wording.sentence(refusal.detail),
        path=f"{mount}{rest}",
        style=f"{top}/static/pages.css?v={FILES['pages.css'][1]}",
        icon=f"{top}/static/icon.svg?v={FILES['icon.svg'][1]}",
        home=f"{top}/",
    )
    return html(text, refusal.status)


def _readable(request: Request, key: str) -> str:
    """Return a part of an address for people, also of one that is not in UTF-8."""
    part: str = request.environ.get(key, "")
    return part.encode("latin-1", "replace").decode("utf-8", "replace")


# -- messages ------------------------------------------------------------------------------


def _counted(number: int, what: str) -> str:
    return f"{wording.count(number, 'job')} {what}"


#: What can be told after a redirect: a code -> makes a sentence of what comes with it.
MESSAGES: dict[str, Callable[..., str]] = {
    "cancelled": lambda number: _counted(number, "cancelled"),
    "removed": lambda number: _counted(number, "removed"),
    "retried": lambda number: _counted(number, "queued again"),
    "partly cancelled": lambda number: (
        f"{_counted(number, 'cancelled')}. There are more: press the button again."
    ),
    "partly removed": lambda number: (
        f"{_counted(number, 'removed')}. There are more: press the button again."
    ),
    "job": lambda jobid, outcome: f"Job {jobid} {outcome}",
    "job added": lambda jobid: f"Job {jobid} added",
    "schedule added": lambda jobid: f"Schedule {jobid} added",
    "schedule changed": lambda jobid: f"Schedule {jobid} changed",
    "schedule": lambda jobid, outcome: f"Schedule {jobid} {outcome}",
    "started": lambda name: f"{name}: processing started",
    "stopped": lambda name: f"{name}: processing stopped",
    "paused": lambda name: f"{name} paused",
    "resumed": lambda name: f"{name} resumed",
    "none selected": lambda: "No jobs were selected",
}

#: Those that say that nothing was done.
REFUSALS = frozenset({"none selected"})


def redirect(context: Context, address: str, code: str = "", *given: Any) -> Response:
    """Send the browser to a page, which tells what has come of the request.

    :param code: one of `MESSAGES`; empty tells nothing.
    """
    response = Response(status=303, location=address, content_type=None)
    if code:
        MESSAGES[code](*given)  # not to be noticed on the next page only
        text = json.dumps([code, *given], separators=(",", ":"))
        body = base64.urlsafe_b64encode(text.encode()).decode()
        response.set_cookie(
            MESSAGE_COOKIE,
            f"{body}.{_signature(context, body)}",
            max_age=_MESSAGE_SECONDS,
            path=_cookie_path(context),
            httponly=True,
            samesite="Strict",
            secure=context.request.scheme == "https",
        )
    return response


def _told(context: Context) -> dict[str, Any] | None:
    """Return the sentence that a redirect has left for this page, if there is one."""
    body, _, signature = context.request.cookies.get(MESSAGE_COOKIE, "").partition(".")
    if not body or not hmac.compare_digest(
        signature.encode("utf-8", "surrogateescape"), _signature(context, body).encode()
    ):
        return None
    code, *given = json.loads(base64.urlsafe_b64decode(body))
    if code not in MESSAGES:  # of another release
        return None
    return {"text": MESSAGES[code](*given), "is_refusal": code in REFUSALS}


def _signature(context: Context, body: str) -> str:
    text = f"message {body}".encode("utf-8", "surrogateescape")
    return hmac.new(context.settings.secret, text, sha256).hexdigest()


def _cookie_path(context: Context) -> str:
    return context.request.script_name or "/"
