# SPDX-License-Identifier: ZPL-2.1
"""As whom a job runs, where the host knows users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lovely.remotetask.errors import InvalidArgument, TaskError, is_kind, plain, shown

_named: ContextVar[str | None] = ContextVar("named", default=None)


class UserGone(TaskError):
    """The user as whom the job is to run is not there any more."""

    @classmethod
    def of(cls, user_id: str) -> UserGone:
        """Return the error of a user."""
        return cls(f"the user {user_id!r}, as whom the job is to run, is not there any more")


@contextmanager
def run_as(user_id: str) -> Iterator[None]:
    """Let the jobs that are added in the ``with`` block run as this user, not the current one.

    :param user_id: an id that the host knows when the job runs.
    :raises InvalidArgument: it is no text.
    """
    if not is_kind(user_id, str) or not user_id:
        raise InvalidArgument(f"run_as takes the id of a user, not {shown(user_id)}")
    token = _named.set(plain(user_id))
    try:
        yield
    finally:
        _named.reset(token)


def named_user() -> str | None:
    """Return the id that `run_as` has named, or None."""
    return _named.get()
