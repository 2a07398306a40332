# SPDX-License-Identifier: ZPL-2.1
"""What can be given to `make_app` as ``authorize``.

Each is called with a WebOb request and a permission, and says whether the request may do that.  Its
``challenge`` is what HTTP asks for where nobody knows who asks: a str, or several.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from webob import Request

from lovely.remotetask.web.credentials import (
    PASSWORD,
    TOKEN,
    Entry,
    hash_password,
    hash_token,
    is_password,
    read_entries,
)
from lovely.remotetask.web.security import ADD, MANAGE, VIEW, Authorize, challenges_of

REALM = "lovely.remotetask"

#: So many passwords that were right are known again without being hashed anew.
MAX_KNOWN = 1_000

#: Where a request keeps whether its password is right, and who has found out.
CHECKED = "lovely.remotetask.password"

#: Of all that REMOTE_USER names, whoever they are.
ANYBODY = "*"


class BearerTokens:
    """Whoever shows a token: ``Authorization: Bearer TOKEN``.

    :param tokens: token -> what it may do.
    """

    challenge = f'Bearer realm="{REALM}"'

    def __init__(self, tokens: Mapping[str, Collection[str]]) -> None:
        self._entries = [
            Entry("", frozenset(permissions), hash_token(token))
            for token, permissions in tokens.items()
        ]

    @classmethod
    def from_file(cls, path: str | Path) -> BearerTokens:
        """Return that of the tokens in a file; ``remotetask credential`` makes its lines.

        :raises RemoteTaskError: it cannot be read.
        """
        tokens = cls({})
        tokens._entries = read_entries(path, TOKEN)
        return tokens

    def __call__(self, request: Request, permission: str) -> bool:
        """Say whether a request may do something."""
        token = _shown(request, "bearer")
        if token is None:
            return False
        given = hash_token(token).encode()
        may = False
        for entry in self._entries:  # all of them, so that the time tells nothing
            if hmac.compare_digest(given, entry.hash.encode()):
                may = permission in entry.permissions
        return may


class BasicPasswords:
    """Whoever knows a password, by HTTP Basic; only for what is encrypted on its way.

    :param entries: lines of a file; see `credentials.read_entries`.
    """

    challenge = f'Basic realm="{REALM}", charset="UTF-8"'

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._nobody = Entry("", frozenset(), hash_password("nobody"))
        self._key = os.urandom(32)
        self._known: set[bytes] = set()

    @classmethod
    def from_file(cls, path: str | Path) -> BasicPasswords:
        """Return that of the passwords in a file; ``remotetask credential`` makes its lines.

        :raises RemoteTaskError: it cannot be read.
        """
        return cls(read_entries(path, PASSWORD))

    def __call__(self, request: Request, permission: str) -> bool:
        """Say whether a request may do something."""
        shown = basic_credentials(request)
        if shown is None:
            return False
        name, password = shown
        entry = self._entries.get(name, self._nobody)
        # Once for a request, which is asked for several permissions: each guess takes its time.
        checked_by, is_right = request.environ.get(CHECKED, (None, False))
        if checked_by is not self:
            # Also of somebody unknown a password is hashed, so that the time tells nothing.
            is_right = self._is_right(entry, password)
            request.environ[CHECKED] = self, is_right
        return is_right and permission in entry.permissions

    def _is_right(self, entry: Entry, password: str) -> bool:
        # What was right is not hashed anew for each request of a page.
        told = f"{entry.name}\0{password}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key, told, sha256).digest()
        if digest in self._known:
            return True
        if not is_password(password, entry.hash):
            return False
        if len(self._known) >= MAX_KNOWN:
            self._known = set()
        self._known.add(digest)
        return True


class RemoteUser:
    """Whoever the server knows that stands before the application: ``REMOTE_USER`` of WSGI.

    :param users: name -> what they may do; ``*`` stands for all others that have a name.
    """

    challenge: str | None = None

    def __init__(self, users: Mapping[str, Collection[str]]) -> None:
        self._users = {name: frozenset(permissions) for name, permissions in users.items()}

    def __call__(self, request: Request, permission: str) -> bool:
        """Say whether a request may do something."""
        name = request.environ.get("REMOTE_USER")
        if not name or name == ANYBODY:
            return False
        return permission in self._users.get(name, self._users.get(ANYBODY, frozenset()))


class AnyOf:
    """Whoever one of several lets in."""

    def __init__(self, *authorizers: Authorize) -> None:
        self._authorizers = authorizers
        told = (challenge for each in authorizers for challenge in challenges_of(each))
        self.challenge = tuple(dict.fromkeys(told))

    def __call__(self, request: Request, permission: str) -> bool:
        """Say whether a request may do something."""
        return any(authorize(request, permission) for authorize in self._authorizers)


#: The roles of Zope that may do something.
ZOPE_ROLES: dict[str, tuple[str, ...]] = {
    VIEW: ("Manager",),
    ADD: ("Manager",),
    MANAGE: ("Manager",),
}


class ZopeUsers:
    """The users of a Zope whose database is served, by HTTP Basic.

    :param roles: permission -> the roles that have it.
    :param path: where the user folder stands, behind the root.
    """

    challenge = f'Basic realm="{REALM}", charset="UTF-8"'

    def __init__(
        self, roles: Mapping[str, Collection[str]] | None = None, path: str = "acl_users"
    ) -> None:
        self._roles = {**ZOPE_ROLES, **(roles or {})}
        self._path = path.strip("/").split("/")

    def __call__(self, request: Request, permission: str) -> bool:
        """Say whether a request may do something."""
        shown = basic_credentials(request)
        if shown is None:
            return False
        folder = request.environ["lovely.remotetask.connection"].root()["Application"]
        for name in self._path:
            folder = getattr(folder, name)
        user = _zope_user(folder, *shown)
        if user is None:
            return False
        return bool(set(self._roles[permission]).intersection(user.getRoles()))


def _zope_user(folder: Any, name: str, password: str) -> Any:
    """Return the user who has this name and this password in a user folder, or None."""
    plugins = getattr(folder, "plugins", None)
    if plugins is None:
        return folder.authenticate(name, password, {})
    # A pluggable folder would ask its plug-ins about a request of Zope's.
    from Products.PluggableAuthService.interfaces.plugins import IAuthenticationPlugin

    for _, plugin in plugins.listPlugins(IAuthenticationPlugin):
        found = plugin.authenticateCredentials({"login": name, "password": password})
        if found is not None and found[0] is not None:
            return folder.getUserById(found[0])
    return None


class PyramidPolicy:
    """Whoever the security policy of a Pyramid application lets in that mounts this one.

    :param permissions: permission -> what Pyramid calls it.
    """

    challenge: str | None = None

    def __init__(self, permissions: Mapping[str, str] | None = None) -> None:
        named = {name: f"remotetask.{name}" for name in (VIEW, ADD, MANAGE)}
        self._permissions = {**named, **(permissions or {})}

    def __call__(self, request: Request, permission: str) -> bool:
        """Say whether a request may do something."""
        from pyramid.threadlocal import get_current_request

        current = get_current_request()
        return current is not None and bool(current.has_permission(self._permissions[permission]))


def from_files(
    tokens: str | Path | None = None, passwords: str | Path | None = None
) -> Authorize | None:
    """Return what lets in by files of tokens and passwords; None without one.

    :raises RemoteTaskError: one of them cannot be read.
    """
    authorizers: list[Authorize] = []
    if tokens is not None:
        authorizers.append(BearerTokens.from_file(tokens))
    if passwords is not None:
        authorizers.append(BasicPasswords.from_file(passwords))
    return AnyOf(*authorizers) if authorizers else None


def _shown(request: Request, scheme: str) -> str | None:
    """Return what stands behind a scheme in the header ``Authorization``, or None."""
    given, _, rest = request.headers.get("Authorization", "").partition(" ")
    return rest.strip() if given.lower() == scheme else None


def basic_credentials(request: Request) -> tuple[str, str] | None:
    """Return the name and the password that a request shows by HTTP Basic, or None."""
    shown = _shown(request, "basic")
    if shown is None:
        return None
    try:
        text = base64.b64decode(shown, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None
