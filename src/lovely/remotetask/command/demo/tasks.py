# SPDX-License-Identifier: ZPL-2.1
"""The demo's tasks.  Importing this module registers them."""

from __future__ import annotations

from lovely.remotetask.command.demo import indexing
from lovely.remotetask.command.demo.files import File
from lovely.remotetask.command.demo.indexing import FREQUENT_WORDS, INDEX, REPORT
from lovely.remotetask.task import TaskContext, task


def index_file(context: TaskContext, input: File) -> dict[str, int | None]:
    """See `indexing`."""
    return indexing.index_file(context.service, context.jobid, input)


def find_frequent_words(context: TaskContext, input: int) -> dict[str, int]:
    """See `indexing`."""
    return indexing.find_frequent_words(context.service, input)


def write_report(context: TaskContext, input: None) -> None:
    """See `indexing`."""
    indexing.write_report(context.service)


def register() -> None:
    """Register the tasks.  Importing this module does it too, for ``remotetask run``.

    Transaction: none.
    """
    task(INDEX, context=True)(index_file)
    task(FREQUENT_WORDS, context=True)(find_frequent_words)
    task(REPORT, context=True)(write_report)


register()
