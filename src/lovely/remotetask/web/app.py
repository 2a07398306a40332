# SPDX-License-Identifier: ZPL-2.1
"""The application: requests, their transactions, and what goes wrong.

A request has a connection of its own and one transaction, which is repeated after a conflict.  What
changes nothing is aborted, so a view that is reached by GET cannot write, whatever it does.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from inspect import iscoroutinefunction
from typing import Any

import transaction
from transaction.interfaces import TransientError
from webob import Request, Response

from lovely.remotetask.base.site import entered
from lovely.remotetask.errors import (
    InvalidArgument,
    RemoteTaskError,
    describe,
    is_storage_fault,
    name_of,
)
from lovely.remotetask.hosts.autostart import Match, find_services, match_site, split_patterns
from lovely.remotetask.web import pages
from lovely.remotetask.web.api import face as api
from lovely.remotetask.web.api.call import PREFIX
from lovely.remotetask.web.operations import status_of
from lovely.remotetask.web.routing import (
    BY_CALL,
    Context,
    Face,
    Found,
    Settings,
    find_routes,
    split_prefix,
)
from lovely.remotetask.web.security import (
    NOTHING,
    SAFE_METHODS,
    VIEW,
    Authorize,
    Refusal,
    add_headers,
    check_host,
)
from lovely.remotetask.web.xmlrpc import face as xmlrpc

log = logging.getLogger("lovely.remotetask.web")

#: How often a request is tried that meets write conflicts.
TRIES = 10

#: A repeated request waits up to this long, in seconds.
CONFLICT_CAP_SECONDS = 0.5

#: No request has a larger body, unless the application says otherwise.
MAX_BODY_BYTES = 2_000_000

#: Who is asked first; what nobody knows is told by the first one that knows its beginning.
FACES = (api.FACE, xmlrpc.FACE, pages.FACE)


def make_app(
    database: Any,
    services: str | Iterable[str] = "*@*",
    authorize: Authorize | None = None,
    read_only: bool = False,
    *,
    origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    secret: bytes | str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Application:
    """Return the WSGI application that shows the services of a database, and lets them be used.

    Of one service ``/`` is the address; of several each has its own below, such as
    ``/site@service/``, and ``/`` lists them.

    :param database: a `ZODB.DB`, or a function that returns it.
    :param services: patterns as in ``remotetask run --autostart``.
    :param authorize: called with the WebOb request and ``view``, ``add`` or ``manage``; what is
        true lets in.  None lets nobody in.
    :param read_only: nothing can be changed, whoever asks.
    :param origins: addresses under which browsers know this site, if another server stands before
        it that hides them: ``https://jobs.example.com``.
    :param hosts: host names that are served, without ports; None is any.
    :param secret: what signs the tokens of forms.  Several processes that serve the same site need
        the same one; None is one by chance.
    :param max_body_bytes: bytes of the largest body of a request.
    :raises InvalidArgument: `authorize` is none.
    """
    # What these return is true, whatever they mean.
    if isinstance(authorize, type) or iscoroutinefunction(authorize):
        raise InvalidArgument(f"authorize must be a plain function, or an object, not {authorize}")
    patterns = split_patterns(services) if isinstance(services, str) else list(services)
    if secret is None:
        secret = secrets.token_bytes(32)
    settings = Settings(
        authorize,
        read_only,
        frozenset(origins),
        None if hosts is None else frozenset(hosts),
        secret.encode() if isinstance(secret, str) else secret,
        max_body_bytes,
    )
    pages.prepare()
    return Application(database, patterns, settings)


class Application:
    """The WSGI application; see `make_app`.

    Transaction: each call has its own.
    """

    def __init__(self, database: Any, patterns: list[str], settings: Settings) -> None:
        self.database = database
        self.patterns = patterns
        self.settings = settings

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer a request."""
        request = Request(environ)
        response = self._respond(request)
        add_headers(response)
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        face: Face = pages.FACE
        try:
            face = _face_of(request)
            check_host(request, self.settings.hosts)
            _read_body(request, self.settings.max_body_bytes)
            return self._repeated(request)
        except Refusal as refusal:
            return _shown(face, request, refusal)
        except Exception as error:  # the rim of the thread
            status = 503 if is_storage_fault(error) else 500
            log.exception("%s %s failed: %s", request.method, request.path, status)
            return _shown(face, request, Refusal(status, "the log of the server tells more"))

    def _repeated(self, request: Request) -> Response:
        """Answer a request in a transaction, which is repeated after conflicts."""
        database = self.database() if callable(self.database) else self.database
        manager = transaction.TransactionManager()
        connection = database.open(manager)
        try:
            for tries in range(1, TRIES + 1):
                try:
                    return self._once(request, connection, manager)
                except TransientError as error:
                    manager.abort()
                    if tries == TRIES:
                        log.warning("%s %s: %s", request.method, request.path, describe(error))
                _wait(tries)
            raise Refusal(
                503, "others are changing the same: try again", None, [("Retry-After", "1")]
            )
        finally:
            manager.abort()
            connection.close()

    def _once(self, request: Request, connection: Any, manager: Any) -> Response:
        manager.begin()
        request.environ["lovely.remotetask.connection"] = connection
        services = list(find_services(connection.root(), self.patterns))
        context = Context(request, self.settings, manager, services)
        found = _find(context, services)
        context.values = found.values
        site = None if context.match is None else match_site(context.match)
        with entered(site):
            response = _call(context, found)
            if context.granted in (NOTHING, VIEW) or request.method in SAFE_METHODS:
                manager.abort()
            else:
                manager.commit()
        context.finish(response)
        return response


