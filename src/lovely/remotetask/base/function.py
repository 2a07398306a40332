# SPDX-License-Identifier: ZPL-2.1
"""Whether a function can be called as it will be, and in other processes: asked beforehand."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from lovely.remotetask.errors import InvalidArgument, is_kind, shown


def check_function(function: Any, arguments: Sequence[str] | None) -> None:
    """Check that a function takes some arguments, and returns a result when it is called.

    :param arguments: what they are, by position; None is not known.
    :raises InvalidArgument: it does not.
    """
    function = _unbound(function)
    if not callable(function):
        raise InvalidArgument(f"a task is made of a callable, not of {shown(function)}")
    for code in _codes(function):
        if _is(code, inspect.isgeneratorfunction) or _is(code, inspect.isasyncgenfunction):
            raise InvalidArgument(
                f"{shown(function)} is a generator, which cannot be kept: a task returns its result"
            )
    if arguments is None:
        return
    try:
        # Of a wrapper its own arguments count, and not those of what it wraps.
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # of code in C, and of an object that tells not what it takes
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise InvalidArgument(
            f"{shown(function)} takes {signature}, but is called with"
            f" {len(arguments)} argument{'s' if len(arguments) > 1 else ''}: "
            f"({', '.join(arguments)}); {error}{_advice(signature, arguments)}"
        ) from None


def _advice(signature: inspect.Signature, arguments: Sequence[str]) -> str:
    if len(arguments) > 1:
        return ""
    for others, advice in (
        (("context", "input"), "; with context=True it gets (context, input)"),
        (("service", "jobid", "input"), "; a callable of (service, jobid, input) is an ITask, and"
            " is registered as such: provideUtility(it, ITask, name)"),
    ):  # fmt: skip
        try:
            signature.bind(*others)
        except TypeError:
            continue
        return advice
    return ""


def is_asynchronous(function: Any) -> bool:
    """Say whether a function is an ``async def``."""
    return any(_is(code, inspect.iscoroutinefunction) for code in _codes(_unbound(function)))


def why_not_importable(function: Any) -> str | None:
    """Return why other processes cannot find a function by its name; None: it may be found."""
    while is_kind(function, partial):
        function = function.func
    try:
        function = getattr(function, "__func__", function)
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
    except Exception:  # an object that tells not what it is
        return None
    if "<lambda>" in name:
        return "a lambda has no name by which it could be imported there"
    if "<locals>" in name:
        return "what is defined in a function cannot be imported there"
    return None


def _unbound(function: Any) -> Any:
    return function.__func__ if is_kind(function, staticmethod) else function


def _codes(function: Any) -> Iterator[Any]:
    """Yield what may tell what a function is: of a callable object its method counts."""
    yield function
    yield type(function).__call__


def _is(code: Any, question: Any) -> bool:
    try:
        return bool(question(code))
    except Exception:  # an object that tells not what it is
        return False
