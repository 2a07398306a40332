# SPDX-License-Identifier: ZPL-2.1
"""What the tests in real hosts share: one Plone, made and started once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plone_server import Plone


@pytest.fixture(scope="session")
def instance(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[[object, str, str], None]
) -> Iterator[Plone]:
    python = os.environ.get("REMOTETASK_PLONE_PYTHON")
    need(
        python,
        "REMOTETASK_PLONE_PYTHON names no Python that has Plone and this package",
        "python3 -m venv plone && plone/bin/pip install -r tests/pins/plone-6.2.in -e . && "
        "export REMOTETASK_PLONE_PYTHON=$PWD/plone/bin/python",
    )
    instance = Plone(Path(str(python)), tmp_path_factory.mktemp("plone") / "instance")
    yield instance
    instance.stop()


@pytest.fixture
def plone(instance: Plone) -> Plone:
    """A Plone that serves."""
    if instance._server is None:
        instance.start()
    return instance
