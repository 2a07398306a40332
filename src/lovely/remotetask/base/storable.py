# SPDX-License-Identifier: ZPL-2.1
"""What can be kept: values that survive being stored and loaded, and bounds for input."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from persistent import Persistent
from persistent.wref import WeakRef
from transaction.interfaces import TransientError
from ZODB.broken import Broken
from zodbpickle import pickle

from lovely.remotetask.base.reference import Reference
from lovely.remotetask.errors import (
    InvalidInput,
    InvalidResult,
    RemoteTaskError,
    describe,
    is_kind,
    name_of,
)

#: Exact types whose values can always be stored, and never be changed.
PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})


def is_plain(value: Any) -> bool:
    """Say whether a value can always be stored, and never be changed."""
    kind = type(value)
    return kind in PLAIN_TYPES or (
        kind in (tuple, frozenset) and PLAIN_TYPES.issuperset(map(type, value))
    )


def _is_granted(value: Any) -> bool:
    """Say whether a value is persistent: only a reference to it is stored."""
    return isinstance(value, Persistent) and not isinstance(value, Broken)


#: An input could be so many levels deeper than it is: what just goes here would not where the
#: stack is fuller already, at the commit or in a worker.  What is smaller is not that deep.
DEPTH_MARGIN = 25
DEEP_BYTES = 1_000


def check_storable(
    value: Any,
    error: type[RemoteTaskError],
    what: str,
    is_first: bool = False,
    connection: Any = None,
    exchange: Callable[[Any], Any] | None = None,
) -> Any:
    """Check that a value survives being stored and loaded, and return what comes back.

    That is a copy, which holds what the value holds now; persistent objects and weak
    references in it are the same ones.  What is plain is returned as it is.

    Persistent objects are taken for granted; what they hold shows at the commit.  Loading is
    tried too: a value that is stored but cannot be loaded would make the record of its job
    unreadable for ever.

    :param error: the class of the error to raise.
    :param what: names the value in the error's message.
    :param is_first: it is to be stored again later, where Python may allow less of nesting.
    :param connection: what it is to be stored through, None if that is not known yet.
    :param exchange: called with each persistent object and each `Reference` in the value; returns
        what comes back in its place.  What it raises goes to the caller.
    """
    if is_plain(value):
        return value
    is_itself = connection is None and _is_granted(value)
    if is_itself and (exchange is None or exchange(value) is value):
        return value
    try:
        stream, persistent = _pickled(value, exchange is not None)
    except TransientError:  # what it holds is stored elsewhere, and could not be read
        raise
    except Exception as cause:  # user code: __reduce__, ...
        raise _refused(error, what, cause) from cause
    if exchange is not None:
        persistent = [exchange(each) for each in persistent]
    try:
        if exchange is not None and persistent:
            _pickled([each for each in persistent if type(each) is Reference])
        if persistent and connection is not None:
            _check_connections(persistent, connection)
        if is_first and stream.tell() > DEEP_BYTES:
            deeper = value
            for _ in range(DEPTH_MARGIN):
                deeper = [deeper]
            _pickled(deeper)
        stream.seek(0)
        unpickler = pickle.Unpickler(stream)
        unpickler.persistent_load = lambda index: persistent[int(index)]
        return unpickler.load()
    except TransientError:
        raise
    except Exception as cause:  # user code: __setstate__, ...
        raise _refused(error, what, cause) from cause


def _refused(error: type[RemoteTaskError], what: str, cause: Exception) -> RemoteTaskError:
    return error(f"{what} cannot be stored: {describe(cause)}")


def _check_connections(persistent: list[Any], connection: Any) -> None:
    """Refuse persistent objects that the commit would refuse, and everything else with them."""
    for candidate in persistent:
        jar = None if isinstance(candidate, (WeakRef, Reference)) else candidate._p_jar
        if jar is None or jar is connection:
            continue
        if all(jar is not each for each in connection.connections.values()):
            raise ValueError(f"a {name_of(candidate)} of another connection to a database")


def copy_of(value: Any) -> Any:
    """Return a copy of a value that stands in a record: who changes it must not change the record.

    What is in it comes back as from `check_storable`.  What cannot be copied, as its class is not
    known here, is returned as it is.
    """
    try:
        return check_storable(value, InvalidResult, "the result")
    except InvalidResult:
        return value


def is_alone(value: Any, max_bytes: int) -> bool:
    """Say whether a value refers to nothing persistent, and is not larger than about so much."""
    kind = type(value)
    if kind in (str, bytes):
        return len(value) <= max_bytes
    if kind in PLAIN_TYPES and kind is not int:
        return True
    try:
        stream, persistent = _pickled(value)
    except Exception:  # user code, as above
        return False
    return not persistent and stream.tell() <= max_bytes


def why_unstorable(values: Iterable[Any]) -> str | None:
    """Return why values cannot be stored, or None.

    Whoever lacks a class can load its instances, as *broken* ones, and store them again.
    They count as what cannot be stored: no task can work with them.
    """
    foreign = [value for value in values if not (is_plain(value) or _is_granted(value))]
    if foreign:
        try:
            _pickled(foreign)
        except (Exception, SystemExit) as cause:  # user code, as above
            return describe(cause)
    return None


def is_stored_alike(one: Any, other: Any) -> bool:
    """Say whether two values, each of which survives being stored, are stored as the same.

    Persistent objects in them have to be the same ones.
    """
    (bytes_of_one, held), (bytes_of_other, others) = map(_pickled, (one, other))
    return bytes_of_one.getvalue() == bytes_of_other.getvalue() and list(map(id, held)) == list(
        map(id, others)
    )


def _pickled(value: Any, with_references: bool = False) -> tuple[io.BytesIO, list[Any]]:
    """Return a pickle, and the persistent objects and weak references that it names.

    :param with_references: each `Reference` is named too, and not a part of the pickle.
    """
    persistent: list[Any] = []
    named = (Persistent, WeakRef, Reference) if with_references else (Persistent, WeakRef)

    def persistent_id(candidate: Any) -> int | None:
        if type(candidate) in PLAIN_TYPES:
            return None
        kind = candidate if isinstance(candidate, type) else type(candidate)
        if issubclass(kind, Broken) and kind is not Broken:
            raise LookupError(f"there is no {kind.__module__}.{kind.__name__} here")
        if not isinstance(candidate, named):
            return None
        persistent.append(candidate)
        return len(persistent) - 1

    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 3)
    pickler.persistent_id = persistent_id
    pickler.dump(value)
    return stream, persistent


#: The limits for input that comes from outside the application.
OUTSIDE_MAX_BYTES = 1_000_000
OUTSIDE_MAX_DEPTH = 100

_CONTAINERS = (dict, list, tuple, set, frozenset)


def check_limits(value: Any, max_bytes: int | None, max_depth: int | None) -> None:
    """Check the size and the nesting of an input.

    :param max_bytes: bytes of all strings, numbers and containers together, roughly as
        they are stored; None sets no bound.
    :param max_depth: how deep lists, tuples, sets and dicts may stand in each other; None
        sets no bound.
    :raises InvalidInput: one of them is exceeded.
    """
    if max_bytes is None and max_depth is None:
        return
    try:
        _check_limits(value, max_bytes, max_depth)
    except InvalidInput:
        raise
    except Exception as error:  # of a dict or a number that is none of the usual ones
        raise InvalidInput(f"the input cannot be measured: {describe(error)}") from error


def _check_limits(value: Any, max_bytes: int | None, max_depth: int | None) -> None:
    size = 0
    level = [value]
    depth = 0
    while level:
        below: list[Any] = []
        opened: set[int] = set()
        for item in level:
            size += _rough_size(item)
            if max_bytes is not None and size > max_bytes:
                raise InvalidInput(f"the input is larger than {max_bytes} bytes")
            if not is_kind(item, _CONTAINERS):
                continue
            if max_bytes is None:
                # A few lists can refer to each other in more ways than anybody could follow;
                # where the size is bounded, that is the end of it.
                if id(item) in opened:
                    continue
                opened.add(id(item))
            below.extend(item)
            if is_kind(item, dict):
                below.extend(item.values())
        level = below
        depth += 1
        if max_depth is not None and below and depth > max_depth:
            raise InvalidInput(f"the input is nested deeper than {max_depth} levels")


def _rough_size(item: Any) -> int:
    if is_kind(item, str):
        return 5 + len(item.encode("utf-8", "surrogatepass"))
    if is_kind(item, (bytes, bytearray)):
        return 5 + len(item)
    bits: int = item.bit_length() if is_kind(item, int) else 0
    return 2 + bits // 8
