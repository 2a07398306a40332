# SPDX-License-Identifier: ZPL-2.1
"""What is current in a thread: the site, the interaction, the request, the user, ...

A task may change all that, and the job that follows in the thread, or the caller of an inline
run, must not find it changed.
"""

from __future__ import annotations

import decimal
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from lovely.remotetask.base.forking import unforked

#: Where libraries keep it, as (module, attribute): a `threading.local`,
LOCALS = (
    ("zope.component.hooks", "siteinfo"),
    ("zope.security._definitions", "thread_local"),  # the interaction
    ("zope.globalrequest.local", "localData"),
)
#: a dict with the ids of threads,
BY_THREAD = (
    ("AccessControl.SecurityManagement", "_managers"),
    ("Products.CMFCore.Skinnable", "SKINDATA"),
)
#: or the ``stack`` of a `threading.local`.
STACKS = (("pyramid.threadlocal", "manager"),)

_MODULES = [name for name, _ in (*LOCALS, *BY_THREAD, *STACKS)]

Result = TypeVar("Result")


class _Places:
    """The places that there are, as long as no other modules are imported.

    Of libraries that nobody has imported nothing is kept, so they are not needed.
    """

    def __init__(self, modules: list[Any]) -> None:
        self.modules = modules
        self.missing: list[tuple[str, str]] = []  # what another thread is just importing too
        self.locals = self._found(LOCALS)
        self.by_thread = self._found(BY_THREAD)
        self.stacks = self._found(STACKS)

    def _found(self, places: tuple[tuple[str, str], ...]) -> list[Any]:
        found = []
        for name, attribute in places:
            place = getattr(sys.modules.get(name), attribute, None)
            if place is None:
                self.missing.append((name, attribute))
            else:
                found.append(place)
        return found

    @property
    def is_whole(self) -> bool:
        """Say whether none of the modules is just being imported."""
        return all(name not in sys.modules for name, _ in self.missing)


_places = _Places([None])


def _places_now() -> _Places:
    global _places
    modules = [*map(sys.modules.get, _MODULES)]
    if _places.modules == modules:
        return _places
    places = _Places(modules)
    if places.is_whole:
        _places = places
    return places


def call_isolated(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function, and give the thread back as it was, whatever the function does to it.

    Context variables, and with them the decimal context, are those of a copy.  A child process that
    it forks does not come back.
    """
    places = _places_now()
    thread = threading.get_ident()
    kept = []
    entries = []
    stacks = []
    for local in places.locals:
        values = local.__dict__  # of this thread alone
        kept.append((values, values.copy()))
    for by_thread in places.by_thread:
        entries.append((by_thread, by_thread.get(thread)))
    for manager in places.stacks:
        stacks.append((manager.stack, manager.stack.copy()))
    context = copy_context()
    try:
        if len(context):  # else it gets a decimal context of its own when it asks for one
            context.run(_copy_decimal_context)
        with unforked():
            return context.run(function, *arguments)
    finally:
        for values, before in kept:
            values.clear()
            values.update(before)
        for by_thread, entry in entries:
            if entry is None:
                by_thread.pop(thread, None)
            else:
                by_thread[thread] = entry
        for stack, items in stacks:
            stack[:] = items
        for name, attribute in places.missing:
            if name in sys.modules:  # by now
                _empty(getattr(sys.modules[name], attribute, None))


def _empty(place: Any) -> None:
    """Take out what is there of this thread."""
    if isinstance(place, dict):
        place.pop(threading.get_ident(), None)
    elif hasattr(place, "stack"):
        place.stack.clear()
    elif place is not None:
        place.__dict__.clear()


def _copy_decimal_context() -> None:
    # The copy of a context has the decimal context itself, not a copy of it.
    decimal.setcontext(decimal.getcontext().copy())
