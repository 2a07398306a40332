# SPDX-License-Identifier: ZPL-2.1
"""What is given for a new job beside its task and input: checked, as it is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.errors import InvalidArgument, is_kind, plain, seconds_of, shown, whole_of

#: Characters of a note.
MAX_NOTE = 1_000

#: Characters of a unique key, and of the name of a lock.
MAX_NAME = 200

#: Priorities lie between this one's negative and it.  Each that was ever used costs each claim a
#: look.
MAX_PRIORITY = 100


def check_note(note: Any) -> str | None:
    """Return a note as it is stored.

    :raises InvalidArgument: it is no text, or too long.
    """
    return _check_text(note, "note", MAX_NOTE, 0)


def check_unique_key(key: Any) -> str:
    """Return a unique key.

    :raises InvalidArgument: it can be none.
    """
    name = _check_name(key, "unique_key")
    if name is None:
        raise InvalidArgument("unique_key must be a str, not None")
    return name


def check_options(
    priority: Any = 0,
    unique_key: Any = None,
    lock: Any = None,
    expires: Any = None,
    now: float = 0.0,
    wait: float | None = None,
) -> dict[str, Any]:
    """Return the attributes of a job that decide when it may be claimed, but for defaults.

    :param now: seconds since the epoch.
    :param wait: the seconds that the job waits before it runs; None if it waits for no time.
    :raises InvalidArgument: they make no sense.
    """
    if type(priority) is int and not priority and unique_key is lock is expires is None:
        return {}
    options = {
        "priority": _check_priority(priority) or None,
        "unique_key": _check_name(unique_key, "unique_key"),
        "lock": _check_name(lock, "lock"),
        "expires_at": None if expires is None else _check_expires(expires, now, wait or 0.0),
    }
    return {name: value for name, value in options.items() if value is not None}


def _check_text(value: Any, name: str, most: int, least: int) -> str | None:
    if value is None:
        return None
    if not is_kind(value, str) or not least <= len(plain(value)) <= most:
        length = f"up to {most}" if not least else f"{least} to {most}"
        raise InvalidArgument(f"{name} must be a str of {length} characters, not {shown(value)}")
    text = plain(value)
    check_storable(text, InvalidArgument, f"the {name}")
    return text


def _check_name(value: Any, name: str) -> str | None:
    text = _check_text(value, name, MAX_NAME, 1)
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} cannot be written: {error}") from None
    return text


def _check_priority(value: Any) -> int:
    number = whole_of(value)
    if number is None or not -MAX_PRIORITY <= number <= MAX_PRIORITY:
        raise InvalidArgument(
            f"priority must be an int of {-MAX_PRIORITY} to {MAX_PRIORITY}, not {shown(value)}"
        )
    return number


def _check_expires(value: Any, now: float, wait: float) -> float:
    """Return when a job expires, in seconds since the epoch."""
    if is_kind(value, datetime):
        if value.utcoffset() is None:
            raise InvalidArgument(f"expires must be an aware datetime, not {shown(value)}")
        expires = now + seconds_of(max(0.0, value.timestamp() - now), "expires")
    else:
        expires = now + seconds_of(value, "expires")
    if wait and expires <= now + wait:
        raise InvalidArgument("the job would expire before it is due")
    return expires