#: The path of a call of the API; before it there may be the name of a service.
_OF_PROGRAMS = re.compile(rf"(/[^/]*@[^/]*)?{PREFIX}(/|$)")


def _find(context: Context, services: list[Match]) -> Found:
    """Find the route of a request, and tell the context which service it asks.

    :raises Refusal: there is none.
    """
    path = context.request.path_info or "/"
    match, rest = split_prefix(path, services)
    if match is not None:
        context.match, context.site_is_prefix = match, True
        candidates = find_routes(FACES, rest, False) or find_routes(FACES, rest, True)
    else:
        candidates = []
        if len(services) == 1:
            candidates = find_routes(FACES, path, is_top=False)
            if candidates:
                context.match = services[0]
        if not candidates:
            candidates = find_routes(FACES, path, is_top=True)
    method = "GET" if context.request.method == "HEAD" else context.request.method
    for found in candidates:
        if found.route.method == method:
            return found
    context.require_any()  # who may see nothing is not told what there is
    if not candidates:
        raise Refusal(404, "there is nothing at this address")
    allowed = sorted({found.route.method for found in candidates})
    if "GET" in allowed:
        allowed.append("HEAD")
    raise Refusal(405, "this address knows no such method", None, [("Allow", ", ".join(allowed))])


def _call(context: Context, found: Found) -> Response:
    """Call the view of a route, if it may be called."""
    try:
        if found.route.permission == BY_CALL:
            context.require_any()
        else:
            context.require(found.route.permission)
        if context.request.method not in SAFE_METHODS:
            found.face.check_write(context)
        response = found.route.view(context)
        if context.granted is None:
            raise RuntimeError(f"the view of {found.route.pattern} has required no permission")
        return response
    except TransientError:
        raise
    except RemoteTaskError as error:
        raise Refusal(status_of(error), describe(error), name_of(error)) from error


def _face_of(request: Request) -> Face:
    """Return the face that tells of errors.

    :raises Refusal: the path is no text.
    """
    try:
        path = request.path_info
        request.path_qs, request.GET.items()
    except UnicodeDecodeError:
        raise Refusal(400, "the address is not in UTF-8") from None
    if _OF_PROGRAMS.match(path):
        return api.FACE
    is_call = request.method == "POST" and request.content_type in xmlrpc.MEDIA_TYPES
    return xmlrpc.FACE if is_call else pages.FACE


def _shown(face: Face, request: Request, refusal: Refusal) -> Response:
    response = face.show(request, refusal)
    for name, value in refusal.headers:
        response.headers.add(name, value)
    return response


def _read_body(request: Request, limit: int) -> None:
    """Read the body of a request, which can be read again then.

    :raises Refusal: it is too large, or cannot be read.
    """
    told = request.environ.get("CONTENT_LENGTH") or None
    if told is not None and not (told.isascii() and told.isdecimal()):
        raise Refusal(400, "Content-Length is no number")
    length = None if told is None else int(told[:20])
    if request.method in SAFE_METHODS:
        length = 0
    if length is not None and length > limit:
        raise Refusal(413, f"the body has more than {limit} bytes")
    if length is None and not request.environ.get("wsgi.input_terminated"):
        length = 0
    body = b""
    if length != 0:
        body = request.environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(body) > limit:
        raise Refusal(413, f"the body has more than {limit} bytes")
    if length is not None and len(body) < length:
        raise Refusal(400, "the body breaks off")
    request.body = body


def _wait(tries: int) -> None:
    """Wait a little, by chance, so that two that collided do not collide again."""
    threading.Event().wait(random.uniform(0, min(CONFLICT_CAP_SECONDS, 0.002 * 2**tries)))
