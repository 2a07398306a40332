# SPDX-License-Identifier: ZPL-2.1
"""Which jobs a worker takes: queries as MongoDB has them, as far as ZODB answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lovely.remotetask.errors import InvalidArgument, is_kind, is_storage_fault, shown

_MISSING = object()


def make_filter(query: Any) -> Callable[[Any], bool]:
    """Return what says whether a job fits a query.

    :param query: dotted names of a job's attributes, and what is in them -> a value, or
        ``{"$in": [values]}``; None fits all jobs.
    :raises InvalidArgument: it is none.
    """
    if query is None:
        return lambda job: True
    wanted = [(name.split("."), _values(name, value)) for name, value in _items(query)]
    return lambda job: _fits_all(job, wanted)


def _fits_all(job: Any, wanted: list[tuple[list[str], list[Any]]]) -> bool:
    try:
        return all(_fits(_follow(job, names), values) for names, values in wanted)
    except Exception as error:  # of a property of the job, or of a comparison: not for this worker
        if is_storage_fault(error):
            raise
        return False


def _items(query: Any) -> list[tuple[str, Any]]:
    if not is_kind(query, Mapping):
        raise InvalidArgument(f"jobQuery must be a dict or None, not {shown(query)}")
    items = list(query.items())
    for name, _ in items:
        if not is_kind(name, str) or not name or name.startswith(("$", "_")):
            raise InvalidArgument(f"jobQuery must name attributes of jobs, not {shown(name)}")
    return items


def _values(name: str, value: Any) -> list[Any]:
    if not is_kind(value, Mapping) or not any(str(key).startswith("$") for key in value):
        return [value]
    values = value.get("$in")
    if set(value) != {"$in"} or not is_kind(values, (list, tuple, set, frozenset)):
        raise InvalidArgument(
            f"jobQuery[{name!r}] can be a value or {{'$in': [values]}} here, not {shown(value)}"
        )
    return list(values)


def _follow(job: Any, names: list[str]) -> Any:
    found = job
    for name in names:
        if is_kind(found, Mapping):
            found = found.get(name, _MISSING)
        else:
            found = getattr(found, name, _MISSING)
        if found is _MISSING:
            return None  # MongoDB takes what is not there for null
    return found


def _fits(found: Any, values: list[Any]) -> bool:
    # A list fits where one of its members does, as in MongoDB.
    if found in values:
        return True
    return is_kind(found, (list, tuple)) and any(each in values for each in found)
