# SPDX-License-Identifier: ZPL-2.1
"""Which view answers a request, and what the view is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode

from webob import Request, Response

from lovely.remotetask.hosts.autostart import Match
from lovely.remotetask.web.facts import pattern_of
from lovely.remotetask.web.security import (
    COOKIE,
    PERMISSIONS,
    VIEW,
    Authorize,
    Refusal,
    is_allowed,
    new_cookie,
    refusal_of,
    token_of,
)

#: In the place of a permission: the view finds out which one it takes, and requires that.
BY_CALL = "by call"


class Settings(NamedTuple):
    """What the application was made with; see `lovely.remotetask.web.app.make_app`."""

    authorize: Authorize | None
    read_only: bool
    origins: frozenset[str]
    hosts: frozenset[str] | None
    secret: bytes
    max_body_bytes: int


class Context:
    """What a view is told.

    :ivar request: the WebOb request; its body is no larger than allowed.
    :ivar values: what stands in the path in the place of the pattern's ``{names}``.
    :ivar services: all services that the application serves, as `Match`.
    :ivar match: the service that is asked, as `Match`; None at the top.
    :ivar service: the service that is asked; None at the top.
    :ivar site_is_prefix: whether the path names the service.
    :ivar settings: those of the application.
    :ivar manager: the transaction manager.  A view does not commit.
    :ivar granted: the permission that was required; None as long as none was.
    """

    def __init__(
        self, request: Request, settings: Settings, manager: Any, services: Sequence[Match]
    ) -> None:
        self.request = request
        self.settings = settings
        self.manager = manager
        self.services = services
        self.values: dict[str, str] = {}
        self.match: Match | None = None
        self.site_is_prefix = False
        self.granted: str | None = None
        self._may: dict[str, bool] = {}
        self._new_cookie: str | None = None

    @property
    def service(self) -> Any:
        """The service that is asked; None at the top."""
        return None if self.match is None else self.match.service

    @property
    def name(self) -> str:
        """The pattern that names the service, such as ``site@service``; empty at the top."""
        return "" if self.match is None else pattern_of(self.match)

    # -- addresses ----------------------------------------------------------------------

    def url(self, path: str, **query: Any) -> str:
        """Return the address of something of the service that is asked.

        :param path: as in the routes, filled in and not quoted: ``/jobs/12``.
        :param query: what stands behind the ``?``; None is left out.
        """
        prefix = f"/{quote(self.name, safe='@')}" if self.site_is_prefix else ""
        return self.top_url(prefix + _quoted(path), **query)

    def service_url(self, match: Match, path: str = "/") -> str:
        """Return the address of something of any service."""
        return self.top_url(f"/{quote(pattern_of(match), safe='@')}" + _quoted(path))

    def top_url(self, path: str, **query: Any) -> str:
        """Return the address of something of no service, such as ``/static/style.css``.

        :param path: quoted.
        """
        given = {name: value for name, value in query.items() if value is not None}
        mark = f"?{urlencode(given, doseq=True)}" if given else ""
        return quote(self.request.script_name, safe="/@") + path + mark

    # -- permissions --------------------------------------------------------------------

    def may(self, permission: str) -> bool:
        """Say whether who asks has a permission, and could use it: to show a button, or not."""
        if permission not in self._may:
            is_open = permission == VIEW or not self.settings.read_only
            self._may[permission] = is_open and is_allowed(
                self.settings.authorize, self.request, permission
            )
        return self._may[permission]

    def require(self, permission: str) -> None:
        """Refuse the request, unless who asks has a permission.

        What takes more than ``view`` is committed.
        """
        if not self.may(permission):
            if self.settings.read_only and permission != VIEW:
                raise Refusal(403, "nothing can be changed here: it is read-only")
            raise refusal_of(self.settings.authorize, self.request, permission)
        self.granted = permission

    def require_any(self) -> None:
        """Refuse the request of somebody who may do nothing at all."""
        if not any(map(self.may, PERMISSIONS)):
            raise refusal_of(self.settings.authorize, self.request, VIEW)

    # -- forms --------------------------------------------------------------------------

    @property
    def form_token(self) -> str:
        """What each form has in its field ``token``: see `security.check_form`."""
        cookie = self.request.cookies.get(COOKIE) or self._new_cookie
        if not cookie:
            cookie = self._new_cookie = new_cookie()
        return token_of(cookie, self.settings.secret)

    def finish(self, response: Response) -> None:
        """Let the answer set the cookie that the token of its forms belongs to."""
        if self._new_cookie is not None:
            response.set_cookie(
                COOKIE,
                self._new_cookie,
                path=self.request.script_name or "/",
                httponly=True,
                samesite="Lax",
                secure=self.request.scheme == "https",
            )


def _quoted(path: str) -> str:
    return quote(path, safe="/@")


View = Callable[[Context], Response]


class Route(NamedTuple):
    """What answers a request.

    :ivar method: ``GET`` (of which nothing is ever committed), ``POST``, ...
    :ivar pattern: the path behind the prefix of the service, such as ``/jobs/{job}``.
    :ivar permission: ``view``, ``add``, ``manage``, or `BY_CALL`.
    :ivar view: called with the `Context`, in the transaction of the request, in the site of the
        service; returns the answer.
    """

    method: str
    pattern: str
    permission: str
    view: View


class Face(NamedTuple):
    """One way to speak with the application.

    :ivar name: for the log.
    :ivar routes: below the prefix of each service.
    :ivar top_routes: of no service.
    :ivar check_write: refuses what may come from another site; called with the `Context`.
    :ivar show: makes an answer of a `Refusal`; called with the request and that.
    """

    name: str
    routes: Sequence[Route]
    top_routes: Sequence[Route]
    check_write: Callable[[Context], None]
    show: Callable[[Request, Refusal], Response]


class Found(NamedTuple):
    """A route that fits a path, and the values in it."""

    face: Face
    route: Route
    values: dict[str, str]


def find_routes(faces: Iterable[Face], path: str, is_top: bool) -> list[Found]:
    """Return the routes of all methods that fit a path."""
    found = []
    for face in faces:
        for route in face.top_routes if is_top else face.routes:
            fits = _expression(route.pattern).fullmatch(path)
            if fits is not None:
                found.append(Found(face, route, fits.groupdict()))
    return found


_expressions: dict[str, re.Pattern[str]] = {}


def _expression(pattern: str) -> re.Pattern[str]:
    if pattern not in _expressions:
        parts = re.split(r"\{(\w+)\}", pattern)
        names = [f"(?P<{part}>[^/]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts)]
        _expressions[pattern] = re.compile("".join(names))
    return _expressions[pattern]


def split_prefix(path: str, services: Sequence[Match]) -> tuple[Match | None, str]:
    """Return the service that a path names, and the rest of the path."""
    first, _, rest = path.removeprefix("/").partition("/")
    for match in services:
        if pattern_of(match) in (first, unquote(first)):
            return match, f"/{rest}"
    return None, path
