# SPDX-License-Identifier: ZPL-2.1
"""What is put around each job, and what travels with a job from where it was added.

Both are registered in the process that is to know them, by name: what stands in the database is a
name, or plain data, and never code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

from transaction.interfaces import TransientError

from lovely.remotetask.base.forking import unforked
from lovely.remotetask.context import TaskContext, current_context
from lovely.remotetask.errors import (
    InvalidArgument,
    RetryLater,
    is_kind,
    is_read_fault,
    is_true,
    plain,
    shown,
)
from lovely.remotetask.setting import read

__all__ = ["forget_around", "forget_context", "register_around", "register_context"]

job_log = logging.getLogger("remotetask.job")

#: Called with the `IJob` and the `TaskContext`; what it returns is entered and left around a run.
Around = Callable[[Any, TaskContext], AbstractContextManager[Any]]

#: A job whose service names what is not registered here is tried again after so many seconds.
MISSING_SECONDS = 10.0

#: What travels with a job has no more characters and bytes than this, and no deeper levels.
MAX_SIZE = 4_000
MAX_DEPTH = 5

_SCALARS = frozenset({type(None), bool, int, float})


class _Context(NamedTuple):
    capture: Callable[[], Any]
    restore: Callable[[Any], Any]


# Replaced when they change, and never changed: threads read them without a lock.
_arounds: dict[str, tuple[Around, bool]] = {}
_everywhere: tuple[str, ...] = ()
_contexts: dict[str, _Context] = {}
_missing: frozenset[str] = frozenset()  # contexts whose absence was told


# -- what is put around --------------------------------------------------------------------------


def register_around(name: str, factory: Around, everywhere: bool = True) -> None:
    """Let a context manager be entered around each run of a job in this process.

    It is entered in the job's thread and transaction before the task is called, and left behind
    it, before the commit; after a conflict it is entered anew, as the task is called anew.  What
    it raises is what the attempt has failed with.  An error of the task that it swallows counts
    all the same.

    :param name: what it is called; who is registered under the same name before gives way.
    :param factory: called with the `IJob`, to be read, and the `TaskContext`; returns the context
        manager, as functions with `contextlib.contextmanager` do.
    :param everywhere: around the jobs of all services, the first that was registered outermost;
        else around those of services that name it, see `ITaskService.around`.
    :raises InvalidArgument: the name is no text, or the factory cannot be called.

    Transaction: none.
    """
    _check(name, factory=factory)
    _put_arounds({**_arounds, plain(name): (factory, is_true(everywhere, "everywhere"))})


def forget_around(name: str) -> None:
    """Take back `register_around`; nothing happens if it was not called.

    Transaction: none.
    """
    _put_arounds({known: entry for known, entry in _arounds.items() if known != name})


def _put_arounds(arounds: dict[str, tuple[Around, bool]]) -> None:
    global _arounds, _everywhere
    _arounds = arounds
    _everywhere = tuple(name for name, (_, everywhere) in arounds.items() if everywhere)


# -- what travels --------------------------------------------------------------------------------


def register_context(name: str, capture: Callable[[], Any], restore: Callable[[Any], Any]) -> None:
    """Let a value travel with each job that is added in this process, to where it runs.

    :param name: what it is called: the same in all processes; who is registered under the same
        name before gives way.
    :param capture: called without arguments when jobs are added; returns plain data, up to 4,000
        characters of it, or None if there is nothing to take along.  What it raises, ``add`` does.
    :param restore: called with that value around each run of the job; returns a context manager,
        or None.  It is entered around all that `register_around` has registered.
    :raises InvalidArgument: the name is no text, or the functions cannot be called.

    Transaction: none.
    """
    global _contexts
    _check(name, capture=capture, restore=restore)
    _contexts = {**_contexts, plain(name): _Context(capture, restore)}


def forget_context(name: str) -> None:
    """Take back `register_context`; nothing happens if it was not called.

    Transaction: none.
    """
    global _contexts
    _contexts = {known: context for known, context in _contexts.items() if known != name}


def captured() -> dict[str, Any] | None:
    """Return what is to travel with a new job; None is nothing.

    :raises InvalidArgument: a value is no plain data, or too large.
    """
    if not _contexts:
        return None
    values = {}
    for name, context in _contexts.items():
        value = context.capture()
        if value is None:
            continue
        if _room_left(value, MAX_SIZE, MAX_DEPTH) < 0:
            raise InvalidArgument(
                f"the context {name!r} must be plain data of up to {MAX_SIZE} characters, not"
                f" {shown(value)}"
            )
        values[name] = deepcopy(value)  # whoever has given it may go on changing it
    return values or None


def _room_left(value: Any, room: int, depth: int) -> int:
    """Return what is left of some room behind a value; less than 0 if it does not fit."""
    kind = type(value)
    if kind in _SCALARS:
        return room - 8 if kind is not int or abs(value) < 2**63 else -1
    if kind is str or kind is bytes:
        return room - len(value)
    if kind not in (list, tuple, dict) or not depth:
        return -1
    inside = value if kind is not dict else [part for item in value.items() for part in item]
    for part in inside:
        room = _room_left(part, room - 8, depth - 1)
        if room < 0:
            break
    return room


def _check(name: Any, **functions: Any) -> None:
    if not is_kind(name, str) or not plain(name):
        raise InvalidArgument(f"name must be a text, not {shown(name)}")
    for word, function in functions.items():
        if not callable(function):
            raise InvalidArgument(f"{word} must be a callable, not {shown(function)}")


# -- a run -----------------------------------------------------------------------------------------


def has_around(service: Any) -> bool:
    """Say whether something is to be put around all runs of a service."""
    return bool(getattr(service, "around", ()) or _everywhere)  # of another store it has none


def around_of(service: Any, job: Any, carried: dict[str, Any] | None) -> list[Around]:
    """Return what is to be put around a run of a job, from the outermost to the innermost.

    :param carried: what travels with the job.
    :raises RetryLater: the service names what is not registered here.
    """
    if not (carried or has_around(service)):
        return []
    named = read(service, "around") if getattr(service, "around", ()) else ()
    names = dict.fromkeys([*_everywhere, *named])
    factories = _arounds
    for name in names:
        if name not in factories:
            raise RetryLater(MISSING_SECONDS, f"{name!r}, around its jobs, is not registered here")
    return [*_restoring(job, carried or {}), *(factories[name][0] for name in names)]


def _restoring(job: Any, carried: dict[str, Any]) -> list[Around]:
    global _missing
    restoring = []
    for name, value in carried.items():
        context = _contexts.get(name)
        if context is not None:
            restoring.append(_restorer(context, value))
        elif name not in _missing:
            _missing |= {name}
            text = "job %s: its context %r is not registered here; it runs without"
            job_log.warning(text, job.__name__, name)
    return restoring


def _restorer(context: _Context, value: Any) -> Around:
    # A copy each time: what is changed in it must not be stored, nor be seen by a later attempt.
    return lambda job, running: context.restore(deepcopy(value)) or nullcontext()


def call_within(
    arounds: list[Around], job: Any, task: Callable[..., Any], service: Any, input: Any
) -> Any:
    """Call the task of a job with something around it, and return its result."""
    error: BaseException | None = None
    try:
        with ExitStack() as stack:
            context = current_context(service, job.id)
            for around in arounds:
                place = unforked()
                stack.enter_context(place)
                stack.enter_context(around(job, context))
                place.check()  # a child has no part in what is within
            try:
                with unforked():  # what is around it is left once
                    output = task(service, job.id, input)
            except BaseException as raised:
                error = raised
                raise
    except BaseException as last:
        # A conflict stays one, and the storage's fault the storage's, whatever comes behind it.
        is_passing = error is not None and (is_kind(error, TransientError) or is_read_fault(error))
        if error is None or last is error or not is_passing:
            raise
        job_log.warning("job %s: what is around it failed", job.__name__, exc_info=last)
    if error is not None:
        raise error
    return output
