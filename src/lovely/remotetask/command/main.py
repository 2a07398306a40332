# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``.

A command is one function of the arguments and the `Screen` that returns an exit code, and
one line of the table `COMMANDS`.  Results go to stdout, as JSON if that is asked for; all
else goes to stderr.  Exit codes: 0 done, 1 failed, 2 the command line is wrong, 128 + n
ended by signal n.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import select
import shlex
import shutil
import signal
import socket
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import transaction
from zc.lockfile import LockError

from lovely.remotetask.command.database import (
    add_database_arguments,
    close_database,
    describe_kind,
    import_modules,
    open_database,
    without_password,
)
from lovely.remotetask.command.output import (
    Screen,
    complain,
    give_up_broken_streams,
    replace_closed_streams,
    say,
    set_up_logging,
)
from lovely.remotetask.command.upkeep import (
    add_add_arguments,
    add_check_arguments,
    add_clean_arguments,
    add_job,
    check_services,
    clean_services,
)
from lovely.remotetask.engine.registry import ECHO_SECONDS, leave
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError
from lovely.remotetask.hosts.autostart import find_services, split_patterns, start_services

if TYPE_CHECKING:
    from lovely.remotetask.command.demo import Plan, Result

DONE, FAILED, WRONG_USAGE = 0, 1, 2
BY_SIGNAL = 128

#: Seconds between two looks whether a signal came: on Windows none of them ends a `select`.
LOOK_SECONDS = 1.0

#: ``remotetask demo``, if not told otherwise: the directory, and the number of files.
DEMO_DIRECTORY = "remotetask-demo"
DEMO_LIMIT = 1500


class Signals:
    """Takes SIGINT, SIGTERM, SIGHUP and SIGQUIT in a ``with`` block.

    The first one asks the command to stop, the second one ends the process on the spot.

    :ivar received: the number of the first one, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}
        # Not an Event: a handler that sets it while the same thread is about to wait for it
        # would wait for itself.  Nor a SimpleQueue: in Python 3.10 a `get` whose timeout is
        # over can wait for ever.
        self._bell, self._ear = socket.socketpair()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *_hangups()):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._bell.close()
        self._ear.close()

    def _receive(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = number
            self._since = time.monotonic()
            self._bell.send(b"!")
        elif time.monotonic() - self._since > ECHO_SECONDS:
            _leave_now(BY_SIGNAL + number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a signal; say whether one has come.

        :param seconds: wait no longer than this; None waits for ever.
        """
        select.select([self._ear], [], [], seconds)
        return self.received is not None


def _hangups() -> list[int]:
    # Not all platforms have them; and ``nohup`` has them ignored.
    numbers = [getattr(signal, name, None) for name in ("SIGHUP", "SIGQUIT")]
    return [n for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN]


def _leave_now(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(RuntimeError, OSError, ValueError):  # the signal came amid a print
            stream.flush()
    os._exit(code)


# -- remotetask demo ----------------------------------------------------------------------


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
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
        default=DEMO_DIRECTORY,
        help="the directory of the database; it is made, and kept (default: ./%(default)s)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_positive,
        default=DEMO_LIMIT,
        help="index no more than N files (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_positive,
        default=1,
        help="run N jobs at a time; in one process more are seldom faster (default: 1)",
    )


def run_demo(arguments: argparse.Namespace, screen: Screen) -> int:
    """Index text files by jobs, and prove that jobs and catalog agree.

    Transaction: must not run in one; commits.
    """
    # Not at the top: importing it registers its tasks, which no other command needs.
    from lovely.remotetask.command import demo

    set_up_logging(arguments.verbose, package=logging.WARNING, jobs=logging.CRITICAL)
    directory = Path(arguments.database).absolute()
    files = demo.find_files(Path(arguments.path), arguments.limit, directory)
    try:
        with demo.opened(directory, arguments.workers) as database, Signals() as signals:
            plan = database.plan(files)
            screen.tell(f"{len(files)} text files under {arguments.path}: {_in_words(plan)}")
            screen.tell(f"database: {directory}")
            with screen.progress("jobs done") as show:
                result = database.work(plan, signals.wait, show)
    except LockError:
        raise RemoteTaskError(
            f"{directory} is in use by another process; --database names another directory"
        ) from None
    screen.result(
        {"path": arguments.path, "files": len(files), "jobs_added": len(plan.todo)}
        | {"already_indexed": plan.indexed, "failed_before": plan.failed}
        | {"left_over": plan.waiting, "was_running": plan.running}
        | {"agrees": result.agrees}
        | asdict(result)
    )
    if result.agrees is None:
        screen.note(f"Stopped, {result.left} jobs are left.  Go on with:")
        screen.note(f"  {arguments.program} {arguments.again}")
        return BY_SIGNAL + (signals.received or 0)
    return _show_demo(result, arguments, screen)


