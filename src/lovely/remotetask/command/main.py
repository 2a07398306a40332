# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``: its entry point and its parser.

A verb is one module beside this one, and one line of the table `VERBS`.  The module has
``add_arguments(parser)``, which also describes the verb, and ``run(arguments, output)``, which
returns the exit code.  Results go to stdout, as JSON if that is asked for; all else goes to
stderr.  Exit codes: 0 done, 1 failed, 2 the command line is wrong, 3 the time was over, 4 processes
have died again and again, 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Collection
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lovely.remotetask.command.output import (
    BY_SIGNAL,
    DONE,
    FAILED,
    WRONG_USAGE,
    Output,
    complain,
    describe_kind,
    give_up_broken_streams,
    replace_closed_streams,
    say,
)
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

PACKAGE = "lovely.remotetask.command"

#: The name of a verb, which is that of its module (with _ for -) -> its line in the help.
VERBS = {
    "demo": "see it work: index text files, and prove that jobs and catalog agree",
    "run": "work on the services of a database until told to stop",
    "check": "check jobs against their indexes, and mend what is wrong",
    "init": "make a service, and the database if there is none",
    "clean": "remove jobs that have ended",
    "add": "add a job",
    "status": "say how many jobs there are, what is paused, and who works",
    "jobs": "list jobs",
    "job": "show one job with all that is known of it",
    "wait": "wait until jobs have ended",
    "retry": "run errors and cancelled jobs again",
    "cancel": "take jobs back, or ask them to stop",
    "undo": "undo what completed jobs have done",
    "run-now": "let jobs run at once that wait for a time",
    "pause": "hold back all jobs, or those of a task",
    "resume": "let jobs be claimed again",
    "schedules": "list the schedules, and what came of their last runs",
    "workers": "say who works",
    "web": "serve pages to look after jobs, and calls by JSON and XML-RPC",
    "credential": "make a token, or a line of passwords, for remotetask web",
    "upgrade": "bring services of lovely.remotetask 0.5 to today's records",
    "uninstall": "take services out of a database, so that the package can be removed",
    "completion": "let a shell complete what is typed",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command ``remotetask`` and return its exit code.

    :param argv: the arguments; None takes those of the process.

    Transaction: must not run in one; commits.
    """
    replace_closed_streams()
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _run(words)
        sys.stdout.flush()  # what cannot be written is to be noticed
        return code
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # nobody reads any more, as in ``remotetask demo | head -1``
        return FAILED
    except Exception as error:
        if "--verbose" in words:
            complain(traceback.format_exc())
        text = str(error) if isinstance(error, (RemoteTaskError, OSError)) else describe_kind(error)
        complain(f"remotetask: {' '.join(text.split())}\n")
        return WRONG_USAGE if isinstance(error, InvalidArgument) else FAILED
    finally:
        give_up_broken_streams()


def _run(words: list[str]) -> int:
    # Not at once: argparse passes over what cannot be written.
    answer = io.StringIO()
    named = [word for word in words if not word.startswith("-")]
    try:
        with redirect_stdout(answer):
            arguments = _parser(named[:1]).parse_args(words)
    except SystemExit as end:
        if answer.getvalue():
            say(answer.getvalue().rstrip("\n"))
        return DONE if end.code is None else int(end.code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may be no text
            stream.reconfigure(errors="backslashreplace")
    arguments.program = _program()
    arguments.again = shlex.join(words)
    arguments.same_command = _same_command(words)
    arguments.whole_parser = lambda: _parser(VERBS)
    code: int = arguments.run(arguments, Output(arguments.json))
    return code


def _parser(named: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser, which knows the arguments of the verbs that are named."""
    parser = argparse.ArgumentParser("remotetask", description="Job queues in ZODB.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in VERBS.items():
        verb_parser = verbs.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        verb_parser.set_defaults(brief=text)
        if name in named:
            _add_arguments(verb_parser, name)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    # No verb is imported that is not asked for: the demo's registers tasks.
    verb = import_module(f"{PACKAGE}.{name.replace('-', '_')}")
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--verbose", action="store_true", help="log each job, and show tracebacks")
    parser.set_defaults(run=verb.run)


def _version() -> str:
    try:
        return version("lovely.remotetask")
    except PackageNotFoundError:
        return "(not installed)"


def _same_command(words: list[str]) -> list[str]:
    """Return what starts this command once more, in a process of its own."""
    if words == sys.argv[1:] and sys.orig_argv[len(sys.orig_argv) - len(words) :] == words:
        return [sys.executable, *sys.orig_argv[1:]]
    return [sys.executable, "-m", "lovely.remotetask.cli", *words]


def _program() -> str:
    """Return what calls this command again, as the user has called it."""
    called = sys.argv[0]
    if Path(called).name != "remotetask":
        return "python -m lovely.remotetask.cli"
    return "remotetask" if shutil.which("remotetask") == called else shlex.quote(called)
