# SPDX-License-Identifier: ZPL-2.1
"""``remotetask demo``: its arguments, and what people and programs see of a run."""

from __future__ import annotations

import argparse
import logging
import shlex
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from zc.lockfile import LockError

from lovely.remotetask.command.demo.door import DOORS, Door
from lovely.remotetask.command.demo.files import File, find_files
from lovely.remotetask.command.demo.work import Plan, Result, opened
from lovely.remotetask.command.output import BY_SIGNAL, DONE, FAILED, Output, set_up_logging
from lovely.remotetask.command.serving import add_place_arguments, make_server
from lovely.remotetask.command.signals import LOOK_SECONDS, Signals
from lovely.remotetask.engine.registry import leave
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.hosts.autostart import start_services

#: If not told otherwise: the directory of the database, and the number of files.
DIRECTORY = "remotetask-demo"
LIMIT = 1500

#: With --web: seconds that running jobs are waited for in the end.
GRACE_SECONDS = 10.0

DESCRIPTION = """\
Indexes the text files under PATH, one job a file, into a catalog in the same database, and
proves that the catalog and the completed jobs agree.  Beside that it shows a delayed job, a
cron job, and a job that is an error; with --door remote job objects, factories, the items of a
scheduler, and a job that is repeated until it can be done.  Run it again, and it goes on where it
was, also after Ctrl-C or kill -9.

examples:
  remotetask demo                      Python's standard library, about 15 seconds
  remotetask demo --door remote        the same by a RemoteProcessor
  remotetask demo --web                with pages to look at in a browser
  remotetask demo ~/src --limit 5000   more files
  remotetask demo . --json | jq .jobs  for programs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask demo`` takes."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        default=sysconfig.get_path("stdlib"),
        help="the directory, or the one file, to index (default: Python's standard library)",
    )
    parser.add_argument(
        "--database",
        metavar="DIR",
        default=DIRECTORY,
        help="the directory of the database; it is made, and kept (default: ./%(default)s)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_positive,
        default=LIMIT,
        help="index no more than N files (default: %(default)s)",
    )
    parser.add_argument(
        "--door",
        choices=sorted(DOORS),
        default="tasks",
        help="tasks: functions in a TaskService; remote: job objects in a RemoteProcessor, which "
        "has a database of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_positive,
        default=1,
        help="run N jobs at a time; in one process more are seldom faster (default: 1)",
    )
    parser.add_argument(
        "--web",
        action="store_true",
        help="serve pages to look at the jobs while it works and afterwards, until Ctrl-C",
    )
    add_place_arguments(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Index text files by jobs, and prove that jobs and catalog agree.

    Transaction: must not run in one; commits.
    """
    set_up_logging(arguments.verbose, package=logging.WARNING, jobs=logging.CRITICAL)
    directory = Path(arguments.database).absolute()
    files = find_files(Path(arguments.path), arguments.limit, directory)
    door = DOORS[arguments.door]
    try:
        with opened(directory, arguments.workers, door) as database, Signals() as signals:
            plan = database.plan(files)
            first = "the first " if len(files) == arguments.limit else ""
            output.tell(f"{first}{len(files)} text files under {arguments.path}: {_in_words(plan)}")
            if not plan.todo and not plan.waiting:
                output.tell("Nothing is new, so no file is indexed in this run.  To see it work:")
                output.tell("  --database DIR, with a new directory, or another PATH")
            output.tell(f"database: {directory}")
            with served(database.db, arguments, output) as server:
                with output.progress("jobs done") as show:
                    result = database.work(plan, signals.wait, show)
                code = _told(files, plan, result, signals, door, arguments, output)
                if server is not None and result.agrees is not None:
                    _stay_open(database.db, server, signals, output)
    except LockError:
        raise RemoteTaskError(
            f"{directory} is in use by another process; --database names another directory"
        ) from None
    return code