def _in_words(plan: Plan) -> str:
    parts = [
        (plan.indexed, "indexed already"),
        (plan.failed, "failed before"),
        (plan.waiting, "left over from the run before"),
        (plan.running, "of which were running when it was killed"),
    ]
    return ", ".join([f"{len(plan.todo)} jobs to add"] + [f"{n} {text}" for n, text in parts if n])


def _show_demo(result: Result, arguments: argparse.Namespace, screen: Screen) -> int:
    speed = f", {result.done / result.seconds:.0f} jobs a second" if result.done else ""
    due = result.next_report and datetime.fromtimestamp(result.next_report, timezone.utc)
    screen.table("Jobs", [(status, f"{count:,}") for status, count in result.jobs.items()])
    screen.table(
        "This run",
        [
            ("jobs done", f"{result.done:,} in {result.seconds:.1f} s{speed}"),
            ("catalog", f"{result.documents:,} files, {result.words:,} words"),
            ("frequent words", ", ".join(result.frequent_words)),
            (
                "next report",
                f"{due:%H:%M} UTC, by a cron job; {result.reports} so far" if due else "none",
            ),
            ("database", f"{result.bytes / 1e6:.1f} MB in {result.database}"),
        ],
    )
    screen.tell_list("\nErrors (one file was made to be one)", list(result.errors.values()))
    screen.tell("\nCatalog and completed jobs:")
    for check in result.checks:
        screen.tell_list(f"{'WRONG' if check.problems else 'ok   '}  {check.claim}", check.problems)
    if not result.agrees:
        screen.note("remotetask: catalog and completed jobs do not agree")
        return FAILED
    uri = f"file://{result.database}"
    screen.tell("They agree.\n\nNext:")
    screen.tell(f"  {arguments.program} {arguments.again}\n      goes on where this run ended")
    screen.tell(
        f"  {arguments.program} run {shlex.quote(uri)} --import lovely.remotetask.command.demo"
    )
    screen.tell("      lets the cron job report every minute, until Ctrl-C")
    return DONE


# -- remotetask run -----------------------------------------------------------------------


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add_database_arguments(parser)
    parser.add_argument(
        "--autostart",
        metavar="PATTERNS",
        default="*@*",
        help="the services, as site@service patterns with commas between them, "
        "such as '@tasks, shop@*'; @service is in the root (default: %(default)s, all)",
    )
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=_seconds,
        default=threading.TIMEOUT_MAX,
        help="when stopped, wait no longer than this for running jobs (default: without bound)",
    )


def run_services(arguments: argparse.Namespace, screen: Screen) -> int:
    """Work on the services of a database until a signal comes.

    Transaction: must not run in one; commits.
    """
    import_modules(arguments.modules)
    is_ours = set_up_logging(arguments.verbose, package=logging.INFO, jobs=logging.WARNING)
    shown = without_password(arguments.uri)
    db = open_database(arguments.uri)
    if is_ours:
        logging.getLogger().setLevel(logging.WARNING)  # what cannot be opened is told once, by us
    try:
        with Signals() as signals:
            started = start_services(db, split_patterns(arguments.autostart))
            if not started:
                if _is_any_named(db, arguments.autostart):  # the log says why
                    raise RemoteTaskError(f"no service in {shown} could be started")
                raise RemoteTaskError(f"no service in {shown} matches {arguments.autostart!r}")
            services = "1 service" if started == 1 else f"{started} services"
            screen.tell(f"{services} of {shown} at work; to stop: Ctrl-C, or kill {os.getpid()}")
            screen.result({"services": started, "database": shown, "pid": os.getpid()})
            while not signals.wait(LOOK_SECONDS):
                pass
            screen.note("Stopping when the running jobs are done; a second signal leaves now.")
            if not leave(arguments.grace):
                screen.note("remotetask: jobs were still running; they will be run again")
                _leave_now(FAILED)
    finally:
        close_database(db)
    return DONE


def _is_any_named(db: Any, patterns: str) -> bool:
    connection = db.open(transaction.TransactionManager())
    try:
        return any(find_services(connection.root(), split_patterns(patterns)))
    finally:
        connection.close()


# -- the command line ---------------------------------------------------------------------


class Command(NamedTuple):
    """A command: its function, what adds its arguments, and its help."""

    run: Callable[[argparse.Namespace, Screen], int]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    help: str
    description: str


