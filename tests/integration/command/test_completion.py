# SPDX-License-Identifier: ZPL-2.1
"""``remotetask completion``: what shells make of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lovely.remotetask.command.main import VERBS

#: Asks bash what it would offer for the last word of its arguments.
OFFER = """
    source ./script
    COMP_WORDS=(remotetask "$@"); COMP_CWORD=$#; COMP_LINE="${COMP_WORDS[*]}"
    COMP_POINT=${#COMP_LINE}
    $(complete -p remotetask | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def offered(
    tmp_path: Path, remotetask: Any, need: Callable[[object, str, str], None]
) -> Callable[..., set[str]]:
    """Return a function that returns what bash offers for the last word of a command line."""
    need(shutil.which("bash"), "there is no bash", "apt-get install bash")
    script = remotetask("completion", "bash", cwd=tmp_path)
    assert (script.returncode, script.stderr) == (0, "")
    (tmp_path / "script").write_text(script.stdout)
    (tmp_path / "Data.fs").touch()

    def offered(*words: str) -> set[str]:
        ended = subprocess.run(
            ["bash", "-c", dedent(OFFER), "bash", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return set(ended.stdout.split())

    return offered


def test_bash_offers_verbs_options_choices_and_files(offered: Any) -> None:
    assert offered("") == set(VERBS)
    assert offered("run-") == {"run-now"}
    assert {"--threads", "--wait-for-service", "--json"} <= offered("run", "--")
    assert offered("jobs", "Data.fs", "--status", "c") == {"cancelled", "completed", "cronjob"}
    assert offered("status", "Da") == {"Data.fs"}


def test_zsh_takes_the_script(
    tmp_path: Path, remotetask: Any, need: Callable[[object, str, str], None]
) -> None:
    zsh = shutil.which("zsh")
    need(zsh, "there is no zsh", "apt-get install zsh")
    ended = remotetask("completion", "zsh", cwd=tmp_path)
    (tmp_path / "_remotetask").write_text(ended.stdout)
    assert ended.stdout.startswith("#compdef remotetask")
    assert f"jobs:'{VERBS['jobs']}'" in ended.stdout
    subprocess.run([str(zsh), "-n", "_remotetask"], cwd=tmp_path, check=True)


def test_programs_get_it_as_json_and_other_shells_are_refused(
    tmp_path: Path, remotetask: Any
) -> None:
    told = json.loads(remotetask("completion", "bash", "--json", cwd=tmp_path).stdout)
    assert told["shell"] == "bash"
    assert remotetask("completion", "fish", cwd=tmp_path).returncode == 2


def test_the_command_that_installs_shtab_is_told(
    tmp_path: Path, remotetask: Any, error_of: Any, without: Any
) -> None:
    ended = remotetask("completion", "bash", cwd=tmp_path, PYTHONPATH=without("shtab"))
    assert "pip install 'lovely.remotetask[cli]'" in error_of(ended, 1)
