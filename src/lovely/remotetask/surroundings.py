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

Result = TypeVar("Result")


def call_apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function, and give the thread back as it was, whatever the function does to it.

    Of libraries that nobody has imported nothing is kept, so they are not needed.  Context
    variables, and with them the decimal context, are those of a copy.
    """
    modules = sys.modules
    thread = threading.get_ident()
    kept = []
    entries = []
    stacks = []
    missing = []  # what another thread is just importing too
    for name, attribute in LOCALS:
        local = getattr(modules.get(name), attribute, None)
        if local is None:
            missing.append((name, attribute))
        else:
            values = local.__dict__  # of this thread alone
            kept.append((values, values.copy()))
    for name, attribute in BY_THREAD:
        by_thread = getattr(modules.get(name), attribute, None)
        if by_thread is None:
            missing.append((name, attribute))
        else:
            entries.append((by_thread, by_thread.get(thread)))
    for name, attribute in STACKS:
        manager = getattr(modules.get(name), attribute, None)
        if manager is None:
            missing.append((name, attribute))
        else:
            stacks.append((manager.stack, manager.stack.copy()))
    try:
        return copy_context().run(_call, function, arguments)
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
        for name, attribute in missing:
            if name in modules:  # by now
                _empty(getattr(modules[name], attribute, None))


def _empty(place: Any) -> None:
    """Take out what is there of this thread."""
    if isinstance(place, dict):
        place.pop(threading.get_ident(), None)
    elif hasattr(place, "stack"):
        place.stack.clear()
    elif place is not None:
        place.__dict__.clear()


def _call(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    # The copy of a context has the decimal context itself, not a copy of it.
    decimal.setcontext(decimal.getcontext().copy())
    return function(*arguments)