COMMANDS = {
    "demo": Command(
        run_demo,
        _add_demo_arguments,
        "see it work: index text files, and prove that jobs and catalog agree",
        """\
Indexes the text files under PATH, one job a file, into a catalog in the same database, and
proves that the catalog and the completed jobs agree.  Beside that it shows a delayed job, a
cron job, and a job that is an error.  Run it again, and it goes on where it was, also after
Ctrl-C or kill -9.

examples:
  remotetask demo                      Python's standard library, about 15 seconds
  remotetask demo ~/src --limit 5000   more files
  remotetask demo . --json | jq .jobs  for programs
""",
    ),
    "run": Command(
        run_services,
        _add_run_arguments,
        "work on the services of a database until told to stop",
        """\
Opens a database and works on the jobs of its services until SIGINT (Ctrl-C), SIGTERM, SIGHUP or
SIGQUIT.  Then it finishes the jobs that run, and gives back the others that it holds, and what
still runs when the time of --grace is over; a second signal ends the process on the spot: its
jobs are run again.

examples:
  remotetask run zeo://localhost:8100 --import shop.tasks
  remotetask run file:///srv/shop/Data.fs --import shop.tasks --autostart '@tasks'
  remotetask run 'postgresql://shop:secret@localhost:5432/shop?keep_history=0' --grace 30
""",
    ),
    "check": Command(
        check_services,
        add_check_arguments,
        "check jobs against their indexes, and mend what is wrong",
        """\
Looks for jobs that wait nowhere, entries of jobs that are gone, claims that nobody holds, and
counts that are wrong: traces of jobs deleted by hand, of undone transactions, of databases
partly restored.  Exit code 1 tells of problems that were found and not mended.  It may run
beside workers, except on a file, which only one process can open.

examples:
  remotetask check file:///srv/shop/Data.fs
  remotetask check zeo://localhost:8100 --service '@tasks' --repair
""",
    ),
    "clean": Command(
        clean_services,
        add_clean_arguments,
        "remove jobs that have ended",
        """\
Removes jobs that are completed, an error or cancelled, those that ended first, some hundreds
in one transaction.  It may run beside workers, except on a file, which only one process can
open.  The file gets smaller when the database is packed.

examples:
  remotetask clean file:///srv/shop/Data.fs
  remotetask clean zeo://localhost:8100 --service '@tasks' --status completed --older-than 7d
""",
    ),
    "add": Command(
        add_job,
        add_add_arguments,
        "add a job",
        """\
Adds one job to a service, commits, and prints the id of the job.  The input is at most 1 MB
large and nested 100 levels deep, unless the service sets limits of its own.

example:
  remotetask add zeo://localhost:8100 thumbnail --input '{"size": 128}' --import shop.tasks
""",
    ),
}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) <= threading.TIMEOUT_MAX:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("remotetask", description="Job queues in ZODB.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.help,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print the result as JSON")
        subparser.add_argument(
            "--verbose", action="store_true", help="log each job, and show tracebacks"
        )
        subparser.set_defaults(run=command.run)
    return parser


def _version() -> str:
    try:
        return version("lovely.remotetask")
    except PackageNotFoundError:
        return "(not installed)"


def _program() -> str:
    """Return what calls this command again, as the user has called it."""
    called = sys.argv[0]
    if Path(called).name != "remotetask":
        return "python -m lovely.remotetask.command.main"
    return "remotetask" if shutil.which("remotetask") == called else shlex.quote(called)


def main(argv: list[str] | None = None) -> int:
    """Run the command ``remotetask`` and return its exit code.

    :param argv: the arguments; None takes those of the process.

    Transaction: must not run in one; commits.
    """
    replace_closed_streams()
    try:
        code = _run(argv)
        sys.stdout.flush()  # what cannot be written is to be noticed
        return code
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # nobody reads any more, as in ``remotetask demo | head -1``
        return FAILED
    except Exception as error:
        if "--verbose" in (sys.argv[1:] if argv is None else argv):
            complain(traceback.format_exc())
        text = str(error) if isinstance(error, (RemoteTaskError, OSError)) else describe_kind(error)
        complain(f"remotetask: {' '.join(text.split())}\n")
        return WRONG_USAGE if isinstance(error, InvalidArgument) else FAILED
    finally:
        give_up_broken_streams()


def _run(argv: list[str] | None) -> int:
    # Not at once: argparse passes over what cannot be written.
    answer = io.StringIO()
    try:
        with redirect_stdout(answer):
            arguments = _parser().parse_args(argv)
    except SystemExit as end:
        if answer.getvalue():
            say(answer.getvalue().rstrip("\n"))
        return DONE if end.code is None else int(end.code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may be no text
            stream.reconfigure(errors="backslashreplace")
    arguments.program = _program()
    arguments.again = shlex.join(sys.argv[1:] if argv is None else argv)
    code: int = arguments.run(arguments, Screen(arguments.json))
    return code


if __name__ == "__main__":
    sys.exit(main())
