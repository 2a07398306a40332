# SPDX-License-Identifier: ZPL-2.1
"""Find the site around an object and enter it, find objects by path, and a job's service.

A plain script has no sites and no located objects; then there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from ZODB.POSException import POSKeyError
from zope.component.hooks import getSite, setHooks, setSite, siteinfo
from zope.component.interfaces import ISite

#: Where Zope keeps its root object in the root of the database.
ROOT_NAME = "Application"

#: The path element of a site's registry.
SITE_MANAGER_NAME = "++etc++site"


#: The services in this process, by `id`, whatever their connections.
_services: WeakValueDictionary[int, Any] = WeakValueDictionary()

#: Object ids of services that were loaded, by database: one that nobody holds is found again.
_oids: WeakKeyDictionary[Any, set[bytes]] = WeakKeyDictionary()


class ServicePath(list[str]):
    """The names that lead from the root object to a service.

    One that was made by `path_to` also knows the service itself, and the site around it:
    objects are found by oid then, whatever their names.

    :ivar oid: the object id of the service, or None.
    :ivar site_oid: the object id of the site around it, or None.
    :ivar site_database: the name of the database the site is in, which may be another one.
    :ivar is_reachable: whether the names led to the service; then it is gone when no names
        do any more.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        oid: bytes | None = None,
        site_oid: bytes | None = None,
        is_reachable: bool = False,
        site_database: str | None = None,
    ) -> None:
        super().__init__(names)
        self.oid = oid
        self.site_oid = site_oid
        self.site_database = site_database
        self.is_reachable = is_reachable


def path_to(service: Any) -> ServicePath:
    """Return the path of a service that is in a database.

    Transaction: reads only.
    """
    site = site_of(service)
    if site is None:  # not `or`: a site may be a container, and empty
        site = getSite()
    is_found = _can_reach(service, site)
    return ServicePath(
        _names(service),
        service._p_oid,
        site._p_oid if is_found else None,
        is_reachable(service),
        site._p_jar.db().database_name if is_found else None,
    )


def is_reachable(service: Any) -> bool:
    """Say whether names lead from the root to a service that is in a database.

    Transaction: reads only.
    """
    database_root = service._p_jar.root()
    try:
        return traverse(database_root.get(ROOT_NAME, database_root), _names(service)) is service
    except (KeyError, AttributeError, TypeError):
        return False


def site_of(context: Any) -> Any:
    """Return the nearest site around an object, or None."""
    while context is not None:
        if ISite.providedBy(context):
            return context
        context = getattr(context, "__parent__", None)
    return None


def _can_reach(service: Any, site: Any) -> bool:
    """Say whether a connection to the database of the service leads to a site too."""
    jar = getattr(site, "_p_jar", None)
    if jar is None:
        return False
    databases = service._p_jar.db().databases
    return databases.get(jar.db().database_name) is jar.db()


def _names(service: Any) -> list[str]:
    names: list[str] = []
    context = service
    while context is not None and getattr(context, "__name__", None):
        names.insert(0, str(context.__name__))
        context = getattr(context, "__parent__", None)
    if names:
        return names
    for name, value in service._p_jar.root().items():
        if value is service:
            return [str(name)]
    return [f"oid-{int.from_bytes(service._p_oid, 'big'):#x}"]


def traverse(root: Any, names: Iterable[str]) -> Any:
    """Follow names from the root object.

    :raises KeyError: there is no such object.

    Transaction: reads only.
    """
    current = root
    for name in names:
        if name == SITE_MANAGER_NAME:
            current = current.getSiteManager()
        else:
            current = current[name]
    return current


def entered(site: Any) -> AbstractContextManager[None]:
    """Make `site` the current one; None leaves it as it is."""
    return nullcontext() if site is None else _entered(site)


@contextmanager
def _entered(site: Any) -> Iterator[None]:
    setHooks()  # where nobody has, look-ups would not notice the site
    # Not by `setSite`, which asks the site for its registry: it may be one whose connection
    # was closed meanwhile.
    current = vars(siteinfo)  # of this thread
    before = current.copy()
    setSite(site)
    try:
        yield
    finally:
        current.clear()
        current.update(before)


# -- the service of a job ----------------------------------------------------------------------


def note_service(service: Any) -> None:
    """Let the jobs of a service find it; again when it is loaded."""
    _services[id(service)] = service
    if service._p_oid is not None:
        _oids.setdefault(service._p_jar.db(), set()).add(service._p_oid)


def service_of(job: Any) -> Any:
    """Return the service that holds a job, or None.

    Nothing of it is stored: the few services that there are are asked.

    Transaction: reads only.
    """
    services = [service for ref in _services.valuerefs() if (service := ref()) is not None]
    jar = job._p_jar
    if jar is None:
        # Of the class, so that nothing is loaded: it may be the service of another thread.
        return next((s for s in services if type(s).holds_new(s, job)), None)
    # Those of other connections too: one that is new there was never loaded.
    jars = [(service._p_oid, service._p_jar) for service in services]
    oids = {oid for oid, other in jars if other is not None and other.db() is jar.db()}
    for oid in oids.union(list(_oids.get(jar.db(), ()))):
        with suppress(POSKeyError):  # it was removed, and packed away
            service = jar.get(oid)
            if service.jobs.get(job.id) is job:
                return service
    return None
