# SPDX-License-Identifier: ZPL-2.1
"""What tells a form of ours from one of a foreign site, which cannot know it.

It is made of the user and of a secret that all processes of a database share.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import closing
from typing import Any

import transaction
from AccessControl.SecurityManagement import getSecurityManager
from zExceptions import Forbidden

#: Under this name of the root mapping the secret is kept: 32 bytes.
KEY = "lovely.remotetask.secret"

#: Who makes the secret at the same moment as others tries so often.
TRIES = 10


def make(context: Any) -> str:
    """Return the token of the current user.

    Transaction: reads only; the first time it commits, through a connection of its own.
    """
    user = getSecurityManager().getUser()
    folder: Any = getattr(user, "aq_parent", None)  # in each folder of users ids are its own
    path = "/".join(folder.getPhysicalPath()) if hasattr(folder, "getPhysicalPath") else ""
    whose = f"{path}:{user.getId()}"
    return hmac.new(_secret(context), whose.encode("utf-8", "replace"), "sha256").hexdigest()


def check(context: Any, request: Any) -> None:
    """Refuse a request that is no form of ours, sent by the current user.

    :raises Forbidden: it is none.
    """
    given = request.form.get("token")
    is_ours = isinstance(given, str) and hmac.compare_digest(
        given.encode("utf-8", "replace"), make(context).encode()
    )
    if request.get("REQUEST_METHOD") != "POST" or not is_ours:
        raise Forbidden("the form is not ours, or of another user: load its page anew")


def _secret(context: Any) -> bytes:
    jar = context.getPhysicalRoot()._p_jar
    found: bytes | None = jar.root().get(KEY)
    if found is not None:
        return found
    # Not in the transaction of the request, which only shows a page: it may be thrown away.
    manager = transaction.TransactionManager()
    with closing(jar.db().open(manager)) as connection:
        root = connection.root()
        for attempt in manager.attempts(TRIES):
            with attempt as txn:
                if KEY not in root:
                    root[KEY] = secrets.token_bytes(32)
                    txn.note("remotetask: make the secret of the management page")
        made: bytes = root[KEY]
        return made
