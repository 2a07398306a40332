# SPDX-License-Identifier: ZPL-2.1
"""What is in the files that get published: the wheel and the source distribution."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PINS = sorted((ROOT / "tests" / "pins").glob("*.txt"))


def build(target: str, directory: Path) -> Path:
    """Build `target` ("wheel" or "sdist") without the network, and return the file."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)],
        cwd=ROOT,
        check=True,
    )
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    with ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def sdist_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with tarfile.open(build("sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def package_files(archive: ZipFile) -> set[str]:
    return {name for name in archive.namelist() if ".dist-info/" not in name}


def in_dist_info(archive: ZipFile, name: str) -> str:
    (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
    return archive.read(path).decode()


def metadata(archive: ZipFile) -> Message:
    return Parser().parsestr(in_dist_info(archive, "METADATA"))


def test_the_wheel_holds_the_files_of_the_package_and_nothing_else(wheel: ZipFile) -> None:
    source = ROOT / "src"
    assert package_files(wheel) == {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_everything_in_the_wheel_stands_in_lovely_remotetask(wheel: ZipFile) -> None:
    assert {name for name in package_files(wheel) if not name.startswith("lovely/remotetask/")} == (
        set()
    )


def test_the_wheel_leaves_the_namespace_open_for_other_distributions(wheel: ZipFile) -> None:
    assert "lovely/__init__.py" not in package_files(wheel)


@pytest.mark.parametrize("name", ["__init__.py", "py.typed", "configure.zcml"])
def test_the_wheel_holds(wheel: ZipFile, name: str) -> None:
    assert f"lovely/remotetask/{name}" in package_files(wheel)


def test_the_wheel_holds_no_tests_of_ours(wheel: ZipFile) -> None:
    assert not [
        name
        for name in package_files(wheel)
        if "tests" in name.split("/") or name.split("/")[-1].startswith(("test_", "conftest"))
    ]


def test_the_wheel_carries_its_license(wheel: ZipFile) -> None:
    assert metadata(wheel)["License-Expression"] == "ZPL-2.1"
    assert in_dist_info(wheel, "licenses/LICENSE.txt") == (ROOT / "LICENSE.txt").read_text()


def test_the_wheel_installs_the_command_remotetask(wheel: ZipFile) -> None:
    entry_points = ConfigParser()
    entry_points.read_string(in_dist_info(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == {
        "remotetask": "lovely.remotetask.command.main:main"
    }


def test_the_command_remotetask_has_something_to_call() -> None:
    assert callable(import_module("lovely.remotetask.command.main").main)


def test_the_page_of_the_project_is_the_readme(wheel: ZipFile) -> None:
    assert metadata(wheel)["Description-Content-Type"] == "text/x-rst"
    assert metadata(wheel).get_payload() == (ROOT / "README.rst").read_text()


def test_the_oldest_versions_that_are_asked_for_are_the_oldest_that_are_tested(
    wheel: ZipFile,
) -> None:
    pinned: dict[str, set[Version]] = {}
    for pins in PINS:
        for line in pins.read_text().splitlines():
            name, _, number = line.partition(";")[0].strip().partition("==")
            pinned.setdefault(canonicalize_name(name), set()).add(Version(number))
    bounds = {
        canonicalize_name(needed.name): Version(specifier.version)
        for needed in map(Requirement, metadata(wheel).get_all("Requires-Dist", ()))
        for specifier in needed.specifier
        if specifier.operator == ">=" and canonicalize_name(needed.name) in pinned
    }
    assert {"zodb", "btrees", "persistent", "transaction", "zope-interface"} <= set(bounds)
    assert bounds == {name: min(pinned[name]) for name in bounds}


@pytest.mark.parametrize("pins", PINS, ids=lambda pins: pins.stem)
def test_each_file_of_pins_has_an_environment_of_tox(pins: Path) -> None:
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    assert pins.stem in tox["tox"]["env_list"].replace(",", " ").split()


def test_the_source_distribution_can_be_built_tested_and_documented(
    sdist_files: set[str],
) -> None:
    assert {
        "LICENSE.txt",
        "README.rst",
        "docs/conf.py",
        "pyproject.toml",
        "src/lovely/remotetask/__init__.py",
        "src/lovely/remotetask/py.typed",
        "tests/conftest.py",
        "tests/data/written-by-0.5-python3.fs",
        "tests/pins/one_job.py",
        "tests/pins/zope-6.2.txt",
        "tests/test_packaging.py",
        "tox.ini",
    } <= sdist_files


def test_the_source_distribution_holds_nothing_that_was_made_by_a_run(
    sdist_files: set[str],
) -> None:
    assert not [
        name
        for name in sdist_files
        if {"__pycache__", ".venv", ".mypy_cache", "_build"} & set(name.split("/"))
    ]


def test_nothing_lies_at_the_top_but_what_belongs_there(need: Any) -> None:
    need((ROOT / ".git").exists(), "only a clone tells what is kept", "git clone")
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    at_the_top = {name.partition("/")[0] for name in kept.stdout.splitlines()}
    plain = {name for name in at_the_top if not name.startswith(".")}
    assert plain == {
        "CHANGES.rst",
        "LICENSE.txt",
        "README.rst",
        "benchmarks",
        "docs",
        "pyproject.toml",
        "src",
        "tests",
        "tox.ini",
    }
    assert at_the_top - plain == {".ci", ".editorconfig", ".gitignore", ".readthedocs.yaml"}
