# SPDX-License-Identifier: ZPL-2.1
"""Start services when the database is opened, by patterns from the configuration.

A pattern is ``site@service``: the name of a site in the root object, or its path from there
(``folder/site``), and the name the service is registered under.  ``@service`` is a service of the
root, and ``*`` stands for all: ``site@*``, ``*@service``, ``*@*``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import transaction
from zope.component import getGlobalSiteManager
from zope.component.interfaces import ISite

from lovely.remotetask.base.site import ROOT_NAME, entered
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.registry import is_switched_off
from lovely.remotetask.engine.service import Service
from lovely.remotetask.errors import OldRecord
from lovely.remotetask.hosts.lookout import Lookout
from lovely.remotetask.interfaces import IService
from lovely.remotetask.setting import MAX_THREADS

log = logging.getLogger("lovely.remotetask")

#: The section of the product configuration.
PRODUCT_NAME = "lovely.remotetask"


#: Set to 0, off, no or false: then nothing is started.  Set to 1, on, yes or true, services are
#: started in processes too that are no server; see `lovely.remotetask.hosts.servers`.
SWITCH = "REMOTETASK_AUTOSTART"


def getAutostartServiceNames() -> list[str]:
    """Return the patterns in the product configuration of Zope or zope.app.

    Transaction: none.
    """
    return split_patterns(_configuration().get("autostart", ""))


def use_configured_threads() -> None:
    """Let services that start from now on have the threads that the product configuration says.

    What makes no sense is logged.

    Transaction: none.
    """
    text = _configuration().get("threads")
    if text is None:
        return
    if text.isdecimal() and 1 <= int(text) <= MAX_THREADS:
        registry.threads = int(text)
    else:
        log.error("threads in the product configuration must be 1 to %s: %s", MAX_THREADS, text)


def _configuration() -> Any:
    return _zope_app_configuration() or _zope_configuration() or {}


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
    patterns = getAutostartServiceNames()
    known: set[Any] = set()
    use_configured_threads()
    try:
        start_services(event.database, patterns, known)
        if patterns:
            look_out(event.database, patterns, known)
    except Exception:
        log.exception("services could not be started")


def start_services(db: Any, patterns: Iterable[str], known: set[Any] | None = None) -> int:
    """Start the services that patterns name; return how many were started.

    :param known: those that are found come to it: see `start_new_services`.

    Transaction: reads only, through a connection of its own.
    """
    known = set() if known is None else known
    connection = db.open(transaction.TransactionManager())
    try:
        return sum(_start_pattern(connection.root(), pattern, known) for pattern in patterns)
    finally:
        connection.close()


def _start_pattern(database_root: Any, pattern: str, known: set[Any]) -> int:
    site_name, separator, service_name = pattern.partition("@")
    if not separator or not service_name:
        log.error("autostart pattern %s is not of the form site@service", pattern)
        return 0
    try:
        return _start_matching(database_root, pattern, site_name, service_name, known)
    except Exception:
        log.exception("autostart pattern %s failed", pattern)
        return 0


def _start_matching(
    database_root: Any, pattern: str, site_name: str, service_name: str, known: set[Any]
) -> int:
    has_star = "*" in (site_name, service_name)
    started = found = 0
    for match in _matching(database_root, site_name, service_name):
        if match.site is None:
            log.error(_why_no_site(database_root, match.site_name), match.site_name)
        elif match.service is not None:
            found += 1
            known.add(_place(match.service))
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


def start_new_services(db: Any, patterns: Iterable[str], known: set[Any]) -> int:
    """Start the services that patterns name, but for those that are known; return how many.

    What patterns do not lead to is not logged: it is looked for again and again.

    :param known: what tells services that need no start; those that are found come to it.

    Transaction: reads only, through a connection of its own.
    """
    connection = db.open(transaction.TransactionManager())
    started = 0
    try:
        for match in find_all_services(connection.root(), patterns):
            place = _place(match.service)
            if place not in known:
                known.add(place)
                with entered(match_site(match)):
                    started += _start(match.service, match.service_name, match.site_name)
        return started
    finally:
        connection.close()


def look_out(db: Any, patterns: list[str], known: set[Any]) -> Lookout:
    """Start the services that patterns name also when they are made later; return who does it.

    :param known: see `start_new_services`.

    Transaction: each look reads only, through a connection of its own.
    """
    lookout = Lookout(db, partial(start_new_services, db, patterns, known))
    lookout.start()
    return lookout


def find_services(database_root: Any, patterns: Iterable[str]) -> Iterator[Match]:
    """Yield the services that patterns name and that keep their jobs in ZODB, each once.

    Transaction: reads only.
    """
    for match in find_all_services(database_root, patterns):
        if isinstance(match.service, Service):
            yield match


def find_all_services(database_root: Any, patterns: Iterable[str]) -> Iterator[Match]:
    """Yield the services that patterns name, wherever they keep their jobs, each once.

    Transaction: reads only.
    """
    seen = set()
    for pattern in patterns:
        site_name, _, service_name = pattern.partition("@")
        for match in _matching(database_root, site_name, service_name or "*"):
            if match.service is not None and (place := _place(match.service)) not in seen:
                seen.add(place)
                yield match


def _place(service: Any) -> Any:
    """Return what tells a service from all others, whatever connection it belongs to."""
    jar = getattr(service, "_p_jar", None)
    return id(service) if jar is None else (jar.db(), service._p_oid)


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
