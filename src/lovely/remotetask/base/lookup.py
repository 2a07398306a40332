# SPDX-License-Identifier: ZPL-2.1
"""Utilities of the current site and of the global registry, by interface and name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.component import getGlobalSiteManager, getSiteManager
from zope.interface.interfaces import ComponentLookupError


def available(interface: Any) -> dict[str, Any]:
    """Return all tasks that can be looked up from the current site: name -> task."""
    return {
        name: task
        for registry in reversed(_registries())
        for name, task in registry.getUtilitiesFor(interface)
    }


def look_up(interface: Any, name: str) -> Any:
    """Return the task with this name, or None."""
    for registry in _registries():
        task = registry.queryUtility(interface, name=name)
        if task is not None:
            return task
    return None


def _registries() -> list[Any]:
    """The registry of the current site, and the global one, which knows every `task`.

    Where another framework has put its own registry in the place of the current one
    (Pyramid's ``hook_zca`` does), that knows nothing of the global one.
    """
    registries = [getGlobalSiteManager()]
    try:
        current = getSiteManager()
    except ComponentLookupError:
        return registries
    return registries if current is registries[0] else [current, *registries]


class Tasks:
    """The tasks that are registered here, looked up once for a claim.

    :param find: returns the task with a name, or None.
    """

    def __init__(self, find: Callable[[str], Any]) -> None:
        self._find = find
        self._found: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """Return the task with this name, or None."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def knows(self, name: str) -> bool:
        """Say whether there is a task with this name."""
        return self.get(name) is not None
