# SPDX-License-Identifier: ZPL-2.1
"""Run the examples of README.rst and of every page in docs/.

One document is one test, because its examples build upon each other: as tests of their own
they would be shuffled.  What runs is every ``>>>`` line, and every ``code-block:: python``.
Python that is only shown stands after ``.. skip: next``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from types import ModuleType

import pytest
from sybil import Document, Region
from sybil.parsers.rest import DocTestParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent.parent
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


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.rst"
    for wrong in (">>> 1 + 1\n3\n", ".. code-block:: python\n\n   assert 1 + 1 == 3\n"):
        page.write_text(wrong)
        with pytest.raises(AssertionError):
            run_examples(page, monkeypatch)


def test_the_examples_of_the_readme_are_found() -> None:
    document = Document.parse(str(ROOT / "README.rst"), *PARSERS)
    assert len(list(document)) > 0
