# SPDX-License-Identifier: ZPL-2.1
"""Who may do what, and what no request may do.

A browser sends cookies, and the passwords that it knows, with what other sites make it send.  So
what changes something has to show that it comes from here: a form by a token that only our pages
know and by its ``Origin`` or ``Referer``; a program by not being a browser that was sent here.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from webob import Request, Response

#: To see jobs and their results; to add jobs; all else.
VIEW, ADD, MANAGE = "view", "add", "manage"
PERMISSIONS = (VIEW, ADD, MANAGE)

#: In the place of a permission: nothing was looked at, and nothing is kept.
NOTHING = "nothing"

#: Says whether a request may do something: called with it and one of `PERMISSIONS`.
Authorize = Callable[[Request, str], Any]

#: What can change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD"})

#: The cookie that the token of a form belongs to, the token's field, and its header.
COOKIE = "remotetask-form"
TOKEN_FIELD = "token"
TOKEN_HEADER = "X-CSRF-Token"

#: What a program that has a cookie sends with it: no other site can make a browser send it.
CLIENT_HEADER = "X-Requested-With"

#: A name or an address, and a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+)(?::\d+)?")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is not answered as it asks.

    :ivar status: the code of HTTP.
    :ivar detail: for people.
    :ivar error: the name of the error, for programs.
    :ivar headers: further ones of the answer, of which there may be several with the same name.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        error: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.error = error
        self.headers = list(headers)

    @property
    def title(self) -> str:
        """What HTTP calls the status."""
        return HTTPStatus(self.status).phrase


def add_headers(response: Response) -> None:
    """Add what keeps browsers from doing harm; what a view has set stays."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


# -- who may -------------------------------------------------------------------------------


def refusal_of(authorize: Authorize | None, request: Request, permission: str) -> Refusal:
    """Return why a request may not do something: nobody knows who asks, or they may not."""
    challenges = challenges_of(authorize)
    if not challenges or any(is_allowed(authorize, request, other) for other in PERMISSIONS):
        return Refusal(403, f"this takes the permission {permission!r}")
    # In a header each: browsers ask for no password if it is the second one in a line.
    headers = [("WWW-Authenticate", challenge) for challenge in challenges]
    return Refusal(401, "log in first", headers=headers)


def challenges_of(authorize: Authorize | None) -> tuple[str, ...]:
    """Return what HTTP asks for where nobody knows who asks: a str, several, or none."""
    challenge = getattr(authorize, "challenge", None) or ()
    return (challenge,) if isinstance(challenge, str) else tuple(challenge)


def is_allowed(authorize: Authorize | None, request: Request, permission: str) -> bool:
    """Say whether a request may do something; without `authorize` it may not."""
    return authorize is not None and bool(authorize(request, permission))


# -- where it comes from -------------------------------------------------------------------


def check_host(request: Request, hosts: Collection[str] | None) -> None:
    """Refuse a request to a name that is not ours: it may be another site's, made to lead here.

    :param hosts: names without ports; None is any.
    """
    if hosts is None:
        return
    found = _HOST.fullmatch(request.host)
    if found is None or found[1].strip("[]").lower() not in hosts:
        raise Refusal(400, "this host is not served here")


def _is_own(request: Request, origin: str, origins: Collection[str]) -> bool:
    """Say whether an origin, or the address of a page, is of this site."""
    parts = urlsplit(origin)
    own = f"{parts.scheme}://{parts.netloc}"
    # In front of us may be something that speaks https to browsers.
    return own in origins or own in (request.host_url, _encrypted(request.host_url))


def _encrypted(url: str) -> str:
    return f"https://{url.partition('://')[2]}"


def check_not_foreign(request: Request, origins: Collection[str]) -> bool:
    """Refuse what another site has made a browser send; say whether a browser tells that.

    :param origins: further ones that are ours, such as ``https://jobs.example.com``.
    """
    for header in ("Origin", "Referer"):
        value = request.headers.get(header)
        if value is not None:
            try:
                is_own = _is_own(request, value, origins)
            except ValueError:  # no address at all
                is_own = False
            if not is_own:
                raise Refusal(403, f"this comes from another site, says {header}")
            return True
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise Refusal(403, "this comes from another site")
    return False


def check_form(request: Request, origins: Collection[str], secret: bytes) -> None:
    """Refuse a form that was not sent by one of our pages."""
    if not check_not_foreign(request, origins):
        raise Refusal(403, "the form tells neither Origin nor Referer")
    cookie = request.cookies.get(COOKIE, "")
    given = request.headers.get(TOKEN_HEADER) or request.POST.get(TOKEN_FIELD) or ""
    if not isinstance(given, str):  # an uploaded file
        given = ""
    if not cookie or not _is_same(given, token_of(cookie, secret)):
        raise Refusal(403, "the form is too old: load the page again")


def check_program(request: Request, origins: Collection[str]) -> None:
    """Refuse a call with which a browser may have been sent here."""
    is_from_here = check_not_foreign(request, origins)
    has_shown = is_from_here or "Authorization" in request.headers
    if "Cookie" in request.headers and not has_shown and CLIENT_HEADER not in request.headers:
        raise Refusal(
            403, f"a cookie is not enough: send Authorization, Origin or {CLIENT_HEADER} too"
        )


def new_cookie() -> str:
    """Return what the token of a form belongs to."""
    return secrets.token_urlsafe(24)


def token_of(cookie: str, secret: bytes) -> str:
    """Return the token that forms have whose browser has this cookie."""
    return hmac.new(secret, cookie.encode("utf-8", "surrogateescape"), sha256).hexdigest()


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