@contextmanager
def served(db: Any, arguments: argparse.Namespace, output: Output) -> Iterator[Any]:
    """Serve pages within the block, if that is asked for, and give the server, or None."""
    if not arguments.web:
        yield None
        return
    server = make_server(db, arguments.host, arguments.port, None)
    output.tell(f"pages: {server.url}")
    try:
        yield server
    finally:
        server.stop()


def _stay_open(db: Any, server: Any, signals: Signals, output: Output) -> None:
    """Go on with what comes until a signal does."""
    start_services(db, ["*@*"])
    output.tell(f"\nThe pages stay open, and jobs are worked on: {server.url} (to stop: Ctrl-C)")
    while not signals.wait(LOOK_SECONDS):
        pass
    leave(GRACE_SECONDS)


def _told(
    files: list[File],
    plan: Plan,
    result: Result,
    signals: Signals,
    door: Door,
    arguments: argparse.Namespace,
    output: Output,
) -> int:
    """Tell what has come of a run; return the exit code."""
    output.result(
        {"path": arguments.path, "files": len(files), "jobs_added": len(plan.todo)}
        | {"already_indexed": plan.indexed, "failed_before": plan.failed}
        | {"left_over": plan.waiting, "was_running": plan.running}
        | {"agrees": result.agrees}
        | asdict(result)
    )
    if result.agrees is None:
        output.note(f"Stopped, {result.left} jobs are left.  Go on with:")
        output.note(f"  {arguments.program} {arguments.again}")
        return BY_SIGNAL + (signals.received or 0)
    return _show(result, door, arguments, output)


def _in_words(plan: Plan) -> str:
    parts = [
        (plan.indexed, "indexed already"),
        (plan.failed, "failed before"),
        (plan.waiting, "left over from the run before"),
        (plan.running, "of which were running when it was killed"),
    ]
    return ", ".join([f"{len(plan.todo)} jobs to add"] + [f"{n} {text}" for n, text in parts if n])


def _show(result: Result, door: Door, arguments: argparse.Namespace, output: Output) -> int:
    done = "none: all files had been done before"
    if result.done:
        speed = f"{result.done / result.seconds:.0f} jobs a second"
        done = f"{result.done:,} in {result.seconds:.1f} s, {speed}"
    due = result.next_report and datetime.fromtimestamp(result.next_report, timezone.utc)
    output.table(
        "Jobs of all runs", [(status, f"{count:,}") for status, count in result.jobs.items()]
    )
    output.table(
        "This run",
        [
            ("jobs done", done),
            ("catalog", f"{result.documents:,} files, {result.words:,} words"),
            ("frequent words", ", ".join(result.frequent_words)),
            (
                "next report",
                f"{due:%H:%M} UTC, by {door.reporter}; {result.reports} so far" if due else "none",
            ),
            ("database", f"{result.bytes / 1e6:.1f} MB in {result.database}"),
        ],
    )
    output.tell_list("\nErrors (one file was made to be one)", list(result.errors.values()))
    if result.repeated:
        repeated = [f"{path}\n      after {errors[-1]}" for path, errors in result.repeated.items()]
        output.tell_list("\nRepeated, and completed (one file was made to come late)", repeated)
    output.tell("\nCatalog and completed jobs:")
    for check in result.checks:
        output.tell_list(f"{'WRONG' if check.problems else 'ok   '}  {check.claim}", check.problems)
    if not result.agrees:
        output.note("remotetask: catalog and completed jobs do not agree")
        return FAILED
    uri = f"file://{result.database}"
    output.tell("They agree.\n\nNext:")
    output.tell(f"  {arguments.program} {arguments.again}\n      goes on where this run ended")
    output.tell(
        f"  {arguments.program} run {shlex.quote(uri)} --import lovely.remotetask.command.demo"
    )
    output.tell(f"      lets {door.reporter} report every minute, until Ctrl-C")
    return DONE
