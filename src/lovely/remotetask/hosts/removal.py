# SPDX-License-Identifier: ZPL-2.1
"""Take out of a database what cannot be read without this package.

These are the services, and their registrations: a registry that names an interface which cannot be
imported any more cannot be loaded, nor can its site.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from operator import delitem
from typing import Any, NamedTuple

from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import get_pickle_metadata, z64
from zope.component.interfaces import ISite

from lovely.remotetask.base.site import ROOT_NAME
from lovely.remotetask.interfaces import IService

PACKAGE = "lovely.remotetask"


class Place(NamedTuple):
    """Where something stands that needs the package.

    :ivar text: the place, for people.
    :ivar thing: what stands there.
    :ivar clear: takes it out.
    """

    text: str
    thing: Any
    clear: Callable[[], Any]


def find_places(database_root: Any, services: Iterable[Any] | None = None) -> list[Place]:
    """Return all places of services: keys, containers, and registrations in sites.

    :param services: only the places of these; None are all places where the package is needed, also
        those of tasks.

    Transaction: reads only.
    """
    wanted = None if services is None else list(services)
    found = [
        *_keys(database_root),
        *(
            place
            for site, title in _sites(database_root)
            for place in _registered(site, title, wanted is None)
        ),
    ]
    if wanted is not None:
        found = [place for place in found if any(place.thing is one for one in wanted)]
    things: list[Any] = []
    for place in found:
        if not any(place.thing is one for one in things):
            things.append(place.thing)
    # Registrations first: a container may want to know what is still registered.
    return [*reversed(found), *(place for thing in things for place in _contained(thing))]


def _keys(database_root: Any) -> Iterator[Place]:
    for name, value in list(database_root.items()):
        if IService.providedBy(value):
            yield Place(f"{name} in the root", value, partial(delitem, database_root, name))


def _sites(database_root: Any) -> Iterator[tuple[Any, str]]:
    """Yield the sites where services are looked for, and their names."""
    root = database_root.get(ROOT_NAME, database_root)
    if ISite.providedBy(root):
        yield root, "root"
    for name, candidate in root.items():
        if ISite.providedBy(candidate):
            yield candidate, name


def _registered(site: Any, title: str, is_all: bool) -> Iterator[Place]:
    registry = site.getSiteManager()
    for each in list(registry.registeredUtilities()):
        if _needs_package(each.provided) or _is_ours(type(each.component)):
            text = f"{each.provided.__name__} {each.name!r}, registered in the site {title}"
            yield Place(text, each.component, partial(_unregister, registry, each, is_all))


def _unregister(registry: Any, each: Any, is_all: bool) -> None:
    registry.unregisterUtility(each.component, each.provided, each.name)
    if is_all:
        # A component that is not persistent is a copy of its own wherever it is stored, and what is
        # no copy of the same is not found there.
        for required, provided, value in list(registry.utilities.allSubscriptions()):
            if provided is each.provided:
                registry.utilities.unsubscribe(required, provided, value)


def _contained(thing: Any) -> Iterator[Place]:
    """Yield the place of a thing in its container, unless that is the root."""
    parent, name = getattr(thing, "__parent__", None), getattr(thing, "__name__", None)
    if parent is None or not name or getattr(parent, "_p_oid", z64) == z64:
        return
    with suppress(Exception):  # whatever somebody's container raises
        if parent[name] is thing:
            yield Place(
                f"{name} in a {type(parent).__name__}", thing, partial(delitem, parent, name)
            )


def _needs_package(interface: Any) -> bool:
    return any(_is_ours(each) for each in interface.__iro__)


def _is_ours(named: Any) -> bool:
    module: str = named.__module__
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


# -- what is left ------------------------------------------------------------------------------


class Left(NamedTuple):
    """An object that cannot be read in full without the package.

    :ivar oid: its object id.
    :ivar kind: its class.
    :ivar needs: the names of the package that stand in it.
    """

    oid: int
    kind: str
    needs: list[str]


def find_left(db: Any, tell: Callable[[int], Any] = lambda count: None) -> Iterator[Left]:
    """Look through all that the root leads to, in this database alone, for names of the package.

    Nothing is made of what is loaded, so it needs no class; it takes a while.

    :param tell: called with the number of the objects that were looked at, now and then.

    Transaction: none; what was committed when it began.
    """
    storage = db._mvcc_storage.new_instance()
    try:
        storage.poll_invalidations()
        seen, todo = {z64}, [z64]
        while todo:
            oid = todo.pop()
            try:
                data, _ = storage.load(oid)
            except POSKeyError:  # it was missing before
                continue
            if names := _names(data):
                kind = ".".join(get_pickle_metadata(data))
                yield Left(int.from_bytes(oid, "big"), kind, names)
            new = set(referencesf(data)) - seen
            seen |= new
            todo += new
            tell(len(seen) - len(todo))
    finally:
        storage.release()


def _names(data: bytes) -> list[str]:
    """Return what a record needs of the package: names that are to be imported."""
    if PACKAGE.encode() not in data:
        return []
    names = set()
    stream = BytesIO(data)
    for _ in ("class", "state"):
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL" and str(argument).startswith((f"{PACKAGE} ", f"{PACKAGE}.")):
                names.add(str(argument).replace(" ", "."))
    return sorted(names)
