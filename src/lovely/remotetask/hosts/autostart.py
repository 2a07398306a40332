# SPDX-License-Identifier: ZPL-2.1
"""Start services when the database is opened, by patterns from the configuration.

A pattern is ``site@service``: the name of a site in the root object, or its path from there
(``folder/site``), and the name the service is registered under.  ``@service`` is a service of the
root, and ``*`` stands for all: ``site@*``, ``*@service``, ``*@*``.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import transaction
from zope.component import getGlobalSiteManager
from zope.component.interfaces import ISite

from lovely.remotetask.base.site import ROOT_NAME, entered
from lovely.remotetask.engine.registry import is_switched_off
from lovely.remotetask.engine.service import Service
from lovely.remotetask.errors import OldRecord
from lovely.remotetask.interfaces import IService

log = logging.getLogger("lovely.remotetask")

#: The section of the product configuration.
PRODUCT_NAME = "lovely.remotetask"

#: Services that are made later are looked for so often, in seconds.
LOOK_AGAIN_SECONDS = 60.0

#: Set to 0, off, no or false: then nothing is started.  Set to 1, on, yes or true, services are
#: started in processes too that are no server; see `lovely.remotetask.hosts.servers`.
SWITCH = "REMOTETASK_AUTOSTART"


def getAutostartServiceNames() -> list[str]:
    """Return the patterns in the product configuration of Zope or zope.app.

    Transaction: none.
    """
    for read in (_zope_app_configuration, _zope_configuration):
        configuration = read()
        if configuration:
            return split_patterns(configuration.get("autostart", ""))
    return []


def split_patterns(text: str) -> list[str]:
    """Return the patterns in a text where commas stand between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _zope_app_configuration() -> Any:
    try:
        from zope.app.appsetup.product import getProductConfiguration
    except (ImportError, AttributeError):  # zope.app may be a stand-in without submodules
        return None
    return getProductConfiguration(PRODUCT_NAME)


def _zope_configuration() -> Any:
    try:
        from App.config import getConfiguration  # Zope's own
    except ImportError:
        return None
    return getattr(getConfiguration(), "product_config", {}).get(PRODUCT_NAME)


def bootStrapSubscriber(event: Any) -> None:
    """Start the services that the configuration names: for `IDatabaseOpenedWithRoot`.

    What goes wrong is logged; nothing is raised, for that would end the start of Zope.

    Transaction: reads only, through a connection of its own.
    """
    if is_switched_off(SWITCH) or "Zope2" in sys.modules:  # there `hosts.zope` does it
        return
    log.info("handling event IStartRemoteTasksEvent")
    try:
        start_services(event.database, getAutostartServiceNames())
    except Exception:
        log.exception("services could not be started")


def start_services(db: Any, patterns: Iterable[str]) -> int:
    """Start the services that patterns name; return how many were started.

    Transaction: reads only, through a connection of its own.
    """
    connection = db.open(transaction.TransactionManager())
    try:
        return sum(_start_pattern(connection.root(), pattern) for pattern in patterns)
    finally:
        connection.close()


def look_again(
    db: Any, patterns: Iterable[str], seconds: float = LOOK_AGAIN_SECONDS
) -> threading.Event:
    """Start services that patterns name and that are made later, by whatever process.

    A daemon thread looks for them.  What was there when it begins, or was started once, it leaves
    alone.

    :returns: what ends it when it is set.

    Transaction: reads only, through connections of its own.
    """
    ended = threading.Event()
    lookout = _Lookout(db, list(patterns))
    lookout.look(is_first=True)

    def keep_looking() -> None:
        while not ended.wait(seconds):
            lookout.look()

    threading.Thread(target=keep_looking, name="remotetask-lookout", daemon=True).start()
    return ended


class _Lookout:
    """Finds services that were not there before."""

    def __init__(self, db: Any, patterns: list[str]) -> None:
        self._db = db
        self._patterns = patterns
        self._seen: set[tuple[str, bytes]] = set()
        self._is_told = False

    def look(self, is_first: bool = False) -> None:
        """Look once, and start what is new."""
        try:
            connection = self._db.open(transaction.TransactionManager())
            try:
                self._look_through(connection, is_first)
            finally:
                connection.close()
            self._is_told = False
        except Exception as error:  # the database is away, mostly: there is another time
            if not self._is_told:
                log.warning("services that were made meanwhile cannot be looked for: %s", error)
            self._is_told = True

    def _look_through(self, connection: Any, is_first: bool) -> None:
        for match in find_services(connection.root(), self._patterns):
            key = match.service._p_jar.db().database_name, match.service._p_oid
            if key in self._seen:
                continue
            self._seen.add(key)
            if not is_first:
                with entered(match_site(match)):
                    _start(match.service, match.service_name, match.site_name)


