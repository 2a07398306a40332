# SPDX-License-Identifier: ZPL-2.1
"""The text files that the demo indexes, and the words in them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypedDict

from lovely.remotetask.errors import InvalidArgument, TaskError

#: What is taken for text, by the end of its name.
SUFFIXES = (
    *(".c", ".cfg", ".conf", ".cpp", ".css", ".csv", ".h", ".htm", ".html", ".ini", ".java"),
    *(".js", ".json", ".md", ".po", ".py", ".pyi", ".rst", ".sh", ".sql", ".toml", ".ts"),
    *(".txt", ".xml", ".yaml", ".yml", ".zcml"),
)

#: Passed over: these directories, those whose names start with a dot, and larger files.
SKIPPED_DIRECTORIES = frozenset({"__pycache__", "dist-packages", "node_modules", "site-packages"})
MAX_FILE_BYTES = 1_000_000

_WORD = re.compile(r"[^\W\d_]{2,40}")


class File(TypedDict):
    """The input of an index job.  ``version`` changes with the file."""

    path: str
    version: str


def find_files(path: Path, limit: int, skip: Path) -> list[File]:
    """Return the text files under `path`, or `path` itself if it is a file.

    :param limit: no more files than this.
    :param skip: a directory that is passed over.
    :raises InvalidArgument: there is no such path, or there are no text files.
    :raises OSError: it cannot be read.
    """
    path = path.resolve()
    if not path.exists():
        raise InvalidArgument(f"there is no file or directory {path}")
    if path.is_dir():
        os.scandir(path).close()  # os.walk would pass over what it cannot read
    paths = _walk(path, skip.resolve()) if path.is_dir() else iter([path])
    found = list(islice(filter(None, map(file_at, paths)), limit))
    if not found:
        raise InvalidArgument(
            f"there are no text files under {path}: names that end in .py, .rst, .txt and the like "
            f"are looked for, of files of up to {MAX_FILE_BYTES // 1_000_000} MB, but not in "
            f"hidden directories, nor in {', '.join(sorted(SKIPPED_DIRECTORIES))}"
        )
    return found


def _walk(path: Path, skip: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_DIRECTORIES
            and Path(folder, name) != skip
        )
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                yield Path(folder, name)


def file_at(path: Path) -> File | None:
    """Return what an index job needs of a file; None if it is passed over, or not there."""
    try:
        status = path.stat()
    except OSError:  # it has just gone, or is a link to nowhere
        return None
    if not path.is_file() or status.st_size > MAX_FILE_BYTES:
        return None
    version = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return File(path=str(path), version=version)


def count_words(path: Path) -> Counter[str]:
    """Count the words of a file: runs of letters, in lower case.

    :raises TaskError: it is no text.
    :raises OSError: it cannot be read.
    """
    data = path.read_bytes()
    if b"\0" in data:
        raise TaskError(f"{path} is no text: it has a zero byte at {data.index(0)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return Counter(match.group().lower() for match in _WORD.finditer(text))
