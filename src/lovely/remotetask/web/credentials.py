# SPDX-License-Identifier: ZPL-2.1
"""Tokens and passwords, and the files that keep what they can be checked by.

A line of such a file has a name, permissions with commas between them, and a hash; what stands
behind a ``#`` is for people.  Tokens are long and made by chance, so that a plain hash of one tells
nothing; passwords are not, so that each guess has to cost time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
from collections.abc import Collection, Iterable
from hashlib import scrypt, sha256
from pathlib import Path
from typing import NamedTuple

from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.web.security import PERMISSIONS

#: What scrypt takes: 16 MB and some 50 ms for each guess.
N, R, P = 2**14, 8, 1
MAX_MEMORY = 64 * 2**20

#: The hashes of tokens and of passwords begin so.
TOKEN, PASSWORD = "sha256", "scrypt"


class Entry(NamedTuple):
    """A line: who may do what, and the hash of what they show."""

    name: str
    permissions: frozenset[str]
    hash: str


def new_token() -> str:
    """Return a token."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the hash of a token."""
    return f"{TOKEN}${sha256(_bytes(token)).hexdigest()}"


def hash_password(password: str) -> str:
    """Return a hash of a password, another one each time."""
    salt = os.urandom(16)
    return "$".join((PASSWORD, str(N), str(R), str(P), _text(salt), _text(_scrypt(password, salt))))


def is_password(password: str, hash: str) -> bool:
    """Say whether a hash is that of a password; it takes about as long if it is not."""
    _, n, r, p, salt, digest = hash.split("$")
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(digest))


def line_of(name: str, permissions: Collection[str], hash: str) -> str:
    """Return a line for a file.

    :raises InvalidArgument: the name or a permission can be none.
    """
    if not re.fullmatch(r"[^\s:#]+", name):
        raise InvalidArgument(f"a name has neither blanks nor : nor #, unlike {name!r}")
    _check_permissions(permissions)
    return f"{name} {','.join(permissions)} {hash}"


def read_entries(path: str | Path, kind: str) -> list[Entry]:
    """Return the lines of a file.

    :param kind: `TOKEN` or `PASSWORD`.
    :raises RemoteTaskError: it cannot be read, or a line is none; it is named by its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RemoteTaskError(f"{path} cannot be read: {error}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
        if words:
            entries.append(_entry(words, kind, f"{path}, line {number}"))
    return entries


def _entry(words: list[str], kind: str, place: str) -> Entry:
    if len(words) != 3 or not _is_hash(words[2], kind):
        raise RemoteTaskError(f"{place}: not of the form NAME PERMISSIONS {kind}$...")
    permissions = words[1].split(",")
    try:
        _check_permissions(permissions)
    except InvalidArgument as error:
        raise RemoteTaskError(f"{place}: {error}") from error
    return Entry(words[0], frozenset(permissions), words[2])


def _is_hash(text: str, kind: str) -> bool:
    if kind == TOKEN:
        return re.fullmatch(rf"{TOKEN}\$[0-9a-f]{{64}}", text) is not None
    found = re.fullmatch(rf"{PASSWORD}\$(\d+)\$(\d+)\$(\d+)\$([^$]+)\$([^$]+)", text)
    if found is None:
        return False
    try:
        is_password("", text)  # its numbers may make no sense
        return all(base64.b64decode(part, validate=True) for part in text.split("$")[4:])
    except (ValueError, binascii.Error, MemoryError, OverflowError):
        return False


def _check_permissions(permissions: Iterable[str]) -> None:
    wrong = sorted(set(permissions).difference(PERMISSIONS))
    if wrong:
        raise InvalidArgument(f"there is no permission {wrong[0]!r}: {', '.join(PERMISSIONS)}")


def _scrypt(password: str, salt: bytes, n: int = N, r: int = R, p: int = P) -> bytes:
    return scrypt(_bytes(password), salt=salt, n=n, r=r, p=p, maxmem=MAX_MEMORY, dklen=32)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
