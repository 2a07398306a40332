# SPDX-License-Identifier: ZPL-2.1
"""What the demo's jobs do to the catalog, through whichever door they came."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from lovely.remotetask.command.demo.catalog import Catalog
from lovely.remotetask.command.demo.files import File, count_words
from lovely.remotetask.engine.service import Service
from lovely.remotetask.store.count import count_jobs

#: The names of tasks, and of factories.
INDEX = "demo.index"
FREQUENT_WORDS = "demo.frequent_words"
REPORT = "demo.report"

#: This many reports are kept.
MAX_REPORTS = 60


def index_file(service: Service, id: int, file: File) -> dict[str, int | None]:
    """Index one file.

    :param id: the number of its job.

    Transaction: caller commits.
    """
    counts = count_words(Path(file["path"]))
    replaced = catalog_of(service).index(id, file["path"], file["version"], counts)
    return {"words": sum(counts.values()), "replaces": replaced}


def find_frequent_words(service: Service, limit: int) -> dict[str, int]:
    """Return the most frequent words of the catalog, the first one first.

    :param limit: so many of them.

    Transaction: reads only.
    """
    totals: Counter[str] = Counter()
    for word, _, count in catalog_of(service).postings():
        totals[word] += count
    return dict(totals.most_common(limit))


def write_report(service: Service) -> None:
    """Write down how far the catalog is.

    Transaction: caller commits.
    """
    catalog = catalog_of(service)
    catalog.reports[time.time()] = {
        "documents": len(catalog.documents),
        "jobs": count_jobs(service),
    }
    while len(catalog.reports) > MAX_REPORTS:
        del catalog.reports[catalog.reports.minKey()]


def catalog_of(service: Service) -> Catalog:
    """Return the catalog in the database of a service.

    Transaction: reads only.
    """
    catalog: Catalog = service._p_jar.root()["catalog"]
    return catalog
