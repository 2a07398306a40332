# SPDX-License-Identifier: ZPL-2.1
"""``remotetask uninstall``: takes services out of a database."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

import transaction

from lovely.remotetask.command.asking import add_yes_argument, is_agreed
from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import DONE, FAILED, Output
from lovely.remotetask.command.services import check_readable, names_of, title_of, why_none
from lovely.remotetask.command.sql import THE_TRIGGER, adapter_to_notify
from lovely.remotetask.engine import trigger
from lovely.remotetask.engine.service import Service
from lovely.remotetask.errors import OldRecord, RemoteTaskError
from lovely.remotetask.hosts.autostart import Match, find_all_services, split_patterns
from lovely.remotetask.hosts.removal import find_left, find_places
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.store.count import count_jobs
from lovely.remotetask.store.worker import list_workers
from lovely.remotetask.web.batches import TRIES

#: All services, and all else that needs the package.
ALL = "*@*"

DESCRIPTION = """\
Takes services out of a database with all their jobs, and their registrations out of the sites, so
that it can be read without this package.  It tells what still waits in them, and asks.  Then it
looks through the whole database for what else needs the package: exit code 1 tells of that.  Stop
the processes that work on the services first.

Who takes all services out of RelStorage on PostgreSQL takes out what 'remotetask init --notify' has
made there, too; --notify takes out this alone.

examples:
  remotetask uninstall Data.fs --dry-run
  remotetask uninstall zeo://localhost:8100 Plone@mail
  remotetask uninstall zeo://localhost:8100 --yes
  remotetask uninstall postgresql://shop@localhost/shop --notify
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask uninstall`` takes."""
    parser.description = DESCRIPTION
    add_database_arguments(parser)
    parser.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        default=ALL,
        help="the name of a service in the root, or a site@service pattern (default: all "
        "services, and all registrations that need the package)",
    )
    parser.add_argument(
        "--notify",
        action="store_true",
        help="take out the trigger alone that wakes idle workers; they ask for new jobs again",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only tell")
    add_yes_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Take services out of a database.

    Transaction: must not run in one; commits.
    """
    import_modules(arguments.modules)
    db = open_database(arguments.uri)
    try:
        if arguments.notify:
            return _drop_trigger(adapter_to_notify(db), arguments, output)
        return _uninstall(db, arguments, output)
    finally:
        close_database(db)


def _drop_trigger(adapter: Any, arguments: argparse.Namespace, output: Output) -> int:
    is_there = trigger.has_trigger(adapter)
    shown = without_password(arguments.uri)
    places = [THE_TRIGGER] if is_there else []
    output.tell_list(f"To be taken out of {shown}:", places or ["nothing"])
    is_removed = not arguments.dry_run and trigger.remove(adapter)
    if is_removed:
        output.tell("Taken out.  Idle workers ask for new jobs.")
    output.result({"services": [], "places": places, "removed": is_removed, "left": None})
    return DONE


def _uninstall(db: Any, arguments: argparse.Namespace, output: Output) -> int:
    shown = without_password(arguments.uri)
    pattern = arguments.service if "@" in arguments.service else f"@{arguments.service}"
    manager = transaction.TransactionManager()
    root = db.open(manager).root()
    check_readable(root)
    adapter = trigger.adapter_of(db.storage) if pattern == ALL else None
    has_trigger = adapter is not None and trigger.has_trigger(adapter)
    services, places = _found(root, pattern)
    told: dict[str, Any] = {
        "services": [_told_of(match) for match in services],
        "places": [*(place.text for place in places), *([THE_TRIGGER] if has_trigger else [])],
    }
    if not places and pattern != ALL:
        raise RemoteTaskError(why_none(root, arguments.uri, pattern))
    for match in services:
        output.tell(f"{title_of(match)}: {_in_words(_told_of(match))}")
    output.tell_list(f"To be taken out of {shown}:", told["places"] or ["nothing"])
    if arguments.dry_run:
        output.result({**told, "removed": False, "left": None})
        return DONE
    if told["places"] and not is_agreed(
        f"Take {len(services)} service(s) out for good?", arguments.yes
    ):
        output.note("remotetask: nothing was taken out")
        return FAILED
    for attempt in manager.attempts(TRIES):
        with attempt:
            for place in _found(root, pattern)[1]:
                place.clear()
    if has_trigger:
        root._p_jar.close()  # what has read a table keeps others from changing it
        trigger.remove(adapter)
    if pattern != ALL:
        output.tell("Taken out.")
        output.result({**told, "removed": True, "left": None})
        return DONE
    return _tell_left(db, told, output)


def _found(root: Any, pattern: str) -> tuple[list[Match], list[Any]]:
    """Return the services that a pattern names, and the places to clear."""
    services = list(find_all_services(root, split_patterns(pattern)))
    services = [match for match in services if getattr(match.service, "_p_jar", None) is not None]
    named = None if pattern == ALL else [match.service for match in services]
    return services, find_places(root, named)


def _told_of(match: Match) -> dict[str, Any]:
    told: dict[str, Any] = {**names_of(match), "jobs": None, "workers": None}
    if isinstance(match.service, Service):
        with suppress(OldRecord):  # such a service can be taken out, but not read
            told["jobs"] = count_jobs(match.service)
            told["workers"] = len(list_workers(match.service))
    return told


def _in_words(told: dict[str, Any]) -> str:
    if told["jobs"] is None:
        return "its jobs cannot be counted here: they are in another store, or those of 0.5"
    waiting = [
        f"{count:,} {status}"
        for status, count in told["jobs"].items()
        if count and status not in FINAL_STATUSES
    ]
    ended = sum(told["jobs"][status] for status in FINAL_STATUSES)
    workers = f"; {told['workers']} worker(s) hold jobs of it" if told["workers"] else ""
    return f"{', '.join(waiting) or 'no jobs wait'}, {ended:,} have ended{workers}"


def _tell_left(db: Any, told: dict[str, Any], output: Output) -> int:
    """Look through the database for what else needs the package, and tell it."""
    with output.progress("objects looked at") as show:
        left = list(find_left(db, lambda count: show(count, 0)))
    output.result({**told, "removed": True, "left": [one._asdict() for one in left]})
    if not left:
        output.tell("Taken out.  Nothing in the database needs lovely.remotetask any more.")
        output.tell("Pack the database, and remove the package.")
        return DONE
    lines = [f"{one.kind} (oid {one.oid:#x}): {', '.join(one.needs)}" for one in left]
    output.tell_list("Taken out.  These objects still need lovely.remotetask:", lines)
    return FAILED
