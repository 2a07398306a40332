# SPDX-License-Identifier: ZPL-2.1
"""``remotetask completion``: lets a shell complete what is typed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from lovely.remotetask.command.output import DONE, Output
from lovely.remotetask.errors import RemoteTaskError

#: What stands for a file, and for a directory, in the help.
FILES, DIRECTORIES = ("URI", "PATH"), ("DIR",)

DESCRIPTION = """\
Prints a script that lets a shell complete commands, options, statuses and files.

examples:
  eval "$(remotetask completion bash)"      in ~/.bashrc
  remotetask completion zsh > ~/.zfunc/_remotetask
      with these lines in ~/.zshrc:
      fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``remotetask completion`` takes."""
    parser.description = DESCRIPTION
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Print the script.

    Transaction: none.
    """
    try:
        import shtab
    except ImportError:
        raise RemoteTaskError(
            "completion takes shtab: pip install 'lovely.remotetask[cli]'"
        ) from None
    parser = arguments.whole_parser()
    for action in _actions(parser):
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in DIRECTORIES:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    script = shtab.complete(parser, arguments.shell)
    output.tell(script.rstrip())
    output.result({"shell": arguments.shell, "script": script})
    return DONE


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser, and those of its verbs, which get short descriptions."""
    for action in vars(parser)["_actions"]:  # there is no public way, and shtab takes this one
        yield action
        if isinstance(action.choices, dict):
            for verb in action.choices.values():
                verb.description = verb.get_default("brief")  # zsh shows one line of it
                yield from _actions(verb)
