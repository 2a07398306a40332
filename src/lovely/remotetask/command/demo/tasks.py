# SPDX-License-Identifier: ZPL-2.1
"""The demo's tasks.  Importing this module registers them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from lovely.remotetask.command.demo.catalog import Catalog
from lovely.remotetask.command.demo.files import File, count_words
from lovely.remotetask.service import TaskService
from lovely.remotetask.task import TaskContext, task

#: The names of the tasks.
INDEX = "demo.index"
FREQUENT_WORDS = "demo.frequent_words"
REPORT = "demo.report"

#: This many reports of the cron job are kept.
MAX_REPORTS = 60


def index_file(context: TaskContext, input: File) -> dict[str, int | None]:
    """Index one file.

    Transaction: caller commits.
    """
    counts = count_words(Path(input["path"]))
    catalog = catalog_of(context.service)
    replaced = catalog.index(context.jobid, input["path"], input["version"], counts)
    return {"words": sum(counts.values()), "replaces": replaced}


def find_frequent_words(context: TaskContext, input: int) -> dict[str, int]:
    """Return the most frequent words of the catalog, `input` of them, the first one first.

    Transaction: reads only.
    """
    totals: Counter[str] = Counter()
    for word, _, count in catalog_of(context.service).postings():
        totals[word] += count
    return dict(totals.most_common(input))


def write_report(context: TaskContext, input: None) -> None:
    """Write down how far the catalog is.

    Transaction: caller commits.
    """
    catalog = catalog_of(context.service)
    catalog.reports[time.time()] = {
        "documents": len(catalog.documents),
        "jobs": context.service.countJobs(),
    }
    while len(catalog.reports) > MAX_REPORTS:
        del catalog.reports[catalog.reports.minKey()]


def catalog_of(service: TaskService) -> Catalog:
    """Return the catalog in the database of a service.

    Transaction: reads only.
    """
    catalog: Catalog = service._p_jar.root()["catalog"]
    return catalog


def register() -> None:
    """Register the tasks.  Importing this module does it too, for ``remotetask run``.

    Transaction: none.
    """
    task(INDEX, context=True)(index_file)
    task(FREQUENT_WORDS, context=True)(find_frequent_words)
    task(REPORT, context=True)(write_report)


register()
