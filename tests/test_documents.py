# SPDX-License-Identifier: ZPL-2.1
"""Run the examples of README.rst and of every page in docs/.

One document is one test, because its examples build upon each other: as tests of their own
they would be shuffled.  What runs is every ``>>>`` line, and every ``code-block:: python``.
Python that is only shown stands after ``.. skip: next``.

Command lines of ``remotetask`` are read by its parser.

A program of ``docs/examples`` is run as its readers do, where a page says ``.. program: NAME``;
what it prints is in the console block that follows.  Tests that stand there are run by pytest.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from textwrap import dedent, indent
from types import ModuleType
from typing import Any

import pytest
from sybil import Document, Region
from sybil.parsers.rest import DocTestParser, PythonCodeBlockParser, SkipParser

from lovely.remotetask.command.main import main

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
DOCUMENTS = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]


def plain_code_blocks(document: Document) -> Iterable[Region]:
    """Find the Python blocks that are no session: the lines of a session run one by one."""
    for region in PythonCodeBlockParser()(document):
        if not region.parsed.lstrip().startswith(">>>"):
            yield region


PARSERS = (DocTestParser(ELLIPSIS | NORMALIZE_WHITESPACE), plain_code_blocks, SkipParser())


def run_examples(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the examples of a document, in order, and return how many there are.

    :raises sybil.example.SybilFailure: at the first one that does not do what it says.
    """
    document = Document.parse(str(path), *PARSERS)
    # Classes can be stored only if they belong to a module that can be imported.
    module = ModuleType("document")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = vars(module)
    examples = list(document)
    for example in examples:
        example.evaluate()
    return len(examples)


@pytest.mark.usefixtures("empty_registry")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_a_document_do_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_examples(path, monkeypatch)


def programs() -> dict[str, str]:
    """Return the programs that pages show, and what each of them is said to print."""
    shown = re.compile(
        r"^\.\. program: (\S+)\n\n\.\. code-block:: console\n\n +\$ .+\n((?: .*\n|\n)+)", re.M
    )
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    return {name: dedent(printed).rstrip("\n") + "\n" for name, printed in shown.findall(text)}


@pytest.mark.parametrize("name", programs())
def test_a_program_prints_what_its_page_says(name: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    ended = subprocess.run(
        [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    expected = programs()[name]
    assert OutputChecker().check_output(expected, ended.stdout, ELLIPSIS), ended.stdout


def test_every_example_is_a_program_or_imported_by_one() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
    for name in texts.keys() - {Path(program).stem for program in programs()}:
        imports = (f"from {name} import", f"import {name}\n")
        is_imported = any(line in text for text in texts.values() for line in imports)
        assert is_imported or name.startswith("test_"), name


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("test_*.py")])
def test_the_tests_of_an_example_pass(name: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout
    count = (EXAMPLES / name).read_text(encoding="utf-8").count("\ndef test_")
    assert f"{count} passed" in ended.stdout


def test_the_first_program_of_the_readme_is_a_file() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    program = (EXAMPLES / "first_job.py").read_text(encoding="utf-8")
    assert indent(program, "   ") in text


def command_lines() -> list[str]:
    """Return the command lines of remotetask in the pages, and in the files to deploy."""
    shown = re.compile(r"^\s+\$ (?:\S*/)?remotetask (.+)$", re.M)
    pages = [path.read_text("utf-8").replace("\\\n", "") for path in DOCUMENTS]
    lines = [line for page in pages for line in shown.findall(page)]
    starts = re.compile(r"^(?:ExecStart|command) ?= ?\S+/remotetask (.+)$", re.M)
    for path in (EXAMPLES / "deploy").iterdir():
        lines += starts.findall(path.read_text("utf-8").replace("\\\n", ""))
    [entry] = re.findall(
        r"^ENTRYPOINT (.+)$", (EXAMPLES / "deploy" / "Dockerfile").read_text(), re.M
    )
    lines.append(" ".join([*json.loads(entry)[1:], "zeo://zeo:8100"]))
    return lines


@pytest.mark.usefixtures("empty_registry")
@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_that_is_shown_can_be_typed(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["remotetask"])
    words = shlex.split(line.partition(">")[0])
    parsed: list[Any] = []
    monkeypatch.setattr(
        f"lovely.remotetask.command.{words[0].replace('-', '_')}.run",
        lambda arguments, output: parsed.append(arguments) or 0,
    )
    assert main(words) == 0
    assert parsed


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.rst"
    for wrong in (">>> 1 + 1\n3\n", ".. code-block:: python\n\n   assert 1 + 1 == 3\n"):
        page.write_text(wrong)
        with pytest.raises(AssertionError):
            run_examples(page, monkeypatch)


def test_the_examples_of_the_readme_are_found() -> None:
    document = Document.parse(str(ROOT / "README.rst"), *PARSERS)
    assert len(list(document)) > 0