def _start_pattern(database_root: Any, pattern: str) -> int:
    site_name, separator, service_name = pattern.partition("@")
    if not separator or not service_name:
        log.error("autostart pattern %s is not of the form site@service", pattern)
        return 0
    try:
        return _start_matching(database_root, pattern, site_name, service_name)
    except Exception:
        log.exception("autostart pattern %s failed", pattern)
        return 0


def _start_matching(database_root: Any, pattern: str, site_name: str, service_name: str) -> int:
    has_star = "*" in (site_name, service_name)
    started = found = 0
    for match in _matching(database_root, site_name, service_name):
        if match.site is None:
            log.error(_why_no_site(database_root, match.site_name), match.site_name)
        elif match.service is not None:
            found += 1
            with entered(match_site(match)):
                started += _start(match.service, match.service_name, match.site_name)
        elif not has_star:
            log.error("service %s on site %s not found", match.service_name, match.site_name)
    if has_star and not found:
        log.warning("no services started by directive %s", pattern)
    return started


def _why_no_site(database_root: Any, site_name: str) -> str:
    root = database_root.get(ROOT_NAME, database_root)
    if _object_at(root, site_name) is None:
        return "site %s not found"
    return "site %s not found: what is there is no site, with a registry of its own"


def names(pattern: str, site_path: str, service_name: str) -> bool:
    """Say whether a pattern names a service; the path of the root is empty."""
    site, separator, service = pattern.partition("@")
    path = site_path.strip("/")
    is_site = site.strip("/") == path or (site == "*" and "/" not in path)
    return bool(separator) and is_site and service in (service_name, "*")


class Match(NamedTuple):
    """What a pattern has led to; ``site`` or ``service`` None is what was not found."""

    site_name: str
    site: Any
    service_name: str
    service: Any


def match_site(match: Match) -> Any:
    """Return the site to enter for a service; None where the root object is none."""
    return match.site if ISite.providedBy(match.site) else None


def find_services(database_root: Any, patterns: Iterable[str]) -> Iterator[Match]:
    """Yield the services that patterns name and that are stored in ZODB, each once.

    Transaction: reads only.
    """
    seen = set()
    for pattern in patterns:
        site_name, _, service_name = pattern.partition("@")
        for match in _matching(database_root, site_name, service_name or "*"):
            if not isinstance(match.service, Service):  # one may keep its jobs elsewhere
                continue
            place = match.service._p_jar, match.service._p_oid  # ids are those of a database
            if place not in seen:
                seen.add(place)
                yield match


def _matching(database_root: Any, site_name: str, service_name: str) -> Iterator[Match]:
    root = database_root.get(ROOT_NAME, database_root)
    for name, site in _sites(root, site_name):
        if site is None:
            yield Match(name, None, service_name, None)
            continue
        services = dict(_services(site, site is root))
        for wanted in sorted(services) if service_name == "*" else [service_name]:
            yield Match(name, site, wanted, services.get(wanted))


def _start(service: Any, service_name: str, site_name: str) -> int:
    try:
        has_started: bool = service.startAll()
    except OldRecord as error:
        text = "service %s on site %s could not be started: %s"
        log.error(text, service_name, site_name, error)
        return 0
    except Exception:
        log.exception("service %s on site %s could not be started", service_name, site_name)
        return 0
    if has_started:
        log.info("service %s on site %s started", service_name, site_name)
    return int(has_started)


def _sites(root: Any, site_name: str) -> Iterator[tuple[str, Any]]:
    if site_name == "":
        yield "root", root
    elif site_name == "*":
        yield "root", root
        for name, candidate in root.items():
            if ISite.providedBy(candidate):
                yield name, candidate
    else:
        site = _object_at(root, site_name)
        yield site_name, site if ISite.providedBy(site) else None


def _object_at(root: Any, path: str) -> Any:
    """Return what lies at a path below the root object, or None."""
    found = root
    for name in path.strip("/").split("/"):
        get = getattr(found, "get", None)
        found = None if get is None else get(name)
        if found is None:
            return None
    return found


def _services(site: Any, is_root: bool) -> Iterator[tuple[str, Any]]:
    """Yield the services that are registered in a site: (name, service)."""
    if is_root:
        # The root object need be no site; what is global belongs to it.
        yield from _registered(getGlobalSiteManager())
        if not hasattr(site, "__parent__"):  # the root mapping of a plain script
            for name, value in site.items():
                if IService.providedBy(value):
                    yield name, value
    if ISite.providedBy(site):
        yield from _registered(site.getSiteManager())


def _registered(registry: Any) -> Iterator[tuple[str, Any]]:
    for registration in registry.registeredUtilities():
        if registration.provided.isOrExtends(IService):
            service = registry.queryUtility(registration.provided, name=registration.name)
            if service is not None:
                yield registration.name, service
